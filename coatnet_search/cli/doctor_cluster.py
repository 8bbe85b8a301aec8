"""What is wrong with the nodes of a Ray cluster: versions, GPUs, clocks, shared storage."""

import importlib
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coatnet_search.cli.finding import Finding, State
from coatnet_search.core.errors import SetupError

SKEW_S = 2.0  # between clocks


def cluster_findings(address: str, runs: Path) -> tuple[list[Finding], Mapping[str, float]]:
    """What is wrong with the nodes, and how many CPUs and GPUs they have together (nothing where none answers)."""
    cluster, nodes = (importlib.import_module(f"coatnet_search.search.ray.{name}") for name in ("tune", "nodes"))
    try:
        with cluster.joined(address):
            before = time.time()
            told = nodes.on_every_node(nodes.facts)
            waited = time.time() - before
            own = nodes.facts()
            problems = nodes.storage_problems(runs / "doctor")
            have = nodes.in_all()
    except SetupError as error:
        mend = "start it, or give its --address"
        return [Finding(check="cluster", state="problem", found=str(error), mend=mend)], {}
    finally:
        shutil.rmtree(runs / "doctor", ignore_errors=True)
    findings = [*versions(own, told), *gpus(told), clocks(before, waited, told), shared(runs, len(told), problems)]
    return findings, have


def versions(own: Mapping[str, Any], told: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """What is installed on the nodes against what is installed here."""
    hosts = ", ".join(str(node["host"]) for node in told)
    yield Finding(check="cluster", state="fine", found=f"{len(told)} nodes: {hosts}")
    for name in ("python", "ray", "torch", "timm", "coatnet-search"):
        others = sorted({f"{node[name]} on {node['host']}" for node in told if node[name] != own[name]})
        if others:
            state: State = "warning" if name in ("torch", "timm") else "problem"
            yield Finding(check=f"{name} of nodes", state=state, found=f"{own[name]} here, {'; '.join(others[:3])}",
                          mend="give all nodes the same environment or image")  # fmt: skip


def gpus(told: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """What GPUs the nodes have, whether all are of one type, and whether their torch was built for them."""
    counts = Counter("no GPU" if not node["gpus"] else _words(node["gpus"]) for node in told)
    found = "; ".join(f"{count} node{'s' if count > 1 else ''} with {what}" for what, count in counts.items())
    types = {gpu["name"] for node in told for gpu in node["gpus"]}
    if len(types) > 1:
        yield Finding(check="gpus of nodes", state="warning", found=found, mend="write resources.accelerator, so that "
                      "all trials are trained and measured on GPUs of one type")  # fmt: skip
    else:
        yield Finding(check="gpus of nodes", state="fine", found=found)
    for node in told:
        foreign = sorted({gpu["name"] for gpu in node["gpus"] if not runs_on(node["built_for"], gpu["capability"])})
        if foreign:
            built = " ".join(node["built_for"]) or "CPUs alone"
            found = f"{', '.join(foreign)} on {node['host']}, whose torch is built for {built}"
            yield Finding(check="torch for gpus", state="problem", found=found,
                          mend="install a torch there that is built for it")  # fmt: skip


def _words(found: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter((gpu["name"], gpu["memory"], gpu["driver"]) for gpu in found)
    return ", ".join(f"{count} x {name} ({memory}, driver {driver})"
                     for (name, memory, driver), count in counts.items())  # fmt: skip


def runs_on(built_for: Sequence[str], capability: str) -> bool:
    """Whether a torch built for these architectures (sm_90, compute_90) runs on a card of a compute capability (9.0):
    machine code on the same major version from its minor one on, intermediate code on all later cards."""
    major, _, minor = capability.partition(".")
    card = (int(major), int(minor or 0))
    for name in built_for:
        kind, _, digits = name.partition("_")
        number = "".join(char for char in digits if char.isdigit())
        one = (int(number[:-1]), int(number[-1]))
        if (kind == "compute" and one <= card) or (kind == "sm" and one[0] == card[0] and one[1] <= card[1]):
            return True
    return False


def clocks(before: float, waited: float, told: Sequence[Mapping[str, Any]]) -> Finding:
    """Each node's clock was read at some moment between ``before`` and ``waited`` seconds later."""
    skews = {str(node["host"]): max(before - node["clock"], node["clock"] - before - waited, 0.0) for node in told}
    host = max(skews, key=lambda name: skews[name])
    if skews[host] <= SKEW_S:
        return Finding(check="clocks", state="fine", found=f"within {max(skews[host], 0.1):.1f} s")
    return Finding(check="clocks", state="warning", found=f"{host} is {skews[host]:.0f} s off",
                   mend="set it by NTP (chronyd): times in records, and logins to storage, depend on it")  # fmt: skip


def shared(runs: Path, count: int, problems: Sequence[str]) -> Finding:
    if not problems:
        return Finding(check="storage", state="fine", found=f"{count} nodes see {runs}")
    return Finding(check="storage", state="problem", found="; ".join(problems[:3]),
                   mend="give run --runs on storage that all nodes mount at the same place")  # fmt: skip
