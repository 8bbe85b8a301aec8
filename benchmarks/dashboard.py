"""Seconds until a page of the dashboard shows its figure, at 1,000 and 10,000 trials, beside an empty Streamlit page.

    python benchmarks/dashboard.py --trials 1000 10000 --repeats 3

Each server runs as a process of its own on this machine and has answered before anything is timed. Cold: a browser
context without any cache; warm: the same context again. The empty page is a script of one line.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from browser import FIGURE, PATIENCE_S, browser, free_port, process, served
from frames import search, write_run

EMPTY = "[data-testid=stMarkdownContainer]"
FLAGS = ("--server.address=127.0.0.1", "--server.headless=true", "--browser.gatherUsageStats=false")


def seconds(page: Any, address: str, selector: str) -> float:
    start = time.perf_counter()
    page.goto(address, timeout=1000 * PATIENCE_S)
    page.wait_for_selector(selector, timeout=1000 * PATIENCE_S)
    return time.perf_counter() - start


def visits(window: Any, address: str, selector: str, repeats: int) -> tuple[float, float]:
    """Medians of (cold, warm)."""
    cold, warm = [], []
    for _ in range(repeats):
        context = window.new_context(viewport={"width": 1300, "height": 900})
        cold.append(seconds(context.new_page(), address, selector))
        warm.append(seconds(context.new_page(), address, selector))
        context.close()
    return statistics.median(cold), statistics.median(warm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder, browser() as window:
        script, port = Path(folder) / "empty.py", free_port()
        script.write_text("import streamlit as st; st.write('empty')\n")
        words = [sys.executable, "-m", "streamlit", "run", str(script), f"--server.port={port}", *FLAGS]
        with process(words, port, "/_stcore/health") as address:
            rows["empty page"] = visits(window, address, EMPTY, given.repeats)
        for count in given.trials:
            write_run(Path(folder) / "runs" / f"of-{count}", search(count))
        with served(Path(folder) / "runs") as address:
            for count in given.trials:
                rows[f"{count:,} trials"] = visits(window, f"{address}/search?run=of-{count}", FIGURE, given.repeats)
    print(f"{'':16}{'cold s':>10}{'warm s':>10}{'cold / empty':>14}{'warm / empty':>14}")
    for name, (cold, warm) in rows.items():
        empty = rows["empty page"]
        print(f"{name:16}{cold:>10.2f}{warm:>10.2f}{cold / empty[0]:>14.2f}{warm / empty[1]:>14.2f}")


if __name__ == "__main__":
    main()
