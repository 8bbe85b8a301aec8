"""Contract of the forms of scaling law, and of the fit of one form."""

import numpy as np
import pytest

from coatnet_search.core.errors import InputError
from coatnet_search.curves import FORMS, load_form
from coatnet_search.curves.fitting import fit_form

SIZES = np.geomspace(1e3, 1e6, 24)
GRID = np.stack([part.ravel() for part in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e8, 1e11, 6))], axis=1)
REPEATED = np.stack(
    [part.ravel() for part in np.meshgrid(np.geomspace(1e7, 1e9, 4), [1e5, 1e6], [1.0, 4.0, 16.0, 64.0])], axis=1
) * np.array([1.0, 1.0, 1.0])
REPEATED[:, 2] *= REPEATED[:, 1]

TRUTHS = {
    "power": (SIZES, {"b": 8.0, "c": 0.31}, lambda x, b, c: b * x**-c),
    "floor": (SIZES, {"e": 0.07, "b": 20.0, "c": 0.45}, lambda x, e, b, c: e + b * x**-c),
    "shifted": (SIZES, {"b": 25.0, "c": 0.5, "g": 1e-5}, lambda x, b, c, g: b * (1 / x + g) ** c),
    "broken": (
        SIZES,
        {"a": 0.02, "b": 2.0, "c0": 0.1, "c1": 0.5, "d": 3e4, "f": 0.3},
        lambda x, a, b, c0, c1, d, f: a + b * x**-c0 * (1 + (x / d) ** (1 / f)) ** (-c1 * f),
    ),
    "saturating": (
        SIZES,
        {"a": 300.0, "b": 0.7, "c": 0.05, "d": 4e3},
        lambda x, a, b, c, d: a * (x + d) ** -b + c,
    ),
    "joint": (
        GRID,
        {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37},
        lambda x, E, A, B, alpha, beta: E + A * x[:, 0] ** -alpha + B * x[:, 1] ** -beta,
    ),
    "joint_repeated": (
        REPEATED,
        {"E": 0.1, "A": 90.0, "B": 60.0, "alpha": 0.4, "beta": 0.35, "R_star": 9.0},
        lambda x, E, A, B, alpha, beta, R_star: (
            E
            + A * x[:, 0] ** -alpha
            + B * (x[:, 1] * (1 + R_star * (1 - np.exp(-(x[:, 2] / x[:, 1] - 1) / R_star)))) ** -beta
        ),
    ),
}


def m4_curve():
    """Points of M4 with known parameters: x as an explicit function of y, which needs no solver."""
    known = {"e": 0.05, "e0": 0.9, "a": 0.8, "b": 30.0, "c": 0.4}
    y = np.linspace(0.12, 0.8, 24)
    x = ((y - known["e"]) / (known["e0"] - y) ** known["a"] / known["b"]) ** (-1 / known["c"])
    return x, y, known


@pytest.mark.parametrize("name", TRUTHS)
def test_a_form_recovers_its_own_parameters_from_points_without_noise(name):
    x, known, truth = TRUTHS[name]

    fit = fit_form(name, x, truth(x, **known))

    assert dict(fit.parameters) == pytest.approx(known, rel=1e-4)
    assert fit.value(x) == pytest.approx(truth(x, **known), rel=1e-6)


def test_m4_recovers_its_own_parameters_from_points_without_noise():
    x, y, known = m4_curve()

    fit = fit_form("m4", x, y)

    assert dict(fit.parameters) == pytest.approx(known, rel=1e-4)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_has_what_the_menu_promises(name):
    form = load_form(name)
    x = np.ones((2, len(form.columns))) if len(form.columns) > 1 else np.ones(2)

    features = form.features(x, form.starts())

    assert form.name == name
    assert features.shape[:2] == (len(form.starts()), 2) and np.isfinite(features).all() and (features >= 0).all()
    assert form.starts().shape[1] == len(form.bounds)
    assert form.simpler is None or load_form(form.simpler).min_sizes < form.min_sizes


@pytest.mark.parametrize("name", [name for name in FORMS if not name.startswith("joint")])
def test_plausible_curves_of_a_form_pass_through_one_at_the_last_size_and_never_rise(name):
    form = load_form(name)

    linear, shape = form.plausible(np.random.default_rng(0).random((50, form.dimensions)))
    values = form.value(np.geomspace(0.01, 16.0, 30), linear, shape)

    assert form.value(np.ones(1), linear, shape) == pytest.approx(1.0)
    assert (values > 0).all() and (np.diff(values, axis=1) <= 1e-9).all()


@pytest.mark.parametrize(("name", "offer"), [("floor", "form 'power' needs fewer"), ("power", "measure more sizes")])
def test_too_few_sizes_are_refused_with_the_number_needed_and_a_simpler_form(name, offer):
    need = load_form(name).min_sizes

    with pytest.raises(InputError, match=f"form {name} needs {need} distinct sizes, got {need - 1}; {offer}"):
        fit_form(name, SIZES[: need - 1], SIZES[: need - 1] ** -0.3)


def test_inputs_of_another_form_are_refused_with_the_columns_wanted():
    with pytest.raises(InputError, match="form joint: expected x with the columns N, D"):
        fit_form("joint", SIZES, SIZES**-0.3)


def test_an_unknown_form_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="no form named 'powr'; did you mean 'power'"):
        fit_form("powr", SIZES, SIZES**-0.3)


def test_the_covariance_of_a_power_law_is_that_of_the_line_through_its_logs():
    z = np.log(8.0) - 0.3 * np.log(SIZES) + 0.02 * np.random.default_rng(1).standard_normal(len(SIZES))

    fit = fit_form("power", SIZES, np.exp(z))

    log_x = np.log(SIZES)
    slope, level = np.polyfit(log_x, z, 1)
    variance = np.sum((z - slope * log_x - level) ** 2) / (len(z) - 2) / np.sum((log_x - log_x.mean()) ** 2)
    assert fit.parameters["c"] == pytest.approx(-slope)
    assert fit.covariance[1, 1] == pytest.approx(variance, rel=1e-3)


def test_a_floor_stays_below_the_smallest_error():
    y = 0.3 + 0.01 * np.random.default_rng(2).standard_normal(len(SIZES))

    fit = fit_form("floor", SIZES, y)

    assert 0 <= fit.parameters["e"] < y.min()


def test_a_huber_threshold_keeps_outliers_from_moving_the_fit():
    x, known, truth = TRUTHS["floor"]
    y = truth(x, **known)
    y[[3, 11]] *= 1.5

    fit = fit_form("floor", x, y, huber=1e-3)

    assert dict(fit.parameters) == pytest.approx(known, rel=1e-2)


def test_the_joint_form_is_found_from_nearly_every_start_under_a_small_huber_threshold():
    x, known, truth = TRUTHS["joint"]
    y = truth(x, **known) * np.exp(0.005 * np.random.default_rng(3).standard_normal(len(x)))

    fit = fit_form("joint", x, y, huber=1e-3)

    assert fit.optima.num_starts == 9 and fit.optima.share > 0.8
    assert fit.parameters["alpha"] == pytest.approx(known["alpha"], rel=0.2)


def test_the_unit_of_size_and_error_does_not_change_the_curve():
    x, known, truth = TRUTHS["saturating"]
    y = truth(x, **known)

    fit, scaled = fit_form("saturating", x, y), fit_form("saturating", x * 1e6, y * 100)

    assert scaled.value(x * 1e6) == pytest.approx(fit.value(x) * 100, rel=1e-6)
