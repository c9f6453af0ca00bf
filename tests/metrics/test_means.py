import json
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import norm

from medgan.metrics.means import FEWEST_PATIENTS, Measured, described, interval, units_of
from medgan.metrics.path_length import trimmed_interval, trimmed_mean
from medgan.metrics.ssim import MSSSIM
from tests.metrics.test_ssim import pictures


def all_pairs(n: int) -> np.ndarray:
    return np.array(list(combinations(range(n), 2)))


def plain_variance(values: np.ndarray, units: np.ndarray) -> float:
    """The definition once more: the sum over all two pairs that have a unit in common, each once."""
    off = values - values.mean()
    sets = [set(np.atleast_1d(unit).tolist()) for unit in units]
    return sum(a * b for a, x in zip(off, sets, strict=True) for b, y in zip(off, sets, strict=True) if x & y) / len(values) ** 2


# The standard error.


def test_disjoint_pairs_have_the_usual_standard_error():
    # 1, 2, 6: mean 3, s^2 = (4 + 1 + 9) / 2 = 7, standard error sqrt(7 / 3) with 2 degrees of freedom.
    error, free = Measured(np.array([1.0, 2, 6]), np.array([[0, 1], [2, 3], [4, 5]])).error()
    assert (error, free) == (pytest.approx(np.sqrt(7 / 3)), 2)
    assert Measured(np.array([1.0, 2, 6]), np.array([4, 0, 2])).error() == (pytest.approx(np.sqrt(7 / 3)), 2)


def test_pairs_that_share_images_by_hand():
    # Values a + b of images 0, 1, 2, 3 with x = 0, 1, 2, 5: mean 2 * 2 = 4, and the true estimate is 4 s^2 / n = 4 (4+1+0+9)/3 / 4 = 14/3.
    x, pairs = np.array([0.0, 1, 2, 5]), all_pairs(4)
    error, free = Measured(x[pairs].sum(1), pairs).error()
    assert (error**2, free) == (pytest.approx(14 / 3), 3)


def test_images_of_one_patient_by_hand():
    # Patients with deviations -2 - 1 = -3, 1 + 2 = 3: (9 + 9) / 16, times 2 / (2 - 1) for two patients.
    error, free = Measured(np.array([1.0, 2, 4, 5]), np.array([0, 0, 1, 1]), 2).error()
    assert (error**2, free) == (pytest.approx(2 * 18 / 16), 1)


@pytest.mark.parametrize("units", [5, 9, 40])
def test_the_sum_is_that_over_all_pairs_with_a_common_unit(units):
    rng = np.random.default_rng(units)
    x, places = rng.normal(size=units), rng.integers(units, size=(60, 2))
    values = x[places].sum(1) + rng.normal(size=60) * 0.1
    n = len(np.unique(places))
    error, _ = Measured(values, places).error()
    assert error**2 == pytest.approx(plain_variance(values, places) * n * (n - 1) / ((n - 2) * (n - 3)), rel=1e-9)


def test_dependence_never_makes_a_mean_surer_than_independent_values():
    # Deviations that cancel within each image: their products sum to less than their squares.
    values = np.array([1.0, -1, -1, 1])
    pairs = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])[[0, 1, 3, 2]]
    found = Measured(values, pairs)
    assert plain_variance(values, pairs) <= 0
    assert found.error()[0] > 0


# What intervals hold.


def covered(make, truth: float, repeats: int = 300) -> float:
    """Share of 95 % intervals that hold the truth."""
    held = 0
    for seed in range(repeats):
        found = make(np.random.default_rng(seed))
        low, high = interval(found.mean, *found.error(), "")["interval"]
        held += low <= truth <= high
    return held / repeats


# 300 repeats of a true 95 %: 0.91 to 0.98 at three standard errors.
NOMINAL = (0.91, 0.985)


@pytest.mark.parametrize("what", ["all", "disjoint"])
def test_intervals_of_pairs_hold_the_true_mean(what):
    def make(rng: np.random.Generator) -> Measured:
        x = rng.normal(size=120)
        pairs = all_pairs(120) if what == "all" else np.arange(120).reshape(-1, 2)
        return Measured(np.abs(np.diff(x[pairs], axis=1)[:, 0]), pairs)

    # Mean of |x - y|: 2 / sqrt(pi).
    assert NOMINAL[0] <= covered(make, 2 / np.sqrt(np.pi)) <= NOMINAL[1]


