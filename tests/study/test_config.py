"""Study and space files: what is right parses, what is wrong is one line with file, line and key."""

import functools
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutated

from coatnet_search.core import bundled
from coatnet_search.core.checks import safe_name
from coatnet_search.core.document import dump
from coatnet_search.core.errors import InputError
from coatnet_search.core.schema import json_schema, read_document
from coatnet_search.space.file import SpaceFile
from coatnet_search.study.file import FILES, StudyFile

STUDY = """\
question: Which layout?
space: digits
data: {name: digits}
recipe: {name: digits, epochs: 2}
objectives: {error: min, macs: min}
search:
  strategy: random
  trials: 4
"""
SPACE = """\
image_size: 32
stages:
  - block: [C, T]
    depth: [1, 2]
    width: 16
    kernel: [3, 5]
head_size: 8
"""
BUNDLED = [*bundled.folder("search_spaces").glob("*.yaml"), *bundled.folder("studies").glob("*.yaml")]
JARGON = ("pydantic", "Input should", "validation error", "Traceback", "NoneType", "tag:yaml.org")


def message_of(act: Callable[[], object]) -> str:
    """The one line of the InputError that an action raises."""
    with pytest.raises(InputError) as caught:
        act()
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert len(text) < 1500
    assert not any(word in text for word in JARGON)
    return text


def parse(text: str, *assignments: str, cls: type = StudyFile, name: str = "x.yaml") -> object:
    document = read_document(name, text)
    for assignment in assignments:
        document.set(assignment)
    return document.parse(cls)


