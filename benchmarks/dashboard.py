"""Seconds until a page of the dashboard can be read, at 1,000 and 10,000 trials, beside an empty Streamlit page.

    python benchmarks/dashboard.py --trials 1000 10000 --repeats 5

Each server runs as a process of its own on this machine and has answered before anything is timed. Cold: a browser
context without any cache; warm: the same context again. Two moments of the search page are timed from the request on:
``answer``, its first meaningful paint (the study's answer in words, with its uncertainty, is there to read), and
``figure`` (the front is drawn). The empty page is a script of one line; all pages take turns, so that they meet the
same load.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "tests" / "helpers"))

from browser import FIGURE, PATIENCE_S, browser, free_port, process, served
from frames import search, write_run

TEXT = "[data-testid=stMarkdownContainer] p"
ANSWER = f"{TEXT}:has-text('comparable trials')"
FLAGS = ("--server.address=127.0.0.1", "--server.headless=true", "--browser.gatherUsageStats=false")
EMPTY = "empty page"
Visits = dict[tuple[str, str, str], list[float]]  # (page, cold or warm, moment) -> seconds


def seconds(page: Any, address: str, moments: Mapping[str, str]) -> dict[str, float]:
    """Seconds from the request until each selector is seen, in the order in which they are given."""
    start, found = time.perf_counter(), {}
    page.goto(address, timeout=1000 * PATIENCE_S, wait_until="commit")
    for moment, selector in moments.items():
        page.wait_for_selector(selector, timeout=1000 * PATIENCE_S)
        found[moment] = time.perf_counter() - start
    return found


def visit(window: Any, name: str, address: str, moments: Mapping[str, str], visits: Visits) -> None:
    context = window.new_context(viewport={"width": 1300, "height": 900})
    for cache in ("cold", "warm"):
        page = context.new_page()
        for moment, taken in seconds(page, address, moments).items():
            visits.setdefault((name, cache, moment), []).append(taken)
        page.close()
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    visits: Visits = {}
    with tempfile.TemporaryDirectory() as folder, browser() as window:
        script, port = Path(folder) / "empty.py", free_port()
        script.write_text("import streamlit as st; st.write('empty')\n")
        for count in given.trials:
            write_run(Path(folder) / "runs" / f"of-{count}", search(count))
        words = [sys.executable, "-m", "streamlit", "run", str(script), f"--server.port={port}", *FLAGS]
        with process(words, port, "/_stcore/health") as empty, served(Path(folder) / "runs") as address:
            for _ in range(given.repeats):
                visit(window, EMPTY, empty, {"text": TEXT}, visits)
                for count in given.trials:
                    page = f"{address}/search?run=of-{count}"
                    visit(window, f"{count:,} trials", page, {"answer": ANSWER, "figure": FIGURE}, visits)
    show(visits, given.repeats)


def show(visits: Visits, repeats: int) -> None:
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"medians of {repeats} visits, seconds; load of the machine {load}\n")
    print(f"{'':16}{'':10}{'cold':>8}{'warm':>8}{'cold / empty':>14}{'warm / empty':>14}")
    middle = {key: statistics.median(values) for key, values in visits.items()}
    for name, moment in dict.fromkeys((name, moment) for name, _, moment in visits):
        cold, warm = (middle[name, cache, moment] for cache in ("cold", "warm"))
        shares = [one / middle[EMPTY, cache, "text"] for one, cache in ((cold, "cold"), (warm, "warm"))]
        print(f"{name:16}{moment:10}{cold:>8.2f}{warm:>8.2f}{shares[0]:>14.2f}{shares[1]:>14.2f}")


if __name__ == "__main__":
    main()
