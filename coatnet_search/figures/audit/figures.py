"""The audit of a supernet in plotly: pure functions, ``Audit`` in, figure out; the numbers are those of ``marks``."""

import html

import plotly.graph_objects as go

from coatnet_search.analysis.audit import Audit
from coatnet_search.core.quantities import axis_title, quantity
from coatnet_search.figures.search import marks
from coatnet_search.figures.search.figures import INK, LINE, Theme, new_figure


def all_figures(audit: Audit | None, *, theme: Theme = "light") -> dict[str, go.Figure]:
    """The figures by name; none where no network was audited."""
    if audit is None or not audit.networks:
        return {}
    return {"audit-scores": scores(audit, theme=theme), "audit-offsets": offsets(audit, theme=theme)}


def scores(audit: Audit, *, theme: Theme = "light") -> go.Figure:
    """Each audited network's score with inherited weights against its scores trained alone: the mean, and a bar from
    the lowest to the highest seed. On the dashed line both agree."""
    rows, looks = marks.audit_points(audit), marks.audit_looks(audit)
    name = quantity(audit.metric).title
    figure = new_figure("Inherited scores against trainings alone", f"{axis_title(audit.metric)}, inherited weights",
                     f"{axis_title(audit.metric)}, trained alone", theme)  # fmt: skip
    ends = marks.shared_range(rows)
    figure.add_scatter(x=ends, y=ends, mode="lines", name="equal", hoverinfo="skip",
                       line={"color": LINE, "width": 1.5, "dash": "dash"})  # fmt: skip
    for layout, look in looks.items():
        own = rows[rows["layout"] == layout]
        bars = {"type": "data", "symmetric": False, "array": own["y_high"] - own["y"], "thickness": 1, "width": 0,
                "arrayminus": own["y"] - own["y_low"]}  # fmt: skip
        figure.add_scatter(
            x=own["x"], y=own["y"], mode="markers", error_y=bars, name=html.escape(layout), customdata=own["number"],
            marker={"color": look.colour, "symbol": look.shape, "size": 9},
            hovertemplate=f"<b>{html.escape(layout)}</b> trial %{{customdata}}<br>{name}: inherited %{{x:.4~g}}, "
                          "alone %{y:.4~g}<extra></extra>",
        )  # fmt: skip
    return figure


def offsets(audit: Audit, *, theme: Theme = "light") -> go.Figure:
    """How far inherited scores lie from those trained alone, a strip a layout; where there are enough networks, their
    mean with its 95 % interval."""
    rows, looks = marks.audit_points(audit), marks.audit_looks(audit)
    title = f"{axis_title(audit.metric)}: inherited minus alone"
    figure = new_figure("Offset of the inherited scores by layout", "", title, theme)
    for layout, look in looks.items():
        own, label = rows[rows["layout"] == layout], html.escape(layout)
        figure.add_box(y=own["offset"], x=[label] * len(own), boxpoints="all", jitter=0.5, pointpos=0, name=label,
                       marker={"color": look.colour, "size": 7, "opacity": 0.6, "symbol": look.shape},
                       line={"color": "rgba(0,0,0,0)"}, fillcolor="rgba(0,0,0,0)",
                       hovertemplate="%{y:.3~g}<extra></extra>", hoveron="points")  # fmt: skip
    known = marks.audit_offsets(audit)
    figure.add_scatter(x=known["layout"].map(html.escape), y=known["value"], mode="markers", hoverinfo="y",
                       marker={"symbol": "line-ew-open", "size": 26, "color": INK[theme], "line": {"width": 2}},
                       error_y={"type": "data", "symmetric": False, "array": known["high"] - known["value"],
                                "arrayminus": known["value"] - known["low"]})  # fmt: skip
    figure.add_hline(y=0, line={"color": LINE, "width": 1, "dash": "dash"})
    figure.update_layout(showlegend=False, boxmode="overlay")
    return figure
