"""Rendered parts in a whole configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ratelimit_service.cli.render import render
from ratelimit_service.policy.render.bootstrap import MANAGER, NoPlace, put_into
from support.golden_sets import FOLDER

PARTS: dict[str, Any] = {
    "clusters": [{"name": "tidegate"}],
    "http_filters": [{"name": "limit"}],
    "rate_limits": [{"actions": ["new"]}],
}


def configuration(*managers: dict[str, Any]) -> dict[str, Any]:
    chains = [{"filters": [{"typed_config": {"@type": MANAGER, **manager}}]} for manager in managers]
    return {"static_resources": {"listeners": [{"filter_chains": [chain]} for chain in chains]}}


def manager(*hosts: dict[str, Any]) -> dict[str, Any]:
    return {"http_filters": [{"name": "cors"}, {"name": "router"}], "route_config": {"virtual_hosts": list(hosts)}}


def found_managers(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [each["filter_chains"][0]["filters"][0]["typed_config"] for each in made["static_resources"]["listeners"]]


def test_every_part_is_in_its_place() -> None:
    """The filter before the router, the list on virtual hosts and on routes that have one; the original stays."""
    own = {"route": {"rate_limits": [{"actions": ["old"]}]}}
    before = configuration(
        manager({"routes": [own, {"route": {}}, {"redirect": {}}]}), manager({"rate_limits": [{"actions": ["old"]}]})
    )
    made: Any = put_into(before, PARTS)
    first, second = found_managers(made)
    host = first["route_config"]["virtual_hosts"][0]

    assert [each["name"] for each in first["http_filters"]] == ["cors", "limit", "router"]
    assert host["rate_limits"] == PARTS["rate_limits"]
    assert host["routes"][0]["route"]["rate_limits"] == [{"actions": ["old"]}, {"actions": ["new"]}]
    assert host["routes"][1:] == [{"route": {}}, {"redirect": {}}]
    assert second["route_config"]["virtual_hosts"][0]["rate_limits"] == [{"actions": ["old"]}, {"actions": ["new"]}]
    assert made["static_resources"]["clusters"] == PARTS["clusters"]
    assert "clusters" not in before["static_resources"]
    assert (
        len(
            before["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        )
        == 2
    )


def test_local_limits_go_on_virtual_hosts() -> None:
    """Beside the settings of other filters; routes take them from there."""
    own = {"routes": [{"route": {"rate_limits": [{}]}}], "typed_per_filter_config": {"cors": {}}}
    made: Any = put_into(configuration(manager(own)), {**PARTS, "typed_per_filter_config": {"local": {"a": 1}}})
    (host,) = found_managers(made)[0]["route_config"]["virtual_hosts"]

    assert host["typed_per_filter_config"] == {"cors": {}, "local": {"a": 1}}
    assert "typed_per_filter_config" not in host["routes"][0]["route"]


@pytest.mark.parametrize(
    ("bootstrap", "words"),
    [
        (None, "no static_resources"),
        ({"static_resources": None}, "no static_resources"),
        ({"static_resources": {"clusters": [{"name": "tidegate"}]}}, "has a cluster `tidegate` already"),
        (configuration({"rds": {}}), "no HTTP connection manager with routes of its own"),
    ],
)
def test_a_configuration_that_cannot_take_them_is_told(bootstrap: object, words: str) -> None:
    """Why."""
    with pytest.raises(NoPlace, match=words):
        put_into(bootstrap, PARTS)


def test_the_command_prints_the_whole(tmp_path: Path) -> None:
    """Or says why it cannot, with exit code 1; not for a Gateway, whose routes are somebody else's."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(yaml.safe_dump(configuration(manager({}))), encoding="utf-8")
    bad.write_text("", encoding="utf-8")
    policies = str(FOLDER / "sets" / "header-any.yaml")
    done = CliRunner().invoke(render, ["envoy", policies, "--into", str(good)])
    refused = CliRunner().invoke(render, ["envoy", policies, "--into", str(bad)])
    gateway = CliRunner().invoke(render, ["envoy", policies, "--into", str(good), "--gateway", "a/b"])

    (only,) = found_managers(yaml.safe_load(done.output))
    assert [each["name"] for each in only["http_filters"]] == ["cors", "envoy.filters.http.ratelimit", "router"]
    assert (refused.exit_code, gateway.exit_code) == (1, 2)
    assert "bad.yaml: it has no static_resources" in refused.output
