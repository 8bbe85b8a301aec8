"""Checks whether a search has run enough: device-hours, wall-clock time, little left to gain.

All of it follows from the record, so that a resumed search stops where an uninterrupted one would have, but for the
trials that were running. What a strategy expects a proposal to gain is in the proposal's attributes.
"""

from collections.abc import Mapping, Sequence

import moocore
import numpy as np

from coatnet_search.analysis.front import in_box
from coatnet_search.core.quantities import Sense, sign
from coatnet_search.record.trial import Trial
from coatnet_search.study.sections import Resources, StopSpec

EXPECTED = "expected_gain"  # attribute of a proposal: hypervolume that its strategy expected of it, a share of the box
LAST = 5  # proposals in a row whose expected gains must be small
WINDOW = 10  # finished trials over which a gain is observed where a strategy expects none


def device_hours(trials: Sequence[Trial], resources: Resources) -> float:
    """Hours for which ended and paused trials occupied a device, each the part of it that it asks for, of all its
    workers: GPU-hours where it asks for GPUs."""
    seconds = sum(trial.timings.get("wall_s", 0.0) for trial in trials)
    return seconds * resources.devices / 3600


def spent(stop: StopSpec, trials: Sequence[Trial], resources: Resources, wall_hours: float) -> str | None:
    """Why nothing more is to be started, in words; None where something is left to spend."""
    used = device_hours(trials, resources)
    if stop.device_hours is not None and used >= stop.device_hours:
        return f"{used:.3g} device-hours are used, stop.device_hours is {stop.device_hours:g}"
    if stop.wall_hours is not None and wall_hours >= stop.wall_hours:
        return f"it ran for {wall_hours:.3g} hours, stop.wall_hours is {stop.wall_hours:g}"
    return None


def little_to_gain(least: float | None, trials: Sequence[Trial], objectives: Mapping[str, Sense]) -> str | None:
    """Why no further candidate is worth a trial, in words: each of the last ``LAST`` proposals was expected to gain
    less than ``least``; of a strategy that expects nothing, the last ``WINDOW`` finished trials gained less than that a
    trial."""
    if least is None:
        return None
    expected = [trial.attributes[EXPECTED] for trial in trials if EXPECTED in trial.attributes]
    if expected:
        largest = max(expected[-LAST:])
        if len(expected) < LAST or largest >= least:
            return None
        return (
            f"the last {LAST} proposals were expected to gain at most {largest:.2g} of hypervolume, less than {least:g}"
        )
    gain = observed_gain(trials, objectives)
    if gain is None or gain >= least:
        return None
    return f"the last {WINDOW} trials gained {gain:.2g} of hypervolume each, below {least:g}"


def observed_gain(trials: Sequence[Trial], objectives: Mapping[str, Sense]) -> float | None:
    """Hypervolume that a trial of the last ``WINDOW`` done ones gained on average, as a share of the box from the best
    to 10 % beyond the worst values seen; None before twice as many are done."""
    signs = [sign(sense) for sense in objectives.values()]
    rows = [[trial.metrics.get(name) for name in objectives] for trial in trials if trial.state == "done"]
    known = [row for row in rows if all(value is not None for value in row)]
    if len(known) < 2 * WINDOW:
        return None
    losses = np.array(known, dtype=float) * signs
    scaled = in_box(losses)
    indicator = moocore.Hypervolume(ref=np.ones(len(objectives)))
    return float(indicator(scaled) - indicator(scaled[:-WINDOW])) / WINDOW
