"""The curves: drawn from the run's own numbers, equal bytes for equal numbers, described in words."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from medgan import runs
from medgan.reports.figures import DOTS_PER_INCH, SIZE_INCHES, figures, png, sheet
from medgan.reports.results import read_results
from tests.reports.folder import FIDS, evaluation, lines, make_run, ticks


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return figures(read_results(make_run(tmp_path_factory.mktemp("run"))))


def axes_of(figure):
    axes = Canvas().add_subplot()
    figure.draw(axes)
    return axes


def test_the_fid_curve_is_the_measured_one_with_the_chosen_network_marked(drawn):
    fid = next(figure for figure in drawn if figure.name == "fid")
    curve, mark = axes_of(fid).lines
    assert list(zip(curve.get_xdata(), curve.get_ydata(), strict=True)) == FIDS
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([1.5], [212.47])
    assert "412.31 at 0.5 kimg, 230.99 at 2 kimg; the chosen network is the one at 1.5 kimg with 212.47" in fid.alt


def test_losses_and_augmentation_are_the_means_of_the_ticks(drawn):
    losses = axes_of(next(figure for figure in drawn if figure.name == "losses")).lines
    assert losses[0].get_ydata() == pytest.approx([0.75 + 0.1 * tick for tick in range(1, 9)])
    assert losses[1].get_ydata() == pytest.approx([1.4 - 0.05 * tick for tick in range(1, 9)])
    ada = axes_of(next(figure for figure in drawn if figure.name == "ada_p")).lines
    assert ada[0].get_ydata() == pytest.approx([0.01 * tick for tick in range(1, 9)])


def test_lines_differ_without_colour(drawn):
    for figure in drawn:
        styles = [(line.get_linestyle(), line.get_marker()) for line in axes_of(figure).lines]
        assert len(set(styles)) == len(styles)


def test_equal_numbers_give_equal_bytes_whatever_the_users_settings(drawn):
    import matplotlib

    first = png(drawn[0])
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert png(drawn[0]) == first
    with Image.open(io.BytesIO(first)) as image:
        assert image.size == tuple(round(side * DOTS_PER_INCH) for side in SIZE_INCHES)
        assert "Software" not in image.info


def test_the_sheet_holds_all_figures_two_in_a_row(drawn):
    assert len(drawn) == 5
    with Image.open(io.BytesIO(sheet(drawn))) as image:
        assert image.size == (2 * round(SIZE_INCHES[0] * DOTS_PER_INCH), 3 * round(SIZE_INCHES[1] * DOTS_PER_INCH))


def test_a_run_without_augmentation_has_no_figure_of_it(tmp_path):
    lines(tmp_path / "stats.jsonl", [{"kimg": 1.0, "Loss/G/loss": {"num": 1, "mean": 0.5, "std": 0.0}}])
    assert [figure.name for figure in figures(read_results(tmp_path))] == ["losses"]


def test_a_run_told_to_augment_nothing_has_no_figure_of_it(tmp_path):
    lines(tmp_path / "stats.jsonl", ticks())
    (tmp_path / "config.json").write_text('{"augment": "none"}')
    assert [figure.name for figure in figures(read_results(tmp_path))] == ["losses", "scores"]


def test_the_watch_is_drawn_where_it_looked(tmp_path):
    rows = ticks()
    rows[0] |= {"Diversity/distance": 0.2, "Diversity/nearest": 0.1, "Overfit/train": 0.5, "Overfit/held_out": 0.5}
    rows[4] |= {"Diversity/distance": 0.9, "Diversity/nearest": 0.8, "Overfit/train": 0.8, "Overfit/held_out": 0.4}
    lines(tmp_path / "stats.jsonl", rows)
    found = {figure.name: figure for figure in figures(read_results(tmp_path))}
    distance, nearest, level = axes_of(found["diversity"]).lines
    assert (list(distance.get_xdata()), list(distance.get_ydata())) == ([0.25, 1.25], [0.2, 0.9])
    assert (list(nearest.get_ydata()), set(level.get_ydata())) == ([0.1, 0.8], {1.0})
    assert "training images 0.5 at 0.25 kimg, 0.8 at 1.25 kimg; held-out images 0.5 at 0.25 kimg, 0.4 at 1.25 kimg" in found["held_out"].alt


def test_a_fid_over_decades_gets_a_logarithmic_axis(tmp_path):
    for values, scale in (([300.0, 5.0], "log"), ([300.0, 200.0], "linear"), ([300.0, 0.0], "linear")):
        lines(tmp_path / "metrics.jsonl", [{"kimg": n + 1, **evaluation(value)} for n, value in enumerate(values)])
        assert axes_of(figures(read_results(tmp_path))[0]).get_yscale() == scale


def test_a_long_run_is_drawn(tmp_path):
    lines(tmp_path / "stats.jsonl", ticks(kimg_each=4, count=2000))
    image = Image.open(io.BytesIO(png(figures(read_results(tmp_path))[0])))
    assert np.asarray(image).std() > 0


def test_kid_between_fids_is_a_curve_of_its_own(tmp_path):
    run = make_run(tmp_path / "run")
    rows = runs.read_json_lines(run / runs.STATS)
    for i, row in enumerate(rows[::2]):
        row |= {"KID/value": 0.2 / (i + 1) - 0.01, "KID/seconds": 2.0}
    runs.write_json_lines(run / runs.STATS, rows)
    found = {figure.name: figure for figure in figures(read_results(run))}
    assert list(found)[:2] == ["fid", "kid"]
    assert found["kid"].alt.startswith("Line chart of KID 0.19 at ")
    axes = axes_of(found["kid"])
    assert len(axes.get_lines()[0].get_xdata()) == len(rows[::2])
