"""`tidegate migrate`: files in, manifests out, everything else told on standard error."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from ratelimit_service.cli.main import main
from support.snapshots import snapshot_of


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["migrate", *map(str, arguments)])


def test_envoyproxy_yaml_becomes_manifests_on_standard_output(tmp_path: Path) -> None:
    """Which `validate` and `serve` take."""
    file = tmp_path / "config.yaml"
    file.write_text("domain: shop\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 3}}]\n")
    result = run("envoyproxy", file, "--namespace", "team")

    assert result.exit_code == 0
    assert "1 manifest, 1 rule" in result.stderr
    assert snapshot_of(result.stdout).domains[b"shop"].rules[0].policy == "team/shop"


def test_what_is_left_out_fails_the_command_and_the_rest_is_written(tmp_path: Path) -> None:
    """So that a pipeline notices."""
    file, output = tmp_path / "config.yaml", tmp_path / "out.yaml"
    file.write_text("domain: shop\ndescriptors:\n- key: a\n- key: b\n  value: 'x*y'\n")
    result = run("envoyproxy", file, "-o", output)

    assert result.exit_code == 1
    assert f"{file}:5: descriptors[1].value" in result.stderr
    assert output.read_text().startswith("---\n")


def test_an_old_configuration_becomes_a_profile_and_a_program(tmp_path: Path) -> None:
    """With what became of every field."""
    file, output = tmp_path / "old.json", tmp_path / "profile.yaml"
    file.write_text(
        json.dumps({"windowMs": 1_000, "maxRequests": 5, "keyPrefix": "x", "redis": {"host": "r", "password": "p"}})
    )
    result = run("config", file, "--name", "mine", "-o", output)

    assert result.exit_code == 0
    assert "kept: maxRequests" in result.stderr
    assert "changed: keyPrefix" in result.stderr
    assert "Secret redis-login" in result.stderr
    assert "from_profile" in result.stderr
    assert "kind: CacheProfile" in output.read_text()


def test_a_field_that_is_dropped_fails_the_command(tmp_path: Path) -> None:
    """The profile is written all the same."""
    file = tmp_path / "old.yaml"
    file.write_text("maxMemoryCacheSize: 5\nshards: 3\n")
    result = run("config", file)

    assert result.exit_code == 1
    assert "dropped: shards" in result.stderr
    assert "maxEntries: 5" in result.stdout


def test_files_that_are_no_configuration_are_refused(tmp_path: Path) -> None:
    """Wrong values, wrong YAML, no mapping."""
    for text, said in (("windowMs: -1\n", "windowMs"), ("a: [\n", "error"), ("- a\n", "one mapping is wanted")):
        file = tmp_path / "old.yaml"
        file.write_text(text)
        result = run("config", file)
        assert result.exit_code == 1
        assert said in result.stderr
