"""The names that notebooks rely on."""

import pytest

import coatnet_search


def test_every_public_name_is_there():
    missing = [name for name in coatnet_search.__all__ if not hasattr(coatnet_search, name)]

    assert missing == []
    assert coatnet_search.Arch is coatnet_search.architecture.arch.Arch


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'bild'"):
        coatnet_search.bild  # noqa: B018


def test_the_readme_example_holds():
    from coatnet_search import build, cost, load_arch, load_space

    arch = load_arch("C-T-T-T", image_size=224)

    assert cost(arch).macs == 5_194_761_216
    assert arch.problems() == [] and load_space("cifar-tiny").size() == 19_357
    assert build(load_arch("C-C-C-C", image_size=64, num_classes=3)).num_classes == 3
