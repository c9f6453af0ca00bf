"""What readers' answers say: rates, intervals, agreement, tests. Answers and truth in, plain values out.

The positive class is `real`, as in arXiv 2210.03786: a false positive is a synthetic image taken for real. Readers, not answers, are the units of means,
deviations and tests: two answers of one reader are not two observations of a model.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import add
from typing import Any

import numpy as np

from medgan.errors import DataError
from medgan.readers.answers import Answer
from medgan.readers.design import Design
from medgan.readers.study import Study, Truth
from medgan.statistics import (
    Counts,
    Interval,
    clopper_pearson,
    holm,
    larger,
    mean_sd,
    paired_permutation_test,
    pearson,
    permutation_test,
)

ALL = "all"
RATES = ("precision", "recall", "accuracy", "fpr", "fnr")
LEVEL = 0.95
EQUIVALENCE_LEVEL = 0.05
"""Each of the two one-sided tests behind an equivalence bound; so the interval is the 90 % one (Schuirmann 1987)."""


@dataclass(frozen=True)
class Judgement:
    """An answer beside the truth.

    Attributes:
        answer: As given.
        model: As in `Truth`.
        real: Whether the image is real; of a pair, whether side a is.
        said_real: The same of the answer.
    """

    answer: Answer
    model: str
    real: bool
    said_real: bool


def judgements(study: Study, key: Mapping[str, Truth], answers: Sequence[Answer]) -> list[Judgement]:
    """Answers beside their truth, in the order given.

    Raises:
        DataError: No answer; one of another study, of an item that the study does not have, of another kind; or two of one reader to one item.
    """
    if not answers:
        raise DataError("there is no answer", fix="--database or --answers of a study that readers have taken")
    positive = study.design.answers[0]
    result, seen = [], set()
    for one in answers:
        if one.study != study.id:
            raise DataError(f"there are answers of another study ({one.study[:16]!r}, this is {study.id})", fix="leave that file out")
        truth = key.get(one.item)
        if truth is None or truth.section != one.section:
            raise DataError("an answer is of an item that the study's key does not have", fix="score the study that was answered")
        if one.answer not in study.design.answers:
            raise DataError(f"an answer is neither {' nor '.join(study.design.answers)}", fix="leave the file as it was saved")
        if one.likert is not None and not 1 <= one.likert <= 5:
            raise DataError(f"an answer's likert is {one.likert}, not 1 to 5", fix="leave the file as it was saved")
        if (one.reader, one.item) in seen:
            raise DataError(
                f"reader {one.reader!r} has two answers to one item", fix="give each reader's answers once: the database or the CSV file"
            )
        seen.add((one.reader, one.item))
        result.append(Judgement(one, truth.model, truth.truth == positive, one.answer == positive))
    return result


@dataclass(frozen=True, kw_only=True)
class Row:
    """One reader's answers to the images of one model, or to all. What cannot be said is None.

    Attributes:
        reader: Code.
        role: Of the reader.
        years: Of experience.
        model: Name of the synthetic set, or `all`.
        complete: Whether all items were answered; only complete rows count in means and tests.
        n: Answers.
        tp, fp, tn, fn: As in `Counts`; of pairs, `real` is side a.
        precision, recall, fpr, fnr: As in `Counts`; None of pairs.
        accuracy: Share of right answers.
        accuracy_low, accuracy_high: Its exact 95 % interval (Clopper and Pearson 1934).
        p_chance: Of the two-sided exact binomial test of accuracy against 50 %.
        equivalence: Accuracy is shown to lie within so much of 50 %.
        d_prime: z(recall) - z(FPR), counts + 1/2 (Hautus 1995); of pairs sqrt(2) z(accuracy).
        criterion: -(z(recall) + z(FPR)) / 2: below 0 for one who rather says real.
        likert_real, likert_fake: Mean rating of real and of synthetic images.
        likert_auc: Probability that a real image is rated above a synthetic one, ties half.
        seconds: Median time of an answer.
        changed: Answers that were changed.
    """

    reader: str
    role: str
    years: float | None
    model: str
    complete: bool
    n: int
    tp: int
    fp: int
    tn: int
    fn: int
    precision: float | None
    recall: float | None
    accuracy: float
    fpr: float | None
    fnr: float | None
    accuracy_low: float
    accuracy_high: float
    p_chance: float
    equivalence: float
    d_prime: float | None
    criterion: float | None
    likert_real: float | None
    likert_fake: float | None
    likert_auc: float | None
    seconds: float | None
    changed: int


def models_of(key: Mapping[str, Truth]) -> list[str]:
    """Names of the synthetic sets, sorted."""
    return sorted({truth.model for truth in key.values()} - {""})


def scopes(key: Mapping[str, Truth]) -> list[str]:
    """What is told apart: everything, then each model where there are several."""
    models = models_of(key)
    return [ALL, *models] if len(models) > 1 else [ALL]


def within(scope: str, model: str) -> bool:
    """Whether an item of `model` belongs to a scope; real images shown among those of several models belong to each."""
    return scope in (ALL, model) or model == ""


def rows(key: Mapping[str, Truth], judged: Sequence[Judgement], design: Design) -> list[Row]:
    """One row for each scope and reader, readers in the order of their codes."""
    by_reader: dict[str, list[Judgement]] = {}
    for one in judged:
        by_reader.setdefault(one.answer.reader, []).append(one)
    sizes = {scope: sum(within(scope, truth.model) for truth in key.values()) for scope in scopes(key)}
    return [
        _row(reader, scope, its, len(its) == whole, design)
        for scope, whole in sizes.items()
        for reader in sorted(by_reader, key=natural)
        if (its := [one for one in by_reader[reader] if within(scope, one.model)])
    ]


def natural(text: str) -> list[tuple[int, int, str]]:
    """For sorting R2 before R10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def counts_of(judged: Sequence[Judgement]) -> Counts:
    """Answers counted."""
    found = Counter((one.real, one.said_real) for one in judged)
    return Counts(tp=found[True, True], fp=found[False, True], tn=found[False, False], fn=found[True, False])


