"""A real Prometheus that scrapes and judges what a test runs."""

from __future__ import annotations

import json
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from e2e.cluster.build import MissingBinaries, find
from e2e.support.processes import running
from support.redis_servers import free_port

RULES: Final = Path(__file__).parents[2] / "helm" / "tidegate" / "files" / "rules.yaml"
"""The rules of the chart."""


class Prometheus:
    """A running Prometheus; what it scrapes may grow."""

    def __init__(self, address: str, folder: Path) -> None:
        self._address = address
        self._folder = folder

    def _get(self, path: str, **parameters: object) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def scrape(self, job: str, addresses: Sequence[str]) -> None:
        """Name what a job scrapes from now on, instead of what it scraped so far; it is found within a second."""
        write_targets(self._folder, job, addresses)

    def targets(self) -> dict[str, str]:
        """Health of each scraped address."""
        return {each["labels"]["instance"]: each["health"] for each in self._get("targets")["activeTargets"]}

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Series now."""
        return list(self._get("query", query=expr)["result"])

    def series(self, expr: str, seconds: float) -> list[dict[str, Any]]:
        """Series over the last seconds."""
        now = time.time()
        return list(self._get("query_range", query=expr, start=now - seconds, end=now, step="1s")["result"])


def skip_without_parts() -> None:
    """Skip where there is no Prometheus or no API server for an installation in small."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus: apt-get install prometheus")
    try:
        find()
    except MissingBinaries as error:
        pytest.skip(str(error))


@contextmanager
def prometheus(
    folder: Path, targets: Mapping[str, Sequence[str]], *, rules: Path = RULES, every: str = "1s"
) -> Iterator[Prometheus]:
    """One that scrapes the addresses of each job and judges rules every so often; gone when the block ends.

    The job `envoy` is asked on Envoy's own path.
    """
    binary = shutil.which("prometheus")
    assert binary is not None
    for job, addresses in targets.items():
        write_targets(folder, job, addresses)
    jobs: list[dict[str, Any]] = [
        {
            "job_name": job,
            "metrics_path": "/stats/prometheus" if job == "envoy" else "/metrics",
            "file_sd_configs": [{"files": [str(folder / f"{job}.targets.json")], "refresh_interval": "1s"}],
        }
        for job in targets
    ]
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(rules)],
        "scrape_configs": jobs,
    }
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    port = free_port()
    arguments = [
        binary, f"--config.file={path}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with running(arguments, folder / "prometheus.log") as process:
        started = Prometheus(f"127.0.0.1:{port}", folder)
        wanted = {address for addresses in targets.values() for address in addresses}
        process.await_("every target to be up", lambda: wanted <= _up(started), timeout_s=60)
        yield started


def write_targets(folder: Path, job: str, addresses: Sequence[str]) -> None:
    """Tell a Prometheus what a job is, by an atomic rename."""
    draft = folder / f".{job}.draft"
    draft.write_text(json.dumps([{"targets": list(addresses)}]), encoding="utf-8")
    draft.rename(folder / f"{job}.targets.json")


def _up(asked: Prometheus) -> set[str]:
    try:
        return {address for address, state in asked.targets().items() if state == "up"}
    except OSError:
        return set()
