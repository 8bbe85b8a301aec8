"""Architectures drawn to scale: pure functions, architectures and their costs in, a plotly figure out.

A block is a box: its height is the side of its map, its length its width in channels, and a stage has as many boxes as
blocks. All networks of a figure share one scale. Colour is the type of the block.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from coatnet_search.analysis.front import SEPARATE_FRONTS
from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.cost import Cost
from coatnet_search.core.quantities import Sense, axis_title, quality, quantity, show
from coatnet_search.figures.search.figures import GROUND, LINE, Theme, empty_figure, new_figure, step, template
from coatnet_search.figures.search.marks import COLOURS, PEER, PEER_SHAPE, logarithmic, points

KINDS = {"mbconv": COLOURS[0], "attention": COLOURS[1], "fused_mbconv": COLOURS[4]}
LABEL = 0.075  # of the figure's width: a label's own
SHARES = {"macs": ("multiply-adds", COLOURS[2]), "params": ("parameters", COLOURS[3]), "ms": ("time", COLOURS[5])}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stem or stage: ``depth`` blocks of ``width`` channels on a map of ``side`` pixels; shares are fractions.
    ``ms``: milliseconds of a forward pass, where it was timed."""

    name: str
    kind: str
    letter: str
    depth: int
    width: int
    side: int
    options: str
    macs: int
    params: int
    macs_share: float
    params_share: float
    ms: float | None = None
    ms_share: float | None = None


def parts(arch: Arch, cost: Cost, times: Mapping[str, float] | None = None) -> list[Part]:
    """Stem and stages in order, each with its share of the whole network's cost (the head has the rest). ``times``:
    milliseconds of each part, by the names of ``Cost.by_stage``."""
    stem = ("stem", arch.stem.kind, "stem", arch.stem.depth, arch.stem.width, "")
    stages = [(f"s{place}", one.block, one.letter, one.depth, one.width, _options(one.to_dict()))
              for place, one in enumerate(arch.stages, 1)]  # fmt: skip
    spent = dict(times or {})
    return [
        Part(name=name, kind=kind, letter=letter, depth=depth, width=width, side=side, options=options,
             macs=cost.by_stage[name].macs, params=cost.by_stage[name].params,
             macs_share=cost.by_stage[name].macs / cost.macs, params_share=cost.by_stage[name].params / cost.params,
             ms=spent.get(name), ms_share=spent[name] / sum(spent.values()) if name in spent else None)
        for (name, kind, letter, depth, width, options), side in zip([stem, *stages], arch.grids, strict=True)
    ]  # fmt: skip


def _options(stage: Mapping[str, Any]) -> str:
    known = ("block", "depth", "width", "stride")
    return ", ".join(f"{name} {value}" for name, value in stage.items() if name not in known)


def drawing(networks: Mapping[str, Sequence[Part]], *, theme: Theme = "light") -> go.Figure:
    """The networks beside each other by name: above to scale, below each part's share of multiply-adds, of
    parameters and, where that was measured, of time."""
    count = max(len(networks), 1)
    titles = [html.escape(name) for name in networks]
    if count > 2:  # narrow columns: two lines each
        titles = [name.replace(" (", "<br>(").replace(" at ", "<br>at ") for name in titles]
    figure = make_subplots(rows=2, cols=count, shared_yaxes=True, subplot_titles=titles, row_heights=[0.6, 0.4],
                           vertical_spacing=0.2, horizontal_spacing=0.04)  # fmt: skip
    figure.update_layout(template=template(theme), title_text="Stages to scale, and their share of the cost",
                         height=660, barmode="group", legend={"title": {"text": ""}},
                         title={"y": 0.98, "yanchor": "top"}, margin_t=110 if count > 2 else 90)  # fmt: skip
    longest = max((_length(own) for own in networks.values()), default=1)
    seen: set[str] = set()
    for column, own in enumerate(networks.values(), 1):
        _boxes(figure, own, column, seen, theme)
        _labels(figure, own, column, LABEL * count * longest)
        _shares(figure, own, column, seen)
    highest = max((part.side for own in networks.values() for part in own), default=1)
    figure.update_xaxes(row=1, range=[-0.02 * longest, 1.02 * longest], title_text="channels",
                        showgrid=False, nticks=4, tickangle=0)  # fmt: skip
    figure.update_xaxes(row=2, tickangle=0, tickfont_size=10 if count > 2 else 14)
    figure.update_yaxes(row=1, range=[-0.65 * highest, 0.55 * highest], showgrid=False, showticklabels=False, ticks="")
    figure.update_yaxes(row=1, col=1, title_text="side of the map (pixels)")
    figure.update_yaxes(row=2, tickformat=".0%", range=[0, 1])
    figure.update_yaxes(row=2, col=1, title_text="share of the network")
    return figure


def _length(own: Sequence[Part]) -> int:
    return sum(part.depth * part.width for part in own)


