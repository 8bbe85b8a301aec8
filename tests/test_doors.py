"""What must happen in one place happens there alone: printing, reading YAML, asking timm for a network."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What must not be named outside of these files. A name ends at a dot or is the whole.
DOORS = {
    "rich": ["coatnet_search/core/screen.py"],
    "print": [],
    "sys.stdout.write": [],
    "sys.stderr.write": [],
    "logging.StreamHandler": [],
    "yaml.load": [], "yaml.load_all": [], "yaml.full_load": [], "yaml.safe_load": [], "yaml.safe_load_all": [],
    "yaml.unsafe_load": [], "yaml.compose": [], "yaml.compose_all": [], "yaml.Loader": [], "yaml.FullLoader": [],
    "yaml.parse": ["coatnet_search/core/yaml_text.py"],
    "yaml.SafeLoader": ["coatnet_search/core/yaml_text.py"],
    "timm.create_model": ["coatnet_search/architecture/timm_names.py", "coatnet_search/full/export.py"],
    "timm.models.create_model": [], "timm.models.load_model_config_from_hf": [], "huggingface_hub.hf_hub_download": [],
    "huggingface_hub.snapshot_download": [],
    "pickle": [], "torch.hub": [], "torch.load": [],
}  # fmt: skip


def names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Each dotted name that a file uses, with its line; what it imports under another name has its own."""
    own: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            own |= {alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                    for alias in node.names}  # fmt: skip
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            own |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)):
            first, dot, rest = ast.unparse(node).partition(".")
            yield node.lineno, own.get(first, first) + dot + rest


def found_outside(source: str, file: str) -> list[str]:
    return [
        f"{file}:{line}: {door}"
        for line, name in names(ast.parse(source))
        for door, allowed in DOORS.items()
        if file not in allowed and (name == door or name.startswith(f"{door}."))
    ]


def test_each_door_is_where_it_belongs() -> None:
    files = [file for top in ("coatnet_search", "dashboards") for file in (ROOT / top).rglob("*.py")]

    outside = [text for file in files for text in found_outside(file.read_text(), file.relative_to(ROOT).as_posix())]

    assert len(files) > 200
    assert outside == []


@pytest.mark.parametrize(
    "source",
    [
        "print('x')",
        "from rich.text import Text\nText.from_markup('[b]x')",
        "import sys as s\ns.stdout.write('x')",
        "from yaml import safe_load as read\nread('a')",
        "import yaml\nyaml.load('a', yaml.Loader)",
        "import yaml.loader\nyaml.SafeLoader('a')",
        "import torch\ntorch.load('a')",
    ],
)
def test_another_door_is_found(source: str) -> None:
    assert found_outside(source, "coatnet_search/x.py")
