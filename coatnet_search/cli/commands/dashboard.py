"""``dashboard [RUNS]``: the web pages, on this machine alone unless asked otherwise."""

import argparse
import contextlib
import importlib
import logging
import socket
import sys
from typing import Any

import torch  # noqa: F401  (imported before the server starts, as all that pages use: the first visitor waits for none)
from starlette.middleware import Middleware
from streamlit import App

from coatnet_search.cli.own_hosts import OwnHosts, is_loopback
from coatnet_search.core import bundled
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.screen import Screen
from coatnet_search.record.fold import record_path

HERE = "127.0.0.1"
BLUE, LIGHT_BLUE = "#0072b2", "#56b4e9"  # as in the report; a look for either theme, so that the browser's is kept


def main(given: argparse.Namespace) -> int:
    screen = Screen()
    root = given.runs
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; `coatnet-search run quickstart` makes runs/quickstart")
    if record_path(root).is_file():  # a run itself: its page among those beside it
        root = root.resolve().parent
    host = given.host or HERE
    _check_free(host, given.port)
    if not is_loopback(host):
        screen.warn(f"--host {host}: whoever reaches this machine on port {given.port} sees all runs in {root}; there "
                    "is no password")  # fmt: skip
    folder = bundled.folder("dashboards")
    sys.path.insert(0, str(folder))  # as Streamlit does for its script: the pages then find what is read here
    importlib.import_module("app")
    site = importlib.import_module("runs_on_disk").Site(root)
    for name in site.names():
        screen.note(f"reading {root / name}")
        with contextlib.suppress(InputError):  # its page says what is wrong with it
            site.open(name)
    screen.say(f"dashboard: http://{host}:{given.port}   # Ctrl-C ends it")
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # a visitor who leaves is no error
    script = folder / "app.py"
    sys.argv = [str(script), str(root)]  # what the script reads
    App(script, middleware=[Middleware(OwnHosts, host=host)]).run(config=settings(host, given.port))
    return 0


def settings(host: str, port: int) -> dict[str, Any]:
    """Streamlit's: no usage statistics, no browser, nothing of a traceback on a page."""
    return {
        "server.address": host, "server.port": port, "server.headless": True, "browser.gatherUsageStats": False,
        "browser.serverAddress": host, "client.showErrorDetails": "none", "client.toolbarMode": "minimal",
        "server.fileWatcherType": "none", "global.developmentMode": False, "server.runOnSave": False,
        "logger.level": "warning", "theme.light.primaryColor": BLUE, "theme.dark.primaryColor": LIGHT_BLUE,
    }  # fmt: skip


def _check_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise SetupError(f"{host}:{port} cannot be served: {error.strerror}; --port takes another") from None
