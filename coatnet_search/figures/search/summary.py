"""What a study found, as plain values: the page, the Markdown text and ``report --json`` all show these numbers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coatnet_search.analysis.choose import Choice, choose
from coatnet_search.analysis.failures_by_layout import failing_layouts
from coatnet_search.analysis.frame import VALUES, accuracies, complete, numbers, searched
from coatnet_search.analysis.front import (
    SEPARATE_FRONTS,
    comparable,
    join_words,
    layouts_table,
    pareto_front,
    ranked,
    separability,
)
from coatnet_search.analysis.intervals import difference_margin, wilson
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import Sense, quality, quantity, show, show_difference
from coatnet_search.figures.audit.summary import AuditSection, audit_section
from coatnet_search.figures.sections import Sections
from coatnet_search.figures.supernet.summary import supernet_summary

SHOWN = ("val_top1", "macs", "params", "throughput_images_per_s")


def summarize(
    frame: pd.DataFrame,
    study: Mapping[str, Any],
    choices: Sequence[Choice] = (),
    num_val: int | None = None,
    note: str | None = None,
    *,
    audit: AuditSection | None = None,
    sections: Sections | None = None,
) -> dict[str, Any]:
    """Everything that a report says, ready for JSON (no NaN; a missing number is None).

    ``note`` is what the data set says of itself (``Data.note``); ``num_val`` the number of validation images. Keys:
    study, question, objectives, failing and answer (sentences, in this order), notices, supernet, audit, budget,
    columns, front, layouts, chosen, cost, failures, trials. Works for a record without any trial. Trainings for an
    audit count as cost and failures alone; ``audit``: what ``audit_section`` found of a study with inherited scores
    (asked where it is not given).
    """
    objectives: dict[str, Sense] = dict(study["objectives"])
    parts = sections or Sections()
    audit = audit or audit_section(frame, study)
    every = complete(audit.audited_record.frame if audit else frame, objectives)
    frame = searched(every)
    front = pareto_front(frame, objectives)
    columns = [name for name in dict.fromkeys((*objectives, *SHOWN)) if np.isfinite(numbers(frame, name)).any()]
    columns = columns or list(objectives)
    on_front = set(front["number"])
    shared = parts.make("the supernet", lambda: supernet_summary(every, study), lambda _: None)
    return {
        "study": frame.attrs.get("study"),
        "question": str(study.get("question", "")),
        "objectives": objectives,
        "failing": parts.make("which layouts fail", lambda: failing_layouts(frame), lambda _: []),
        "answer": parts.make("the answer", lambda: answer(frame, objectives, num_val), lambda _: []),
        "notices": [
            *_audited(audit),
            *parts.make("notes on the data", lambda: notices(frame, objectives, num_val, note), lambda _: []),
            *(shared["sentences"] if shared else []),
        ],
        "supernet": shared,
        "audit": audit.values if audit else None,
        "num_val": num_val,
        "budget": front.attrs["budget"],
        "columns": columns,
        "front": _rows(front, columns),
        "layouts": parts.make("the layouts", lambda: records(layouts_table(frame, objectives)), lambda _: []),
        "chosen": _chosen(choices, columns),
        "not_chosen": None if choices else _why_none(frame, study, objectives, audit),
        "cost": cost(every, study),
        "failures": failures(every),
        "trials": [row | {"front": row["number"] in on_front} for row in _rows(frame, columns)],
    }


def answer(frame: pd.DataFrame, objectives: Mapping[str, Sense], num_val: int | None) -> list[str]:
    """Two sentences: the best trial with its uncertainty, and how it stands to the best of the other layouts; where an
    audit does not let layouts be compared, the best of each."""
    if frame.attrs.get(SEPARATE_FRONTS):
        return _apart(frame, objectives)
    rows = comparable(frame, objectives)
    if rows.empty:
        return ["No trial has finished with its objectives known, so there is no answer yet.", _states(frame)]
    main = quality(objectives)
    ordered = ranked(rows, {main: objectives[main], **objectives})
    best = ordered.iloc[0]
    costs = [f"{show(name, best[name])} {quantity(name).title}" for name in dict.fromkeys((*objectives, "macs"))
             if name != main and math.isfinite(_number(best[name]))]  # fmt: skip
    about = ", ".join([f"trial {best['number']}", *costs])
    first = (
        f"Of {len(rows):,} comparable trials, {best['layout']} has the best {quantity(main).title}, "
        f"{show(main, best[main])} ({about}{_interval(ordered[:1], num_val)})."
    )
    others = ordered[ordered["layout"] != best["layout"]]
    if others.empty:
        return [first, f"No other layout than {best['layout']} has a comparable trial to set against it."]
    return [first, _runner_up(best, others.iloc[0], main, num_val)]


def _apart(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> list[str]:
    """The best of each layout, where an audit does not let them be compared."""
    main, parts = quality(objectives), []
    rows = comparable(frame, objectives)
    for name, own in rows.groupby(rows["layout"].astype(str)):
        best = ranked(own, {main: objectives[main], **objectives}).iloc[0]
        parts.append(f"{name} {show(main, best[main])} (trial {best['number']})")
    return ["Layouts cannot be compared by their inherited scores.", f"The best {quantity(main).title} within each: "
            f"{join_words(parts)}."]  # fmt: skip


def _audited(audit: AuditSection | None) -> list[str]:
    """What the audit says of the scores, before anything that follows from them."""
    if audit is None:
        return []
    says = audit.values["says"]
    return [f"{says[:1].upper()}{says[1:]}.", *audit.values["notes"]]


def _interval(best: pd.DataFrame, num_val: int | None) -> str:
    accuracy = accuracies(best)
    if not num_val or not np.isfinite(accuracy[0]):
        return ""
    low, high = (float(bound[0]) for bound in wilson(accuracy, num_val))
    return (f"; accuracy {show('val_top1', accuracy[0])}, 95 % interval {100 * low:.1f} to {100 * high:.1f} % on "
            f"{num_val:,} validation images")  # fmt: skip


def _runner_up(best: pd.Series, second: pd.Series, main: str, num_val: int | None) -> str:
    pair = pd.DataFrame([best, second])
    gap = show_difference(main, float(second[main]) - float(best[main]))
    text = f"The best of the other layouts, {second['layout']} (trial {second['number']}), is {gap} behind"
    accuracy = accuracies(pair)
    if not num_val or not np.isfinite(accuracy).all():
        return f"{text}; how much of that is noise is not known without repeated seeds."
    margin = difference_margin(float(accuracy[0]), float(accuracy[1]), num_val)
    difference = float(accuracy[0] - accuracy[1])
    verdict = "more" if abs(difference) >= margin else "less"
    lead = "" if main in ("error", "val_top1") else f" ({100 * difference:+.1f} points of accuracy for the first)"
    return (f"{text}{lead}: {verdict} than the {show_difference('val_top1', margin)} of accuracy that the validation "
            "images can show at 95 %, before any noise between seeds.")  # fmt: skip


def notices(frame: pd.DataFrame, objectives: Mapping[str, Sense], num_val: int | None, note: str | None) -> list[str]:
    """What a reader must know before the numbers: separability, the data's own note, trials left out."""
    rows = comparable(frame, objectives)
    out = [separability(frame, objectives, num_val), note]
    if rows.attrs["other_budgets"]:
        used = ", ".join(f"{name} {value:g}" for name, value in rows.attrs["budget"].items() if value is not None)
        left = rows.attrs["other_budgets"]
        trials = "1 trial with less is" if left == 1 else f"{left:,} trials with less are"
        out.append(f"Only the fullest budget ({used}) is compared; {trials} not.")
    if rows.attrs["excluded"]:
        out.append(f"Finished trials that lack an objective are not compared: {rows.attrs['excluded']}.")
    return [text for text in out if text]


