"""Answers what the first half hour on a GPU should answer: is it right, does it wait, does it resume, how fast is it.

    python benchmarks/gpu.py                                   # all parts in order of worth, for 30 minutes
    python benchmarks/gpu.py --minutes 120 --parquet FOLDER    # and rows of the table coatnet-bench in the time left
    python benchmarks/gpu.py --parts logits speed              # some of them

Each part is a process of its own, ended after its minutes, whatever it does. Rows are written as they are found, to
``benchmarks/results/gpu-NAME.jsonl``; the same command goes on with what is missing there. A part that cannot run says
why. Where the GPU computes nothing (one that is made up, to try this script) every part runs in a small form, each row
says "no numbers", and no file of results is written. Goals on an H200, coatnet-0 at 224 pixels: 25,000 images/s of
inference, 8,800 of training.
"""

import argparse
import contextlib
import datetime
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_parts import MINUTES, PARTS
from gpu_rows import Rows, Skip

RESULTS = Path(__file__).parent / "results"
ENDED = ("done", "skipped")  # of a part: what the same command does not repeat
NO_GPU = 3  # exit code: the machine lacks something


def carry_out(parts: Mapping[str, float], rows: Path, minutes: float, start: Callable[[str], Sequence[str]]) -> bool:
    """Runs the parts (name -> most minutes) in order while time is left; whether each ended well or said why it did
    not run. ``start``: the command of a part. What the file says is done is not done again."""
    begin, well = time.monotonic(), True
    for name, most in parts.items():
        file = Rows(rows, name, rehearsal=False)
        if any(row.get("state") in ENDED for row in file.known()):
            print(f"{name}: there already", flush=True)
            continue
        left = 60 * minutes - (time.monotonic() - begin)
        if left < 1:
            print(f"{name}: no time left; the same command goes on here", flush=True)
            well = False
            continue
        print(f"{name}:", flush=True)
        state, reason, spent = _run(start(name), min(60 * most, left))
        file.add(state=state, seconds=round(spent, 1), **({"reason": reason} if reason else {}))
        well &= state in ENDED
    return well


def _run(words: Sequence[str], seconds: float) -> tuple[str, str, float]:
    """State, reason and seconds of one part; its output is shown as it comes."""
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as told, subprocess.Popen(words, stderr=told, start_new_session=True) as process:
        try:
            code = process.wait(timeout=seconds)
            state = {0: "done", 75: "skipped"}.get(code, "failed")
        except subprocess.TimeoutExpired:
            state = "out of time"
        except KeyboardInterrupt:
            state = "interrupted"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and whatever it started
        told.seek(0)
        lines = [line.strip() for line in told.read().splitlines() if line.strip()]
    if state == "interrupted":
        raise KeyboardInterrupt
    last = lines[-1][:300] if lines and state in ("skipped", "failed") else ""
    return state, last, time.monotonic() - begin


def computes() -> bool | None:
    """Whether the GPU gives right products; None without one."""
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        return None
    ones = torch.ones(64, 64, device="cuda")
    return bool(((ones @ ones).cpu() == 64).all())


def header() -> dict[str, Any]:
    """What the rows were found on."""
    import timm  # noqa: PLC0415
    import torch  # noqa: PLC0415

    gpu = torch.cuda.get_device_properties(0)
    return {"date": str(datetime.date.today()), "gpu": gpu.name, "memory_gib": round(gpu.total_memory / 2**30),
            "torch": torch.__version__, "cuda": torch.version.cuda, "timm": timm.__version__,
            "python": sys.version.split()[0]}  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="of all parts together")
    parser.add_argument("--parts", nargs="+", choices=list(MINUTES), default=list(MINUTES))
    parser.add_argument("--out", type=Path, help="the file of rows; default: one in benchmarks/results/")
    parser.add_argument("--parquet", help="a folder with CIFAR-10 as train*.parquet, for coatnet-bench")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # what a part's process is started with
    parser.add_argument("--rehearsal", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = _options()
    if options.part:
        return _part(options)
    right = computes()
    if right is None:
        print("no GPU here: torch sees none, and every part of this benchmark needs one", file=sys.stderr)
        return NO_GPU
    with _place(options, right) as rows:
        found = header()
        print(", ".join(f"{key} {value}" for key, value in found.items()), flush=True)
        if not right:
            print("this GPU computes nothing: every part runs in a small form, no numbers, no results", flush=True)
        file = Rows(rows, "machine", rehearsal=False)
        if found not in [{key: row.get(key) for key in found} for row in file.known()]:
            file.add(**found)

        def start(name: str) -> list[str]:
            more = ["--rehearsal"] if not right else []
            more += ["--parquet", options.parquet] if options.parquet else []
            return [sys.executable, __file__, "--part", name, "--out", str(rows), *more]

        well = carry_out({name: MINUTES[name] for name in options.parts}, rows, options.minutes, start)
    return 0 if well else 1


@contextlib.contextmanager
def _place(options: argparse.Namespace, right: bool) -> Iterator[Path]:
    """The file of rows: of a GPU that computes nothing, one that is thrown away unless it is asked for."""
    if right or options.out:
        name = re.sub(r"[^a-z0-9]+", "-", header()["gpu"].lower()).strip("-")
        yield options.out or RESULTS / f"gpu-{name}.jsonl"
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "rehearsal.jsonl"


def _part(options: argparse.Namespace) -> int:
    rows = Rows(options.out, options.part, options.rehearsal, options.parquet)
    try:
        PARTS[options.part](rows)
    except Skip as reason:
        print(reason, file=sys.stderr)
        return 75
    latest = {row["what"]: row for row in rows.known() if "what" in row}
    failed = [what for what, row in latest.items() if "failed" in row]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
