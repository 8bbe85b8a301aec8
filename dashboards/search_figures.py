"""More figures of a search: every dimension of its space at once. Pure functions, as in ``figures.py``."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from coatnet_search.analyse import comparable, numbers
from coatnet_search.quantities import Sense, axis_title, quality, scale, sense_of
from dashboards.figures import Theme, template
from dashboards.insight_marks import MOST_LINES, best

COLOUR_SCALE = "Cividis"  # the same order for any colour vision, and in grey


def parallel(frame: pd.DataFrame, objectives: Mapping[str, Sense], *, theme: Theme = "light") -> go.Figure:
    """The comparable trials as lines over every dimension of the space and the objectives; light is good."""
    main = quality(objectives)
    rows = comparable(frame, objectives)
    figure = go.Figure()
    figure.update_layout(template=template(theme), height=520, margin={"l": 80, "r": 60, "t": 140, "b": 40},
                         title={"y": 0.98, "yanchor": "top"},
                         title_text=f"Dimensions and objectives ({min(len(rows), MOST_LINES):,} of {len(frame):,} "
                         "trials); drag along an axis to filter")  # fmt: skip
    if rows.empty:
        figure.add_annotation(text="No trial is comparable yet.", x=0.5, y=0.5, xref="paper", yref="paper",
                              showarrow=False)  # fmt: skip
        return figure.update_xaxes(visible=False).update_yaxes(visible=False)
    rows = best(rows, objectives)
    names = dict.fromkeys(name for one in rows["candidate"] if isinstance(one, Mapping) for name in one)
    axes = [_dimension(name, [_of(one, name) for one in rows["candidate"]]) for name in names]
    axes += [{"label": html.escape(axis_title(name)), "values": numbers(rows, name) * scale(name)}
             for name in objectives]  # fmt: skip
    worst_dark = sense_of(main, objectives) == "min"
    figure.add_parcoords(
        dimensions=[axis for axis in axes if axis is not None], labelangle=-25, labelside="top",
        line={"color": numbers(rows, main) * scale(main), "colorscale": COLOUR_SCALE, "reversescale": worst_dark,
              "showscale": True, "colorbar": {"title": {"text": html.escape(axis_title(main)), "side": "right"}}},
    )  # fmt: skip
    return figure


def _of(candidate: Any, name: str) -> Any:
    return candidate.get(name) if isinstance(candidate, Mapping) else None


def _dimension(name: str, values: Sequence[Any]) -> dict[str, Any] | None:
    """An axis: numbers where all are, else a place a word; None where all trials have the same value."""
    kinds = set(map(str, values))
    if len(kinds) < 2:
        return None
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        ticks = sorted(set(values))
        chosen = {"tickvals": ticks} if len(ticks) <= 8 else {}
        return {"label": html.escape(name), "values": np.array(values, dtype=float), **chosen}
    words = sorted(kinds)
    return {"label": html.escape(name), "values": [words.index(str(value)) for value in values],
            "tickvals": list(range(len(words))), "ticktext": [html.escape(word) for word in words]}  # fmt: skip