def cost(frame: pd.DataFrame, study: Mapping[str, Any]) -> dict[str, Any]:
    """What was planned and used: trials by state, seconds of trials summed, seconds from first to last, devices."""
    states = {str(name): int(count) for name, count in frame["state"].value_counts().items()}
    started = pd.to_datetime(frame["started_at"], utc=True, errors="coerce")
    ended = pd.to_datetime(frame["ended_at"], utc=True, errors="coerce")
    known = ended.notna().any() and started.notna().any() and not study.get("imported")  # those were read, not run
    elapsed = (ended.max() - started.min()).total_seconds() if known else None
    wall = numbers(frame, "wall_s")
    return {
        "planned": (study.get("search") or {}).get("trials"),
        "trials": len(frame),
        "states": dict(sorted(states.items())),
        "trials_s": float(np.nansum(wall)) if np.isfinite(wall).any() else None,
        "elapsed_s": elapsed,
        "devices": sorted({str(name) for name in frame["device"].dropna()}),
    }


def duration(value: float | None) -> str:
    """Seconds as ``48 s``, ``12 min``, ``3.4 h``."""
    if value is None:
        return "–"
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def failures(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Failed and refused trials by cause, most frequent first, with the message of the first one as an example."""
    rows = frame[frame["state"].isin(["failed", "refused"])]
    rows = rows.assign(kind=rows["failure_kind"].fillna(rows["state"]))
    out = [{"kind": str(kind), "count": len(group), "trial": int(group["number"].iloc[0]),
            "message": _text(group["failure_message"].iloc[0])}
           for kind, group in rows.groupby("kind", sort=True)]  # fmt: skip
    return sorted(out, key=lambda line: -line["count"])


def summary_markdown(
    frame: pd.DataFrame,
    study: Mapping[str, Any],
    choices: Sequence[Choice] = (),
    num_val: int | None = None,
    note: str | None = None,
    *,
    verdicts: Sequence[str] = (),
    audit: AuditSection | None = None,
    sections: Sections | None = None,
) -> str:
    """The study in a page of Markdown, for a pull request or a log; the numbers are those of ``summarize``.

    ``verdicts``: the sentences of a scaling study's answers.
    """
    parts = sections or Sections()
    data = summarize(frame, study, choices, num_val, note, audit=audit, sections=parts)
    data["notices"] = [*parts.left_out, *data["notices"]]
    lines = [f"## {_markdown(data['question'])}", ""]
    lines += [f"**{_markdown(text)}**\n" for text in data["failing"]]
    lines += [*(f"{_markdown(text)}" for text in data["answer"]), ""]
    lines += [f"> {_markdown(text)}\n" for text in data["notices"]]
    lines += ["### Scaling", "", *(f"- {_markdown(text)}" for text in verdicts), ""] if verdicts else []
    if data["audit"] and data["audit"]["sentences"]:
        lines += ["### Audit", "", *(f"- {_markdown(text)}" for text in data["audit"]["sentences"]), ""]
    header = ["trial", "layout", "architecture", *(quantity(name).title for name in data["columns"])]
    rows = [[str(row["number"]), str(row["layout"]), str(row["arch_id"]), *(show(c, row[c]) for c in data["columns"])]
            for row in data["front"]]  # fmt: skip
    lines += ["### Front", "", *_table(header, rows), "", "### Chosen", ""]
    lines += [f"{line['rank']}. **{_markdown(str(line['layout']))}** {line['arch_id']} (trial {line['number']}): "
              f"{_markdown(line['reason'])}" for line in data["chosen"]]  # fmt: skip
    lines += [] if data["chosen"] else [_markdown(data["not_chosen"])]
    states = ", ".join(f"{count} {state}" for state, count in data["cost"]["states"].items())
    lines += ["", f"{data['cost']['trials']:,} trials ({states or 'none'})."]
    lines += [f"- {line['count']:,} by {_markdown(line['kind'])}, the first: {_markdown(line['message'])}"
              for line in data["failures"]]  # fmt: skip
    return "\n".join(lines) + "\n"


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """The trials as CSV; text that a spreadsheet would take for a formula gets an apostrophe in front."""
    flat = frame.drop(columns=[name for name in VALUES if name in frame.columns])
    spreadsheet_safe(flat).to_csv(path, index=False)
    return path


def spreadsheet_safe(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before every text, in cells and headings, that a spreadsheet would compute."""
    words = table.select_dtypes(exclude="number")
    return table.assign(**{str(name): words[name].map(_cell) for name in words}).rename(columns=_cell)


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _chosen(choices: Sequence[Choice], columns: Sequence[str]) -> list[dict[str, Any]]:
    rows = _rows(pd.DataFrame([choice.row for choice in choices]), columns)
    return [{"rank": choice.rank, "front": choice.front, "reason": choice.reason, **row}
            for choice, row in zip(choices, rows, strict=True)]  # fmt: skip


def _why_none(
    frame: pd.DataFrame, study: Mapping[str, Any], objectives: Mapping[str, Sense], audit: AuditSection | None
) -> str:
    if audit and audit.refused:
        return f"Nothing is chosen: {audit.values['says']}. The command `choose --layout NAME` chooses within one."
    limits = (study.get("choose") or {}).get("limit") or {}
    try:
        choose(frame, objectives, limits, 1)
    except InputError as error:
        return f"Nothing is chosen: {error}."
    return "Nothing is chosen yet; the command `choose` does it."


def _states(frame: pd.DataFrame) -> str:
    counts = [f"{count} {state}" for state, count in frame["state"].value_counts().items()]
    return f"The record holds {join_words(counts) if counts else 'no trials'}."


def _rows(frame: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    """A row a trial, as values that JSON knows; what the frame has no column for is None."""
    names = ("number", "layout", "arch_id", "state", *columns, "epochs", "num_images", "seed", "wall_s", "failure_kind")
    return records(frame.reindex(columns=list(dict.fromkeys(names))))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as values that JSON knows."""
    return [_json_row(row) for row in table.to_dict("records")]


def _json_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Values that JSON knows: numpy's become Python's, a missing or infinite number is None, 3.0 is 3."""
    return {str(name): _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool)):
        return value
    number = _number(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else number


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _markdown(text: str) -> str:
    """Text that stays text: no HTML, no table cell or emphasis begins in it."""
    for mark in "\\`*_[]|#":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return ["No trial is on the front yet."]
    lines = [[_markdown(cell) for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return ["| " + " | ".join(line) + " |" for line in lines]
