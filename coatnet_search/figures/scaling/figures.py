"""A scaling study in plotly: pure functions, ``Scaling`` in, figure out. The numbers are those of ``scaling_marks.py``.

Below every figure stands how its points were made (``settings``: the sentences of ``scaling.settings``) and how large
their noise is. What lies beyond the largest amount of data that was fitted is shaded.
"""

import html
import math
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from coatnet_search.analysis.scaling import Scaling
from coatnet_search.figures.scaling import marks
from coatnet_search.figures.search.figures import LINE, Theme, template

IMAGES, ERROR = "training images", "validation error (%)"
HEIGHT, LINE_LETTERS = 560, 130  # pixels; letters of a caption's line


def all_figures(
    scaling: Scaling, settings: Sequence[str], target: float, *, theme: Theme = "light"
) -> dict[str, go.Figure]:
    """The figures by name; ``target``: the amount of data that the frontier is drawn for."""
    return {
        "scaling-curves": curves(scaling, settings, theme=theme),
        "scaling-best": best(scaling, settings, theme=theme),
        "scaling-crossovers": crossovers(scaling, settings, theme=theme),
        "scaling-frontier": frontier(scaling, settings, target, theme=theme),
        "scaling-generalisation": generalisation(scaling, settings, theme=theme),
        "scaling-residuals": residuals(scaling, settings, theme=theme),
    }


def curves(scaling: Scaling, settings: Sequence[str], *, theme: Theme = "light") -> go.Figure:
    """Error against images, both logarithmic: single runs faint, their means strong, held-out means open, the median
    prediction with its 90 % band. Grey bars are one standard deviation of noise; crosses at the top edge are runs that
    the fit lacks."""
    figure = _figure("Error against the amount of training data", IMAGES, ERROR, scaling, settings, theme)
    looks, runs, cells, bands = marks.looks(scaling), marks.runs(scaling), marks.cells(scaling), marks.bands(scaling)
    for arm, look in looks.items():
        band = bands[bands["arm"] == arm]
        figure.add_traces([_band(band, arm, look), _line(band["num_images"], band["middle"], arm, look)])
        own = runs[runs["arm"] == arm]
        figure.add_scatter(
            x=own["num_images"], y=own["error"], mode="markers", showlegend=False, legendgroup=arm, opacity=0.35,
            marker={"color": look.colour, "size": 5, "symbol": look.shape},
            text=own["words"],
            hovertemplate=f"<b>{html.escape(arm)}</b> %{{text}}<br>%{{x:,}} images: %{{y:.4~g}} %<extra></extra>",
        )  # fmt: skip
        for held_out in (False, True):
            _means(figure, cells[(cells["arm"] == arm) & (cells["held_out"] == held_out)], arm, look, held_out)
    _noise_bars(figure, scaling, 100 * scaling.noise["error"], pd.Series(100.0, scaling.noise.index))
    _lost(figure, scaling, looks, top=float(max(runs["error"].max(), bands["high"].max())))
    if len(scaling.held_out):
        marker = {"color": LINE, "size": 9, "symbol": "circle-open", "line": {"width": 2}}
        figure.add_scatter(x=[None], y=[None], mode="markers", name="held out of the fit", marker=marker)
    _images_axis(figure, scaling)
    decade = max(runs["error"].max(), bands["high"].max()) < 10 * min(runs["error"].min(), bands["low"].min())
    figure.update_yaxes(type="log", dtick="D1" if decade else "D2", tickformat=",.3~g")
    return figure


def residuals(scaling: Scaling, settings: Sequence[str], *, theme: Theme = "light") -> go.Figure:
    """What the fit leaves of each fitted run: log error minus the median prediction; the grey bars are the noise."""
    figure = _figure("Residuals of the fit", IMAGES, "log error minus median prediction", scaling, settings, theme)
    looks, table = marks.looks(scaling), marks.residuals(scaling)
    figure.add_hline(y=0, line={"color": LINE, "width": 1})
    level = pd.Series(0.0, scaling.noise.index)
    _noise_bars(figure, scaling, level, 1 / scaling.noise["error"])  # a change of the error as one of its logarithm
    for arm, look in looks.items():
        own = table[table["arm"] == arm]
        if len(own):
            figure.add_scatter(
                x=own["num_images"], y=own["residual"], mode="markers", name=html.escape(arm), text=own["words"],
                marker={"color": look.colour, "size": 8, "symbol": look.shape, "opacity": 0.8},
                hovertemplate=f"<b>{html.escape(arm)}</b> %{{text}}<br>%{{x:,}} images: %{{y:.3f}}<extra></extra>",
            )  # fmt: skip
    _images_axis(figure, scaling, ahead=False)
    return figure


