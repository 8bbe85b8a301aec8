"""Turns training runs into the curves of their arms: the one way for ``scaling``, ``choose`` and ``settle``.

An arm is what may be chosen: a layout at a size, or a network of timm. All its networks (instances) belong to one
curve, where they differ by what stays with them at all sizes. Where an arm has one network, its runs of a seed and
draw are paired with the other arms'. Layouts are trained alike on the same images and are one group; a network of timm
stands alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coatnet_search.curves.points import half_wrong
from coatnet_search.curves.summary import Curve

Arm = tuple[str, float]  # layout, size
PEER = "timm:"  # how the labels of timm's networks begin


@dataclass(frozen=True, kw_only=True)
class Run:
    """One full training run. ``instance`` tells networks of one layout and size apart, ``size`` is the rung of a ladder
    of costs, ``error`` (a fraction) is None where it is not known."""

    layout: str
    num_images: int
    instance: str | int = 0
    size: float = 1.0
    seed: int = 0
    error: float | None = None

    @property
    def arm(self) -> Arm:
        return self.layout, self.size

    @property
    def key(self) -> tuple[object, ...]:
        """What the run is, whatever came out."""
        return self.layout, self.size, self.instance, self.num_images, self.seed


def arm_name(arm: Arm) -> str:
    """The name of an arm's curve."""
    return f"{arm[0]} x{arm[1]:g}"


def usable(run: Run, images: int | None) -> bool:
    """Whether a run's error can be fitted: it is known, and where it is 0 so is the number of ``images`` scored."""
    return run.error is not None and (run.error > 0 or images is not None)


def with_logarithm(run: Run, images: int | None) -> Run:
    """A usable run, where none wrong counts as half a wrong one."""
    return replace(run, error=half_wrong(images)) if images is not None and run.error == 0 else run


def curves_of(runs: Sequence[Run], images: int | None = None) -> list[Curve]:
    """A curve an arm of the usable runs, in order of names; ``images``: on how many each error was measured."""
    curves = []
    for arm in sorted({run.arm for run in runs if usable(run, images)}):
        mine = sorted((run for run in runs if run.arm == arm and usable(run, images)),
                      key=lambda run: (run.num_images, str(run.instance), run.seed))  # fmt: skip
        several = len({run.instance for run in mine}) > 1
        labels = [f"{arm} {run.instance} {run.seed}" if several else str(run.seed) for run in mine]
        errors = [with_logarithm(run, images).error or 0.0 for run in mine]
        curves.append(Curve(arm_name(arm), [run.num_images for run in mine], errors, labels,
                            group=arm[0] if arm[0].startswith(PEER) else "layouts", images=images,
                            instances=[run.instance for run in mine] if several else None))  # fmt: skip
    return curves
