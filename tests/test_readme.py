"""The README says what is there."""

import importlib.machinery
import importlib.util
import re
from pathlib import Path

from coatnet_search.cli.main import VERBS
from coatnet_search.core import bundled

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_tree_is_the_one_that_the_files_give():
    loader = importlib.machinery.SourceFileLoader("tree", str(ROOT / "scripts" / "tree"))
    tree = importlib.util.module_from_spec(importlib.util.spec_from_loader("tree", loader))
    loader.exec_module(tree)

    assert "\n".join(tree.lines()) in README, "run scripts/tree and put its output into the README"


def test_every_command_names_a_verb_and_a_study_that_exist():
    commands = re.findall(r"^\s+coatnet-search (\w+) ?(\S*)", README, flags=re.MULTILINE)

    assert commands
    assert {verb for verb, _ in commands} <= set(VERBS)
    studies = {name for verb, name in commands if verb in ("run", "plan") and not name.endswith(".yaml")}
    assert studies <= set(bundled.names("studies"))
