import json

import numpy as np
import pytest

from medgan.metrics import METRICS
from medgan.metrics.features import Features
from medgan.metrics.fid import FID
from medgan.metrics.frechet import frechet_distance
from medgan.metrics.kid import KID
from medgan.metrics.means import interval
from medgan.metrics.uncertainty import Groups, Sample, floor, jackknife_variance
from medgan.metrics.values import compare
from medgan.progress import nothing
from tests.metrics.phantoms import gaussian

SCALE = np.arange(1, 17) ** -0.75


def measured(real, fake, *, metrics=None, subjects=None, seed=0, step=nothing):
    found = metrics or {"fid": FID()}
    return compare(found, real=Features.of(real, subjects), fake=Features.of(fake), seed=seed, uncertainty=step)


def pair(n, seed, difference=0.3):
    """Real and synthetic rows whose true distance is 2 sum (difference * SCALE)^2, in the mean and in the spread."""
    return gaussian(n, 16, seed, scale=SCALE), gaussian(n, 16, seed + 1000, scale=(1 + difference) * SCALE, shift=difference * SCALE)


def truth(difference=0.3):
    return 2 * float(np.square(difference * SCALE).sum())


# Divisions.


def test_patients_are_never_divided():
    subjects = [f"p{i % 37}" for i in range(400)]
    sample = Sample.of(Features.of(gaussian(400, 4, 1), subjects))
    for count in (2, 12):
        groups = sample.deal(count, np.random.default_rng(0))
        assert sorted(np.concatenate(groups)) == list(range(400))
        owners = [{subjects[row] for row in group} for group in groups]
        assert sum(map(len, owners)) == 37
        sizes = [len(group) for group in groups]
        # 400 rows of 37 patients with 10 or 11 each: groups differ by one patient at most.
        assert max(sizes) - min(sizes) <= 11


def test_there_are_no_more_groups_than_patients():
    sample = Sample.of(Features.of(gaussian(60, 4, 1), [f"p{i // 12}" for i in range(60)]))
    assert [len(group) for group in sample.deal(12, np.random.default_rng(0))] == [12] * 5
    assert sample.by == "patient"


@pytest.mark.parametrize("subjects", [None, ["a"] * 30 + ["b"] * 30, ["a"] * 59])
def test_where_patients_are_unknown_or_too_few_images_are_divided(subjects):
    sample = Sample.of(Features.of(gaussian(60, 4, 1), subjects))
    assert sample.by == "image"
    assert [len(group) for group in sample.deal(12, np.random.default_rng(0))] == [5] * 12


@pytest.mark.parametrize("rows", [40, 400])
def test_a_union_of_groups_is_the_set_of_their_rows(rows):
    features = gaussian(rows, 16, 1, shift=0.4)
    groups = Groups(features, Sample.of(Features.of(features)).deal(12, np.random.default_rng(0)))
    union, direct = groups.union([2, 5, 7]), Features.of(features[np.concatenate([groups.members[i] for i in (2, 5, 7)])])
    assert union.count == direct.count
    np.testing.assert_allclose(union.mean, direct.mean, rtol=1e-12)
    np.testing.assert_allclose(union.covariance(ddof=1), direct.covariance(ddof=1), atol=1e-12)
    assert groups.without(3).count == rows - len(groups.members[3])


# Intervals.


def test_the_jackknife_by_hand():
    # (3 - 1)/3 * ((1 - 2)^2 + 0 + (3 - 2)^2) = 4/3
    assert jackknife_variance([1, 2, 3]) == pytest.approx(4 / 3)
    # Of a mean it is the usual s^2 / n: values 0, 2, 7 without one each have means 4.5, 3.5, 1; s^2 = 13.
    assert jackknife_variance([4.5, 3.5, 1]) == pytest.approx(13 / 3)


def test_an_interval_by_hand():
    # t of 11 degrees of freedom at 97.5 % is 2.20099.
    found = interval(10, 2, 11, "by hand")
    assert found == {
        "interval": pytest.approx([10 - 4.40197, 10 + 4.40197], abs=1e-5),
        "interval_level": 0.95,
        "interval_method": "by hand",
    }


def test_the_interval_of_fid_holds_what_other_samples_give():
    found = [measured(*pair(150, seed))["metrics"]["fid"] for seed in range(40)]
    values = np.array([entry["value"] for entry in found])
    covered = sum(low <= values.mean() <= high for low, high in (entry["interval"] for entry in found))
    assert covered >= 34
    widths = [high - low for low, high in (entry["interval"] for entry in found)]
    # Neither as if slices doubled the information nor useless: 2 * 2.2 standard deviations on average.
    assert np.mean(widths) == pytest.approx(2 * 2.2 * values.std(ddof=1), rel=0.3)


