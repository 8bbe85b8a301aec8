"""Checks a study beyond its file: every name that it mentions exists, and what it asks for can be had."""

import dataclasses

from coatnet_search import strategies
from coatnet_search.architecture.peers import label
from coatnet_search.architecture.timm_names import check_name
from coatnet_search.core.errors import InputError, unknown
from coatnet_search.core.schema import Document
from coatnet_search.data import DATASETS
from coatnet_search.space.space import COST_METRICS
from coatnet_search.strategies import check_objectives, make_strategy
from coatnet_search.study.file import StudyFile
from coatnet_search.study.study import PLACES, TRAINED_METRICS, Study
from coatnet_search.training import measurements
from coatnet_search.training.measurements import load_measurement
from coatnet_search.training.recipe import make_recipe


def check_names(study: Study, source: Document) -> None:
    """Every name a study mentions is one that exists, and what it asks for can be measured."""
    file = study.file
    if file.equal_cost is None:
        _check_strategy(file, source)
        _check_halving(study, source)
    _check_peers(study, source)
    _check_supernet(study, source)
    if file.data.name not in DATASETS:
        raise source.error(("data", "name"), unknown("data set", file.data.name, DATASETS))
    for place, name in enumerate(file.measure):
        if name not in measurements.menu():
            raise source.error(("measure", place), unknown("measurement", name, measurements.menu()))
    _check_audit(study, source)
    _check_workers(study, source)
    _check_end(study, source)
    _check_tune(study, source)
    _check_published(study, source)
    if study.evaluator:  # a trainer of the user's may yield further names
        return
    for block, names in (("objectives", file.objectives), ("limits", file.limits), ("choose", file.choose.limit)):
        for name in names:
            if name not in study.metrics:
                where = (block, "limit", name) if block == "choose" else (block, name)
                raise source.error(where, _no_metric(name, study))


def _check_strategy(file: StudyFile, source: Document) -> None:
    if file.search.strategy not in strategies.menu():
        raise source.error(("search", "strategy"), unknown("strategy", file.search.strategy, strategies.menu()))
    try:
        make_strategy(file.search.strategy, **file.search.options)
    except InputError as error:
        raise source.error(("search", "options"), str(error)) from None
    try:
        check_objectives(file.search.strategy, len(file.objectives))
    except InputError as error:
        raise source.error(("search", "strategy"), str(error)) from None


def _check_halving(study: Study, source: Document) -> None:
    """The epochs can be split, there are enough trials to choose among, and rungs show what is to be chosen by."""
    asked, where = study.file.search.halving, ("search", "halving")
    if asked is None:
        return
    try:
        assert study.halving is not None
    except InputError as error:
        raise source.error(where, str(error)) from None
    if (study.file.search.trials or 0) < asked.factor:
        raise source.error((*where, "factor"), f"of {asked.factor} trials one goes on, and search.trials is "
                           f"{study.file.search.trials}; ask for more trials or write a smaller factor")  # fmt: skip
    known = (*COST_METRICS, *study.measured)
    if all(name in known for name in study.file.objectives):
        raise source.error(where, "no objective is learned in training, so epochs tell nothing about it; remove it")


def _check_peers(study: Study, source: Document) -> None:
    labels: list[str] = []
    for place, spec in enumerate(study.file.peers):
        try:
            check_name(spec.timm)
            make_recipe({**dataclasses.asdict(study.recipe), **spec.recipe})
        except InputError as error:
            key, _, message = str(error).partition(": ")  # recipe.KEY: what is wrong with it
            at = ("recipe", key.removeprefix("recipe.")) if key.startswith("recipe.") else ("timm",)
            raise source.error(("peers", place, *at), message if len(at) > 1 else str(error)) from None
        if label(spec) in labels:
            raise source.error(("peers", place), f"{label(spec)} a second time; remove it")
        if study.evaluator and spec.evaluate != "measured":
            raise source.error(("peers", place), "a trainer of your own trains architectures, not networks of timm; "
                               "write evaluate: measured, or remove the peer")  # fmt: skip
        labels.append(label(spec))


def _check_supernet(study: Study, source: Document) -> None:
    if study.file.supernet is None:
        return
    if study.evaluator:
        raise source.error(("evaluate",), "a trainer of your own gives its own weights; write evaluate: trained")
    try:
        assert study.supernet_recipe.epochs
    except InputError as error:
        key, _, message = str(error).partition(": ")  # recipe.KEY: what is wrong with it
        own = key.removeprefix("recipe.") in study.file.supernet.recipe
        at = ("supernet", "recipe") if own else ("recipe",)
        raise source.error((*at, key.removeprefix("recipe.")), message) from None


def _check_audit(study: Study, source: Document) -> None:
    if study.file.audit is None:
        return
    try:
        _ = study.audit_recipe
    except InputError as error:
        key, _, message = str(error).partition(": ")  # recipe.KEY: what is wrong with it
        raise source.error(("audit", "recipe", key.removeprefix("recipe.")), message) from None


def _check_workers(study: Study, source: Document) -> None:
    """Several workers train a trial as one does that looks at as many images at once."""
    workers, where = study.file.resources.workers, ("resources", "workers")
    if workers == 1:
        return
    if study.evaluator:
        raise source.error(where, "a trainer of your own is one process; remove it")
    if study.file.evaluate != "trained":
        raise source.error(where, f"nothing is trained in a trial with evaluate: {study.file.evaluate}; remove it")
    batch, at_once = study.recipe.batch_size, study.recipe.micro_batch
    if not at_once or batch % (at_once * workers):
        raise source.error(where, f"{workers} workers share a batch of {batch} in parts of recipe.micro_batch, which "
                           f"is what a BatchNorm sees, whoever trains; it is {at_once}, write a number that divides "
                           f"{batch / workers:g}")  # fmt: skip


def _check_published(study: Study, source: Document) -> None:
    """A printed result is of a choice that the study has."""
    for place, one in enumerate(study.file.published):
        for name, value in one.where.items():
            at = ("published", place, "where", name)
            known = study.file.layouts if name == "layout" else study.space.choices.get(name, ())
            if name not in (*PLACES, *study.space.choices):
                raise source.error(at, unknown("dimension", name, [*study.space.choices, *PLACES]))
            if known and value not in known:
                raise source.error(at, f"{value!r} is not among {list(known)}")


def _check_end(study: Study, source: Document) -> None:
    """What is measured after the search can neither steer it nor rule a candidate out."""
    if study.file.measure_when == "end":
        for block, names in (("objectives", study.file.objectives), ("limits", study.file.limits)):
            for name in names:
                if name in study.measured:
                    raise source.error(("measure_when",), f"{name} is measured after the search, and {block} need it "
                                       "during the search; write measure_when: start")  # fmt: skip


def _check_tune(study: Study, source: Document) -> None:
    if study.file.tune is None:
        return
    if study.evaluator:
        raise source.error(("tune",), "a trainer of your own has a recipe of its own; remove tune")
    for key, values in study.file.tune.values().items():
        for place, value in enumerate(values):
            try:
                study.recipe_with({key: value})
            except InputError as error:
                raise source.error(("tune", key, place), str(error)) from None


def _no_metric(name: str, study: Study) -> str:
    if name in TRAINED_METRICS:
        return f"{name} is known only of trained networks; this study has evaluate: {study.file.evaluate}"
    for what in measurements.menu():
        if name in load_measurement(what).METRICS:
            return f"{name} is not measured; add {what} to measure:"
    return unknown("metric of this study", name, study.metrics)
