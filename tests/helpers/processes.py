"""Killing what a test started."""

import os
import signal
import subprocess
from pathlib import Path


def kill_a_worker(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to one of Ray's training workers below ``process``."""
    parents = {int(path.parent.name): int(path.read_text().rpartition(")")[2].split()[1])
               for path in Path("/proc").glob("[0-9]*/stat")}  # fmt: skip

    def below(pid: int) -> bool:
        return pid == process.pid or (pid in parents and parents[pid] > 1 and below(parents[pid]))

    workers = [pid for pid in parents if below(pid) and b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGKILL)
