"""``report RUN``: the page, the pictures, the table of trials; the front on the screen."""

import argparse
import sys
from typing import Any

from coatnet_search.choose import Choice, choose
from coatnet_search.commands.shared import metric_columns, run_record
from coatnet_search.errors import InputError
from coatnet_search.screen import Screen
from dashboards.insight_summary import insights
from dashboards.report import write_report
from dashboards.scaling_summary import Section, scaling_section
from dashboards.summary import summarize, summary_markdown


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    frame, study = run_record(given.run)
    data = study.get("data_summary") or {}
    num_val, note = data.get("num_val"), data.get("note")
    choices = _choices(frame, study)
    section = scaling_section(frame, study, num_val, up_to=given.up_to)
    taught = insights(frame, study, given.run)
    page = write_report(given.run, frame, study, choices, num_val, note=note, overlay=given.published, section=section,
                        found=taught)  # fmt: skip
    found = summarize(frame, study, choices, num_val, note) | ({"scaling": section.values} if section else {})
    found["search"] = taught.values
    pictures = sorted((given.run / "figures").glob("*.png"))
    paths = {"report": page, "trials": given.run / "trials.csv", "figures": pictures}
    screen.result({**found, "paths": paths})
    if given.markdown and not given.json:
        sys.stdout.write(summary_markdown(frame, study, choices, num_val, note, verdicts=_verdicts(section)))
        return 0
    for text in (*_verdicts(section), *found["answer"], *found["notices"], *taught.values["sentences"]):
        screen.say(text)
    screen.table({"number": "trial", "layout": "layout", "arch_id": "architecture", **metric_columns(found["columns"])},
                 found["front"])  # fmt: skip
    lines = [{"what": line["what"], "planned": line["shown"][0], "used": line["shown"][1]}
             for line in taught.values["spending"]]  # fmt: skip
    screen.table({"what": "", "planned": "planned", "used": "used"}, lines)
    screen.say(f"page: {page}")
    screen.say(f"trials: {paths['trials']}")
    screen.say(f"pictures: {' '.join(str(picture) for picture in pictures)}")
    screen.next(["choose", given.run], "writes the chosen architectures as files")
    return 0


def _verdicts(section: Section | None) -> list[str]:
    """What a scaling study answers, or why it has no answer yet; nothing of other studies."""
    if section is None:
        return []
    refused = section.values["refused"]
    return [f"Scaling: no fit yet: {refused}."] if refused else list(section.values["verdicts"])


def _choices(frame: Any, study: dict[str, Any]) -> list[Choice]:
    """What the study's rule chooses; nothing where no trial allows it yet (the page then says why)."""
    rule = study.get("choose") or {}
    try:
        return choose(frame, study["objectives"], rule.get("limit") or {}, rule.get("top", 3))
    except InputError:
        return []
