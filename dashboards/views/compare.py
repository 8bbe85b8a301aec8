"""Compare: what one study's front is worth against another's, at equal cost, with intervals."""

import math

import pandas as pd
import streamlit as st

from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import axis_title, quality, quantity, sense_of, show, show_difference
from coatnet_search.figures.compare.figures import difference
from coatnet_search.figures.compare.summary import conclusion, front_difference
from runs_on_disk import Run, Site, draw, theme, words

COSTS = ("macs", "params", "activations", "latency_ms", "peak_memory_mib")
QUALITIES = ("error", "val_loss", "val_top1")


def main(site: Site, run: Run) -> None:
    st.title("Compare")
    others = [name for name in site.names() if name != run.name]
    if not others:
        st.info("This is the only run here; two are needed.")
        return
    left, middle, right = st.columns(3)
    name = left.selectbox("with", others, key="with", bind="query-params")
    qualities = list(dict.fromkeys(("error", quality(run.objectives), *QUALITIES)))
    y = str(middle.selectbox("what", qualities, format_func=lambda one: quantity(one).title, key="what",
                             bind="query-params"))  # fmt: skip
    x = str(right.selectbox("at equal", list(COSTS), format_func=axis_title, key="cost", bind="query-params"))
    try:
        _compare(run, site.open(str(name)), x, y)
    except InputError as error:
        st.warning(words(error))


def _compare(first: Run, second: Run, x: str, y: str) -> None:
    digests = [run.study.get("data_digest") for run in (first, second)]
    same = digests[0] == digests[1]
    if not same:
        st.warning("The two studies have different images: their difference is not that of their networks alone.")
    budgets = [
        {name: (run.study.get("recipe") or {}).get(name) for name in ("name", "epochs")} for run in (first, second)
    ]
    if budgets[0] != budgets[1]:
        st.warning("The two studies train differently: their difference is not that of their networks alone.")
    num_val = min((run.num_val for run in (first, second) if run.num_val), default=None)
    table = front_difference(first.frame, second.frame, first.objectives, x, y, num_val)
    names, sense = (first.name, second.name), sense_of(y, first.objectives)
    if same:
        st.markdown(words(conclusion(table, names, x, y, sense)))
    else:
        table[["low", "high"]] = math.nan  # the images' own noise, which is not shared, is not in the interval
    st.caption("At each cost the best network of either study that costs no more, as its posterior mean: the luck of "
               "the best of many is taken off. The band is the 95 % interval of the difference on the same "
               "images.")  # fmt: skip
    draw(difference(table, names, x, y, theme=theme()), "difference")
    rows = table.to_dict("records")
    cells = {
        quantity(x).title: [f"<= {show(x, row['x'])}" for row in rows],
        first.name: [f"{show(y, row['first'])} (trial {row['first_trial']})" for row in rows],
        second.name: [f"{show(y, row['second'])} (trial {row['second_trial']})" for row in rows],
        "difference": [_signed(y, row["difference"]) for row in rows],
        "95 % interval": [f"{_signed(y, row['low'])} to {_signed(y, row['high'])}" if math.isfinite(row["low"]) else "–"
                          for row in rows],
    }  # fmt: skip
    st.dataframe(pd.DataFrame(cells), hide_index=True, alt="the steps of both fronts")


def _signed(name: str, value: float) -> str:
    return f"{'+' if value >= 0 else '−'}{show_difference(name, value)}"
