"""Architecture: networks drawn to scale beside each other, with their costs, times of stages and YAML."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st
import yaml

from coatnet_search.analysis.frame import complete, numbers
from coatnet_search.analysis.front import network_front
from coatnet_search.architecture.arch import Arch
from coatnet_search.architecture.cost import cost
from coatnet_search.architecture.family import known_names, named_arch
from coatnet_search.core.errors import InputError, SetupError, unknown
from coatnet_search.core.quantities import axis_title, heading, quantity, show
from coatnet_search.figures.architecture.figures import beside, drawing, parts
from coatnet_search.figures.search.marks import PEER, axes
from coatnet_search.figures.search.summary import spreadsheet_safe
from coatnet_search.study.profiles import timed_stages
from runs_on_disk import Run, Site, draw, theme, words

MOST = 4
SHOWN = ("val_top1", "val_loss", "macs", "params", "throughput_images_per_s", "latency_ms", "peak_memory_mib")


@dataclass(frozen=True, kw_only=True)
class Network:
    """An architecture with the name that stands above it, and what is on record of it."""

    title: str
    arch: Arch
    row: Mapping[str, Any]


def main(site: Site, run: Run) -> None:
    st.title("Architecture")
    front = network_front(run.frame, run.objectives)
    own = [number for number, arch in zip(front["number"], front["arch"], strict=True) if isinstance(arch, Mapping)]
    asked = st.text_input(
        f"up to {MOST} networks, with commas between: trials of this study by number or architecture, or names such as "
        "coatnet-0 and C-C-T-T",
        value=", ".join(str(number) for number in own[:2]) or "C-C-T-T", key="networks",
        bind="query-params", max_chars=200,
    )  # fmt: skip
    if not own and not st.query_params.get("networks"):
        st.info("No trial of this study has an architecture to draw yet; this is one of the paper's kind.")
    networks = []
    for name in dict.fromkeys(part.strip() for part in asked.split(",") if part.strip()):
        try:
            networks.append(_find(run, name))
        except InputError as error:
            st.warning(words(error))
    if len(networks) > MOST:
        st.info(f"The first {MOST} of {len(networks)} are shown.")
    if networks:
        show_networks(run, networks[:MOST])
    _beside(run, networks[:MOST])
    peers = _peers(run.frame)
    if len(peers):
        st.subheader("Networks of timm in this study")
        st.dataframe(spreadsheet_safe(peers), hide_index=True, alt="networks of timm, with what was measured of them")


def _beside(run: Run, networks: list[Network]) -> None:
    """The networks among the study's trials and its networks of timm; nothing while no trial can be drawn."""
    costs = axes(run.frame, run.objectives)
    if not costs:
        return
    x = st.selectbox("against", costs, format_func=axis_title, key="against", bind="query-params")
    shown = {int(network.row["number"]): network.title for network in networks if network.row}
    draw(beside(run.frame, run.objectives, str(x), shown, theme=theme()), f"beside-{x}")


def _find(run: Run, name: str) -> Network:
    """A trial by number or arch id, else a published name at the study's image size. Raises InputError."""
    frame = run.record
    by_number = frame[frame["number"].astype(str) == name]
    own = by_number if len(by_number) else frame[frame["arch_id"] == name]
    if len(own):
        row = own.iloc[0]
        title = f"{row['layout']} (trial {row['number']})"
        if not isinstance(row["arch"], Mapping):
            raise InputError(f"{title} has no architecture on record: it is a network of another library or was "
                             "imported")  # fmt: skip
        return Network(
            title=title,
            arch=_legal(Arch.from_dict(row["arch"]), title),
            row={str(key): value for key, value in row.items()},
        )
    if name.isdigit() or not name.replace("-", "").replace("x", "").isalnum():
        raise InputError(unknown("trial, architecture or name", name, known_names()))
    for ends in (_ends(frame), {}):  # for the study's images, else at the published size
        arch = named_arch(name, **ends)
        if not arch.problems():
            return Network(title=f"{name} at {arch.image_size} pixels", arch=arch, row={})
    raise InputError(f"{name}: {arch.problems()[0]}")


