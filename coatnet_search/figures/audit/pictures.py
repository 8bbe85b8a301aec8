"""The audit of a supernet as PNG files by matplotlib: no browser is needed. Same marks as ``audit_figures.py``."""

from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from coatnet_search.analysis.audit import Audit
from coatnet_search.core.quantities import axis_title
from coatnet_search.figures.search import marks
from coatnet_search.figures.search.figures import INK, LINE
from coatnet_search.figures.search.pictures import SHAPES, titles, without_mathematics, write_picture


def write_audit_pictures(audit: Audit | None, folder: Path) -> list[Path]:
    """Write ``audit-scores.png`` and ``audit-offsets.png``; none where no network was audited."""
    if audit is None or not audit.networks:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    draws = {"audit-scores": _scores, "audit-offsets": _offsets}
    return [write_picture(partial(draw, audit=audit), folder / f"{name}.png") for name, draw in draws.items()]


def _scores(axes: Axes, audit: Audit) -> None:
    rows, looks = marks.audit_points(audit), marks.audit_looks(audit)
    titles(axes, "inherited scores against trainings alone", f"{axis_title(audit.metric)}, inherited weights",
            f"{axis_title(audit.metric)}, trained alone")  # fmt: skip
    ends = marks.shared_range(rows)
    axes.plot(ends, ends, color=LINE, linewidth=1.2, linestyle="--", zorder=1)
    for layout, look in looks.items():
        own = rows[rows["layout"] == layout]
        spread = np.stack([own["y"] - own["y_low"], own["y_high"] - own["y"]])
        axes.errorbar(own["x"], own["y"], yerr=spread, fmt=SHAPES[look.shape], color=look.colour, elinewidth=1,
                      markersize=6, label=without_mathematics(layout))  # fmt: skip
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def _offsets(axes: Axes, audit: Audit) -> None:
    rows, looks, known = marks.audit_points(audit), marks.audit_looks(audit), marks.audit_offsets(audit)
    titles(axes, "offset of the inherited scores by layout", "", f"{axis_title(audit.metric)}: inherited minus alone")
    jitter = np.random.default_rng(0)  # of the picture alone: the same picture each time
    for place, (layout, look) in enumerate(looks.items()):
        own = rows[rows["layout"] == layout]
        axes.scatter(place + jitter.uniform(-0.15, 0.15, len(own)), own["offset"], marker=SHAPES[look.shape],
                     color=look.colour, alpha=0.6, s=26)  # fmt: skip
        for line in known[known["layout"] == layout].to_dict("records"):
            ends = [[line["value"] - line["low"]], [line["high"] - line["value"]]]
            axes.errorbar([place], [line["value"]], yerr=ends, fmt="_", color=INK["light"], markersize=22, capsize=4)
    axes.axhline(0, color=LINE, linewidth=1, linestyle="--")
    axes.set_xticks(range(len(looks)), [without_mathematics(name) for name in looks])
    axes.grid(visible=False, axis="x")
