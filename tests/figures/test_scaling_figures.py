"""Figures and the page's section of a scaling study: every cell is shown, and all numbers are those of ``Scaling``."""

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from frames import STUDY, frame_of, search, trial

from coatnet_search.analysis.front import comparable
from coatnet_search.analysis.scaling import Scaling, fit_scaling
from coatnet_search.analysis.scaling_runs import settings
from coatnet_search.core.errors import InputError
from coatnet_search.figures.report import html_page, write_report
from coatnet_search.figures.scaling import figures, marks
from coatnet_search.figures.scaling.pictures import write_scaling_pictures
from coatnet_search.figures.scaling.summary import Section, scaling_section
from coatnet_search.figures.search.summary import summarize

SIZES = [500, 1000, 2000, 4000, 8000]
BAD = "<script>alert(1)</script>"
SCALING: dict[str, Any] = {
    **STUDY,
    "objectives": {"error": "min", "macs": "min"},
    "equal_cost": {"macs": 4e6, "tolerance": 0.05},
    "recipe": {"name": "small-images"},
    "regimes": {"num_images": SIZES, "min_steps": 1000},
    "match": "steps",
    "choose": {"top": 2},
}
LAWS: dict[str, Callable[[float], float]] = {
    "C-C-C-C": lambda n: 0.1 + 2 * n**-0.4,
    "C-T-T-T": lambda n: 0.02 + 6 * n**-0.45,
    "timm:resnet18": lambda n: 0.2 + 3 * n**-0.4,
}