@pytest.mark.parametrize("path", sorted(BUNDLED), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_bundled_file_parses(path: Path) -> None:
    cls = StudyFile if path.parent.name == "studies" else SpaceFile

    parsed = read_document(path).parse(cls)

    assert isinstance(parsed, cls)


def test_a_study_comes_out_as_plain_values_with_defaults() -> None:
    study = read_document("x.yaml", STUDY + "limits: {params: 1_000, macs: [null, 2.0e+6]}\n").parse(StudyFile)

    assert study.data.val_fraction == 0.1
    assert study.search.trials == 4
    assert study.resources.cpus == 1.0
    assert type(study.recipe) is dict
    assert study.recipe == {"name": "digits", "epochs": 2}
    assert study.limits == {"params": 1000.0, "macs": (None, 2e6)}
    assert study.measure == ("throughput",)


def test_in_a_space_scalars_stay_scalars_and_lists_become_tuples() -> None:
    space = read_document("x.yaml", SPACE).parse(SpaceFile)

    assert space.image_size == 32
    assert space.stages == ({"block": ("C", "T"), "depth": (1, 2), "width": 16, "kernel": (3, 5)},)
    assert (space.in_channels, space.num_classes, space.head_size, space.limits) == (3, 10, 8, {})


def test_a_space_can_stand_inside_a_study() -> None:
    inline = "space: {image_size: 8, stages: [{block: C, depth: 1, width: [8, 16]}]}"

    study = read_document("x.yaml", STUDY.replace("space: digits", inline)).parse(StudyFile)

    assert isinstance(study.space, SpaceFile)
    assert study.space.stages[0]["width"] == (8, 16)


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    study = read_document("x.yaml", STUDY.replace("trials: 4", "trials: 1.0e+3")).parse(StudyFile)

    assert study.search.trials == 1000
    assert isinstance(study.search.trials, int)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("trials: 4", "trials: 0", "x.yaml:8: search.trials: expected a number of at least 1, got 0"),
        ("trials: 4", "trials: 2.5", "x.yaml:8: search.trials: expected a whole number, got 2.5"),
        ("trials: 4", "trials: yes", "x.yaml:8: search.trials: expected a whole number, got true"),
        ("trials: 4", "trials: '4'",
         "x.yaml:8: search.trials: expected a whole number, got '4', which YAML reads as text; write 4"),
        ("trials: 4", "trials: 1e2",
         "x.yaml:8: search.trials: expected a whole number, got '1e2', which YAML reads as text; write 1.0e+2"),
        ("trials: 4", "trails: 4", "x.yaml:8: search.trails: no key named 'trails'; did you mean 'trials'? "
         "Known: baseline, halving, options, seed, strategy, trials"),
        ("  trials: 4\n", "",
         "x.yaml:6: search.trials: this key is missing; add it (How many candidates are tried)"),
        ("strategy: random", "strategy: no",
         "x.yaml:7: search.strategy: expected text, got false; YAML reads yes, no, on and off as true and false; "
         "put text in quotes"),
        ("strategy: random", "strategy: 7", "x.yaml:7: search.strategy: expected text, got 7; put it in quotes"),
        ("strategy: random", "options: {a: [1]}",
         "x.yaml:7: search.options.a: expected a number, text, or true/false, got a list"),
        ("epochs: 2", "lr: 2e-3",
         "x.yaml:4: recipe.lr: expected a number, got '2e-3', which YAML reads as text; write 2.0e-3"),
        ("name: digits, epochs: 2", "epochs: 2",
         "x.yaml:4: recipe.name: expected the name of a recipe, such as small-images"),
        ("question:", "conditions: {batch_size: 0}\nquestion:",
         "x.yaml:1: conditions.batch_size: expected a whole number of at least 1, best, or null, got 0"),
        ("question:", "conditions: {precision: half}\nquestion:",
         "x.yaml:1: conditions.precision: expected 'auto', 'float32', 'bfloat16' or 'float16', got 'half'"),
        ("question:", "measure_when: later\nquestion:",
         "x.yaml:1: measure_when: expected 'start' or 'end', got 'later'"),
        ("error: min", "error: less", "x.yaml:5: objectives.error: expected 'min' or 'max', got 'less'"),
        ("{error: min, macs: min}", "{}",
         "x.yaml:5: objectives: expected at least one entry, got an empty mapping"),
        ("{name: digits}", "[digits]", "x.yaml:3: data: expected a mapping (key: value), got a list"),
        ("{name: digits}", "{name: digits, val_fraction: 1}",
         "x.yaml:3: data.val_fraction: expected a number below 1, got 1"),
        ("space: digits", "space: {image_size: 8, stages: []}",
         "x.yaml:2: space.stages: expected at least one entry, got an empty list"),
        ("space: digits", "space: {image_size: 8, stages: [{block: C, depth: 1, width: []}]}",
         "x.yaml:2: space.stages.0.width: expected at least one value to choose from, got an empty list"),
        ("space: digits", "limits: {macs: [2, 1]}\nspace: digits",
         "x.yaml:2: limits.macs: expected [low, high], got 2 above 1; exchange them"),
        ("space: digits", "limits: {macs: 1e6}\nspace: digits",
         "x.yaml:2: limits.macs: expected a number, got '1e6', which YAML reads as text; write 1.0e+6"),
        ("space: digits", "resources: {gpus: 1.5}\nspace: digits",
         "x.yaml:2: resources.gpus: expected a fraction below 1 or a whole number, got 1.5"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_study_is_named_with_line_and_key(old: str, new: str, expected: str) -> None:
    text = STUDY.replace(old, new, 1)

    message = message_of(lambda: parse(text))

    assert message == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("depth: [1, 2]", "depth: []", ":4: stages.0.depth: expected at least one value to choose from"),
        ("depth: [1, 2]", "depth: [1, 1]", ":4: stages.0.depth.1: expected different values, got 1 a second time"),
        ("depth: [1, 2]", "depth: [1, -1]", ":4: stages.0.depth.1: expected a whole number of at least 0, got -1"),
        ("depth: [1, 2]", "depth: 1.5", ":4: stages.0.depth: expected a whole number of at least 0, got 1.5"),
        ("depth: [1, 2]", "depth: [one]", ":4: stages.0.depth.0: expected a number, got 'one'"),
        ("depth: [1, 2]", "depht: 1", ":4: stages.0.depht: no key of a stage of mbconv or attention named 'depht'; "
         "did you mean 'depth'?"),
        ("    depth: [1, 2]\n", "", ":3: stages.0.depth: this key is missing; add it"),
        ("width: 16", "width: 0", ":5: stages.0.width: expected a whole number of at least 1, got 0"),
        ("width: 16", "width: {a: 1}", ":5: stages.0.width: expected a number, text, or true/false, got a mapping"),
        ("width: 16", "width: [16, [32]]", ":5: stages.0.width.1: expected a number, text, or true/false, got a list"),
        ("width: 16", "width: [16, null]", ":5: stages.0.width.1: expected a number, text, or true/false, got nothing"),
        ("width: 16", "width: 16\n    stride: 3", ":6: stages.0.stride: expected 1 or 2, got 3"),
        ("width: 16", "width: 16\n    pool: mx", ":6: stages.0.pool: expected one of max, avg, got 'mx'"),
        ("[C, T]", "[C, X]", ":3: stages.0.block.1: no block named 'X'"),
        ("[C, T]", "[C, mbconv]", ":3: stages.0.block.1: expected different blocks, got mbconv a second time"),
        ("[C, T]", "T", ":6: stages.0.kernel: no key of a stage of attention named 'kernel'"),
        ("kernel: [3, 5]", "kernel: [on]", ":6: stages.0.kernel.0: expected a number, got true"),
        ("kernel: [3, 5]", "kernel: [3, 5e0]", ":6: stages.0.kernel.1: expected a number, got '5e0', which YAML reads "
         "as text; write 5.0e+0"),
        ("head_size: 8", "head_size: eight", ":7: head_size: expected a whole number of at least 1, got 'eight'"),
        ("head_size: 8", "stem: {kind: con}", ":7: stem.kind: expected conv or patch, got 'con'"),
        ("head_size: 8", "stem: {widht: 8}", ":7: stem.widht: no key of a stem named 'widht'; did you mean 'width'?"),
        ("head_size: 8", "head: {hidden: 1}", ":7: head.hidden: expected true or false, got 1"),
        ("head_size: 8", "limits: {mac: 1}", ":7: limits.mac: no exact cost named 'mac'; did you mean 'macs'?"),
        ("image_size: 32", "image_size: [32, 0]", ":1: image_size.1: expected a whole number of at least 1, got 0"),
        ("image_size: 32", "in_channels: 3", ":1: image_size: this key is missing; add it"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_space_is_named_with_line_and_key(old: str, new: str, expected: str) -> None:
    text = SPACE.replace(old, new, 1)

    message = message_of(lambda: parse(text, cls=SpaceFile))

    assert message.startswith("x.yaml" + expected)


def alias_bomb() -> str:
    rows = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)]
    return "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(rows)


def alias_tower() -> str:
    """Each alias adds 18 levels to the one before."""
    return "b0: &b0 1\n" + "".join(f"b{n}: &b{n} {'[' * 18}*b{n - 1}{']' * 18}\n" for n in range(1, 60))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ":1: expected a mapping of keys to values, got an empty file"),
        ("# only a comment\n", ":1: expected a mapping of keys to values, got an empty file"),
        ("\n- a\n- b\n", ":2: expected a mapping (lines of 'key: value'), got a list"),
        ("hello", ":1: expected a mapping (lines of 'key: value'), got 'hello'"),
        ("a:\n\tb: 1\n", ":2: not valid YAML: a tab at the start of the line; indent with spaces"),
        ("a: 1\nb: [1, 2\nc: 3\n", ":2: not valid YAML: a bracket '[' that is opened here is not closed"),
        ("a: 'x\nb: 1\n", ":1: not valid YAML: a quote that is opened here is not closed"),
        ("a: b: c\n", ":1: not valid YAML: a ':' that starts no key"),
        ("  a: 1\n b: 2\n", ":2: not valid YAML: the indentation does not match the lines above"),
        ("a: 1\nb: 2\na: 3\n", ":3: a: this key is already in line 1; remove one of the two"),
        ("a: 1\n---\nb: 2\n", ":2: expected one document, got a second one"),
        ("a: !!python/object/apply:os.mkdir [canary]\n", ":1: a: the tag '!!python/object/apply:os.mkdir' is not"),
        ("a: !!python/name:os.system\n", ":1: a: the tag '!!python/name:os.system' is not allowed"),
        ("<<: {a: 1}\n", ":1: merge keys (<<) are not known here; write the keys out"),
        ("a: &a [*a]\n", ":1: a.0: no anchor &a before this alias"),
        ("on: 1\n", ":1: expected a key that is text, got true; yes, no, on and off are read as true and false"),
        ("1: 1\n", ":1: expected a key that is text, got 1; put it in quotes"),
        ("? [a]\n: 1\n", ":1: expected a key that is text, got a list or a mapping"),
        ("a: 010\n", ":1: a: '010' is an octal number in YAML"),
        ("a: 12:30\n", ":1: a: '12:30' is a number to the base of 60 in YAML"),
        ("a: .nan\n", ":1: a: expected a finite number of ordinary size, got '.nan'"),
        ("a: " + "9" * 5000, ":1: a: expected a finite number of ordinary size"),
        ('a: "\\ud800"\n', ":1: a: expected printable text, got the character '\\ud800'"),
        ('a: "\\U99999999"\n', ":1: a: an escape in a quoted text names no character"),
        ("a: 1\nb: \0\n", ":2: expected text, got the character '\\x00'; is this a YAML file?"),
        ("[" * 5000, ": expected at most 20 levels of nesting, got more"),
        ("{a: " * 5000, ": expected at most 20 levels of nesting, got more"),
        ("a: [" + "1," * 30_000 + "]", ": expected at most 20,000 values with aliases written out, got more"),
        (alias_bomb(), ": expected at most 20,000 values with aliases written out, got more"),
        (alias_tower(), ": expected at most 20 levels of nesting with aliases written out, got more"),
        ("a: " + "x" * 1_000_001, ":1: expected at most 1,000,000 bytes, got more; is this the right file?"),
    ],
)  # fmt: skip
def test_text_that_is_no_plain_mapping_is_refused_in_one_line(
    text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    message = message_of(lambda: read_document("x.yaml", text))

    assert message.startswith("x.yaml:")
    assert expected in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: 1\nb: \xff\n", ":2: expected text in UTF-8, got the byte 0xff; save it as UTF-8"),
        ("a: 1\n".encode("utf-16"), ":1: expected text in UTF-8, got the byte 0xff"),
        (b"\x7fELF\x02\x01\x01\x00", ":1: expected text, got the character"),
        (b"\x89PNG\r\n\x1a\n", ":1: expected text in UTF-8"),
        (b"a: 1\n" * 2_000_000, ":1: expected at most 1,000,000 bytes, got more"),
    ],
    ids=["latin-1", "utf-16", "program", "picture", "10 MB"],
)
def test_a_file_that_is_no_text_is_refused_in_one_line(content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)

    message = message_of(lambda: read_document(path))

    assert message.startswith(f"{path}{expected}")


