"""The predictive distribution of curves: what it says and refuses, and that it is right where the truth is known."""

import numpy as np
import pytest

from coatnet_search import fit_curve
from coatnet_search.core.errors import InputError
from coatnet_search.curves.calibration import NONE, Calibration, published_calibration
from coatnet_search.curves.predict import fit_curves
from coatnet_search.curves.summary import Curve

SIZES = np.array([700.0, 1400, 2800, 5600, 11200, 22400])
LAST = SIZES[-1]


def falling(x, c=0.35, e=0.05):
    return e + 0.9 * (np.asarray(x) / 700) ** -c


def noisy(y, seed, sd=0.01):
    return y * np.exp(sd * np.random.default_rng(seed).standard_normal(np.shape(y)))


def test_a_prediction_has_the_shapes_of_what_was_asked():
    prediction = fit_curve(SIZES, noisy(falling(SIZES), 0)).predict([2 * LAST, 4 * LAST, 16 * LAST])

    assert prediction.value.shape == prediction.low.shape == prediction.high.shape == (3,)
    assert prediction.samples.shape == (1000, 3)
    assert (prediction.low < prediction.value).all() and (prediction.value < prediction.high).all()


def test_the_interval_of_the_log_grows_with_distance():
    prediction = fit_curve(SIZES, noisy(falling(SIZES), 0)).predict(LAST * np.array([1.0, 2.0, 4.0, 8.0, 16.0]))

    assert (np.diff(np.log(prediction.high / prediction.low)) > 0).all()


def test_the_truth_of_made_curves_lies_in_nine_of_ten_intervals_or_nearly():
    rng = np.random.default_rng(5)
    held = []
    for seed in range(24):
        c, e = rng.uniform(0.15, 0.6), rng.uniform(0.0, 0.15)
        prediction = fit_curve(SIZES, noisy(falling(SIZES, c, e), seed), draws=300).predict([4 * LAST])
        held.append(prediction.low[0] <= falling(4 * LAST, c, e) <= prediction.high[0])

    assert np.mean(held) > 0.75


def test_the_same_seed_gives_the_same_draws_and_another_gives_others():
    y = noisy(falling(SIZES), 0)

    first, again, other = (fit_curve(SIZES, y, seed=seed).predict([4 * LAST]).samples for seed in (0, 0, 1))

    assert (first == again).all() and (first != other).any()


def test_a_draw_is_one_curve_whatever_sizes_are_asked_for():
    fit = fit_curve(SIZES, noisy(falling(SIZES), 0))

    both, alone = fit.predict([2 * LAST, 8 * LAST]).samples, fit.predict([8 * LAST]).samples

    assert (both[:, 1:] == alone).all()


def test_points_in_any_order_are_one_curve():
    y, order = noisy(falling(SIZES), 0), np.array([3, 0, 5, 1, 4, 2])

    sorted_, mixed = fit_curve(SIZES, y), fit_curve(SIZES[order], y[order])

    assert (mixed.predict([4 * LAST]).value == sorted_.predict([4 * LAST]).value).all()


def test_more_seeds_narrow_the_level_at_the_last_size():
    one = fit_curve(SIZES, noisy(falling(SIZES), 0, sd=0.04))
    x = np.repeat(SIZES, 8)
    eight = fit_curve(x, noisy(falling(x), 0, sd=0.04), runs=[f"{size}/{i}" for size in SIZES for i in range(8)])

    width = [fit.predict([LAST]).samples.std() for fit in (one, eight)]

    assert width[1] < width[0]
    assert eight.fits.noise_sd == pytest.approx(0.04, rel=0.3)


def test_points_of_one_run_tell_less_than_points_of_several():
    y = noisy(falling(SIZES), 0, sd=0.03)

    single, several = (fit_curve(SIZES, y, runs=runs, calibration=NONE) for runs in (["a"] * 6, list("abcdef")))

    assert single.predict([LAST]).samples.std() > several.predict([LAST]).samples.std()


