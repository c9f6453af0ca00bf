"""The design of a diversity experiment: what is planned, written and refused before anything runs."""

from __future__ import annotations

import json
from math import comb

import pytest

from medgan.errors import ConfigError, DataError, InputError, ResumeError
from medgan.experiments.diversity import (
    DiversityConfig,
    classes_of,
    comparisons,
    count_at,
    design,
    differences,
    in_part_at,
    read_design,
    write_design,
)

COUNTS = {"xray/normal": 1214, "xray/pneumonia": 3494, "fashion/trouser": 90}


def described(counts=COUNTS, **training):
    return [
        {"name": name, "key": name.replace("/", "-"), "modality": name.split("/")[0], "images": n, "dataset": f"{n:064d}", "training": {"kimg": 1.0, **training},
         "words": ["train", "--data", "/data/JOHN DOE.zip"], "commands": ["medgan train --data '/data/JOHN DOE.zip'"]}
        for name, n in counts.items()
    ]  # fmt: skip


def made(config=None, counts=COUNTS, **training):
    return design(config or DiversityConfig(), described(counts, **training), parts=10, fewest_in_part=5)


def test_sizes_are_shares_of_the_class_rounded_half_up():
    assert [count_at(1214, percent) for percent in (25, 50, 75, 100)] == [304, 607, 911, 1214]
    assert [count_at(90, percent) for percent in (25, 50, 75, 100)] == [23, 45, 68, 90]


def test_parts_are_equal_in_all_classes():
    assert [in_part_at(COUNTS, percent, 10) for percent in (25, 50, 75, 100)] == [2, 4, 6, 9]


def test_every_planned_test_is_there_once_with_its_relation():
    """Per size 3 synthetic-real and 3 pairs of classes for pairs' metrics; 3 pairs of classes for FID where parts hold 5 images."""
    tests = comparisons(DiversityConfig(metrics=("ms_ssim", "fid")), COUNTS, parts=10, fewest_in_part=5)
    assert len([t for t in tests if t.metric == "ms_ssim"]) == 4 * 6
    assert sorted({t.percent for t in tests if t.metric == "fid"}) == [75, 100]
    assert len([t for t in tests if t.metric == "fid"]) == 2 * 3
    relations = {(t.one, t.other): t.relation for t in tests}
    assert relations["xray/normal synthetic", "xray/pneumonia synthetic"] == "within a modality"
    assert relations["xray/normal synthetic", "fashion/trouser synthetic"] == "between modalities"
    assert relations["fashion/trouser synthetic", "fashion/trouser real"] == "synthetic against real"


def test_the_smallest_p_is_exact_where_all_relabelings_are_listed():
    tests = {
        (t.metric, t.percent, t.other): t
        for t in comparisons(DiversityConfig(metrics=("ms_ssim", "fid")), {"a": 16, "b": 400}, parts=10, fewest_in_part=1)
    }
    small = tests["ms_ssim", 50.0, "a real"]
    assert (small.n, small.smallest_p) == ((4, 4), 2 / comb(8, 4))
    assert tests["ms_ssim", 100.0, "b real"].smallest_p == 2 / 10_000


def test_tests_that_cannot_be_significant_are_named_before_the_runs():
    """Three pairs of 9 images give at best 2/20; Holm's first step multiplies that by the number of tests."""
    found = made(DiversityConfig(metrics=("ms_ssim", "ppl2_wend", "fid"), sizes=(75.0, 100.0)), {"a": 12, "b": 12})
    assert any(note.startswith("ms_ssim: tests at 75 %") for note in found["notes"])
    assert any(note.startswith("ppl2_wend: no test") for note in found["notes"])
    assert any(note.startswith("fid: no test, because a tenth") for note in found["notes"])
    assert found["correction"] == "Holm over all tests of one metric"


def test_a_class_with_too_few_images_is_refused_with_all_such_classes():
    with pytest.raises(DataError, match=r"25 % .* a 5 of 20, b 6 of 24"):
        made(counts={"a": 20, "b": 24, "c": 400})


def test_the_stored_design_names_no_path_and_the_same_one_goes_on(tmp_path):
    write_design(made(), tmp_path)
    assert "JOHN DOE" not in (tmp_path / "design.json").read_text()
    write_design(made(), tmp_path)
    assert read_design(tmp_path)["samples"][0]["images"]["xray/normal"] == 304


def test_another_design_in_the_folder_is_refused_with_each_difference(tmp_path):
    write_design(made(), tmp_path)
    other = made(DiversityConfig(seed=3), {"xray/normal": 1214, "xray/covid": 80}, kimg=2.0)
    with pytest.raises(ResumeError) as error:
        write_design(other, tmp_path)
    for part in ("seed 0 -> 3", "class xray/pneumonia is gone", "class xray/covid is new", "xray/normal: kimg 1.0 -> 2.0"):
        assert part in error.value.message
    assert read_design(tmp_path)["settings"]["seed"] == 0
    assert differences(made(), made(counts=COUNTS | {"fashion/trouser": 89})) == ["the images of fashion/trouser"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["normal.zip"], "--data number 1 is not MODALITY/CLASS=PATH"),
        (["a/b/c=x"], "number 1"),
        (["=x"], "number 1"),
        (["a/b={there}", "a-b={there}"], "two classes have one name: a-b, a/b"),
    ],
)
def test_words_that_name_no_class_are_refused(words, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        classes_of([word.format(there=tmp_path) for word in words])


def test_a_path_that_is_not_there_is_not_shown(tmp_path):
    with pytest.raises(InputError) as error:
        classes_of([f"xray/normal={tmp_path}/JOHN_DOE.zip"])
    assert "JOHN" not in error.value.line


def test_a_folder_without_or_with_another_design_is_no_experiment(tmp_path):
    with pytest.raises(InputError, match="holds no design"):
        read_design(tmp_path)
    (tmp_path / "design.json").write_text(json.dumps({"experiment": "ablation"}))
    with pytest.raises(DataError):
        read_design(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": ()}, "--sizes"),
        ({"sizes": (50.0, 25.0)}, "do not rise"),
        ({"sizes": (0.0, 50.0)}, "percentages"),
        ({"sizes": (50.0, 101.0)}, "percentages"),
        ({"metrics": ()}, "names no metric"),
        ({"stable": 1.0}, "--stable"),
        ({"pairs": 1}, "--pairs"),
    ],
)
def test_impossible_settings_name_the_flag(changes, message):
    with pytest.raises(ConfigError, match=message):
        DiversityConfig(**changes)