def test_what_is_not_a_regular_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")

    paths = [tmp_path / "pipe.yaml", tmp_path, tmp_path / "none.yaml", Path("x" * 300, "x"), Path("a\0b")]
    messages = [message_of(functools.partial(read_document, path)) for path in paths]

    assert [message.rsplit(": ", 1)[1].split(";")[0] for message in messages] == [
        "not a file", "a folder", "no such file", "no such file", "no such file"]  # fmt: skip


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + STUDY.replace("\n", "\r\n").encode())

    study = read_document(path).parse(StudyFile)

    assert study.search.trials == 4


def test_an_alias_is_a_copy_of_its_anchor() -> None:
    document = read_document("x.yaml", "a: &a {b: 1}\nc: *a\n")

    document.set("c.b=2")

    assert document.value == {"a": {"b": 1}, "c": {"b": 2}}


def test_set_replaces_adds_and_reaches_into_lists() -> None:
    document = read_document("x.yaml", SPACE)

    document.set("stages.0.width=[16, 32]")
    document.set("limits.macs=[1e6, 2e6]")
    document.set("head_size=null")

    space = document.parse(SpaceFile)
    assert space.stages[0]["width"] == (16, 32)
    assert space.limits == {"macs": (1e6, 2e6)}
    assert space.head_size is None


