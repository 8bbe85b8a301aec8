"""``scaling RUN``: which layout wins at which amount of data, and how sure that is."""

import argparse
import math
from typing import Any

import pandas as pd

from coatnet_search.analysis.compute_frontier import best_for_compute
from coatnet_search.analysis.decisions import decision_figures, pair_table
from coatnet_search.analysis.forecast import forecast, read_forecast, score, write_forecast
from coatnet_search.analysis.scaling import Scaling, fit_scaling
from coatnet_search.analysis.scaling_runs import scaling_runs, settings
from coatnet_search.cli.commands.records import run_record
from coatnet_search.core.errors import InputError
from coatnet_search.core.screen import Screen

AHEAD = (1, 2, 4, 16)  # times the largest regime, where nothing was asked for
ANSWER = {"arm": "arm", "error": "predicted error", "low": "5 %", "high": "95 %", "p_best": "P(best)",
          "expected_regret": "expected regret", "macs": "multiply-adds", "params": "parameters"}  # fmt: skip
CROSSOVER = {"first": "first", "second": "second", "crossover": "crossover (images)", "interval": "90 % of those that "
             "cross", "not_in_range": "P(not in range)", "p_first_always": "P(first always better)",
             "p_second_always": "P(second always better)"}  # fmt: skip

SCORES = {"num_images": "images", "arms": "arms", "inside": "in 90 % interval", "rmse_log": "RMSE of log error",
          "pairs": "pairs", "decision_accuracy": "told right", "brier": "Brier", "best_right": "best arm right",
          "p_of_best": "P(best) of the best"}  # fmt: skip


def main(given: argparse.Namespace) -> int:
    screen = Screen(given.json, given.results)
    if given.most_images is not None and not given.compute:
        raise InputError("--most-images goes with --compute")
    if given.register and (given.score or given.up_to):
        raise InputError("--register goes with neither --score nor --up-to: it predicts what nobody has run")
    frame, study = run_record(given.run)
    if given.score:
        return _score(screen, given, frame)
    num_val = (study.get("data_summary") or {}).get("num_val")
    scaling = fit_scaling(frame, up_to=given.up_to, num_val=num_val, form=given.form)
    targets = given.at_data or [scaling.num_images[-1] * factor for factor in AHEAD
                                if scaling.num_images[-1] * factor <= scaling.reach]  # fmt: skip
    needed = scaling.data_needed(given.target_error) if given.target_error else None
    answers = {target: scaling.at(target, compute=given.at_compute, beyond=given.beyond) for target in targets}
    crossovers = scaling.crossovers()
    bought = {budget: best_for_compute(scaling, budget, most_images=given.most_images, beyond=given.beyond)
              for budget in given.compute}  # fmt: skip
    if given.register:
        ahead = [target for target in targets if given.at_data or target > scaling.num_images[-1]]
        made = forecast(scaling, ahead, study, given.beyond)
        write_forecast(given.register, made)
        screen.note(
            f"registered in {given.register}, sha256 {made['sha256']}: score it with --score when the runs are done"
        )
    decided = decision_figures(scaling)
    found = {**_result(scaling, answers, crossovers, needed, study), "decisions": decided.to_dict("records"),
             "pairs": pair_table(scaling).to_dict("records")}  # fmt: skip
    screen.result({**found, "compute": [{"compute": budget, "arms": table.to_dict("records")}
                                        for budget, table in bought.items()]})  # fmt: skip
    for text in settings(study):
        screen.say(f"{text}.")
    for target, table in answers.items():
        screen.say()
        screen.say(scaling.conclusion(target, compute=given.at_compute, beyond=given.beyond))
        screen.table(ANSWER, _percent(table))
    for budget, table in bought.items():
        screen.say()
        screen.say(f"{budget:.3g} multiply-adds of training buy:")
        screen.table({"arm": "arm", "num_images": "images", **ANSWER}, _percent(table))
    screen.say()
    screen.table(CROSSOVER, [_crossing(row) for row in crossovers.to_dict("records")])
    if needed is not None:
        screen.say()
        screen.table({"arm": "arm", "crossover": f"images for {100 * given.target_error:g} % error", "interval":
                      "90 % of those that reach it", "not_in_range": "P(not in range)"},
                     [_crossing(row) for row in needed.to_dict("records")])  # fmt: skip
    _trust(screen, scaling, study)
    _decisions(screen, scaling, decided)
    also = ["--at-compute", f"{given.at_compute:g}"] if given.at_compute is not None else []
    also += ["--beyond"] if given.beyond else []
    screen.next(["choose", given.run, "--at-data", f"{targets[-1]:.0f}", *also],
                "writes the choice for that much data as files")  # fmt: skip
    return 0


def _score(screen: Screen, given: argparse.Namespace, frame: pd.DataFrame) -> int:
    made = read_forecast(given.score)
    runs = scaling_runs(frame)
    usual = (runs["state"] == "done") & ~runs["doubled"] & runs["tune"].isna()
    rows = score(made, runs[usual]).to_dict("records")
    screen.result({"registered": made["registered"], "sha256": made["sha256"], "targets": rows})
    screen.say(f"registered {made['registered']}, sha256 {made['sha256']}.")
    digits = {"inside": 2, "decision_accuracy": 2, "p_of_best": 2, "brier": 3, "rmse_log": 3}
    screen.table(SCORES, [{str(key): f"{value:.{digits[str(key)]}f}" if key in digits else value
                           for key, value in row.items()} for row in rows])  # fmt: skip
    return 0


