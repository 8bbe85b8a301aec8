"""Two studies' fronts in plotly: pure functions, the table of ``compare_summary`` in, figure out."""

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from coatnet_search.core.quantities import axis_title, quantity, scale
from coatnet_search.figures.search import marks
from coatnet_search.figures.search.figures import LINE, Theme, template


def difference(table: pd.DataFrame, names: tuple[str, str], x: str, y: str, *, theme: Theme = "light") -> go.Figure:
    """The second study's best minus the first's at each cost, as steps, with the 95 % interval as a band."""
    factor, known = scale(y), quantity(y)
    points = " (points)" if known.form == "percent" else f" ({known.unit})" if known.unit else ""
    figure = go.Figure()
    figure.update_layout(template=template(theme), height=480, legend={"title": {"text": ""}},
                         title_text=html.escape(f"{names[1]} minus {names[0]}, {known.title} at equal "
                                                f"{quantity(x).title}"))  # fmt: skip
    figure.add_hline(y=0, line={"color": LINE, "width": 1})
    if table["low"].notna().any():
        edge = {"shape": "hv", "width": 0}
        figure.add_scatter(x=table["x"], y=factor * table["high"], mode="lines", line=edge, hoverinfo="skip",
                           showlegend=False)  # fmt: skip
        figure.add_scatter(x=table["x"], y=factor * table["low"], mode="lines", line=edge, hoverinfo="skip",
                           fill="tonexty", fillcolor="rgba(0,114,178,0.2)",
                           name="95 % interval")  # fmt: skip
    figure.add_scatter(
        x=table["x"], y=factor * table["difference"], mode="lines+markers", name="difference", marker={"size": 6},
        line={"shape": "hv", "color": marks.COLOURS[0], "width": 2},
        customdata=np.stack([table["first_trial"], table["second_trial"]], axis=1),
        hovertemplate=f"%{{x:.4~s}}: %{{y:+.3~g}}<br>{html.escape(names[0])} trial %{{customdata[0]}}, "
        f"{html.escape(names[1])} trial %{{customdata[1]}}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text=html.escape(axis_title(x)), tickformat="~s")
    if marks.logarithmic(table["x"], x):
        figure.update_xaxes(type="log", dtick="D2")
    figure.update_yaxes(title_text=html.escape(f"difference{points}"))
    return figure