def _row(reader: str, scope: str, its: Sequence[Judgement], complete: bool, design: Design) -> Row:
    from scipy.stats import binomtest

    counts, n = counts_of(its), len(its)
    right = counts.tp + counts.tn
    pairs = design.kind == "2afc"
    interval = clopper_pearson(right, n, level=LEVEL)
    ratings = [[one.answer.likert for one in its if one.answer.likert is not None and one.real is real] for real in (True, False)]
    times = [one.answer.milliseconds / 1000 for one in its if one.answer.milliseconds is not None]
    first = its[0].answer
    return Row(
        reader=reader,
        role=first.role,
        years=first.years,
        model=scope,
        complete=complete,
        n=n,
        tp=counts.tp,
        fp=counts.fp,
        tn=counts.tn,
        fn=counts.fn,
        **rates(counts, pairs=pairs),
        accuracy_low=interval.low,
        accuracy_high=interval.high,
        p_chance=float(binomtest(right, n).pvalue),
        equivalence=equivalence(right, n),
        **_sensitivity(counts, pairs=pairs),
        likert_real=float(np.mean(ratings[0])) if ratings[0] else None,
        likert_fake=float(np.mean(ratings[1])) if ratings[1] else None,
        likert_auc=larger(*ratings) / (len(ratings[0]) * len(ratings[1])) if all(ratings) else None,
        seconds=float(np.median(times)) if times else None,
        changed=sum(one.answer.changes > 0 for one in its),
    )


def rates(counts: Counts, *, pairs: bool = False) -> dict[str, Any]:
    """The rates of `RATES`; None where nothing was shown, or called real, of which they are a share, and of pairs for all but accuracy."""
    return {name: None if pairs and name != "accuracy" else _or_none(counts, name) for name in RATES}


def _or_none(counts: Counts, name: str) -> float | None:
    try:
        return float(getattr(counts, name))
    except DataError:
        return None


def equivalence(right: int, n: int) -> float:
    """The smallest bound around 50 % within which the accuracy is shown to lie: the farther end of the exact 90 % interval."""
    found = clopper_pearson(right, n, level=1 - 2 * EQUIVALENCE_LEVEL)
    return max(0.5 - found.low, found.high - 0.5)


