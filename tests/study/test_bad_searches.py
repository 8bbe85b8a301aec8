"""What a search cannot be: each ends with exit code 2, its place and what to do, before anything starts."""

import pytest
from command_line import call


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["objectives={val_loss: best}"], "expected 'min' or 'max'"),
        (["objectives=[val_loss]"], "expected a mapping"),
        (["objectives={val_lss: min}"], "did you mean 'val_loss'"),
        (["objectives={latency_ms: min}"], "add latency to measure"),
        (["limits={macs: 1000}"], "no network of digits has at most 1 k multiply-adds; all have at least"),
        (["limits={params: [1.0e+9, null]}"], "all have at most"),
        (["limits={macs: [3.0e+5, 3.00001e+5], params: 1.5e+4}"], "the nearest misses"),
        (["recipe.epochs=10", "search.halving={first: 3}"], "set recipe.epochs to 9 or 27"),
        (["search.halving={first: 6}"], "cannot be split"),
        (["search.strategy=predictr"], "did you mean 'predictor'"),
        (["search.options={startup: 1}"], "startup: expected at least 4"),
        (["stop={hypervolume_gain: 2}"], "below 1"),
        (["stop={gpu_hour: 2}"], "no key named 'gpu_hour'"),
        (["replicates=3", "evaluate=measured", "objectives={macs: min}"], "has no seeds"),
        (["search.baseline=-1"], "at least 0"),
    ],
)
def test_a_search_that_cannot_be_ends_before_it_starts(sets, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    said = call(capsys, "run", "quickstart", "--local", "--set", "tracking.enabled=false", *sets)

    assert said.code == 2 and words in said.error
    assert not (tmp_path / "runs").exists()