def test_slices_of_one_patient_do_not_count_as_independent():
    # 20 patients with 10 all but equal slices each.
    patients = gaussian(20, 16, 1, scale=SCALE)
    real = np.repeat(patients, 10, axis=0) + gaussian(200, 16, 2, scale=0.01)
    fake = gaussian(200, 16, 3, scale=SCALE)
    by_patient = measured(real, fake, subjects=[f"p{i // 10}" for i in range(200)])
    by_image = measured(real, fake)
    narrow, wide = (np.ptp(result["metrics"]["fid"]["interval"]) for result in (by_image, by_patient))
    assert wide > 1.5 * narrow
    assert "20 patients" in by_patient["metrics"]["fid"]["interval_method"]
    assert by_patient["warnings"] == []
    assert [warning["code"] for warning in by_image["warnings"]] == ["W_NO_PATIENTS"]
    assert by_patient["metrics"]["fid"]["floor"]["value"] > 3 * by_image["metrics"]["fid"]["floor"]["value"]


@pytest.mark.parametrize("name", [name for name in METRICS.names() if METRICS.get(name).needs in ("moments", "features")])
def test_every_metric_of_features_has_an_interval_or_says_why_not(name):
    metric = METRICS.get(name)()
    entry = measured(*pair(240, 5, difference=0.8), metrics={"x" if not metric.n_fake else name: metric})
    (found,) = entry["metrics"].values()
    json.dumps(found, allow_nan=False)
    if found["interval"] is None:
        # Balls around the few images of a part reach everywhere.
        assert name.startswith("recall_")
        assert found["interval_method"] == "none: 12 parts all gave 1"
        return
    low, high = found["interval"]
    assert low < found["value"] < high
    assert found["interval_level"] == 0.95
    assert ("28,680 pairs of 240 images" if name == "cosine_inception" else "12") in found["interval_method"]


def test_the_parts_of_kid_give_its_standard_error():
    values = [measured(*pair(120, seed), metrics={"kid": KID()})["metrics"]["kid"] for seed in range(25)]
    spread = np.std([entry["value"] for entry in values], ddof=1)
    widths = [np.ptp(entry["interval"]) for entry in values]
    # Disjoint parts waste the pairs between them, so they err to the wide side.
    assert 2 * 2.2 * spread * 0.8 < np.mean(widths) < 2 * 2.2 * spread * 2


def test_a_metric_that_parts_are_too_small_for_says_so():
    found = measured(*pair(30, 1), metrics={"density": METRICS.get("density_inception")()})["metrics"]["density"]
    assert found["interval"] is None
    assert found["interval_method"] == "none: too few images for 12 parts"


def test_constant_images_have_no_interval_of_parts_and_one_of_fid():
    real, fake = np.full((30, 16), 0.25, np.float32), np.full((40, 16), 0.75, np.float32)
    found = measured(real, fake, metrics={"fid": FID(), "kid": KID()})["metrics"]
    assert found["fid"]["interval"] == pytest.approx([4, 4], abs=1e-9)
    assert found["fid"]["infinity"]["value"] == pytest.approx(4)
    assert found["kid"]["interval"] is None
    assert "parts all gave" in found["kid"]["interval_method"]


# The floor.


def test_the_floor_by_hand():
    # Every patient has the values 0 and 2, so any half by patient has mean 1 and variance 1: the floor is 0. Synthetic 3 and 7 against a half:
    # 16 + 1 + 4 - 2 sqrt(4) = 17 (test_frechet), and 4 rows of either are compared.
    reals = Sample.of(Features.of(np.array([[0.0], [2.0]] * 4), [f"p{i // 2}" for i in range(8)]))
    fakes = Sample.of(Features.of(np.array([[3.0], [7.0]] * 2)))
    found = floor(0, reals, fakes, np.random.default_rng(0))
    assert found == {
        "value": pytest.approx(0, abs=1e-12), "range": pytest.approx([0, 0], abs=1e-12), "synthetic": pytest.approx(17), "n": 4, "by": "patient",
        "halvings": 4,
    }  # fmt: skip


def test_a_perfect_generator_reaches_the_floor_and_another_does_not():
    perfect = measured(*pair(400, 1, difference=0))["metrics"]["fid"]["floor"]
    assert perfect["n"] == 200
    assert perfect["synthetic"] == pytest.approx(perfect["value"], rel=0.25)
    other = measured(*pair(400, 1))["metrics"]["fid"]["floor"]
    assert other["synthetic"] > 4 * other["value"]
    assert other["range"][0] <= other["value"] <= other["range"][1]


