import numpy as np
import pytest

from medgan.metrics.authenticity import authenticity, c_t
from medgan.metrics.membership import auc, membership


def ask(train, held_out, *, images_each=1):
    return membership(
        train=train,
        held_out=held_out,
        train_patients=np.arange(len(train)) // images_each,
        held_out_patients=np.arange(len(held_out)) // images_each,
    )


def test_auc_by_hand():
    """Of six pairs (3,1) (3,2) (1,1) (1,2) (2,1) (2,2): three above, two ties: 4 / 6."""
    assert auc(np.array([3.0, 1, 2]), np.array([1.0, 2])) == pytest.approx(4 / 6)


def test_scores_that_say_nothing_have_an_auc_of_a_half_inside_the_interval():
    rng = np.random.default_rng(0)
    found = ask(rng.normal(size=1000), rng.normal(size=1000))
    assert found["interval"][0] < 0.5 < found["interval"][1]
    assert found["fpr 0.01"]["interval"][0] < 0.02
    assert found["fpr 0.001"]["tpr"] < 0.01


def test_few_memorised_images_show_at_a_low_false_positive_rate_only():
    rng = np.random.default_rng(0)
    train = rng.normal(size=1000)
    train[:20] += 8
    found = ask(train, rng.normal(size=1000))
    assert found["fpr 0.001"]["tpr"] >= 0.02
    assert found["fpr 0.001"]["interval"][0] > 0.01
    assert abs(found["auc"] - 0.5) < 0.05


def test_rates_by_hand():
    """Of 100 held-out scores 0 ... 99 one may be called a member: the threshold is 98, and three of five training scores lie above it."""
    found = ask(np.array([98.0, 98.5, 99, 100, 5]), np.arange(100.0))["fpr 0.01"]
    assert found["tpr"] == pytest.approx(3 / 5)
    assert found["null"] == 0.01
    # Wilson: (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with p = 0.6, n = 5, z = 1.96.
    assert found["interval"] == pytest.approx([0.2307, 0.8824], abs=1e-4)


def test_a_thousand_held_out_images_are_needed_for_a_thousandth():
    found = ask(np.zeros(50), np.zeros(150))
    assert found["fpr 0.001"] == {"tpr": None, "reason": "needs 1000 held-out images, there are 150"}
    assert found["fpr 0.01"]["tpr"] == 0
    assert found["auc"] == 0.5


def test_patients_and_not_images_are_drawn_for_the_interval():
    rng = np.random.default_rng(0)
    train, held_out = (np.repeat(rng.normal(size=20), 25) for _ in range(2))
    single, grouped = ask(train, held_out), ask(train, held_out, images_each=25)
    assert np.ptp(grouped["interval"]) > 3 * np.ptp(single["interval"])


def test_authenticity_by_hand():
    """Two of four synthetic images are farther from their neighbour than the next patient is, nine of ten held-out ones."""
    found = authenticity(
        fake=np.array([1.0, 2, 3, 4]), fake_gap=np.full(4, 2.5), held_out=np.r_[np.full(9, 3.0), 1.0], held_out_gap=np.full(10, 2.0)
    )
    assert (found["share"], found["null"]) == (0.5, 0.9)
    # Hypergeometric: of 14 images 11 are authentic, at most 2 of the 4: C(11,2) C(3,2) / C(14,4) + C(11,1) C(3,3) / C(14,4).
    assert found["p"] == pytest.approx((55 * 3 + 11) / 1001)


def cells(distance, seed=0):
    rng = np.random.default_rng(seed)
    train, held_out, fake = (rng.normal(size=(n, 3)) for n in (500, 400, 400))
    honest = rng.random(400)
    return c_t(train=train, held_out=held_out, fake=fake, held_out_distance=honest, fake_distance=distance(rng.random(400)))


def test_c_t_is_standard_normal_for_equal_distributions():
    values = [(lambda r: r["value"] / r["sd"])(cells(lambda d: d, seed)) for seed in range(60)]
    assert abs(np.mean(values)) < 0.4
    assert 0.75 < np.std(values) < 1.3


def test_c_t_is_low_where_synthetic_images_lie_too_near():
    found = cells(lambda d: d / 3)
    assert found["p"] < 1e-6
    assert found["cells"] == 5


def test_c_t_of_one_cell_is_the_rank_tests_z():
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    p, q = rng.random(30), rng.random(40)
    found = c_t(train=rng.normal(size=(50, 2)), held_out=np.zeros((30, 2)), fake=np.zeros((40, 2)), held_out_distance=p, fake_distance=q)
    expected = mannwhitneyu(q, p, alternative="less", method="asymptotic", use_continuity=False).pvalue
    assert found["p"] == pytest.approx(expected)


def test_c_t_weighs_its_cells_by_the_held_out_images():
    """Two cells far apart, with 120 and 40 held-out and 80 synthetic images each: the z values of scipy's rank test, weighed 3 to 1."""
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(1)

    def placed(first: int, second: int) -> np.ndarray:
        return np.r_[np.zeros(first), np.full(second, 100)][:, None] + rng.normal(size=(first + second, 2))

    p, q = rng.random(160), rng.random(160) * np.repeat([0.6, 1.2], 80)
    found = c_t(train=placed(50, 50), held_out=placed(120, 40), fake=placed(80, 80), held_out_distance=p, fake_distance=q)
    z = []
    for ours, theirs in ((q[:80], p[:120]), (q[80:], p[120:])):
        u, n, m = mannwhitneyu(ours, theirs).statistic, len(ours), len(theirs)
        z.append((u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))
    assert found["cells"] == 2
    assert found["value"] == pytest.approx(0.75 * z[0] + 0.25 * z[1])
    assert found["sd"] == pytest.approx(np.hypot(0.75, 0.25))


def test_too_few_images_for_c_t():
    found = c_t(
        train=np.zeros((5, 2)), held_out=np.zeros((5, 2)), fake=np.zeros((5, 2)), held_out_distance=np.ones(5), fake_distance=np.ones(5)
    )
    assert found["value"] is None
