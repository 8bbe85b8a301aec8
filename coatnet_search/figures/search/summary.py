"""What a study found, as plain values: the page, the Markdown text and ``report --json`` all show these numbers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coatnet_search.analysis.choose import Choice, choose
from coatnet_search.analysis.failures_by_layout import failing_layouts
from coatnet_search.analysis.frame import VALUES, complete, numbers, searched
from coatnet_search.analysis.front import (
    SEPARATE_FRONTS,
    SURE,
    comparable,
    join_words,
    layouts_table,
    network_front,
    ranked,
    separability,
    with_num_val,
)
from coatnet_search.analysis.networks import MEASURED, Networks, is_disturbed, networks
from coatnet_search.core.csv_file import safe_cell, write_csv
from coatnet_search.core.errors import InputError
from coatnet_search.core.quantities import Sense, heading, never_recognised, quality, quantity, show, show_difference
from coatnet_search.figures.audit.summary import AuditSection, audit_section
from coatnet_search.figures.sections import Sections
from coatnet_search.figures.supernet.summary import supernet_summary

INTERVAL = "interval"  # key of a text in a table of networks
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
    every = with_num_val(complete(audit.audited_record.frame if audit else frame, objectives), num_val)
    frame = searched(every)
    front = network_front(frame, objectives)
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
        "front": _rows(front, [*columns, *beside(front, columns)]),
        "layouts": parts.make("the layouts", lambda: records(layouts_table(frame, objectives)), lambda _: []),
        "chosen": _chosen(choices, columns),
        "not_chosen": None if choices else _why_none(frame, study, objectives, audit),
        "cost": cost(every, study),
        "failures": failures(every),
        "trials": [row | {"front": row["number"] in on_front} for row in _rows(frame, columns)],
    }


def answer(frame: pd.DataFrame, objectives: Mapping[str, Sense], num_val: int | None) -> list[str]:
    """Two sentences: the best network with its uncertainty, and how it stands to the best of the other layouts; where
    no network is told from guessing, that; where an audit does not let layouts be compared, the best of each."""
    frame = with_num_val(frame, num_val)
    if frame.attrs.get(SEPARATE_FRONTS):
        return _apart(frame, objectives)
    rows = comparable(frame, objectives)
    if rows.empty:
        return ["No trial has finished with its objectives known, so there is no answer yet.", _states(frame)]
    main, found = quality(objectives), networks(rows, objectives)
    ordered = ranked(found.table, {main: objectives[main], **objectives})
    best = ordered.iloc[0]
    costs = [f"{show(name, best[name])} {quantity(name).title}" for name in dict.fromkeys((*objectives, "macs"))
             if name != main and math.isfinite(_number(best[name]))]  # fmt: skip
    about = ", ".join([f"trial {best['number']}", *costs])
    first = (
        f"Of {len(ordered):,} comparable networks, {best['layout']} has the best {quantity(main).title}, "
        f"{show(main, best[main])} ({about}; {_interval(best, main)}{_seen(best, main, ordered, num_val)})."
    )
    if guessing := at_chance(frame, objectives):
        return [guessing, first]
    others = ordered[ordered["layout"] != best["layout"]]
    if others.empty:
        return [first, f"No other layout than {best['layout']} has a comparable trial to set against it."]
    return [first, _runner_up(best, others.iloc[0], main, found)]


def at_chance(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> str | None:
    """A sentence where the best network's accuracy is not told from that of guessing; None where it is, or where the
    number of classes is not known (``num_classes`` in the frame's ``attrs``)."""
    rows, num_classes = comparable(frame, objectives), frame.attrs.get("num_classes")
    if not num_classes or rows.empty:
        return None
    table = networks(rows, objectives).table
    best = ranked(table, {quality(objectives): objectives[quality(objectives)]}).iloc[0]
    if "val_top1_low" not in table or not _number(best["val_top1_low"]) <= 1 / num_classes:
        return None
    return (f"No network is told from guessing: of {num_classes} equally frequent classes chance gets "
            f"{show('val_top1', 1 / num_classes)} right, and the best network {show('val_top1', best['val_top1'])} "
            f"({_interval(best, 'val_top1')}). What follows orders noise; train longer or on more images.")  # fmt: skip


def cautions(frame: pd.DataFrame, objectives: Mapping[str, Sense], num_val: int | None, note: str | None) -> list[str]:
    """What must be read beside any choice: scores at chance, then ``notices``."""
    frame = with_num_val(frame, num_val)
    return [text for text in (at_chance(frame, objectives), *notices(frame, objectives, num_val, note)) if text]


def _apart(frame: pd.DataFrame, objectives: Mapping[str, Sense]) -> list[str]:
    """The best of each layout, where an audit does not let them be compared."""
    main, parts = quality(objectives), []
    rows = comparable(frame, objectives)
    table = networks(rows, objectives).table if len(rows) else rows
    for name, own in table.groupby(table["layout"].astype(str)):
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


def beside(table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """What a table of networks has besides its values: their intervals, what their best runs showed, their runs."""
    names = [form.format(name) for name in columns for form in ("{}_low", "{}_high", MEASURED + "{}", "{}_spread")]
    return [name for name in (*names, "runs", "disturbed") if name in table]


def shown_columns(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The titles of a table of networks: of each value, and of the interval of the first that has one."""
    out = {}
    for name in columns:
        out[name] = heading(name)
        if any(row.get(f"{name}_low") is not None for row in rows) and INTERVAL not in out:
            out[INTERVAL] = "95 % interval"
    return out


def shown_network(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """A network as a table shows it: the interval as a text, and what a busy machine measured with its spread."""
    out = dict(row)
    for name in columns:
        low, high, spread = (row.get(f"{name}_{end}") for end in ("low", "high", "spread"))
        if low is not None and high is not None and INTERVAL not in out:
            out[INTERVAL] = f"{show(name, low)} to {show(name, high)}"
        if spread is not None and any(name.startswith(one) for one in row.get("disturbed") or ()):
            out[name] = f"{show(name, row[name], unit=False)} ± {show(name, spread, unit=False)} (busy machine)"
    return out


def _interval(row: pd.Series, name: str) -> str:
    if f"{name}_low" not in row:  # a study of costs alone
        return "exact or measured"
    return f"95 % interval {show(name, row[f'{name}_low'])} to {show(name, row[f'{name}_high'])}"


def _seen(best: pd.Series, main: str, ordered: pd.DataFrame, num_val: int | None) -> str:
    """What its own best run showed, as what it is, and how accurate it is, where that is another quality."""
    runs, count = int(best["runs"]), len(ordered)
    said = f"; {runs} runs" if runs > 1 else ""
    if MEASURED + main in best:
        own, values = float(best[MEASURED + main]), numbers(ordered, MEASURED + main)
        lucky = f", the best of {count:,}" if own in (values.min(), values.max()) and count > 1 else ""
        said += f"; its {'best' if runs > 1 else 'own'} run showed {show(main, own)}{lucky}"
    if main not in ("error", "val_top1") and math.isfinite(_number(best["val_top1"])):
        images = f" on {num_val:,} validation images" if num_val else ""
        said += f"; accuracy {show('val_top1', best['val_top1'])}, {_interval(best, 'val_top1')}{images}"
    elif num_val:
        said += f"; on {num_val:,} validation images"
    return said


def _runner_up(best: pd.Series, second: pd.Series, main: str, found: Networks) -> str:
    """How far behind the best of the other layouts is, and how sure that is."""
    places = [int(np.flatnonzero(found.table["number"] == row["number"])[0]) for row in (best, second)]
    ours, theirs = (found.draws[main][:, place] for place in places)
    chance = float((ours < theirs).mean())
    gap = show_difference(main, float(second[main]) - float(best[main]))
    sure = "which is clear" if chance >= SURE else "which the data cannot tell from noise"
    return (f"The best of the other layouts, {second['layout']} (trial {second['number']}), is {gap} behind, {sure}: "
            f"the first is the better one with a probability of {chance:.2f}, seeds and images considered."
            )  # fmt: skip


def notices(frame: pd.DataFrame, objectives: Mapping[str, Sense], num_val: int | None, note: str | None) -> list[str]:
    """What a reader must know before the numbers: separability, the data's own note, trials left out."""
    rows = comparable(frame, objectives)
    out = [separability(frame, objectives, num_val), note, _unrecognised(rows, objectives), _busy(rows, objectives)]
    if rows.attrs["other_budgets"]:
        used = ", ".join(f"{name} {value:g}" for name, value in rows.attrs["budget"].items() if value is not None)
        left = rows.attrs["other_budgets"]
        trials = "1 trial with less is" if left == 1 else f"{left:,} trials with less are"
        out.append(f"Only the fullest budget ({used}) is compared; {trials} not.")
    if rows.attrs["excluded"]:
        out.append(f"Finished trials that lack an objective are not compared: {rows.attrs['excluded']}.")
    return [text for text in out if text]


def _unrecognised(rows: pd.DataFrame, objectives: Mapping[str, Sense]) -> str | None:
    """The classes that the best network does not know at all, and for how many others that is so of some."""
    if rows.empty or "attributes" not in rows:
        return None
    main = quality(objectives)
    ordered = ranked(rows, {main: objectives[main], **objectives})
    unknown = [value.get("never_recognised") if isinstance(value, Mapping) else None for value in ordered["attributes"]]
    best, others = unknown[0], sum(bool(one) for one in unknown[1:])
    if not best:
        return None
    also = f" That is so of {others:,} of the {len(unknown) - 1:,} other trials for some classes." if others else ""
    text = never_recognised(best["count"], best["of"], best["names"])
    return f"By trial {ordered.iloc[0]['number']}, the best, {text}.{also}"


def _busy(rows: pd.DataFrame, objectives: Mapping[str, Sense]) -> str | None:
    """A sentence where measurements were disturbed: what they are, and what their order is worth."""
    names = [name for name in dict.fromkeys((*objectives, *SHOWN)) if f"{name}_spread" in rows]
    said = []
    for name in names:
        at = np.array([is_disturbed(value, name) for value in rows["attributes"]], dtype=bool)
        if at.any():
            spread = float(np.nanmedian(numbers(rows, f"{name}_spread")[at] / numbers(rows, name)[at]))
            said.append(f"the {quantity(name).title} of {at.sum():,} of {len(rows):,} trials (typical spread "
                        f"{100 * spread:.0f} %)")  # fmt: skip
    if not said:
        return None
    return f"Measured on a busy machine: {join_words(said)}. Do not order networks by it; measure them again."


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
    titles = shown_columns(data["columns"], data["front"])
    header = ["trial", "layout", "architecture", *titles.values()]
    front = [shown_network(row, data["columns"]) for row in data["front"]]
    rows = [[str(row["number"]), str(row["layout"]), str(row["arch_id"]), *(show(c, row.get(c)) for c in titles)]
            for row in front]  # fmt: skip
    lines += ["### Front", "", *_table(header, rows), "", "### Chosen", ""]
    lines += [f"{line['rank']}. **{_markdown(str(line['layout']))}** {line['arch_id']} (trial {line['number']}): "
              f"{_markdown(line['reason'])}" for line in data["chosen"]]  # fmt: skip
    lines += [] if data["chosen"] else [_markdown(data["not_chosen"])]
    states = ", ".join(f"{count} {state}" for state, count in data["cost"]["states"].items())
    lines += ["", f"{data['cost']['trials']:,} trials ({states or 'none'})."]
    lines += [f"- {line['count']:,} by {_markdown(line['kind'])}, the first: {_markdown(line['message'])}"
              for line in data["failures"]]  # fmt: skip
    return "\n".join(lines) + "\n"


def write_trials(frame: pd.DataFrame, path: Path) -> Path:
    """The trials as a CSV file."""
    flat = frame.drop(columns=[name for name in VALUES if name in frame.columns])
    cells = flat.astype(object).where(flat.notna(), None)
    return write_csv(path, list(cells.columns), cells.itertuples(index=False, name=None))


def spreadsheet_safe(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its texts, in cells and headings, as a CSV file may hold them: people save tables of a page."""
    words = table.select_dtypes(exclude="number")
    return table.assign(**{str(name): words[name].map(safe_cell) for name in words}).rename(columns=safe_cell)


def _chosen(choices: Sequence[Choice], columns: Sequence[str]) -> list[dict[str, Any]]:
    frame = pd.DataFrame([choice.row for choice in choices])
    rows = _rows(frame, [*columns, *beside(frame, columns)])
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
    if value is None or isinstance(value, (str, bool, list)):
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