def test_one_form_can_be_asked_for_and_its_parameters_come_at_full_precision():
    fit = fit_curve(SIZES, falling(SIZES), form="floor")

    assert fit.weights == {"floor": pytest.approx(1.0)}
    assert fit.parameters().parameters["e"] == pytest.approx(0.05, rel=1e-4)
    assert fit.predict([4 * LAST]).value[0] == pytest.approx(falling(4 * LAST), rel=0.05)


def test_weights_of_forms_are_probabilities():
    weights = fit_curve(SIZES, noisy(falling(SIZES), 0)).weights

    assert sum(weights.values()) == pytest.approx(1.0) and min(weights.values()) >= 0


def test_targets_beyond_the_calibrated_distance_are_refused_unless_told():
    fit = fit_curve(SIZES, noisy(falling(SIZES), 0))
    reach = published_calibration().reach

    with pytest.raises(InputError, match=rf"asked at 20 times .* calibrated up to {reach:g} times"):
        fit.predict([20 * LAST])
    assert fit.predict([20 * LAST], beyond=True).value.shape == (1,)
    with pytest.raises(InputError, match="out of every range"):
        fit.predict([1e9 * LAST], beyond=True)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (SIZES, [0.5, 0.4, np.nan, 0.3, 0.2, 0.1], "curve: error: expected positive numbers, got nan at position 2"),
        (SIZES, [0.5, 0.4, 0.0, 0.3, 0.2, 0.1], "got 0 at position 2; leave failed runs out"),
        (SIZES, [0.5, 0.4, -1.0, 0.3, 0.2, 0.1], "got -1 at position 2"),
        (SIZES, [0.5, 0.4, 0.3, 0.2, 0.9, 0.1], "curve: diverged: the error at x = 11200 is 4.5 times the smallest"),
        (SIZES[:1], [0.5], "curve: form power needs 2 distinct sizes, got 1; measure more sizes"),
        (SIZES, [0.5, 0.4], "expected as many x as errors"),
        (SIZES, ["a"] * 6, "curve: error: expected numbers"),
        ([], [], "curve: x: expected numbers, got none"),
        (-SIZES, falling(SIZES), "curve: x: expected positive numbers"),
    ],
)
def test_bad_points_are_refused_in_one_line(x, error, message):
    with pytest.raises(InputError, match=message):
        fit_curve(x, error)


def test_too_few_sizes_for_a_named_form_offer_the_simpler_one():
    with pytest.raises(InputError, match="form m4 needs 5 distinct sizes, got 3; form 'floor' needs fewer"):
        fit_curve(SIZES[:3], falling(SIZES[:3]), form="m4")


def test_labels_must_match_the_points():
    with pytest.raises(InputError, match="expected one run label a point, got 2 for 6 points"):
        fit_curve(SIZES, falling(SIZES), runs=["a", "b"])


def test_a_form_of_two_inputs_has_no_curve():
    with pytest.raises(InputError, match="form joint: has no predictive distribution of one variable"):
        fit_curve(SIZES, falling(SIZES), form="joint")


def test_levels_and_targets_that_mean_nothing_are_refused():
    fit = fit_curve(SIZES, falling(SIZES))

    with pytest.raises(InputError, match="level: expected a number between 0 and 1"):
        fit.predict([LAST], level=90)
    with pytest.raises(InputError, match="x_new: expected positive numbers"):
        fit.predict([0.0])


def test_a_curve_that_rises_is_fitted_with_a_warning():
    y = falling(SIZES)
    y[3] = y[2] * 1.05

    fit = fit_curve(SIZES, y)

    assert fit.warnings == ["not monotone: the error at x = 5600 is 5.00% above a smaller x's"]
    assert np.isfinite(fit.predict([2 * LAST]).value).all()


def test_duplicate_sizes_without_labels_are_fitted_with_a_warning():
    x = np.repeat(SIZES, 2)

    fit = fit_curve(x, falling(x))

    assert fit.warnings == ["duplicate x: 12 points at 6 sizes, taken for repeats with seeds of their own"]


def test_names_of_curves_are_their_own():
    curve = Curve("a", SIZES, falling(SIZES))

    with pytest.raises(InputError, match="each with a name of its own"):
        fit_curves([curve, curve])


