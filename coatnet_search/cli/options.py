"""The options of each verb of the command line, with their help."""

import argparse
from pathlib import Path
from typing import Any

from coatnet_search.cli.option_types import batch_size, count, fraction, limit, numbers, pairs, port, positive, uri
from coatnet_search.figures.sections import BUDGET_S


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON to stdout and everything else to stderr")


def _study(parser: argparse.ArgumentParser, **options: Any) -> None:
    parser.add_argument("study", metavar="STUDY", help="a bundled name (see `studies`) or the path of a YAML file",
                        **options)  # fmt: skip
    parser.add_argument("--set", dest="sets", metavar="A.B=C", nargs="+", action="extend", default=[],
                        help="replace values of the study, as search.trials=8; needed again on resume")  # fmt: skip


def _evaluator(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--evaluator", metavar="PACKAGE.MODULE:FUNCTION",
                        help="train with this function (or entry point) instead; the current folder can be imported "
                        "from")  # fmt: skip


def _run_folder(parser: argparse.ArgumentParser, **options: Any) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a run, as runs/quickstart", **options)


def _new_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="DIR", required=True,
                        help="a folder with one folder of images a class, or parquet files; also as a URI")  # fmt: skip
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path(), help="where the files go (here)")
    parser.add_argument("--name", metavar="N", help="the study's name (the data folder's)")
    parser.add_argument("--set", dest="sets", metavar="data.A=B", nargs="+", action="extend", default=[],
                        help="values of the study's section data, as data.label_column=kind")  # fmt: skip
    _json(parser)


def _plan_options(parser: argparse.ArgumentParser) -> None:
    _study(parser)
    _evaluator(parser)
    _json(parser)


def _run_options(parser: argparse.ArgumentParser) -> None:
    _study(parser)
    _evaluator(parser)
    parser.add_argument("--local", action="store_true", help="one trial after another in this process, without Ray")
    parser.add_argument("--address", metavar="A", type=uri, help="the Ray cluster to join, as auto or ray://HOST:10001")
    parser.add_argument("--workers", metavar="N", type=count, help="at most so many trials at once")
    parser.add_argument("--minutes", metavar="M", type=positive, help="stop cleanly after so long; run again goes on")
    parser.add_argument("--fork", metavar="NAME", help="run the changed study as NAME, started with those trials of "
                        "its record that would be the same work")  # fmt: skip
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="where runs are kept (runs)")
    _json(parser)


def _submit_options(parser: argparse.ArgumentParser) -> None:
    _study(parser)
    _evaluator(parser)
    parser.add_argument("--address", metavar="A", type=uri, default="http://127.0.0.1:8265",
                        help="the cluster's job server: its dashboard's address (http://127.0.0.1:8265)")  # fmt: skip
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


def _merge_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folders of runs of the same study")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the new run's folder")


def _mirror_options(parser: argparse.ArgumentParser) -> None:
    _run_folder(parser)
    parser.add_argument(
        "--uri", type=uri, help="MLflow tracking URI (the study's, else the SQLite file beside the run)"
    )
    parser.add_argument("--experiment", help="name of the MLflow experiment (the study's)")


def _report_options(parser: argparse.ArgumentParser) -> None:
    _run_folder(parser)
    parser.add_argument("--markdown", action="store_true", help="print the summary as Markdown")
    parser.add_argument(
        "--published",
        action="store_true",
        help="draw the published ImageNet-1K points of CoAtNet and its peers, for comparison",
    )
    parser.add_argument("--up-to", metavar="N", type=positive, help="of a scaling study: fit on regimes of at most so "
                        "many images and predict the larger ones")  # fmt: skip
    parser.add_argument("--section-seconds", metavar="S", type=positive, default=BUDGET_S, help="longest time for one "
                        f"section, which is left out and named when it takes longer ({BUDGET_S:g})")  # fmt: skip
    _json(parser)


def _import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="RUNS.csv", type=Path, help="runs of your own, one a row, with a heading")
    parser.add_argument("--columns", metavar="NAME=COLUMN,...", type=pairs, nargs="+", action="extend", default=[],
                        help="what its columns are: arm=layout,num_images=n,error=err; a column with a name of ours "
                        "needs none, and state= leaves it out")  # fmt: skip
    parser.add_argument("--out", metavar="DIR", type=Path, help="the new run's folder (runs/NAME)")
    parser.add_argument("--name", metavar="N", help="the study's name (the file's)")
    parser.add_argument("--num-val", metavar="N", type=count, help="images that the errors were measured on: tells how "
                        "much of them is chance")  # fmt: skip
    _json(parser)


