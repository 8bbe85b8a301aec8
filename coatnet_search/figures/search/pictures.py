"""The report's figures as PNG files by matplotlib: no browser is needed. Same marks and look as ``figures.py``."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from coatnet_search.analysis.front import SEPARATE_FRONTS, hypervolume_over_trials
from coatnet_search.core.quantities import Sense, axis_title, quality, quantity, sense_of
from coatnet_search.core.whole_file import whole_file
from coatnet_search.figures.search import marks
from coatnet_search.figures.search.figures import GRID, INK, LINE

SHAPES = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "star": "*"}
SIZE_INCHES, DPI = (8.0, 4.8), 150


def write_pictures(
    frame: pd.DataFrame,
    objectives: Mapping[str, Sense],
    folder: Path,
    *,
    num_val: int | None = None,
    chosen: Mapping[int, int] | None = None,
    overlay: bool = False,
) -> list[Path]:
    """Write ``front-NAME.png``, ``layouts.png``, ``hypervolume.png`` and ``curves.png``; their paths in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    draws: dict[str, Callable[[Axes], None]] = {
        f"front-{x}": partial(
            _front, frame=frame, objectives=objectives, x=x, num_val=num_val, chosen=chosen or {}, overlay=overlay
        )
        for x in marks.axes(frame, objectives)
    }
    for name, draw in (("layouts", _by_layout), ("hypervolume", _hypervolume), ("curves", _curves)):
        draws[name] = partial(draw, frame=frame, objectives=objectives)
    return [write_picture(draw, folder / f"{name}.png") for name, draw in draws.items()]


def write_picture(draw: Callable[[Axes], None], path: Path) -> Path:
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID["light"], linewidth=0.8)
    axes.set_axisbelow(True)
    draw(axes)
    with whole_file(path) as half:
        figure.savefig(half, format="png")
    return path


def _front(
    axes: Axes,
    frame: pd.DataFrame,
    objectives: Mapping[str, Sense],
    x: str,
    num_val: int | None,
    chosen: Mapping[int, int],
    overlay: bool = False,
) -> None:
    y = quality(objectives)
    rows, looks = marks.points(frame, objectives, x, y, num_val), marks.looks(frame)
    titles(axes, f"{quantity(y).title} against {quantity(x).title}", axis_title(x), axis_title(y))
    if rows.empty:
        return empty_picture(axes, f"No trial has both {quantity(y).title} and {quantity(x).title}.")
    line = rows[rows["front"] & (not frame.attrs.get(SEPARATE_FRONTS))].sort_values("x")
    step = "steps-post" if sense_of(x, objectives) == "min" else "steps-pre"
    axes.plot(line["x"], line["y"], drawstyle=step, color=LINE, linewidth=1.8, zorder=1)
    for layout, look in looks.items():
        for final in (True, False):
            part = rows[(rows["layout"] == layout) & (rows["final"] == final)]
            _bars(axes, part, look)
            face = look.colour if final else "none"
            axes.scatter(part["x"], part["y"], marker=SHAPES[look.shape], facecolors=face, zorder=3,
                         s=120 if look.shape == "star" else 38, linewidths=0.6 if final else 1.4,
                         edgecolors="white" if final else look.colour)  # fmt: skip
    if overlay and len(others := marks.published_points(x, y)):
        axes.scatter(others["x"], others["y"], marker="x", color=LINE, s=18, linewidths=0.9, zorder=2)
    away = -13 if sense_of(y, objectives) == "min" else 13  # points, to the side where no trial is
    for number, rank in chosen.items():
        for _, row in rows[rows["number"] == number].iterrows():
            axes.annotate(str(rank), (row["x"], row["y"]), xytext=(0, away), textcoords="offset points", ha="center",
                          va="center", fontweight="bold", zorder=4)  # fmt: skip
    cost_axis(axes, rows["x"], x)
    _legend(axes, looks, open_too=not rows["final"].all(), line=True)


def _bars(axes: Axes, part: pd.DataFrame, look: marks.Look) -> None:
    part = part if len(part) <= marks.NUM_CURVES else part[part["front"]]
    for axis in ("x", "y"):
        known = part[np.isfinite(part[f"{axis}_high"].to_numpy(dtype=float))]
        if len(known):
            ends = np.stack([known[axis] - known[f"{axis}_low"], known[f"{axis}_high"] - known[axis]])
            x_ends, y_ends = (ends, None) if axis == "x" else (None, ends)
            axes.errorbar(known["x"], known["y"], xerr=x_ends, yerr=y_ends, fmt="none", ecolor=look.colour, alpha=0.4,
                          elinewidth=1)  # fmt: skip


