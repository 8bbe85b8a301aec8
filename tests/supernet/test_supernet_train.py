"""A supernet's training has no favourite layout, repeats and resumes to the bit, and says what it went back from."""

from typing import Any

import numpy as np
import pytest
import torch
from supernets import parameters_of
from torch import nn

from coatnet_search.architecture.build import build
from coatnet_search.architecture.cost import cost
from coatnet_search.core.errors import InputError
from coatnet_search.core.schema import read_document
from coatnet_search.data.batches import Data
from coatnet_search.data.load import load_data
from coatnet_search.data.spec import DataSpec
from coatnet_search.space.layout_networks import LayoutNetworks, networks_by_layout
from coatnet_search.space.space import Space, space_of
from coatnet_search.supernet.distil import alpha_loss, binary_loss, kl_loss
from coatnet_search.supernet.folder import Supernets, supernet_recipe
from coatnet_search.supernet.schedule import Schedule, neighbours
from coatnet_search.supernet.spec import SupernetSpec
from coatnet_search.supernet.train import cosine, train_supernet
from coatnet_search.training.budget import Budget
from coatnet_search.training.checkpoint import CheckpointMismatch
from coatnet_search.training.loop import TrainingFailed, train
from coatnet_search.training.recipe import Recipe, make_recipe

STAGES = """
  - {block: C, depth: 1, width: [8, 12], stride: 1, expand: [1, 2]}
  - {block: [C, T], depth: [1, 2], width: 16, stride: 2, expand: 2}
  - {block: [C, T], depth: 1, width: [16, 24], stride: 1, expand: 2}
"""
ONE = """
  - {block: C, depth: 1, width: 8, stride: 1, expand: 2}
  - {block: T, depth: 2, width: 16, stride: 2, expand: 2}
"""


def space(stages: str = STAGES, more: str = "") -> Space:
    stem = "stem: {kind: conv, depth: 1, width: 8, stride: 1}"
    text = f"image_size: 8\nin_channels: 1\n{stem}\nhead_size: 8\n{more}\nstages:{stages}"
    return space_of(read_document("space.yaml", text), "space")


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data(DataSpec(name="digits"))


def recipe(**changes: Any) -> Recipe:
    return make_recipe({"name": "digits", "batch_size": 32, **changes})


def spec(**changes: Any) -> SupernetSpec:
    return SupernetSpec(**{"epochs": 2, "recalibration_images": 64, **changes})


def trained(data: Data, asked: SupernetSpec | None = None, of: Space | None = None, images: int = 320,
            made: Recipe | None = None, **more: Any) -> tuple[list[dict[str, Any]], Supernets]:  # fmt: skip
    asked = asked or spec()
    found = list(train_supernet(of or space(), data, supernet_recipe(made or recipe(), asked), asked, "cpu",
                                num_images=images, **more))  # fmt: skip
    return [row for row, _ in found], found[-1][1]


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.endswith("_s")} for row in rows]


def test_training_the_supernet_of_one_network_is_training_that_network_alone_to_the_bit(data):
    asked, made = spec(mode="single-path", epochs=2), recipe(drop_path=0.2, label_smoothing=0.1)
    alone_space = space(ONE)
    start = Supernets.fresh(alone_space, ["C-T"], "none", supernet_recipe(made, asked), 0, torch.device("cpu"))
    candidate = alone_space.sample(np.random.default_rng(0))
    model = build(*start.extract(candidate))

    rows, nets = trained(data, asked, alone_space, 320, made)
    alone = list(train(model, data, supernet_recipe(made, asked), Budget(epochs=2, num_images=320), "cpu"))

    assert len(rows) * (320 // 32) == 20
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in alone]
    assert same(build(*nets.extract(candidate)), model)