def test_taken_for_independent_pairs_would_promise_too_much():
    def naive(rng: np.random.Generator) -> Measured:
        x = rng.normal(size=60)
        return Measured(np.abs(np.diff(x[all_pairs(60)], axis=1)[:, 0]), np.arange(60 * 59 // 2))

    assert covered(naive, 2 / np.sqrt(np.pi), 100) < 0.5


def sharing(count: int) -> tuple:
    """Differences of images in random disjoint pairs, of so many patients with 6 all but equal images each: by patient, by image, and their true mean."""

    def by_patient(rng: np.random.Generator) -> Measured:
        patients = np.repeat(np.arange(count), 6)
        x = rng.normal(size=count)[patients] + 0.1 * rng.normal(size=6 * count)
        pairs = rng.permutation(6 * count).reshape(-1, 2)
        return Measured(np.abs(np.diff(x[pairs], axis=1)[:, 0]), patients[pairs], count)

    def by_image(rng: np.random.Generator) -> Measured:
        found = by_patient(rng)
        return Measured(found.values, np.arange(6 * count).reshape(-1, 2))

    # Two images of one patient (5 of all others) differ by a normal number of deviation 0.1 sqrt(2), of two by one of sqrt(2.02).
    same = 5 / (6 * count - 1)
    return by_patient, by_image, np.sqrt(2 / np.pi) * (same * np.sqrt(0.02) + (1 - same) * np.sqrt(2.02))


def test_intervals_hold_where_images_share_patients():
    by_patient, by_image, truth = sharing(40)
    assert NOMINAL[0] <= covered(by_patient, truth) <= NOMINAL[1]
    assert covered(by_image, truth) < 0.85


def test_few_patients_and_heavy_tails_hold_less_than_is_promised():
    """Decision 0021 has these two figures: 20 patients, and squared differences of 60 pairs of exponential numbers."""
    by_patient, _, truth = sharing(20)
    assert covered(by_patient, truth) == pytest.approx(0.90, abs=0.01)

    def heavy(rng: np.random.Generator) -> Measured:
        return Measured(np.square(np.diff(rng.exponential(size=(60, 2)), axis=1)[:, 0]), np.arange(120).reshape(-1, 2))

    # (x - y)^2 of two exponential numbers: twice the variance, which is 1.
    assert covered(heavy, 2.0) == pytest.approx(0.85, abs=0.01)


def test_the_interval_of_ms_ssim_holds_the_figure_of_a_very_large_set():
    rng = np.random.default_rng(0)
    images = (rng.integers(0, 60, (12_000, 1, 1, 1)) + rng.integers(0, 160, (12_000, 1, 8, 8))).astype(np.uint8)
    truth = float(MSSSIM(pairs=6000)(real=pictures(images[:4]), fake=pictures(images))["value"])
    held = 0
    for start in range(0, 12_000, 120):
        low, high = MSSSIM()(real=pictures(images[:4]), fake=pictures(images[start : start + 120]))["interval"]
        held += low <= truth <= high
    assert 89 <= held <= 100


def test_the_interval_of_a_trimmed_mean_holds_the_true_one():
    # Half-normal distances: the mean between the 1st and 99th percentile of |z| is (phi(a) - phi(b)) / (Phi(b) - Phi(a)).
    a, b = norm.ppf(0.505), norm.ppf(0.995)
    truth = (norm.pdf(a) - norm.pdf(b)) / (norm.cdf(b) - norm.cdf(a))
    held = 0
    for seed in range(300):
        low, high = trimmed_interval(np.abs(np.random.default_rng(seed).normal(size=1000)))["interval"]
        held += low <= truth <= high
    assert NOMINAL[0] <= held / 300 <= NOMINAL[1]


def test_the_interval_of_a_trimmed_mean_by_hand():
    # Of 101 numbers 1 ... 99 stay, and -1e9 and 1e12 are moved to 1 and 99.
    values = np.concatenate([[-1e9], np.arange(1.0, 100.0), [1e12]])
    moved = np.concatenate([[1.0], np.arange(1.0, 100.0), [99.0]])
    expected = interval(50, moved.std(ddof=1) / (99 / 101) / np.sqrt(101), 98, "")["interval"]
    assert trimmed_mean(values) == 50
    assert trimmed_interval(values)["interval"] == pytest.approx(expected)
    assert trimmed_interval(np.zeros(5)) == {"interval": None, "interval_method": "none: 5 pairs all gave 0"}
    assert trimmed_interval(np.array([3.0])) == {"interval": None, "interval_method": "none: 1 pairs gave 3"}


# What a result says.


def test_the_difference_of_two_means_is_welchs():
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(0)
    x, y = rng.normal(1, 2, 30), rng.normal(0, 1, 45)
    found = described(Measured(x, np.arange(30)), Measured(y, np.arange(45)), what="images", intervals=True)
    theirs = ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert found["difference"] == pytest.approx(x.mean() - y.mean())
    assert found["difference_interval"] == pytest.approx([theirs.low, theirs.high], rel=1e-9)
    assert found["real_interval"][0] < found["real"] < found["real_interval"][1]
    assert found["interval_method"] == "standard error of 30 images"


def test_without_intervals_nothing_of_them_is_said():
    some = Measured(np.array([1.0, 2]), np.arange(2))
    assert set(described(some, some, what="pairs", intervals=False)) == {"value", "sd", "pairs", "real", "real_sd", "real_pairs"}


@pytest.mark.parametrize(
    ("measured", "why"),
    [
        (Measured(np.array([0.5]), np.array([[0, 1]])), "none: 1 pairs gave 0.5"),
        (Measured(np.full(7, 0.25), np.arange(7)), "none: 7 pairs all gave 0.25"),
        (Measured(np.array([1.0, 2, 4]), all_pairs(3)), "none: too few to say: 3 pairs of 3 images"),
        (Measured(np.array([1.0, 2]), np.arange(2), dependent="because"), "none: because"),
    ],
)
def test_where_there_is_no_interval_the_reason_is_said(measured, why):
    found = described(measured, Measured(np.array([1.0, 2]), np.arange(2)), what="pairs", intervals=True)
    assert (found["interval"], found["difference_interval"]) == (None, None)
    assert found["interval_method"] == why
    assert found["real_interval"]
    json.dumps(found, allow_nan=False)


def test_units_are_patients_where_enough_are_known():
    assert units_of(5, None)[0].tolist() == list(range(5))
    codes, patients = units_of(6, ["b", "a", "c", "d", "a", "b"])
    assert (codes.tolist(), patients) == ([1, 0, 2, 3, 0, 1], 4)
    few, patients = units_of(4, ["a", "b", "a", "b"])
    assert (few.tolist(), patients) == ([0, 1, 2, 3], 2)
    assert patients < FEWEST_PATIENTS
    # Keys of another set say nothing of this one.
    assert units_of(3, ["a", "b", "c", "d"]) == (pytest.approx([0, 1, 2]), 0)
