"""The real Helm, built once from its Go module, and what it renders."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "tidegate"
MODULE = "helm.sh/helm/v3/cmd/helm@v3.21.4"
CACHE = Path(os.environ.get("TIDEGATE_CACHE", Path.home() / ".cache" / "tidegate")) / "bin"
KUBE_VERSION = "1.34.4"


def find_helm() -> str:
    """Path of a `helm`; it is built when there is none, which takes some minutes."""
    found = shutil.which("helm") or shutil.which("helm", path=str(CACHE))
    if found is not None:
        return found
    go = shutil.which("go")
    if go is None:
        pytest.skip("no helm and no go to build one: install either")
    CACHE.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GOBIN": str(CACHE), "CGO_ENABLED": "0"}
    built = subprocess.run(
        [go, "install", "-trimpath", "-ldflags", "-s -w", MODULE], env=environment, capture_output=True, check=False
    )
    if built.returncode:
        pytest.skip(f"no helm, and {MODULE} did not build: {built.stderr[-500:].decode()}")
    return str(CACHE / "helm")


class Refused(Exception):
    """Helm would not render; the message is its own."""


@lru_cache(maxsize=64)
def _text_of(helm: str, chart: Path, arguments: tuple[str, ...]) -> str:
    command = [helm, "template", "tidegate", str(chart), "--namespace", "tidegate-system"]
    done = subprocess.run(
        [*command, "--kube-version", KUBE_VERSION, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def rendered(helm: str, chart: Path, arguments: Sequence[str] = ()) -> list[dict]:
    """Every object of the chart, as `helm template` gives it, hooks included; the caller's own to change."""
    text = _text_of(helm, chart, tuple(arguments))
    objects = [found for found in yaml.load_all(text, yaml.CSafeLoader) if found]
    return sorted(
        objects, key=lambda each: (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"])
    )
