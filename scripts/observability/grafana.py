"""Boards as Grafana's JSON, through its foundation SDK."""

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, text, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    TimeZoneBrowser,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.text import TextMode

from scripts.observability.panels import Board, Shown

_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHTS = {"number": 4, "lines": 8, "text": 4}


def to_json(board: Board) -> str:
    builder = (
        dashboard.Dashboard(board.title)
        .uid(f"flowerbed-{board.name}")
        .description(board.says)
        .tags(["flowerbed", "generated"])
        .readonly()
        .refresh("30s")
        .time("now-3h", "now")
        .timezone(TimeZoneBrowser)
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .link(
            dashboard.DashboardLink("Flowerbed")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["flowerbed"])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    for title, panels in board.rows:
        builder = builder.with_row(dashboard.Row(title))
        for shown in panels:
            builder = builder.with_panel(_panel(shown))
    return JSONEncoder(sort_keys=True, indent=2).encode(builder.build()) + "\n"


def _panel(shown: Shown) -> text.Panel | stat.Panel | timeseries.Panel:
    if shown.kind == "text":
        panel = text.Panel().mode(TextMode.MARKDOWN).content(shown.says)
        return panel.title(shown.title).span(shown.width).height(_HEIGHTS["text"])
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)
    made: stat.Panel | timeseries.Panel = (
        stat.Panel()
        .reduce_options(reduced)
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.AREA)
    )
    if shown.kind == "lines":
        legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).show_legend(True)
        made = timeseries.Panel().legend(legend).min(0).fill_opacity(8)
    made = (
        made.title(shown.title)
        .description(shown.says)
        .datasource(_SOURCE)
        .unit(shown.unit)
        .span(shown.width)
        .height(_HEIGHTS[shown.kind])
        .thresholds(_thresholds(shown.bad_from))
    )
    for number, (expr, legend_format) in enumerate(shown.of):
        query = prometheus.Dataquery().expr(expr).legend_format(legend_format)
        made = made.with_target(query.ref_id(chr(ord("A") + number)))
    return made


def _thresholds(bad_from: float | None) -> dashboard.ThresholdsConfig:
    steps = [Threshold(color="green", value=None)]
    if bad_from is not None:
        steps.append(Threshold(color="red", value=bad_from))
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
