"""The pages of ``coatnet-search dashboard``, as Streamlit runs them: ``streamlit run app.py -- RUNS``."""

import sys
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from coatnet_search.core.errors import InputError
from runs_on_disk import Run, Site, words
from views import architecture, choose, compare, scaling, search, studies

PAGES: dict[str, Callable[[Site, Run], None]] = {
    "search": search.main, "architecture": architecture.main, "scaling": scaling.main, "compare": compare.main,
    "choose": choose.main,
}  # fmt: skip


def main(root: Path) -> None:
    """The page that the address asks for, of the runs below ``root``."""
    st.set_page_config(page_title="CoAtNet Search", layout="wide")
    site = Site(root)
    first = st.Page(lambda: studies.main(site), title="Studies", url_path="studies", default=True)
    others = [st.Page(_page(site, name), title=name.capitalize(), url_path=name) for name in PAGES]
    st.navigation([first, *others]).run()


def _page(site: Site, name: str) -> Callable[[], None]:
    return lambda: show(site, name)


def show(site: Site, name: str) -> None:
    """One page of the run that is picked; whatever is wrong with a study or record is a sentence on it."""
    names = site.names()
    asked = st.query_params.get("run")
    if asked is not None and asked not in names:
        st.error(_why(site, asked))
    if not names:
        st.info(words(f"No run in {site.root} yet.") + " `coatnet-search run quickstart` makes one in a few minutes.")
        return
    if "run" not in st.session_state and asked not in names:
        st.session_state["run"] = names[0]
    picked = st.sidebar.selectbox("study", names, index=None, key="run", bind="query-params")
    if picked is None:
        st.info("Pick a study on the left.")
        return
    try:
        PAGES[name](site, site.open(str(picked)))
    except InputError as error:
        st.error(words(error))


def _why(site: Site, name: str) -> str:
    try:
        site.open(name)
    except InputError as error:
        return words(error)
    return words(f"{name} was changed just now; load the page again.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
