"""What a trial is for follows from its attributes, in one place, also for records of earlier versions."""

import pytest

from coatnet_search.record.trial import MARKS, Trial, kind_of


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({}, "candidate"),
        (None, "candidate"),
        ({"nsga2_generation": 2}, "candidate"),
        ({"rung": 0}, "rung"),  # the first rung is 0, and not nothing
        ({"peer": "resnet18"}, "peer"),
        ({"peer": None, "layout": "C-C"}, "candidate"),
        ({"audit": {"layout": "C-C"}, "of": 3}, "audit"),
        ({"drawn": True}, "drawn"),
        ({"baseline": True}, "baseline"),
        ({"replicate": 1, "of": 2}, "replicate"),
        ({"tune": {"lr": 0.1}}, "tune"),
        ({"tune": {}}, "tune"),
        ({"audit": {}, "rung": 1}, "audit"),
    ],
)
def test_a_trial_is_of_the_kind_that_its_attributes_say(attributes, kind):
    assert kind_of(attributes) == kind
    assert Trial({}, attributes=attributes or {}).kind == kind


def test_every_mark_is_a_kind_of_its_own():
    assert {kind_of({mark: 1}) for mark in MARKS} == set(MARKS)
