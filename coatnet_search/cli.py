"""The command line: one verb a step. This file has the options and the exit codes; ``commands/`` has a file a verb.

A verb's file is imported when the verb is used, so ``--help`` costs neither torch nor timm nor Ray. Results go to
stdout, all else to stderr; with ``--json`` stdout is JSON and nothing else.
"""

import argparse
import importlib
import math
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from keyword import iskeyword
from pathlib import Path
from typing import Any, NoReturn

from coatnet_search import __version__
from coatnet_search.errors import EXIT_DONE, EXIT_INTERRUPTED, InputError, SetupError, unknown
from coatnet_search.redact import Redactor

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


def number(text: str) -> float:
    """A finite number as ``float`` reads it: 4.2e9, 2e-3."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return value


def positive(text: str) -> float:
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def count(text: str) -> int:
    """A whole number of at least 1; 1e3 is one too."""
    value = number(text)
    if not value.is_integer() or value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(value)


def port(text: str) -> int:
    value = count(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"expected a port, 1 to 65535, got {text!r}")
    return value


def batch_size(text: str) -> int | str:
    """A whole number of images, or ``best``."""
    return text if text == "best" else count(text)


def numbers(text: str) -> tuple[int, ...]:
    """``0,1,2``: whole numbers of at least 0."""
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas between, such as 0,1,2, got {text!r}")
    return tuple(int(part) for part in parts)


def limit(text: str) -> tuple[str, float]:
    """``macs=4.2e9`` as (name, number)."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected METRIC=NUMBER such as macs=4.2e9, got {text!r}")
    try:
        return name, number(value)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{name}: {error}") from None


def pairs(text: str) -> list[tuple[str, str]]:
    """``arm=layout,error=err`` as [(arm, layout), (error, err)]."""
    found = [part.partition("=") for part in text.split(",") if part]
    for name, equals, column in found:
        if not (name and equals and column):
            raise argparse.ArgumentTypeError(f"expected NAME=COLUMN,... such as arm=layout,error=err, got {text!r}")
    return [(name.strip(), column.strip()) for name, _, column in found]


# --- the options of each verb ----------------------------------------------------------------------------------------


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
        _OPTIONS[name](verb)
    return parser, found


def _json(parser: _Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON to stdout and everything else to stderr")


def _study(parser: _Parser, **options: Any) -> None:
    parser.add_argument("study", metavar="STUDY", help="a bundled name (see `studies`) or the path of a YAML file",
                        **options)  # fmt: skip
    parser.add_argument("--set", dest="sets", metavar="A.B=C", nargs="+", action="extend", default=[],
                        help="replace values of the study, as search.trials=8; needed again on resume")  # fmt: skip


def _evaluator(parser: _Parser) -> None:
    parser.add_argument("--evaluator", metavar="PACKAGE.MODULE:FUNCTION",
                        help="train with this function (or entry point) instead; the current folder can be imported "
                        "from")  # fmt: skip


def _run_folder(parser: _Parser, **options: Any) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a run, as runs/quickstart", **options)


def _new_options(parser: _Parser) -> None:
    parser.add_argument("--data", metavar="DIR", type=Path, required=True,
                        help="a folder with one folder of images a class, or parquet files")  # fmt: skip
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path(), help="where the files go (here)")
    parser.add_argument("--name", metavar="N", help="the study's name (the data folder's)")
    _json(parser)


def _plan_options(parser: _Parser) -> None:
    _study(parser)
    _evaluator(parser)
    _json(parser)


def _run_options(parser: _Parser) -> None:
    _study(parser)
    _evaluator(parser)
    parser.add_argument("--local", action="store_true", help="one trial after another in this process, without Ray")
    parser.add_argument("--address", metavar="A", help="the Ray cluster to join, as auto or ray://HOST:10001")
    parser.add_argument("--workers", metavar="N", type=count, help="at most so many trials at once")
    parser.add_argument("--minutes", metavar="M", type=positive, help="stop cleanly after so long; run again goes on")
    parser.add_argument("--fork", metavar="NAME", help="run the changed study as NAME, started with those trials of "
                        "its record that would be the same work")  # fmt: skip
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="where runs are kept (runs)")
    _json(parser)


