"""Studies: where each of them stands, live."""

from typing import Any
from urllib.parse import quote

import pandas as pd
import streamlit as st

from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import quality, quantity, show
from coatnet_search.figures.scaling.summary import is_scaling
from coatnet_search.figures.search.summary import duration, spreadsheet_safe
from coatnet_search.figures.status import status
from runs_on_disk import SEEN_S, Site, words


def main(site: Site) -> None:
    st.title("Studies")
    st.caption(words(f"The runs in {site.root}; the newest first."))
    _table(site)


@st.fragment(run_every=SEEN_S)
def _table(site: Site) -> None:
    names = site.names()
    if not names:
        st.info(words(f"No run in {site.root} yet.") + " `coatnet-search run quickstart` makes one in a few minutes.")
        return
    rows, faults = [], []
    for name in names:
        try:
            rows.append(_row(site, name))
        except InputError as error:
            faults.append(str(error))
    if rows:
        _show(rows)
    for fault in faults:
        st.warning(words(fault))


def _row(site: Site, name: str) -> dict[str, Any]:
    run = site.open(name)
    found, main = status(run.path, run.record, run.study), quality(run.objectives)
    best = "–" if found["best"] is None else f"{quantity(main).title} {show(main, found['best'])} ({found['layout']})"
    planned = "" if found["planned"] is None else f" of {found['planned']:,}"
    return {
        "study": name, "open": f"/search?run={quote(name)}",
        "scaling": f"/scaling?run={quote(name)}" if is_scaling(run.frame, run.study) else None,
        "state": found["state"],
        "progress": None if found["progress"] is None else 100 * found["progress"],
        "trials": f"{found['ended']:,}{planned}", "failed": found["states"].get("failed", 0),
        "time left": duration(found["eta_s"]), "best so far": best, "trials took": duration(found["trials_s"]),
        "from first to last": duration(found["elapsed_s"]),
        "question": str(run.study.get("question", "")), "mlflow": run.mlflow,
    }  # fmt: skip


def _show(rows: list[dict[str, Any]]) -> None:
    table = spreadsheet_safe(pd.DataFrame(rows))
    st.dataframe(
        table.dropna(axis="columns", how="all").fillna({"scaling": "", "mlflow": ""}),
        hide_index=True,
        column_config={
            "progress": st.column_config.ProgressColumn(format="%.0f %%", min_value=0, max_value=100),
            "open": st.column_config.LinkColumn(display_text="search"),
            "scaling": st.column_config.LinkColumn(display_text="scaling"),
            "mlflow": st.column_config.LinkColumn("MLflow", display_text="open"),
            "question": st.column_config.TextColumn(width="large"),
        },
        alt="the studies and where each of them stands",
    )
