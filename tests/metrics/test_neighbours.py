import numpy as np
import pytest
from scipy.spatial.distance import cdist

from medgan.errors import DataError
from medgan.metrics.features import Features
from medgan.metrics.neighbours import Coverage, Density, Precision, Recall, overlap
from tests.metrics.phantoms import gaussian

ALL = (Precision, Recall, Density, Coverage)


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def values(real: np.ndarray, fake: np.ndarray, **settings: int) -> list[float]:
    return [float(metric(**settings)(real=Features.of(real), fake=Features.of(fake))["value"]) for metric in ALL]


def test_worked_by_hand():
    # k = 1. Radii: real 0, 1, 2, 10 have 1, 1, 1, 8; fake 2.5, 11, 30, 31 have 8.5, 8.5, 1, 1.
    # Precision: 2.5 is in the balls of 2 and 10, 11 in that of 10, 30 and 31 in none: 2/4; density (2 + 1 + 0 + 0) / 4.
    # Recall: all reals lie within 8.5 of 2.5: 4/4. Coverage: 0 and 1 have no fake within 1, 2 and 10 have one: 2/4.
    assert values(column(0, 1, 2, 10), column(2.5, 11, 30, 31), k=1) == [0.5, 1.0, 0.75, 0.5]


def test_the_third_neighbour_does_not_count_oneself():
    # Real 0, 1, 3, 7: third neighbours at 7, 6, 4, 7. A fake at 13.9 is 6.9 from 7 and inside; with itself counted the radius would be 6.
    result = overlap(column(0, 1, 3, 7), column(13.9, 100, 200, 300), 3)
    assert (result.precision, result.coverage) == (0.25, 0.25)


def test_the_official_number(golden):
    reference = np.load(golden / "metrics.npz")
    # The official code rounds features to float16; one real image of 600 lies on an edge that this moves.
    real, fake = (reference[name].astype(np.float16).astype(np.float64) for name in ("real", "gen"))
    result = overlap(real, fake, 3)
    assert result.precision == pytest.approx(float(reference["pr_precision"]), abs=1e-7)
    assert result.recall == pytest.approx(float(reference["pr_recall"]), abs=1e-7)
    exact = overlap(reference["real"], reference["gen"], 3)
    assert (exact.precision, exact.recall) == pytest.approx((result.precision, result.recall), abs=1.1 / 600)


@pytest.mark.parametrize("k", [3, 5])
def test_equals_the_definitions_on_scipy_distances(k):
    # More rows than a block; the definitions as Naeem et al. write them, on one full matrix.
    real, fake = gaussian(1300, 3, 1), gaussian(1100, 3, 2, shift=0.7)
    radii = {name: np.sort(cdist(rows, rows), axis=1)[:, k] for name, rows in (("real", real), ("fake", fake))}
    between = cdist(real, fake)
    inside = between <= radii["real"][:, None]
    expected = [inside.any(0).mean(), (between <= radii["fake"]).any(1).mean(), inside.sum() / (k * 1100)]
    expected.append((between.min(1) <= radii["real"]).mean())
    assert values(real, fake, k=k) == pytest.approx(expected, rel=1e-12)


def test_mode_collapse_has_precision_without_recall():
    real = gaussian(200, 4, 1)
    collapsed = gaussian(200, 4, 2, scale=0.01)
    precision, recall, density, coverage = values(real, collapsed)
    assert precision == 1
    assert recall < 0.05
    assert density > 1
    assert coverage < 0.3
    # The other way round: fakes that are everywhere have recall without precision.
    precision, recall, _, _ = values(collapsed, real)
    assert precision < 0.05
    assert recall == 1


def test_an_outlier_among_the_reals_moves_precision_and_not_density():
    real = np.concatenate([gaussian(100, 2, 1), column(300, 300).T])
    fake = gaussian(100, 2, 2, shift=50)
    assert values(real, fake, k=5)[0] == 1
    assert values(real, fake, k=5)[2] == pytest.approx(1 / 5)


def test_identical_sets_and_copies():
    rows = gaussian(60, 8, 1, shift=1000)
    precision, recall, _, coverage = values(rows, rows[::-1].copy())
    assert (precision, recall, coverage) == (1, 1, 1)
    # Every image four times: each ball has radius 0, and a copy is still inside.
    repeated = np.repeat(rows, 6, axis=0)
    assert values(repeated, repeated.copy()) == pytest.approx([1, 1, 6 / 5, 1])
    assert np.isfinite(values(np.full((9, 4), 0.1), np.full((9, 4), 0.6))).all()


def test_sets_too_small_for_a_neighbour():
    real, fake = Features.of(gaussian(9, 4, 1)), Features.of(gaussian(3, 4, 2))
    with pytest.raises(DataError, match="3-nearest-neighbour metric needs at least 4 images of each set, here are 9 real and 3 fake") as e:
        Precision()(real=real, fake=fake)
    assert "--n-fake" in e.value.fix
    with pytest.raises(DataError, match="at least 6 images"):
        Coverage()(real=Features.of(gaussian(9, 4, 1)), fake=Features.of(gaussian(5, 4, 2)))


def test_sets_cannot_be_swapped_by_position():
    features = Features.of(gaussian(9, 4, 1))
    for metric in ALL:
        with pytest.raises(TypeError, match="positional"):
            metric()(features, features)
