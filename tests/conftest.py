"""For all tests: ``--all`` for the full counts, a cache folder of this run alone, one thread."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["mlflow_server", "object_store"]  # their fixtures, for whichever test asks


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also the tests with full counts (minutes to hours)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all"):
        return
    skip = pytest.mark.skip(reason="full count: only with --all")
    for item in items:
        if item.get_closest_marker("full"):  # keywords would hold the names of folders too
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Counts and decoded data of this run; nothing of the user's is read or written."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("COATNET_SEARCH_CACHE")
    os.environ["COATNET_SEARCH_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["COATNET_SEARCH_CACHE"]
    else:
        os.environ["COATNET_SEARCH_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Results do not depend on the machine's cores, and tests beside each other do not fight for them."""
    import torch

    torch.set_num_threads(1)
