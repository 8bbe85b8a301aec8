"""Scaling: which layout wins at which amount of data, and how sure that is."""

import math
from typing import Any

import pandas as pd
import streamlit as st

from coatnet_search.analysis.scaling import Scaling
from coatnet_search.core.errors import InputError
from coatnet_search.figures.scaling import figures as scaling_figures
from coatnet_search.figures.scaling.summary import TABLES, Section, scaling_section
from coatnet_search.figures.search.summary import records, spreadsheet_safe
from runs_on_disk import Run, Site, draw, theme, watch, words

STEPS = 60  # of the slider, even in the log


def main(site: Site, run: Run) -> None:
    st.title("Scaling")
    watch(site, run)
    section = fitted(run)
    if section is None:
        st.info("This study has one amount of data. A study with `equal_cost` and `regimes` tells which layout wins at "
                "which amount: `coatnet-search run cifar10-scaling`.")  # fmt: skip
        return
    if section.scaling is None:
        st.info(words(f"No fit yet: {section.values['refused']}."))
        return
    _answers(section.scaling, section.values)
    figures = scaling_figures.all_figures(section.scaling, section.values["settings"], section.target, theme=theme())
    names = [name.removeprefix("scaling-") for name in figures]
    name = st.segmented_control("figure", names, default="curves", required=True, key="figure", bind="query-params",
                                label_visibility="collapsed")  # fmt: skip
    draw(figures[f"scaling-{name or 'curves'}"], f"scaling-{name or 'curves'}")
    for key in ("crossovers", "held_out", "noise", "instances", "too_short", "missing"):
        _table(key, section.values[key])


def fitted(run: Run) -> Section | None:
    """The fit of a record as it is, made once for all visitors and pages; None where the study is no scaling study."""
    return _section(str(run.path), run.version, run)


@st.cache_resource(max_entries=32, show_spinner="fitting the curves")
def _section(_path: str, version: tuple[int, int], _run: Run) -> Section | None:
    return scaling_section(_run.frame, _run.study, _run.num_val)


def _answers(scaling: Scaling, values: dict[str, Any]) -> None:
    sizes = sorted({float(f"{size:.2g}") for size in scaling.grid()} | set(map(float, scaling.num_images)))
    sizes = [size for size in sizes if scaling.num_images[0] <= size <= scaling.reach]
    target = st.select_slider("training images", sizes, value=float(scaling.num_images[-1]),
                              format_func=lambda size: f"{size:,.0f}", key="at", bind="query-params")  # fmt: skip
    st.markdown(words(scaling.conclusion(target)))
    _table("answers", records(scaling.at(target)))
    st.caption(words(f"{'; '.join(values['settings'])}. Predictions are calibrated up to {scaling.reach:,.0f} images."))
    for text in values["warnings"]:
        st.warning(words(text))
    wanted = st.number_input("images that each needs for an error of (%)", 0.1, 99.0, value=None, step=0.5, key="error",
                             bind="query-params")  # fmt: skip
    if wanted is not None:
        try:
            st.dataframe(_needed(scaling.data_needed(wanted / 100)), hide_index=True, alt="images needed")
        except InputError as error:
            st.warning(words(error))


def _needed(table: pd.DataFrame) -> pd.DataFrame:
    def count(value: float) -> str:
        return f"{value:,.0f}" if math.isfinite(value) else "not in range"

    return spreadsheet_safe(pd.DataFrame({
        "arm": table["arm"], "images (median)": [count(value) for value in table["num_images"]],
        "5 %": [count(value) for value in table["low"]], "95 %": [count(value) for value in table["high"]],
        "P(not in range)": [f"{value:.2f}" for value in table["not_in_range"]],
    }))  # fmt: skip


def _table(key: str, rows: list[dict[str, Any]]) -> None:
    """One of the report's tables, with the report's own cells."""
    if not rows:
        return
    if key != "answers":
        st.markdown(f"**{key.replace('_', ' ')}**")
    cells = {column.title: [column.show(row.get(column.name)) for row in rows] for column in TABLES[key]}
    st.dataframe(spreadsheet_safe(pd.DataFrame(cells)), hide_index=True, alt=key)
