"""The audit of a supernet in made-up worlds: what is true of them is known."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from frames import frame_of, trial

from coatnet_search.analysis.audit import Audit, Network, audit, band_of
from coatnet_search.analysis.audit_decision import AuditDecision, corrected, decide, trusted
from coatnet_search.analysis.front import separability
from coatnet_search.strategies.problem import Problem

LAYOUTS = ("C-C-C-C", "C-C-C-T", "C-C-T-T", "C-T-T-T")
WIDTHS, DEPTHS = tuple(range(8, 72, 8)), (1, 2, 3, 4)
PROBLEM = Problem(
    choices={"layout": LAYOUTS, "width": WIDTHS, "depth": DEPTHS}, objectives={"error": "min"},
    exact=lambda one: {"macs": 1e5 * float(one["width"]) * float(one["depth"]), "params": 1e3 * float(one["width"])},
)  # fmt: skip


def world(count: int = 40, *, seed: int = 0, noise: float = 0.003, own: float = 0.03, useless: bool = False,
          offsets: dict[str, float] | None = None, seeds: int = 2) -> list[Network]:  # fmt: skip
    """Networks whose true error falls with cost and differs by ``own``; the supernet reads ten points too many and
    each layout's ``offsets`` on top, or nothing of use."""
    rng, networks = np.random.default_rng(seed), []
    for number in range(count):
        candidate = {"layout": LAYOUTS[number % 4], "width": int(rng.choice(WIDTHS)), "depth": int(rng.choice(DEPTHS))}
        macs = 1e5 * candidate["width"] * candidate["depth"]
        true = 0.5 - 0.05 * np.log10(macs / 1e5) + 0.01 * LAYOUTS.index(candidate["layout"]) + rng.normal(0, own)
        read = true + 0.1 + (offsets or {}).get(candidate["layout"], 0.0)
        alone = tuple(float(true + rng.normal(0, noise)) for _ in range(seeds))
        networks.append(Network(
            number=number, arch_id=f"{number:010x}", layout=candidate["layout"], macs=macs, params=macs / 100,
            inherited=float(rng.uniform(0.4, 0.6) if useless else read), alone=alone, candidate=candidate, wall_s=60.0,
        ))  # fmt: skip
    return networks


def of(networks: list[Network], **options: Any) -> Audit:
    return audit(networks, "error", "min", **options)


def test_a_supernet_that_ranks_as_the_truth_does_is_found_to() -> None:
    found = of(world(noise=0.0))

    every, within = found.groups[:2]
    assert every.tau.value == within.tau.value == 1.0 and every.regret.value == 0.0
    assert every.over_macs.low > 0 and found.noise.corrected.value == pytest.approx(1.0)
    assert found.offset.value == pytest.approx(0.1) and found.p_equal > 0.05


def test_noise_between_seeds_lowers_the_correlation_and_is_corrected_for() -> None:
    found = of(world(noise=0.03, own=0.05))

    assert found.noise.plain.value < 0.95 < found.noise.corrected.high
    assert found.noise.corrected.value > found.noise.plain.value


def test_a_useless_supernet_is_found_out() -> None:
    found = of(world(useless=True))

    every = found.groups[0]
    assert every.tau.low < 0 < every.tau.high or every.tau.value < 0.1
    assert not every.over_macs.low > 0
    assert any("may be nothing" in text or "gains -" in text for text in trusted(found))


def test_offsets_of_layouts_are_estimated_tested_and_corrected_by() -> None:
    found = of(world(offsets={"C-C-C-C": 0.08}))

    decision = decide(found, LAYOUTS)

    assert found.p_equal < 0.01
    assert found.offsets["C-C-C-C"].low > 0.15 and found.offsets["C-T-T-T"].high < 0.12
    assert decision.state == "corrected" and decision.offsets["C-C-C-C"] == pytest.approx(0.18, abs=0.003)
    assert "C-C-C-C -18.0 points (± 0." in decision.says
    assert 0 < decision.offset_errors["C-C-C-C"] < 0.003 and 0 < decision.scatter < 0.03
    assert found.corrected.value > found.groups[0].tau.value + 0.2


def test_where_an_offset_is_not_known_layouts_are_not_compared() -> None:
    found = of(world(24, offsets={"C-C-C-C": 0.08}))

    decision, alone = decide(found, LAYOUTS), decide(found, ["C-C-T-T"])

    assert decision.state == "refused" and "C-C-C-T (6 of 10)" in decision.says
    assert alone.state == "comparable"
    assert {one.note for one in found.offsets.values()} == {"too few: 6 of 10 networks"}


def test_a_layout_that_was_not_audited_is_refused_only_where_offsets_differ() -> None:
    equal, unequal = of(world()), of(world(offsets={"C-C-C-C": 0.08}))

    assert decide(equal, [*LAYOUTS, "T-T-T-T"]).state == "comparable"
    assert "T-T-T-T (0 of 10)" in decide(unequal, [*LAYOUTS, "T-T-T-T"]).says


def test_without_an_offset_layouts_compare_as_they_are_and_the_blind_spot_is_said() -> None:
    found = of(world(own=0.02, noise=0.01))

    decision = decide(found, LAYOUTS)

    assert decision.state == "comparable" and "would go unseen" in decision.says
    assert 0 < found.unseen < 0.02


