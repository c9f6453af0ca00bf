import json
import math
import subprocess
import sys
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medgan import statistics
from medgan.errors import DataError
from medgan.statistics import (
    Counts,
    bootstrap,
    clopper_pearson,
    holm,
    mean_sd,
    paired_permutation_test,
    pearson,
    permutation_test,
    relative_improvement,
    smallest_p,
    spearman,
    wilson,
)

PUBLISHED = json.loads((Path(__file__).parent / "reference" / "turing_tables.json").read_text())
RATES = ("precision", "recall", "accuracy", "fpr", "fnr")
READERS = {
    name: Counts(tp=row["tp"], fp=row["fp"], tn=PUBLISHED["n_fake"] - row["fp"], fn=PUBLISHED["n_real"] - row["tp"])
    for name, row in PUBLISHED["clinicians"].items()
}


def percent(share: float) -> int:
    """As the paper prints: whole percent, halves up."""
    return math.floor(100 * share + 0.5)


# The published tables of arXiv 2210.03786.


@pytest.mark.parametrize("reader", READERS)
def test_a_readers_counts_give_the_published_row(reader):
    assert {rate: percent(getattr(READERS[reader], rate)) for rate in RATES} == PUBLISHED["clinicians"][reader]["published"]


@pytest.mark.parametrize("rate", RATES)
def test_means_and_sample_deviations_are_the_published_ones(rate):
    mean, sd = mean_sd([100 * getattr(counts, rate) for counts in READERS.values()])
    assert {"mean": math.floor(mean + 0.5), "sd": math.floor(sd + 0.5)} == PUBLISHED["summary"][rate]


def test_the_printed_deviation_of_accuracy_is_the_sample_one():
    # 9.56 prints as 10; divided by n it would be 8.85 and print as 9.
    accuracies = [100 * counts.accuracy for counts in READERS.values()]
    assert mean_sd(accuracies)[1] == pytest.approx(9.5568, abs=1e-4)
    assert np.std(accuracies) == pytest.approx(8.8479, abs=1e-4)


def test_fid_and_false_positive_rate_correlate_as_published_and_not_significantly():
    found = pearson(PUBLISHED["fid_fpr"]["fid"], PUBLISHED["fid_fpr"]["fpr"])
    assert round(found.statistic, 2) == PUBLISHED["fid_fpr"]["published_r"] == -0.91
    assert found.statistic == pytest.approx(-0.9140851)
    assert found.usual_p == pytest.approx(0.0859149)
    # The most extreme of 24 orders, and still 2/24: four models cannot show a correlation at 5 %.
    assert (found.exact, found.relabelings) == (True, 24)
    assert found.p == pytest.approx(2 / 24) == pytest.approx(found.smallest_p)
    assert min(found.p, found.usual_p) > 0.05
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((-0.99822, 0.38690), abs=1e-5)


def test_the_readers_two_error_rates_correlate_as_published_and_not_significantly():
    rows = [row["published"] for row in PUBLISHED["clinicians"].values()]
    found = pearson([row["fpr"] for row in rows], [row["fnr"] for row in rows])
    assert round(found.statistic, 2) == PUBLISHED["fpr_fnr"]["published_r"] == -0.71
    assert found.usual_p == pytest.approx(0.0751085)
    assert (found.exact, found.relabelings) == (True, 5040)
    assert min(found.p, found.usual_p) > 0.05
    assert found.interval is not None
    assert found.interval.low < 0 < found.interval.high


def test_pooled_false_positive_rate():
    pooled = reduce(add, READERS.values())
    assert {name: getattr(pooled, name) for name in ("tp", "fp", "tn", "fn")} == PUBLISHED["pooled"]
    assert pooled.fpr == 148 / 350
    assert percent(pooled.fpr) == 42


# Permutation tests.


def test_three_against_three_by_hand():
    # Of 20 relabelings only the observed one and its mirror are as extreme.
    found = permutation_test([1, 2, 3], [4, 5, 6])
    assert (found.statistic, found.relabelings, found.exact) == (-3, 20, True)
    assert found.p == pytest.approx(0.1) == pytest.approx(smallest_p(3, 3))


def test_overlapping_groups_by_hand():
    # Sums of two out of 1, 2, 3, 4 are 3, 4, 5, 5, 6, 7: {1, 3} has 4, and two of six are as low: p = 2 * 2/6.
    assert permutation_test([1, 3], [2, 4]).p == pytest.approx(2 / 3)


def test_five_against_five_has_252_relabelings():
    found = permutation_test([7.1, 7.4, 6.9, 7.0, 7.3], [8.0, 8.2, 7.9, 8.4, 7.8])
    assert found.relabelings == 252
    assert found.p == pytest.approx(2 / 252) == pytest.approx(smallest_p(5, 5))
    # METRICS.md section 4: six comparisons under Bonferroni are significant only without any overlap.
    assert smallest_p(5, 5) < 0.05 / 6 < 2 * smallest_p(5, 5)


