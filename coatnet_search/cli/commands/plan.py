"""``plan STUDY``: what it will cost, before anything is trained."""

import argparse
import dataclasses

from coatnet_search.cli.commands.shared import checked_study, study_words
from coatnet_search.core.quantities import show
from coatnet_search.core.screen import Screen
from coatnet_search.study.plan import Plan, Range, Training, keep_plan, layouts, make_plan


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    study = checked_study(given)
    screen.note(f"{study.name}: counting networks, then training one for a few steps ...")
    plan = make_plan(study)
    screen.result(dataclasses.asdict(plan))
    screen.facts(_facts(plan))
    if not plan.warnings and (kept := keep_plan(plan)):
        screen.note(f"kept as {kept}: `report` sets what was used beside it")
    for text in plan.warnings:
        screen.warn(text)
    screen.next(["run", *study_words(given)], "runs it" if not plan.warnings else "once the warnings are mended")
    return 0


def _facts(plan: Plan) -> list[tuple[str, str]]:
    survey = plan.networks
    counted = f"{survey.size:,} distinct networks" + ("" if survey.exact else " (estimated)")
    parts = ", ".join(f"{name} {number:,}" for name, number in layouts(survey).items())
    facts = [("study", f"{plan.study}: {plan.question}"), ("space", f"{plan.space}: {counted}: {parts}")]
    if plan.within_limits < 1:
        facts.append(("limits", f"{100 * plan.within_limits:.0f} % of random networks keep the study's own limits"))
    if plan.num_train is not None:
        images = f"{plan.num_train:,} images to train on, {plan.num_val:,} to validate, {plan.num_classes} classes"
        facts.append(("data", images + (f"; {plan.data_note}" if plan.data_note else "")))
        facts += [("", text) for text in plan.data_findings]
    facts += [("parameters", _range("params", plan.params)), ("multiply-adds", _range("macs", plan.macs))]
    if plan.supernet_epochs:
        facts.append(("supernet", f"{plan.supernet_epochs} epochs, before the first trial"))
    epochs = f" of {plan.epochs} epochs each" if plan.epochs else ", without training"
    if plan.rungs:
        epochs = f", which pause after {', '.join(map(str, plan.rungs[:-1]))} of {plan.epochs} epochs"
    again = f"; at most {plan.replicates} of them train again what is near the front" if plan.replicates else ""
    facts.append(("trials", f"{plan.trials}{epochs}{again}"))
    facts += _time(plan.training)
    if plan.audit_trainings:
        facts += [
            ("audit", f"{plan.audit_trainings} trainings of networks alone, after the search"),
            *_time(plan.audit),
        ]
    disk = f"about {plan.run_mib:,.0f} MiB for the run"
    disk += f", {plan.cache_mib:,.0f} MiB for decoded images" if plan.cache_mib else ""
    facts.append(("disk", f"{disk}; {plan.free_mib:,.0f} MiB are free"))
    return facts


def _range(name: str, found: Range) -> str:
    return f"{show(name, found.min)} to {show(name, found.max)}, median {show(name, found.median)} (random networks)"


def _time(training: Training | None) -> list[tuple[str, str]]:
    if training is None:
        return []
    speed = show("throughput_images_per_s", training.images_per_s)
    facts = [("measured", f"{speed} in a few training steps of {show('macs', training.macs)} on {training.device}")]
    if training.device_hours is None or training.hours is None:
        hours = f"{training.hours_per_million_images:.3g} device-hours for a million images"
    else:
        hours = f"{training.device_hours:.2g} device-hours; {training.hours:.2g} hours here"
        hours += f", {training.at_once} trials at once" if training.at_once > 1 else ", one trial at a time"
        hours += f" on {training.workers} workers each" if training.workers > 1 else ""
    why = "assuming that time grows with multiply-adds and that images arrive as fast as they are trained on"
    return [*facts, ("time", f"{hours} ({why})")]