def generalisation(scaling: Scaling, settings: Sequence[str], *, theme: Theme = "light") -> go.Figure:
    """Validation accuracy against training loss, a line an arm, larger marks for more data, as figure 1 of the CoAtNet
    paper (arXiv 2106.04803) sets generalisation against capacity. Bars: one standard deviation between seeds."""
    figure = _figure("Generalisation against capacity", "training loss (mean of the last epoch)",
                     "validation accuracy (%)", scaling, settings, theme)  # fmt: skip
    table, looks = marks.generalisation(scaling), marks.looks(scaling)
    if table.empty:
        return _empty(figure, "No run has a training loss on record.")
    smallest, largest = float(table["num_images"].min()), float(table["num_images"].max())
    sd = 100 * scaling.noise.set_index("num_images")["seed_sd"]
    for arm, look in looks.items():
        own = table[table["arm"] == arm]
        symbols = np.where(own["held_out"], f"{look.shape}-open", look.shape)
        if len(own):
            figure.add_scatter(
                x=own["train_loss"], y=own["accuracy"], mode="lines+markers", name=html.escape(arm),
                line={"color": look.colour, "dash": look.dash, "width": 1.5}, customdata=own["num_images"],
                marker={"color": look.colour, "symbol": symbols, "opacity": 1,
                        "size": marks.dots(own["num_images"], smallest, largest)},
                error_y={"array": sd.reindex(own["num_images"]).to_numpy(), "thickness": 1, "width": 0,
                         "color": LINE},
                hovertemplate=f"<b>{html.escape(arm)}</b> on %{{customdata:,}} images<br>training loss %{{x:.4~g}}<br>"
                "validation accuracy %{y:.4~g} %<extra></extra>",
            )  # fmt: skip
    _remark(figure, f"mark: {smallest:,.0f} images (small) to {largest:,.0f} (large)")
    return figure


def crossovers(scaling: Scaling, settings: Sequence[str], *, theme: Theme = "light") -> go.Figure:
    """Where the order of two arms changes for the last time: a density a pair, and the probability that it does not."""
    figure = _figure("Where the order changes", IMAGES, "", scaling, settings, theme)
    found = marks.crossings(scaling)
    if not found:
        return _empty(figure, "A crossover takes two arms; this study has one.")
    tallest = max(float(one.chances.max()) for one in found) or 1.0
    for place, one in enumerate(reversed(found)):
        height = 0.75 * one.chances / tallest
        x = np.repeat(one.edges, 2)
        y = place + np.concatenate([[0.0], np.repeat(height, 2), [0.0]])
        figure.add_scatter(x=x, y=np.full(len(x), float(place)), mode="lines", hoverinfo="skip",
                           line={"color": LINE, "width": 1})  # fmt: skip
        figure.add_scatter(x=x, y=y, mode="lines", fill="tonexty", line={"color": LINE, "width": 1}, hoverinfo="skip")
        figure.add_annotation(x=0.01, xref="paper", y=place + 0.88, text=html.escape(one.words), showarrow=False,
                              xanchor="left", font={"size": 12})  # fmt: skip
    names = [html.escape(f"{one.first} / {one.second}") for one in reversed(found)]
    figure.update_yaxes(tickvals=list(range(len(found))), ticktext=names, showgrid=False, range=[-0.1, len(found)])
    figure.update_layout(showlegend=False, height=max(HEIGHT, 240 + 60 * len(found)))
    _images_axis(figure, scaling)
    return figure


