"""One self-contained HTML page and the PNG pictures of a study; the page opens from disk without any network."""

import datetime
import importlib.metadata
import json
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import plotly.offline
from markupsafe import Markup

from coatnet_search.analysis.choose import Choice
from coatnet_search.analysis.frame import complete
from coatnet_search.analysis.front import with_num_val
from coatnet_search.core.quantities import heading, quantity, show
from coatnet_search.core.whole_file import write_text
from coatnet_search.figures.audit import figures as audit_figures
from coatnet_search.figures.audit.pictures import write_audit_pictures
from coatnet_search.figures.audit.summary import AuditSection, audit_section, span
from coatnet_search.figures.insights import figures as insight_figures
from coatnet_search.figures.insights.pictures import write_search_pictures
from coatnet_search.figures.insights.summary import Insights, insights
from coatnet_search.figures.scaling import figures as scaling_figures
from coatnet_search.figures.scaling.pictures import write_scaling_pictures
from coatnet_search.figures.scaling.summary import TABLES, Section, scaling_section
from coatnet_search.figures.search import figures
from coatnet_search.figures.search.pictures import write_pictures
from coatnet_search.figures.search.summary import duration, summarize, write_trials
from coatnet_search.figures.sections import Sections
from coatnet_search.figures.supernet import figures as supernet_figures

NUM_ROWS = 2000  # of the trial table in the page; all of them are in trials.csv


AUDIT, SCALING = "the audit of inherited scores, which are not compared by it", "the answers of the scaling study"


def nothing(_reason: str) -> None:
    """In place of a section that the page can do without."""


def no_figures(_reason: str) -> dict[str, Any]:
    return {}


def no_scaling(reason: str) -> Section | None:
    """In place of the answers of a scaling study."""
    return Section(values={"settings": [], "refused": reason})


def write_report(
    run: Path,
    frame: pd.DataFrame,
    study: Mapping[str, Any],
    choices: Sequence[Choice] = (),
    num_val: int | None = None,
    *,
    note: str | None = None,
    overlay: bool = False,
    section: Section | None = None,
    found: Insights | None = None,
    audit: AuditSection | None = None,
    sections: Sections | None = None,
) -> Path:
    """Write ``report.html``, ``trials.csv`` and ``figures/*.png`` into the run's folder; returns the page's path.

    ``study`` is the resolved study file; ``num_val`` the number of validation images (for intervals); ``note`` what the
    data set says of itself; ``overlay``: published networks in the figures of the front; ``section``: what
    ``scaling_section`` found, ``found``: what ``insights`` did, ``audit``: what ``audit_section`` did (each is asked
    where it is not given). A record without trials, or with failed ones only, gives a page that says so, and so does
    one of which a section cannot be made; ``sections``: what earlier ones left out.
    """
    objectives, parts = dict(study["objectives"]), sections or Sections()
    audit = audit or parts.make(AUDIT, lambda: audit_section(frame, study), nothing)
    frame = with_num_val(complete(audit.audited_record.frame if audit else frame, objectives), num_val)
    chosen = {int(choice.row["number"]): choice.rank for choice in choices}
    folder = run / "figures"
    parts.make("pictures of the front", lambda: write_pictures(
        frame, objectives, folder, num_val=num_val, chosen=chosen, overlay=overlay), nothing)  # fmt: skip
    write_trials(frame, run / "trials.csv")
    section = section or parts.make(SCALING, lambda: scaling_section(frame, study, num_val), no_scaling)
    if section and (scaling := section.scaling):
        asked, target = section.values["settings"], section.target
        parts.make("pictures of scaling", lambda: write_scaling_pictures(scaling, asked, target, folder), nothing)
    found = found or insights(frame, study, run, parts)
    if not study.get("equal_cost"):
        parts.make("pictures of the search", lambda: write_search_pictures(frame, objectives, found, folder), nothing)
    audited = audit.audited_record.found if audit else None
    parts.make("pictures of the audit", lambda: write_audit_pictures(audited, folder), nothing)
    page = html_page(run, frame, study, choices, num_val, note=note, overlay=overlay, section=section, found=found,
                     audit=audit, sections=parts)  # fmt: skip
    write_text(run / "report.html", page)
    return run / "report.html"


