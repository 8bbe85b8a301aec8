"""A CSV file of runs that people already have -> a RUN folder that all answers can be asked of.

A row is a finished run. Nothing is invented: a number that the file has not stays missing, a run without a result is a
failed one, and what could not be known (the seed, the number of epochs) is said in ``study.yaml``.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from coatnet_search.core.canonical import digest
from coatnet_search.core.checks import safe_name
from coatnet_search.core.document import dump, one_line
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.core.quantities import sense_of
from coatnet_search.record.csv_words import MISSING, STATES, is_blank, says_percent, state_of
from coatnet_search.record.fold import Event, Record, record_path

Kind = Literal["text", "whole", "positive", "fraction", "number"]
COLUMNS: dict[str, Kind] = {
    "arm": "text", "size": "positive", "instance": "whole", "num_images": "whole", "epochs": "whole",
    "image_size": "whole", "seed": "whole", "draw": "whole", "state": "text", "device": "text", "wall_s": "positive",
    "error": "fraction", "val_top1": "fraction", "val_top5": "fraction", "val_loss": "number",
    "val_balanced_accuracy": "fraction",
    "train_loss": "number", "train_top1": "fraction", "macs": "positive", "params": "positive",
    "activations": "positive", "throughput_images_per_s": "positive", "train_images_per_s": "positive",
    "latency_ms": "positive", "latency_p95_ms": "positive", "peak_memory_mib": "positive",
}  # fmt: skip
ALIASES = {"layout": "arm", "status": "state"}
LEAST = {"seed": 0, "draw": 0}  # of whole numbers; the others count from 1
QUALITIES = ("error", "val_loss")
COSTS = ("macs", "latency_ms", "throughput_images_per_s", "params")  # the first that is known is an objective
EXACT = ("params", "macs", "activations")
BUDGET = ("epochs", "num_images", "image_size", "seed", "draw")
_PLACE = ("arm", "state", "device", "size", "instance", "wall_s", *BUDGET)  # all others are metrics

Row = dict[str, Any]  # our names; absent where the file has nothing; ``line``: where it stands


@dataclass(frozen=True, kw_only=True)
class Imported:
    """``run``: the new folder; ``rows``: trials in it; ``ignored``: the file's columns that no name of ours has;
    ``assumed``: how the file was read where it can be read in more than one way, as sentences."""

    run: Path
    rows: int
    ignored: tuple[str, ...]
    assumed: tuple[str, ...] = field(default=())


def import_runs(path: Path, columns: Mapping[str, str], out: Path, *, name: str | None = None,
                num_val: int | None = None) -> Imported:  # fmt: skip
    """Make the RUN folder ``out`` of a CSV file with a heading. ``columns``: our name -> the file's; columns with names
    of ours need none, and an empty name leaves one out. ``num_val``: the images that the errors were measured on.

    Raises InputError with file and line for whatever cannot be read, and where ``out`` holds a study already.
    """
    target = record_path(out)
    if target.exists() or (out / "study.yaml").exists():
        raise InputError(f"{out} holds a study already; give another --out or --name")
    table = read_rows(path, columns)
    rows, assumed = table.rows, (*table.said, *_assume(table.rows))
    values = _study(path, rows, columns, safe_name(name or path.stem), num_val, assumed, table.used)
    with Record(target if target.suffix == ".jsonl" else out / "trials.jsonl") as record:
        record.append({"event": "session", "imported_from": path.name})
        for event in _events(rows):
            record.append(event)
    (out / "study.yaml").write_text(dump(values), encoding="utf-8")
    return Imported(run=out, rows=len(rows), ignored=table.ignored, assumed=assumed)


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Table:
    """``used``: our names and the file's columns that they are; ``ignored``: columns that nothing was made of;
    ``said``: how what can be read in more than one way was read."""

    used: dict[str, str]
    rows: list[Row]
    ignored: tuple[str, ...]
    said: tuple[str, ...]


def read_rows(path: Path, columns: Mapping[str, str]) -> Table:
    """The checked rows of a file. Raises InputError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [title.strip() for title in next(reader, [])]
            used = _used(path, header, columns)
            found = [(reader.line_num, cells) for cells in reader if not is_blank(cells)]
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected text in UTF-8; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file: {error}") from None
    left = Counter[str]()
    rows = [row for line, cells in found if (row := _row(f"{path}:{line}", line, cells, header, used, left))]
    if not rows:
        raise InputError(f"{path}: no run below the heading{''.join(f'; {text}' for text in _left_out(left))}")
    said = [*_left_out(left), *_percents(path, rows, used)]
    for row in rows:
        _complete(f"{path}:{row['line']}", row)
    said += _words_for_states(rows)
    _distinct(path, rows)
    if not any(row.get(name) is not None for row in rows for name in QUALITIES):
        raise InputError(f"{path}: no run has a result; expected a number in {' or '.join(_result_columns(used))}")
    ignored = (title or f"column {place} (no name)" for place, title in enumerate(header, 1)
               if title not in used.values())  # fmt: skip
    return Table(used=used, rows=rows, ignored=tuple(ignored), said=tuple(said))