def best(scaling: Scaling, settings: Sequence[str], *, theme: Theme = "light") -> go.Figure:
    """The probability that each arm has the smallest error, by amount of data."""
    figure = _figure("Which arm is best", IMAGES, "probability of the smallest error", scaling, settings, theme)
    table, looks = scaling.probability_best(scaling.grid()), marks.looks(scaling)
    for arm in scaling.arms:
        line = _line(pd.Series(table.index), table[arm], arm, looks[arm])
        figure.add_trace(line.update(hovertemplate=f"<b>{html.escape(arm)}</b> at %{{x:,.0f}} images: %{{y:.2f}}"
                                     "<extra></extra>"))  # fmt: skip
    figure.add_hline(y=0.95, line={"color": LINE, "width": 1, "dash": "dot"}, annotation_text="0.95: called the best",
                     annotation_position="bottom left")  # fmt: skip
    _images_axis(figure, scaling)
    figure.update_yaxes(range=[-0.02, 1.02])
    return figure


def frontier(scaling: Scaling, settings: Sequence[str], target: float, *, theme: Theme = "light") -> go.Figure:
    """Predicted error on ``target`` images against the multiply-adds that training there takes, with 90 % intervals;
    the steps are the best arm for each budget. Sizes of one layout are joined."""
    title = f"Predicted error on {target:,.0f} images against the cost of training"
    figure = _figure(title, "multiply-adds of training", ERROR, scaling, settings, theme)
    table, looks = marks.frontier(scaling, target), marks.looks(scaling)
    if table.empty:
        return _empty(figure, "The multiply-adds of these networks are not on record.")
    line = table[table["best"]]
    figure.add_scatter(x=line["training_macs"], y=line["error"], mode="lines", name="best for its budget",
                       line={"color": LINE, "shape": "hv", "width": 2}, hoverinfo="skip")  # fmt: skip
    for layout, group in table.groupby("layout", sort=False):
        colour = looks[str(group["arm"].iloc[0])].colour
        if len(group) > 1:
            figure.add_scatter(x=group["training_macs"], y=group["error"], mode="lines", showlegend=False,
                               hoverinfo="skip", line={"color": colour, "width": 1, "dash": "dot"})  # fmt: skip
        for row in group.to_dict("records"):
            arm, error = str(row["arm"]), float(row["error"])
            figure.add_scatter(
                x=[row["training_macs"]], y=[error], mode="markers", name=html.escape(arm), legendgroup=str(layout),
                marker={"color": colour, "size": 10, "symbol": looks[arm].shape}, customdata=[row["p_best"]],
                error_y={"symmetric": False, "array": [row["high"] - error], "arrayminus": [error - row["low"]],
                         "thickness": 1.2, "width": 0, "color": colour},
                hovertemplate=f"<b>{html.escape(arm)}</b><br>%{{x:.4~s}} multiply-adds: %{{y:.4~g}} %<br>best of all "
                "with probability %{customdata:.2f}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(tickformat=".4~s")
    if marks.wide(table["training_macs"]):
        figure.update_xaxes(type="log", dtick="D2")
    figure.update_yaxes(tickformat=",.3~g")
    return figure


# --- parts ------------------------------------------------------------------------------------------------------------


def _figure(
    title: str, x_title: str, y_title: str, scaling: Scaling, settings: Sequence[str], theme: Theme
) -> go.Figure:
    figure = go.Figure()
    lines = [part for text in marks.caption(scaling, settings) for part in textwrap.wrap(text, LINE_LETTERS)]
    figure.update_layout(template=template(theme), title_text=html.escape(title), height=HEIGHT,
                         margin={"b": 80 + 16 * len(lines)}, legend={"title": {"text": "arm"}})  # fmt: skip
    figure.update_xaxes(title_text=html.escape(x_title))
    figure.update_yaxes(title_text=html.escape(y_title))
    figure.add_annotation(text="<br>".join(html.escape(line) for line in lines), x=0, y=0, xref="paper", yref="paper",
                          xanchor="left", yanchor="top", yshift=-64, showarrow=False, align="left",
                          font={"size": 12, "color": LINE})  # fmt: skip
    return figure


def _empty(figure: go.Figure, message: str) -> go.Figure:
    figure.add_annotation(text=html.escape(message), x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def _images_axis(figure: go.Figure, scaling: Scaling, *, ahead: bool = True) -> None:
    """A logarithmic axis of images; what lies beyond the fitted amounts is shaded."""
    figure.update_xaxes(type="log", tickformat="~s", dtick="D2")
    last, most = float(scaling.num_images[-1]), float(scaling.grid()[-1])
    if ahead and most > last:
        figure.add_vrect(x0=last, x1=most, fillcolor=LINE, opacity=0.12, line_width=0, layer="below")
        figure.add_annotation(x=math.log10(last), y=1, yref="paper", text="extrapolated", showarrow=False,
                              xanchor="left", yanchor="bottom", font={"size": 12, "color": LINE})  # fmt: skip


def _remark(figure: go.Figure, text: str) -> None:
    figure.add_annotation(text=html.escape(text), x=1, y=1, xref="paper", yref="paper", xanchor="right",
                          yanchor="bottom", showarrow=False, font={"size": 12, "color": LINE})  # fmt: skip


def _line(x: pd.Series, y: pd.Series, arm: str, look: marks.ArmLook) -> go.Scatter:
    return go.Scatter(
        x=x.to_numpy(), y=y.to_numpy(), mode="lines", name=html.escape(arm), legendgroup=arm,
        line={"color": look.colour, "dash": look.dash, "width": 2},
        hovertemplate=f"<b>{html.escape(arm)}</b> predicted at %{{x:,.0f}} images: %{{y:.4~g}} %<extra></extra>",
    )  # fmt: skip


def _band(band: pd.DataFrame, arm: str, look: marks.ArmLook) -> go.Scatter:
    """Upper edge there, lower edge back: one closed outline."""
    red, green, blue = (int(look.colour[place : place + 2], 16) for place in (1, 3, 5))
    return go.Scatter(
        x=np.concatenate([band["num_images"], band["num_images"][::-1]]), fill="toself", mode="lines",
        y=np.concatenate([band["high"], band["low"][::-1]]), line={"width": 0}, hoverinfo="skip", showlegend=False,
        fillcolor=f"rgba({red},{green},{blue},0.15)", legendgroup=arm, name=html.escape(f"{arm}, 90 % band"),
    )  # fmt: skip


def _means(figure: go.Figure, part: pd.DataFrame, arm: str, look: marks.ArmLook, held_out: bool) -> None:
    if part.empty:
        return
    edge = {"width": 2, "color": look.colour} if held_out else {"width": 1, "color": "#ffffff"}
    figure.add_scatter(
        x=part["num_images"], y=part["error"], mode="markers", showlegend=False, legendgroup=arm,
        customdata=part["runs"], name=html.escape(f"{arm}, held out" if held_out else arm),
        marker={"color": look.colour, "size": 9, "symbol": f"{look.shape}-open" if held_out else look.shape,
                "line": edge},
        hovertemplate=f"<b>{html.escape(arm)}</b>{' (held out)' if held_out else ''}<br>%{{x:,}} images: "
        "%{y:.4~g} %, mean of %{customdata} runs<extra></extra>",
    )  # fmt: skip


def _noise_bars(figure: go.Figure, scaling: Scaling, level: pd.Series, factor: pd.Series) -> None:
    """Bars of one standard deviation times ``factor`` around ``level``, a little to the left of the points."""
    noise = scaling.noise
    for name, width, title in (("binomial_sd", 6.0, "noise of validation images (1 sd)"),
                               ("seed_sd", 2.0, "noise between seeds (1 sd)")):  # fmt: skip
        if noise[name].notna().any():
            figure.add_scatter(
                x=noise["num_images"] * 0.93, y=level, mode="markers", name=title,
                marker={"color": LINE, "size": 2}, customdata=100 * noise[name],
                error_y={"array": factor * noise[name], "thickness": width, "width": 0,
                         "color": "rgba(139,148,158,0.7)"},
                hovertemplate=f"{title}: %{{customdata:.2g}} points<extra></extra>",
            )  # fmt: skip


def _lost(figure: go.Figure, scaling: Scaling, looks: dict[str, marks.ArmLook], top: float) -> None:
    table = marks.lost(scaling)
    if table.empty:
        return
    figure.add_scatter(
        x=table["num_images"], y=top * 1.06 ** (1 + table["place"]), mode="markers", name="not in the fit",
        marker={"symbol": "x-thin", "size": 9, "color": LINE,
                "line": {"width": 2, "color": [looks[arm].colour for arm in table["arm"]]}},
        text=[html.escape(text) for text in table["words"]],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
