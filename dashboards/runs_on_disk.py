"""What all pages share: the runs below one folder, their records read on as they grow, text that stays text."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pandas as pd
import streamlit as st

from coatnet_search.analysis.frame import complete, searched
from coatnet_search.core.document import read_source
from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.core.quantities import Sense
from coatnet_search.figures.search.figures import Theme
from coatnet_search.record.fold import record_path
from coatnet_search.record.follow import Follower
from coatnet_search.record.mirror.process import status_path
from coatnet_search.study.audit_of_record import AuditedRecord, audited_record, is_inherited

SEEN_S = 2.0  # how often a page looks whether the record has grown


@dataclass(frozen=True, kw_only=True)
class Run:
    """A study and its record at one moment. ``frame``: what may be compared, which of inherited scores is what their
    ``audit`` lets be compared; ``record``: all trials as they are; ``version``: equal while the record is."""

    name: str
    path: Path
    study: Mapping[str, Any]
    frame: pd.DataFrame
    record: pd.DataFrame
    version: tuple[int, int]
    audit: AuditedRecord | None = None

    @property
    def objectives(self) -> dict[str, Sense]:
        return dict(self.study["objectives"])

    @property
    def num_val(self) -> int | None:
        """Images of the validation split, where they are on record."""
        return (self.study.get("data_summary") or {}).get("num_val")

    @property
    def mlflow(self) -> str | None:
        """The search's run on its tracking server, or the server while the run is not known; None where the study names
        no address that a browser can open. Nothing of a name, password or query in it is passed on."""
        try:
            uri = urlsplit(str((self.study.get("tracking") or {}).get("uri") or ""))
            port = f":{uri.port}" if uri.port else ""
        except ValueError:
            return None
        host = uri.hostname or ""
        if uri.scheme not in ("http", "https") or not re.fullmatch(r"[a-z0-9.:-]+", host):
            return None
        place = f"[{host}]" if ":" in host else host
        return f"{uri.scheme}://{place}{port}{quote(uri.path.rstrip('/'))}/{_page_of(self.path)}"

    @property
    def limits(self) -> dict[str, float]:
        """The study's own limits of the choice."""
        return dict((self.study.get("choose") or {}).get("limit") or {})


class Site:
    """The runs that lie directly below ``root``. Nothing outside of it is opened, whatever an address asks for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """The folders that are runs, the one whose record changed last first."""
        found = [path.parent for path in self.root.glob("*/study.yaml") if self._inside(path.parent)]
        return [path.name for path in sorted(found, key=_changed, reverse=True)]

    def open(self, name: str) -> Run:
        """Raises InputError for what is no run below the root, and for a study or record that cannot be read."""
        path = self.root / name
        if Path(name).name != name or not self._inside(path):
            raise InputError(f"{name}: not a run in {self.root}; a page shows the folders that lie directly in it")
        if not (path / "study.yaml").is_file():
            close = difflib.get_close_matches(name, self.names(), n=1)
            raise InputError(f"no run {name} in {self.root}" + (f"; did you mean {close[0]}?" if close else ""))
        study = _study(path / "study.yaml", (path / "study.yaml").stat().st_mtime_ns)
        follower = _follower(str(path))
        record = complete(follower.frame(), study["objectives"])
        data = study.get("data_summary") or {}
        record.attrs |= {name: data[name] for name in ("num_val", "num_classes") if data.get(name)}
        audit = _audit(str(path), follower.version, record, study) if is_inherited(study) else None
        frame = searched(audit.frame) if audit else record
        return Run(name=name, path=path, study=study, frame=frame, record=record, version=follower.version,
                   audit=audit)  # fmt: skip

    def _inside(self, path: Path) -> bool:
        return path.resolve().parent == self.root.resolve()


def _page_of(run: Path) -> str:
    """What the mirror wrote of the run's place on the server; empty where it wrote nothing of that form."""
    try:
        page = json.loads(status_path(run).read_text(encoding="utf-8"))["page"]
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    return page if re.fullmatch(r"#/experiments/\w+/runs/\w+", str(page), re.ASCII) else ""


def _changed(path: Path) -> float:
    record = record_path(path)
    return record.stat().st_mtime if record.is_file() else 0.0


@lru_cache(maxsize=256)
def _study(file: Path, _changed_ns: int) -> dict[str, Any]:
    """The resolved study; read again when the file changes."""
    try:
        value = read_source(file).value
    except SetupError as error:
        raise InputError(str(error)) from None
    if not isinstance(value.get("objectives"), dict) or not value["objectives"]:
        raise InputError(f"{file}: not a resolved study: it has no objectives")
    return value


@lru_cache(maxsize=256)
def _follower(path: str) -> Follower:
    """One a run for all visitors: each part of a record is read once."""
    return Follower(path)


@st.cache_data(max_entries=64, show_spinner=False)
def _audit(
    path: str, version: tuple[int, int], _record: pd.DataFrame, _study: Mapping[str, Any]
) -> AuditedRecord | None:
    """Asked once of each version of a record: the first two arguments tell records apart, and are used for nothing
    else."""
    return audited_record(_record, _study)


def words(text: object) -> str:
    """Any text as Markdown that shows it as it is: no link, formula, colour or HTML begins in it."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(str(text).split()))


def theme() -> Theme:
    """What the visitor's browser shows."""
    kind = st.context.theme.type
    return "dark" if kind == "dark" else "light"


def draw(figure: Any, key: str, **options: Any) -> Any:
    """A figure in its own look; zoom and hidden entries stay as they are when its data grows."""
    clear = "rgba(0,0,0,0)"  # the page's own ground
    figure.update_layout(uirevision=key, paper_bgcolor=clear, plot_bgcolor=clear)
    return st.plotly_chart(figure, key=key, theme=None, config={"displaylogo": False},
                           alt=figure.layout.title.text or key, **options)  # fmt: skip


@st.fragment(run_every=SEEN_S)
def watch(site: Site, run: Run) -> None:
    """Runs the page again once the record has grown; what is picked on it stays picked."""
    follower = _follower(str(run.path))
    follower.frame()
    if follower.version != run.version:
        st.rerun(scope="app")