def world(
    laws: dict[str, Callable[[float], float]] = LAWS, *, sizes: list[int] = SIZES, **values: Any
) -> list[dict[str, Any]]:
    """Made-up runs of two seeds with a little noise; ``values`` replace columns of all of them."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(2):
        for name, law in laws.items():
            for count in sizes:
                error = law(count) * float(np.exp(rng.normal(0, 0.01)))
                attributes = {"peer": name} if name.startswith("timm:") else {"layout": name, "size": 1.0}
                rows.append(
                    trial(len(rows), val_top1=1 - error, num_images=count, seed=seed, train_loss=2 * error, macs=4e6)
                    | {"layout": name, "attributes": attributes, **values}
                )
    return rows


def with_losses() -> list[dict[str, Any]]:
    """The same with a failed run, one of an arm that has none finished, a hole, and a training loss that is NaN."""
    rows = [row for row in world() if (row["layout"], row["num_images"]) != ("C-T-T-T", 4000)]
    rows[3] |= {"state": "failed", "error": None, "val_top1": None, "failure_kind": "nan", "failure_message": "NaN"}
    rows[6] |= {"train_loss": float("nan")}
    rows[7] |= {"error": float("nan"), "val_top1": None}
    rows.append(trial(len(rows), state="failed", val_top1=None, num_images=500)
                | {"layout": "C-C-T-T", "attributes": {"layout": "C-C-T-T"}})  # fmt: skip
    return [row | {"number": number} for number, row in enumerate(rows)]


def beside(count: int) -> list[dict[str, Any]]:
    """Runs of one more arm on one amount of data."""
    return [
        row | {"number": 90 + place} for place, row in enumerate(world({"C-C-T-T": LAWS["C-C-C-C"]}, sizes=[count]))
    ]


@pytest.fixture(scope="module")
def scaling() -> Scaling:
    return fit_scaling(frame_of(*world()), num_val=5000)


@pytest.fixture(scope="module")
def lossy() -> Scaling:
    return fit_scaling(frame_of(*with_losses()), num_val=5000, up_to=4000)


@pytest.fixture(scope="module")
def section() -> Section:
    found = scaling_section(frame_of(*world()), SCALING, 5000)
    assert found is not None
    return found


def text_of(figure: Any) -> str:
    return str(figure.to_json()).encode().decode("unicode_escape")


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["scaling", "lossy"])
def test_each_figure_is_drawn_in_plotly_and_as_a_picture(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    scaling = request.getfixturevalue(which)

    drawn = figures.all_figures(scaling, settings(SCALING), scaling.num_images[-1])
    paths = write_scaling_pictures(scaling, settings(SCALING), scaling.num_images[-1], tmp_path)

    assert [path.stem for path in paths] == list(drawn)
    assert all(path.stat().st_size > 5000 for path in paths)
    assert all(json.loads(figure.to_json()) for figure in drawn.values())


def test_every_figure_says_how_its_points_were_made_and_their_noise(scaling: Scaling) -> None:
    drawn = figures.all_figures(scaling, settings(SCALING), 8000)

    for figure in drawn.values():
        caption = text_of(figure).replace("<br>", " ")
        assert "recipe small-images, untuned" in caption
        assert "equal steps in all regimes, at least 1,000 steps" in caption
        assert "points between seeds (at 8,000 images)" in caption


def test_layouts_have_the_colours_of_the_other_figures_and_peers_a_star(scaling: Scaling) -> None:
    looks = marks.looks(scaling)

    usual = marks.marks.looks(frame_of(*world()))
    assert {arm: look.colour for arm, look in looks.items()} == {arm: look.colour for arm, look in usual.items()}
    assert looks["timm:resnet18"].shape == "star"


def test_sizes_of_a_layout_share_its_colour_and_differ_in_the_dash() -> None:
    rows = world({"C-C-C-C": LAWS["C-C-C-C"]})
    larger = [row | {"attributes": {"layout": "C-C-C-C", "size": 2.0}, "macs": 8e6, "error": row["error"] * 0.8}
              for row in rows]  # fmt: skip
    both = frame_of(*(row | {"number": number} for number, row in enumerate([*rows, *larger])))

    scaling = fit_scaling(both)
    small, large = marks.looks(scaling).values()
    steps = marks.frontier(scaling, 8000)

    assert (small.colour, small.shape) == (large.colour, large.shape)
    assert small.dash != large.dash
    assert steps["best"].tolist() == [True, True]
    assert steps["training_macs"].is_monotonic_increasing


def test_bands_and_answers_are_of_the_same_samples(scaling: Scaling) -> None:
    bands = marks.bands(scaling)

    last = bands[bands["num_images"] == scaling.grid()[-1]].set_index("arm")
    answer = scaling.at(scaling.grid()[-1]).set_index("arm")
    for ours, theirs in (("low", "low"), ("middle", "error"), ("high", "high")):
        assert last[ours].to_dict() == pytest.approx((100 * answer[theirs]).to_dict())


def test_runs_that_are_not_in_the_fit_are_marked(lossy: Scaling) -> None:
    lost = marks.lost(lossy)
    figure = figures.curves(lossy, [], theme="dark")

    (trace,) = (trace for trace in figure.data if trace.name == "not in the fit")
    assert set(zip(lost["arm"], lost["num_images"], lost["state"], strict=True)) >= {
        ("C-C-C-C", 4000, "failed"), ("C-T-T-T", 4000, "not run"), ("C-C-T-T", 500, "failed"),
        ("C-C-T-T", 8000, "not run"),
    }  # fmt: skip
    assert "done without a result" in set(lost["state"])
    assert "C-C-C-C on 4,000 images: 1 failed" in trace.text
    assert len(trace.x) == len(lost)
    assert min(trace.y) > max(marks.bands(lossy)["high"].max(), marks.runs(lossy)["error"].max())


def test_points_that_were_held_out_are_open(lossy: Scaling) -> None:
    figure = figures.curves(lossy, [])

    held = [trace for trace in figure.data if trace.name and trace.name.endswith(", held out")]
    assert {trace.marker.symbol for trace in held} == {"circle-open", "star-open"}
    assert {x for trace in held for x in trace.x} == {8000}
    assert any(trace.name == "held out of the fit" for trace in figure.data)


def test_what_is_extrapolated_is_shaded(scaling: Scaling) -> None:
    for name in ("scaling-curves", "scaling-best", "scaling-crossovers"):
        (shape,) = (one for one in figures.all_figures(scaling, [], 8000)[name].layout.shapes if one.type == "rect")

        assert (shape.x0, shape.x1) == (8000, pytest.approx(scaling.reach))


def test_residuals_are_those_of_the_runs_of_the_fit(lossy: Scaling) -> None:
    table = marks.residuals(lossy)

    assert len(table) == len(lossy.runs)
    assert table["residual"].abs().max() < 0.1
    assert np.isfinite(table["residual"]).all()


def test_generalisation_leaves_out_what_has_no_training_loss(lossy: Scaling) -> None:
    table = marks.generalisation(lossy)

    assert np.isfinite(table[["train_loss", "accuracy"]].to_numpy()).all()
    assert set(table["held_out"]) == {False, True}


def test_without_any_training_loss_or_cost_the_figures_say_so() -> None:
    scaling = fit_scaling(frame_of(*world(train_loss=None, macs=None)))

    drawn = figures.all_figures(scaling, [], 8000)

    assert "No run has a training loss on record." in text_of(drawn["scaling-generalisation"])
    assert "The multiply-adds of these networks are not on record." in text_of(drawn["scaling-frontier"])


def test_crossings_say_how_likely_there_is_none(scaling: Scaling) -> None:
    found = marks.crossings(scaling)

    assert len(found) == 3
    for one in found:
        assert one.chances.sum() == pytest.approx(1 - one.not_in_range)
        assert f"not in range {one.not_in_range:.2f}" in one.words
    assert [one.not_in_range for one in found] == sorted(one.not_in_range for one in found)


def test_one_arm_has_no_crossover() -> None:
    scaling = fit_scaling(frame_of(*world({"C-C-C-C": LAWS["C-C-C-C"]})))

    assert "A crossover takes two arms" in text_of(figures.crossovers(scaling, []))


def test_an_error_of_zero_is_drawn_at_half_of_the_smallest() -> None:
    drawn = marks.percent(pd.Series([0.2, 0.0]), 0.2)

    assert drawn.tolist() == [20.0, 10.0]


def test_names_are_escaped() -> None:
    laws = {"<b>$x$</b>": LAWS["C-C-C-C"], "C-T-T-T": LAWS["C-T-T-T"]}
    scaling = fit_scaling(frame_of(*world(laws)))

    for figure in figures.all_figures(scaling, [BAD], 8000).values():
        shown = json.loads(figure.to_json())
        texts = [trace.get("name") for trace in shown["data"]] + [note["text"] for note in
                                                                  shown["layout"].get("annotations", [])]  # fmt: skip
        assert not [text for text in texts if text and ("<b>$x" in text or "<script" in text)]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_shows_the_answers_of_the_summary(section: Section) -> None:
    page = html_page(Path("runs/x"), frame_of(*world()), SCALING, (), 5000, section=section)

    text = html.unescape(page)
    assert "<h2>Scaling</h2>" in page
    assert all(verdict in text for verdict in section.values["verdicts"])
    assert len(section.values["verdicts"]) == 2
    for answer in section.values["answers"]:
        for row in answer["arms"]:
            assert f'data-column="p_best" data-value="{row["p_best"]}"' in page
    assert {f"figure-{name}" for name in figures.all_figures(fit_scaling(frame_of(*world())), [], 8000)} <= set(
        re.findall(r'id="([\w-]+)"', page)
    )
    assert "coatnet-search scaling runs/x" in page


def test_a_report_has_the_pictures_of_the_figures(tmp_path: Path) -> None:
    path = write_report(tmp_path, frame_of(*with_losses()), SCALING, (), 5000)

    assert "Not in the fit:" in path.read_text()
    assert {path.stem for path in (tmp_path / "figures").glob("scaling-*.png")} >= {"scaling-curves", "scaling-best"}


def test_held_out_regimes_are_checked_in_the_page() -> None:
    frame = frame_of(*world())

    section = scaling_section(frame, SCALING, 5000, up_to=4000)
    assert section is not None
    page = html_page(Path("runs/x"), frame, SCALING, (), 5000, section=section)

    assert {row["num_images"] for row in section.values["held_out"]} == {8000}
    assert 'id="scaling-held_out"' in page
    assert section.values["num_images"] == SIZES[:-1]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (frame_of(), "no scaling study: its trained trials share one amount of data"),
        (frame_of(*world(sizes=[500])), "no scaling study: its trained trials share one amount of data"),
        (frame_of(*world(state="failed", error=None, val_top1=None)), "no run of this study is done yet"),
        (frame_of(*world(sizes=[500]), *beside(900)), "needs 2 distinct sizes, got 1"),
    ],
)  # fmt: skip
def test_where_there_is_no_fit_the_page_says_why(frame: pd.DataFrame, reason: str) -> None:
    section = scaling_section(frame, SCALING, 5000)
    assert section is not None
    page = html_page(Path("runs/x"), frame, SCALING, (), 5000, section=section)

    assert reason in section.values["refused"]
    assert f"No fit yet: {section.values['refused']}" in html.unescape(page)
    assert "figure-scaling" not in page


def test_a_peer_that_was_only_measured_does_not_take_the_place_of_those_that_were_trained() -> None:
    measured = trial(90, val_top1=None, epochs=0) | {"layout": "timm:x", "attributes": {"peer": "timm:x measured"}}

    rows = comparable(frame_of(*world(), measured), {"error": "min"})

    assert set(rows["num_images"]) == {8000}
    assert rows.attrs["budget"]["epochs"] == 5


def test_other_studies_have_no_such_section(tmp_path: Path) -> None:
    frame = search(12)

    page = write_report(tmp_path, frame, STUDY, (), 180).read_text()

    assert "<h2>Scaling</h2>" not in page
    assert scaling_section(frame, STUDY, 180) is None
    assert "scaling" not in summarize(frame, STUDY)
    with pytest.raises(InputError, match="--up-to is for scaling studies"):
        scaling_section(frame, STUDY, 180, up_to=100)


def test_whatever_a_record_says_is_text_in_the_section() -> None:
    frame = frame_of(*world({BAD: LAWS["C-C-C-C"], "C-T-T-T": LAWS["C-T-T-T"]}))

    section = scaling_section(frame, SCALING, 5000)
    text = html_page(Path("runs/x"), frame, SCALING, (), 5000, section=section)

    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_values_are_json_without_nan(section: Section) -> None:
    assert json.dumps(section.values, allow_nan=False)
