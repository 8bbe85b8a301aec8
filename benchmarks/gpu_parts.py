"""The parts of the GPU benchmark, in order of worth; each writes its rows as it finds them."""

import copy
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from gpu_rows import Rows, Skip, command
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from coatnet_search.architecture.arch import Arch, Stage, Stem
from coatnet_search.architecture.build import seeded_build
from coatnet_search.architecture.family import named_arch
from coatnet_search.architecture.fold_norms import fold_norms
from coatnet_search.training.compilation import compiled_whole
from coatnet_search.training.measurements import load_measurement
from coatnet_search.training.measurements.conditions import Conditions

HERE = Path(__file__).parent.parent
CLI = (sys.executable, "-m", "coatnet_search")
KERNELS = {"math": SDPBackend.MATH, "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
           "flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}  # fmt: skip
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of a largest difference, as a share of the largest value
SPEED_TURNS = 3  # ours and timm's in turn, so that a drift meets both
GPU_TESTS = ("tests/training/test_waits.py", "tests/training/test_compilation.py", "tests/training/test_device_lock.py",
             "tests/search/test_faults.py")  # fmt: skip


def _small() -> Arch:
    """A network of launches: 32 pixels, some hundred thousand parameters."""
    stages = (
        Stage(block="C", depth=2, width=32, stride=1),
        Stage(block="T", depth=2, width=64, stride=2, head_size=32),
    )
    return Arch(image_size=32, num_classes=10, stem=Stem(depth=1, width=32, stride=2), stages=stages)


# --- is it right -----------------------------------------------------------------------------------------------------


def doctor(rows: Rows) -> None:
    def examined() -> dict[str, Any]:
        code, text, _ = command(*CLI, "doctor")
        wrong = [line.strip() for line in text.splitlines() if "problem" in line or "warning" in line]
        return {"exit_code": code, "said": wrong[:10]}

    rows.find("doctor", examined)


def tests(rows: Rows) -> None:
    if importlib.util.find_spec("pytest") is None:
        raise Skip("pytest is not installed")

    def tested() -> dict[str, Any]:
        code, text, _ = command(sys.executable, "-m", "pytest", "-k", "gpu or compil", *GPU_TESTS)
        last = text.strip().splitlines()[-1]
        if code and not rows.rehearsal:
            raise RuntimeError(last)
        return {"exit_code": code, "tests": last}

    rows.find("tests", tested)


def logits(rows: Rows) -> None:
    """Outputs and gradients of bias tables against the CPU's in float64."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    archs = {"small": _small()} if rows.rehearsal else {"small": _small(), "coatnet-0": named_arch("coatnet-0")}
    for name, arch in archs.items():
        model = seeded_build(arch, 0, init="fan_in").eval()
        images = torch.randn(2, 3, arch.image_size, arch.image_size, generator=torch.Generator().manual_seed(0))
        wide = copy.deepcopy(model).double()
        expected = wide(images.double()).detach(), _bias_gradients(wide, images.double())
        for dtype in TOLERANCE:
            label = f"{name} {str(dtype)[6:]}"
            for how, network in (("eager", model), ("folded", fold_norms(model)), ("compiled", model)):
                rows.find(f"{label} {how}", _same_logits, network, images, dtype, how == "compiled", expected[0], rows)
            for kernel in KERNELS:
                same = (kernel, model, images, dtype, *expected, rows)
                rows.find(f"{label} {kernel} attention", _same_by_kernel, False, *same)
                rows.find(f"{label} {kernel} attention, bias gradients", _same_by_kernel, True, *same)


def _same_logits(
    model: nn.Module, images: Tensor, dtype: torch.dtype, compiled: bool, expected: Tensor, rows: Rows
) -> dict[str, Any]:
    there = _there(model, dtype)
    with torch.no_grad():
        found = (compiled_whole(there) if compiled else there)(images.to("cuda", dtype))
    return _agrees(found, expected, dtype, rows)


def _same_by_kernel(
    gradients: bool, kernel: str, model: nn.Module, images: Tensor, dtype: torch.dtype, logits: Tensor, slopes: Tensor,
    rows: Rows,
) -> dict[str, Any]:  # fmt: skip
    """With one kernel of attention alone. Raises Skip where it takes no bias, or not this precision."""
    try:
        with sdpa_kernel(KERNELS[kernel]):
            if not gradients:
                return _same_logits(model, images, dtype, False, logits, rows)
            return _agrees(_bias_gradients(_there(model, dtype), images.to("cuda", dtype)), slopes, dtype, rows)
    except RuntimeError as error:
        if "No available kernel" in str(error):
            raise Skip("this kernel does not take it") from None
        raise


def _there(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    return copy.deepcopy(model).to("cuda", dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _bias_gradients(model: nn.Module, images: Tensor) -> Tensor:
    """Of all bias tables, in a row, for the sum of the squared logits."""
    model(images).square().sum().backward()
    return torch.cat([value.grad.flatten() for name, value in model.named_parameters() if name.endswith("bias.table")])


def _agrees(found: Tensor, expected: Tensor, dtype: torch.dtype, rows: Rows) -> dict[str, Any]:
    share = float((found.double().cpu() - expected).abs().max() / expected.abs().max())
    if not share <= TOLERANCE[dtype] and not rows.rehearsal:
        raise ValueError(f"differs by {share:.2g} of the largest value, {TOLERANCE[dtype]:.2g} is allowed")
    return {"difference": share}


# --- does it work ----------------------------------------------------------------------------------------------------


def waits(rows: Rows) -> None:
    """How often each step of training waits for the GPU, the first of an epoch apart."""
    script = HERE / "tests" / "helpers" / "gpu_waits.py"

    def counted() -> dict[str, Any]:
        code, text, _ = command(sys.executable, str(script), env={"PYTHONPATH": _path(script.parent)})
        if code:
            raise RuntimeError(text.strip().splitlines()[-1])
        return {name: found[1:] for name, found in json.loads(text.strip().splitlines()[-1]).items()}

    rows.find("waits a step", counted)


def _path(*folders: Path) -> str:
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])


def searches(rows: Rows) -> None:
    """The quickstart and the search by a supernet, on the GPU."""
    _needs("pydantic")
    small = {"quickstart": ("search.trials=2", "recipe.epochs=1"),
             "digits-inherited": ("search.trials=2", "supernet.epochs=1", "audit=null")}  # fmt: skip
    for study, fewer in small.items():
        given = fewer if rows.rehearsal else ()
        rows.find(study, _searched, "--local", study, "resources.gpus=1", *given)
    rows.find("quickstart on Ray", _searched, "quickstart", "resources.gpus=1",
              *(small["quickstart"] if rows.rehearsal else ()))  # fmt: skip


def _needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise Skip(f"{module} is not installed")


def _searched(*words: str) -> dict[str, Any]:
    """Runs a study (options, its name, then what is set) in a folder of its own."""
    options = [word for word in words if word.startswith("--")]
    study, *sets = [word for word in words if not word.startswith("--")]
    if "--local" not in options:
        _needs("ray")
    with tempfile.TemporaryDirectory() as folder:
        code, text, seconds = command(*CLI, "run", study, *options, "--runs", folder, "--set", *sets)
        states = [event["state"] for event in _events(Path(folder) / study) if event["event"] == "terminal"]
    if code or "failed" in states:
        raise RuntimeError(f"exit code {code}, {states.count('failed')} failed: {text.strip().splitlines()[-1]}")
    return {"trials": len(states), "seconds": seconds}


def _events(run: Path) -> list[dict[str, Any]]:
    path = run / "trials.jsonl"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def resume(rows: Rows) -> None:
    """A search that is killed and run again ends with each trial done once."""
    _needs("pydantic")
    rows.find("killed and resumed", _killed_and_resumed, 3 if rows.rehearsal else 8)


def _killed_and_resumed(trials: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        words = [*CLI, "run", "quickstart", "--local", "--runs", folder, "--set", "resources.gpus=1",
                 f"search.trials={trials}", "recipe.epochs=2"]  # fmt: skip
        run = Path(folder) / "quickstart"
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              start_new_session=True) as first:  # fmt: skip
            while first.poll() is None and not _ended(run):
                time.sleep(0.05)
            if first.poll() is None:
                os.killpg(first.pid, signal.SIGKILL)
        before = _ended(run)
        code, text, _ = command(*words)
        after = _ended(run)
    if code or sorted(set(after)) != list(range(trials)) or len(after) != trials or not before:
        raise RuntimeError(f"exit code {code}; ended before {before}, after {after}: {text.strip()[-200:]}")
    return {"ended_before_the_kill": len(before), "ended": len(after)}


def _ended(run: Path) -> list[int]:
    return [event["number"] for event in _events(run) if event["event"] == "terminal" and event["state"] == "done"]


# --- how fast is it --------------------------------------------------------------------------------------------------


def speed(rows: Rows) -> None:
    """Images a second of inference and training, ours and timm's in turn, in bfloat16."""
    sizes: Mapping[str, Arch] = {name: named_arch(name) for name in ("coatnet-0", "coatnet-1", "coatnet-2")}
    if rows.rehearsal:
        sizes = {"small": _small()}
    for name, arch in sizes.items():
        for compiled in (False, True):
            for kind in ("train_throughput", "throughput"):
                for turn in range(1 if rows.rehearsal else SPEED_TURNS):
                    for side, model in _sides(name, arch):
                        what = f"{name} {kind} {'compiled' if compiled else 'eager'} {side} {turn + 1}"
                        conditions = Conditions(device="cuda", precision="bfloat16", compile=compiled,
                                                batch_size=4 if rows.rehearsal else 256,
                                                fold=side == "ours" and kind == "throughput")  # fmt: skip
                        rows.find(what, _measured, kind, model, arch, conditions)


def _sides(name: str, arch: Arch) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    yield "ours", partial(seeded_build, arch, 0)
    if name.startswith("coatnet-"):
        yield "timm", partial(timm.create_model, f"coatnet_{name[-1]}_224")


def _measured(kind: str, make: Callable[[], nn.Module], arch: Arch, conditions: Conditions) -> dict[str, Any]:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    found = load_measurement(kind).measure(make().to("cuda"), arch, conditions)
    return {**found.metrics, "batch_size": found.conditions.batch_size, "repeats": found.repeats,
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30}  # fmt: skip


def micro_batch(rows: Rows) -> None:
    """What training takes an image, and a batch that does not fit at once."""
    arch = _small() if rows.rehearsal else named_arch("coatnet-0")
    for size in (4, 8) if rows.rehearsal else (32, 64, 128):
        conditions = Conditions(device="cuda", precision="bfloat16", batch_size=size)
        rows.find(f"memory of training at {size} images", _measured, "train_throughput",
                  partial(seeded_build, arch, 0), arch, conditions)  # fmt: skip

    def automatic() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            photos = _photos(Path(folder) / "photos", 64 if rows.rehearsal else 4096)
            side, network = ("64", "C-C-T-T") if rows.rehearsal else ("224", "coatnet-0")
            code, text, seconds = command(
                *CLI, "train", network, "--recipe", "small-images-full", "--data", str(photos), "--image-size", side,
                "--device", "cuda", "--epochs", "1", "--out", f"{folder}/out", "--set", "micro_batch=auto",
                f"batch_size={16 if rows.rehearsal else 2048}", "warmup=0")  # fmt: skip
            last = next(iter(text.strip().splitlines()[-1:]), "")
            if code == 2 and "micro_batch" in last:
                raise Skip(f"this version has no micro_batch auto: {last[-160:]}")
            if code:
                raise RuntimeError(last)
            return {"seconds": seconds}

    rows.find("micro_batch auto", automatic)


def _photos(folder: Path, count: int) -> Path:
    """JPEG files of two classes, smooth noise of 500 x 375 pixels, some of them held out as ``val``."""
    random = np.random.default_rng(0)
    for number in range(count):
        part = folder / "train" / f"class{number % 2}"
        part.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(part / f"{number}.jpg", quality=90)
    return folder


def loader(rows: Rows) -> None:
    """Images a second that arrive on the GPU from JPEG files, with no, half and all cores as workers."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        photos = _photos(Path(folder) / "photos", 64 if rows.rehearsal else 4096)
        for workers in sorted({0, 1} if rows.rehearsal else {0, cores // 2, cores}):
            rows.find(f"{workers} workers", _loaded, photos, workers, rows)


def _loaded(photos: Path, workers: int, rows: Rows) -> dict[str, Any]:
    _needs("pydantic")
    from coatnet_search.data import memory  # noqa: PLC0415
    from coatnet_search.data.load import load_data  # noqa: PLC0415
    from coatnet_search.data.spec import DataSpec  # noqa: PLC0415
    from coatnet_search.training.recipe import make_recipe  # noqa: PLC0415

    memory.LIMIT_BYTES = 0  # as a data set that does not fit memory
    data = load_data(DataSpec(name="image_folder", path=str(photos), workers=workers), image_size=224)
    size = 16 if rows.rehearsal else 256
    recipe = make_recipe({"name": "paper-imagenet", "batch_size": size, "micro_batch": 0})
    begin, seen = 0.0, 0
    for images, _ in data.train_batches(batch_size=size, seed=0, epoch=1, recipe=recipe, device=torch.device("cuda"),
                                        regime=data.regime(), image_size=224):  # fmt: skip
        torch.cuda.synchronize()
        seen += len(images) if begin else 0  # the first batch waits for the workers to start
        begin = begin or time.perf_counter()
    return {"images_per_s": seen / (time.perf_counter() - begin), "workers": workers}


def shared(rows: Rows) -> None:
    """Four trials at a time on one GPU beside one at a time: seconds of the same search."""
    _needs("pydantic")
    _needs("ray")
    fewer = ("search.trials=4", "recipe.epochs=1") if rows.rehearsal else ("search.trials=16",)
    for share in ("1", "0.25"):
        rows.find(f"{share} GPU a trial", _searched, "quickstart", f"resources.gpus={share}",
                  "resources.cpus=1", *fewer)  # fmt: skip


def graphs(rows: Rows) -> None:
    """A small network, bound by launches: training and latency, eager, compiled, and as CUDA graphs."""
    for kind in ("latency", "train_throughput"):
        for mode in (False, True, "graphs"):
            conditions = Conditions(device="cuda", precision="bfloat16", compile=mode, batch_size=4 if rows.rehearsal
                                    else 128)  # fmt: skip
            label = {False: "off", True: "default"}.get(mode, str(mode))
            rows.find(f"{kind} compile {label}", _measured, kind, partial(seeded_build, _small(), 0), _small(),
                      conditions)  # fmt: skip


def bench(rows: Rows) -> None:
    """Rows of coatnet-bench in the time that is left; its own record resumes."""
    if rows.parquet is None:
        raise Skip("give --parquet FOLDER with CIFAR-10")
    sets = [f"data.path={rows.parquet}", "resources.gpus=1"]
    code, text, seconds = command(*CLI, "run", "coatnet-bench", "--local", "--minutes", "60", "--set", *sets,
                                  seconds=3700)  # fmt: skip
    rows.find("coatnet-bench", lambda: {"exit_code": code, "seconds": seconds, "said": text.strip()[-200:]})


PARTS: dict[str, Callable[[Rows], None]] = {
    "doctor": doctor, "tests": tests, "logits": logits, "waits": waits, "searches": searches, "resume": resume,
    "speed": speed, "micro_batch": micro_batch, "loader": loader, "shared": shared, "graphs": graphs, "bench": bench,
}  # fmt: skip
MINUTES: dict[str, float] = {
    "doctor": 2, "tests": 4, "logits": 4, "waits": 2, "searches": 6, "resume": 3, "speed": 10, "micro_batch": 4,
    "loader": 4, "shared": 5, "graphs": 3, "bench": 60,
}  # fmt: skip
