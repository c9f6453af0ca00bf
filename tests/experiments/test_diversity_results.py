"""Tables, tests and figures from measurements that are known."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medgan.errors import DataError
from medgan.experiments.diversity import DiversityConfig, design
from medgan.experiments.diversity_results import FIGURES, drawn, places, results, shown, write
from medgan.tables import csv_text, latex_table

CONFIG = DiversityConfig(metrics=("ms_ssim", "fid"), sizes=(50.0, 100.0))
COUNTS = {"xray/normal": 200, "fashion/trouser_1": 100}


def planned(config=CONFIG):
    classes = [
        {"name": name, "key": name.replace("/", "-"), "modality": name.split("/")[0], "images": n, "dataset": "0", "training": {}}
        for name, n in COUNTS.items()
    ]
    return design(config, classes, parts=10, fewest_in_part=5)


def size(percent: float, n: int, shift: float) -> dict:
    pairs = {"synthetic": [0.5 + shift + i / 1000 for i in range(5)], "real": [0.3 + i / 1000 for i in range(5)]}
    return {
        "percent": percent,
        "n": n,
        "metrics": {
            "ms_ssim": {"value": 0.5 + shift, "interval": [0.46 + shift, 0.54 + shift], "real": 0.3, "real_interval": [0.2, 0.4], "baseline": {"value": 0.3, "n": n}},
            "fid": {"value": 40.0 + 1000 / n, "interval": None, "infinity": {"value": 40.0, "interval": [38.0, 42.0]},
                    "baseline": {"value": 20.0, "n": min(n, 50)} | ({"at_n": 10.0} if n == 100 else {})},
        },
        "values": {"ms_ssim": pairs, "fid": {"synthetic": [50.0 + shift * 100 + i for i in range(10)]}},
    }  # fmt: skip


def measured():
    return {
        "xray/normal": {"sizes": [size(100.0, 200, 0.0), size(50.0, 100, 0.0)]},
        "fashion/trouser_1": {"sizes": [size(50.0, 50, 0.1), size(100.0, 100, 0.1)]},
    }


def test_a_row_for_each_class_size_and_metric_in_order():
    rows = results(planned(), measured()).figures
    assert [(row["class"], row["images"], row["metric"]) for row in rows[:4]] == [
        ("xray/normal", 100, "ms_ssim"),
        ("xray/normal", 100, "fid"),
        ("xray/normal", 200, "ms_ssim"),
        ("xray/normal", 200, "fid"),
    ]
    assert (rows[0]["low"], rows[0]["high"], rows[0]["real"], rows[0]["baseline_at_n"]) == (0.46, 0.54, 0.3, 0.3)
    # 20 between halves of 50 are 10 at 100, because an FID's bias goes with 1/N; without an interval its ends are empty.
    assert (rows[1]["value"], rows[1]["low"], rows[1]["baseline"], rows[1]["baseline_at_n"], rows[1]["infinity"]) == (
        50.0,
        "",
        20.0,
        10.0,
        40.0,
    )
    # Halves of 50 say nothing of 200: there is no figure at equal N, rather than one of another N.
    assert (rows[3]["baseline"], rows[3]["baseline_images"], rows[3]["baseline_at_n"]) == (20.0, 50, "")


def test_two_groups_of_five_without_overlap_have_the_smallest_p_times_the_number_of_tests():
    """2/252 for each of synthetic against real, of 6 planned tests of MS-SSIM: Holm's first step gives 12/252."""
    tests = [row for row in results(planned(), measured()).tests if row["metric"] == "ms_ssim"]
    assert len(tests) == 6
    assert [row["p"] for row in tests] == pytest.approx([2 / 252] * 6)
    assert [row["p_holm"] for row in tests] == pytest.approx([12 / 252] * 6)
    assert all(row["significant"] and row["exact"] for row in tests)
    assert {row["relation"] for row in tests} == {"synthetic against real", "between modalities"}
    between = next(row for row in tests if row["relation"] == "between modalities")
    assert (between["mean_one"], between["mean_other"], between["difference"]) == pytest.approx((0.502, 0.602, -0.1))