def _submit_options(parser: _Parser) -> None:
    _study(parser)
    _evaluator(parser)
    parser.add_argument("--address", metavar="A", default="http://127.0.0.1:8265", help="the cluster's job server: its "
                        "dashboard's address (http://127.0.0.1:8265)")  # fmt: skip
    parser.add_argument("--workers", metavar="N", type=count, help="at most so many trials at once")
    parser.add_argument(
        "--minutes", metavar="M", type=positive, help="stop cleanly after so long; submit again goes on"
    )
    parser.add_argument("--runs", metavar="DIR", type=Path, required=True, help="where runs are kept: an absolute path "
                        "that all nodes share")  # fmt: skip
    parser.add_argument("--env", metavar="NAME", nargs="+", action="extend", default=[],
                        help="variables of this environment that the job gets, as AWS_PROFILE")  # fmt: skip
    parser.add_argument("--no-wait", action="store_true", help="do not follow its lines until it ends")
    _json(parser)


def _merge_options(parser: _Parser) -> None:
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folders of runs of the same study")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the new run's folder")


def _mirror_options(parser: _Parser) -> None:
    _run_folder(parser)
    parser.add_argument("--uri", help="MLflow tracking URI (the study's, else the SQLite file beside the run)")
    parser.add_argument("--experiment", help="name of the MLflow experiment (the study's)")


def _report_options(parser: _Parser) -> None:
    _run_folder(parser)
    parser.add_argument("--markdown", action="store_true", help="print the summary as Markdown")
    parser.add_argument(
        "--published",
        action="store_true",
        help="draw the published ImageNet-1K points of CoAtNet and its peers, for comparison",
    )
    parser.add_argument("--up-to", metavar="N", type=positive, help="of a scaling study: fit on regimes of at most so "
                        "many images and predict the larger ones")  # fmt: skip
    _json(parser)


def _import_options(parser: _Parser) -> None:
    parser.add_argument("file", metavar="RUNS.csv", type=Path, help="runs of your own, one a row, with a heading")
    parser.add_argument("--columns", metavar="NAME=COLUMN,...", type=pairs, nargs="+", action="extend", default=[],
                        help="what its columns are: arm=layout,num_images=n,error=err; a column with a name of ours "
                        "needs none")  # fmt: skip
    parser.add_argument("--out", metavar="DIR", type=Path, help="the new run's folder (runs/NAME)")
    parser.add_argument("--name", metavar="N", help="the study's name (the file's)")
    parser.add_argument("--num-val", metavar="N", type=count, help="images that the errors were measured on: tells how "
                        "much of them is chance")  # fmt: skip
    _json(parser)


def _choose_options(parser: _Parser) -> None:
    _run_folder(parser)
    parser.add_argument("--limit", metavar="METRIC=NUMBER", type=limit, nargs="+", action="extend", default=[],
                        help="what a chosen one keeps, as macs=4.2e9; laid over the study's own limits")  # fmt: skip
    parser.add_argument("--top", metavar="K", type=count, help="how many (the study's number)")
    parser.add_argument("--layout", metavar="NAME", nargs="+", action="extend", default=[],
                        help="of a search with inherited scores: among these layouts alone")  # fmt: skip
    parser.add_argument("--at-data", metavar="N", type=positive,
                        help="of a scaling study: by predicted error at so many training images")  # fmt: skip
    parser.add_argument("--at-compute", metavar="C", type=positive,
                        help="with --at-data: only what trains there within so many multiply-adds")  # fmt: skip
    parser.add_argument("--beyond", action="store_true", help="predict beyond the calibrated distance too")
    _json(parser)


def _scaling_options(parser: _Parser) -> None:
    _run_folder(parser)
    parser.add_argument("--at-data", metavar="N", type=positive, nargs="+", action="extend", default=[],
                        help="training images to answer for (the largest regime, and 2, 4, 16 times that)")  # fmt: skip
    parser.add_argument("--at-compute", metavar="C", type=positive,
                        help="only what trains there within so many multiply-adds")  # fmt: skip
    parser.add_argument("--target-error", metavar="E", type=positive, help="how many images each needs for this error "
                        "(a fraction, as 0.2)")  # fmt: skip
    parser.add_argument("--compute", metavar="C", type=positive, nargs="+", action="extend", default=[],
                        help="what so many multiply-adds of training buy: which arm, on how many images")  # fmt: skip
    parser.add_argument("--most-images", metavar="N", type=positive, help="with --compute: the images that there are")
    parser.add_argument("--up-to", metavar="N", type=positive, help="fit on regimes of at most so many images and "
                        "predict the larger ones")  # fmt: skip
    parser.add_argument("--form", metavar="F", help="one form of scaling law in place of the default's average")
    parser.add_argument("--beyond", action="store_true", help="predict beyond the calibrated distance too")
    _json(parser)