def test_four_pairs_by_hand():
    # Differences 1, 2, 3 and -1 sum to 5; of 16 signings the sums 7, 5 and 5 are as large.
    found = paired_permutation_test([2, 3, 4, 0], [1, 1, 1, 1])
    assert (found.statistic, found.relabelings, found.exact, found.smallest_p) == (1.25, 16, True, 2 / 16)
    assert found.p == pytest.approx(2 * 3 / 16)


@pytest.mark.parametrize("n", [5, 12, 30])
def test_pairs_agree_with_scipys_permutation_test(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.4, 1, n), rng.normal(0, 1, n)
    theirs = stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", vectorized=True, n_resamples=200_000, rng=rng
    )
    assert paired_permutation_test(a, b).p == pytest.approx(theirs.pvalue, abs=1e-12 if n < 18 else 0.01)


def test_exact_interval_of_80_in_100():
    # Clopper and Pearson: Beta(80, 21) and Beta(81, 20) at 2.5 and 97.5 %.
    found = clopper_pearson(80, 100)
    assert (found.low, found.high) == pytest.approx((stats.beta.ppf(0.025, 80, 21), stats.beta.ppf(0.975, 81, 20)))
    assert (clopper_pearson(0, 10).low, clopper_pearson(10, 10).high) == (0, 1)


def test_three_runs_each_can_never_be_significant():
    assert smallest_p(3, 3) > 0.05 > smallest_p(4, 4)


def test_ties_are_ties_whatever_the_order_of_rounding():
    # 0.1 + 0.7 and 0.6 + 0.2 differ in the last bit; four of six relabelings are equal.
    assert permutation_test([0.1, 0.7], [0.6, 0.2]).p == 1


def test_a_group_without_variance_has_a_p():
    # A t-test gives nan here (METRICS.md section 4).
    assert permutation_test([1, 1, 1, 1], [0, 0, 0, 0]).p == pytest.approx(2 / 70)
    assert permutation_test([2, 2], [2, 2, 2]).p == 1


@pytest.mark.parametrize("seed", range(4))
def test_exact_p_equals_scipy(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=6), rng.normal(0.8, size=4)
    theirs = stats.permutation_test((a, b), lambda x, y: x.mean() - y.mean(), vectorized=False, n_resamples=np.inf)
    assert permutation_test(a, b).p == pytest.approx(theirs.pvalue, rel=1e-12)


def test_drawn_relabelings_approach_the_exact_p(monkeypatch):
    a, b = [1.0, 2.5, 3.1, 4.0, 2.2, 3.3], [3.0, 4.1, 3.6, 5.2, 4.4]
    exact = permutation_test(a, b)
    monkeypatch.setattr(statistics, "MOST_RELABELINGS", 100)
    drawn, again, other = (permutation_test(a, b, draws=20_000, seed=seed) for seed in (0, 0, 1))
    assert (drawn.exact, drawn.relabelings) == (False, 20_000)
    # Five standard errors of a share drawn 20,000 times, doubled.
    assert abs(drawn.p - exact.p) < 10 * math.sqrt(exact.p / 2 / 20_000)
    assert drawn == again != other


def test_a_drawn_p_is_never_zero():
    found = permutation_test(np.arange(40.0), np.arange(40.0) + 1000, draws=999)
    assert not found.exact
    # (0 + 1) / (999 + 1), twice.
    assert found.p == pytest.approx(0.002) == pytest.approx(found.smallest_p)


# Correlations.


def test_a_correlation_by_hand():
    # Deviations (-1, 0, 1) and (0, -1, 1): 1 / sqrt(2 * 2). Of 6 orders, 3 reach 0.5 (1/2, 1/2, 1), 5 stay at or below: p = 2 * 3/6.
    found = pearson([1, 2, 3], [2, 1, 3])
    assert found.statistic == pytest.approx(0.5)
    assert (found.p, found.relabelings, found.interval) == (1, 6, None)


def test_ranks_by_hand():
    # d = (0, 1, -1, 0): 1 - 6 * 2 / (4 * 15) = 0.8
    assert spearman([10, 20, 30, 40], [1, 9, 4, 100]).statistic == pytest.approx(0.8)


@pytest.mark.parametrize(("ours", "theirs"), [(pearson, stats.pearsonr), (spearman, stats.spearmanr)])
def test_correlations_equal_scipy(ours, theirs):
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=6), rng.normal(size=6)
    y[1] = y[2]
    found = ours(x, y)
    assert found.statistic == pytest.approx(theirs(x, y).statistic)
    assert found.usual_p == pytest.approx(theirs(x, y).pvalue)
    permuted = stats.permutation_test((x,), lambda u: theirs(u, y).statistic, permutation_type="pairings", n_resamples=np.inf)
    assert found.p == pytest.approx(permuted.pvalue)


