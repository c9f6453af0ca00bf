"""Manifolds of nearest neighbours: precision and recall, density and coverage, from one pass over all distances.

Around each row of features lies a ball that reaches its k-th nearest neighbour in its own set, itself not counted; the union of
the balls stands for the set. What the four numbers can and cannot say: docs/explanation/metrics.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from medgan.errors import DataError
from medgan.metrics.features import Array, Features
from medgan.metrics.metric import Result

# Rows of one set whose distances to all of the other are held at a time: 1024 x 50,000 in float64 are 0.4 GB.
BLOCK = 1024
ROUNDING = 1e-12
"""Squared distances below this part of the two squared lengths are the noise of float64 products: 0, so that copies count as copies."""


@dataclass(frozen=True)
class Overlap:
    """How two sets of balls lie in each other.

    Attributes:
        precision: Share of fakes inside some real's ball.
        recall: Share of reals inside some fake's ball.
        density: Real balls around a fake, on average, over k.
        coverage: Share of reals whose ball holds a fake.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def squared_distances(x: Array, y: Array) -> Iterator[tuple[int, Array]]:
    """Squared Euclidean distances of rows (M, D) to rows (N, D), as (first row, block (at most `BLOCK`, N)) in float64."""
    far = np.square(y).sum(1)
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK]
        near = np.square(block).sum(1)[:, None]
        squares = block @ y.T
        squares *= -2
        squares += near
        squares += far
        squares[squares < ROUNDING * (near + far)] = 0
        yield start, squares


def squared_radii(rows: Array, k: int) -> Array:
    """Squared distance of each row (N, D) to its k-th nearest other row, (N,)."""
    radii = np.empty(len(rows))
    for start, squares in squared_distances(rows, rows):
        own = np.arange(len(squares))
        squares[own, start + own] = np.inf
        radii[start : start + len(squares)] = np.partition(squares, k - 1, axis=1)[:, k - 1]
    return radii


def overlap(real: Array, fake: Array, k: int) -> Overlap:
    """The four shares of two sets of rows (M, D) and (N, D); a point on the edge of a ball is inside.

    Raises:
        DataError: A set has no k-th neighbour.
    """
    if min(len(real), len(fake)) <= k:
        raise DataError(
            f"a {k}-nearest-neighbour metric needs at least {k + 1} images of each set, here are {len(real)} real and {len(fake)} fake",
            fix="more images (--n-fake), or --metrics without precision, recall, density and coverage",
        )
    # Distances do not change, and products of smaller numbers lose less.
    middle = real.mean(0, dtype=np.float64)
    x, y = real - middle, fake - middle
    real_radii, fake_radii = squared_radii(x, k), squared_radii(y, k)
    inside_fake = covered = 0
    around = np.zeros(len(y), dtype=np.int64)
    for start, squares in squared_distances(x, y):
        in_real_ball = squares <= real_radii[start : start + len(squares), None]
        around += in_real_ball.sum(0)
        covered += int(in_real_ball.any(1).sum())
        inside_fake += int((squares <= fake_radii).any(1).sum())
    return Overlap(
        precision=float((around > 0).mean()),
        recall=inside_fake / len(x),
        density=float(around.sum()) / (k * len(y)),
        coverage=covered / len(x),
    )


def kept_overlap(real: Features, fake: Features, k: int) -> Overlap:
    """`overlap` of two sets of features, computed once for all metrics that ask."""
    assert real.rows is not None
    assert fake.rows is not None
    if (real, k) not in fake.kept:
        fake.kept[real, k] = overlap(real.rows, fake.rows, k)
    found: Overlap = fake.kept[real, k]
    return found


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Share of synthetic images that lie among the real ones (Kynkäänniemi et al. 2019, arXiv 1904.06991, eq. 1 and 2).

    Higher is better; 1 is the most. A generator that repeats a few good images has a high precision and a low recall.

    Args:
        k: The neighbour to which a ball reaches; 3 in the paper and the official code.
    """

    needs: ClassVar[str] = "features"
    higher_is_better: ClassVar[bool] = True
    extractor: ClassVar[str] = "inception-2015-12-05"
    resize: ClassVar[str] = ""
    n_fake: ClassVar[int] = 0
    instead: ClassVar[str] = ""
    share: ClassVar[str] = "precision"
    k: int = 3

    def __call__(self, *, real: Features, fake: Features) -> Result:
        """The share and k.

        Raises:
            DataError: A set has no more than k images.
        """
        return {"value": float(getattr(kept_overlap(real, fake, self.k), self.share)), "k": self.k}


@dataclass(frozen=True, kw_only=True)
class Recall(Precision):
    """Share of real images that lie among the synthetic ones (Kynkäänniemi et al. 2019). Higher is better; kinds that are missing lower it."""

    share: ClassVar[str] = "recall"


@dataclass(frozen=True, kw_only=True)
class Density(Precision):
    """How many real balls a synthetic image lies in, over k (Naeem et al. 2020, arXiv 2002.09797, eq. 3).

    Higher is better; about 1 for equal distributions, and more where fakes crowd where the real images are densest. One outlier among the
    real images, which raises precision, hardly moves it.
    """

    share: ClassVar[str] = "density"
    k: int = 5


@dataclass(frozen=True, kw_only=True)
class Coverage(Precision):
    """Share of real images with a synthetic one in their ball (Naeem et al. 2020, eq. 4). Higher is better; for equal sets of distinct images 1."""

    share: ClassVar[str] = "coverage"
    k: int = 5


@dataclass(frozen=True, kw_only=True)
class PrecisionPixels(Precision):
    """Precision on pixels averaged over 32 x 32 areas, without any network. Higher is better."""

    extractor: ClassVar[str] = "pixels-32"


@dataclass(frozen=True, kw_only=True)
class RecallPixels(Recall):
    """Recall on pixels averaged over 32 x 32 areas. Higher is better."""

    extractor: ClassVar[str] = "pixels-32"


@dataclass(frozen=True, kw_only=True)
class DensityPixels(Density):
    """Density on pixels averaged over 32 x 32 areas. Higher is better."""

    extractor: ClassVar[str] = "pixels-32"


@dataclass(frozen=True, kw_only=True)
class CoveragePixels(Coverage):
    """Coverage on pixels averaged over 32 x 32 areas. Higher is better."""

    extractor: ClassVar[str] = "pixels-32"


@dataclass(frozen=True, kw_only=True)
class PrecisionLPIPS(Precision):
    """Precision on what LPIPS compares on VGG16, averaged over the image; not the official pr50k3. Higher is better."""

    extractor: ClassVar[str] = "lpips-vgg16"


@dataclass(frozen=True, kw_only=True)
class RecallLPIPS(Recall):
    """Recall on what LPIPS compares on VGG16, averaged over the image; not the official pr50k3. Higher is better."""

    extractor: ClassVar[str] = "lpips-vgg16"


@dataclass(frozen=True, kw_only=True)
class DensityLPIPS(Density):
    """Density on what LPIPS compares on VGG16, averaged over the image. Higher is better."""

    extractor: ClassVar[str] = "lpips-vgg16"


@dataclass(frozen=True, kw_only=True)
class CoverageLPIPS(Coverage):
    """Coverage on what LPIPS compares on VGG16, averaged over the image. Higher is better."""

    extractor: ClassVar[str] = "lpips-vgg16"
