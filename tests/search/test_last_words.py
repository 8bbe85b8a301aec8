"""What is said where Ray's libraries end the process."""

import subprocess
import sys

import pytest

from coatnet_search.search.ray.last_words import SENTENCE

CODE = """
import os, signal, time
from coatnet_search.search.ray.last_words import last_words
with last_words(os.getpid()):
    {}
"""


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_process_that_is_ended_without_a_word_says_that_the_same_command_goes_on(end):
    done = subprocess.run([sys.executable, "-c", CODE.format(end)], capture_output=True, text=True, check=False)

    assert done.stderr == f"{SENTENCE}\n" and "the same command goes on" in SENTENCE


def test_a_process_that_ends_by_itself_says_nothing():
    done = subprocess.run([sys.executable, "-c", CODE.format("pass")], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
