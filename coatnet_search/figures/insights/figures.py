"""What a search has taught, in plotly: pure functions, ``Insights`` in, figure out; see ``insight_marks.py``."""

import html
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from coatnet_search.core.quantities import Sense, axis_title, quantity, scale
from coatnet_search.figures.insights import marks as insight_marks
from coatnet_search.figures.insights.summary import Insights
from coatnet_search.figures.search import marks
from coatnet_search.figures.search.figures import LINE, Theme, empty_figure, new_figure


def all_figures(
    frame: pd.DataFrame, objectives: Mapping[str, Sense], found: Insights, *, theme: Theme = "light"
) -> dict[str, go.Figure]:
    """The figures by name; one that has nothing to draw says so."""
    return {
        "search-noise": noise(found, objectives, theme=theme),
        "search-growth-trials": growth(found, "trials", theme=theme),
        "search-growth-hours": growth(found, "device_hours", theme=theme),
        "search-importance": importance(found.importance, found.main, theme=theme),
        "search-marginals": marginals(found.marginals, found.importance, found.main, theme=theme),
        "search-parallel": parallel(frame, objectives, insight_marks.leading(found.importance), theme=theme),
    }


def noise(found: Insights, objectives: Mapping[str, Sense], *, theme: Theme = "light") -> go.Figure:
    """The means of networks with 95 % intervals; the fainter, the less probable it is that one is on the front."""
    y, rows = found.main, found.noise
    x = next((name for name in objectives if name != y), None)
    figure = new_figure("The front with its noise", axis_title(x) if x else "", axis_title(y), theme)
    if rows.empty or x is None:
        return empty_figure(figure, "No network was trained with several seeds (replicates:), so no noise is known.")
    looks = marks.looks(rows.assign(number=range(len(rows))))
    line = rows[rows["front"]].sort_values(x)
    figure.add_scatter(x=line[x] * scale(x), y=line[y] * scale(y), mode="lines", name="front of the means",
                       line={"color": LINE, "width": 2}, hoverinfo="skip")  # fmt: skip
    for layout, look in looks.items():
        own = rows[rows["layout"] == layout]
        middle = own[y] * scale(y)
        figure.add_scatter(
            x=own[x] * scale(x), y=middle, mode="markers", name=html.escape(layout),
            customdata=own[["number", "p_front", "trainings"]],
            marker={"color": look.colour, "symbol": look.shape, "size": 9, "opacity": 0.15 + 0.85 * own["p_front"]},
            error_y={"type": "data", "array": own[f"{y}_high"] * scale(y) - middle, "thickness": 1, "width": 0},
            hovertemplate="trial %{customdata[0]}, %{customdata[2]} trainings<br>P(on the front) %{customdata[1]:.2f}"
            "<br>%{x:.4~s}, %{y:.4~g}<extra></extra>",
        )  # fmt: skip
    if marks.logarithmic(rows[x], x):
        figure.update_xaxes(type="log", dtick="D2")
    return figure


def growth(found: Insights, by: str, *, theme: Theme = "light") -> go.Figure:
    """Hypervolume of the search, and of its random baseline, by trials or by device-hours."""
    title = {"trials": "trials in the order in which they ended", "device_hours": "device-hours"}[by]
    figure = new_figure(
        f"Growth of the front by {by.replace('_', '-')}", title, "hypervolume (share of the box)", theme
    )
    if found.growth.empty:
        return empty_figure(figure, "No trial is done yet.")
    for origin, rows in found.growth.groupby("origin", sort=False):
        figure.add_scatter(x=rows[by], y=rows["hypervolume"], mode="lines", name=insight_marks.NAMES[str(origin)],
                           line={"shape": "hv", "color": insight_marks.ORIGINS[str(origin)], "width": 2})  # fmt: skip
    figure.update_layout(legend_title_text="")
    figure.update_yaxes(rangemode="tozero")
    return figure


def importance(table: pd.DataFrame, main: str, *, theme: Theme = "light") -> go.Figure:
    """Shares of dimensions in the quality ``main`` of all trials, and in reaching the front."""
    rows = table[: insight_marks.MOST_DIMENSIONS][::-1]
    figure = new_figure("Which dimensions matter", "share", "", theme)
    if rows.empty:
        return empty_figure(figure, "Too few comparable trials to tell dimensions apart.")
    for name, title, colour in (
        ("for_the_front", "to reach the front", 1),
        ("importance", quantity(main).title, 0),
    ):
        figure.add_bar(x=rows[name], y=rows["dimension"], orientation="h", name=title,
                       marker_color=marks.COLOURS[colour])  # fmt: skip
    figure.update_layout(legend_title_text="", legend_traceorder="reversed")
    return figure


def marginals(effects: pd.DataFrame, ranked: pd.DataFrame, main: str, *, theme: Theme = "light") -> go.Figure:
    """The effect of each value of the leading dimensions (``ranked``: the table of ``importance``) at equal cost, with
    its 95 % interval."""
    rows = insight_marks.effects(effects, ranked, main)[::-1]
    title = f"{axis_title(main)}, against the mean network with as many multiply-adds"
    figure = new_figure("What a choice does at equal cost", title, "", theme)
    if rows.empty:
        return empty_figure(figure, "Too few comparable trials to tell values apart.")
    figure.add_vline(x=0, line={"color": LINE, "width": 1})
    figure.add_scatter(x=rows["effect"], y=rows["label"], mode="markers", showlegend=False,
                       marker={"color": marks.COLOURS[0], "size": 8}, customdata=rows["trials"],
                       error_x={"type": "data", "array": rows["high"] - rows["effect"], "thickness": 1.5, "width": 0},
                       hovertemplate="%{y}: %{x:.3g} (%{customdata} trials)<extra></extra>")  # fmt: skip
    figure.update_layout(height=max(480, 120 + 22 * len(rows)))
    return figure


def parallel(
    frame: pd.DataFrame, objectives: Mapping[str, Sense], dimensions: Sequence[str], *, theme: Theme = "light"
) -> go.Figure:
    """A line a trial through its layout, its choices of ``dimensions`` and its objectives, in its layout's colour."""
    axes, rows = insight_marks.parallel(frame, objectives, dimensions)
    figure = new_figure(f"{insight_marks.PARALLEL}; drag along an axis to filter", "", "", theme)
    if not axes:
        return empty_figure(figure, "Too few comparable trials, or nothing to choose.")
    looks = marks.looks(rows)
    names = [name for name in looks if (rows["layout"] == name).any()]
    steps = np.linspace(0, 1, len(names) + 1)
    colours = [[float(end), looks[name].colour] for at, name in enumerate(names) for end in steps[at : at + 2]]
    figure.add_parcoords(
        labelangle=-20,
        line={"color": [names.index(str(name)) + 0.5 for name in rows["layout"]], "colorscale": colours, "cmin": 0,
              "cmax": len(names)},
        dimensions=[{"label": axis.title, "values": axis.places, "range": [0, 1],
                     "tickvals": [place for place, _ in axis.ticks], "ticktext": [text for _, text in axis.ticks]}
                    for axis in axes],
    )  # fmt: skip
    figure.update_layout(margin={"t": 130, "r": 90})
    return figure
