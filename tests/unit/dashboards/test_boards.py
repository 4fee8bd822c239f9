"""What must hold of every dashboard; the rules of Grafana's own linter, which cannot be installed, and ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest

from ratelimit_operator.metrics import CATALOGUE, PREFIX
from ratelimit_service.telemetry.catalogue import render_metrics_reference
from tools.dashboards.boards import BOARDS
from tools.dashboards.panels import render

FILES = Path(__file__).parents[3] / "helm" / "tidegate" / "files" / "dashboards"
_RANGE = re.compile(r"\$__rate_interval")
_HISTOGRAM = re.compile(r"_(bucket|count|sum)$")
_FROM_ELSEWHERE = re.compile(r"^(envoy_|process_|tidegate_cache_)")
"""Metrics of Envoy, of the process, and of programs that use the cache: tested where they are made."""


def _board(uid: str) -> dict:
    return json.loads((FILES / f"{uid}.json").read_text(encoding="utf-8"))


@pytest.fixture(params=[it.uid for it in BOARDS])
def board(request: pytest.FixtureRequest) -> dict:
    return _board(request.param)


def _panels(board: dict) -> list[dict]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def _queries(board: dict) -> Iterator[tuple[str, str]]:
    for panel in _panels(board):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def _selectors(expr: str) -> Iterator[promql_parser.VectorSelector]:
    def walk(node: object) -> Iterator[promql_parser.VectorSelector]:
        if node is None or isinstance(node, promql_parser.VectorSelector):
            yield from () if node is None else (node,)
            return
        for name in ("expr", "lhs", "rhs", "vector_selector", "args", "param"):
            below = getattr(node, name, None)
            for each in below if isinstance(below, list) else [below]:
                yield from walk(each)

    yield from walk(promql_parser.parse(_RANGE.sub("5m", expr)))


def _known_metrics() -> set[str]:
    service = set(re.findall(r"`(tidegate_\w+)`", render_metrics_reference()))
    return service | {f"{PREFIX}{name}" for name in CATALOGUE}


def test_every_panel_explains_itself(board: dict) -> None:
    """Title, description, unit, data source."""
    panels = _panels(board)
    assert len(panels) >= 4
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith((".", "}"))
        assert panel["datasource"]["uid"] == "$datasource"
        if panel["type"] != "heatmap":
            assert panel["fieldConfig"]["defaults"]["unit"]


def test_every_query_is_of_the_chosen_installation(board: dict) -> None:
    """Every selector has the variables `job` and `instance`."""
    for title, expr in _queries(board):
        selectors = list(_selectors(expr))
        assert selectors, title
        for selector in selectors:
            values = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
            assert values.get("job") == "$job", f"{title}: {expr}"
            assert values.get("instance") == "$instance", f"{title}: {expr}"


def test_every_counter_is_read_as_a_rate(board: dict) -> None:
    """`rate` or `increase` around every `_total`, over the interval that Grafana chooses or one of weeks."""
    for title, expr in _queries(board):
        for found in re.finditer(r"\w+_total\{", expr):
            assert re.search(r"(rate|increase)\($", expr[: found.start()]), f"{title}: {expr}"
        for window in re.findall(r"\[([^\]]+)\]", expr):
            assert window in ("$__rate_interval", "30d"), f"{title}: {expr}"


def test_every_metric_exists(board: dict) -> None:
    """A renamed metric would leave its panel empty."""
    known = _known_metrics()
    for title, expr in _queries(board):
        for selector in _selectors(expr):
            name = str(selector.name)
            if not _FROM_ELSEWHERE.match(name):
                assert name in known or _HISTOGRAM.sub("", name) in known, f"{title}: {name}"


def test_a_board_has_the_variables_of_its_queries(board: dict) -> None:
    """`job` and `instance` take several values, and all of them."""
    variables = {each["name"]: each for each in board["templating"]["list"]}
    used = set(re.findall(r"\$(\w+)", json.dumps(_panels(board)))) - {"__rate_interval"}

    assert used <= set(variables)
    for name in ("job", "instance"):
        assert variables[name]["multi"] is True
        assert variables[name]["allValue"] == ".+"


def test_a_board_cannot_be_edited_and_keeps_its_address(board: dict) -> None:
    """Edits belong into the code; links last."""
    assert board["editable"] is False
    assert board["uid"].startswith("tidegate-")
    assert len({it.uid for it in BOARDS}) == len(BOARDS)


def test_the_files_are_what_the_code_says() -> None:
    """Also checked by `make verify`; here for whoever runs the tests alone."""
    for it in BOARDS:
        assert (FILES / f"{it.uid}.json").read_text(encoding="utf-8") == render(it)
