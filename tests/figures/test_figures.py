import numpy as np
import pandas as pd
import pytest
from frames import frame_of, search, trial

from coatnet_search.figures.search import figures, marks
from coatnet_search.figures.search.pictures import write_pictures

LOSS, ERROR = {"val_loss": "min", "macs": "min"}, {"error": "min", "macs": "min"}
FRAMES = {
    "no trial": frame_of(),
    "no column": pd.DataFrame(),
    "only failures": frame_of(*(trial(n, state="failed", val_top1=None, val_loss=None, macs=None) for n in range(3))),
    "one trial": frame_of(trial(0)),
    "no layout": frame_of(trial(0), trial(1, layout="C-C-C-C") | {"layout": None}),
    "equal trials": frame_of(trial(0), trial(1), trial(2, val_top1=None)),
    "saturated": frame_of(*(trial(n, val_top1=1.0, val_loss=0.0) for n in range(5))),
    "a search": search(24),
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("objectives", [LOSS, {"val_top1": "max"}], ids=str)
def test_any_record_can_be_drawn(name, objectives, tmp_path):
    frame = FRAMES[name]

    drawn = figures.all_figures(frame, objectives, num_val=180)
    paths = write_pictures(frame, objectives, tmp_path, num_val=180)

    assert [path.stem for path in paths] == list(drawn)
    assert all(path.stat().st_size > 1000 for path in paths)
    assert all(figure.to_json() for figure in drawn.values())


def test_axes_follow_the_objectives_of_the_study():
    figure = figures.front(search(30), LOSS, "macs")

    assert figure.layout.title.text == "Validation loss against multiply-adds"
    assert figure.layout.yaxis.title.text == "validation loss"
    assert figure.layout.xaxis.type == "log"


def test_fractions_are_drawn_as_percent():
    figure = figures.front(frame_of(trial(0, val_top1=0.75)), ERROR, "macs", num_val=100)

    (points,) = (trace for trace in figure.data if trace.name == "C-C-T-T")
    assert figure.layout.yaxis.title.text == "validation error (%)"
    assert list(points.y) == [25.0]
    assert points.error_y.array[0] == pytest.approx(8.5, abs=0.4)  # 1.96 sqrt(.25 x .75 / 100)


def test_open_symbols_are_trials_that_are_not_final():
    frame = frame_of(trial(0), trial(1, state="stopped"), trial(2, state="running"), trial(3, epochs=1))

    rows = marks.points(frame, LOSS, "macs", "val_loss")
    symbols = {trace.marker.symbol for trace in figures.front(frame, LOSS, "macs").data if trace.name == "C-C-T-T"}

    assert rows["final"].tolist() == [True, False, False, False]
    assert symbols == {"circle", "circle-open"}


def test_layouts_keep_their_colour_from_study_to_study():
    few, many = frame_of(trial(0, "C-T-T-T")), search(20)

    assert marks.looks(few)["C-T-T-T"] == marks.looks(many)["C-T-T-T"]


def test_no_two_of_twenty_layouts_look_the_same():
    frame = frame_of(*(trial(n) | {"layout": f"X{n}"} for n in range(16)), *(trial(n, "C-C-C-C") for n in range(2)))

    looks = marks.looks(frame)

    assert len(set(looks.values())) == len(looks) == 17


def test_the_line_of_the_front_runs_along_the_planes_front():
    figure = figures.front(search(60), ERROR, "throughput_images_per_s")

    (line,) = (trace for trace in figure.data if trace.name == "front")
    assert (np.diff(line.x) > 0).all()
    assert (np.diff(line.y) >= 0).all()


def test_bars_of_measurements_are_half_their_spread():
    frame = frame_of(trial(0, throughput_images_per_s=100.0, throughput_images_per_s_spread=8.0))

    rows = marks.points(frame, ERROR, "throughput_images_per_s", "error")

    assert rows[["x_low", "x_high"]].iloc[0].tolist() == [96.0, 104.0]


def test_curves_are_few_and_hold_the_front():
    frame = search(400)

    drawn = marks.curves(frame, "val_loss", LOSS)

    assert len(drawn) == marks.NUM_CURVES
    assert {row["number"] for row, _ in drawn if row["on_front"]}


def test_error_curves_follow_from_accuracy():
    frame = frame_of(trial(0, curve=[{"epoch": 1, "val_top1": 0.5}, {"epoch": 2, "val_top1": 0.75}]))

    ((_, curve),) = marks.curves(frame, "error", ERROR)

    assert curve.tolist() == [[1.0, 50.0], [2.0, 25.0]]


def test_names_are_escaped_in_figures():
    frame = frame_of(trial(0) | {"layout": "<b>C</b>", "arch_id": "<i>"})

    text = figures.front(frame, LOSS, "macs").to_json() + figures.by_layout(frame, LOSS).to_json()

    assert "<i>" not in text.encode().decode("unicode_escape")
    assert "&lt;b&gt;C" in text.encode().decode("unicode_escape")


def test_a_figure_can_be_light_or_dark():
    light, dark = (figures.front(search(8), LOSS, "macs", theme=theme) for theme in ("light", "dark"))

    assert light.layout.template.layout.paper_bgcolor != dark.layout.template.layout.paper_bgcolor
    assert light.data == dark.data


def test_of_many_trials_a_quick_figure_has_the_whole_front_and_so_many_others():
    frame = search(400)

    whole, quick = (figures.front(frame, LOSS, "macs", most=most) for most in (None, 100))

    numbers = [{int(row[0]) for trace in one.data if trace.customdata is not None for row in trace.customdata}
               for one in (whole, quick)]  # fmt: skip
    line = set(zip(whole.data[0].x, whole.data[0].y, strict=True))
    assert line == set(zip(quick.data[0].x, quick.data[0].y, strict=True))
    assert numbers[1] < numbers[0] and len(numbers[1]) == 100 + len(line)
