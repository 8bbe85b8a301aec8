"""What is printed is text: no markup is read in it, nothing in it commands the terminal or ends the run."""

import io
import json
import logging
import random
from types import SimpleNamespace

import pytest
from mutations import TOKENS
from rich.console import Console

from coatnet_search.core import screen as screen_file
from coatnet_search.core.screen import LiveScreen, LogLines, Screen, View, format_warning, harmless

HOSTILE = (
    *("[/x]", "[bold]", "[red]loss[/red]", "[link=file:///x]y[/link]", "[/]", "[[a]]", "\\[x]", ":smile:", "[0, 1]"),
    *(
        "\x1b[31m",
        "\x1b]0;title\x07",
        "\x1b[2J",
        "\x9b1m",
        "\x08\x08",
        "\r",
        "\x7f",
        "\u202e",
        "\ud800",
        "\x00",
        "\x0b",
    ),
)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal in the place of stderr and stdout."""

    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    found = Terminal()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(screen_file, "sys", SimpleNamespace(stdout=found, stderr=found))
    return found


def hostile(rng: random.Random) -> str:
    words = [rng.choice((*HOSTILE, *TOKENS, "loss", "is", "nan")) for _ in range(rng.randint(1, 8))]
    return rng.choice(("", " ")).join(words)


def commands_in(text: str) -> list[str]:
    """What a terminal would act on."""
    return [char for char in text if char not in "\n\t" and not char.isprintable() and not char.isspace()] + [
        char for char in text if char in "\r\x0b\x0c\x85\u2028"
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_words_in_brackets_are_printed_and_control_characters_spelled_out(text: str, terminal: io.StringIO) -> None:
    Screen().say(f"loss {text} nan")

    printed = terminal.getvalue()
    assert commands_in(printed) == []
    assert printed == f"loss {harmless(text)} nan\n"
    if text.isprintable():
        assert text in printed


def test_no_message_ends_what_prints_it(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "is_terminal", False)  # the lines alone: a live view moves the cursor by escapes
    rng = random.Random(0)
    for _ in range(300):
        text = hostile(rng)
        Screen().say(text)
        Screen().warn(text)
        Screen().table({"a": text, "b": "plain"}, [{"a": text, "b": 1.5}])
        Screen().facts([(text, text)])
        Screen(as_json=True).result({text: text})
        LiveScreen(lambda: View(title="", columns={}, rows=[], done=(0, 1), foot="")).line(text)

    assert commands_in(terminal.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")) == []


def test_a_live_view_shows_any_text(terminal: io.StringIO) -> None:
    rng = random.Random(1)
    for _ in range(100):
        text = hostile(rng)
        view = View(title=text, columns={text: True, "n": False}, rows=[((text, text), True)], done=(1, 2), foot=text)
        screen_file._console(terminal).print(view.drawn())

    assert commands_in(terminal.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[36m", "")) == []


def test_a_bracketed_word_stays_in_a_table_and_a_live_view(terminal: io.StringIO) -> None:
    view = View(title="a[b]", columns={"[/x]": True}, rows=[(("[red]c[/red]",), True)], done=(1, 2), foot="[d]")

    Screen().table({"a": "loss [nats]"}, [{"a": "[/x]"}])
    screen_file._console(terminal).print(view.drawn())

    for word in ("loss [nats]", "[/x]", "a[b]", "[red]c[/red]", "[d]"):
        assert word in terminal.getvalue()


def test_colours_of_lines_from_elsewhere_are_dropped(terminal: io.StringIO) -> None:
    Screen().say("\x1b[36m(worker)\x1b[0m epoch 1\r\nepoch 2")

    assert terminal.getvalue() == "(worker) epoch 1\nepoch 2\n"


def test_what_the_encoding_lacks_is_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(screen_file, "sys", SimpleNamespace(stdout=file, stderr=file))

    Screen().say("Cölln – 1 µs")
    Screen().table({"a": "Größe"}, [{"a": None}])
    Screen(as_json=True, results=file).result({"städte": ["Cölln\x9b"]})
    file.flush()

    text = raw.getvalue().decode("ascii")
    assert "C\\xf6lln \\u2013 1 \\xb5s" in text
    assert json.loads(text[text.index("{") :]) == {"städte": ["Cölln\x9b"]}


def test_logs_and_warnings_are_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("odd")
    logger.addHandler(LogLines())

    logger.warning("%s", "a\x1b[2Jb")
    line = format_warning(UserWarning("[/x]\n\x1b]0;t\x07"), UserWarning, "f.py", 1)

    assert capsys.readouterr().err == "a\\x1b[2Jb\n"
    assert line == "warning: [/x] \\x1b]0;t\\x07\n"
