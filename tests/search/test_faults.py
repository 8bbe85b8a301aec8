"""The table of faults: every row has a test that exists; and faults that have no other home."""

import ast
import functools
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from quickstarts import study

from coatnet_search.core.errors import InputError
from coatnet_search.record.fold import read_events, read_trials
from coatnet_search.search.run import run

HERE = Path(__file__).parents[1]
ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", (HERE / "FAULTS.md").read_text(), re.MULTILINE)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@functools.cache
def functions_of(name):
    tree = ast.parse((HERE / name).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_table_has_all_rows():
    assert [int(number) for number, *_ in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) >= 74


@pytest.mark.parametrize(("number", "fault", "tests"), ROWS, ids=[number for number, *_ in ROWS])
def test_every_row_of_the_table_names_tests_that_exist(number, fault, tests):
    named = [test.split("::") for test in tests.split(", ")]

    assert named and all(function in functions_of(file) for file, function in named)


@pytest.mark.parametrize(
    "setting", ["scheduler=asha", "search.metric=val_loss", "search.num_samples=8", "pruner=median"]
)
def test_settings_of_ray_and_optuna_are_no_keys_of_a_study(setting, tmp_path):
    with pytest.raises(InputError, match="no key named"):
        study(2, "good", setting)


DRIVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background processes ignore it
sys.path.insert(0, {tests!r})
from pathlib import Path
from quickstarts import study
from coatnet_search.search.run import run
run(study(6, "sleeps"), local=True, runs=Path({runs!r}))
"""


def _interrupted_until_it_ends(driver):
    """Its exit code; again each second, because of two signals that a busy machine delivers at once one is lost."""
    for _ in range(60):
        driver.send_signal(signal.SIGINT)
        try:
            return driver.wait(1)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("it did not end")


def test_a_second_interrupt_ends_a_search_at_once_and_it_can_still_go_on(tmp_path):
    code = DRIVER.format(tests=str(HERE / "helpers"), runs=str(tmp_path))
    driver = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    folder, end = tmp_path / "quickstart", time.monotonic() + 200
    while not any(trial.curve and trial.state == "running" for trial in read_trials(folder)):
        assert time.monotonic() < end and driver.poll() is None
        time.sleep(0.1)
    time.sleep(1)  # it hangs in its second epoch by now

    driver.send_signal(signal.SIGINT)
    time.sleep(1)
    still_there = driver.poll() is None
    code = _interrupted_until_it_ends(driver)
    outcome = run(study(6, "sleeps", "faults.silent_minutes=0.01"), local=True, runs=tmp_path)

    assert still_there and code != 0
    ends = [event["number"] for event in read_events(folder) if event["event"] == "terminal"]
    assert outcome.complete and sorted(ends) == list(range(6))


@needs_gpu
def test_a_real_gpu_that_is_out_of_memory_fails_the_trial_with_its_batch_size(tmp_path):
    held = torch.empty(int(torch.cuda.mem_get_info()[0] * 0.98), dtype=torch.uint8, device="cuda")

    with pytest.raises(Exception, match="failed alike"):
        run(study(3, None, "resources.gpus=1", "faults.equal_failures=2"), local=True, runs=tmp_path)

    assert len(held) and {trial.failure.kind for trial in read_trials(tmp_path / "quickstart")} == {"out_of_memory"}


@needs_gpu
def test_a_gpu_whose_memory_others_hold_fails_the_trial_and_doctor_names_them(tmp_path):
    from coatnet_search.cli.doctor import _busy

    code = "import torch, time; x = torch.ones(2**28, device='cuda'); print(flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    other.stdout.readline()

    finding = _busy()
    other.kill()
    other.wait()

    assert finding.state == "warning" and str(other.pid) in finding.found
