"""Images that are nearly the same, found in time N^2 but memory N: correlations of small versions, block against block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SIDE = 32
BLOCK = 2048
# Correlations of 16 x 16 versions choose the pairs whose 32 x 32 versions decide.
COARSE = 0.999
# Measured on a CT with 2 mm between slices: neighbours 0.9975 to 0.9990 (5th and 95th percentile), a slice and itself after JPEG at quality 75
# 0.9999; at 3 mm and 128 px 0.972 to 0.992, and 0.9997. A copy under another window (0.997) cannot be told from a neighbour.
ALIKE = 0.9995
# Where everything is alike, more pairs say nothing more.
MOST_PAIRS_OF_BLOCK = 50_000


class Pairs(NamedTuple):
    """Pairs of images that are alike: first and second number, and their correlation."""

    first: np.ndarray
    second: np.ndarray
    correlation: np.ndarray


def small_version(image: np.ndarray) -> np.ndarray:
    """An image (C, H, W) uint8 as (SIDE, SIDE) uint8, each value the mean of its area and of the channels."""
    from PIL import Image

    grey = image[0] if len(image) == 1 else image.mean(0).round().astype(np.uint8)
    return np.asarray(Image.fromarray(np.ascontiguousarray(grey)).resize((SIDE, SIDE), Image.Resampling.BOX))


def alike(small: np.ndarray) -> Iterator[Pairs]:
    """All pairs of images with a correlation of at least ALIKE, in pieces; images of one grey are alike to none.

    Args:
        small: (N, SIDE, SIDE) uint8, from `small_version`.
    """
    for a in range(0, len(small), BLOCK):
        fine_a, coarse_a = _normal(small[a : a + BLOCK]), _normal(_halved(small[a : a + BLOCK]))
        for b in range(a, len(small), BLOCK):
            coarse_b = coarse_a if b == a else _normal(_halved(small[b : b + BLOCK]))
            near = coarse_a @ coarse_b.T >= COARSE
            if b == a:
                near = np.triu(near, 1)
            first, second = (places[:MOST_PAIRS_OF_BLOCK] for places in np.nonzero(near))
            if not len(first):
                continue
            fine_b = fine_a if b == a else _normal(small[b : b + BLOCK])
            found = np.concatenate(
                [np.einsum("nd,nd->n", fine_a[first[i : i + BLOCK]], fine_b[second[i : i + BLOCK]]) for i in range(0, len(first), BLOCK)]
            )
            keep = found >= ALIKE
            if keep.any():
                yield Pairs(first[keep] + a, second[keep] + b, found[keep])


def _halved(small: np.ndarray) -> np.ndarray:
    n, side, _ = small.shape
    return small.reshape(n, side // 2, 2, side // 2, 2).mean((2, 4))


def _normal(images: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1, so that a product is a correlation; rows of one grey become 0."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows -= rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-3)
