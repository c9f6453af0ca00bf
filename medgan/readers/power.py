"""What a visual Turing test can show, told before it is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from medgan.readers.design import Design
from medgan.statistics import clopper_pearson

LEVEL = 0.05
"""Of statements about one accuracy: better than chance, or equivalent to it."""
POWER = 0.80
READERS_SD = 0.0956
"""Standard deviation of accuracy between the seven clinicians of arXiv 2210.03786."""


@dataclass(frozen=True)
class Power:
    """What a design can show at `LEVEL`, with probability `POWER` where a probability is meant.

    Attributes:
        questions: Answers of one reader in one section.
        readers: Planned.
        right_above_chance: So many right answers of one reader in one section, or more, are more than chance (exact binomial test, two-sided).
        accuracy_one_reader: The true accuracy from which one section of one reader shows that; None where even 100 % would not.
        accuracy_mean: The true mean accuracy from which the readers together show it (t test, their SD as in arXiv 2210.03786); None with one reader.
        equivalence_one_reader: A reader who is right in half of the answers is shown to be within so much of chance (two one-sided exact tests).
        difference: Between two models, the difference of mean false positive rates (of pairs: of accuracies) that the readers would show if they differed in nothing but
            chance (t test of pairs at the design's alpha): at best. None with one reader, or without sections by model.
        smallest_p: Of the permutation tests between models after Holm's correction; above alpha, no outcome could be significant. None as above.
    """

    questions: int
    readers: int
    right_above_chance: int | None
    accuracy_one_reader: float | None
    accuracy_mean: float | None
    equivalence_one_reader: float
    difference: float | None
    smallest_p: float | None


def power(design: Design, *, models: int, readers: int) -> Power:
    """The power of a design with so many models and readers."""
    n = design.questions
    paired = design.by_model and models > 1 and readers > 1
    least = _least_right(n)
    half = clopper_pearson(n // 2, n, level=1 - 2 * LEVEL)
    return Power(
        questions=n,
        readers=readers,
        right_above_chance=least,
        accuracy_one_reader=_accuracy_for(least, n) if least is not None else None,
        accuracy_mean=_within(0.5 + _mean_for(READERS_SD, readers, LEVEL)) if readers > 1 else None,
        equivalence_one_reader=max(0.5 - half.low, half.high - 0.5),
        difference=_within(_mean_for((0.5 / design.fake) ** 0.5, readers, design.alpha)) if paired else None,
        smallest_p=min(2 / 2**readers * (models * (models - 1) // 2), 1.0) if paired else None,
    )


def _within(share: float) -> float | None:
    return share if share <= 1 else None


def _least_right(n: int) -> int | None:
    """The smallest number of right answers among n whose two-sided exact p is at most `LEVEL`; the null is symmetric, so p is twice the tail."""
    from scipy.stats import binom

    return next((k for k in range((n + 1) // 2, n + 1) if 2 * binom.sf(k - 1, n, 0.5) <= LEVEL), None)


def _accuracy_for(least: int, n: int) -> float:
    """The accuracy with which at least `least` of n answers are right with probability `POWER`: the Beta quantile of Clopper and Pearson."""
    from scipy.stats import beta

    return float(beta.ppf(POWER, least, n - least + 1))


def _mean_for(sd: float, n: int, level: float) -> float:
    """The mean that a two-sided t test of n values of this deviation tells from 0 with probability `POWER` (noncentral t)."""
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    bound = t.ppf(1 - level / 2, n - 1)
    shift = brentq(lambda delta: nct.sf(bound, n - 1, delta) - POWER, 0.1, 1000)
    return float(shift * sd / n**0.5)


def lines(found: Power, design: Design) -> list[str]:
    """A power estimate for people."""
    n, k = found.questions, found.readers
    what = "pairs" if design.kind == "2afc" else "images"
    told = []
    if found.right_above_chance is None or found.accuracy_one_reader is None:
        told.append(f"{n} {what} of one reader cannot show anything but chance: even all right has p above {LEVEL:g}.")
    else:
        told.append(
            f"One reader, {n} {what}: from {found.right_above_chance} right on, better than chance at {LEVEL:g}; shown with {POWER:.0%} probability from a true "
            f"accuracy of {found.accuracy_one_reader:.0%} on. At 50 % right, within ± {100 * found.equivalence_one_reader:.0f} points of chance."
        )
    if found.accuracy_mean is not None:
        told.append(
            f"{k} readers together: a mean accuracy from {found.accuracy_mean:.0%} on is shown with {POWER:.0%} probability, if readers differ as in arXiv 2210.03786 "
            f"(SD {100 * READERS_SD:.1f} points)."
        )
    if found.smallest_p is not None:
        verdict = "" if found.smallest_p <= design.alpha else f": above {design.alpha:g}, so no outcome can be significant; more readers"
        told.append(f"Between models {k} readers give p = {found.smallest_p:.3g} at best, corrected for all pairs of models{verdict}.")
    if found.difference is not None:
        rate = "accuracy" if design.kind == "2afc" else "false positive rate"
        told.append(
            f"A difference of {100 * found.difference:.0f} points between two models' mean {rate} is shown with {POWER:.0%} probability at best, a smaller one less often."
        )
    return told


def as_json(found: Power) -> dict[str, Any]:
    """A power estimate as JSON values."""
    return {"level": LEVEL, "power": POWER, **asdict(found)}
