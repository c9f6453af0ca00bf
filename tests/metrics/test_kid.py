from fractions import Fraction

import numpy as np
import pytest

from medgan.errors import DataError
from medgan.metrics.features import Features
from medgan.metrics.kid import KID, squared_mmd
from tests.metrics.phantoms import gaussian


def test_worked_by_hand():
    # D = 1, real 0, 1, fake 1, 2. k(x, y) = (xy + 1)^3: k(0,1) = 1; k(1,2) = 27; between: k(0,1) k(0,2) k(1,1) k(1,2) = 1, 1, 8, 27.
    # 1 + 27 - 2 * 37 / 4 = 9.5. With the diagonal kept it would be (1+2+8)/4 + (8+54+125)/4 - 18.5 = 31.
    assert squared_mmd(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])) == pytest.approx(9.5, rel=1e-14)


def test_unequal_sets_worked_by_hand():
    # D = 2, real (1,1), (1,-1), (0,0): k = 1, 1, 1 off the diagonal; fake (2,0), (0,2): k = 1; between: 8, 8, 8, 0, 1, 1.
    real, fake = np.array([[1.0, 1], [1, -1], [0, 0]]), np.array([[2.0, 0], [0, 2]])
    assert squared_mmd(real, fake) == pytest.approx(1 + 1 - 2 * 26 / 6, rel=1e-14)


def term_by_term(real: np.ndarray, fake: np.ndarray) -> Fraction:
    """Eq. 4 of Binkowski et al. 2018 once more, one pair of images at a time and without rounding; rows of whole numbers."""

    def k(x: np.ndarray, y: np.ndarray) -> Fraction:
        return (Fraction(sum(int(a) * int(b) for a, b in zip(x, y, strict=True)), len(x)) + 1) ** 3

    def within(rows: np.ndarray) -> Fraction:
        others = [k(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]
        return sum(others, Fraction()) / len(others)

    between = [k(x, y) for x in real for y in fake]
    return within(real) + within(fake) - 2 * sum(between, Fraction()) / len(between)


@pytest.mark.parametrize(("n_real", "n_fake", "dim"), [(2, 2, 1), (9, 5, 3), (13, 21, 16)])
def test_equals_the_definition_term_by_term(n_real, n_fake, dim):
    rng = np.random.default_rng(dim)
    real, fake = rng.integers(-9, 10, (n_real, dim)), rng.integers(-6, 13, (n_fake, dim))
    expected = term_by_term(real, fake)
    assert squared_mmd(real, fake) == pytest.approx(float(expected), rel=1e-12)
    assert KID()(real=Features.of(real), fake=Features.of(fake))["value"] == pytest.approx(float(expected), rel=1e-12)


def test_subsets_are_drawn_without_repeats_and_averaged():
    """Eleven of twelve real images and all synthetic ones: each subset is one of twelve, and none has an image twice."""
    rng = np.random.default_rng(0)
    real, fake = rng.integers(-9, 10, (12, 3)), rng.integers(-6, 13, (11, 3))
    one_left_out = [float(term_by_term(np.delete(real, i, 0), fake)) for i in range(12)]
    for seed in range(4):
        alone = float(KID(subsets=1, subset_size=11, seed=seed)(real=Features.of(real), fake=Features.of(fake))["value"])
        assert min(abs(alone - value) for value in one_left_out) < 1e-9 * abs(alone)
    many = KID(subsets=2000, subset_size=11)(real=Features.of(real), fake=Features.of(fake))
    assert many["value"] == pytest.approx(np.mean(one_left_out), abs=4 * np.std(one_left_out) / 2000**0.5)
    assert many["sd"] == pytest.approx(np.std(one_left_out), rel=0.1)


def test_the_official_number(golden):
    reference = np.load(golden / "metrics.npz")
    chosen = reference["kid_subset_idx"]
    values = [squared_mmd(reference["real"][r], reference["gen"][g]) for g, r in zip(chosen[::2], chosen[1::2], strict=True)]
    assert np.mean(values) == pytest.approx(float(reference["kid"]), rel=1e-5)


def test_is_unbiased_where_fid_is_not():
    values = [squared_mmd(gaussian(20, 8, seed), gaussian(20, 8, 1000 + seed)) for seed in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0


def test_small_sets_are_used_whole():
    real, fake = gaussian(30, 8, 1), gaussian(20, 8, 2, shift=1)
    result = KID()(real=Features.of(real), fake=Features.of(fake))
    assert result == {"value": squared_mmd(real, fake), "sd": 0.0, "subsets": 1, "subset_size": 20}


def test_subsets_come_from_the_seed_alone():
    real, fake = Features.of(gaussian(60, 8, 1)), Features.of(gaussian(50, 8, 2, shift=1))
    settings = {"subsets": 5, "subset_size": 20}
    first = KID(**settings)(real=real, fake=fake)
    np.random.seed(7)  # noqa: NPY002
    assert KID(**settings)(real=real, fake=fake) == first
    assert KID(**settings, seed=1)(real=real, fake=fake) != first
    assert first["value"] == pytest.approx(squared_mmd(real.rows, fake.rows), abs=4 * float(first["sd"]))


def test_one_image_is_too_few():
    with pytest.raises(DataError, match="two images of each set, here are 1 real"):
        KID()(real=Features.of(gaussian(1, 4, 1)), fake=Features.of(gaussian(9, 4, 2)))
