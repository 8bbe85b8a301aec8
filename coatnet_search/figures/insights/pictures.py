"""What a search has taught, as PNG files by matplotlib: no browser is needed. Same marks as ``insight_figures.py``."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from coatnet_search.core.quantities import Sense, axis_title, quantity, scale
from coatnet_search.figures.insights import marks as insight_marks
from coatnet_search.figures.insights.summary import Insights
from coatnet_search.figures.search import marks
from coatnet_search.figures.search.figures import GRID, LINE
from coatnet_search.figures.search.pictures import (
    SHAPES,
    cost_axis,
    empty_picture,
    titles,
    without_mathematics,
    write_picture,
)


def write_search_pictures(
    frame: pd.DataFrame, objectives: Mapping[str, Sense], found: Insights, folder: Path
) -> list[Path]:
    """Write ``search-NAME.png``, the names of ``insight_figures.all_figures``; their paths in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    draws: dict[str, Callable[[Axes], None]] = {
        "noise": partial(_noise, objectives=objectives, found=found),
        "growth-trials": partial(_growth, found=found, by="trials"),
        "growth-hours": partial(_growth, found=found, by="device_hours"),
        "importance": partial(_importance, found=found),
        "marginals": partial(_marginals, found=found),
        "parallel": partial(_parallel, frame=frame, objectives=objectives, found=found),
    }
    return [write_picture(draw, folder / f"search-{name}.png") for name, draw in draws.items()]


def _noise(axes: Axes, objectives: Mapping[str, Sense], found: Insights) -> None:
    y, rows = found.main, found.noise
    x = next((name for name in objectives if name != y), None)
    titles(axes, "the front with its noise", axis_title(x) if x else "", axis_title(y))
    if rows.empty or x is None:
        return empty_picture(axes, "No network was trained with several seeds (replicates:), so no noise is known.")
    line = rows[rows["front"]].sort_values(x)
    axes.plot(line[x] * scale(x), line[y] * scale(y), color=LINE, linewidth=1.8, label="front of the means")
    for layout, look in marks.looks(rows.assign(number=range(len(rows)))).items():
        own = rows[rows["layout"] == layout]
        middle = own[y] * scale(y)
        axes.errorbar(own[x] * scale(x), middle, yerr=own[f"{y}_high"] * scale(y) - middle, fmt="none", alpha=0.4,
                      ecolor=look.colour, elinewidth=1)  # fmt: skip
        axes.scatter(own[x] * scale(x), middle, color=look.colour, marker=SHAPES[look.shape], s=40, zorder=3,
                     alpha=_strength(own), label=without_mathematics(layout))  # fmt: skip
    cost_axis(axes, rows[x], x)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def _strength(rows: pd.DataFrame) -> Any:
    """The fainter, the less probable it is that a network is on the front; an array, which the stubs don't know."""
    return 0.15 + 0.85 * rows["p_front"].to_numpy(float)


def _growth(axes: Axes, found: Insights, by: str) -> None:
    title = {"trials": "trials in the order in which they ended", "device_hours": "device-hours"}[by]
    titles(axes, f"growth of the front by {by.replace('_', '-')}", title, "hypervolume (share of the box)")
    if found.growth.empty:
        return empty_picture(axes, "No trial is done yet.")
    for origin, rows in found.growth.groupby("origin", sort=False):
        axes.plot(rows[by], rows["hypervolume"], drawstyle="steps-post", color=insight_marks.ORIGINS[str(origin)],
                  linewidth=2, label=insight_marks.NAMES[str(origin)])  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="lower right")


def _importance(axes: Axes, found: Insights) -> None:
    rows = found.importance[: insight_marks.MOST_DIMENSIONS][::-1]
    titles(axes, "which dimensions matter", "share", "")
    if rows.empty:
        return empty_picture(axes, "Too few comparable trials to tell dimensions apart.")
    places = np.arange(len(rows))
    axes.barh(places + 0.2, rows["importance"], 0.38, color=marks.COLOURS[0], label=quantity(found.main).title)
    axes.barh(places - 0.2, rows["for_the_front"], 0.38, color=marks.COLOURS[1], label="to reach the front")
    axes.set_yticks(places, [without_mathematics(str(name)) for name in rows["dimension"]])
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False, loc="lower right")


def _marginals(axes: Axes, found: Insights) -> None:
    rows = insight_marks.effects(found.marginals, found.importance, found.main)[::-1]
    title = f"{axis_title(found.main)}, against the mean network with as many multiply-adds"
    titles(axes, "what a choice does at equal cost", title, "")
    if rows.empty:
        return empty_picture(axes, "Too few comparable trials to tell values apart.")
    axes.axvline(0, color=LINE, linewidth=1)
    places = np.arange(len(rows))
    axes.errorbar(rows["effect"], places, xerr=rows["high"] - rows["effect"], fmt="o", color=marks.COLOURS[0],
                  markersize=5, elinewidth=1.2)  # fmt: skip
    axes.set_yticks(
        places, [without_mathematics(label) for label in rows["label"]], fontsize=7 if len(rows) > 20 else 9
    )
    return None


def _parallel(axes: Axes, frame: pd.DataFrame, objectives: Mapping[str, Sense], found: Insights) -> None:
    lines, rows = insight_marks.parallel(frame, objectives, insight_marks.leading(found.importance))
    titles(axes, insight_marks.PARALLEL[:1].lower() + insight_marks.PARALLEL[1:], "", "")
    if not lines:
        return empty_picture(axes, "Too few comparable trials, or nothing to choose.")
    looks = marks.looks(rows)
    places = np.stack([axis.places for axis in lines], axis=1)  # (trials, axes)
    bent = [np.column_stack([range(len(lines)), line]) for line in places]
    colours = [looks[str(layout)].colour for layout in rows["layout"]]
    axes.add_collection(LineCollection(bent, colors=colours, linewidths=0.9, alpha=0.55))  # one artist: 10,000 lines
    axes.autoscale_view()
    for at, axis in enumerate(lines):
        axes.axvline(at, color=GRID["light"], linewidth=1)
        for place, text in axis.ticks:
            axes.text(at + 0.03, place, without_mathematics(text), fontsize=7, va="center")
    axes.set_xticks(
        range(len(lines)), [without_mathematics(axis.title) for axis in lines], rotation=30, ha="right", fontsize=8
    )
    axes.set_yticks([])
