"""``match LAYOUT --macs N``: networks of a layout at a wanted cost and what they deviate; as YAML files on request."""

import argparse
from pathlib import Path
from typing import Any

from coatnet_search.architecture.build import seeded_build
from coatnet_search.architecture.cost import Count, cost
from coatnet_search.core.document import dump
from coatnet_search.core.errors import InputError
from coatnet_search.core.screen import Screen
from coatnet_search.space.family_grid import family_spaces
from coatnet_search.space.match import Match, match
from coatnet_search.space.space import Space, load_space
from coatnet_search.study.profiles import MEASURED, Subject, rows

COLUMNS = {"rank": "rank", "shape": "depth x width of stem and stages", "arch_id": "architecture",
           "macs": "multiply-adds", "off": "deviation", "params": "parameters", "params_off": "deviation"}  # fmt: skip


def main(given: argparse.Namespace) -> int:
    if bool(given.throughput) != bool(given.device):
        raise InputError("--throughput and --device go together: images/s, and where they are measured")
    screen = Screen(given.json, given.results)
    speeds: dict[str, float] = {}
    found = match(_spaces(given), given.layout, macs=given.macs, params=given.params, tolerance=given.tolerance,
                  params_tolerance=given.params_tolerance, instances=given.instances,
                  accept=_throughput(given, speeds) if given.device else None)  # fmt: skip
    table = [_row(rank, one, speeds) for rank, one in enumerate(found, 1)]
    if given.out:
        for one, row in zip(found, table, strict=True):
            row["path"] = _write(given.out, row, one)
    screen.result(table)
    screen.table(COLUMNS | ({MEASURED: "images/s"} if speeds else {}), [_shown(row) for row in table])
    about = "" if found[0].exact else "about "
    screen.say(f"{about}{found[0].solutions:,} networks of {given.layout} are within the tolerances")
    for row in table if given.out else ():
        screen.say(f"written: {row['path']}")
    return 0


def _spaces(given: argparse.Namespace) -> Space | list[Space]:
    if not given.space:
        return family_spaces(given.layout, image_size=given.image_size or 224, num_classes=given.num_classes or 1000)
    if given.image_size:
        raise InputError("--image-size: the space says the size of its images; leave one of both out")
    space = load_space(given.space)
    return space.with_data(space.file.in_channels, given.num_classes) if given.num_classes else space


def _throughput(given: argparse.Namespace, speeds: dict[str, float]) -> Any:
    """Whether a network's measured throughput is the wanted one; what was measured goes to ``speeds``."""

    def accept(one: Match) -> bool:
        counted = cost(one.arch)
        subject = Subject(name=one.shape, id=one.arch.id, arch=one.arch, make=lambda: seeded_build(one.arch, 0),
                          count=Count(counted.params, counted.macs, counted.activations))  # fmt: skip
        (row,) = rows([subject], given.device)
        speeds[one.arch.id] = row[MEASURED]
        return abs(speeds[one.arch.id] / given.throughput - 1) <= given.tolerance

    return accept


def _row(rank: int, one: Match, speeds: dict[str, float]) -> dict[str, Any]:
    return {
        "rank": rank,
        "layout": one.arch.layout,
        "arch_id": one.arch.id,
        "shape": one.shape,
        "candidate": one.candidate,
        "macs": one.macs,
        "params": one.params,
        "deviation": one.deviation,
        "params_deviation": one.params_deviation,
        **({MEASURED: speeds[one.arch.id]} if speeds else {}),
        "solutions": one.solutions,
        "exact": one.exact,
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "off": _percent(row["deviation"]), "params_off": _percent(row["params_deviation"])}


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:+.2f} %"


def _write(folder: Path, row: dict[str, Any], one: Match) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{row['rank']}-{row['layout']}-{row['arch_id']}.yaml"
    kept = {key: value for key, value in row.items() if value is not None and key not in ("path", "candidate")}
    path.write_text(dump({"arch": one.arch.to_dict(), **kept}), encoding="utf-8")
    return path
