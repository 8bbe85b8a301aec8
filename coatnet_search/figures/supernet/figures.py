"""A supernet's training and what it saves, in plotly: pure functions from what ``supernet_summary`` found."""

import html
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from coatnet_search.core.quantities import scale
from coatnet_search.figures.search import marks
from coatnet_search.figures.search.figures import INK, LINE, Theme, new_figure

DASHES = ("solid", "dash", "dot", "dashdot")  # the probes of a layout, in their order: smallest first


def all_figures(found: Mapping[str, Any] | None, *, theme: Theme = "light") -> dict[str, go.Figure]:
    """The figures by name; none where there is nothing to show."""
    found = found or {}
    out = {}
    if found.get("history"):
        out["supernet-probes"] = probes(found, theme=theme)
    if found.get("candidates", {}).get("curve"):
        out["supernet-candidates"] = candidates(found, theme=theme)
    return out


def probes(found: Mapping[str, Any], *, theme: Theme = "light") -> go.Figure:
    """Validation accuracy of each layout's fixed probes after each epoch: does any layout fall behind?"""
    table = pd.DataFrame(found["history"])
    looks = marks.looks(pd.DataFrame({"layout": table["layout"].unique()}))
    sizes = list(dict.fromkeys(table["size"]))
    figure = new_figure("Probes of each layout, epoch by epoch", "epoch", "validation accuracy, %", theme)
    for (layout, size), own in table.groupby(["layout", "size"], sort=False):
        name = html.escape(f"{layout} {size}")
        figure.add_scatter(x=own["epoch"], y=own["val_top1"] * scale("val_top1"), mode="lines+markers", name=name,
                           line={"color": looks[str(layout)].colour, "dash": DASHES[sizes.index(size) % len(DASHES)]},
                           hovertemplate=f"<b>{name}</b> epoch %{{x}}: %{{y:.1f}} %<extra></extra>")  # fmt: skip
    return figure


def candidates(found: Mapping[str, Any], *, theme: Theme = "light") -> go.Figure:
    """Candidates a device-hour over how many are asked for, the supernet's own training included, beside training each
    alone."""
    known, device_hour = found["candidates"], "candidates a device-hour"
    table = pd.DataFrame(known["curve"])
    figure = new_figure("What the supernet saves", "candidates asked for", device_hour, theme)
    figure.add_scatter(x=table["candidates"], y=table["inherited"], mode="lines+markers", name="inherited weights",
                       line={"color": marks.COLOURS[0]},
                       hovertemplate="%{x:,} candidates: %{y:.3~g} an hour<extra></extra>")  # fmt: skip
    if known["alone_s"]:
        figure.add_scatter(x=table["candidates"], y=table["alone"], mode="lines", name="each trained alone",
                           line={"color": LINE, "dash": "dash", "width": 1.5})  # fmt: skip
    if known["pays_from"]:
        figure.add_vline(x=known["pays_from"], line={"color": INK[theme], "width": 1, "dash": "dot"})
        figure.add_annotation(x=math.log10(known["pays_from"]), y=1, yref="paper", xanchor="left", showarrow=False,
                              text=f"cheaper from {known['pays_from']:,} on")  # fmt: skip
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log")
    return figure
