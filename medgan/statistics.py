"""Statistics of few numbers: permutation tests, correlations, intervals. Pure functions on numpy and scipy; nothing here needs torch.

A comparison of runs or readers rests on five or ten values. So tests are exact where all relabelings can be listed, intervals name their
method, and `smallest_p` says before the runs start what they can show at best. Bad numbers are errors, never nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, permutations
from typing import Any

import numpy as np

from medgan.errors import DataError

Array = np.ndarray[Any, Any]
Values = Sequence[float] | Array

MOST_RELABELINGS = 200_000
"""Up to here all relabelings are listed: 10 against 10 (184,756) and the orders of 8 points (40,320)."""

# Equal sums of floats differ by rounding; relabelings this close to the observed one count as equal to it.
TIE = 1e-12


@dataclass(frozen=True)
class Interval:
    """A confidence interval and how it was made."""

    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True)
class PermutationTest:
    """Outcome of a two-sided permutation test.

    Attributes:
        statistic: What was observed.
        p: Twice the smaller one-sided p, at most 1.
        relabelings: How many were looked at: all of them, or those drawn.
        exact: Whether they were all.
        smallest_p: The smallest p that this design can give; above the level of the test, no data could be significant.
    """

    statistic: float
    p: float
    relabelings: int
    exact: bool
    smallest_p: float


@dataclass(frozen=True)
class Correlation(PermutationTest):
    """A correlation coefficient (`statistic`) with its permutation p, the usual p beside it, and n points.

    Attributes:
        n: Points.
        usual_p: What scipy and most papers print: from the t distribution, which few points do not follow.
        interval: 95 % by Fisher's z for Pearson with 4 points or more; None elsewhere.
    """

    n: int
    usual_p: float
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Counts:
    """A reader's answers in a visual Turing test, with `real` as the positive class, as arXiv 2210.03786 counts.

    Attributes:
        tp: Real images called real.
        fp: Synthetic images called real: the reader was deceived.
        tn: Synthetic images called synthetic.
        fn: Real images called synthetic.
    """

    tp: int
    fp: int
    tn: int
    fn: int

    def __post_init__(self) -> None:
        if min(self.tp, self.fp, self.tn, self.fn) < 0:
            raise DataError("a count of answers is negative")

    def __add__(self, other: Counts) -> Counts:
        """Answers of several readers pooled."""
        return Counts(tp=self.tp + other.tp, fp=self.fp + other.fp, tn=self.tn + other.tn, fn=self.fn + other.fn)

    @property
    def precision(self) -> float:
        """Share of real ones among the images called real."""
        return _share(self.tp, self.tp + self.fp, "image was called real, so there is no precision")

    @property
    def recall(self) -> float:
        """Share of the real images that were called real."""
        return _share(self.tp, self.tp + self.fn, "real image was shown")

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return _share(self.tp + self.tn, self.tp + self.fp + self.tn + self.fn, "image was shown")

    @property
    def fpr(self) -> float:
        """False positive rate: share of the synthetic images that were called real."""
        return _share(self.fp, self.fp + self.tn, "synthetic image was shown")

    @property
    def fnr(self) -> float:
        """False negative rate: share of the real images that were called synthetic."""
        return _share(self.fn, self.tp + self.fn, "real image was shown")


def mean_sd(values: Values) -> tuple[float, float]:
    """Mean and sample standard deviation (divided by n - 1), the ± of a paper.

    Raises:
        DataError: Fewer than two values, or one that is not finite.
    """
    x = _finite(values, least=2, what="a standard deviation")
    return float(x.mean()), float(x.std(ddof=1))


def smallest_p(n1: int, n2: int) -> float:
    """The smallest two-sided p of a permutation test of n1 against n2 values: 2 of all (n1 + n2)! / (n1! n2!) relabelings.

    5 against 5 give 2/252 = 0.0079, 3 against 3 give 0.1: no outcome of such runs is significant at 5 %. To be said before they start.

    Raises:
        DataError: An empty group.
    """
    if min(n1, n2) < 1:
        raise DataError(f"a permutation test needs a value in either group, here are {n1} and {n2}")
    return min(1.0, 2 / math.comb(n1 + n2, n1))


def permutation_test(a: Values, b: Values, *, draws: int = 99_999, seed: int = 0) -> PermutationTest:
    """Two-sided permutation test of the difference of means, mean(a) - mean(b); exact up to `MOST_RELABELINGS`.

    p is twice the smaller one-sided p (at most 1), as `scipy.stats.permutation_test` has it. Beyond the bound, relabelings are
    drawn, and p is (b + 1)/(m + 1): the observed one counts, so p is never 0 (Phipson and Smyth 2010).

    Args:
        a: Values of one group.
        b: Values of the other; their order and numbers may differ.
        draws: m, where there are too many relabelings to list.
        seed: Of the draws.

    Raises:
        DataError: An empty group, two values in all, or a value that is not finite.
    """
    x, y = _finite(a, least=1, what="a group"), _finite(b, least=1, what="a group")
    both = np.concatenate([x, y])
    if len(both) < 3:
        raise DataError("two values alone have no permutation test: every p would be 1")
    n1, n2, total = len(x), len(y), both.sum()
    exact = math.comb(n1 + n2, n1) <= MOST_RELABELINGS

    def differences() -> Iterator[Array]:
        rng = np.random.default_rng(seed)
        for block in _blocks(combinations(range(n1 + n2), n1)) if exact else _draws(rng, n1 + n2, draws):
            first = both[block[:, :n1]].sum(1)
            yield first / n1 - (total - first) / n2

    observed = float(x.mean() - y.mean())
    p, looked_at = _two_sided(observed, differences(), exact=exact, scale=float(np.abs(both).max()))
    return PermutationTest(observed, p, looked_at, exact, smallest_p(n1, n2) if exact else 2 / (draws + 1))


def paired_permutation_test(a: Values, b: Values, *, draws: int = 99_999, seed: int = 0) -> PermutationTest:
    """Two-sided permutation test of the mean difference of pairs, mean(a - b): within each pair either order is as likely (Fisher 1935).

    Exact up to 17 pairs; n pairs give 2/2^n at best, so five readers can reach 0.0625 and four no more than 0.125.

    Args:
        a: One value of each pair.
        b: The other, in the same order.
        draws: Signs drawn, where there are too many to list.
        seed: Of the draws.

    Raises:
        DataError: Lists of other length, fewer than two pairs, or a value that is not finite.
    """
    x, y = _finite(a, least=2, what="a test of pairs"), _finite(b, least=2, what="a test of pairs")
    if len(x) != len(y):
        raise DataError(f"a test of pairs pairs values, here are {len(x)} and {len(y)}")
    if draws < 1:
        raise DataError("a Monte-Carlo test needs at least one draw")
    difference, n = x - y, len(x)
    exact = 2**n <= MOST_RELABELINGS

    def means() -> Iterator[Array]:
        if exact:
            yield (1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)) @ difference / n
            return
        rng = np.random.default_rng(seed)
        for start in range(0, draws, 5_000):
            yield rng.choice((-1, 1), (min(5_000, draws - start), n)) @ difference / n

    observed = float(difference.mean())
    p, looked_at = _two_sided(observed, means(), exact=exact, scale=float(np.abs(difference).max()))
    return PermutationTest(observed, p, looked_at, exact, 2 / 2**n if exact else 2 / (draws + 1))


def pearson(x: Values, y: Values, *, draws: int = 99_999, seed: int = 0) -> Correlation:
    """Pearson's r with its permutation p; exact up to 8 points, whose orders can all be listed.

    Four points have 24 orders, so their smallest p is 2/24 = 0.083: no correlation of four models is significant at 5 %.

    Raises:
        DataError: Fewer than three points, lists of other length, a constant list, or a value that is not finite.
    """
    from scipy.stats import pearsonr

    u, v = _pairs(x, y)
    usual = pearsonr(u, v)
    interval = None
    if len(u) >= 4 and abs(usual.statistic) < 1 - TIE:
        low, high = usual.confidence_interval(0.95)
        interval = Interval(float(low), float(high), 0.95, "Fisher z")
    return _correlation(u, v, float(usual.pvalue), interval, draws, seed)


def spearman(x: Values, y: Values, *, draws: int = 99_999, seed: int = 0) -> Correlation:
    """Spearman's rank correlation with its permutation p; ties share their mean rank.

    Raises:
        DataError: As `pearson`.
    """
    from scipy.stats import rankdata, spearmanr

    u, v = _pairs(x, y)
    return _correlation(rankdata(u), rankdata(v), float(spearmanr(u, v).pvalue), None, draws, seed)


def bootstrap(
    values: Values, statistic: Callable[[Array], float] = np.mean, *, level: float = 0.95, resamples: int = 9_999, seed: int = 0
) -> Interval:
    """Bootstrap interval of a statistic of one sample: BCa (Efron 1987), or plain percentiles where BCa has no answer; `method` says which.

    Not for FID or other figures with a bias in 1/n, which repeated images change.

    Args:
        values: The sample; independent of one another, so patients rather than slices.
        statistic: From values (n,) to a number.
        level: Of confidence, between 0 and 1.
        resamples: How many.
        seed: Of the resamples.

    Raises:
        DataError: Fewer than three values, all equal, or one that is not finite.
    """
    import warnings

    from scipy import stats

    x = _varying(_finite(values, least=3, what="a bootstrap interval"), "a bootstrap interval")
    _check_level(level)
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            # A degenerate BCa shows as nan, which is looked for below.
            warnings.simplefilter("ignore")
            found = stats.bootstrap(
                (x,),
                statistic,
                vectorized=False,
                confidence_level=level,
                n_resamples=resamples,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            return Interval(float(found.low), float(found.high), level, f"bootstrap ({method})")
    raise DataError("the statistic is not finite on resampled values, so it has no bootstrap interval")


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Wilson's interval of a share (Wilson 1927): right also near 0 and 1, where share ± 2 SE leaves the range.

    Raises:
        DataError: No trial, or more successes than trials.
    """
    return _share_interval(successes, n, level, "Wilson")