def _choose_options(parser: argparse.ArgumentParser) -> None:
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


def _scaling_options(parser: argparse.ArgumentParser) -> None:
    _run_folder(parser)
    parser.add_argument("--at-data", metavar="N", type=positive, nargs="+", action="extend", default=[],
                        help="training images to answer for (the largest regime, and 2, 4, 16 times that)")  # fmt: skip
    parser.add_argument("--at-compute", metavar="C", type=positive,
                        help="only what trains there within so many multiply-adds")  # fmt: skip
    parser.add_argument("--target-error", metavar="E", type=fraction, help="how many images each needs for this error "
                        "(a fraction, as 0.2)")  # fmt: skip
    parser.add_argument("--compute", metavar="C", type=positive, nargs="+", action="extend", default=[],
                        help="what so many multiply-adds of training buy: which arm, on how many images")  # fmt: skip
    parser.add_argument("--most-images", metavar="N", type=positive, help="with --compute: the images that there are")
    parser.add_argument("--up-to", metavar="N", type=positive, help="fit on regimes of at most so many images and "
                        "predict the larger ones")  # fmt: skip
    parser.add_argument("--register", metavar="FILE", type=Path, help="write what is predicted at --at-data to a "
                        "file with its hash, before those runs exist")  # fmt: skip
    parser.add_argument("--score", metavar="FILE", type=Path, help="score a registered forecast by the runs that were "
                        "made since")  # fmt: skip
    parser.add_argument("--form", metavar="F", help="one form of scaling law in place of the default's average")
    parser.add_argument("--beyond", action="store_true", help="predict beyond the calibrated distance too")
    _json(parser)


def _published_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY_OR_RUN", nargs="?", help="a study, or the folder of its run (without "
                        "one: the bundled studies that have published results)")  # fmt: skip
    _json(parser)


def _match_options(parser: argparse.ArgumentParser) -> None:
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


def _train_options(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--address", metavar="A", type=uri, help="the Ray cluster of the workers, as auto")
    parser.add_argument("--print-recipe", action="store_true", help="show the values for this network, train nothing")
    _json(parser)


def _compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("outs", metavar="OUT", type=Path, nargs="+", help="folders of `train`")
    _json(parser)


def _predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=Path, help="a folder that `train` or `export` has written")
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--top", metavar="K", type=count, default=5, help="classes an image (5)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N (a GPU where there is one)")
    _json(parser)


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=Path, help="a folder that `train` has written")
    parser.add_argument("--format", metavar="F", nargs="+", default=["safetensors"],
                        choices=("safetensors", "onnx", "mlflow"), help="safetensors, onnx, mlflow")  # fmt: skip
    parser.add_argument("--out", metavar="DIR", type=Path, help="where the files go (MODEL/export)")
    parser.add_argument("--uri", type=uri, help="MLflow tracking URI (sqlite:///runs/mlflow.db)")
    parser.add_argument("--name", metavar="N", help="the model's name in the MLflow registry (the folder's)")
    parser.add_argument("--alias", metavar="A", default="latest-trained", help="its alias there (latest-trained)")
    _json(parser)


def _profile_options(parser: argparse.ArgumentParser) -> None:
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


def _schema_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", choices=("study", "space"), help="study or space")


def _dashboard_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUNS", type=Path, nargs="?", default=Path("runs"),
                        help="the folder of runs, or one run (runs)")  # fmt: skip
    parser.add_argument("--port", metavar="P", type=port, default=8501, help="where the pages are (8501)")
    parser.add_argument("--host", metavar="ADDRESS", help="serve others too, as 0.0.0.0: they see all runs, without a "
                        "password (127.0.0.1: this machine alone)")  # fmt: skip


def _doctor_options(parser: argparse.ArgumentParser) -> None:
    _study(parser, nargs="?")
    parser.add_argument(
        "--address", metavar="A", type=uri, help="look at the nodes of this Ray cluster too, as auto or HOST:PORT"
    )
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="where runs are kept (runs)")
    _json(parser)


OPTIONS = {
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
