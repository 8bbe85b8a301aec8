"""The predictive distribution of curves: what it says and refuses, and that it is right where the truth is known."""

import numpy as np
import pytest

from coatnet_search import fit_curve
from coatnet_search.core.errors import InputError
from coatnet_search.curves.predict import REACH, fit_curves
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
    assert prediction.samples.shape == (2000, 3)
    assert (prediction.low < prediction.value).all() and (prediction.value < prediction.high).all()


def test_the_interval_of_the_log_grows_with_distance():
    prediction = fit_curve(SIZES, noisy(falling(SIZES), 0)).predict(LAST * np.array([1.0, 2.0, 4.0, 8.0, 16.0]))

    assert (np.diff(np.log(prediction.high / prediction.low)) > 0).all()


EXACT = {
    "power": lambda t: 0.25 * t**-0.35,
    "flat power": lambda t: 0.3 * t**-0.15,
    "steep power": lambda t: 0.1 * t**-0.6,
    "power of one": lambda t: 0.05 * t**-1.0,
    "low floor": lambda t: 0.02 + 0.18 * t**-0.4,
    "floor": lambda t: 0.06 + 0.14 * t**-0.5,
    "high floor": lambda t: 0.1 + 0.1 * t**-0.7,
    "slow floor": lambda t: 0.05 + 0.2 * t**-0.25,
    "levels off without a floor": lambda t: 0.2 * ((1 / t + 0.5) / 1.5) ** 0.5,
    "slow start": lambda t: 0.2 * ((t + 0.2) / 1.2) ** -0.6,
}


@pytest.mark.parametrize("name", EXACT)
def test_a_curve_that_its_points_determine_is_followed(name):
    x, ahead = np.array([1000.0, 2000, 4000, 8000, 16000]), np.array([2.0, 4.0, 8.0, 16.0])
    truth = EXACT[name](ahead)

    found = fit_curve(x, EXACT[name](x / x[-1])).predict(ahead * x[-1])

    assert ((found.low <= truth) & (truth <= found.high)).all()
    assert found.value[1] == pytest.approx(truth[1], rel=0.01)
    assert found.value[3] == pytest.approx(truth[3], rel=0.03)


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_the_truth_of_made_curves_lies_in_most_intervals_and_noise_makes_them_wide(noise):
    rng, ahead = np.random.default_rng(5), np.array([4.0, 16.0])
    inside, widths = [], []
    for seed in range(16):
        c, e = rng.uniform(0.15, 0.6), rng.uniform(0.0, 0.15)
        found = fit_curve(SIZES, noisy(falling(SIZES, c, e), seed, noise)).predict(ahead * LAST)
        truth = falling(ahead * LAST, c, e)
        inside.append((found.low <= truth) & (truth <= found.high))
        widths.append(np.log(found.high / found.low))

    assert np.mean(inside) > 0.75
    assert np.mean(widths, axis=0)[1] > np.mean(widths, axis=0)[0] > 3 * noise


def test_many_seeds_of_a_power_law_say_that_it_goes_on():
    x = np.repeat(SIZES, 5)
    y = noisy(0.3 * (x / LAST) ** -0.4, 1, 0.01)

    found = fit_curve(x, y, runs=range(len(x))).predict([8 * LAST])

    assert np.log(found.high / found.low)[0] < 0.4
    assert found.value[0] == pytest.approx(0.3 * 8**-0.4, rel=0.03)


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

    single, several = (fit_curve(SIZES, y, runs=runs) for runs in (["a"] * 6, list("abcdef")))

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

    with pytest.raises(InputError, match=rf"asked at 20 times .* calibrated up to {REACH:g} times"):
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

    assert fit.warnings[0] == "not monotone: the error at x = 5600 is 5.00% above a smaller x's"
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

    pooled = fit_curves([few, *others]).marginal("a", [40 * SIZES[2]])
    alone = fit_curve(few.x, few.error).predict([40 * SIZES[2]])

    assert np.log(pooled.high / pooled.low)[0] < np.log(alone.high / alone.low)[0]


def test_curves_with_the_same_seeds_are_compared_more_sharply():
    x, labels = np.repeat(SIZES, 4), [f"s{i}" for i in range(4)] * 6
    shared = 0.03 * np.random.default_rng(3).standard_normal(24)
    curves = [Curve(name, x, falling(x, c) * np.exp(shared), labels) for name, c in (("a", 0.35), ("b", 0.36))]
    apart = [Curve(c.name, c.x, c.error, [f"{c.name}{label}" for label in labels]) for c in curves]

    gaps = []
    for given in (curves, apart):
        fits = fit_curves(given)
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