def clopper_pearson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """The exact interval of a share (Clopper and Pearson 1934): it holds the true one with at least the level's probability, whatever that is.

    Raises:
        DataError: As `wilson`.
    """
    return _share_interval(successes, n, level, "Clopper-Pearson")


def _share_interval(successes: int, n: int, level: float, method: str) -> Interval:
    from scipy.stats import binomtest

    if n < 1 or not 0 <= successes <= n:
        raise DataError(f"{successes} of {n} is no share")
    _check_level(level)
    found = binomtest(successes, n).proportion_ci(level, method="wilson" if method == "Wilson" else "exact")
    return Interval(float(found.low), float(found.high), level, method)


def larger(a: Values, b: Values) -> float:
    """In how many of the len(a) · len(b) pairs the value of a is the larger one, ties counting half: the U of Mann and Whitney 1947.

    Divided by their number it is the probability of that, or the area under the ROC curve.

    Raises:
        DataError: An empty group, or a value that is not finite.
    """
    from scipy.stats import rankdata

    x, y = _finite(a, least=1, what="a group"), _finite(b, least=1, what="a group")
    n = len(x)
    return float(rankdata(np.concatenate([x, y]))[:n].sum() - n * (n + 1) / 2)


def holm(p_values: Values) -> list[float]:
    """p-values of one family of tests, adjusted after Holm 1979, in the order given: significant where at most the family's level.

    The smallest is multiplied by their number m, the next by m - 1 and so on; none falls below its predecessor or exceeds 1.

    Raises:
        DataError: No value, or one outside 0 ... 1.
    """
    p = _finite(p_values, least=1, what="a family of tests")
    if p.min() < 0 or p.max() > 1:
        raise DataError("a p-value lies outside 0 ... 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return [float(value) for value in adjusted]


def relative_improvement(*, baseline: float, value: float, higher_is_better: bool = False) -> float:
    """By which share of the baseline a value is better: FID 10 to 7.5 gives 0.25; negative where it is worse.

    Raises:
        DataError: A baseline that is not above 0, where a share of it means nothing (KID may be), or a value that is not finite.
    """
    if not (math.isfinite(baseline) and math.isfinite(value)):
        raise DataError("a value that is not finite has no relative improvement")
    if baseline <= 0:
        raise DataError("relative to a baseline that is not above 0 nothing can be said", fix="compare the difference instead")
    return (value - baseline if higher_is_better else baseline - value) / baseline


def _correlation(u: Array, v: Array, usual_p: float, interval: Interval | None, draws: int, seed: int) -> Correlation:
    n = len(u)
    u, v = ((values - values.mean()) / np.linalg.norm(values - values.mean()) for values in (u, v))
    exact = math.factorial(n) <= MOST_RELABELINGS

    def coefficients() -> Iterator[Array]:
        rng = np.random.default_rng(seed)
        for block in _blocks(permutations(range(n))) if exact else _draws(rng, n, draws):
            yield v[block] @ u

    observed = float(np.clip(u @ v, -1, 1))
    p, looked_at = _two_sided(observed, coefficients(), exact=exact, scale=1.0)
    smallest = 2 / math.factorial(n) if exact else 2 / (draws + 1)
    return Correlation(observed, p, looked_at, exact, smallest, n, usual_p, interval)


def _two_sided(observed: float, blocks: Iterator[Array], *, exact: bool, scale: float) -> tuple[float, int]:
    """The p of both tails, and the number of relabelings behind it."""
    low = high = count = 0
    slack = TIE * max(scale, abs(observed))
    for block in blocks:
        low += int((block <= observed + slack).sum())
        high += int((block >= observed - slack).sum())
        count += len(block)
    one_sided = min(low, high) / count if exact else (min(low, high) + 1) / (count + 1)
    return min(1.0, 2 * one_sided), count


def _blocks(rows: Iterator[tuple[int, ...]]) -> Iterator[Array]:
    """All rows, some thousand at a time."""
    while block := list(islice(rows, 20_000)):
        yield np.array(block)


def _draws(rng: np.random.Generator, n: int, draws: int) -> Iterator[Array]:
    """Random orders of n things, some thousand at a time."""
    if draws < 1:
        raise DataError("a Monte-Carlo test needs at least one draw")
    for start in range(0, draws, 5_000):
        yield rng.permuted(np.tile(np.arange(n), (min(5_000, draws - start), 1)), axis=1)


def _share(part: int, whole: int, nothing: str) -> float:
    if whole == 0:
        raise DataError(f"no {nothing}")
    return part / whole


def _finite(values: Values, *, least: int, what: str) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise DataError(f"{what} is made of one list of numbers, not of shape {x.shape}")
    if len(x) < least:
        raise DataError(f"{what} needs at least {least} values, here {'is' if len(x) == 1 else 'are'} {len(x)}")
    if not np.isfinite(x).all():
        raise DataError(f"{int((~np.isfinite(x)).sum())} of {len(x)} values are not finite numbers")
    return x


def _varying(x: Array, what: str) -> Array:
    if np.ptp(x) == 0:
        raise DataError(f"all {len(x)} values are equal: {what} needs some that differ")
    return x


def _pairs(x: Values, y: Values) -> tuple[Array, Array]:
    u, v = (_varying(_finite(values, least=3, what="a correlation"), "a correlation") for values in (x, y))
    if len(u) != len(v):
        raise DataError(f"a correlation pairs values, here are {len(u)} and {len(v)}")
    return u, v


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise DataError(f"a level of confidence lies between 0 and 1, not at {level:g}")
