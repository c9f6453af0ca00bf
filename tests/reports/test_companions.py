from dataclasses import replace

import pytest

from medgan.reports.companions import companions, difference_text, interval_text
from medgan.reports.results import read_results
from tests.reports.folder import evaluation, html, make_run, write

FLOOR = {"value": 61.5, "range": [58.0, 64.25], "synthetic": 246.0, "n": 46, "by": "patient", "halvings": 4}
INFINITY = {
    "value": 180.25,
    "interval": [160.0, 200.5],
    "interval_level": 0.95,
    "interval_method": "x",
    "real_fixed": 195.5,
    "linear": False,
}


def with_companions(floor=FLOOR, infinity=INFINITY):
    result = evaluation(208.55)
    result["metrics"]["fid50k_full"] |= {
        "interval": [190.0, 227.1], "interval_level": 0.95, "interval_method": "jackknife over 2 groups of 2 patients and 12 of synthetic images",
        "floor": floor, "infinity": infinity,
    }  # fmt: skip
    return result


@pytest.fixture
def lines(tmp_path):
    results = read_results(make_run(tmp_path / "run"))
    return lambda **parts: companions(replace(results, metrics=with_companions(**parts)))


def test_an_fid_is_shown_with_interval_floor_and_infinity(lines):
    itself, floor, equal, infinity = lines()
    assert (itself.value, itself.counts) == ("208.55", "92 / 500")
    assert itself.text.startswith("95 % interval 190.00 to 227.10 (jackknife over 2 groups of 2 patients")
    assert (floor.value, floor.counts) == ("61.50", "46 / 46")
    assert "without a patient in common. Over 4 random halvings 58.00 to 64.25." in floor.text
    assert (equal.value, equal.counts) == ("246.00", "46 / 46")
    assert "4.0 times the floor" in equal.text
    assert infinity.value == "180.25"
    assert "95 % interval 160.00 to 200.50." in infinity.text
    assert "still too high" in infinity.text


def test_random_halves_are_said_to_be_random(lines):
    assert "slices of one patient in both halves make it too low" in lines(floor=FLOOR | {"by": "image"})[1].text


def test_on_the_line_nothing_is_said_to_be_off_it(lines):
    assert "still too high" not in lines(infinity=INFINITY | {"linear": True})[-1].text


def test_what_was_not_measured_says_why(lines):
    why = {"value": None, "why": "fewer than 24 images of a set"}
    assert [(line.value, line.text) for line in lines(floor=why, infinity=why)[1:]] == [
        ("not measured", "Fewer than 24 images of a set.")
    ] * 2


@pytest.mark.parametrize("odd", [None, 3, "x", [1], {"value": "<b>"}, {"value": 1.0}, {"value": 1.0, "n": 5, "range": ["a", None]}])
def test_other_shapes_are_left_out_or_read_as_far_as_they_go(lines, odd):
    assert all(line.value for line in lines(floor=odd, infinity=odd))


def test_an_older_evaluation_has_no_companions(tmp_path):
    assert companions(read_results(make_run(tmp_path / "run"))) == []


def test_an_interval_in_words():
    assert interval_text({"interval": [1, 2], "interval_level": 0.95}) == "95 % interval 1 to 2"
    assert interval_text({"interval": None, "interval_method": "none: too few images"}) == "no interval: too few images"
    assert interval_text({}) == ""


def test_the_report_shows_them(tmp_path):
    run = make_run(tmp_path / "run")
    write(run / "metrics.json", with_companions())
    page = html(run)
    for text in ("How to read the FID", "Real against real (the floor)", "61.50", "180.25", "95 % interval 190.00 to 227.10", "46 / 46"):
        assert text in page


def test_a_difference_is_shown_where_it_has_an_interval():
    entry = {"difference": -0.25, "difference_interval": [-0.5, 0.125]}
    assert difference_text(entry) == "difference to the real images -0.25 (-0.5 to 0.125)"
    for broken in ({}, {"difference": 0.5}, {"difference": 0.5, "difference_interval": None}, entry | {"difference": float("nan")}):
        assert difference_text(broken) == ""