@pytest.mark.parametrize(("text", "value"), [("2e-3", 0.002), ("1e2", 100.0), ("010", 10), ("7", 7), ("inf", "inf")])
def test_a_number_on_the_command_line_is_what_float_takes(text: str, value: object) -> None:
    document = read_document("x.yaml", STUDY)

    document.set(f"recipe.x={text}")

    assert document.value["recipe"]["x"] == value
    assert type(document.value["recipe"]["x"]) is type(value)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("search.trials=0", "--set search.trials: expected a number of at least 1, got 0"),
        ("search.trails=3", "--set search.trails: no key named 'trails'; did you mean 'trials'?"),
        ("serch.trials=3", "--set serch: no key named 'serch'; did you mean 'search'?"),
        ("data={name: x, pth: 3}", "--set data.pth: no key named 'pth'; did you mean 'path'?"),
        ("data={path: x}", "--set data.name: this key is missing; add it"),
        ("search", "--set 'search': expected KEY=VALUE, for example --set search.trials=20"),
        ("a..b=1", "--set 'a..b=1': expected KEY=VALUE"),
        ("space.image_size=16", "--set space.image_size: space is 'digits', which has no keys; set space itself"),
        ("data=[1", "--set data: not valid YAML: a bracket"),
        ("data=!!python/name:os.system", "--set data: the tag '!!python/name:os.system' is not allowed"),
    ],
)
def test_a_mistake_on_the_command_line_is_named_as_such(assignment: str, expected: str) -> None:
    message = message_of(lambda: parse(STUDY, assignment))

    assert message.startswith(expected)


