"""Kernel Inception distance (Binkowski et al. 2018, arXiv 1801.01401)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from medgan.errors import DataError
from medgan.metrics.features import Array, Features
from medgan.metrics.metric import Result


def squared_mmd(real: Array, fake: Array) -> float:
    """Unbiased squared MMD under k(x, y) = (x.y/D + 1)^3 (eq. 4: pairs of an image with itself are left out).

    Args:
        real: Rows (M, D), M at least 2.
        fake: Rows (N, D), N at least 2.
    """
    x, y = np.asarray(real, dtype=np.float64), np.asarray(fake, dtype=np.float64)
    within = sum(_off_diagonal_mean(_kernel(rows, rows)) for rows in (x, y))
    return float(within - 2 * _kernel(x, y).mean())


def _kernel(x: Array, y: Array) -> Array:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _off_diagonal_mean(square: Array) -> float:
    n = len(square)
    return float((square.sum() - np.trace(square)) / (n * (n - 1)))


@dataclass(frozen=True, kw_only=True)
class KID:
    """Squared MMD between feature sets, averaged over random subsets of equal size.

    Unbiased at every number of images, so values slightly below zero are correct. Lower is better; 0 means the same distribution.
    Where both sets are no larger than a subset, there is nothing to draw and all images are used once.

    Args:
        subsets: How many subsets are drawn.
        subset_size: Images of each set in a subset; the size of the smaller set if that is less.
        seed: Seeds the draw, and nothing else does.
    """

    needs: ClassVar[str] = "features"
    higher_is_better: ClassVar[bool] = False
    extractor: ClassVar[str] = "inception-2015-12-05"
    resize: ClassVar[str] = ""
    n_fake: ClassVar[int] = 0
    instead: ClassVar[str] = ""
    subsets: int = 100
    subset_size: int = 1000
    seed: int = 0

    def __call__(self, *, real: Features, fake: Features) -> Result:
        """The mean over subsets, their standard deviation (n - 1; 0 for a single one), number and size.

        The deviation says how far subsets differ; they share images, so it is no standard error.

        Raises:
            DataError: A set has fewer than two images.
        """
        assert real.rows is not None
        assert fake.rows is not None
        if min(real.count, fake.count) < 2:
            raise DataError(
                f"KID needs two images of each set, here are {real.count} real and {fake.count} fake",
                fix="more images (--n-fake), or --metrics without kid",
            )
        if max(real.count, fake.count) <= self.subset_size:
            value = squared_mmd(real.rows, fake.rows)
            return {"value": value, "sd": 0.0, "subsets": 1, "subset_size": min(real.count, fake.count)}
        size = min(self.subset_size, real.count, fake.count)
        rng = np.random.default_rng(self.seed)
        values = []
        for _ in range(self.subsets):
            chosen = [f.rows[rng.choice(f.count, size, replace=False)] for f in (real, fake) if f.rows is not None]
            values.append(squared_mmd(*chosen))
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return {"value": float(np.mean(values)), "sd": sd, "subsets": self.subsets, "subset_size": size}