def test_what_is_not_measured_is_named_and_counts_against_the_others():
    """One of two classes at one of two sizes: 1 of 6 planned tests can be made, and is still corrected for 6."""
    half = {"xray/normal": {"sizes": [size(50.0, 100, 0.0)]}}
    found = results(planned(), half)
    assert found.missing == ["xray/normal at 100 %", "fashion/trouser_1 at 50 %", "fashion/trouser_1 at 100 %"]
    (only,) = found.tests
    assert only["p_holm"] == pytest.approx(12 / 252)
    with pytest.raises(DataError, match="nothing is measured"):
        results(planned(), {})


def test_stability_by_class_and_metric():
    rows = {(row["class"], row["metric"]): row for row in results(planned(), measured()).stability}
    stable = rows["xray/normal", "ms_ssim"]
    assert (stable["stable_from"], stable["percent"], stable["width"]) == (100, 50.0, pytest.approx(0.08))
    assert rows["xray/normal", "fid"]["stable_from"] == ""
    strict = planned(replace(CONFIG, stable=0.05))
    unstable = {(row["class"], row["metric"]): row for row in results(strict, measured()).stability}["xray/normal", "ms_ssim"]
    assert (unstable["stable_from"], unstable["percent"], unstable["needed"]) == ("", "", 512)


def test_tables_come_back_from_csv_and_are_escaped_for_latex(tmp_path):
    made = results(planned(), measured())
    rows = list(csv.DictReader(io.StringIO(csv_text(FIGURES, made.figures))))
    assert [float(row["value"]) for row in rows] == [row["value"] for row in made.figures]
    files = write(made, planned(), tmp_path)
    assert set(files) == {
        "figures.csv",
        "tests.csv",
        "stability.csv",
        "figures.tex",
        "tests.tex",
        "stability.tex",
        "results.json",
        "ms_ssim.png",
        "fid.png",
    }
    text = (tmp_path / "figures.tex").read_text()
    assert r"fashion/trouser\_1 & 100 \% & 100 & 0.600 (0.300) & 50.0 (10.0) & 40.0 \\" in text
    assert "about 512, extrapolated" not in (tmp_path / "stability.tex").read_text()
    assert latex_table(["a"], [["50 % & $\\"]], caption="c", label="l").count(r"50 \% \& \$\textbackslash{} \\") == 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.58312, "0.583"), (31.0, "31.0"), (123.456, "123"), (0.00012345, "0.000123"), ("", ""), (12, "12")]
)
def test_figures_in_tables_have_three_digits(value, text):
    assert shown(value) == text


def test_equal_numbers_draw_equal_pictures_and_others_do_not():
    rows = results(planned(), measured()).figures
    one = drawn(rows, "fid")
    assert one == drawn(rows, "fid")
    assert one != drawn([row | {"value": row["value"] + 5} for row in rows], "fid")
    picture = np.asarray(Image.open(io.BytesIO(one)).convert("RGB"))
    # Blue and orange lines of the two classes.
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (np.abs(picture.astype(int) - colour).max(2) < 8).sum() > 500


@pytest.mark.parametrize(
    ("sizes", "written", "slanted"),
    [
        ((100, 50, 75, 25, 100), [25, 50, 75, 100], False),
        # Of the real run: as far apart as 869 and 1,213 they ran into each other while they lay flat.
        ((23, 45, 68, 90, 303, 607, 869, 910, 1213, 1739, 2608, 3477), [23, 45, 68, 90, 303, 607, 869, 1213, 1739, 2608, 3477], True),
        ((40,), [40], False),
    ],
)
def test_numbers_along_the_axis_can_be_read(sizes, written, slanted):
    assert places(sizes) == (written, slanted)
