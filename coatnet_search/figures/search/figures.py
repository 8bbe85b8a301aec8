"""Pure functions, frame in, plotly figure out; the visual language is that of ``marks.py``.

Every function takes ``theme``: light or dark. A frame with nothing to draw gives a figure that says so.
"""

import html
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from coatnet_search.analysis.frame import Floats
from coatnet_search.analysis.front import SEPARATE_FRONTS, hypervolume_over_trials
from coatnet_search.core.quantities import Sense, axis_title, quality, quantity, sense_of
from coatnet_search.figures.search import marks

Theme = Literal["light", "dark"]
INK = {"light": "#1f2328", "dark": "#e6edf3"}
GROUND = {"light": "#ffffff", "dark": "#0d1117"}
GRID = {"light": "#e3e6ea", "dark": "#2a313a"}
LINE = "#8b949e"  # the front and what belongs to no layout: seen on both grounds


def template(theme: Theme = "light") -> go.layout.Template:
    """The look that all figures share; a page may swap it without touching the data."""
    axis = {"gridcolor": GRID[theme], "linecolor": GRID[theme], "zeroline": False, "ticks": "outside",
            "tickcolor": GRID[theme], "automargin": True, "title": {"standoff": 12}}  # fmt: skip
    layout = {
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 14, "color": INK[theme]},
        "paper_bgcolor": GROUND[theme], "plot_bgcolor": GROUND[theme], "xaxis": axis, "yaxis": axis,
        "title": {"x": 0, "xref": "paper", "font": {"size": 16}}, "margin": {"l": 60, "r": 20, "t": 60, "b": 60},
        "legend": {"title": {"text": "layout"}, "itemsizing": "constant"}, "hovermode": "closest",
        "colorway": list(marks.COLOURS),
    }  # fmt: skip
    return go.layout.Template(layout=layout)


def front(
    frame: pd.DataFrame,
    objectives: Mapping[str, Sense],
    x: str,
    *,
    num_val: int | None = None,
    chosen: Mapping[int, int] | None = None,
    overlay: bool = False,
    y: str | None = None,
    webgl: bool = False,
    most: int | None = None,
    theme: Theme = "light",
) -> go.Figure:
    """``y`` (the study's quality objective, where none is named) against ``x``, with the front of this plane as a line.

    ``chosen``: trial number -> rank, written beside the point. Bars are those of ``marks.interval``, of the front alone
    where there are many trials: hundreds of them would hide the points. ``overlay``: published networks too
    (ImageNet-1K, see ``published``), as grey crosses. ``webgl``: by the graphics card, which thousands of points need
    to appear at once; ``most``: of more trials than this, those off the front are thinned out evenly to so many.
    """
    y = y or quality(objectives)
    rows, looks = marks.points(frame, objectives, x, y, num_val), marks.looks(frame)
    figure = new_figure(
        f"{_capital(quantity(y).title)} against {quantity(x).title}", axis_title(x), axis_title(y), theme
    )
    if rows.empty:
        return empty_figure(figure, f"No trial has both {quantity(y).title} and {quantity(x).title}.")
    rows = _thinned(rows, most)
    line = rows[rows["front"] & (not frame.attrs.get(SEPARATE_FRONTS))].sort_values("x")
    figure.add_scatter(x=line["x"], y=line["y"], mode="lines", name="front", hoverinfo="skip", legendrank=1,
                       line={"shape": step(x, y, objectives), "width": 2, "color": LINE})  # fmt: skip
    figure.add_traces([trace for layout, look in looks.items()
                       for trace in _layout(rows[rows["layout"] == layout], layout, look, x, y, webgl)])  # fmt: skip
    if overlay and len(others := marks.published_points(x, y)):
        figure.add_trace(_published(others))
    if not rows["final"].all():
        marker = {"color": LINE, "size": 9, "symbol": "circle-open", "line": {"width": 2}}
        figure.add_scatter(x=[None], y=[None], mode="markers", name="not final", marker=marker, hoverinfo="skip")
    away = 24 if sense_of(y, objectives) == "min" else -24  # pixels, to the side where no trial is
    for number, rank in (chosen or {}).items():
        for _, row in rows[rows["number"] == number].iterrows():
            place = np.log10(row["x"]) if marks.logarithmic(rows["x"], x) else row["x"]
            figure.add_annotation(x=place, y=row["y"], text=f"<b>{rank}</b>", ax=0, ay=away, arrowwidth=1, arrowhead=0)
    if marks.logarithmic(rows["x"], x):
        figure.update_xaxes(type="log", dtick="D2")
    figure.update_xaxes(tickformat="~s" if quantity(x).form == "count" else ",.4~g")
    return figure


def ring(figure: go.Figure, x: Floats, y: Floats) -> None:
    """A ring around points that a person picked, in the units of the axes."""
    marker = {"size": 18, "symbol": "circle-open", "color": LINE, "line": {"width": 3}}
    figure.add_scatter(x=x, y=y, mode="markers", marker=marker, hoverinfo="skip", showlegend=False)