def test_a_noisy_curve_borrows_from_the_others_of_its_group():
    others = [Curve(f"b{i}", SIZES, noisy(falling(SIZES, 0.3 + 0.02 * i), i, 0.002), group="g") for i in range(4)]
    few = Curve("a", SIZES[:3] * 8, noisy(falling(SIZES[:3] * 8, 0.33), 9, 0.03), group="g")

    pooled = fit_curves([few, *others], calibration=NONE).marginal("a", [40 * SIZES[2]])
    alone = fit_curve(few.x, few.error, calibration=NONE).predict([40 * SIZES[2]])

    assert np.log(pooled.high / pooled.low)[0] < np.log(alone.high / alone.low)[0]


def test_curves_with_the_same_seeds_are_compared_more_sharply():
    x, labels = np.repeat(SIZES, 4), [f"s{i}" for i in range(4)] * 6
    shared = 0.03 * np.random.default_rng(3).standard_normal(24)
    curves = [Curve(name, x, falling(x, c) * np.exp(shared), labels) for name, c in (("a", 0.35), ("b", 0.36))]
    apart = [Curve(c.name, c.x, c.error, [f"{c.name}{label}" for label in labels]) for c in curves]

    gaps = []
    for given in (curves, apart):
        fits = fit_curves(given, calibration=NONE)
        samples = np.log(fits.predict([LAST]))[:, :, 0]
        gaps.append((samples[:, 0] - samples[:, 1]).std())

    assert gaps[0] < 0.7 * gaps[1]


def test_a_seed_that_one_curve_lacks_is_accounted_for():
    x, labels = np.repeat(SIZES, 3), ["lucky", "plain", "unlucky"] * 6
    effect = np.tile([-0.05, 0.0, 0.05], 6)
    full = [Curve(name, x, noisy(falling(x) * np.exp(effect), i, 0.002), labels) for i, name in enumerate("abc")]
    lucky = np.array(labels) == "lucky"
    part = Curve("d", x[lucky], (falling(x) * np.exp(effect))[lucky], ["lucky"] * 6)

    value = fit_curves([*full, part]).marginal("d", [LAST]).value[0]

    assert abs(np.log(value / falling(LAST))) < 0.03


def test_curves_of_one_group_err_together():
    curves = [
        Curve(name, SIZES, noisy(falling(SIZES, c), i), group="g")
        for i, (name, c) in enumerate(zip("ab", (0.3, 0.4), strict=True))
    ]

    samples = np.log(fit_curves(curves).predict([16 * LAST]))[:, :, 0]

    assert np.corrcoef(samples.T)[0, 1] > 0.3


def test_the_shipped_calibration_says_where_it_comes_from():
    shipped = published_calibration()

    assert len(shipped.distances) == len(shipped.factors) and min(shipped.factors) > 0
    assert 0 <= shipped.agreement < 1 and "learning curves" in shipped.provenance


def test_calibration_moves_the_bounds_of_both_intervals_by_their_factors_and_keeps_the_order_of_draws():
    drawn = np.sort(np.random.default_rng(0).normal(-1.0, 0.2, (4001, 1)), axis=0)
    calibration = Calibration((2.0, 4.0), factors=(1.5, 1.2), cores=(0.5, 0.8), agreement=0.0)

    moved = calibration.widened(np.log([2.0]), drawn)

    before, after = (np.quantile(each[:, 0], [0.05, 0.25, 0.5, 0.75, 0.95]) for each in (drawn, moved))
    assert after[2] == pytest.approx(before[2])
    np.testing.assert_allclose((after - after[2])[[0, 1, 3, 4]] / (before - before[2])[[0, 1, 3, 4]],
                               [1.5, 0.5, 0.5, 1.5], rtol=0.01)  # fmt: skip
    assert (np.diff(moved[:, 0]) >= 0).all()


def test_inside_the_measured_range_nothing_is_calibrated():
    drawn = np.random.default_rng(0).normal(-1.0, 0.2, (100, 2))

    moved = published_calibration().widened(np.array([-1.0, 0.0]), drawn)

    np.testing.assert_allclose(moved, drawn)
