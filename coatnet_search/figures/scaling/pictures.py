"""A scaling study's figures as PNG files by matplotlib: no browser is needed. Same marks as ``scaling_figures.py``."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, StrMethodFormatter

from coatnet_search.analysis.scaling import Scaling
from coatnet_search.core.whole_file import whole_file
from coatnet_search.figures.scaling import marks
from coatnet_search.figures.scaling.figures import ERROR, IMAGES
from coatnet_search.figures.search.figures import GRID, INK, LINE
from coatnet_search.figures.search.pictures import DPI, SHAPES

SIZE_INCHES, LINE_LETTERS = (8.0, 5.4), 118
STYLES: dict[str, Any] = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3))}


def write_scaling_pictures(scaling: Scaling, settings: Sequence[str], target: float, folder: Path) -> list[Path]:
    """Write ``scaling-curves.png``, ``-best``, ``-crossovers``, ``-frontier``, ``-generalisation`` and ``-residuals``;
    their paths in this order. ``target`` and ``settings`` as in ``scaling_figures.all_figures``."""
    folder.mkdir(parents=True, exist_ok=True)
    draws: dict[str, Callable[[Axes], None]] = {
        "curves": partial(_curves, scaling=scaling),
        "best": partial(_best, scaling=scaling),
        "crossovers": partial(_crossovers, scaling=scaling),
        "frontier": partial(_frontier, scaling=scaling, target=target),
        "generalisation": partial(_generalisation, scaling=scaling),
        "residuals": partial(_residuals, scaling=scaling),
    }
    caption = marks.caption(scaling, settings)
    return [_write(draw, caption, folder / f"scaling-{name}.png") for name, draw in draws.items()]


def _write(draw: Callable[[Axes], None], caption: Sequence[str], path: Path) -> Path:
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID["light"], linewidth=0.8)
    axes.set_axisbelow(True)
    draw(axes)
    lines = [line for text in caption for line in textwrap.wrap(text, LINE_LETTERS)]
    figure.supxlabel(without_mathematics("\n".join(lines)), x=0.01, ha="left", fontsize=8, color=LINE)
    with whole_file(path) as half:
        figure.savefig(half, format="png")
    return path


def _curves(axes: Axes, scaling: Scaling) -> None:
    _titles(axes, "Error against the amount of training data", IMAGES, ERROR)
    looks, runs, cells, bands = marks.looks(scaling), marks.runs(scaling), marks.cells(scaling), marks.bands(scaling)
    for arm, look in looks.items():
        band, own = bands[bands["arm"] == arm], runs[runs["arm"] == arm]
        axes.fill_between(band["num_images"], band["low"], band["high"], color=look.colour, alpha=0.15, linewidth=0)
        axes.plot(band["num_images"], band["middle"], color=look.colour, linestyle=STYLES[look.dash], linewidth=1.6)
        axes.scatter(own["num_images"], own["error"], marker=SHAPES[look.shape], color=look.colour, alpha=0.35, s=12)
        for held_out in (False, True):
            part = cells[(cells["arm"] == arm) & (cells["held_out"] == held_out)]
            axes.scatter(part["num_images"], part["error"], marker=SHAPES[look.shape], s=42, zorder=3,
                         facecolors="white" if held_out else look.colour,
                         edgecolors=look.colour if held_out else "white",
                         linewidths=1.5 if held_out else 0.6)  # fmt: skip
    noise = scaling.noise
    for name, width in (("binomial_sd", 5.0), ("seed_sd", 1.6)):
        axes.errorbar(noise["num_images"] * 0.93, 100 * noise["error"], yerr=100 * noise[name].fillna(0.0), fmt="none",
                      ecolor=LINE, elinewidth=width, alpha=0.7)  # fmt: skip
    table, top = marks.lost(scaling), float(max(runs["error"].max(), bands["high"].max()))
    for one in table.to_dict("records"):
        colour = looks[str(one["arm"])].colour
        axes.scatter([one["num_images"]], [top * 1.06 ** (1 + one["place"])], marker="x", color=colour)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.3g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    _images_axis(axes, scaling)
    kinds = (("binomial_sd", 5.0, "noise: val. images"), ("seed_sd", 1.6, "noise: seeds"))
    more = [Line2D([], [], color=LINE, linewidth=width, label=label) for name, width, label in kinds
            if noise[name].notna().any()]  # fmt: skip
    if len(scaling.held_out):
        more.append(_mark("o", "held out", open_too=True))
    if len(table):
        more.append(_mark("x", "not in the fit"))
    _legend(axes, looks, more)


def _best(axes: Axes, scaling: Scaling) -> None:
    _titles(axes, "Which arm is best", IMAGES, "probability of the smallest error")
    table, looks = scaling.probability_best(scaling.grid()), marks.looks(scaling)
    for arm in scaling.arms:
        look = looks[arm]
        axes.plot(table.index, table[arm], color=look.colour, linestyle=STYLES[look.dash], linewidth=2)
    axes.axhline(0.95, color=LINE, linewidth=1, linestyle=":")
    axes.set_ylim(-0.02, 1.02)
    _images_axis(axes, scaling)
    _legend(axes, {arm: looks[arm] for arm in scaling.arms}, [])


def _crossovers(axes: Axes, scaling: Scaling) -> None:
    _titles(axes, "Where the order changes", IMAGES, "")
    found = marks.crossings(scaling)[::-1]
    if not found:
        return _empty(axes, "A crossover takes two arms; this study has one.")
    tallest = max(float(one.chances.max()) for one in found) or 1.0
    for place, one in enumerate(found):
        axes.stairs(place + 0.75 * one.chances / tallest, one.edges, baseline=place, fill=True, color=LINE)
        axes.axhline(place, color=LINE, linewidth=0.8)
        axes.text(
            0.01,
            place + 0.88,
            without_mathematics(one.words),
            transform=axes.get_yaxis_transform(),
            fontsize=8,
            va="center",
        )
    axes.set_yticks(range(len(found)), [without_mathematics(f"{one.first} / {one.second}") for one in found])
    axes.set_ylim(-0.1, len(found))
    axes.grid(visible=False, axis="y")
    _images_axis(axes, scaling)


def _frontier(axes: Axes, scaling: Scaling, target: float) -> None:
    title = f"Predicted error on {target:,.0f} images against the cost of training"
    _titles(axes, title, "multiply-adds of training", ERROR)
    table, looks = marks.frontier(scaling, target), marks.looks(scaling)
    if table.empty:
        return _empty(axes, "The multiply-adds of these networks are not on record.")
    line = table[table["best"]]
    axes.plot(line["training_macs"], line["error"], drawstyle="steps-post", color=LINE, linewidth=1.8)
    for _, group in table.groupby("layout", sort=False):
        colour = looks[str(group["arm"].iloc[0])].colour
        axes.plot(group["training_macs"], group["error"], color=colour, linewidth=1, linestyle=":")
        ends = np.stack([group["error"] - group["low"], group["high"] - group["error"]])
        axes.errorbar(group["training_macs"], group["error"], yerr=ends, fmt="none", ecolor=colour, elinewidth=1.2)
        axes.scatter(group["training_macs"], group["error"], color=colour, s=44, zorder=3,
                     marker=SHAPES[looks[str(group["arm"].iloc[0])].shape])  # fmt: skip
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    if marks.wide(table["training_macs"]):
        _log_axis(axes)
    shown = {str(arm): looks[str(arm)] for arm in table["arm"]}
    _legend(axes, shown, [Line2D([], [], color=LINE, linewidth=1.8, label="best for its budget")])


def _generalisation(axes: Axes, scaling: Scaling) -> None:
    _titles(
        axes, "Generalisation against capacity", "training loss (mean of the last epoch)", "validation accuracy (%)"
    )
    table, looks = marks.generalisation(scaling), marks.looks(scaling)
    if table.empty:
        return _empty(axes, "No run has a training loss on record.")
    smallest, largest = float(table["num_images"].min()), float(table["num_images"].max())
    sd = 100 * scaling.noise.set_index("num_images")["seed_sd"]
    for arm, look in looks.items():
        own = table[table["arm"] == arm]
        axes.plot(own["train_loss"], own["accuracy"], color=look.colour, linestyle=STYLES[look.dash], linewidth=1.3)
        bars = sd.reindex(own["num_images"]).fillna(0.0).to_numpy()
        axes.errorbar(own["train_loss"], own["accuracy"], yerr=bars, fmt="none", ecolor=LINE, elinewidth=1)
        faces = np.where(own["held_out"], "white", look.colour)
        axes.scatter(own["train_loss"], own["accuracy"], marker=SHAPES[look.shape], edgecolors=look.colour, zorder=3,
                     s=marks.dots(own["num_images"], smallest, largest) ** 2, facecolors=faces)  # fmt: skip
    axes.set_title(
        f"mark: {smallest:,.0f} images (small) to {largest:,.0f} (large)", loc="right", fontsize=8, color=LINE
    )
    _legend(axes, {arm: look for arm, look in looks.items() if (table["arm"] == arm).any()}, [])


def _residuals(axes: Axes, scaling: Scaling) -> None:
    _titles(axes, "Residuals of the fit", IMAGES, "log error minus median prediction")
    table, looks, noise = marks.residuals(scaling), marks.looks(scaling), scaling.noise
    axes.axhline(0, color=LINE, linewidth=1)
    for name, width in (("binomial_sd", 5.0), ("seed_sd", 1.6)):
        share = (noise[name] / noise["error"]).fillna(0.0)
        axes.errorbar(noise["num_images"] * 0.93, np.zeros(len(noise)), yerr=share, fmt="none", ecolor=LINE,
                      elinewidth=width, alpha=0.7)  # fmt: skip
    for arm, look in looks.items():
        own = table[table["arm"] == arm]
        axes.scatter(own["num_images"], own["residual"], marker=SHAPES[look.shape], color=look.colour, alpha=0.8, s=30)
    _images_axis(axes, scaling, ahead=False)
    _legend(axes, {arm: look for arm, look in looks.items() if (table["arm"] == arm).any()}, [])


# --- parts ------------------------------------------------------------------------------------------------------------


def _titles(axes: Axes, title: str, x_title: str, y_title: str) -> None:
    axes.set_title(without_mathematics(title), loc="left", color=INK["light"])
    axes.set_xlabel(without_mathematics(x_title))
    axes.set_ylabel(without_mathematics(y_title))


def _empty(axes: Axes, message: str) -> None:
    axes.text(0.5, 0.5, without_mathematics(message), ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()


def _images_axis(axes: Axes, scaling: Scaling, *, ahead: bool = True) -> None:
    _log_axis(axes)
    last, most = float(scaling.num_images[-1]), float(scaling.grid()[-1])
    if ahead and most > last:
        axes.axvspan(last, most, color=LINE, alpha=0.12, linewidth=0)
        axes.text(last, 1.0, " extrapolated", transform=axes.get_xaxis_transform(), fontsize=8, color=LINE, va="top")


def _log_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _mark(marker: str, label: str, *, open_too: bool = False) -> Line2D:
    return Line2D([], [], color=INK["light"], marker=marker, linestyle="", label=label,
                  markerfacecolor="none" if open_too else None)  # fmt: skip


def _legend(axes: Axes, looks: Mapping[str, marks.ArmLook], more: Sequence[Line2D]) -> None:
    handles = [Line2D([], [], color=look.colour, marker=SHAPES[look.shape], linestyle=STYLES[look.dash],
                      label=without_mathematics(arm)) for arm, look in looks.items()]  # fmt: skip
    axes.legend(handles=[*handles, *more], loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)


def without_mathematics(text: str) -> str:
    """Text that matplotlib won't read as mathematics."""
    return text.replace("$", r"\$")