def by_layout(frame: pd.DataFrame, objectives: Mapping[str, Sense], *, theme: Theme = "light") -> go.Figure:
    """The quality objective of every trial, a strip with its box per layout; open symbols stand outside the box."""
    y = quality(objectives)
    rows, looks = marks.points(frame, objectives, y, y), marks.looks(frame)
    figure = new_figure(f"{_capital(quantity(y).title)} by layout", "", axis_title(y), theme)
    if rows.empty:
        return empty_figure(figure, f"No trial has a {quantity(y).title}.")
    for layout, look in looks.items():
        for final in (True, False):
            part = rows[(rows["layout"] == layout) & (rows["final"] == final)]
            if len(part):
                figure.add_trace(_strip(part, layout, look, final))
    figure.update_layout(showlegend=False, boxmode="overlay")
    return figure


def hypervolume(frame: pd.DataFrame, objectives: Mapping[str, Sense], *, theme: Theme = "light") -> go.Figure:
    """How much of the objectives' box the front fills as trials go on (``hypervolume_over_trials``)."""
    rows = hypervolume_over_trials(frame, objectives)
    figure = new_figure("Growth of the front", "trials", "hypervolume (share of the box)", theme)
    if rows.empty:
        return empty_figure(figure, "No trial is done yet.")
    mode = "lines+markers" if len(rows) < 60 else "lines"
    figure.add_scatter(x=rows["trials"], y=rows["hypervolume"], mode=mode, name="hypervolume", showlegend=False,
                       line={"shape": "hv", "color": marks.COLOURS[0], "width": 2},
                       hovertemplate="after %{x} trials: %{y:.4f}<extra></extra>")  # fmt: skip
    figure.update_yaxes(rangemode="tozero")
    return figure


def learning_curves(frame: pd.DataFrame, objectives: Mapping[str, Sense], *, theme: Theme = "light") -> go.Figure:
    """The quality by epoch: a line a trial, strong on the front; at most ``marks.NUM_CURVES`` trials are drawn."""
    name = marks.curve_name(frame, objectives)
    if name is None:
        return empty_figure(new_figure("Learning curves", "epoch", "", theme), "No trial has reported an epoch.")
    drawn, looks = marks.curves(frame, name, objectives), marks.looks(frame)
    count = f"{len(drawn):,} of {len(frame):,} trials"
    title = f"{_capital(quantity(name).title)} by epoch ({count}, the front drawn strong)"
    figure = new_figure(title, "epoch", axis_title(name), theme)
    for layout, look in looks.items():
        own = [pair for pair in drawn if pair[0]["layout"] == layout]
        for on_front in (False, True):
            part = [pair for pair in own if pair[0]["on_front"] == on_front]
            if part:
                figure.add_trace(_lines(part, layout, look, on_front, entry=on_front or len(part) == len(own)))
    figure.update_xaxes(rangemode="tozero")
    return figure


def all_figures(
    frame: pd.DataFrame,
    objectives: Mapping[str, Sense],
    *,
    num_val: int | None = None,
    chosen: Mapping[int, int] | None = None,
    overlay: bool = False,
    theme: Theme = "light",
) -> dict[str, go.Figure]:
    """The report's figures by name: ``front-macs``, ``front-throughput_images_per_s``, ``layouts``, ..."""
    out = {f"front-{x}": front(frame, objectives, x, num_val=num_val, chosen=chosen, overlay=overlay, theme=theme)
           for x in marks.axes(frame, objectives)}  # fmt: skip
    out["layouts"] = by_layout(frame, objectives, theme=theme)
    out["hypervolume"] = hypervolume(frame, objectives, theme=theme)
    out["curves"] = learning_curves(frame, objectives, theme=theme)
    return out


def new_figure(title: str, x_title: str, y_title: str, theme: Theme) -> go.Figure:
    """A figure without data, in the look that all share."""
    figure = go.Figure()
    figure.update_layout(template=template(theme), title_text=html.escape(title), height=480)
    figure.update_xaxes(title_text=html.escape(x_title))
    figure.update_yaxes(title_text=html.escape(y_title))
    return figure