@pytest.fixture
def one_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A predictor is trained a third as often."""
    monkeypatch.setattr("coatnet_search.analysis.audit.REPEATS", 1)


def test_no_audit_and_a_tiny_one_say_so() -> None:
    few = of(world(8))

    assert decide(None, LAYOUTS).state == "unaudited" and trusted(None) == []
    assert decide(few, LAYOUTS).state == "too few"
    assert {group.tau.note for group in few.groups[:2]} == {"too few: 8 of 10 networks"}
    assert trusted(few) == ["Audit: too few: 8 of 10 networks."]
    assert of([]).groups[0].tau.value is None


def test_within_bands_and_layouts_figures_need_ten_networks() -> None:
    small, large = of(world(24)), of(world(40))

    bands = {len(audited.networks): [group for group in audited.groups if group.kind == "band"]
             for audited in (small, large)}  # fmt: skip
    assert [group.networks for group in bands[24]] == [8, 8, 8]
    assert all(group.tau.value is None for group in bands[24])
    assert all(group.tau.value is not None for group in bands[40])
    assert all(group.regret.value is not None for group in large.groups if group.kind == "layout")


def test_bands_hold_equal_numbers_by_cost() -> None:
    bands = band_of([5, 1, 3, 9, 7, 2, 2])

    assert sorted(bands.tolist()) == [0, 0, 0, 1, 1, 2, 2] and bands[3] == 2 and bands[1] == 0


@pytest.mark.usefixtures("one_repeat")
def test_a_predictor_that_knows_as_much_leaves_a_useless_supernet_no_gain() -> None:
    useless = of(world(own=0.0, useless=True), problem=PROBLEM, supernet_hours=0.5)
    perfect = of(world(own=0.05, noise=0.0), problem=PROBLEM, supernet_hours=0.5)

    assert useless.predicted.bought == useless.predicted.runs == 30
    assert useless.predicted.gain.high < 0 and not useless.predicted.note
    assert perfect.predicted.gain.low > 0


@pytest.mark.usefixtures("one_repeat")
def test_hours_that_buy_more_or_fewer_runs_than_a_predictor_can_have_are_said() -> None:
    long, short = (of(world(12), problem=PROBLEM, supernet_hours=hours) for hours in (10.0, 0.05))
    unknown = of(world(12), problem=PROBLEM)

    assert long.predicted.bought == 600 and long.predicted.runs == 18 and "too few" in long.predicted.note
    assert short.predicted.gain.value is None and "buy 3 runs" in short.predicted.gain.note
    assert unknown.predicted.gain.value is not None and "not known" in unknown.predicted.note


def test_one_seed_gives_no_correction_for_noise() -> None:
    found = of(world(seeds=1))

    assert found.noise is None and found.groups[0].tau.value is not None


def test_a_metric_of_which_more_is_better_ranks_the_other_way() -> None:
    errors = world()
    accuracies = [Network(**{**vars(one), "inherited": 1 - one.inherited, "alone": tuple(1 - e for e in one.alone)})
                  for one in errors]  # fmt: skip

    found = audit(accuracies, "val_top1", "max")

    assert found.groups[0].tau.value == of(errors).groups[0].tau.value
    assert found.offset.value == pytest.approx(-0.1, abs=0.01)


@pytest.mark.usefixtures("one_repeat")
def test_the_same_networks_give_the_same_audit() -> None:
    first, again = (of(world(24), problem=PROBLEM, supernet_hours=0.4) for _ in range(2))

    assert repr(first) == repr(again)


def test_the_errors_of_a_correction_go_into_what_follows() -> None:
    frame = frame_of(
        *(trial(n, ["C-C-C-C", "C-T-T-T"][n % 2], val_top1=0.6 + 0.01 * (n % 2), candidate={}) for n in range(20))
    )
    frame.attrs["num_val"] = 5000
    sure, unsure = (
        corrected(frame, "error", AuditDecision(state="corrected", says="", offsets={"C-C-C-C": 0.0, "C-T-T-T": 0.0},
                                                offset_errors={"C-C-C-C": error, "C-T-T-T": error}))
        for error in (0.0, 0.02)
    )  # fmt: skip

    assert separability(sure, {"error": "min"}, None) is None
    assert "cannot separate the layouts" in (separability(unsure, {"error": "min"}, None) or "")


def test_correcting_a_frame_keeps_what_was_measured() -> None:
    errors = {"error": [0.3, 0.4, 0.5, 0.2], "val_top1": [0.7, 0.6, 0.5, 0.8]}
    frame = pd.DataFrame({"layout": ["A", "B", "C", "A"], "attributes": [{}, {}, {}, {"audit": 1}], **errors})

    out = corrected(frame, "error", AuditDecision(state="corrected", says="", offsets={"A": 0.1, "B": -0.1}))
    same = corrected(frame, "error", AuditDecision(state="comparable", says=""))

    np.testing.assert_allclose(out["error"], [0.2, 0.5, np.nan, 0.2])
    np.testing.assert_allclose(out["val_top1"], [0.8, 0.5, np.nan, 0.8])
    assert list(out["inherited_error"]) == [0.3, 0.4, 0.5, 0.2] and same is frame
