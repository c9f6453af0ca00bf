"""Means over images, or over pairs of images, of a set, and how sure they are where pairs share an image or a patient.

A thousand slices of ten patients are not a thousand observations, nor are the two million pairs of two thousand images. The variance of
a mean sums the products of all deviations that have a unit in common, which is an image or, where patients are known, a patient
(Aronow, Samii and Assenova 2015, eq. 8; for all pairs of independent images the variance of a U-statistic, Hoeffding 1948, eq. 5.13).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medgan.metrics.features import Array
from medgan.metrics.metric import Result

LEVEL = 0.95
FEWEST_PATIENTS = 4
"""Below this many patients there are too few to learn from how they differ, and images count as independent."""


def units_of(count: int, subjects: Sequence[str] | Array | None) -> tuple[Array, int]:
    """Of `count` images the number of each one's unit, (count,), and how many patients are known of; 0 where they are not.

    Args:
        count: Images.
        subjects: A key of each image's patient, or None.
    """
    if subjects is None or len(subjects) != count:
        return np.arange(count), 0
    keys, codes = np.unique(np.asarray(subjects), return_inverse=True)
    return (codes if len(keys) >= FEWEST_PATIENTS else np.arange(count)), len(keys)


def interval(value: float, error: float, free: float, method: str) -> Result:
    """Value ± t · standard error, and how it was made."""
    from scipy.stats import t

    reach = float(t.ppf((1 + LEVEL) / 2, free)) * error
    return {"interval": [value - reach, value + reach], "interval_level": LEVEL, "interval_method": method}


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of each image, or of each pair, of one set.

    Attributes:
        values: (m,) float64.
        units: The image or patient of each value, (m,), or the two of each pair, (m, 2).
        patients: How many patients the units are; 0 where they are images.
        dependent: Why the values have no interval; empty where they have one.
    """

    values: Array
    units: Array
    patients: int = 0
    dependent: str = ""

    @property
    def mean(self) -> float:
        """Over the values."""
        return float(self.values.mean())

    @property
    def sd(self) -> float:
        """Standard deviation with n - 1; 0 for a single value."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0

    def error(self) -> tuple[float, float]:
        """Standard error of the mean and its degrees of freedom; 0 where nothing can be said, or all values are equal."""
        m, off = len(self.values), self.values - self.values.mean()
        pairs = np.sort(self.units.reshape(m, -1), axis=1)
        one, other = pairs[:, 0], pairs[:, -1]
        apart = one != other
        touched = np.bincount(np.concatenate([one, other[apart]]))
        by_unit = np.bincount(np.concatenate([one, other[apart]]), np.concatenate([off, off[apart]]))
        # Products of pairs of the same two units were summed with either.
        same = np.unique(one[apart] * len(touched) + other[apart], return_inverse=True)[1]
        total = float(np.square(by_unit).sum() - np.square(np.bincount(same, off[apart])).sum())
        # Dependence only adds; estimates from few units may fall below what independent values have.
        total = max(total, float(np.square(off).sum()))
        n = int((touched > 0).sum())
        if touched.max() == 1:
            few, free = (m / (m - 1), m - 1) if m > 1 else (0.0, 0)
        elif not apart.any():
            few, free = (n / (n - 1), n - 1) if n > 1 else (0.0, 0)
        else:
            # Makes the estimate of all pairs unbiased where a pair's value is the sum of one of either image.
            few, free = (n * (n - 1) / ((n - 2) * (n - 3)), n - 1) if n > 3 else (0.0, 0)
        return math.sqrt(few * total) / m, free

    def method(self, what: str) -> str:
        """How an interval is made of these values, e.g. of `pairs`, or after `none: ` why there is none."""
        if self.dependent:
            return f"none: {self.dependent}"
        units = len(np.unique(self.units))
        if not np.ptp(self.values):
            return f"none: {len(self.values)} {what} {'all ' if len(self.values) > 1 else ''}gave {self.mean:.4g}"
        if not self.error()[0]:
            return (
                f"none: too few to say: {len(self.values)} {what} of {units} {'patients' if self.patients >= FEWEST_PATIENTS else 'images'}"
            )
        of = f" of {units:,} {'patients' if self.patients >= FEWEST_PATIENTS else 'images'}" if units != len(self.values) else ""
        return f"standard error of {len(self.values):,} {what}{of}"


def described(fake: Measured, real: Measured, *, what: str, intervals: bool) -> Result:
    """What every mean over a set says: the synthetic set's and beside it the real set's, and with `intervals` how sure they and their difference are.

    Args:
        fake: Of the synthetic set.
        real: Of the real set.
        what: Of what the values are: `pairs` or `images`.
        intervals: Whether to add `interval`, `real_interval`, `difference` and `difference_interval`.
    """
    result: Result = {"value": fake.mean, "sd": fake.sd, what: len(fake.values)}
    result |= {"real": real.mean, "real_sd": real.sd, f"real_{what}": len(real.values)}
    return result | uncertain(fake, real, what) if intervals else result


def uncertain(fake: Measured, real: Measured, what: str) -> Result:
    """The intervals of two means, and of their difference (Welch 1947)."""
    errors = [(0.0, 0.0) if one.dependent else one.error() for one in (fake, real)]
    ends = [interval(one.mean, *error, one.method(what)) if error[0] else None for one, error in zip((fake, real), errors, strict=True)]
    result = ends[0] or {"interval": None, "interval_method": fake.method(what)}
    result["real_interval"] = ends[1]["interval"] if ends[1] else None
    result["difference"] = fake.mean - real.mean
    result["difference_interval"] = None
    if all(ends):
        squares = [error**2 for error, _ in errors]
        free = sum(squares) ** 2 / sum(square**2 / free for square, (_, free) in zip(squares, errors, strict=True))
        result["difference_interval"] = interval(result["difference"], math.sqrt(sum(squares)), free, "")["interval"]
    return result