def test_many_points_are_permuted_at_random():
    x = np.arange(30.0)
    found = pearson(x, x + 20 * np.sin(x), draws=9_999)
    assert (found.exact, found.relabelings, found.n) == (False, 9_999, 30)
    assert found.p == pytest.approx(found.usual_p, abs=0.01)


# Intervals.


def test_mean_and_sample_deviation_by_hand():
    assert mean_sd([1, 2, 3, 6]) == pytest.approx((3, math.sqrt(14 / 3)))


def test_wilson_by_hand():
    # None of ten: from 0 to z2 / (n + z2), z2 = 3.8415.
    found = wilson(0, 10)
    assert (found.low, found.high) == pytest.approx((0, 3.841459 / 13.841459), abs=1e-6)
    # METRICS.md section 4, reader 1: 82 of 100 right.
    assert (wilson(82, 100).low, wilson(82, 100).high) == pytest.approx((0.7333, 0.8830), abs=1e-4)


def test_a_bootstrap_interval_holds_the_mean_and_shrinks_with_n():
    rng = np.random.default_rng(0)
    small, large = (bootstrap(rng.normal(5, 1, n), resamples=2000) for n in (10, 160))
    assert small.method == "bootstrap (BCa)"
    assert small.low < 5 < small.high
    assert (large.high - large.low) < (small.high - small.low) / 2
    # For the mean of many values it is about mean ± 1.96 SE.
    assert large.high - large.low == pytest.approx(2 * 1.96 / math.sqrt(160), rel=0.2)


def test_where_bca_has_no_answer_the_interval_says_that_it_is_plain():
    # The statistic is the same on every jackknife sample, so the acceleration is 0/0.
    found = bootstrap([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1], lambda x: float(x.max()), resamples=500)
    assert found.method == "bootstrap (percentile)"
    assert 0 <= found.low <= found.high <= 1


# Families of tests.


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, and the last is raised to .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.integers(0, 100).map(lambda k: k / 1000), min_size=1, max_size=12))
def test_holm_decides_as_the_step_down_rule(p):
    alpha, rejected = 0.05, [False] * len(p)
    for step, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[i] * (len(p) - step) > alpha:
            break
        rejected[i] = True
    assert [value <= alpha for value in holm(p)] == rejected


def test_relative_improvement_by_hand():
    assert relative_improvement(baseline=10, value=7.5) == 0.25
    assert relative_improvement(baseline=0.5, value=0.6, higher_is_better=True) == pytest.approx(0.2)
    assert relative_improvement(baseline=10, value=12) == -0.2


# Bad numbers.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_sd([1]), "at least 2 values, here is 1"),
        (lambda: mean_sd([1, math.nan, math.inf]), "2 of 3 values are not finite"),
        (lambda: mean_sd([[1, 2], [3, 4]]), "one list of numbers"),
        (lambda: smallest_p(0, 5), "here are 0 and 5"),
        (lambda: permutation_test([], [1, 2]), "at least 1 value"),
        (lambda: permutation_test([1], [2]), "every p would be 1"),
        (lambda: permutation_test([1, math.nan], [2, 3]), "not finite"),
        (lambda: permutation_test(range(50), range(50), draws=0), "at least one draw"),
        (lambda: pearson([1, 2], [3, 4]), "at least 3"),
        (lambda: pearson([1, 2, 3], [1, 2, 3, 4]), "here are 3 and 4"),
        (lambda: pearson([1, 2, 3], [5, 5, 5]), "all 3 values are equal"),
        (lambda: spearman([1, 1, 1], [1, 2, 3]), "all 3 values are equal"),
        (lambda: spearman([1, 2, math.nan], [1, 2, 3]), "not finite"),
        (lambda: bootstrap([1, 2]), "at least 3"),
        (lambda: bootstrap([3, 3, 3, 3]), "all 4 values are equal"),
        (lambda: bootstrap([1, 2, 3], level=95), "between 0 and 1, not at 95"),
        (lambda: wilson(5, 4), "5 of 4 is no share"),
        (lambda: wilson(0, 0), "0 of 0"),
        (lambda: holm([]), "at least 1"),
        (lambda: holm([0.1, 1.2]), "outside 0"),
        (lambda: holm([0.1, math.nan]), "not finite"),
        (lambda: relative_improvement(baseline=0, value=1), "not above 0"),
        (lambda: relative_improvement(baseline=math.nan, value=1), "not finite"),
        (lambda: Counts(tp=0, fp=0, tn=50, fn=50).precision, "no image was called real"),
        (lambda: Counts(tp=-1, fp=0, tn=50, fn=50), "negative"),
    ],
)
def test_what_cannot_be_computed_is_an_error_that_says_why(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_statistics_need_no_torch():
    code = "import sys, medgan.statistics as s; s.pearson([1, 2, 3, 4], [1, 3, 2, 4]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