def html_page(
    run: Path,
    frame: pd.DataFrame,
    study: Mapping[str, Any],
    choices: Sequence[Choice] = (),
    num_val: int | None = None,
    *,
    note: str | None = None,
    overlay: bool = False,
    section: Section | None = None,
    found: Insights | None = None,
    audit: AuditSection | None = None,
    sections: Sections | None = None,
) -> str:
    """The page as text; every number in it is one of ``summarize``, raw in ``data-value``, readable in the cell."""
    parts = sections or Sections()
    audit = audit or parts.make(AUDIT, lambda: audit_section(frame, study), nothing)
    frame = with_num_val(audit.audited_record.frame if audit else frame, num_val)
    data = summarize(frame, study, choices, num_val, note, audit=audit, sections=parts)
    found = found or insights(frame, study, run, parts)
    data |= {
        "search": found.values,
        "scaling": section.values if section else None,
        "imported": bool(study.get("imported")),
    }
    chosen = {line["number"]: line["rank"] for line in data["chosen"]}
    objectives, audited = data["objectives"], audit.audited_record.found if audit else None
    drawn = parts.make("figures of the front", lambda: figures.all_figures(
        frame, objectives, num_val=num_val, chosen=chosen, overlay=overlay), no_figures)  # fmt: skip
    if not study.get("equal_cost"):
        drawn |= parts.make("figures of the search", lambda: insight_figures.all_figures(frame, objectives, found),
                            no_figures)  # fmt: skip
    drawn |= parts.make("figures of the supernet", lambda: supernet_figures.all_figures(data["supernet"]), no_figures)
    drawn |= parts.make("figures of the audit", lambda: audit_figures.all_figures(audited), no_figures)
    if section and (scaling := section.scaling):
        asked, target = section.values["settings"], section.target
        drawn |= parts.make("figures of scaling", lambda: scaling_figures.all_figures(scaling, asked, target),
                            no_figures)  # fmt: skip
    data["notices"] = [*parts.left_out, *data["notices"]]
    shown = sorted(data["trials"], key=lambda row: (not row["front"], row["number"]))[:NUM_ROWS]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["disturbed"] = lambda name, row: any(name.startswith(one) for one in row.get("disturbed") or ())
    environment.filters.update(
        quantity=partial(show, unit=False), title=_title, heading=heading, seconds=duration, span=span
    )
    return environment.get_template("report.html").render(
        data=data,
        tables=TABLES,
        shown=shown,
        figures=list(drawn),
        figure_json=_script_json({name: _drawing(figure) for name, figure in drawn.items()}),
        templates_json=_script_json({theme: figures.template(theme).to_plotly_json() for theme in ("light", "dark")}),
        plotly_js=Markup(plotly.offline.get_plotlyjs()),
        commands=commands(run, study, data),
        version=importlib.metadata.version("coatnet-search"),
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def commands(run: Path, study: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """The command lines that repeat the study, the choice and this page."""
    place = shlex.quote(str(run))
    rule = study.get("choose") or {}
    limits = "".join(f" --limit {name}={value:g}" for name, value in (rule.get("limit") or {}).items())
    return [
        _first_command(run, study),
        f"coatnet-search choose {place}{limits} --top {rule.get('top', max(len(data['chosen']), 1))}",
        *([f"coatnet-search scaling {place}"] if data.get("scaling") else []),
        f"coatnet-search report {place}",
    ]


def _first_command(run: Path, study: Mapping[str, Any]) -> str:
    """What made the record: a run, or an import of runs from elsewhere."""
    source = study.get("imported")
    if not source:
        return f"coatnet-search run {shlex.quote(str(run / 'study.yaml'))}"
    columns = ",".join(f"{name}={column}" for name, column in source["columns"].items())
    words = ["coatnet-search", "import", source["file"], *(["--columns", columns] if columns else []), "--out", run]
    num_val = (study.get("data_summary") or {}).get("num_val")
    return shlex.join([str(word) for word in (*words, *(["--num-val", num_val] if num_val else []))])


def _drawing(figure: Any) -> dict[str, Any]:
    """A figure's data and layout without its template, which the page sets by its own theme."""
    drawing = json.loads(figure.to_json())
    drawing["layout"].pop("template", None)
    return drawing


def _script_json(value: Any) -> Markup:
    """JSON that is safe inside a script element: no text in it can end the element or open a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, default=str)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)


def _title(name: str) -> str:
    return quantity(name).title