@pytest.mark.parametrize("changes", [{}, {"mode": "single-path"}, {"distillation": "alpha"}, {"partition": "layout"}])
def test_the_same_seed_gives_the_same_bits_and_layouts_get_equal_updates(data, changes):
    rows, nets = trained(data, spec(**changes))
    again, twin = trained(data, spec(**changes))

    assert timeless(rows) == timeless(again)
    assert same(nets, twin)
    assert rows[-1]["updates"] == dict.fromkeys(["C-C-C", "C-C-T", "C-T-C", "C-T-T"], 2 * (10 // 4))
    assert rows[-1]["branch_updates"] == {"s1 mbconv": 16, "s2 attention": 8, "s2 mbconv": 8, "s3 attention": 8,
                                          "s3 mbconv": 8}  # fmt: skip


def test_where_legality_forces_a_type_layouts_are_equal_and_branches_follow(data):
    rows, _ = trained(data, spec(epochs=1), space(more="convolution_first: true"))

    assert rows[-1]["updates"] == {"C-C-C": 3, "C-C-T": 3, "C-T-T": 3}
    assert rows[-1]["branch_updates"]["s2 mbconv"] == 6
    assert rows[-1]["branch_updates"]["s2 attention"] == 3


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_resumed_training_equals_an_uninterrupted_one_to_the_bit(data, tmp_path, epochs):
    asked = spec(epochs=3)
    rows, nets = trained(data, asked)
    begun = train_supernet(space(), data, supernet_recipe(recipe(), asked), asked, "cpu", num_images=320,
                           checkpoint=tmp_path)  # fmt: skip
    for _ in range(epochs):
        next(begun)
    begun.close()

    resumed, twin = trained(data, asked, checkpoint=tmp_path)

    assert timeless(resumed) == timeless(rows)
    assert same(nets, twin)


def test_a_checkpoint_of_other_training_is_refused(data, tmp_path):
    trained(data, spec(epochs=1), checkpoint=tmp_path)

    with pytest.raises(CheckpointMismatch, match="supernet"):
        trained(data, spec(epochs=1, random_networks=1), checkpoint=tmp_path)


def test_training_learns_and_every_layout_is_probed(data):
    rows, _ = trained(data, spec(epochs=12, random_networks=1), images=1024, made=recipe(lr=1.0e-2))

    assert rows[-1]["train_loss"] < 0.7 * rows[0]["train_loss"]
    probes = rows[-1]["probes"]
    assert set(probes) == {"C-C-C", "C-C-T", "C-T-C", "C-T-T"}
    assert all(sizes["largest"]["val_top1"] > 0.4 for sizes in probes.values())
    assert set(rows[-1]["conflict"]) == {"s2", "s3"}
    assert all(-1 <= value <= 1 for value in rows[-1]["conflict"].values())


def test_a_space_whose_layouts_need_more_steps_than_an_epoch_has_is_refused(data):
    with pytest.raises(InputError, match=r"has 3 steps of 32, and the 4 layouts of space space need one each"):
        trained(data, images=96)


# --- guards ----------------------------------------------------------------------------------------------------------


def spoiled(monkeypatch: pytest.MonkeyPatch, steps: set[int], value: float) -> None:
    """Makes the loss on labels ``value`` times what it is, in the so many-th calls."""
    from coatnet_search.training.scoring import Scorer

    true, calls = Scorer.loss, iter(range(10_000))

    def loss(self: Scorer, logits: torch.Tensor, *more: Any) -> torch.Tensor:
        found = true(self, logits, *more)
        return found * value if torch.is_grad_enabled() and next(calls) in steps else found

    monkeypatch.setattr(Scorer, "loss", loss)


@pytest.mark.parametrize(("value", "words"), [(100.0, "jumped to"), (float("nan"), "the first values")])
def test_training_goes_back_where_a_loss_jumps_or_is_no_number_and_layouts_stay_equal(data, monkeypatch, value, words):
    spoiled(monkeypatch, {14}, value)

    rows, nets = trained(data, spec(epochs=2, mode="single-path"))

    said = [text for row in rows for text in row["restored"]]
    assert len(said) == 1 and words in said[0]
    assert "epoch 1, step" in said[0] and "s2_block=" in said[0]
    assert len(set(rows[-1]["updates"].values())) == 1
    assert all(bool(torch.isfinite(tensor).all()) for tensor in nets.state_dict().values())


def test_a_network_whose_values_are_not_finite_is_named_with_its_stage(data, monkeypatch):
    from coatnet_search.supernet.network import Supernet

    true, calls = Supernet.forward, iter(range(10_000))

    def forward(self: Supernet, x: torch.Tensor, candidate: Any, **more: Any) -> torch.Tensor:
        if next(calls) == 9:  # weights that no update could give
            with torch.no_grad():
                for branch in self.branches_of(candidate)[1:2]:
                    next(iter(parameters_of(self, branch).values())).fill_(float("nan"))
        return true(self, x, candidate, **more)

    monkeypatch.setattr(Supernet, "forward", forward)

    rows, _ = trained(data, spec(epochs=1, mode="single-path"), space(ONE))

    assert "the first values that are not finite: stage 2" in rows[0]["restored"][0]


def test_training_that_goes_back_too_often_ends_with_the_reason(data, monkeypatch):
    spoiled(monkeypatch, set(range(1000)), float("nan"))

    with pytest.raises(TrainingFailed, match=r"layout C-.* last good state 5 times .* smaller recipe.lr"):
        trained(data, images=1024)


# --- parts -----------------------------------------------------------------------------------------------------------


def test_networks_are_drawn_evenly_over_cost_between_the_smallest_and_the_largest():
    known = networks_by_layout(space())["C-T-C"]
    rng = np.random.default_rng(0)

    macs = [known.macs(known.sample(rng)) for _ in range(400)]

    legal = [cost(space().decode(one)).macs for one in space().enumerate() if space().decode(one).layout == "C-T-C"]
    assert known.range == (min(legal), max(legal))
    assert set(macs) <= set(legal)
    assert len(set(macs)) > len(set(legal)) / 2
    middle = (known.range[0] * known.range[1]) ** 0.5
    assert 0.35 < np.mean(np.array(macs) < middle) < 0.65


def test_limits_and_combinations_of_a_space_hold_for_its_networks():
    limited = space(more="limits: {macs: [1.5e+5, 4.0e+5]}\nonly: [{s2_block: T, s2_depth: 2}, {s2_block: C}]")
    rng = np.random.default_rng(0)

    for known in networks_by_layout(limited).values():
        drawn = [known.smallest, known.largest, *(known.sample(rng, "linear") for _ in range(20))]
        assert [limited.problems(one) for one in drawn] == [[]] * 22


def test_a_layout_that_a_space_does_not_have_is_said():
    with pytest.raises(InputError, match="space space has no legal network of layout T-T-T"):
        LayoutNetworks(space(), "T-T-T")


def test_a_cycle_has_every_layout_once_in_changing_order():
    schedule = Schedule(networks_by_layout(space()), spec())

    cycles = [tuple(schedule.layout(4 * cycle + place) for place in range(4)) for cycle in range(12)]

    assert all(sorted(cycle) == sorted(schedule.names) for cycle in cycles)
    assert len(set(cycles)) > 4


def test_a_sandwich_holds_the_largest_the_smallest_and_random_networks_of_one_layout():
    made = space()
    schedule = Schedule(networks_by_layout(made), spec(random_networks=3))

    for step in range(8):
        networks, known = schedule.networks(step), schedule.layouts[schedule.layout(step)]
        assert networks[:2] == [known.largest, known.smallest]
        assert {made.decode(one).layout for one in networks} == {schedule.layout(step)}
        assert 2 <= len(networks) <= 5


def test_neighbours_differ_in_one_stage():
    assert neighbours(space(), networks_by_layout(space())) == {
        2: [("C-C-C", "C-T-C"), ("C-C-T", "C-T-T")],
        3: [("C-C-C", "C-C-T"), ("C-T-C", "C-T-T")],
    }


def test_the_cosine_is_over_what_both_have():
    one, other = (
        {"a": torch.tensor([3.0, 0.0]), "b": torch.ones(2)},
        {"a": torch.tensor([0.0, 2.0]), "c": torch.ones(1)},
    )

    assert cosine(one, other) == 0.0
    assert cosine(one, one) == pytest.approx(1.0)
    assert cosine({"a": torch.ones(1)}, {"b": torch.ones(1)}) is None


@pytest.mark.parametrize("loss", [kl_loss, alpha_loss, binary_loss])
def test_a_student_that_follows_a_divergence_becomes_its_teacher(loss):
    torch.manual_seed(0)
    teacher, student = torch.randn(6, 4), torch.zeros(6, 4, requires_grad=True)
    steps = torch.optim.Adam([student], lr=0.05)

    for _ in range(600):
        steps.zero_grad()
        loss(student, teacher).backward()
        steps.step()

    torch.testing.assert_close(student.detach().softmax(1), teacher.softmax(1), atol=0.02, rtol=0.02)


def test_the_alpha_divergence_has_the_gradient_of_its_value_where_nothing_is_clipped():
    torch.manual_seed(1)
    teacher, student = 0.3 * torch.randn(3, 5), (0.3 * torch.randn(3, 5)).double().requires_grad_()

    def value(logits: torch.Tensor) -> float:
        q, p = logits.softmax(1), teacher.double().softmax(1)
        left, right = ((q * ((p / q) ** -1 - 1)).sum(1) / 2, (p * (p / q).log()).sum(1))
        return float(torch.maximum(left, right).mean())

    found = alpha_loss(student, teacher.double())
    found.backward()

    assert float(found.detach()) == pytest.approx(value(student.detach()))
    step = torch.zeros(3, 5, dtype=torch.float64)
    step[1, 2] = 1e-5
    slope = (value(student.detach() + step) - value(student.detach() - step)) / 2e-5
    assert float(student.grad[1, 2]) == pytest.approx(slope, rel=1e-4)
