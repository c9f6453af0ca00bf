import numpy as np
import pytest
from scipy.linalg import sqrtm

from medgan.errors import DataError
from medgan.metrics.features import Features
from medgan.metrics.fid import FID, FID50k, FID50kFull
from medgan.metrics.frechet import frechet_distance
from tests.metrics.phantoms import gaussian


def moments_only(rows: np.ndarray) -> Features:
    """Features without rows, so that the way through covariances is taken."""
    whole = Features.of(rows)
    return Features(None, whole.count, whole.total, whole.outer)


def with_sqrtm(real: np.ndarray, fake: np.ndarray) -> float:
    """The usual packages' formula, with N - 1."""
    a, b = np.cov(real.astype(float), rowvar=False), np.cov(fake.astype(float), rowvar=False)
    difference = real.mean(0, dtype=float) - fake.mean(0, dtype=float)
    return float(difference @ difference + np.trace(a + b - 2 * sqrtm(a @ b).real))


def test_one_dimension_by_hand():
    # real 0, 2: mean 1, variance 1 (N) or 2 (N - 1); fake 3, 7: mean 5, variance 4 or 8.
    real, fake = Features.of(np.array([[0.0], [2.0]])), Features.of(np.array([[3.0], [7.0]]))
    # 16 + 1 + 4 - 2 sqrt(4) = 17 and 16 + 2 + 8 - 2 sqrt(16) = 18
    assert frechet_distance(real=real, fake=fake, ddof=0) == pytest.approx(17, rel=1e-14)
    assert frechet_distance(real=real, fake=fake, ddof=1) == pytest.approx(18, rel=1e-14)


def test_two_dimensions_that_do_not_commute_by_hand():
    # real: two points along (1, 0), S1 = diag(1, 0); fake: two along (1, 1), S2 = [[1, 1], [1, 1]]; both have mean 0.
    real, fake = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[1.0, 1.0], [-1.0, -1.0]])
    # S1 S2 = [[1, 1], [0, 0]] has eigenvalues 1 and 0: distance 1 + 2 - 2 * 1 = 1
    assert frechet_distance(real=Features.of(real), fake=Features.of(fake), ddof=0) == pytest.approx(1, abs=1e-12)
    assert frechet_distance(real=moments_only(real), fake=moments_only(fake), ddof=0) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize(("n_real", "n_fake"), [(400, 300), (400, 20), (20, 300), (20, 30)])
def test_diagonal_gaussians_have_a_closed_form(n_real, n_fake):
    # Orthogonal columns of equal sign patterns give exactly diagonal covariances: d2 = |dmu|2 + sum (s1 - s2)^2.
    dim = 4
    signs = np.array([[1 if (i >> k) & 1 else -1 for k in range(dim)] for i in range(16)], dtype=float)
    s1, s2, shift = np.array([1.0, 2, 3, 0.5]), np.array([2.0, 2, 1, 0]), np.array([0.5, 0, -1, 2])
    real, fake = np.tile(signs * s1, (n_real, 1)), np.tile(signs * s2 + shift, (n_fake, 1))
    expected = (shift**2).sum() + ((s1 - s2) ** 2).sum()
    assert frechet_distance(real=Features.of(real), fake=Features.of(fake), ddof=0) == pytest.approx(expected, rel=1e-9)


def test_full_rank_equals_scipy():
    mixing = np.random.default_rng(3).standard_normal((64, 64))
    real, fake = gaussian(500, 64, 1) @ mixing, gaussian(400, 64, 2, scale=1.3, shift=0.2) @ mixing.T
    ours = frechet_distance(real=Features.of(real), fake=Features.of(fake), ddof=1)
    assert ours == pytest.approx(with_sqrtm(real, fake), rel=1e-6)
    assert frechet_distance(real=moments_only(real), fake=moments_only(fake), ddof=1) == pytest.approx(ours, rel=1e-12)


def test_the_triangular_factor_and_the_eigenvectors_give_one_value():
    """Two exact ways, on standard deviations over three and a half decades."""
    scale = np.logspace(0, -3.5, 64)
    real, fake = moments_only(gaussian(300, 64, 1, scale=scale)), moments_only(gaussian(300, 64, 2, scale=1.1 * scale))
    assert real.triangle is not None
    np.testing.assert_allclose(real.triangle @ real.triangle.T, real.covariance(ddof=0) * 300, rtol=1e-9, atol=1e-9)
    fast = frechet_distance(real=real, fake=fake, ddof=1)
    real.__dict__["triangle"] = None
    assert fast == pytest.approx(frechet_distance(real=real, fake=fake, ddof=1), rel=1e-7)


@pytest.mark.parametrize("constant", [0, 8])
def test_a_singular_covariance_of_many_images_has_no_triangular_factor(constant):
    """Each image five times, 40 of 64 directions filled; or features that never vary. An L of noise would add to the distance."""
    rows = np.tile(gaussian(40 if not constant else 400, 64, 1), (5, 1))
    rows[:, :constant] = 0.25
    real, fake = moments_only(rows), Features.of(gaussian(500, 64, 2, scale=1.3))
    assert real.triangle is None
    # An independent exact way: the nuclear norm of the product of centred rows.
    a, b = rows - rows.mean(0, dtype=float), fake.centred()
    overlap = np.linalg.svd(a @ b.T, compute_uv=False).sum() / np.sqrt((len(a) - 1) * (len(b) - 1))
    difference = rows.mean(0, dtype=float) - fake.mean
    expected = difference @ difference + (a**2).sum() / (len(a) - 1) + (b**2).sum() / (len(b) - 1) - 2 * overlap
    assert frechet_distance(real=real, fake=fake, ddof=1) == pytest.approx(expected, rel=1e-7)


