"""Near copies made on purpose, on which an audit measures its own power."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medgan.metrics.features import Array, Images


class Planted:
    """Near copies of training images made on purpose: shifted by up to 0.7 px, up to 5 % brighter or darker, with noise of 2 %, half of them mirrored.

    Args:
        train: Training images.
        numbers: Which of them are copied.
        rng: Of the changes.
    """

    def __init__(self, train: Images, numbers: Array, rng: np.random.Generator) -> None:
        self.train, self.numbers, self.seeds = train, numbers, rng.integers(2**31, size=len(numbers))

    def __len__(self) -> int:
        return len(self.numbers)

    def images(self, indices: Sequence[int] | slice) -> Array:
        """Copies by number, (N, C, H, W) uint8."""
        wanted = np.arange(len(self))[indices]
        originals = self.train.images(self.numbers[wanted].tolist())
        return np.stack([near_copy(image, np.random.default_rng(self.seeds[i])) for i, image in zip(wanted, originals, strict=True)])


def near_copy(image: Array, rng: np.random.Generator) -> Array:
    """A near copy of an image (C, H, W) uint8."""
    from scipy.ndimage import shift

    moved = shift(image.astype(np.float32), (0, *rng.uniform(-0.7, 0.7, size=2)), order=1, mode="nearest")
    if rng.random() < 0.5:
        moved = moved[:, :, ::-1]
    moved = moved * rng.uniform(0.95, 1.05) + rng.normal(0, 0.02 * 255, size=moved.shape)
    return np.asarray(moved.round().clip(0, 255), np.uint8)
