"""A short way to say what a panel shows, and the one place that speaks to Grafana's SDK.

Every query carries the selectors of the board's variables, so that no panel shows another installation's numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SELECT: Final = 'job=~"$job", instance=~"$instance"'
"""What every query's selectors begin with."""
_WIDTH: Final = 24


class Query(msgspec.Struct, frozen=True):
    """One line of a panel: PromQL and the legend."""

    expr: str
    legend: str = ""


class Panel(msgspec.Struct, frozen=True):
    """What one panel shows.

    Attributes:
        title: A few words.
        description: What to read from it, one or two sentences.
        unit: Grafana's unit, such as `reqps`, `s`, `percentunit`, `short`.
        queries: Its lines.
        kind: `lines`, `stat`, `table` or `heatmap`.
        width: Of 24.
        most: Upper end of the axis, None: as it comes.
    """

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    kind: str = "lines"
    width: int = 12
    most: float | None = None


class Row(msgspec.Struct, frozen=True):
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


class Board(msgspec.Struct, frozen=True):
    """One dashboard.

    Attributes:
        uid: Stable, so that links last.
        title: Its name.
        description: Whose questions it answers.
        probe: A metric that only the scraped processes of this board have; the variables `job` and `instance` are its.
        rows: Its rows.
        variables: Further variables, each (name, query, label).
    """

    uid: str
    title: str
    description: str
    probe: str
    rows: Sequence[Row]
    variables: Sequence[tuple[str, str, str]] = ()


def render(it: Board) -> str:
    """JSON as Grafana imports it."""
    builder = (
        board.Dashboard(it.title)
        .uid(it.uid)
        .description(it.description)
        .tags(["tidegate"])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            board.DashboardLink("Tidegate")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["tidegate"])
            .as_dropdown(True)
        )
        .with_variable(board.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    queries = [("job", f"label_values({it.probe}, job)", "Job")]
    queries += [("instance", f'label_values({it.probe}{{job=~"$job"}}, instance)', "Instance"), *it.variables]
    for name, query, label in queries:
        builder = builder.with_variable(
            board.QueryVariable(name)
            .label(label)
            .query(query)
            .datasource(_source())
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".+")
            .current(model.VariableOption(selected=True, text="All", value="$__all"))
        )
    for row in it.rows:
        builder = builder.with_row(board.Row(row.title))
        for panel in row.panels:
            builder = builder.with_panel(_panel(panel))
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(builder.build())), indent=1, sort_keys=True) + "\n"


def _source() -> model.DataSourceRef:
    return model.DataSourceRef(type_val="prometheus", uid="$datasource")


# The SDK's panels share methods and no class that has them.
_KINDS: Final[Mapping[str, Callable[[], Any]]] = {
    "lines": timeseries.Panel,
    "stat": stat.Panel,
    "table": table.Panel,
    "heatmap": heatmap.Panel,
}


def _panel(it: Panel) -> Any:
    made = _KINDS[it.kind]()
    made = made.title(it.title).description(it.description).datasource(_source()).span(it.width).height(8)
    if it.kind == "lines":
        made = made.min(0).fill_opacity(10).line_width(1).show_points(common.VisibilityMode.NEVER)
        made = made.legend(_legend())
        if it.most is not None:
            made = made.max(it.most)
    if it.kind != "heatmap":
        made = made.unit(it.unit)
    else:
        made = made.y_axis(heatmap.YAxisConfig().unit(it.unit)).calculate(False)
    for number, query in enumerate(it.queries):
        line = (
            prometheus.Dataquery()
            .expr(query.expr)
            .ref_id(chr(ord("A") + number))
            .legend_format(query.legend or "__auto")
        )
        if it.kind == "heatmap":
            line = line.format(PromQueryFormat.HEATMAP)
        if it.kind == "table":
            line = line.format(PromQueryFormat.TABLE).instant()
        made = made.with_target(line)
    return made


def _legend() -> Any:
    """Below the panel, with the last value, so that a printed board can be read."""
    from grafana_foundation_sdk.builders import common as build_common  # noqa: PLC0415 — two modules of one name

    return (
        build_common.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
