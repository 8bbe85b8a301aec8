"""Search: the trials of a study, by whatever was measured of them; a click opens the architecture."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from coatnet_search.analysis.failures_by_layout import failing_layouts
from coatnet_search.analysis.frame import metric_names, numbers
from coatnet_search.analysis.front import comparable
from coatnet_search.analysis.importance import MOST, importance
from coatnet_search.analysis.insights import LAYOUT, LEAST, candidates, marginals
from coatnet_search.core.quantities import axis_title, heading, quality, quantity, scale
from coatnet_search.figures.insights import figures as insight_figures
from coatnet_search.figures.insights import marks as insight_marks
from coatnet_search.figures.insights.summary import empty, not_ranked
from coatnet_search.figures.search import figures, marks
from coatnet_search.figures.search.summary import answer, failures, notices, spreadsheet_safe
from coatnet_search.figures.sections import Sections
from runs_on_disk import Run, Site, draw, theme, watch, words
from views import architecture

QUICK_POINTS = 1500  # more of them take seconds to appear, and are drawn by the graphics card's way


def main(site: Site, run: Run) -> None:
    st.header(words(run.study.get("question") or run.name))
    if run.mlflow:
        st.link_button("open in MLflow", run.mlflow)
    watch(site, run)
    first, more = _said(str(run.path), run.version, run)
    st.markdown(words(first))
    for text in more:
        st.info(words(text))
    if run.audit:
        st.info(words(f"{run.audit.decision.says[:1].upper()}{run.audit.decision.says[1:]}."))
    if run.frame.empty:
        return
    name = st.segmented_control("show", list(VIEWS), default="front", required=True, key="view", bind="query-params",
                                label_visibility="collapsed")  # fmt: skip
    rows = _filtered(run)
    if rows.empty:
        st.info("No trial passes the filters.")
        return
    VIEWS[name or "front"](run, rows)
    architecture.picked(run, st.query_params.get("trial"))


@st.cache_data(max_entries=64, show_spinner=False)
def _said(path: str, version: tuple[int, int], _run: Run) -> tuple[str, list[str]]:
    """The answer and the notices of a record as it is; the study's file does not change while its record is one."""
    note = (_run.study.get("data_summary") or {}).get("note")
    said = [*failing_layouts(_run.frame), *answer(_run.frame, _run.objectives, _run.num_val)]
    return (" ".join(said),
            notices(_run.frame, _run.objectives, _run.num_val, note))  # fmt: skip


def _filtered(run: Run) -> pd.DataFrame:
    """The trials that the filters of the side bar leave."""
    frame = run.frame
    layouts, states = sorted(map(str, frame["layout"].dropna().unique())), sorted(map(str, frame["state"].unique()))
    kept = st.sidebar.multiselect("layouts", layouts, key="layouts", bind="query-params", placeholder="all")
    state = st.sidebar.multiselect("states", states, key="states", bind="query-params", placeholder="all")
    inside = np.ones(len(frame), dtype=bool)
    inside &= frame["layout"].isin(kept).to_numpy() if kept else True
    inside &= frame["state"].isin(state).to_numpy() if state else True
    for name in run.objectives:
        inside &= _within(frame, name)
    return frame[inside]


