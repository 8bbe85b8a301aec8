"""What is wrong with this machine, and the mend. Imports nothing heavy by itself: what does not import is a finding."""

import importlib
import importlib.metadata
import os
import platform
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from coatnet_search.cli.doctor_cluster import cluster_findings
from coatnet_search.cli.finding import Finding, State
from coatnet_search.core.cores import usable_cores
from coatnet_search.core.errors import InputError, SetupError

PACKAGE = "coatnet-search"
HEAVY = ("torch", "torchvision", "timm", "ray", "mlflow", "optuna")  # imported, not only looked up
DISK_MIB = (1024, 5 * 1024)  # less free: a problem, a warning
SHARED_MIB = 1024  # of /dev/shm for Ray's object store; in a container it is often 64 MiB
SERVER_TIMEOUT_S = 3.0
STEP_TIMEOUT_S = 300.0
STEP = f"from {__name__} import training_step; training_step()"  # what a process of its own runs
PLAINER = {"ONEDNN_MAX_CPU_ISA": "AVX2"}  # oneDNN without its kernels for AVX-512, which have crashed before
MISMATCH = "torchvision::"  # in the error of a torchvision that was built for another torch


def examine(study: str | None = None, sets: Sequence[str] = (), runs: Path = Path("runs"),
            address: str | None = None) -> list[Finding]:  # fmt: skip
    """All findings; with ``study`` also what that needs, with ``address`` also those of a Ray cluster's nodes. Raises
    InputError for mistakes in the study."""
    findings = [_python(), *_packages()]
    broken = {finding.check for finding in findings if finding.state == "problem"}
    importable = not broken & {*HEAVY, "python"}
    findings += _gpus() if "torch" not in broken and address is None else []  # of a cluster its nodes' count
    findings += [_disk(runs), *_shared_memory(importable), *(_cache() if importable else [])]
    findings += [_training()] if importable else []
    findings += [_busy()] if shutil.which("nvidia-smi") else []
    have: Mapping[str, float] | None = None
    if address is not None and importable:
        of_nodes, have = cluster_findings(address, runs)
        findings += of_nodes
    if study is not None and importable:
        findings += _study(study, sets, have)
    elif study is not None:
        findings.append(Finding(check="study", state="warning", found="not looked at", mend="mend the above first"))
    return findings


def _python() -> Finding:
    wanted = importlib.metadata.metadata(PACKAGE)["Requires-Python"] or ""
    here = platform.python_version()
    if SpecifierSet(wanted).contains(here, prereleases=True):
        return Finding(check="python", state="fine", found=here)
    return Finding(check="python", state="problem", found=here, mend=f"make the environment with Python {wanted}")


# --- libraries -------------------------------------------------------------------------------------------------------


def _packages() -> Iterator[Finding]:
    """Each library against the version that this package was built for; the heavy ones are imported."""
    requirements = [Requirement(text) for text in importlib.metadata.requires(PACKAGE) or []]
    wanted = {need.name: need for need in requirements if need.marker is None or need.marker.evaluate()}
    broken = False
    for name in [*HEAVY, *(name for name in sorted(wanted) if name not in HEAVY)]:
        if name not in wanted:
            continue
        finding = _package(wanted[name], name in HEAVY, broken)
        broken |= name in ("torch", "torchvision") and finding.state == "problem"
        yield finding