def _by_layout(axes: Axes, frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> None:
    y = quality(objectives)
    rows, looks = marks.points(frame, objectives, y, y), marks.looks(frame)
    titles(axes, f"{quantity(y).title} by layout", "", axis_title(y))
    if rows.empty:
        return empty_picture(axes, f"No trial has a {quantity(y).title}.")
    jitter = np.random.default_rng(0)  # of the picture alone: the same picture each time
    for place, (layout, look) in enumerate(looks.items()):
        own = rows[rows["layout"] == layout]
        final = own["final"].to_numpy(dtype=bool)
        if final.any():
            line = {"color": look.colour, "linewidth": 1.3}
            axes.boxplot(own["y"][final], positions=[place], widths=0.6, showfliers=False, boxprops=line,
                         whiskerprops=line, capprops=line, medianprops=line)  # fmt: skip
        offsets = place + jitter.uniform(-0.18, 0.18, len(own))
        for shown, face in ((final, look.colour), (~final, "none")):
            axes.scatter(offsets[shown], own["y"][shown], marker=SHAPES[look.shape], facecolors=face,
                         edgecolors=look.colour, alpha=0.75, s=26)  # fmt: skip
    axes.set_xticks(range(len(looks)), [without_mathematics(name) for name in looks])
    axes.set_xlim(-0.6, len(looks) - 0.4)
    axes.grid(visible=False, axis="x")


def _hypervolume(axes: Axes, frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> None:
    rows = hypervolume_over_trials(frame, objectives)
    titles(axes, "growth of the front", "trials", "hypervolume (share of the box)")
    if rows.empty:
        return empty_picture(axes, "No trial is done yet.")
    axes.plot(rows["trials"], rows["hypervolume"], drawstyle="steps-post", color=marks.COLOURS[0], linewidth=2,
              marker="o" if len(rows) < 60 else None, markersize=4)  # fmt: skip
    axes.set_ylim(bottom=0)


def _curves(axes: Axes, frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> None:
    name = marks.curve_name(frame, objectives)
    if name is None:
        titles(axes, "learning curves", "", "")
        return empty_picture(axes, "No trial has reported an epoch.")
    drawn, looks = marks.curves(frame, name, objectives), marks.looks(frame)
    title = f"{quantity(name).title} by epoch ({len(drawn):,} of {len(frame):,} trials, the front drawn strong)"
    titles(axes, title, "epoch", axis_title(name))
    for row, curve in drawn:
        look = looks[str(row["layout"])]
        axes.plot(curve[:, 0], curve[:, 1], color=look.colour, marker=SHAPES[look.shape],
                  markersize=4 if row["on_front"] else 2, linewidth=2.2 if row["on_front"] else 0.8,
                  alpha=1 if row["on_front"] else 0.4)  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes, looks, open_too=False, line=False)


def titles(axes: Axes, title: str, x_title: str, y_title: str) -> None:
    axes.set_title(without_mathematics(title[:1].upper() + title[1:]), loc="left", color=INK["light"])
    axes.set_xlabel(without_mathematics(x_title))
    axes.set_ylabel(without_mathematics(y_title))


def empty_picture(axes: Axes, message: str) -> None:
    axes.text(0.5, 0.5, without_mathematics(message), ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()


def cost_axis(axes: Axes, values: pd.Series, name: str) -> None:
    if marks.logarithmic(values, name):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    if quantity(name).form == "count":
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    else:
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.4g}"))


def _legend(axes: Axes, looks: Mapping[str, marks.Look], *, open_too: bool, line: bool) -> None:
    """One entry a layout, drawn by hand: it is the same whether a layout has final points or not."""
    handles = [Line2D([], [], color=look.colour, marker=SHAPES[look.shape], linestyle="",
                      label=without_mathematics(name))
               for name, look in looks.items()]  # fmt: skip
    if line:
        handles.insert(0, Line2D([], [], color=LINE, linewidth=1.8, label="front"))
    if open_too:
        handles.append(Line2D([], [], color=INK["light"], marker="o", markerfacecolor="none", linestyle="",
                              label="not final"))  # fmt: skip
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def without_mathematics(text: str) -> str:
    """Text that matplotlib won't read as mathematics."""
    return text.replace("$", r"\$")
