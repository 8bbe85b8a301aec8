"""The command line: its verbs and exit codes; ``options.py`` has their options, ``commands/`` a file a verb.

A verb's file is imported when the verb is used, so ``--help`` costs neither torch nor timm nor Ray. Results go to
stdout, all else to stderr; with ``--json`` stdout is JSON and nothing else.
"""

import argparse
import importlib
import logging
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from keyword import iskeyword
from typing import Any, NoReturn

from coatnet_search import __version__
from coatnet_search.cli.options import OPTIONS
from coatnet_search.core.document import one_line
from coatnet_search.core.errors import EXIT_DONE, EXIT_INTERRUPTED, InputError, SetupError, unknown
from coatnet_search.core.redact import Redactor
from coatnet_search.core.screen import LogLines, Screen, format_warning

EXIT_UNEXPECTED = 1
EXIT_BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
DEBUG = "COATNET_SEARCH_DEBUG"  # set to 1: the traceback of an unexpected error is shown

VERBS = {
    "new": "look at your own images and write a space and a study that fit them and this machine",
    "spaces": "the search spaces that come with the package, their size and range of costs",
    "studies": "the studies that come with the package, and what they ask",
    "plan": "check a study and say what it will cost; trains nothing",
    "run": "run a study, or resume it where it was left",
    "submit": "the same as run, as a job on a Ray cluster",
    "merge": "join the records of one study from several machines",
    "import": "make a run of a CSV file of runs that you already have",
    "mirror": "send a whole record to MLflow again",
    "report": "write the page, the pictures and the table of a run; print its front",
    "choose": "choose architectures of a run by its study's rule, as files with reasons",
    "scaling": "which layout wins at which amount of data: a scaling study's answers, each with its probability",
    "published": "what the paper printed for a study's choices, and a run's results beside it",
    "match": "depths and widths that give a layout a wanted cost",
    "train": "train a network in full by a recipe, resumable; test accuracy comes from here",
    "compare": "full trainings beside each other and what the search saw of them",
    "predict": "what a trained network sees on image files",
    "export": "hand a trained network on: safetensors, ONNX, the MLflow registry",
    "profile": "parameters, multiply-adds and activations of architectures; their speed where a device is named",
    "schema": "the JSON Schema of study or space files, for editors",
    "dashboard": "web pages of the runs in a folder, live, on this machine alone",
    "doctor": "what is wrong with this machine, and the mend",
}
_EPILOG = """exit codes: 0 done, 2 bad input, 3 the machine lacks something or nothing could run, 4 finished with failed
trials, 130 interrupted (the same command resumes)"""


class _Parser(argparse.ArgumentParser):
    """Its mistakes are InputErrors: one line, exit code 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ({self.prog} --help tells more)")


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog="coatnet-search",
        description="Which CoAtNet layout to train in full, at which size, for the data that you will have.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"coatnet-search {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True)
    found = {name: verbs.add_parser(name, help=text, description=text) for name, text in VERBS.items()}
    for name, verb in found.items():
        OPTIONS[name](verb)
    return parser, found


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace. Raises InputError with a did-you-mean; --help and --version exit."""
    verb = next((word for word in argv if not word.startswith("-")), None)
    if verb is not None and verb not in VERBS:
        raise InputError(unknown("verb", verb, VERBS))
    if not argv:
        raise InputError(f"expected a verb: {', '.join(VERBS)}; coatnet-search --help tells more")
    parser, verbs = _parser()
    given, extra = parser.parse_known_args(argv)
    option = next((word for word in extra if word.startswith("-")), None)
    if option is not None:
        name = option.partition("=")[0]
        known = sorted(set(re.findall(r"--[a-z][a-z-]*", verbs[given.verb].format_help())))
        if name in known:
            raise InputError(f"{name} comes after the verb: coatnet-search {given.verb} ... {name}")
        raise InputError(unknown(f"option of {given.verb}", name, known))
    if extra:
        raise InputError(f"{given.verb} takes no further argument, got {extra[0]!r}")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; its exit code. Every error that a user can cause is one line on stderr."""
    logging.lastResort, warnings.formatwarning = LogLines(logging.WARNING), format_warning
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except (InputError, SetupError) as error:
        code = _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        code = _complain("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it ends
        code = EXIT_BROKEN_PIPE
    except OSError as error:
        code = _unexpected(error) if error.strerror is None else _complain(_of_system(error), SetupError.exit_code)
    except Exception as error:
        code = _unexpected(error)
    return code


def _run(argv: Sequence[str]) -> int:
    try:
        given = parse(argv)
    except SystemExit as ended:  # of --help and --version
        return ended.code if isinstance(ended.code, int) else EXIT_DONE
    given.results = sys.stdout
    with redirect_stdout(sys.stderr) if getattr(given, "json", False) else nullcontext():
        code: int = _module(given.verb).main(given)  # a library that prints does not spoil the JSON
        return code


def _of_system(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror}"


def _module(verb: str) -> Any:
    """The file of a verb. Raises SetupError where a library that it needs does not import."""
    try:
        return importlib.import_module(f"coatnet_search.cli.commands.{verb}{'_' if iskeyword(verb) else ''}")
    except ImportError as error:
        raise SetupError(f"{error}; `coatnet-search doctor` tells the mend") from None
    except RuntimeError as error:  # of torchvision: its operators were built for another torch
        if "torchvision::" not in str(error):
            raise
        raise SetupError(f"torch and torchvision do not match ({error}); `coatnet-search doctor` tells the mend"
                         ) from None  # fmt: skip


def _complain(message: str, code: int) -> int:
    Screen().note(f"error: {one_line(message)}")
    return code


def _unexpected(error: Exception) -> int:
    """A mistake of ours: a short line, and the traceback in a file that a person can send."""
    text = "".join(traceback.format_exception(error))
    if os.environ.get(DEBUG) == "1":
        Screen().note(text.rstrip("\n"))
    redactor = Redactor.from_environment()
    try:
        with tempfile.NamedTemporaryFile("w", prefix="coatnet-search-", suffix=".txt", delete=False) as file:
            file.write(redactor.text(text))
        where = f"the traceback is in {file.name}"
    except OSError:
        where = f"{DEBUG}=1 shows the traceback"
    first = redactor.text(str(error).splitlines()[0] if str(error) else "no message")
    return _complain(f"unexpected {type(error).__name__}: {first[:200]}; {where}", EXIT_UNEXPECTED)
