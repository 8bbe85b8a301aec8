"""Successive halving: who goes on, what the record shows, resuming, what is refused."""

from collections import Counter

import numpy as np
import pytest
import torch

from coatnet_search.architecture.arch import Arch, Stage
from coatnet_search.architecture.build import seeded_build
from coatnet_search.core.errors import InputError
from coatnet_search.data.load import load_data
from coatnet_search.data.spec import DataSpec
from coatnet_search.record.fold import read_events, read_record, read_trials
from coatnet_search.record.journal import NAME
from coatnet_search.record.trial import RUNG, Trial
from coatnet_search.search.run import run
from coatnet_search.strategies.halving import Halving, crowding, split
from coatnet_search.study.load import load_study
from coatnet_search.training.budget import Budget
from coatnet_search.training.loop import train
from coatnet_search.training.recipe import make_recipe

SMALL = ("search.strategy=random", "measure=[]", "recipe.epochs=9", "tracking.enabled=false",
         "search.halving={first: 1}")  # fmt: skip
RULE = Halving(rungs=(1, 3, 9), factor=3, objectives={"val_loss": "min", "macs": "min"})


def study(*more, trials=12, trainer="learns"):
    return load_study("quickstart", [*SMALL, f"search.trials={trials}", *more],
                      f"trainers:{trainer}" if trainer else None)  # fmt: skip


def trial(number, losses, *, macs=1.0, layout="C-C-C-C", state="paused", rung=None):
    """A trial that showed these losses at the rungs of ``RULE``."""
    curve = tuple({"epoch": epochs, "val_loss": loss} for epochs, loss in zip(RULE.rungs, losses, strict=False))
    return Trial({"n": number}, {"macs": macs, "val_loss": losses[-1]}, state, number=number, curve=curve,
                 attributes={RUNG: len(losses) - 1 if rung is None else rung, "layout": layout})  # fmt: skip


def results(folder):
    return [(t.number, t.key, t.state, t.attributes.get(RUNG), t.attributes.get("went_on"), dict(t.metrics))
            for t in read_trials(folder)]  # fmt: skip


def test_rungs_end_at_the_full_budget_or_the_message_says_which_budgets_fit():
    assert split(1, 3, 9) == (1, 3, 9)
    with pytest.raises(InputError, match=r"20 epochs .*\(2, 6, 18, 54\); set recipe.epochs to 18 or 54"):
        split(2, 3, 20)
    with pytest.raises(InputError, match=r"set recipe\.epochs to 6"):
        split(2, 3, 2)


def test_a_third_of_a_rung_goes_on_by_rank_and_the_rest_waits_until_nobody_can_join():
    trials = [trial(number, [1.0 + number / 10], macs=5.0) for number in range(3)]

    open_rung = RULE.decide(trials, all_started=False)
    after = [trial(0, [1.0, 0.5], macs=5.0, state="done", rung=2), *trials[1:]]
    still_open, closed = RULE.decide(after, all_started=False), RULE.decide(after, all_started=True)

    assert (open_rung.go_on.number, open_rung.reason, open_rung.stop) == (0, "rank", ())
    assert still_open.go_on is None and still_open.stop == ()
    assert [one.number for one in closed.stop] == [1, 2]


def test_of_equal_rank_the_one_with_more_room_around_it_goes_on():
    front = [(0.9, 1.0), (0.5, 2.0), (0.48, 2.1), (0.1, 3.0)]
    trials = [trial(number, [loss], macs=macs) for number, (loss, macs) in enumerate(front)]

    ordered = [one.number for one in RULE.ordered(trials, 1)]

    assert ordered[:2] == [0, 3]
    assert crowding(np.array(front)).tolist()[0] == np.inf


def test_a_layout_that_is_behind_keeps_a_place_until_it_is_known_to_lose():
    early = [trial(number, [0.5 + number / 100]) for number in range(6)]
    late = [trial(10 + number, [0.9 + number / 100], layout="C-T-T-T") for number in range(3)]
    gone = [trial(20 + number, [0.5, 0.4, 0.3 + number / 1000], state="done") for number in range(6)]
    loser = [
        trial(30 + number, [0.9, 0.85, 0.8 + number / 1000], layout="C-T-T-T", state="done") for number in range(3)
    ]

    unknown = RULE.decide([*early[2:], *late, *gone], all_started=True)
    known = RULE.decide([*early[2:], *late, *gone, *loser], all_started=True)

    assert (unknown.go_on.label, unknown.reason, unknown.chance) == ("C-T-T-T", "quota", None)
    assert known.go_on is None or known.reason == "rank"
    assert RULE.chances([*early, *late, *gone, *loser])["C-T-T-T"] < 0.05


def test_a_layout_that_gains_late_is_still_likely_to_be_best():
    early = [trial(number, [0.5, 0.45, 0.42], state="done") for number in range(3)]
    late = [trial(10 + number, [0.9, 0.6, 0.40 + number / 50], layout="C-T-T-T", state="done") for number in range(3)]
    waiting = trial(20, [0.88], layout="C-T-T-T")

    chances = RULE.chances([*early, *late, waiting])

    assert chances["C-T-T-T"] > 0.5
    assert sum(chances.values()) == pytest.approx(1.0)


