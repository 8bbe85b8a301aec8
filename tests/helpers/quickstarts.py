"""Small studies of the quickstart, and what their records say short of times."""

from coatnet_search.record.fold import read_trials
from coatnet_search.study.load import load_study

SMALL = ("search.strategy=random", "measure=[]", "recipe.epochs=2", "tracking.enabled=false")


def study(trials=4, trainer=None, *more):
    evaluator = f"trainers:{trainer}" if trainer else None
    return load_study("quickstart", [*SMALL, f"search.trials={trials}", *more], evaluator)


def results(folder):
    """What a record says, short of times."""
    trials = read_trials(folder)
    timed = ("epoch_s", "train_images_per_s", "throughput_images_per_s", "throughput_images_per_s_spread")
    return [(t.number, t.key, t.state, {k: v for k, v in t.metrics.items() if k not in timed}) for t in trials]