def empty_figure(figure: go.Figure, message: str) -> go.Figure:
    """The figure with a message where data would be."""
    figure.add_annotation(text=html.escape(message), x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def _layout(own: pd.DataFrame, layout: str, look: marks.Look, x: str, y: str, webgl: bool) -> list[Any]:
    """The traces of one layout: its final points, on the front and off it, and those that are not final. The first of
    them stands for the layout in the legend."""
    few = len(own) <= marks.NUM_CURVES
    final, front = (own[name].to_numpy(dtype=bool) for name in ("final", "front"))
    parts = [(own[final & front], True, True), (own[final & ~front], True, few), (own[~final], False, few)]
    return [_points(part, layout, look, final, x, y, bars=bars, entry=place == 0, webgl=webgl)
            for place, (part, final, bars) in enumerate(one for one in parts if len(one[0]))]  # fmt: skip


def _thinned(rows: pd.DataFrame, most: int | None) -> pd.DataFrame:
    """All of the front and, evenly, at most ``most`` of the other points, in the order in which they came."""
    front = rows["front"].to_numpy(dtype=bool)
    if most is None or len(rows) <= most:
        return rows
    others = np.flatnonzero(~front)
    kept = np.linspace(0, len(others) - 1, min(most, len(others))).round().astype(int)
    return rows.iloc[np.sort(np.concatenate([np.flatnonzero(front), others[kept]]))]


def _points(
    part: pd.DataFrame, layout: str, look: marks.Look, final: bool, x: str, y: str, *, bars: bool, entry: bool,
    webgl: bool,
) -> Any:  # fmt: skip
    """One layout's points, final or not; ``entry``: whether they stand for the layout in the legend."""
    known = [quantity(name) for name in (x, y)]
    hover = (f"<b>{html.escape(layout)}</b> trial %{{customdata[0]}} (%{{customdata[2]}})<br>%{{customdata[1]}}<br>"
             f"{html.escape(known[0].title)} %{{x:.4~s}}<br>{html.escape(known[1].title)} %{{y:.4~g}}"
             "<extra></extra>")  # fmt: skip
    words = part[["arch_id", "state"]].fillna("").map(lambda value: html.escape(str(value)))  # a peer has no arch
    custom = np.column_stack([part["number"].to_numpy(dtype=object), words.to_numpy(dtype=object)])
    marker = {"color": look.colour, "size": 9, "symbol": look.shape if final else f"{look.shape}-open",
              "line": {"width": 1 if final else 2, "color": "#ffffff" if final else look.colour}}  # fmt: skip
    errors = {f"error_{axis}": _bars(part, axis, look) for axis in "xy"} if bars else {}
    return (go.Scattergl if webgl else go.Scatter)(
        x=part["x"].to_numpy(), y=part["y"].to_numpy(), mode="markers", marker=marker, customdata=custom,
        hovertemplate=hover, name=html.escape(layout), legendgroup=layout, showlegend=entry, **errors,
    )  # fmt: skip


def _published(rows: pd.DataFrame) -> go.Scatter:
    marker = {"color": LINE, "size": 7, "symbol": "x-thin", "line": {"width": 1.5, "color": LINE}}
    return go.Scatter(x=rows["x"], y=rows["y"], mode="markers", marker=marker, name="published (ImageNet-1K)",
                      text=rows["name"], hovertemplate="%{text}<br>%{x:.4~s}, %{y:.4~g}<extra></extra>")  # fmt: skip


def _bars(part: pd.DataFrame, axis: str, look: marks.Look) -> dict[str, Any] | None:
    """The intervals of an axis; None where none is known."""
    high = (part[f"{axis}_high"] - part[axis]).to_numpy(copy=True)
    low = (part[axis] - part[f"{axis}_low"]).to_numpy(copy=True)
    if not np.isfinite(high).any():
        return None
    colour = "rgba({},{},{},0.45)".format(*(int(look.colour[place : place + 2], 16) for place in (1, 3, 5)))
    return {"type": "data", "symmetric": False, "array": high, "arrayminus": low, "thickness": 1, "width": 0,
            "color": colour}  # fmt: skip


def _strip(part: pd.DataFrame, layout: str, look: marks.Look, final: bool) -> go.Box:
    marker = {"color": look.colour, "size": 7, "opacity": 0.75, "symbol": look.shape if final else f"{look.shape}-open"}
    line = {"color": look.colour, "width": 1.5} if final else {"color": "rgba(0,0,0,0)"}
    many = len(part) > 500
    return go.Box(
        y=part["y"].to_numpy(), x=[html.escape(layout)] * len(part), name=html.escape(layout), marker=marker, line=line,
        fillcolor="rgba(0,0,0,0)", boxpoints="outliers" if many and final else "all", jitter=0.6, pointpos=0, width=0.6,
        text=[f"trial {row.number} ({html.escape(str(row.state))})" for row in part.itertuples()],
        hovertemplate="%{text}<br>%{y:.4~g}<extra></extra>", hoveron="points",
    )  # fmt: skip


def _lines(
    own: list[tuple[pd.Series, Any]], layout: str, look: marks.Look, on_front: bool, *, entry: bool
) -> go.Scatter:
    """All curves of a layout as one trace, with gaps between them: a page of few traces stays quick."""
    gap = np.full((1, 2), np.nan)
    joined = np.vstack([part for _, curve in own for part in (curve, gap)])
    label = [f"trial {row['number']}" for row, curve in own for _ in range(len(curve) + 1)]
    return go.Scatter(
        x=joined[:, 0], y=joined[:, 1], mode="lines+markers", text=label, name=html.escape(layout), legendgroup=layout,
        line={"color": look.colour, "width": 2.5 if on_front else 1}, opacity=1 if on_front else 0.4,
        marker={"size": 6 if on_front else 3, "symbol": look.shape}, connectgaps=False,
        showlegend=entry, hovertemplate="%{text}, epoch %{x}: %{y:.4~g}<extra>" + html.escape(layout) + "</extra>",
    )  # fmt: skip


def step(x: str, y: str, objectives: Mapping[str, Sense]) -> str:
    """Which corner a step of the front's line takes so that it runs along what is dominated, whatever is maximised."""
    return "hv" if sense_of(x, objectives) == "min" else "vh"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
