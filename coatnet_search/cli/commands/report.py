"""``report RUN``: the page, the pictures, the table of trials; the front on the screen."""

import argparse
from typing import Any

from coatnet_search.analysis.choose import Choice, choose
from coatnet_search.cli.commands.records import run_record
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import heading
from coatnet_search.core.screen import Screen
from coatnet_search.figures.audit.summary import AuditSection, audit_section, span
from coatnet_search.figures.insights.summary import insights
from coatnet_search.figures.report import AUDIT, SCALING, no_scaling, nothing, write_report
from coatnet_search.figures.scaling.summary import Section, scaling_section
from coatnet_search.figures.search.summary import shown_columns, shown_network, summarize, summary_markdown
from coatnet_search.figures.sections import Sections
from coatnet_search.record.journal import uncollected


def main(given: argparse.Namespace) -> int:
    with uncollected():  # a process that ends with the report: a fifth of the time at 10,000 trials
        return _report(given)


def _report(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    frame, study = run_record(given.run)
    data = study.get("data_summary") or {}
    num_val, note = data.get("num_val"), data.get("note")
    parts = Sections(given.section_seconds)
    audit = parts.make(AUDIT, lambda: audit_section(frame, study, given.run), nothing)
    choices = parts.make("the choice", lambda: _choices(frame, study, audit), lambda _: list[Choice]())
    section = parts.make(SCALING, lambda: scaling_section(frame, study, num_val, up_to=given.up_to), no_scaling)
    taught = insights(audit.audited_record.frame if audit else frame, study, given.run, parts)
    page = write_report(given.run, frame, study, choices, num_val, note=note, overlay=given.published, section=section,
                        found=taught, audit=audit, sections=parts)  # fmt: skip
    found = summarize(frame, study, choices, num_val, note, audit=audit, sections=parts)
    found["notices"] = [*parts.left_out, *found["notices"]]
    found |= {"scaling": section.values} if section else {}
    found["search"] = taught.values
    pictures = sorted((given.run / "figures").glob("*.png"))
    paths = {"report": page, "trials": given.run / "trials.csv", "figures": pictures}
    screen.result({**found, "paths": paths})
    if given.markdown and not given.json:
        verdicts = _verdicts(section)
        text = summary_markdown(frame, study, choices, num_val, note, verdicts=verdicts, audit=audit, sections=parts)
        screen.say(text.rstrip("\n"))
        return 0
    said = [*(audit.values["sentences"] if audit else []), *taught.values["sentences"]]
    for text in (*found["failing"], *_verdicts(section), *found["answer"], *found["notices"], *said):
        screen.say(text)
    if found["front"]:
        screen.table({"number": "trial", "layout": "layout", "arch_id": "architecture",
                      **shown_columns(found["columns"], found["front"])},
                     [shown_network(row, found["columns"]) for row in found["front"]])  # fmt: skip
    if found["failures"]:
        screen.table({"kind": "cause", "count": "trials", "message": "the first says"}, found["failures"])
    lines = [{"what": line["what"], "planned": line["shown"][0], "used": line["shown"][1]}
             for line in taught.values["spending"]]  # fmt: skip
    screen.table({"what": "", "planned": "planned", "used": "used"}, lines)
    if audit and audit.values["groups"]:
        _say_audit(screen, audit)
    screen.say(f"page: {page}")
    screen.say(f"trials: {paths['trials']}")
    screen.say(f"pictures: {' '.join(str(picture) for picture in pictures)}")
    if section and section.scaling:
        screen.next(["scaling", given.run], "answers for other amounts of data")
    elif choices and not study.get("imported"):
        screen.next(["choose", given.run], "writes the chosen architectures as files")
    return 0


def _verdicts(section: Section | None) -> list[str]:
    """What a scaling study answers, or why it has no answer yet; nothing of other studies."""
    if section is None:
        return []
    refused = section.values["refused"]
    return [f"Scaling: no fit yet: {refused}."] if refused else list(section.values["verdicts"])


def _say_audit(screen: Screen, audit: AuditSection) -> None:
    metric = audit.values["metric"]
    groups = [{**row, "tau": span(row["tau"]), "over_macs": span(row["over_macs"], sign=True),
               "regret": span(row["regret"], metric)} for row in audit.values["groups"]]  # fmt: skip
    screen.table({"name": "audited networks", "networks": "number", "tau": "tau", "over_macs": "gain over macs",
                  "regret": "regret of the first"}, groups)  # fmt: skip
    screen.table({"layout": "layout", "networks": "number", "offset": f"inherited minus alone, {heading(metric)}"},
                 [{**row, "offset": span(row, metric, sign=True)} for row in audit.values["offsets"]])  # fmt: skip


def _choices(frame: Any, study: dict[str, Any], audit: AuditSection | None) -> list[Choice]:
    """What the study's rule chooses; nothing where no trial allows it yet, or an audit forbids it (the page then says
    why)."""
    rule = study.get("choose") or {}
    if audit and audit.refused:
        return []
    frame = audit.audited_record.frame if audit else frame
    try:
        return choose(frame, study["objectives"], rule.get("limit") or {}, rule.get("top", 3))
    except InputError:
        return []
