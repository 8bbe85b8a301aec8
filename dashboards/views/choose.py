"""Choose: the study's rule with limits by sliders, the files, and the command that chooses the same."""

import io
import zipfile
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from coatnet_search.analysis.choose import RULE, RULE_AT, Choice, choose, choose_at, document, file_name
from coatnet_search.analysis.frame import Floats, metric_names, numbers
from coatnet_search.analysis.front import comparable
from coatnet_search.analysis.scaling import Scaling
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import heading, sense_of, show
from coatnet_search.core.screen import command
from coatnet_search.figures.search.summary import cautions, spreadsheet_safe
from coatnet_search.study.audit_of_record import audited_record
from runs_on_disk import Run, Site, words
from views.scaling import fitted

STEPS = 40


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a choice from a scaling study is for, as the options of ``choose`` have it."""

    scaling: Scaling
    at: float
    compute: float | None
    beyond: bool

    def options(self) -> list[str]:
        return ["--at-data", number_words(self.at),
                *(["--at-compute", number_words(self.compute)] if self.compute is not None else []),
                *(["--beyond"] if self.beyond else [])]  # fmt: skip


def main(site: Site, run: Run) -> None:
    st.title("Choose")
    top = int(st.number_input("how many", 1, 20, int((run.study.get("choose") or {}).get("top", 3)), key="top",
                              bind="query-params"))  # fmt: skip
    try:
        target = _target(run)
        limits, layouts = _limits(run), _layouts(run)
        view = audited_record(run.record, run.study, layouts=layouts) if layouts else run.audit
        if view and view.decision.state == "refused":
            raise InputError(f"{view.decision.says}. Choose within one")
        choices = _choose(run, view.frame if view else run.frame, limits, top, target)
    except InputError as error:
        st.warning(words(error))
        return
    if target:
        st.markdown(words(target.scaling.conclusion(target.at, compute=target.compute, beyond=target.beyond)))
    else:
        note = (run.study.get("data_summary") or {}).get("note")
        for text in cautions(view.frame if view else run.frame, run.objectives, run.num_val, note):
            st.info(words(text))
    rule = RULE_AT if target else RULE
    _show(run, choices, limits, f"{rule}; {view.decision.says}" if view else rule)
    given = [f"{name}={number_words(value)}" for name, value in limits.items() if run.limits.get(name) != value]
    more = [*(target.options() if target else []), *(["--limit", *given] if given else []),
            *(["--layout", *layouts] if layouts else []), "--top", top]  # fmt: skip
    st.markdown("The command that writes the same as files:")
    st.code(command(["choose", run.path, *more]), language="sh")


def _target(run: Run) -> Target | None:
    """What is asked for of a scaling study, None of any other. Raises InputError where its curves cannot be fitted."""
    section = fitted(run)
    if section is None:
        return None
    scaling = section.scaling
    if scaling is None:
        raise InputError(f"No fit yet: {section.values['refused']}")
    left, right = st.columns(2)
    at = left.number_input(f"training images (calibrated up to {scaling.reach:,.0f})", 1.0, None, section.target,
                           format="%.0f", key="at", bind="query-params")  # fmt: skip
    compute = right.number_input("at most so many multiply-adds of training there", 1.0, None, None, format="%.3g",
                                 key="compute", bind="query-params", placeholder="no limit")  # fmt: skip
    beyond = st.checkbox("predict beyond the calibrated distance too", key="beyond", bind="query-params")
    return Target(scaling=scaling, at=float(at), compute=None if compute is None else float(compute), beyond=beyond)


def _layouts(run: Run) -> list[str]:
    """Of a search with inherited scores: the layouts to choose among; none: all."""
    if run.audit is None:
        return []
    known = sorted(map(str, comparable(run.frame, run.objectives)["layout"].dropna().unique()))
    return st.multiselect("layouts", known, key="layouts", bind="query-params", placeholder="all")


def _choose(run: Run, frame: pd.DataFrame, limits: dict[str, float], top: int, target: Target | None) -> list[Choice]:
    if target is None:
        return choose(frame, run.objectives, limits, top)
    return choose_at(frame, target.scaling, target.at, compute=target.compute, limit=limits, top=top,
                     beyond=target.beyond)  # fmt: skip


def _limits(run: Run) -> dict[str, float]:
    """A slider a measured quantity; at its loose end there is no limit, but for the study's own."""
    names = [name for name in metric_names(run.frame) if not name.endswith("_spread")]
    asked = st.multiselect("limits", names, default=[name for name in run.limits if name in names],
                           format_func=heading, key="limits", bind="query-params")  # fmt: skip
    limits = dict(run.limits)
    for name in asked:
        steps = steps_of(numbers(comparable(run.frame, run.objectives), name), run.limits.get(name))
        if len(steps) < 2:
            continue
        most = sense_of(name, run.objectives) == "min"
        value = st.select_slider(f"{'at most' if most else 'at least'}: {heading(name)}", steps,
                                 value=run.limits.get(name, steps[-1] if most else steps[0]),
                                 format_func=partial(show, name), key=f"limit-{name}",
                                 bind="query-params")  # fmt: skip
        if name in run.limits or value != (steps[-1] if most else steps[0]):
            limits[name] = float(value)
    return limits


def steps_of(values: Floats, own: float | None) -> list[float]:
    """Round numbers over the range of the values, even in the log where that can be; the ends let all through."""
    values = np.unique(values[np.isfinite(values)])
    if not len(values):
        return []
    low, high = float(values[0]), float(values[-1])
    even = np.geomspace(low, high, STEPS) if low > 0 else np.linspace(low, high, STEPS)
    rounded = {float(f"{value:.3g}") for value in even[1:-1]}
    inside = {value for value in rounded if low < value < high}
    return sorted({low, high} | inside | ({float(own)} if own is not None else set()))


def number_words(value: float) -> str:
    """A number that reads back as itself."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _show(run: Run, choices: list[Choice], limits: dict[str, float], rule: str) -> None:
    names = dict.fromkeys(("predicted_error", "p_best", "expected_regret", *run.objectives, *limits, "val_top1", "macs",
                           "params"))  # fmt: skip
    shown = [name for name in names if any(name in choice.metrics for choice in choices)]
    table = pd.DataFrame([
        {"rank": choice.rank, "trial": choice.row["number"], "layout": choice.row["layout"],
         "architecture": choice.row["arch_id"],
         **{heading(name): show(name, choice.metrics.get(name), unit=False) for name in shown}}
        for choice in choices
    ])  # fmt: skip
    st.dataframe(spreadsheet_safe(table), hide_index=True, alt="the chosen architectures")
    st.markdown("\n".join(f"{choice.rank}. {words(choice.reason)}" for choice in choices))
    files = {file_name(choice): document(choice, run.name, rule) for choice in choices if choice.row.get("arch")}
    if not files:
        st.info("No files: these runs have no architectures on record.")
        return
    st.download_button("download YAML" if len(files) == 1 else f"download {len(files)} YAML files",
                       _packed(files), "chosen.zip", "application/zip", on_click="ignore")  # fmt: skip


def _packed(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()