def _package(need: Requirement, heavy: bool, broken: bool) -> Finding:
    mend = f"pip install '{need.name}{need.specifier}'"
    try:
        here = importlib.metadata.version(need.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(check=need.name, state="problem", found="not installed", mend=mend)
    if not need.specifier.contains(here, prereleases=True):
        return Finding(check=need.name, state="problem", found=f"{here}, expected {need.specifier}", mend=mend)
    if not heavy or (broken and need.name == "timm"):
        return Finding(check=need.name, state="fine", found=here)
    problem = import_problem(need.name)
    if problem is None:
        return Finding(check=need.name, state="fine", found=here)
    message, cure = problem
    return Finding(check=need.name, state="problem", found=f"{here} does not import: {message}", mend=cure or mend)


def import_problem(name: str) -> tuple[str, str] | None:
    """Why a module does not import, and the mend (empty: install it again); None where it does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    except Exception as error:  # a broken library raises whatever it likes
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if MISMATCH in text:
            torch_version = importlib.metadata.version("torch")
            build = torch_version.partition("+")[2] or "the same index"
            return text, (f"torchvision was built for another torch: install both anew from one place, for this torch "
                          f"({torch_version}) from {build}: pip install --force-reinstall torch torchvision "
                          "[--index-url https://download.pytorch.org/whl/cpu]")  # fmt: skip
        return text, ""
    return None


# --- the machine -----------------------------------------------------------------------------------------------------


def _gpus() -> list[Finding]:
    torch = importlib.import_module("torch")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if available:
        names = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
        found = ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in names)
        return [Finding(check="gpu", state="fine", found=f"{found}; CUDA {torch.version.cuda}")]
    driver = _driver()
    if driver is None:
        return [Finding(check="gpu", state="fine", found="none; trials run on the CPU")]
    if torch.version.cuda is None:
        mend = "install torch and torchvision with CUDA: pip install --force-reinstall torch torchvision"
        return [Finding(check="gpu", state="warning", found=f"{driver}, but this torch is built for CPUs", mend=mend)]
    why = str(told[0].message).splitlines()[0] if told else "torch does not see it"
    mend = f"update the driver to one for CUDA {torch.version.cuda}, or install a torch for an older CUDA"
    return [Finding(check="gpu", state="problem", found=f"{driver}; {why}", mend=mend)]


def _driver() -> str | None:
    """NVIDIA's devices and driver as nvidia-smi names them; None without."""
    lines = _smi("--query-gpu=name,driver_version")
    return "; ".join(f"{line.replace(', ', ', driver ')}" for line in lines) if lines else None


def _smi(query: str) -> list[str]:
    """The lines that nvidia-smi answers; none where it is not there or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run([program, query, "--format=csv,noheader"], capture_output=True, text=True, timeout=20,
                              check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _busy() -> Finding:
    """Who computes on the GPUs already: their memory is not free, and what is measured there is not ours alone."""
    rows = _smi("--query-compute-apps=pid,process_name,used_memory")
    if not rows:
        return Finding(check="busy gpus", state="fine", found="nobody else computes on them")
    found = "; ".join(f"pid {row.replace(', ', ' ', 1).replace(', ', ' with ')}" for row in rows[:5])
    return Finding(check="busy gpus", state="warning", found=found, mend="wait for them, or end them")


def _training() -> Finding:
    """Whether a step of training ends well: in a process of its own, which may crash without an end of this one."""
    reason = _step_problem({})
    if reason is None:
        return Finding(check="training", state="fine", found="a step of each block type ends well")
    mend = f"install torch anew, or another build of it; python -c '{STEP}' shows the whole error"
    if _step_problem(PLAINER) is None:
        words = " ".join(f"{name}={value}" for name, value in PLAINER.items())
        mend = f"export {words} (with it the step ends well, slower), or install another build of torch"
    return Finding(check="training", state="problem", found=f"a step of training ends by {reason}", mend=mend)


def _step_problem(settings: Mapping[str, str]) -> str | None:
    """How a step of training fails in an environment with these settings; None where it does not."""
    try:
        done = subprocess.run([sys.executable, "-c", STEP], env={**os.environ, **settings}, capture_output=True,
                              text=True, timeout=STEP_TIMEOUT_S, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"nothing within {STEP_TIMEOUT_S:g} s"
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["an error"])[-1]


def training_step() -> None:
    """A step of a small network of each block type, with strides on maps of 64 x 64, where trials would run."""
    torch = importlib.import_module("torch")
    arch, blocks, build = (
        importlib.import_module(f"coatnet_search.architecture.{name}") for name in ("arch", "blocks", "build")
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name, block in blocks.BLOCKS.items():
        options = {"head_size": 8} if "head_size" in block.options else {"expand": 2}
        stage = arch.Stage(block=name, depth=1, width=8, stride=2, **options)
        model = build.build(arch.Arch(image_size=64, num_classes=2, stem=arch.Stem(width=8, stride=1), stages=(stage,)))
        model.to(device, memory_format=torch.channels_last)
        images = torch.randn(32, 3, 64, 64, device=device).contiguous(memory_format=torch.channels_last)
        model(images).logsumexp(1).sum().backward()
        torch.optim.SGD(model.parameters(), 0.01).step()
        assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


# --- disk and memory --------------------------------------------------------------------------------------------------


def _disk(runs: Path) -> Finding:
    folder = runs.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**20
    state: State = "problem" if free < DISK_MIB[0] else "warning" if free < DISK_MIB[1] else "fine"
    if not os.access(folder, os.W_OK):
        return Finding(check="disk", state="problem", found=f"{folder} is not writable",
                       mend="run in a folder that you may write, or give run --runs")  # fmt: skip
    mend = "" if state == "fine" else "free some space, or give run --runs on another disk"
    return Finding(check="disk", state=state, found=f"{free / 1024:,.1f} GiB free for {runs}/", mend=mend)


def _shared_memory(importable: bool) -> list[Finding]:
    """Whether it holds Ray's objects and, for one training, the images that data workers have decoded ahead."""
    place = Path("/dev/shm")
    if not place.is_dir():
        return []
    size = shutil.disk_usage(place).total / 2**20
    waiting = importlib.import_module("coatnet_search.data.stream").BUDGET_BYTES / 2**20 if importable else 0
    if size >= SHARED_MIB + waiting:
        return [Finding(check="/dev/shm", state="fine", found=f"{size / 1024:,.1f} GiB")]
    mend = (f"start the container with --shm-size={(SHARED_MIB + waiting) / 1024:.0f}g: Ray keeps {SHARED_MIB:,} MiB "
            f"there, and the data workers of each training up to {waiting:,.0f} MiB")  # fmt: skip
    return [Finding(check="/dev/shm", state="warning", found=f"{size:,.0f} MiB", mend=mend)]


def _cache() -> list[Finding]:
    cache = importlib.import_module("coatnet_search.data.cache")
    try:
        return [Finding(check="cache", state="fine", found=str(cache.cache_dir()))]
    except SetupError as error:
        mend = f"set {cache.VARIABLE} to a folder that you may write"
        return [Finding(check="cache", state="problem", found=str(error), mend=mend)]


# --- a study ---------------------------------------------------------------------------------------------------------


def _study(name: str, sets: Sequence[str], have: Mapping[str, float] | None) -> Iterator[Finding]:
    study = importlib.import_module("coatnet_search.study.load").load_study(name, sets)
    yield Finding(check="study", state="fine", found=study.name)
    yield _data(study)
    yield from _resources(study) if have is None else _resources_of_cluster(study, have)
    yield from _server(study.file.tracking.uri)


def _data(study: Any) -> Finding:
    try:
        summary = study.with_data().summary
    except (InputError, SetupError) as error:
        return Finding(check="data", state="problem", found=str(error), mend="mend the data, or its place in the study")
    found = f"{summary.num_train + summary.num_val:,} images, {summary.num_classes} classes"
    return Finding(check="data", state="fine", found=found)


def _resources(study: Any) -> Iterator[Finding]:
    resources = study.file.resources
    gpus = importlib.import_module("torch").cuda.device_count()
    for name, each, have in (("cpus", resources.cpus, usable_cores()), ("gpus", resources.gpus, gpus)):
        asked = each * resources.workers
        if asked > have:
            yield Finding(check=name, state="problem", found=f"a trial asks for {asked:g}, this machine has {have}",
                          mend=f"--set resources.{name}={have // resources.workers}, or run with --address of a "
                               "larger cluster")  # fmt: skip
    if resources.gpus and gpus:
        for text in importlib.import_module("coatnet_search.study.plan").gpu_warnings(study):
            what, _, mend = text.rpartition("; ")
            yield Finding(check="gpu memory", state="problem", found=what, mend=mend)


def _resources_of_cluster(study: Any, have: Mapping[str, float]) -> Iterator[Finding]:
    """``have``: CPUs and GPUs of all nodes; nothing where none answered, which is a finding of its own."""
    resources = study.file.resources
    for name, each in (("CPU", resources.cpus), ("GPU", resources.gpus)):
        asked = each * resources.workers
        if have and asked > have.get(name, 0):
            found = f"a trial asks for {asked:g}, the cluster has {have.get(name, 0):g} in all"
            yield Finding(check=f"{name.lower()}s", state="problem", found=found,
                          mend=f"change resources.{name.lower()}s, or start with more nodes")  # fmt: skip


def _server(uri: str | None) -> list[Finding]:
    if uri is None or not uri.startswith(("http://", "https://")):
        return []
    # not /health, which answers whoever asks: what the mirror asks for needs the host and the login to be accepted
    ask = urllib.request.Request(f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1")
    try:
        with urllib.request.urlopen(ask, timeout=SERVER_TIMEOUT_S) as answer:
            return [Finding(check="mlflow server", state="fine", found=f"{uri} answers ({answer.status})")]
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            said = " ".join(error.read(200).decode(errors="replace").split())
            mend = ("start it with --allowed-hosts that name this host" if "host" in said.lower() else
                    "give MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN")  # fmt: skip
            found = f"{uri} answers {error.code}: {said}"
            return [Finding(check="mlflow server", state="warning", found=found, mend=mend)]
        return [Finding(check="mlflow server", state="fine", found=f"{uri} answers ({error.code})")]
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        mend = "start the server or change tracking.uri; a search runs without it, `mirror` sends the record later"
        return [Finding(check="mlflow server", state="problem", found=f"{uri}: {reason}", mend=mend)]
