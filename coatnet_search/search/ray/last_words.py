"""Says that the same command goes on, where Ray's own processes end and take this one with them without a word."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

SENTENCE = (
    "error: this process was ended from outside, as when Ray's own (raylet, GCS) end; what is recorded holds, and the "
    "same command goes on"
)
_WATCH = """
import os, signal, sys, time
for name in (signal.SIGINT, signal.SIGTERM):
    signal.signal(name, signal.SIG_IGN)
while os.getppid() == int(sys.argv[1]):
    time.sleep(0.2)
sys.stderr.write(sys.argv[2] + "\\n")
"""


@contextlib.contextmanager
def last_words(pid: int) -> Iterator[None]:
    """While it is open, a small process of its own looks whether this one (``pid``) is there. Ray's libraries leave it
    no time to say anything: they exit."""
    words = [sys.executable, "-I", "-S", "-c", _WATCH, str(pid), SENTENCE]
    watcher = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        watcher.kill()
        watcher.wait()
