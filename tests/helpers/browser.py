"""A dashboard that is served on this machine, and a headless Chromium that looks at it."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")  # Debian's package; scripts/setup-browser has it
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
IDLE = "[data-testid=stApp][data-test-script-state=notRunning]"
FIGURE = ".js-plotly-plot .main-svg"
PATIENCE_S = 400.0  # a machine with other work on it imports torch for minutes


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def process(words: list[str], port: int, path: str) -> Iterator[str]:
    """A server as a process of its own, ended by its id; gives its address once it answers on ``path``."""
    started = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}{path}", timeout=5):
                break
            if started.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{words} does not answer")
            time.sleep(0.2)
        yield address
    finally:
        started.terminate()
        started.wait(timeout=30)


def served(root: Path) -> contextlib.AbstractContextManager[str]:
    """``coatnet-search dashboard ROOT``; gives its address."""
    port = free_port()
    words = [sys.executable, "-m", "coatnet_search", "dashboard", str(root), "--port", str(port)]
    return process(words, port, "/_stcore/health")


@contextlib.contextmanager
def browser(*flags: str) -> Iterator[Any]:
    """A Chromium that has asked nothing yet; ``flags``: more of its command line."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        window = play.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        try:
            yield window
        finally:
            window.close()
