"""Mutated study and space files, run as a user would: each runs, or ends with exit code 2 and one line."""

import random

import pytest
from command_line import call
from mutations import mutated

STUDY = """\
question: Which of a few small networks?
space: space.yaml
data: {name: digits, val_fraction: 0.2, seed: 0}
recipe: {name: digits, epochs: 1, batch_size: 64}
objectives: {val_loss: min, macs: min}
measure: []
search:
  strategy: random
  trials: 2
  seed: 1
limits: {params: 2.0e+6}
resources: {cpus: 1, gpus: 0}
faults: {minutes: 5, retries: 1, equal_failures: 3}
choose: {limit: {macs: 1.0e+7}, top: 2}
tracking: {enabled: false}
"""
SPACE = """\
description: small
image_size: 8
stem: {kind: conv, depth: 1, width: [8, 16], stride: 1}
stages:
  - {block: C, depth: [1, 2], width: [8, 16], stride: 1, kernel: [3, 5], expand: 2}
  - {block: [C, T], depth: 1, width: [16, 32], stride: 2}
head_size: 8
convolution_first: true
limits: {macs: [1.0e+4, 2.0e+7]}
"""
SEEDS = [*range(30), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(30, 300))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mutated_study_or_space_runs_or_is_refused_in_one_line(seed, tmp_path, monkeypatch, capsys):
    rng = random.Random(seed)
    (tmp_path / "study.yaml").write_bytes(mutated(rng, STUDY) if seed % 2 else STUDY.encode())
    (tmp_path / "space.yaml").write_bytes(SPACE.encode() if seed % 2 else mutated(rng, SPACE))
    monkeypatch.chdir(tmp_path)
    words = ["--local", "--minutes", "0.02", "--set", "tracking.enabled=false", "--evaluator", "trainers:good"]

    printed = call(capsys, "run", "study.yaml", *words)

    assert printed.code in (0, 2, 3, 4, 130) and "Traceback" not in printed.out + printed.err
    if printed.code == 2 or (printed.code == 3 and not (tmp_path / "runs").exists()):
        assert len(printed.error) < 800 and printed.error.isprintable()
        assert {path.name for path in tmp_path.iterdir()} == {"study.yaml", "space.yaml"}
    else:
        assert (tmp_path / "runs" / "study" / "trials.jsonl").is_file()
        assert {path.name for path in tmp_path.iterdir()} == {"study.yaml", "space.yaml", "runs"}