def test_the_floor_has_no_more_images_than_there_are_synthetic_ones():
    real, fake = pair(400, 1)
    assert measured(real, fake[:60])["metrics"]["fid"]["floor"]["n"] == 60


# FID at infinitely many images.


def test_infinity_takes_the_bias_off():
    found = [measured(*pair(120, seed))["metrics"]["fid"] for seed in range(30)]
    value, infinity, fixed = (np.mean([get(entry) for entry in found]) for get in (
        lambda e: e["value"], lambda e: e["infinity"]["value"], lambda e: e["infinity"]["real_fixed"],
    ))  # fmt: skip
    error = np.std([entry["infinity"]["value"] for entry in found], ddof=1) / np.sqrt(30)
    assert abs(infinity - truth()) < 3 * error
    # With the real set as it is, only the synthetic side's half of the bias goes.
    assert value - truth() > 1.5 * (fixed - truth()) > 0
    assert all(entry["infinity"]["linear"] and entry["infinity"]["smallest_part"] == 30 for entry in found)


def test_infinity_is_the_intercept_of_a_line_in_one_over_n():
    # An independent way: mean distances of 1, 2, 3, 4 disjoint parts of either set against the number of parts.
    real, fake = pair(240, 7)
    value = measured(real, fake)["metrics"]["fid"]["infinity"]["value"]
    rng = np.random.default_rng(3)
    means = [
        np.mean([
            frechet_distance(real=Features.of(real[a]), fake=Features.of(fake[b]), ddof=1)
            for a, b in zip(np.array_split(rng.permutation(240), k), np.array_split(rng.permutation(240), k), strict=True)
        ])
        for k in (1, 2, 3, 4)
    ]  # fmt: skip
    assert value == pytest.approx(np.polyfit([1, 2, 3, 4], means, 1)[1], abs=0.03)


def test_parts_of_fewer_images_than_dimensions_are_said_to_be_off_the_line():
    found = measured(*pair(60, 1))["metrics"]["fid"]["infinity"]
    assert (found["linear"], found["smallest_part"]) == (False, 15)


def test_the_interval_of_infinity_is_wider_than_that_of_the_value():
    found = measured(*pair(200, 1))["metrics"]["fid"]
    assert np.ptp(found["infinity"]["interval"]) > np.ptp(found["interval"])


# Everything together.


def test_fewer_images_than_groups_need_get_none_and_are_told():
    found = measured(*pair(23, 1), metrics={"fid": FID(), "kid": KID()})["metrics"]
    assert found["fid"]["interval"] is None
    assert found["kid"]["interval_method"] == "none: fewer than 24 images of a set"
    assert found["fid"]["floor"] == found["fid"]["infinity"] == {"value": None, "why": "fewer than 24 images of a set"}


def test_the_same_seed_gives_the_same_figures_and_progress_ends():
    steps = []
    first, again = (measured(*pair(60, 1), seed=3, step=lambda *step: steps.append(step)) for _ in range(2))
    assert first == again != measured(*pair(60, 1), seed=4)
    half = len(steps) // 2
    assert steps[:half] == [(done, half - 1) for done in range(half)]


def test_equal_sets_have_fid_zero_and_finite_companions():
    real, _ = pair(100, 1)
    found = measured(real, real, subjects=[f"p{i // 4}" for i in range(100)])["metrics"]["fid"]
    assert found["value"] == pytest.approx(0, abs=1e-6)
    assert found["interval"][0] == 0
    json.dumps(found, allow_nan=False)


def test_without_being_asked_nothing_of_it_is_computed():
    real, fake = pair(60, 1)
    plain = compare({"fid": FID()}, real=Features.of(real), fake=Features.of(fake), seed=0)
    assert set(plain["metrics"]["fid"]) == {"value", "covariance_divisor", "higher_is_better"}


def test_a_very_large_set_stands_for_itself_by_a_part(monkeypatch):
    monkeypatch.setattr("medgan.metrics.features.MOST_ROWS", 100)
    real, fake = pair(250, 1)
    whole = Features.of(real)
    part = Features(None, 250, whole.total, whole.outer, real[::3])
    part.subjects = [f"p{i // 5}" for i in range(250)]
    found = compare({"fid": FID()}, real=part, fake=Features.of(fake[:100]), seed=0, uncertainty=nothing)["metrics"]["fid"]
    assert found["value"] == pytest.approx(frechet_distance(real=whole, fake=Features.of(fake[:100]), ddof=1))
    # Rows 0, 3, ... 249 are 84 of 50 patients.
    assert "50 patients" in found["interval_method"]
    assert found["floor"]["n"] <= 42