def _decisions(screen: Screen, scaling: Scaling, decided: pd.DataFrame) -> None:
    """What the prediction of the held-out regimes was worth, and how many seeds would tell each pair apart there."""
    for row in decided.to_dict("records"):
        share = f", for {100 * row['compute_share']:.2g} % of that regime's compute" if math.isfinite(
            row["compute_share"]) else ""  # fmt: skip
        screen.say(f"decision accuracy at {row['num_images']:,} images: {100 * row['decision_accuracy']:.0f} % of "
                   f"{row['pairs']} pairs{share}; of {row['sure']} called with 95 %, {row['sure_right']:g} are right; "
                   f"Brier {row['brier']:.3f}.")  # fmt: skip
    for row in pair_table(scaling).to_dict("records"):
        seeds = f"{row['seeds']:.0f} seeds" if math.isfinite(row["seeds"]) else "no number of seeds"
        screen.say(
            f"{row['first']} and {row['second']} on {row['num_images']:,} images: {100 * row['gap']:+.2f} points, "
            f"predicted P(first better) {row['p_first']:.2f}; {seeds} of each would tell them apart with 95 %."
        )


def _percent(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Errors as texts in percent; costs stay numbers."""
    rows = table.to_dict("records")
    for row in rows:
        for name in ("error", "low", "high"):
            row[name] = f"{100 * row[name]:.2f} %"
        row["p_best"] = f"{row['p_best']:.2f}"
        if "num_images" in row:
            row["num_images"] = f"{row['num_images']:,.0f}"
    return [{str(key): value for key, value in row.items()} for row in rows]


def _crossing(row: dict[Any, Any]) -> dict[str, Any]:
    known = row["num_images"] == row["num_images"]
    some = row["low"] == row["low"]
    return {
        **row,
        "crossover": f"{row['num_images']:,.0f}" if known else "not in range",
        "interval": f"{row['low']:,.0f} to {row['high']:,.0f}" if some else "none",
        **{name: f"{row[name]:.2f}" for name in ("not_in_range", "p_first_always", "p_second_always") if name in row},
    }


def _trust(screen: Screen, scaling: Scaling, study: dict[str, Any]) -> None:
    """Noise, instances, what was held out, what is too short, tuned to an edge or missing, and warnings of the fit."""
    floor = scaling.noise.iloc[-1]
    screen.say()
    parts = {"between seeds": floor["seed_sd"], "from the number of validation images": floor["binomial_sd"]}
    known = [f"{100 * value:.2g} points {name}" for name, value in parts.items() if math.isfinite(value)]
    alone = "" if math.isfinite(floor["seed_sd"]) else "; one seed says nothing of seeds"
    screen.say(f"noise at {floor['num_images']:,.0f} images: {', '.join(known) or 'unknown'}{alone}.")
    for row in scaling.instances.to_dict("records"):
        screen.say(f"{row['arm']}: its {row['instances']} instances differ by {row['points']:.2g} points (one sd).")
    for row in scaling.check().to_dict("records"):
        screen.say(f"held out: {row['arm']} on {row['num_images']:,} images: {100 * row['error']:.1f} %, predicted "
                   f"{100 * row['predicted']:.1f} % ({100 * row['low']:.1f} to {100 * row['high']:.1f}): "
                   f"{'inside' if row['inside'] else 'OUTSIDE'}")  # fmt: skip
    for row in scaling.too_short.to_dict("records"):
        screen.warn(f"{row['arm']} on {row['num_images']:,} images is trained too briefly: {100 * row['error']:.1f} %, "
                    f"and {100 * row['doubled_error']:.1f} % with twice the epochs")  # fmt: skip
    for row in scaling.tuning(study).to_dict("records"):
        if row["on_edge"]:
            screen.warn(
                f"{row['arm']} on {row['num_images']:,} images: the best {row['key']} is {row['value']:g}, an "
                f"end of {row['tried'][0]:g} to {row['tried'][-1]:g}; a better one may lie beyond"
            )
    for (arm, state), group in scaling.missing.groupby(["arm", "state"]):
        screen.warn(f"{arm}: not in the fit: {len(group)} {state}")
    for text in scaling.warnings:
        screen.warn(text)


def _result(scaling: Scaling, answers: dict[float, pd.DataFrame], crossovers: pd.DataFrame,
            needed: pd.DataFrame | None, study: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    return {
        "settings": settings(study),
        "num_images": scaling.num_images,
        "reach": scaling.reach,
        "answers": [{"num_images": target, "arms": table.to_dict("records")} for target, table in answers.items()],
        "crossovers": crossovers.to_dict("records"),
        "data_needed": None if needed is None else needed.to_dict("records"),
        "noise": scaling.noise.to_dict("records"),
        "instances": scaling.instances.to_dict("records"),
        "held_out": scaling.check().to_dict("records"),
        "too_short": scaling.too_short.to_dict("records"),
        "tuning": scaling.tuning(study).to_dict("records"),
        "missing": scaling.missing.to_dict("records"),
        "warnings": scaling.warnings,
    }