def _sensitivity(counts: Counts, *, pairs: bool) -> dict[str, Any]:
    """D' and criterion (Macmillan and Creelman 2005, eqs. 1.5, 2.1 and 7.2), the log-linear rule against shares of 0 and 1 (Hautus 1995)."""
    from scipy.stats import norm

    if pairs:
        n = counts.tp + counts.fp + counts.tn + counts.fn
        return {"d_prime": float(math.sqrt(2) * norm.ppf((counts.tp + counts.tn + 0.5) / (n + 1))), "criterion": None}
    if not (counts.tp + counts.fn and counts.fp + counts.tn):
        return {"d_prime": None, "criterion": None}
    hit, alarm = (
        norm.ppf((part + 0.5) / (whole + 1)) for part, whole in ((counts.tp, counts.tp + counts.fn), (counts.fp, counts.fp + counts.tn))
    )
    return {"d_prime": float(hit - alarm), "criterion": float(-(hit + alarm) / 2)}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All complete readers of a scope.

    Attributes:
        model: Name of the synthetic set, or `all`.
        readers: Complete ones.
        means: Rate or Likert mean -> (mean over readers, sample SD or None with one reader, readers who have it).
        pooled: Their answers added up.
        pooled_rates: Of those; no interval, for answers of one reader are not independent.
        accuracy: 95 % interval of the mean accuracy over readers (t); None with one reader.
        equivalence: The mean accuracy is shown to lie within so much of 50 % (t, two one-sided tests at 5 %); None with one reader.
        kappa: Fleiss' kappa between readers; None with one reader, or where all answers are the same.
    """

    model: str
    readers: int
    means: dict[str, tuple[float, float | None, int]]
    pooled: Counts
    pooled_rates: dict[str, float | None]
    accuracy: Interval | None
    equivalence: float | None
    kappa: float | None


def summaries(key: Mapping[str, Truth], table: Sequence[Row], judged: Sequence[Judgement], design: Design) -> list[Summary]:
    """One summary for each scope that a reader completed."""
    return [
        _summary(scope, done, [one for one in judged if within(scope, one.model)], design)
        for scope in scopes(key)
        if (done := [row for row in table if row.model == scope and row.complete])
    ]


def _summary(scope: str, done: Sequence[Row], judged: Sequence[Judgement], design: Design) -> Summary:
    means = {}
    for name in (*RATES, "likert_real", "likert_fake", "likert_auc", "d_prime", "seconds"):
        values = [value for row in done if (value := getattr(row, name)) is not None]
        if values:
            means[name] = (*(mean_sd(values) if len(values) > 1 else (values[0], None)), len(values))
    pooled = reduce(add, (Counts(tp=row.tp, fp=row.fp, tn=row.tn, fn=row.fn) for row in done))
    accuracies = [row.accuracy for row in done]
    interval = bound = None
    if len(done) > 1:
        interval = t_interval(accuracies, LEVEL)
        narrow = t_interval(accuracies, 1 - 2 * EQUIVALENCE_LEVEL)
        bound = max(0.5 - narrow.low, narrow.high - 0.5)
    readers = {row.reader for row in done}
    said: dict[str, list[bool]] = {}
    for one in judged:
        if one.answer.reader in readers:
            said.setdefault(one.answer.item, []).append(one.said_real)
    table = [[sum(answers), len(answers) - sum(answers)] for answers in said.values()]
    return Summary(
        model=scope,
        readers=len(done),
        means=means,
        pooled=pooled,
        pooled_rates=rates(pooled, pairs=design.kind == "2afc"),
        accuracy=interval,
        equivalence=bound,
        kappa=fleiss_kappa(table) if len(done) > 1 else None,
    )


def t_interval(values: Sequence[float], level: float) -> Interval:
    """Student's interval of a mean, cut to 0 ... 1 for shares."""
    from scipy.stats import t

    mean, sd = mean_sd(values)
    reach = float(t.ppf((1 + level) / 2, len(values) - 1)) * sd / math.sqrt(len(values))
    return Interval(max(mean - reach, 0.0), min(mean + reach, 1.0), level, "t")