def _left_out(left: Mapping[str, int]) -> list[str]:
    return [f"{count} {'row' if count == 1 else 'rows'} left out: {why}" for why, count in left.items()]


def _words_for_states(rows: Sequence[Row]) -> list[str]:
    """How the words of another tool were understood."""
    words = Counter((row["word"], row["state"]) for row in rows if "word" in row and row["word"] != row["state"])
    pairs = [f"{word} for {state} ({count})" for (word, state), count in words.items()]
    return [f"states are read as ours: {', '.join(pairs)}"] if pairs else []


def _percents(path: Path, rows: Sequence[Row], used: Mapping[str, str]) -> list[str]:
    """Fractions in place of percents, where the column's name says that it holds these."""
    said = []
    for name, column in used.items():
        if COLUMNS[name] != "fraction" or not says_percent(column):
            continue
        bare = [row[name] for row in rows if name in row.get("bare", ())]  # divided by 100 already
        if bare and max(bare) <= 0.01:
            raise InputError(f"{path}: {name} (column {column}) is named as percents and holds nothing above 1; write "
                             "the cells as 93.4%, or name a column of fractions without percent")  # fmt: skip
        said.append(f"{name} is the column {column!r}: percents, divided by 100")
    return said


def _used(path: Path, header: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    titles = [title for title in header if title]
    if len(header) < 2 or not titles:
        hint = next((f"; it looks separated by {mark!r}, save it with commas" for mark in (";", "\t")
                     if header and mark in header[0]), "")  # fmt: skip
        raise InputError(f"{path}:1: expected a heading with the names of several columns{hint}")
    used = {}
    for name, column in columns.items():
        ours = ALIASES.get(name, name)
        if ours not in COLUMNS:
            raise InputError(f"--columns: {unknown('quantity', name, COLUMNS)}")
        if column and column not in titles:
            raise InputError(f"--columns: {unknown(f'column of {path}', column, titles)}")
        if ours in used:
            raise InputError(f"--columns: {ours} is given twice")
        used[ours] = column
    for title in (*(title for title in titles if title in COLUMNS), *titles):  # a name of ours goes before one like it
        ours = ALIASES.get(title.lower(), title.lower())
        if ours in COLUMNS and ours not in used and title not in used.values():
            used[ours] = title
    used = {name: column for name, column in used.items() if column}
    twice = next((column for column in used.values() if titles.count(column) > 1), None)
    if twice is not None:
        raise InputError(f"{path}:1: two columns are named {one_line(twice)!r}; rename one")
    if "arm" not in used:
        raise InputError(f"{path}: which column says what was trained? Give --columns arm=COLUMN; it has "
                         f"{', '.join(one_line(title) for title in titles)}")  # fmt: skip
    if not {"error", "val_top1", "val_loss"} & set(used):
        raise InputError(f"{path}: which column has the result? Give --columns error=COLUMN (or val_top1, val_loss); "
                         f"it has {', '.join(one_line(title) for title in titles)}")  # fmt: skip
    return used


def _result_columns(used: Mapping[str, str]) -> list[str]:
    return [used[name] for name in ("error", "val_top1", "val_loss") if name in used]


def _row(where: str, line: int, cells: Sequence[str], header: Sequence[str], used: Mapping[str, str],
         left: Counter[str]) -> Row | None:  # fmt: skip
    """A row by our names, percents as fractions; None where it is no finished run, which ``left`` then counts."""
    cells = cells[: len(header)] if is_blank(cells[len(header) :]) else cells
    if len(cells) != len(header):
        raise InputError(f"{where}: expected {len(header)} cells as in the heading, got {len(cells)}")
    texts = dict(zip(header, (cell.strip() for cell in cells), strict=True))
    if all(texts[column] == column for column in used.values()):
        left["the heading once more"] += 1
        return None
    if all(texts[column].lower() in MISSING for column in used.values()):
        left["empty in all columns that are used"] += 1
        return None
    row: Row = {"line": line}
    if "state" in used and texts[used["state"]]:
        word = texts[used["state"]]
        state = state_of(word)
        if state is None:
            known = [one for words in STATES.values() for one in words]
            raise InputError(f"{where}: {_named('state', used['state'])}: {unknown('state', word, known)}")
        if state == "unfinished":
            left["runs that have not ended"] += 1
            return None
        row |= {"state": state, "word": word}
    for name, column in used.items():
        value = None if name == "state" else _value(f"{where}: {_named(name, column)}", name, texts[column], column)
        if value is not None:
            row[name] = value
            if says_percent(column) and not texts[column].endswith("%"):
                row.setdefault("bare", set()).add(name)
    nameless = [name for name in ("arm", "num_images") if name in used and name not in row]
    if nameless and not any(name in row for name in (*QUALITIES, "val_top1")):
        left[f"{nameless[0]} is empty, and there is no result"] += 1
        return None
    if nameless:
        raise InputError(f"{where}: {nameless[0]} is empty; each run needs one")
    return row


def _named(name: str, column: str) -> str:
    return name + (f" (column {column})" if column != name else "")


def _complete(where: str, row: Row) -> None:
    """Error and accuracy are one number; a run without a result is a failed one."""
    if "error" in row and "val_top1" in row and abs(row["error"] + row["val_top1"] - 1) > 0.005:
        raise InputError(f"{where}: error {row['error']:g} and val_top1 {row['val_top1']:g} are not of one "
                         "measurement; their sum should be 1")  # fmt: skip
    if "error" in row:
        row.setdefault("val_top1", 1 - row["error"])
    elif "val_top1" in row:
        row["error"] = 1 - row["val_top1"]
    result = any(name in row for name in QUALITIES)
    if row.get("word") == "done" and not result:
        raise InputError(f"{where}: state is done and there is no result; a run without one is failed")
    row.setdefault("state", "done")
    if row["state"] == "done" and not result:
        row["state"] = "failed"


def _value(where: str, name: str, text: str, column: str) -> Any:
    kind = COLUMNS[name]
    if kind == "text":
        return one_line(text) or None
    if text.lower() in MISSING:
        return None
    percent = kind == "fraction" and (text.endswith("%") or says_percent(column))
    try:
        number = float(text.removesuffix("%") if percent else text)
    except ValueError:
        raise InputError(f"{where}: expected a number, got {one_line(text)[:60]!r}") from None
    if math.isnan(number):
        return None
    if kind == "fraction":
        return _fraction(where, number, percent)
    if not math.isfinite(number):
        raise InputError(f"{where}: expected a finite number, got {text}; leave the cell of a run that diverged empty")
    if kind == "whole":
        least = LEAST.get(name, 1)
        if not number.is_integer() or number < least:
            raise InputError(f"{where}: expected a whole number of at least {least}, got {text}")
        return int(number)
    if kind == "positive" and number <= 0:
        raise InputError(f"{where}: expected a number above 0, got {text}")
    return number


def _fraction(where: str, number: float, percent: bool) -> float:
    if 0 <= number <= (100 if percent else 1):
        return number / 100 if percent else number
    if percent:
        raise InputError(f"{where}: expected a percentage from 0 to 100, got {number:g}")
    hint = "; divide percents by 100, or write them as 93.4%" if 1 < number <= 100 else (
        "; leave the cell of a run that diverged empty")  # fmt: skip
    raise InputError(f"{where}: expected a fraction from 0 to 1, got {number:g}{hint}")


def _distinct(path: Path, rows: Iterable[Row]) -> None:
    """With seeds two rows are two runs only where something that tells runs apart differs."""
    seen: dict[Any, int] = {}
    for row in rows:
        if "seed" in row and "num_images" in row:
            first = seen.setdefault(_identity(row), row["line"])
            if first != row["line"]:
                raise InputError(f"{path}:{row['line']}: the same arm, images and seed as in line {first}; give the "
                                 "column that tells them apart as draw, instance or size")  # fmt: skip


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("arm", "size", "instance", *BUDGET))