def test_a_list_item_that_is_not_there_is_named_with_the_range() -> None:
    message = message_of(lambda: parse(SPACE, "stages.1.width=8", cls=SpaceFile))

    assert message == "--set stages.1: stages is a list; expected a number from 0 to 0"


def test_an_error_of_a_later_part_is_placed_at_its_line_or_its_assignment() -> None:
    document = read_document("x.yaml", STUDY)
    document.set("recipe.lr=1")

    places: list[tuple[str, ...]] = [("search", "trials"), ("search", "x"), ("recipe", "lr"), ()]
    messages = [str(document.error(place, "bad\nnews")) for place in places]

    assert messages == [
        "x.yaml:8: search.trials: bad news",
        "x.yaml:6: search.x: bad news",
        "--set recipe.lr: bad news",
        "x.yaml:1: bad news",
    ]


def test_a_password_in_the_tracking_uri_is_refused_and_not_repeated() -> None:
    message = message_of(lambda: parse(STUDY, "tracking.uri=https://me:hunter2@host/"))

    assert "MLFLOW_TRACKING_USERNAME" in message
    assert "hunter2" not in message


def test_a_broken_file_name_keeps_the_message_on_one_line() -> None:
    message = message_of(lambda: read_document("a\nb\x1b[31m.yaml", "a: ["))

    assert message.startswith("a b\\x1b[31m.yaml:1: not valid YAML")


@pytest.mark.parametrize("name", ["quickstart", "cifar10-layouts", "A_1.b", "x" * 64])
def test_an_ordinary_study_name_stays_as_it_is(name: str) -> None:
    folder = safe_name(name)

    assert folder == name


ODD_NAMES = ["../../x", "x" * 300, "a b", "a/b", "a\\b", "-rf", "研究", "x🚀", "a\0b", "a\nb", "été", "a."]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_study_name_becomes_one_plain_folder(name: str, tmp_path: Path) -> None:
    folder = safe_name(name)

    (tmp_path / "runs" / folder).mkdir(parents=True)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [folder]
    assert folder.isascii()
    assert not folder.startswith(("-", "."))
    assert len(folder) <= 64
    assert safe_name(folder) == folder


def test_two_odd_names_are_two_folders() -> None:
    folders = {safe_name(name) for name in ("a b", "a/b", "a-b", "a  b", "x" * 300, "x" * 301)}

    assert len(folders) == 6


@pytest.mark.parametrize("name", ["", ".", "..", "🚀", "///", " "])
def test_a_study_name_of_which_nothing_is_left_is_refused(name: str) -> None:
    message = message_of(lambda: safe_name(name))

    assert "rename the file" in message


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff\ufffe\uffff")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc<=~on1", min_size=1), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.text("abcdef", min_size=1), PLAIN, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_what_is_dumped_is_read_back_the_same(value: dict[str, object]) -> None:
    text = dump(value)

    assert read_document("x.yaml", text).value == value


@pytest.mark.parametrize("kind", ["study", "space"])
def test_the_json_schema_documents_every_key(kind: str) -> None:
    schema = json_schema(FILES[kind])

    forms = [schema, *schema.get("$defs", {}).values()]
    assert schema["$schema"].startswith("https://json-schema.org/")
    keys = [(key, value) for form in forms for key, value in form.get("properties", {}).items()]
    assert [key for key, value in keys if not value.get("description")] == []
    assert all(form["additionalProperties"] is False for form in forms if "properties" in form)


SEEDS = [*range(30), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(30, 300))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mutated_file_parses_or_is_refused_in_one_line(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    origin = sorted(BUNDLED)[seed % len(BUNDLED)]
    cls = StudyFile if origin.parent.name == "studies" else SpaceFile
    path = tmp_path / "x.yaml"
    path.write_bytes(mutated(rng, origin.read_text()))

    try:
        parsed = read_document(path).parse(cls)
    except InputError as error:
        parsed, text = None, str(error)
        assert text.startswith(f"{path}:")
        assert text.isprintable()
        assert not any(word in text for word in JARGON)

    assert parsed is None or yaml.safe_load(read_document(path).dump()) == read_document(path).value