def _within(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Which trials lie in the range of an objective's slider; those without a value do while it is left alone."""
    values = numbers(frame, name)
    known = np.unique(values[np.isfinite(values)])
    if len(known) < 2:
        return np.ones(len(frame), dtype=bool)
    ends = float(known[0]), float(known[-1])
    form = "compact" if quantity(name).form == "count" else "%.4g"
    low, high = st.sidebar.slider(heading(name), *ends, ends, key=f"range-{name}", format=form)
    if (low, high) == ends:
        return np.ones(len(frame), dtype=bool)
    return np.asarray((values >= low) & (values <= high))


def _front(run: Run, rows: pd.DataFrame) -> None:
    names = [name for name in metric_names(run.frame) if not name.endswith("_spread")]
    main = quality(run.objectives)
    costs = marks.axes(run.frame, run.objectives)
    if not names or not costs:
        st.info("No trial has two measured quantities yet.")
        return
    left, right = st.columns(2)
    x = _axis(left, "across", names, costs[0])
    y = _axis(right, "up", names, main if main in names else names[0])
    if x == y:
        st.info("Take two different quantities.")
        return
    every = len(rows) <= QUICK_POINTS or st.toggle(
        f"all {len(rows):,} trials, not the front and {QUICK_POINTS:,} of the others", key="every", bind="query-params"
    )
    figure = figures.front(rows, run.objectives, x, y=y, num_val=run.num_val, webgl=len(rows) > QUICK_POINTS and every,
                           most=None if every else QUICK_POINTS, theme=theme())  # fmt: skip
    _mark(figure, rows, x, y)
    event = draw(figure, f"front-{x}-{y}", on_select="rerun", selection_mode="points")
    picked = [point["customdata"] for point in event["selection"]["points"] if point.get("customdata")]
    if picked:
        number = picked[0]["0"] if isinstance(picked[0], dict) else picked[0][0]
        st.query_params["trial"] = str(int(number))


def _axis(place: Any, key: str, names: list[str], default: str) -> str:
    return str(place.selectbox(key, names, index=names.index(default), format_func=axis_title, key=key,
                               bind="query-params"))  # fmt: skip


def _mark(figure: Any, rows: pd.DataFrame, x: str, y: str) -> None:
    """A ring around the trial that the address names."""
    trial = st.query_params.get("trial", "")
    own = rows[rows["number"] == int(trial)] if trial.isascii() and trial.isdigit() else rows[:0]
    figures.ring(figure, numbers(own, x) * scale(x), numbers(own, y) * scale(y))


def _parallel(run: Run, rows: pd.DataFrame) -> None:
    """Of the dimensions that matter most while none are picked, or the first where too few trials tell."""
    done = len(comparable(run.frame, run.objectives))
    varied = [name for name in candidates(run.frame, run.objectives).attrs["dimensions"] if name != LAYOUT]
    usual = insight_marks.leading(_ranked(str(run.path), run.version[0], done, run)[0])
    usual = usual or varied[: insight_marks.MOST_DIMENSIONS]
    names = st.multiselect("dimensions", varied, key="dimensions", bind="query-params", placeholder=", ".join(usual))
    draw(insight_figures.parallel(rows, run.objectives, names or usual, theme=theme()), "parallel")


def _dimensions(run: Run, rows: pd.DataFrame) -> None:
    """Of all trials whatever the filters leave: so it is asked once of each record."""
    done = len(comparable(run.frame, run.objectives))
    ranked, effects, said = _ranked(str(run.path), run.version[0], done, run)
    for text in said:
        st.info(words(text))
    if ranked.empty:
        if not said:
            st.info(f"{done} comparable trials cannot tell dimensions apart; at least {LEAST} that differ are needed.")
        return
    of = f"a fixed sample of {MOST:,} of the {done:,}" if done > MOST else f"the {done:,}"
    st.caption(f"From {of} comparable trials, whatever the filters on the left. The first figure is of shares (fANOVA, "
               f"PED-ANOVA), costs not taken out; the second, of all {done:,}, is at equal cost.")  # fmt: skip
    main = quality(run.objectives)
    draw(insight_figures.importance(ranked, main, theme=theme()), "importance")
    draw(insight_figures.marginals(effects, ranked, main, theme=theme()), "marginals")


@st.cache_data(max_entries=32, show_spinner="ranking the dimensions")
def _ranked(path: str, inode: int, done: int, _run: Run) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Some seconds; asked again when another trial can be compared, not with each epoch that is reported. With it what
    took longer than a section may."""
    parts, frame, objectives = Sections(), _run.frame, _run.objectives
    ranked = parts.make("which dimensions matter", lambda: importance(frame, objectives), partial(empty, "importance"))
    effects = parts.make("what each choice does at equal cost", lambda: marginals(frame, objectives),
                         partial(empty, "marginals"))  # fmt: skip
    return ranked, effects, [*parts.left_out, *not_ranked(ranked)]


def _growth(run: Run, rows: pd.DataFrame) -> None:
    draw(figures.hypervolume(rows, run.objectives, theme=theme()), "growth")


def _curves(run: Run, rows: pd.DataFrame) -> None:
    draw(figures.learning_curves(rows, run.objectives, theme=theme()), "curves")


def _layouts(run: Run, rows: pd.DataFrame) -> None:
    draw(figures.by_layout(rows, run.objectives, theme=theme()), "layouts-figure")


def _failures(run: Run, rows: pd.DataFrame) -> None:
    found = failures(rows)
    if not found:
        st.info("No trial failed or was refused.")
        return
    table = pd.DataFrame(found).rename(columns={"kind": "cause", "count": "trials", "trial": "first trial"})
    st.dataframe(spreadsheet_safe(table), hide_index=True, alt="failures by cause")


def _trials(run: Run, rows: pd.DataFrame) -> None:
    metrics = [name for name in metric_names(run.frame) if not name.endswith("_spread")]
    shown = ["number", "layout", "arch_id", "state", *metrics, "epochs", "num_images", "seed", "wall_s", "failure_kind"]
    table = spreadsheet_safe(rows[[name for name in shown if name in rows]].copy())
    forms = {"percent": "percent", "count": "compact", "plain": "%.4g"}
    titles = {name: st.column_config.NumberColumn(heading(name), format=forms[quantity(name).form]) for name in metrics}
    st.dataframe(table, hide_index=True, column_config={**titles, "number": "trial", "arch_id": "architecture",
                                "wall_s": "seconds"},
                 alt=f"{len(table):,} trials, a row each")  # fmt: skip


VIEWS: dict[str, Callable[[Run, pd.DataFrame], None]] = {
    "front": _front, "parallel": _parallel, "growth": _growth, "curves": _curves, "layouts": _layouts,
    "dimensions": _dimensions, "failures": _failures, "trials": _trials,
}  # fmt: skip