def _published_options(parser: _Parser) -> None:
    parser.add_argument("study", metavar="STUDY_OR_RUN", nargs="?", help="a study, or the folder of its run (without "
                        "one: the bundled studies that have published results)")  # fmt: skip
    _json(parser)


def _match_options(parser: _Parser) -> None:
    parser.add_argument("layout", metavar="LAYOUT", help="the letters of the stages, as C-C-T-T; or vit-rel")
    parser.add_argument("--macs", metavar="N", type=positive, required=True, help="wanted multiply-adds, as 4.2e9")
    parser.add_argument("--params", metavar="N", type=positive, help="wanted parameters, as 2.5e7 (any)")
    parser.add_argument("--tolerance", metavar="R", type=positive, default=0.05, help="relative, of macs (0.05)")
    parser.add_argument("--params-tolerance", metavar="R", type=positive, help="relative, of params (as --tolerance)")
    parser.add_argument("--space", metavar="S", help="a bundled space or a YAML file (the paper's family, resized)")
    parser.add_argument("--instances", metavar="K", type=count, default=1, help="how many, different in shape (1)")
    parser.add_argument("--image-size", metavar="S", type=count, help="side in pixels, without --space (224)")
    parser.add_argument("--num-classes", metavar="N", type=count, help="classes to tell apart (1000, or the space's)")
    parser.add_argument("--throughput", metavar="N", type=positive,
                        help="keep those that measure so many images/s on --device, within --tolerance")  # fmt: skip
    parser.add_argument("--device", metavar="D", help="where the throughput is measured, as cpu or cuda")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write the networks there, a YAML file each")
    _json(parser)


def _train_options(parser: _Parser) -> None:
    parser.add_argument(
        "arch", metavar="ARCH", help="coatnet-0, a layout (C-C-T-T), a file of `choose`, RUN:ID, or timm:NAME"
    )
    parser.add_argument("--recipe", metavar="NAME[@SIZE]", nargs="+", required=True,
                        help="how it is trained, at an image size; several are a chain: each goes on with the weights "
                        "of the one before")  # fmt: skip
    parser.add_argument("--data", metavar="D", help="a folder of images (train/, test/), parquet files, or the name of "
                        "a data set: digits, cifar10:FOLDER")  # fmt: skip
    parser.add_argument(
        "--set",
        dest="sets",
        metavar="A=B",
        nargs="+",
        action="extend",
        default=[],
        help="replace values of the recipe (lr=1e-3; 2.lr=1e-4: of the second) or of data.KEY",
    )
    parser.add_argument("--seeds", metavar="N,N", type=numbers, default=(0,), help="one training a seed (0)")
    parser.add_argument("--epochs", metavar="N", type=count, help="of every recipe (its own)")
    parser.add_argument("--weights", metavar="W", help="start from these: a .safetensors file, a folder of `train`, "
                        "RUN:ID of an interrupted trial; inherited: of its RUN's supernet; pretrained: timm's, where "
                        "they are here")  # fmt: skip
    parser.add_argument("--image-size", metavar="S", type=count, help="side in pixels (the file's, the data's, 224)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where everything goes (runs/train/ARCH-RECIPE)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N (a GPU where there is one)")
    parser.add_argument("--workers", metavar="N", type=count, help="train on so many workers with Ray Train")
    parser.add_argument("--address", metavar="A", help="the Ray cluster of the workers, as auto")
    parser.add_argument("--print-recipe", action="store_true", help="show the values for this network, train nothing")
    _json(parser)


def _compare_options(parser: _Parser) -> None:
    parser.add_argument("outs", metavar="OUT", type=Path, nargs="+", help="folders of `train`")
    _json(parser)


def _predict_options(parser: _Parser) -> None:
    parser.add_argument("model", metavar="MODEL", type=Path, help="a folder that `train` or `export` has written")
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--top", metavar="K", type=count, default=5, help="classes an image (5)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N (a GPU where there is one)")
    _json(parser)


def _export_options(parser: _Parser) -> None:
    parser.add_argument("model", metavar="MODEL", type=Path, help="a folder that `train` has written")
    parser.add_argument("--format", metavar="F", nargs="+", default=["safetensors"],
                        choices=("safetensors", "onnx", "mlflow"), help="safetensors, onnx, mlflow")  # fmt: skip
    parser.add_argument("--out", metavar="DIR", type=Path, help="where the files go (MODEL/export)")
    parser.add_argument("--uri", help="MLflow tracking URI (sqlite:///runs/mlflow.db)")
    parser.add_argument("--name", metavar="N", help="the model's name in the MLflow registry (the folder's)")
    parser.add_argument("--alias", metavar="A", default="latest-trained", help="its alias there (latest-trained)")
    _json(parser)


