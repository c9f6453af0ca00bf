"""Some images of a set, drawn by a seed and held in memory, for metrics that look at pixels.

Memory is bounded by the number of images drawn and by `MOST_BYTES`, not by the set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medgan.errors import DataError
from medgan.metrics.features import Array, Features, Images
from medgan.metrics.means import Measured, units_of

MOST_BYTES = 2**30
"""Of the images drawn from one set: 1024 grey images of 1024 px."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images drawn from a set.

    Attributes:
        images: (n, C, H, W) uint8, in the order of the draw, so that neighbours are random pairs.
        numbers: Their numbers in the set, (n,).
        labels: Their class numbers, (n,), or None where the set has none.
        everything: The whole set, read by index; None where a generator makes the images.
        subjects: A key of each one's patient, (n,), or None where they are not known.
    """

    images: Array
    numbers: Array
    labels: Array | None = None
    everything: Images | None = None
    subjects: Array | None = None

    def __len__(self) -> int:
        return len(self.images)

    def classes(self, other: Pictures) -> list[Array]:
        """Places of the images class by class where both sets have class numbers, else all places as one class."""
        return places_of(len(self), None if other.labels is None else self.labels)

    def pairs(self, other: Pictures, most: int) -> Array:
        """Places of at most `most` disjoint pairs, (m, 2), each within one class where both sets have class numbers.

        Raises:
            DataError: There is none.
        """
        by_class = [places[: len(places) // 2 * 2].reshape(-1, 2) for places in self.classes(other)]
        found = np.concatenate(by_class)
        if not len(found):
            raise DataError(f"{len(self)} images hold no pair of one class", fix="more images (--n-fake), or another --metrics")
        # In the order of the draw, so that a class's share of the pairs is its share of the images.
        return found[np.argsort(found[:, 1], kind="stable")][:most]

    def measured(self, values: Array, places: Array) -> Measured:
        """Values of images (m,), or of pairs (m,), at these places, (m,) or (m, 2), with the patients or images they are of."""
        units, patients = units_of(len(self), self.subjects)
        return Measured(values, units[places], patients)


def places_of(count: int, labels: Array | None) -> list[Array]:
    """Of `count` images the places of each class, or all places as one class where there are no class numbers."""
    return [np.arange(count)] if labels is None else [np.flatnonzero(labels == label) for label in np.unique(labels)]


def within(one: Pictures | Features, other: Pictures | Features) -> str:
    """What pairs have in common: `class` or, where a set has no class numbers, only the `set`."""
    return "set" if one.labels is None or other.labels is None else "class"


def drawn(total: int, most: int, image_shape: tuple[int, ...], *, seed: int) -> Array:
    """Which images of a set of `total` are drawn, in random order: at most `most`, and no more than memory is meant to hold."""
    fits = max(MOST_BYTES // int(np.prod(image_shape)), 2)
    return np.random.default_rng(seed).permutation(total)[: min(most, fits)]


def class_numbers(images: Images, numbers: Array) -> Array | None:
    """Class numbers of some images of a set that has them; vectors are no classes."""
    labels = getattr(images, "labels", None)
    return None if labels is None or labels.ndim != 1 else labels[numbers]


def patients_of(subjects: Sequence[str] | None, numbers: Array) -> Array | None:
    """The patients' keys of some images of a set, where they are known."""
    return None if subjects is None else np.asarray(subjects)[numbers]


def blocks(count: int, image_shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices over `count` images, some megapixels at a time."""
    size = max(2**21 // int(np.prod(image_shape)), 1)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def checked(images: Array) -> Array:
    """Images as they are.

    Raises:
        DataError: They are no 8-bit grey or RGB images.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(f"images must be 8-bit grey or RGB (N, C, H, W), not {images.dtype} {images.shape}")
    return images


def alike(images: Array, shape: tuple[int, ...]) -> Array:
    """Images as they are.

    Raises:
        DataError: They are not of the shape (C, H, W) that real images have.
    """
    if checked(images).shape[1:] != shape:
        raise DataError(
            f"the sets differ: real images are {_size(shape)}, others {_size(images.shape[1:])}",
            fix="prepare both with the same size and channels",
        )
    return images


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width} x {height} with {channels} channel{'s' if channels > 1 else ''}"
