"""What several verbs share: a study that was named on the command line, the device."""

import argparse
import os
import sys

import torch

from coatnet_search.core.errors import InputError, SetupError
from coatnet_search.search.evaluate import load_trainer
from coatnet_search.study.load import load_study
from coatnet_search.study.study import Study


def checked_study(given: argparse.Namespace) -> Study:
    """The study of ``STUDY --set ... --evaluator ...``; its trainer imports. Raises InputError."""
    if given.evaluator:
        sys.path.insert(0, os.getcwd())  # a trainer may lie beside the study; nothing else is imported from here
        load_trainer(given.evaluator)
    return load_study(given.study, given.sets, given.evaluator)


def study_words(given: argparse.Namespace) -> list[str]:
    """The words of the command line that make the study what it is: they are needed again on resume."""
    words = [given.study]
    if given.sets:
        words += ["--set", *given.sets]
    return [*words, "--evaluator", given.evaluator] if given.evaluator else words


def torch_device(name: str | None) -> torch.device:
    """The device of ``--device``; a GPU where there is one and none is named. Raises InputError, SetupError."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device: expected cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device: expected cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SetupError(f"--device {name}: torch sees {torch.cuda.device_count()} GPUs here")
    return device
