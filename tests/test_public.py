"""The names that notebooks rely on."""

import subprocess
import sys

import pytest

import coatnet_search

ORDERS = (
    "from coatnet_search import load_space, build, cost",
    "from coatnet_search import build, cost, load_space",
    "import coatnet_search.run; from coatnet_search import build, cost",
    "import coatnet_search as c; c.load_arch('coatnet-0'); build, cost = c.build, c.cost",
)


@pytest.mark.parametrize("order", ORDERS)
def test_functions_are_not_hidden_by_the_modules_of_their_name(order):
    code = (
        f"{order}; assert callable(build) and callable(cost); import sys; assert 'coatnet_search.cost' in sys.modules"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there():
    missing = [name for name in coatnet_search.__all__ if not hasattr(coatnet_search, name)]

    assert missing == []
    assert coatnet_search.Arch is coatnet_search.arch.Arch


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'bild'"):
        coatnet_search.bild  # noqa: B018


def test_the_readme_example_holds():
    from coatnet_search import build, cost, load_arch, load_space

    arch = load_arch("C-T-T-T", image_size=224)

    assert cost(arch).macs == 5_194_761_216
    assert arch.problems() == [] and load_space("cifar-tiny").size() == 19_357
    assert build(load_arch("C-C-C-C", image_size=64, num_classes=3)).num_classes == 3
