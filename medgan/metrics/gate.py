"""The rules of the privacy gate and their false alarms: distances in, a decision out.

What the rules mean and rest on: docs/explanation/privacy.md; why these: docs/decisions/0020-privacy-gate.md and 0022-false-alarms.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from medgan.metrics.copies import Neighbours
from medgan.metrics.features import Array

LEVEL = 0.01
"""An honest set is refused with at most this probability, by all rules together."""
ALPHA = LEVEL / 3
"""Each rule's part of it: near copies by grey values, near copies by features, and the count."""
CALIBRATION = 0.01
"""The threshold of the count is this quantile of the patients' distances."""
NEAR = 0.5
"""A near copy is closer than this share of that threshold. Leaving the noise out of an image, as a smooth generator does, brings it no nearer than 0.71
of what real images reach (two noisy images differ by twice the noise of one), so smoothness alone is no copy."""
FIXED_NCC = 0.995
"""Without calibration, a near copy is an image that correlates with a training image at least so highly."""
FIXED_DISTANCE = math.sqrt(2 * (1 - FIXED_NCC))
"""The same as a distance."""
DUPLICATE = 0.02
"""Nearer than this (NCC 0.9998) is the same image again: always a copy, and where it is a real image, no calibration."""
FEWEST_PATIENTS = 10
"""With fewer patients the bound on false alarms leaves a threshold below which no near copy would fall."""
ENOUGH_PATIENTS = 40
"""With fewer held-out patients, one half of the training patients shows what is normal, if it holds more: the threshold is then less strict."""


@dataclass(frozen=True)
class Normal:
    """How near patients lie to training images of whom nothing was copied.

    Args:
        grey: Their neighbours by grey values.
        features: By features.
        patients: Patient of each image.
        kept: Which images count: not flat, and of no patient with an image that is a training image again.
        halves: 1 where they were compared with all training images; 2 where one half of the training patients was compared with the other.
    """

    grey: Neighbours
    features: Neighbours
    patients: Array
    kept: Array
    halves: int = 1

    @property
    def count(self) -> int:
        """Patients that count."""
        return len(np.unique(self.patients[self.kept]))


@dataclass(frozen=True)
class Scale:
    """What distances of one kind mean.

    Every patient counts once, with the nearest of its images: that is nearer than any one of them, so the bounds hold however alike a patient's
    images are.

    Args:
        distance: The threshold of d1 for the count.
        ratio: That of d1/d2.
        near: A near copy is closer than this.
        chance: Near copies expected among honest images at most.
        rank: `distance` is the rank-th smallest of the patients' distances.
        patients: How many.
        halves: As in `Normal`.
    """

    distance: float
    ratio: float
    near: float
    chance: float
    rank: int
    patients: int
    halves: int

    @classmethod
    def of(cls, found: Neighbours, normal: Normal, n: int, *, floor: float = 0.0) -> Scale:
        """For n synthetic images, from the neighbours of normal ones; `floor` is the smallest `near`."""
        use = normal.kept
        distances, ratios = (np.sort(nearest(values[use], normal.patients[use])) for values in (found.distance, found.ratio))
        rank = max(math.ceil(CALIBRATION * len(distances)), 1)
        distance, expected = float(distances[rank - 1]), normal.halves * n
        near = max(min(NEAR * distance, within(distances, expected, ALPHA)), floor)
        return cls(distance, float(ratios[rank - 1]), near, chance(distances, expected, near), rank, len(distances), normal.halves)

    @property
    def share(self) -> float:
        """Share of honest images below `distance`, at most, on average over calibrations."""
        return self.halves * self.rank / (self.patients + 1)

    def p_of(self, count: int, n: int) -> float:
        """Probability of so many of n honest images below `distance`, or more, at most.

        A Beta(rank, patients - rank + 1) share of patients lies below the rank-th smallest of their distances, so the count is beta-binomial: the
        threshold's own uncertainty is in it. Of two halves, one holds at least half of the count.
        """
        if not count:
            return 1.0
        tail = stats.betabinom.sf(math.ceil(count / self.halves) - 1, n, self.rank, self.patients - self.rank + 1)
        return min(self.halves * float(tail), 1.0)


def again(found: Neighbours) -> Array:
    """Images that are training images once more, (n,) bool."""
    return np.asarray(~found.flat & (found.distance < DUPLICATE))


def usable(found: Neighbours, patients: Array) -> Array:
    """Images that show what is normal: not flat, and of a patient of whom no image is a training image once more, as that one is among the others."""
    return np.asarray(~found.flat & ~np.isin(patients, patients[again(found)]))