def fleiss_kappa(table: Sequence[Sequence[int]]) -> float | None:
    """Agreement beyond chance of several raters (Fleiss 1971): 1 is full agreement, 0 what chance gives; None where all ratings are the same.

    Args:
        table: For each item how many raters chose each category; as many raters, two at least, for every item.
    """
    ratings = np.asarray(table, dtype=np.float64)
    raters = ratings[0].sum()
    agreement = ((ratings**2).sum(1) - raters) / (raters * (raters - 1))
    expected = ((ratings.sum(0) / ratings.sum()) ** 2).sum()
    return None if math.isclose(expected, 1) else float((agreement.mean() - expected) / (1 - expected))


@dataclass(frozen=True, kw_only=True)
class ModelTest:
    """Two models compared over readers.

    Attributes:
        rate: What of.
        a, b: The models.
        mean_a, mean_b: Means over readers.
        readers: Readers who completed both, or of a and of b where none did.
        test: `paired`: each reader is compared with himself; `independent`: readers of a with those of b.
        p: Two-sided, of the permutation test.
        adjusted: After Holm, over all pairs of models of this rate.
        smallest_p: As in `PermutationTest`.
        exact: As there.
        significant: Whether `adjusted` is at most the design's alpha.
    """

    rate: str
    a: str
    b: str
    mean_a: float
    mean_b: float
    readers: int
    test: str
    p: float
    adjusted: float
    smallest_p: float
    exact: bool
    significant: bool


def model_tests(key: Mapping[str, Truth], table: Sequence[Row], design: Design) -> list[ModelTest]:
    """Permutation tests of false positive rate and accuracy, of pairs accuracy alone, between all models.

    The same readers judged both, so their differences are tested; where fewer than two completed both, the readers of either.
    """
    tests = []
    for rate in ("accuracy",) if design.kind == "2afc" else ("fpr", "accuracy"):
        values = {
            model: {row.reader: value for row in table if row.model == model and row.complete and (value := getattr(row, rate)) is not None}
            for model in models_of(key)
        }
        found = []
        for a, b in combinations(values, 2):
            both = [reader for reader in values[a] if reader in values[b]]
            paired = len(both) > 1
            ours, theirs = ([values[one][reader] for reader in (both if paired else values[one])] for one in (a, b))
            if not ours or not theirs or len(ours) + len(theirs) < 3:
                continue
            test = paired_permutation_test(ours, theirs) if paired else permutation_test(ours, theirs)
            found.append((a, b, ours, theirs, "paired" if paired else "independent", test))
        adjusted = holm([test.p for *_, test in found]) if found else []
        for (a, b, ours, theirs, kind, test), p in zip(found, adjusted, strict=True):
            count = len(ours) if kind == "paired" else len(ours) + len(theirs)
            means = {"mean_a": float(np.mean(ours)), "mean_b": float(np.mean(theirs))}
            rest = {"p": test.p, "adjusted": p, "smallest_p": test.smallest_p, "exact": test.exact, "significant": p <= design.alpha}
            tests.append(ModelTest(rate=rate, a=a, b=b, readers=count, test=kind, **means, **rest))  # type: ignore[arg-type]
    return tests


def correlate(x: Mapping[str, float], y: Mapping[str, float]) -> dict[str, Any]:
    """Pearson's r of what both have in common, with permutation p, or the reason why there is none."""
    names = [name for name in x if name in y]
    try:
        found = pearson([x[name] for name in names], [y[name] for name in names])
    except DataError as problem:
        return {"r": None, "n": len(names), "reason": problem.message}
    interval = None if found.interval is None else [found.interval.low, found.interval.high]
    return {
        "r": found.statistic,
        "n": found.n,
        "p": found.p,
        "exact": found.exact,
        "smallest_p": found.smallest_p,
        "p_t": found.usual_p,
        "interval": interval,
    }


def fpr_fnr(table: Sequence[Row]) -> dict[str, Any]:
    """Correlation of false positive with false negative rate over complete readers."""
    done = [row for row in table if row.model == ALL and row.complete]
    fpr, fnr = ({row.reader: value for row in done if (value := getattr(row, name)) is not None} for name in ("fpr", "fnr"))
    return correlate(fpr, fnr)


def fid_fpr(found: Sequence[Summary], fid: Mapping[str, float]) -> dict[str, Any]:
    """Correlation of FID with mean false positive rate over models."""
    return correlate(fid, {one.model: one.means["fpr"][0] for one in found if one.model != ALL and "fpr" in one.means})