def test_a_strategy_sees_one_fidelity_and_a_stopped_trial_never_as_done_at_another():
    low = [trial(number, [1.0 + number], state="stopped") for number in range(9)]
    full = trial(20, [0.5, 0.4, 0.3], state="done")

    shown = RULE.shown([*low, full, trial(21, [0.1], state="running", rung=1)])

    assert {one.state for one in shown} == {"done"}
    assert shown[9].metrics["val_loss"] == 0.5


def test_a_search_shows_rungs_and_stopped_trials_apart_from_finished_ones(tmp_path):
    outcome = run(study(), local=True, runs=tmp_path)

    frame, trials = read_record(outcome.run), read_trials(outcome.run)
    states = Counter(frame["state"])
    assert outcome.complete and set(states) == {"done", "stopped"} and states["done"] < 6
    assert (frame["epoch"][frame["state"] == "done"] == 9).all()
    assert set(frame["epoch"][frame["state"] == "stopped"]) <= {1, 3}
    assert {one.label for one in trials if one.state == "done"} == {one.label for one in trials}, "quota"
    assert frame["epoch"].sum() < 0.6 * 9 * 12
    assert not any((outcome.run / "checkpoints").glob("*"))


def test_killed_after_any_event_a_search_ends_as_an_uninterrupted_one(tmp_path):
    whole = run(study(trials=6), local=True, runs=tmp_path / "whole").run
    lines = (whole / NAME).read_bytes().splitlines(keepends=True)

    for count in range(2, len(lines), 13):
        part = tmp_path / str(count) / "quickstart"
        part.mkdir(parents=True)
        (part / NAME).write_bytes(b"".join(lines[:count]))
        run(study(trials=6), local=True, runs=part.parent)

        assert results(part) == results(whole), count


def test_more_trials_go_on_after_the_end(tmp_path):
    run(study(trials=6), local=True, runs=tmp_path)

    more = run(study(trials=12), local=True, runs=tmp_path)

    assert more.complete and len(read_trials(more.run)) == 12


def test_a_trial_that_pauses_ends_as_if_it_had_not(tmp_path):
    arch = Arch(image_size=8, in_channels=1, num_classes=10, stages=(Stage(block="C", depth=1, width=8),))
    data, recipe = load_data(DataSpec(name="digits"), image_size=8), make_recipe({"name": "digits", "ema": 0.9})

    def rows(folder, *stops):
        for until in stops:
            model = seeded_build(arch, 0)
            found = list(train(model, data, recipe, Budget(epochs=4), "cpu", until=until, checkpoint=folder))
        return [row["val_loss"] for row in found], model.state_dict()

    whole, parts = rows(tmp_path / "whole", None), rows(tmp_path / "parts", 1, 2, None)

    assert whole[0] == parts[0]
    assert all(torch.equal(whole[1][name], value) for name, value in parts[1].items())


def test_a_search_on_digits_continues_paused_trials_from_their_checkpoints(tmp_path):
    outcome = run(study("recipe.epochs=2", "search.halving={first: 1, factor: 2}", "measure=[throughput]", trials=3,
                        trainer=None), local=True, runs=tmp_path)  # fmt: skip

    events = read_events(outcome.run)
    frame = read_record(outcome.run)
    epochs = Counter((event["number"], event["metrics"]["epoch"]) for event in events if event["event"] == "report")
    assert set(epochs.values()) == {1}, "no epoch is trained twice"
    assert Counter(frame["state"])["done"] >= 1 and frame["throughput_images_per_s"].notna().all()
    assert {event["event"] for event in events} >= {"paused", "continued", "terminal"}


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["evaluate=measured", "objectives={macs: min}"], "candidates have none"),
        (["recipe.epochs=10"], "10 epochs cannot be split"),
        (["recipe.epochs=1"], "1 epochs cannot be split"),
        (["search.halving={first: 1, factor: 1}"], "at least 2"),
        (["search.trials=2"], "of 3 trials one goes on"),
        (["objectives={macs: min, params: min}"], "no objective is learned in training"),
        (["equal_cost={macs: 1.0e+5}", "search.strategy=listed"], "trains all its runs in full"),
    ],
)
def test_contradictions_are_refused_with_the_place(sets, words):
    with pytest.raises(InputError, match=words) as caught:
        study(*sets, trainer=None)

    assert "quickstart.yaml:" in str(caught.value) or "halving" in str(caught.value)


def test_a_changed_rung_is_another_study(tmp_path):
    run(study(trials=3), local=True, runs=tmp_path)

    with pytest.raises(InputError, match=r"search\.halving\.factor: 3 -> 9"):
        run(study("search.halving={first: 1, factor: 9}", trials=9), local=True, runs=tmp_path)
