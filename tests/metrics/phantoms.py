"""Images and features that are the same on every machine, made from whole numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def waves(count: int, size: int = 40, *, first: int = 0, channels: int = 1) -> np.ndarray:
    """Images (count, channels, size, size) uint8 of crossing stripes; number `first + i` has a texture of its own."""
    y, x = np.mgrid[:size, :size]
    images = [[(x * (3 + k) + y * (5 + 2 * k) ^ (x * y + 7 * c)) % 256 for c in range(channels)] for k in range(first, first + count)]
    return np.array(images, dtype=np.uint8)


class ImageSet:
    """Images in memory, read by index as a dataset is."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.reads = 0

    def __len__(self) -> int:
        return len(self.array)

    def images(self, indices: Sequence[int] | slice) -> np.ndarray:
        self.reads += 1
        return self.array[indices]


def gaussian(n: int, dim: int, seed: int, *, scale: float | np.ndarray = 1.0, shift: float | np.ndarray = 0.0) -> np.ndarray:
    """Rows (n, dim) float32 of independent normal numbers."""
    return (np.random.default_rng(seed).standard_normal((n, dim)) * scale + shift).astype(np.float32)
