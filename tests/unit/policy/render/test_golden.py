"""What `tidegate render envoy` makes of each policy set is what is kept; e2e loads and drives the same in a real Envoy.

`TIDEGATE_WRITE_GOLDEN=1` writes them anew: read the difference before you commit it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from support.golden_sets import FOLDER, SETS, golden_text, rendered


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_a_set_renders_as_kept(path: Path) -> None:
    """Configuration and warnings, to the letter."""
    kept = FOLDER / "golden" / path.name
    made = golden_text(*rendered(path))
    if os.environ.get("TIDEGATE_WRITE_GOLDEN"):
        kept.write_text(made, encoding="utf-8")

    assert made == kept.read_text(encoding="utf-8")


IN_CLUSTERS = {"istio": ("istio",), "listener": ("envoy-gateway",), "port": ("envoy-gateway", "--names", "port")}
CHOSEN = [
    path
    for path in SETS
    if path.stem
    in ("every-level", "grpc-route", "hostnames", "listener", "local-on-route", "local-overridden", "route-rule")
]


@pytest.mark.parametrize("form", IN_CLUSTERS)
@pytest.mark.parametrize("path", CHOSEN, ids=lambda path: path.stem)
def test_a_set_renders_as_kept_for_clusters(path: Path, form: str) -> None:
    """EnvoyFilter, and EnvoyPatchPolicy in both schemes of names."""
    kept = FOLDER / "golden" / f"{path.stem}.{form}.yaml"
    command, *more = IN_CLUSTERS[form]
    made = golden_text(*rendered(path, *more, command=command))
    if os.environ.get("TIDEGATE_WRITE_GOLDEN"):
        kept.write_text(made, encoding="utf-8")

    assert made == kept.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    """A set that goes takes its golden files along."""
    wanted = [path.name for path in SETS] + [f"{path.stem}.{form}.yaml" for path in CHOSEN for form in IN_CLUSTERS]
    assert sorted(path.name for path in (FOLDER / "golden").glob("*.yaml")) == sorted(wanted)
    assert len(SETS) >= 40


def test_json_says_what_yaml_says() -> None:
    """One configuration, two forms."""
    as_yaml, as_json = rendered(SETS[0])[0], rendered(SETS[0], "--format", "json")[0]

    assert yaml.safe_load(as_yaml) == json.loads(as_json)
