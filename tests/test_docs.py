"""The documentation: it builds without a warning, its commands are ones that we have, its notebook runs."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from coatnet_search.cli.main import parse

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def commands(text):
    """The command lines of a page's indented blocks, joined where a line ends with a backslash."""
    found = re.findall(r"^\s+(coatnet-search .*)$", text.replace("\\\n", " "), flags=re.MULTILINE)
    return [line.partition("  #")[0].partition(" > ")[0].split()[1:] for line in found]


def test_the_pages_build_without_a_warning(tmp_path):
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
                          cwd=ROOT, capture_output=True, text=True, check=False)  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "reference" / "python" / "index.html").is_file()
    fetched = re.findall(
        r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', (tmp_path / "site" / "index.html").read_text()
    )
    assert fetched == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_one_that_the_command_line_takes(page):
    for words in commands(page.read_text()):
        assert parse(words).verb == words[0]


def test_the_notebook_runs_from_top_to_bottom():
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)

    NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(ROOT)}}).execute()

    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("text/html" in output.get("data", {}) for output in shown)
    assert shown[-1]["data"]["text/plain"].endswith(")'")
