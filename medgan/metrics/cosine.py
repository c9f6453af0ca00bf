"""Cosine distance between the images of one set, in pixels and in features: how varied the set is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from medgan.errors import DataError
from medgan.metrics.features import Array, Features
from medgan.metrics.means import Measured, described, units_of
from medgan.metrics.metric import Result
from medgan.metrics.pictures import Pictures, patients_of, places_of, within

COLUMNS = 2**16
"""Pixels of every image that are held in float64 at a time."""


def products(rows: Array, *, center: bool) -> Array:
    """Products of all rows (n, D) of any real type with each other, (n, n) float64, less their mean row if `center`."""
    flat = rows.reshape(len(rows), -1)
    table = np.zeros((len(flat), len(flat)))
    for start in range(0, flat.shape[1], COLUMNS):
        part = flat[:, start : start + COLUMNS].astype(np.float64)
        if center:
            part -= part.mean(0)
        table += part @ part.T
    return table


def distances(table: Array, *, disjoint: bool) -> tuple[Array, Array]:
    """1 - cosine of pairs (m,), and the pairs (m, 2), from the table of products (n, n) of rows with a length: all pairs once, or 0 with 1, 2 with 3, ..."""
    lengths = np.sqrt(np.diag(table))
    n = len(table)
    one, other = (np.arange(0, n - 1, 2), np.arange(1, n, 2)) if disjoint else np.triu_indices(n, 1)
    # Rounding may leave -1e-16 for parallel rows.
    found: Array = (1 - table[one, other] / (lengths[one] * lengths[other])).clip(0, 2)
    return found, np.stack([one, other], axis=1)


@dataclass(frozen=True, kw_only=True)
class CosinePixels:
    """Mean cosine distance of the pixels of two images of one class: 0 for images that are multiples of each other, 1 at right angles.

    Higher means more varied; what counts is the distance to the same figure of the real set, which stands beside it. Uncentred, grey values
    are never negative and all images share their mean, so the value is small; centred, it is near 1 for any set.

    Args:
        pairs: Twice this many images of a set are drawn.
        cosine_pairs: `all` pairs of them within a class, or `disjoint` ones, whose standard deviation over the root of their number is a
            standard error.
        center: Take the mean image of the class in its set off first.
        intervals: Add confidence intervals, of either mean and of their difference.
    """

    needs: ClassVar[str] = "images"
    higher_is_better: ClassVar[bool] = True
    extractor: ClassVar[str] = ""
    resize: ClassVar[str] = ""
    n_fake: ClassVar[int] = 0
    instead: ClassVar[str] = ""
    pairs: int = 1000
    cosine_pairs: str = "all"
    center: bool = False
    intervals: bool = True

    def __call__(self, *, real: Pictures, fake: Pictures) -> Result:
        """Means and standard deviations (n - 1) over pairs of either set, how many pairs, and what was compared."""
        of_fake, of_real = self.of_set(fake, real), self.of_set(real, fake)
        return {**self.described(of_fake, of_real), "within": within(real, fake)}

    def of_set(self, one: Pictures, other: Pictures) -> Measured:
        """Distances of the pairs of one set."""
        return self.of_classes(one.images, [places[: 2 * self.pairs] for places in one.classes(other)], one.subjects)

    def of_classes(self, images: Array, classes: list[Array], subjects: Array | None) -> Measured:
        """Distances of pairs within each class. Images without a direction (black, or equal to the mean) are in no pair.

        Args:
            images: Rows of any shape, (n, ...).
            classes: The places in them of each class's images.
            subjects: A key of each one's patient, (n,), or None.

        Raises:
            DataError: There is no pair.
        """
        found, pairs = [], []
        for places in classes:
            rows = images[places]
            table = products(rows, center=self.center)
            lengths = np.diag(table)
            # What is left of a constant set after centring is rounding.
            some = lengths > 1e-24 * max(float(np.square(rows.astype(np.float64)).sum(axis=tuple(range(1, rows.ndim))).max()), 1e-300)
            values, chosen = distances(table[np.ix_(some, some)], disjoint=self.cosine_pairs == "disjoint")
            found.append(values)
            pairs.append(places[some][chosen])
        every = np.concatenate(found)
        if not len(every):
            raise DataError(
                "a cosine distance needs two images of one class that are not black (or, centred, not all equal)",
                fix="more images (--n-fake), or --metrics without cosine distances",
            )
        units, patients = units_of(len(images), subjects)
        fixed = "with the mean image taken off, all pairs together give about 1 whatever the images are" if self.center else ""
        return Measured(every, units[np.concatenate(pairs)], patients, fixed if self.cosine_pairs == "all" else "")

    def described(self, of_fake: Measured, of_real: Measured) -> Result:
        """The result that both spaces share."""
        result = described(of_fake, of_real, what="pairs", intervals=self.intervals)
        return result | {"pairing": self.cosine_pairs, "centred": "yes" if self.center else "no"}


@dataclass(frozen=True, kw_only=True)
class CosineInception(CosinePixels):
    """Mean cosine distance of the Inception features of two images of one class. Higher means more varied."""

    needs: ClassVar[str] = "features"
    extractor: ClassVar[str] = "inception-2015-12-05"
    seed: int = 0

    def __call__(self, *, real: Features, fake: Features) -> Result:  # type: ignore[override]
        """As in pixels, over at most twice `pairs` images of each set that the seed draws."""
        values = []
        for one, other in ((fake, real), (real, fake)):
            assert one.rows is not None
            chosen = np.random.default_rng(self.seed).permutation(one.count)[: 2 * self.pairs]
            classes = places_of(len(chosen), None if one.labels is None or other.labels is None else one.labels[chosen])
            values.append(self.of_classes(one.rows[chosen], classes, patients_of(one.subjects, chosen)))
        return {**self.described(*values), "within": within(real, fake)}