def arms(slopes, noise, seeds=3, count=8, world=3):
    """Curves of arms that differ in level and, by ``slopes``, in slope; their true errors at 8 times the last size."""
    rng = np.random.default_rng(world)
    x = np.repeat(SIZES, seeds)
    levels, own = rng.normal(0, 0.05, count), 0.3 + slopes * rng.standard_normal(count)
    curves = [
        Curve(f"arm {i}", x, 0.2 * np.exp(level) * (x / LAST) ** -slope * np.exp(noise * rng.standard_normal(len(x))),
              list(range(seeds)) * len(SIZES))
        for i, (level, slope) in enumerate(zip(levels, own, strict=True))
    ]  # fmt: skip
    return curves, 0.2 * np.exp(levels) * 8**-own


def told_right(scores, truth):
    a, b = np.triu_indices(len(truth), 1)
    return np.mean(np.sign(scores[a] - scores[b]) == np.sign(truth[a] - truth[b]))


def orders(slopes, noise):
    """Shares of pairs told right at 8 times the last size, over four worlds: ours, largest run, own lines."""
    shares = []
    for world in range(4):
        curves, truth = arms(slopes, noise, world=world)
        ours = np.log(fit_curves(curves).predict([8 * LAST]))[:, :, 0].mean(axis=0)
        largest = np.array([np.mean(curve.error[-3:]) for curve in curves])
        lines = np.array([np.polyval(np.polyfit(np.log(curve.x[-12:]), np.log(curve.error[-12:]), 1), np.log(8 * LAST))
                          for curve in curves])  # fmt: skip
        shares.append([told_right(each, truth) for each in (ours, largest, lines)])
    return np.mean(shares, axis=0)


def test_where_arms_fall_alike_the_order_is_that_of_smoothed_levels():
    ours, largest, lines = orders(slopes=0.0, noise=0.08)

    assert ours > largest > lines


def test_where_slopes_differ_the_order_is_that_of_each_arms_own_line():
    ours, largest, lines = orders(slopes=0.08, noise=0.01)

    assert ours > largest + 0.1 and ours > lines - 0.06


def test_the_order_of_the_curves_given_changes_no_answer_but_its_place():
    curves, _ = arms(slopes=0.03, noise=0.02, count=3)
    renamed = [curves[i] for i in (2, 0, 1)]

    one, other = (fit_curves(each).predict([4 * LAST])[:, :, 0] for each in (curves, renamed))

    assert np.median(one, axis=0)[[2, 0, 1]] == pytest.approx(np.median(other, axis=0), rel=0.02)


def test_few_images_are_not_taken_for_a_signal():
    y = np.array([0.05, 0.043, 0.037, 0.032, 0.0275, 0.018])  # the last is 6 of 350 images, where 8 were to be expected

    many, few = (fit_curve(SIZES, y, images=images).predict([LAST]) for images in (1_000_000, 350))

    assert many.value[0] < 0.021
    assert few.value[0] > 0.021 and few.high[0] / few.low[0] > many.high[0] / many.low[0]


def test_an_error_of_none_is_half_a_wrong_image_and_very_uncertain():
    y = 0.3 * (SIZES / SIZES[0]) ** -1.2
    y[-1] = 0.0

    found = fit_curve(SIZES, y, images=200).predict([LAST])

    assert 0.001 < found.low[0] < found.value[0] < found.high[0] < 0.02
    with pytest.raises(InputError, match="expected positive numbers, got 0"):
        fit_curve(SIZES, y)


def odd_curves(values):
    curve = 0.3 * (SIZES / SIZES[0]) ** -0.25
    x = np.append(SIZES[:-1], [LAST] * len(values))
    return [
        Curve("a", x, np.append(curve[:-1], values), list(range(len(x)))),
        Curve("b", SIZES, 0.97 * curve, range(6)),
    ]


def test_a_single_run_that_fits_no_curve_is_told_and_decides_nothing():
    fits = fit_curves(odd_curves([0.03]))

    low, high = np.quantile(fits.predict([LAST])[:, 0, 0], [0.2, 0.8])

    assert any("a single run at x = 22400 (error 0.03) fits no curve" in text for text in fits.warnings)
    assert low < 0.04 and high > 0.1
    assert [one.curve for one in fits.suspects] == [0]


def test_runs_that_agree_off_the_curve_are_believed_and_told_and_leave_the_other_curve_alone():
    fits = fit_curves(odd_curves([0.03, 0.0301]))

    samples = fits.predict([LAST])[:, :, 0]

    assert any("all 2 runs at x = 22400" in text for text in fits.warnings)
    assert np.median(samples[:, 0]) == pytest.approx(0.03, rel=0.1)
    assert np.median(samples[:, 1]) == pytest.approx(0.97 * 0.3 * 32**-0.25, rel=0.1)


def test_a_smooth_curve_has_no_suspects():
    assert fit_curves([Curve("a", SIZES, noisy(falling(SIZES), 0, 0.02))]).suspects == ()
