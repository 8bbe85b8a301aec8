"""Only plain names reach timm: none sends it to a hub, with the user's token, or to a folder."""

from typing import NoReturn

import pytest
import timm
from command_line import call

from coatnet_search.architecture.peer_spec import PeerSpec
from coatnet_search.architecture.peers import create, make_peer, native_size
from coatnet_search.architecture.timm_bridge import from_timm
from coatnet_search.architecture.timm_names import check_name, create_by_name
from coatnet_search.core.errors import InputError
from coatnet_search.full.networks import find_network

OTHER_SOURCES = (
    "hf-hub:timm/resnet18.a1_in1k", "hf_hub:timm/resnet18", "HF-HUB:timm/resnet18", "local-dir:/tmp/x",
    "LOCAL-DIR:x", "https://host/resnet18", "timm/resnet18", "../resnet18", "resnet18/x", "resnet18:x", "resnet18\n",
    "coatnet_0_224.hf-hub:timm/x", "resnet18.a.b", "resnet18@main", "", " resnet18", "\x1b[2J",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_other_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*given: object, **more: object) -> NoReturn:
        raise AssertionError(f"timm was sent elsewhere: {given}")

    for name in ("load_model_config_from_hf", "load_model_config_from_path"):
        monkeypatch.setattr(timm.models._factory, name, forbidden)


@pytest.mark.parametrize("name", OTHER_SOURCES)
def test_a_name_with_another_source_is_refused_wherever_networks_are_made(name: str) -> None:
    ends = {"image_size": 32, "own_size": 32, "in_channels": 3, "num_classes": 2}
    makers = (
        check_name, create_by_name, native_size, from_timm, lambda name: create(name, 32),
        lambda name: find_network(f"timm:{name}", **ends),
        lambda name: make_peer(PeerSpec(timm=name), 32, 3, 2).build(),
    )  # fmt: skip
    for make in makers:
        with pytest.raises(InputError) as caught:
            make(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [5, None, ["resnet18"], {"a": 1}])
def test_what_is_no_text_is_no_name(name: object) -> None:
    with pytest.raises(InputError, match="expected the plain name of a network of timm"):
        check_name(name)


def test_plain_names_and_their_tags_are_taken() -> None:
    for name in ("resnet18", "resnet18.a1_in1k", "coatnet_0_224"):
        check_name(name)


def test_a_network_of_another_source_cannot_be_profiled(capsys: pytest.CaptureFixture[str]) -> None:
    said = call(capsys, "profile", "timm:hf-hub:timm/resnet18")

    assert said.code == 2
    assert "nothing is fetched from a hub" in said.error