def _boxes(figure: go.Figure, own: Sequence[Part], column: int, seen: set[str], theme: Theme) -> None:
    """A trace a part: its blocks as closed boxes, with gaps between them."""
    left = 0
    for part in own:
        colour = KINDS.get(part.kind, LINE)
        x: list[float | None] = []
        y: list[float | None] = []
        for _ in range(part.depth):
            half = part.side / 2
            x += [left, left + part.width, left + part.width, left, left, None]
            y += [-half, -half, half, half, -half, None]
            left += part.width
        words = f"{part.name}: {part.depth} x {part.kind}, {part.width} channels, {part.side} x {part.side} pixels"
        more = f"<br>{html.escape(part.options)}" if part.options else ""
        kind = "stem" if part.name == "stem" else part.kind
        figure.add_scatter(
            x=x, y=y, mode="lines", fill="toself", fillcolor=colour, line={"color": GROUND[theme], "width": 1.5},
            name=html.escape(kind), legendgroup=kind, showlegend=kind not in seen, hoveron="fills",
            text=html.escape(words) + more, hoverinfo="text", row=1, col=column,
        )  # fmt: skip
        seen.add(kind)


def _labels(figure: go.Figure, own: Sequence[Part], column: int, least: float) -> None:
    """Type, depth, width and side below each part; of parts shorter than ``least`` the type alone, and
    of the shortest nothing."""
    left = 0
    for part in own:
        length = part.depth * part.width
        whole = f"{html.escape(part.letter)} ×{part.depth}<br>{part.width} ch<br>{part.side} px"
        room = length >= least / 4 and part.name != "stem"
        text = whole if length >= least else html.escape(part.letter) if room else ""
        figure.add_annotation(
            x=left + length / 2, y=-part.side / 2, yanchor="top", showarrow=False, font={"size": 11}, text=text,
            row=1, col=column,
        )  # fmt: skip
        left += length


def _shares(figure: go.Figure, own: Sequence[Part], column: int, seen: set[str]) -> None:
    for name, (title, colour) in SHARES.items():
        known = [part for part in own if getattr(part, name) is not None]
        if not known:
            continue
        figure.add_bar(
            x=[part.name for part in known], y=[getattr(part, f"{name}_share") for part in known], name=title,
            marker={"color": colour}, legendgroup=name, showlegend=name not in seen, row=2, col=column,
            text=[show("latency_ms" if name == "ms" else name, getattr(part, name)) for part in known],
            textposition="none",
            hovertemplate="%{x}: %{text} " + title + " (%{y:.1%})<extra></extra>",
        )  # fmt: skip
        seen.add(name)


def beside(
    frame: pd.DataFrame, objectives: Mapping[str, Sense], x: str, shown: Mapping[int, str], *, theme: Theme = "light"
) -> go.Figure:
    """Quality against ``x``: all trials in grey with their front, networks of timm as stars with their names, and over
    them the trials of ``shown`` (number -> title)."""
    y = quality(objectives)
    rows = points(frame, objectives, x, y)
    figure = new_figure("Where they stand among trials and networks of timm", axis_title(x), axis_title(y), theme)
    if rows.empty:
        return empty_figure(figure, f"No trial has both {quantity(x).title} and {quantity(y).title}.")
    peer, own = rows["layout"].str.startswith(PEER), rows["number"].isin(list(shown))
    others, line = rows[~peer & ~own], rows[rows["front"] & (not frame.attrs.get(SEPARATE_FRONTS))].sort_values("x")
    figure.add_scattergl(x=others["x"], y=others["y"], mode="markers", name="other trials", hoverinfo="skip",
                         marker={"color": LINE, "size": 5, "opacity": 0.5})  # fmt: skip
    figure.add_scatter(x=line["x"], y=line["y"], mode="lines", name="front", hoverinfo="skip",
                       line={"color": LINE, "width": 1.5, "shape": step(x, y, objectives)})  # fmt: skip
    named = [(rows[peer & ~own], "networks of timm", PEER_SHAPE, COLOURS[3], {}),
             (rows[own], "these networks", "diamond", COLOURS[5], shown)]  # fmt: skip
    for part, title, symbol, colour, titles in named:
        words = [
            html.escape(titles.get(number, layout))
            for number, layout in zip(part["number"].tolist(), part["layout"].tolist(), strict=True)
        ]
        figure.add_scatter(x=part["x"], y=part["y"], mode="markers+text", text=words, textposition="top center",
                           name=title, marker={"color": colour, "symbol": symbol, "size": 12},
                           hovertemplate="%{text}<br>%{x:.4~s}, %{y:.4~g}<extra></extra>")  # fmt: skip
    if logarithmic(rows["x"], x):
        figure.update_xaxes(type="log")
    figure.update_layout(legend_title_text="")
    return figure