def nearest(values: Array, patients: Array) -> Array:
    """The smallest value of each patient."""
    result = np.full(patients.max(initial=-1) + 1, np.inf)
    np.minimum.at(result, patients, values)
    return result[np.isfinite(result)]


def within(distances: Array, n: int, alpha: float) -> float:
    """The distance that `alpha` of n honest images are expected below; the inverse of `chance`."""
    tail, slope = _tail(distances)
    factor = n * (tail + 1) / (len(distances) + 1) / alpha
    if factor <= 1:
        return float(distances[tail])
    # (1 + c / tail)^-tail = 1 / factor
    return float(distances[tail] * math.exp(-tail * math.expm1(math.log(factor) / tail) * slope))


def chance(distances: Array, n: int, distance: float) -> float:
    """How many of n honest images lie below a distance by chance, expected over calibrations too.

    Near 0 the share of images below a distance d grows as d^k (k: the dimension that they spread in). Then the logarithms of the ratios of the
    (j + 1)-th smallest distance to the j smaller ones are exponential with the unknown rate k (Hill 1975), and so is that of a new image's, if it is
    smaller too. The ratio of the new one to their mean does not depend on k: it exceeds c with probability (1 + c / j)^-j exactly. So the uncertainty of
    few patients is in the result. Where the share falls faster than a power, as over noise, it is an upper bound.

    Args:
        distances: Of patients, each once, ascending, (M,).
        n: Images.
        distance: Not above the (j + 1)-th smallest.
    """
    tail, slope = _tail(distances)
    most = n * (tail + 1) / (len(distances) + 1)
    if distance >= distances[tail]:
        return float(most)
    if slope == 0 or distance <= 0:
        return 0.0
    return float(most * (1 + math.log(distances[tail] / distance) / slope / tail) ** -tail)


def _tail(distances: Array) -> tuple[int, float]:
    """j, and the mean logarithm of the (j + 1)-th smallest distance to the j smaller ones.

    j is a tenth of the patients or, where that is more, twenty, though no more than half of them, or ten.
    """
    count = len(distances)
    tail = max(count // 10, min(20, count // 2), min(10, count - 1))
    if distances[tail] <= 0:
        return tail, 0.0
    return tail, float(np.log(distances[tail] / np.maximum(distances[:tail], 1e-9)).mean())


@dataclass(frozen=True)
class Decision:
    """What the gate decided.

    Args:
        grey: The scale of grey values.
        features: That of features; None without calibration, when they decide nothing.
        near_grey: Near copies by grey values, (n,) bool.
        near_features: By features, (n,) bool.
        suspects: Images that the count counts, (n,) bool.
        p: Of the count; None without calibration.
    """

    grey: Scale
    features: Scale | None
    near_grey: Array
    near_features: Array
    suspects: Array
    p: float | None

    @property
    def near(self) -> Array:
        """Near copies, (n,) bool."""
        return np.asarray(self.near_grey | self.near_features)

    @property
    def refused_for(self) -> list[str]:
        """Rules that refuse: `near copies`, `count`."""
        return ["near copies"] * bool(self.near.any()) + ["count"] * (self.p is not None and self.p < ALPHA)

    @property
    def false_alarm(self) -> float | None:
        """Probability to refuse as many honest images, at most; None without calibration."""
        return None if self.features is None else min(self.grey.chance + self.features.chance + ALPHA, 1.0)


def decide(grey: Neighbours, features: Neighbours, normal: Normal | None) -> Decision:
    """Judge n synthetic images by their neighbours; without `normal` by a fixed correlation."""
    seen = ~grey.flat
    n = int(seen.sum())
    nothing = np.zeros(len(seen), bool)
    if normal is None:
        fixed = Scale(FIXED_DISTANCE, 1.0, FIXED_DISTANCE, math.nan, 0, 0, 1)
        return Decision(fixed, None, seen & (grey.distance < FIXED_DISTANCE), nothing, nothing, None)
    by_grey, by_features = Scale.of(normal.grey, normal, n, floor=DUPLICATE), Scale.of(normal.features, normal, n)
    suspects = seen & (grey.distance < by_grey.distance) & (grey.ratio < by_grey.ratio)
    return Decision(
        by_grey,
        by_features,
        seen & (grey.distance < by_grey.near),
        seen & (features.distance < by_features.near),
        suspects,
        by_grey.p_of(int(suspects.sum()), n),
    )