# --- writing ----------------------------------------------------------------------------------------------------------


def _assume(rows: Sequence[Row]) -> tuple[str, ...]:
    """What amounts of data can only be compared with, and the file lacks; put into the rows, as sentences."""
    said = []
    if not any("num_images" in row for row in rows):
        return ()
    if any("seed" not in row for row in rows):
        said.append("seeds are not on record: no two runs are taken for a pair")
        most = max((row.get("seed", -1) for row in rows), default=-1)
        for place, row in enumerate(row for row in rows if "seed" not in row):
            row["seed"] = most + 1 + place
    if any("epochs" not in row for row in rows):
        said.append("epochs are not on record: training is counted as one pass over the images")
        for row in rows:
            row.setdefault("epochs", 1)
    return tuple(said)


def _study(path: Path, rows: Sequence[Row], columns: Mapping[str, str], name: str, num_val: int | None,
           assumed: Sequence[str], used: Mapping[str, str]) -> dict[str, Any]:  # fmt: skip
    """The least that ``report`` and ``choose`` need of a study, and where its runs come from."""
    done = [row for row in rows if row["state"] == "done"]
    quality = next(name for name in QUALITIES if any(name in row for row in rows))
    cost = next((name for name in COSTS if done and all(name in row for row in done)), None)
    objectives = {one: sense_of(one, {}) for one in (quality, cost) if one}
    return {
        "name": name,
        "question": f"What do the runs of {path.name} say?",
        "objectives": objectives,
        "search": {"strategy": "imported", "trials": len(rows)},
        "choose": {"limit": {}, "top": 3},
        "imported": {"file": str(path), "columns": dict(columns), "names": sorted(used), "assumed": list(assumed)},
        **({"data_summary": {"num_val": num_val}} if num_val else {}),
    }