def _profile_options(parser: _Parser) -> None:
    parser.add_argument("archs", metavar="ARCH", nargs="+",
                        help="coatnet-0, a layout (C-C-T-T), one at a cost (C-C-T-T@4.2e9), a YAML file, RUN:ID, or "
                        "timm:NAME")  # fmt: skip
    parser.add_argument("--image-size", metavar="S", type=count, help="side in pixels (224, or the file's)")
    parser.add_argument("--num-classes", metavar="N", type=count, help="classes to tell apart (1000, or the file's)")
    parser.add_argument("--in-channels", metavar="C", type=count, help="channels of an image (3, or the file's)")
    parser.add_argument("--device", metavar="D", help="measure the throughput on this device, as cpu or cuda")
    parser.add_argument("--batch-size", metavar="B", type=batch_size,
                        help="images at once, or best: doubled until it gains nothing (CPU: 32, GPU: 256)")  # fmt: skip
    parser.add_argument("--best", action="store_true",
                        help="try memory formats, folding, compilation and precisions on the device")  # fmt: skip
    parser.add_argument("--counter", choices=("torch", "fvcore"), default="torch",
                        help="who counts the multiply-adds; fvcore runs the network on the CPU")  # fmt: skip
    _json(parser)


def _schema_options(parser: _Parser) -> None:
    parser.add_argument("kind", metavar="KIND", choices=("study", "space"), help="study or space")


def _dashboard_options(parser: _Parser) -> None:
    parser.add_argument("runs", metavar="RUNS", type=Path, nargs="?", default=Path("runs"),
                        help="the folder of runs, or one run (runs)")  # fmt: skip
    parser.add_argument("--port", metavar="P", type=port, default=8501, help="where the pages are (8501)")
    parser.add_argument("--host", metavar="ADDRESS", help="serve others too, as 0.0.0.0: they see all runs, without a "
                        "password (127.0.0.1: this machine alone)")  # fmt: skip


def _doctor_options(parser: _Parser) -> None:
    _study(parser, nargs="?")
    parser.add_argument(
        "--address", metavar="A", help="look at the nodes of this Ray cluster too, as auto or HOST:PORT"
    )
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="where runs are kept (runs)")
    _json(parser)


_OPTIONS = {
    "new": _new_options,
    "spaces": _json,
    "studies": _json,
    "plan": _plan_options,
    "run": _run_options,
    "submit": _submit_options,
    "merge": _merge_options,
    "import": _import_options,
    "mirror": _mirror_options,
    "report": _report_options,
    "choose": _choose_options,
    "scaling": _scaling_options,
    "published": _published_options,
    "match": _match_options,
    "train": _train_options,
    "compare": _compare_options,
    "predict": _predict_options,
    "export": _export_options,
    "profile": _profile_options,
    "schema": _schema_options,
    "dashboard": _dashboard_options,
    "doctor": _doctor_options,
}


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


# --- running a verb --------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; its exit code. Every error that a user can cause is one line on stderr."""
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
        return importlib.import_module(f"coatnet_search.commands.{verb}{'_' if iskeyword(verb) else ''}")
    except ImportError as error:
        raise SetupError(f"{error}; `coatnet-search doctor` tells the mend") from None
    except RuntimeError as error:  # of torchvision: its operators were built for another torch
        if "torchvision::" not in str(error):
            raise
        raise SetupError(f"torch and torchvision do not match ({error}); `coatnet-search doctor` tells the mend"
                         ) from None  # fmt: skip


def _complain(message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"error: {line}", file=sys.stderr)
    return code


def _unexpected(error: Exception) -> int:
    """A mistake of ours: a short line, and the traceback in a file that a person can send."""
    text = "".join(traceback.format_exception(error))
    if os.environ.get(DEBUG) == "1":
        print(text, file=sys.stderr, end="")
    redactor = Redactor.from_environment()
    try:
        with tempfile.NamedTemporaryFile("w", prefix="coatnet-search-", suffix=".txt", delete=False) as file:
            file.write(redactor.text(text))
        where = f"the traceback is in {file.name}"
    except OSError:
        where = f"{DEBUG}=1 shows the traceback"
    first = redactor.text(str(error).splitlines()[0] if str(error) else "no message")
    return _complain(f"unexpected {type(error).__name__}: {first[:200]}; {where}", EXIT_UNEXPECTED)