def _legal(arch: Arch, title: str) -> Arch:
    problems = arch.problems()
    if problems:
        raise InputError(f"{title} cannot be built: {problems[0]}")
    return arch


def _ends(frame: pd.DataFrame) -> dict[str, int]:
    """The input and output of the study's own networks."""
    known = [value for value in frame["arch"] if isinstance(value, Mapping)]
    arch = Arch.from_dict(known[0]) if known else None
    if arch is None:
        return {}
    return {"image_size": arch.image_size, "in_channels": arch.in_channels, "num_classes": arch.num_classes}


def picked(run: Run, trial: str | None) -> None:
    """The trial that was clicked on, below the figure; nothing where none was."""
    if trial is None:
        return
    try:
        network = _find(run, trial)
    except InputError as error:
        st.warning(words(error))
        return
    show_networks(run, [network])


def show_networks(run: Run, networks: list[Network]) -> None:
    """The drawing, what is on record of each, its stages and its YAML."""
    times = _times(networks)
    found = {network.title: parts(network.arch, cost(network.arch), times.get(network.arch.id)) for network in networks}
    draw(drawing(found, theme=theme()), "drawing")
    for place, network in zip(st.columns(len(networks)), networks, strict=True):
        with place:
            st.markdown(f"**{words(network.title)}**  \n{words(_facts(network))}")
            st.dataframe(_table(found[network.title]), hide_index=True, alt=f"the stages of {network.title}")
            text = yaml.safe_dump({"arch": network.arch.to_dict()}, sort_keys=False)
            with st.expander("YAML"):
                st.code(text, language="yaml")
            st.download_button("download YAML", text, f"{network.arch.id}.yaml", "text/yaml",
                               key=f"yaml-{network.title}", on_click="ignore")  # fmt: skip


def _times(networks: list[Network]) -> dict[str, dict[str, float]]:
    """Milliseconds of the parts of each architecture by its id, once a person has asked for them."""
    if not st.toggle("time of each stage, measured on this machine in some seconds", key="timed"):
        return {}
    times: dict[str, dict[str, float]] = {}
    for network in networks:
        try:
            times[network.arch.id], device = _timed(network.arch.id, network.arch)
        except (InputError, SetupError) as error:
            st.warning(words(f"{network.title}: {error}"))
            continue
        whole = sum(times[network.arch.id].values())
        st.caption(words(f"{network.title}: one image in {show('latency_ms', whole)}, on {device}."))
    return times


@st.cache_data(max_entries=256, show_spinner="timing the stages")
def _timed(arch_id: str, _arch: Arch) -> tuple[dict[str, float], str]:
    return timed_stages(_arch)


def _facts(network: Network) -> str:
    whole = cost(network.arch).as_metrics()
    known = [name for name in SHOWN if name in network.row and name not in whole]
    values = {**whole, **{name: network.row[name] for name in known}}
    failure = network.row.get("failure_message")
    parts = [
        f"{quantity(name).title} {show(name, value)}" for name, value in values.items() if show(name, value) != "–"
    ]
    return ", ".join([f"architecture {network.arch.id}", *parts, *([failure] if isinstance(failure, str) else [])])


def _table(stages: list[Any]) -> pd.DataFrame:
    return pd.DataFrame([
        {"stage": part.name, "type": part.kind, "depth": part.depth, "channels": part.width,
         "pixels": part.side, "multiply-adds": f"{show('macs', part.macs)} ({part.macs_share:.0%})",
         "parameters": f"{show('params', part.params)} ({part.params_share:.0%})",
         **({"time": f"{show('latency_ms', part.ms)} ({part.ms_share:.0%})"} if part.ms else {}),
         "options": part.options}
        for part in stages
    ])  # fmt: skip


def _peers(frame: pd.DataFrame) -> pd.DataFrame:
    rows = complete(frame)
    rows = rows[rows["layout"].astype(str).str.startswith(PEER)]
    known = [name for name in SHOWN if len(rows) and (numbers(rows, name) == numbers(rows, name)).any()]
    return pd.DataFrame({"network": rows["layout"], **{heading(name): [show(name, value) for value in rows[name]]
                                                       for name in known}})  # fmt: skip