def _events(rows: Sequence[Row]) -> Iterable[Event]:
    for number, row in enumerate(rows):
        scaling = "num_images" in row
        network = [row["arm"], row.get("size", 1.0), row.get("instance", 1)]
        arch_id = digest(network if scaling or "seed" in row else [*network, row["line"]])
        key = digest([_identity(row), None if scaling else row["line"]], 16)
        attributes: dict[str, Any] = {"layout": row["arm"], "size": row.get("size", 1.0),
                                      "instance": row.get("instance", 1), "line": row["line"]}  # fmt: skip
        metrics = {name: value for name, value in row.items() if name in COLUMNS and name not in _PLACE}
        exact = {name: metrics.pop(name) for name in EXACT if name in metrics}
        said = f"says {row['word']}" if state_of(row.get("word", "")) == "failed" else "has no result"
        failure = {"kind": "no_result", "message": f"line {row['line']} {said}"}
        yield {
            "event": "started", "number": number, "key": key, "candidate": {"arm": row["arm"]}, "arch_id": arch_id,
            "layout": row["arm"], "budget": {name: row[name] for name in BUDGET if name in row}, "metrics": exact,
            "attributes": attributes, "origin": "imported",
        }  # fmt: skip
        yield {
            "event": "terminal", "number": number, "key": key, "state": row["state"], "metrics": metrics,
            "device": row.get("device"), "timings": {"wall_s": row["wall_s"]} if "wall_s" in row else {},
            **({"failure": failure} if row["state"] == "failed" else {}),
        }  # fmt: skip