@pytest.mark.filterwarnings("ignore:Matrix is singular")
@pytest.mark.parametrize(("n_real", "n_fake"), [(40, 400), (400, 40), (50, 40)])
def test_fewer_images_than_dimensions_is_exact(n_real, n_fake):
    scale = np.logspace(0, -2, 128)
    real, fake = gaussian(n_real, 128, 1, scale=scale), gaussian(n_fake, 128, 2, scale=1.2 * scale)
    from_rows = frechet_distance(real=Features.of(real), fake=Features.of(fake), ddof=1)
    # sqrtm itself is off by about 1e-6 here (METRICS.md section 2: 72.66804816 for 72.66810186).
    assert from_rows == pytest.approx(with_sqrtm(real, fake), rel=2e-5)
    # An independent exact way: singular values of the product of centred rows, by definition of the nuclear norm.
    a, b = (x.astype(float) - x.mean(0, dtype=float) for x in (real, fake))
    overlap = np.linalg.norm(a @ b.T, "nuc") / np.sqrt((n_real - 1) * (n_fake - 1))
    difference = real.mean(0, dtype=float) - fake.mean(0, dtype=float)
    expected = difference @ difference + (a**2).sum() / (n_real - 1) + (b**2).sum() / (n_fake - 1) - 2 * overlap
    assert from_rows == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("n", [30, 64, 65, 500])
def test_a_set_against_itself_is_zero(n):
    # Standard deviations over three and a half decades, as Inception features have them.
    rows = gaussian(n, 64, 1, scale=np.logspace(0, -3.5, 64), shift=0.4)
    rows[:, 5:15] = 0.25  # features that never vary
    shuffled = rows[np.random.default_rng(0).permutation(n)]
    assert frechet_distance(real=Features.of(rows), fake=Features.of(shuffled), ddof=1) < 1e-6


@pytest.mark.parametrize("n", [10, 200])
def test_constant_images_have_a_distance(n):
    real, fake = np.full((n, 16), 0.1, np.float32), np.full((n, 16), 0.6, np.float32)
    assert frechet_distance(real=Features.of(real), fake=Features.of(fake), ddof=1) == pytest.approx(16 * 0.25, rel=1e-5)
    varied = gaussian(n, 16, 0)
    expected = (varied.mean(0, dtype=float) - 0.1) @ (varied.mean(0, dtype=float) - 0.1) + varied.astype(float).var(0, ddof=1).sum()
    assert frechet_distance(real=Features.of(real), fake=Features.of(varied), ddof=1) == pytest.approx(expected, rel=1e-5)


def test_the_official_number(golden):
    reference = np.load(golden / "metrics.npz")
    real, fake = Features.of(reference["real"]), Features.of(reference["gen"])
    np.testing.assert_allclose(real.covariance(ddof=0), reference["real_cov"], rtol=1e-9, atol=1e-12)
    assert FID50kFull()(real=real, fake=fake)["value"] == pytest.approx(float(reference["fid"]), rel=1e-8)


def test_the_two_conventions_differ_by_their_divisor():
    real, fake = Features.of(gaussian(30, 4, 1)), Features.of(gaussian(30, 4, 2, scale=2))
    ours, official = FID()(real=real, fake=fake), FID50kFull()(real=real, fake=fake)
    difference = float(((real.mean - fake.mean) ** 2).sum())
    assert (float(ours["value"]) - difference) * 29 == pytest.approx((float(official["value"]) - difference) * 30, rel=1e-9)
    assert (ours["covariance_divisor"], official["covariance_divisor"]) == ("N - 1", "N")


def test_fid50k_looks_at_the_first_50000_reals():
    real, fake = gaussian(50_020, 4, 1), Features.of(gaussian(50_000, 4, 2, scale=1.1))
    real[50_000:] += 1000
    limited = FID50k()(real=Features.of(real), fake=fake)
    expected = FID50kFull()(real=Features.of(real[:50_000]), fake=fake)
    assert limited == {**expected, "reals_used": 50_000}
    assert FID50kFull()(real=Features.of(real), fake=fake)["value"] > 2 * expected["value"]
    few = Features.of(gaussian(90, 4, 3))
    assert FID50k()(real=few, fake=fake)["value"] == FID50kFull()(real=few, fake=fake)["value"]


def test_one_image_has_no_covariance():
    with pytest.raises(DataError, match="at least 2 images, here are 1 real and 9 fake"):
        FID()(real=Features.of(gaussian(1, 4, 1)), fake=Features.of(gaussian(9, 4, 2)))


def test_features_of_other_width_are_refused():
    with pytest.raises(DataError, match="width 4 and 5"):
        FID()(real=Features.of(gaussian(9, 4, 1)), fake=Features.of(gaussian(9, 5, 2)))


def test_sets_cannot_be_swapped_by_position():
    features = Features.of(gaussian(9, 4, 1))
    with pytest.raises(TypeError, match="positional"):
        FID()(features, features)
