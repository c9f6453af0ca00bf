"""Structural similarity of images, at one scale (Wang et al. 2004) and at several (Wang, Simoncelli and Bovik 2003), and two metrics from it.

The answer of MS-SSIM depends on how small images are treated, so the rule is explicit: as many of the five scales as leave the window
room (the side at the coarsest is at least 11), their weights scaled to a sum of 1; an image smaller than 11 px has one scale and the
largest odd window that fits. So 176 px and more have the five scales of the paper, 256 -> 5, 128 -> 4, 64 -> 3, 28 -> 2 (28 and 14 px).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medgan.errors import DataError
from medgan.metrics.features import Array
from medgan.metrics.means import Measured, described
from medgan.metrics.metric import Result
from medgan.metrics.pictures import Pictures, blocks, within

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, finest first (Wang et al. 2003, section 3.2)."""
WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03


def scales_of(side: int) -> tuple[tuple[float, ...], int]:
    """Weights of the scales that an image of this shorter side admits, and the width of the window in pixels."""
    count = 1
    while count < len(WEIGHTS) and side >> count >= WINDOW:
        count += 1
    total = sum(WEIGHTS[:count])
    return tuple(weight / total for weight in WEIGHTS[:count]), min(WINDOW, side - 1 + side % 2)


def gaussian_window(size: int) -> Tensor:
    """Weights of a window, (size,) float64, sum 1, standard deviation 1.5 px."""
    distance = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = (-distance.square() / (2 * SIGMA**2)).exp()
    return weights / weights.sum()


def similarity(x: Tensor, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """SSIM and its part without luminance, each (N,): means over channels and all places where the window lies inside.

    Args:
        x: (N, C, H, W) in [0, 1].
        y: Its counterpart.
        size: Width of the Gaussian window.
    """
    channels = x.shape[1]
    weights = gaussian_window(size).to(x)
    rows, columns = (weights.reshape(shape).expand(5 * channels, 1, -1, -1).reshape(5 * channels, 1, *shape[2:]) for shape in SHAPES)
    maps = F.conv2d(F.conv2d(torch.cat([x, y, x * x, y * y, x * y], 1), rows, groups=5 * channels), columns, groups=5 * channels)
    mean_x, mean_y, square_x, square_y, product = maps.chunk(5, 1)
    c1, c2 = K1**2, K2**2
    contrast = (2 * (product - mean_x * mean_y) + c2) / (square_x - mean_x.square() + square_y - mean_y.square() + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (luminance * contrast).mean((1, 2, 3)), contrast.mean((1, 2, 3))


SHAPES = ((1, 1, -1, 1), (1, 1, 1, -1))


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """MS-SSIM (N,) of images (N, C, H, W) in [0, 1], by the rule above; 1 for equal images, no less than 0."""
    weights, size = scales_of(min(x.shape[2:]))
    value = x.new_ones(len(x))
    for number, weight in enumerate(weights):
        if number:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        whole, contrast = similarity(x, y, size)
        # A mean below 0, of images that are each other's negative, has no real power.
        value = value * (whole if number == len(weights) - 1 else contrast).clamp(min=0).pow(weight)
    return value


def prepared(images: Array, device: str, size: int = 0) -> Tensor:
    """8-bit images as (N, C, H, W) float64 in [0, 1]; bilinearly resized to `size` (antialiased downwards) unless that is 0."""
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device).double() / 255
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True) if size else x


def of_places(images: Array, pairs: Array, similarity: Callable[[Tensor, Tensor], Tensor], device: str, size: int) -> Array:
    """A similarity of pairs of images, (m,), some at a time: `pairs` (m, 2) are places among `images`, `size` as for `prepared`."""
    shape = (images.shape[1], size, size) if size else images.shape[1:]
    parts = blocks(len(pairs), shape)
    found = [similarity(*(prepared(images[pairs[part, side]], device, size) for side in (0, 1))).cpu().numpy() for part in parts]
    return np.concatenate(found)


@dataclass(frozen=True, kw_only=True)
class MSSSIM:
    """Mean MS-SSIM of random disjoint pairs within a set: how alike its images are (Odena et al. 2017, arXiv 1610.09585, section 4.2).

    Lower means more varied; what counts is the distance to the same figure of the real set, which stands beside it.

    Args:
        pairs: Most pairs of a set.
        picture_size: Side to which images are resized first (176 gives five scales at any size); 0 leaves them.
        device: Where to compute, in float64.
        intervals: Add confidence intervals, of either mean and of their difference.
    """

    needs: ClassVar[str] = "images"
    higher_is_better: ClassVar[bool] = False
    extractor: ClassVar[str] = ""
    resize: ClassVar[str] = ""
    n_fake: ClassVar[int] = 0
    instead: ClassVar[str] = ""
    pairs: int = 1000
    picture_size: int = 0
    device: str = "cpu"
    intervals: bool = True

    def __call__(self, *, real: Pictures, fake: Pictures) -> Result:
        """Means and standard deviations (n - 1) over pairs of either set, how many pairs, and the rule that was used."""
        of_fake, of_real = self.of_pairs(fake, real), self.of_pairs(real, fake)
        weights, size = scales_of(self.picture_size or min(fake.images.shape[2:]))
        return {
            **described(of_fake, of_real, what="pairs", intervals=self.intervals),
            "within": within(real, fake),
            "scales": len(weights),
            "window": size,
        }

    def of_pairs(self, one: Pictures, other: Pictures) -> Measured:
        """MS-SSIM of each pair of one set."""
        pairs = one.pairs(other, self.pairs)
        return one.measured(of_places(one.images, pairs, ms_ssim, self.device, self.picture_size), pairs)


@dataclass(frozen=True, kw_only=True)
class NearestSSIM:
    """SSIM of synthetic images with the real image nearest to each in Euclidean pixel distance.

    Beside it stands the same of real images with their nearest other real image: a value far above that one says that images are repeated.
    A copy that is shifted or turned is not found: no proof of privacy, for which there is `medgan audit`.

    Args:
        pairs: Most synthetic images that are looked up, and most real ones.
        device: Where SSIM is computed, in float64.
        intervals: Add confidence intervals of the means, the real set as it is.
    """

    needs: ClassVar[str] = "images"
    higher_is_better: ClassVar[bool] = False
    extractor: ClassVar[str] = ""
    resize: ClassVar[str] = ""
    n_fake: ClassVar[int] = 0
    instead: ClassVar[str] = ""
    pairs: int = 1000
    device: str = "cpu"
    intervals: bool = True

    def __call__(self, *, real: Pictures, fake: Pictures) -> Result:
        """Mean, standard deviation (n - 1) and largest value over synthetic images, how many, and the same of real ones.

        Raises:
            DataError: There are fewer than two real images.
        """
        assert real.everything is not None
        if len(real.everything) < 2:
            raise DataError(
                "ssim_nearest compares with real images among each other and needs at least 2", fix="--metrics without ssim_nearest"
            )
        # Products of 8-bit images are whole numbers that float64 holds exactly: nearest is nearest, whatever the blocks.
        most = min(self.pairs, max(QUERY_BYTES // (8 * fake.images[0].size), 1))
        asked = [fake.images[:most], real.images[:most]]
        places = nearest(asked, [None, real.numbers[:most]], real)
        values = [
            self.ssim(images, np.concatenate([real.everything.images([int(n)]) for n in found]))
            for images, found in zip(asked, places, strict=True)
        ]
        of_fake, of_real = (one.measured(v, np.arange(len(v))) for one, v in zip((fake, real), values, strict=True))
        highest = {"highest": float(values[0].max()), "real_highest": float(values[1].max())}
        return {**described(of_fake, of_real, what="images", intervals=self.intervals), **highest}

    def ssim(self, images: Array, others: Array) -> Array:
        """SSIM of each image with its counterpart, (n,)."""
        size = scales_of(min(images.shape[2:]))[1]
        parts = [
            similarity(prepared(images[p], self.device), prepared(others[p], self.device), size)[0]
            for p in blocks(len(images), images.shape[1:])
        ]
        return torch.cat(parts).cpu().numpy()


QUERY_BYTES = 2**28
"""Of images in float64 that are looked up at once."""


def nearest(queries: list[Array], own: list[Array | None], real: Pictures) -> list[Array]:
    """For each query image the number of the real image with the least squared pixel difference, the first of equals.

    Args:
        queries: Sets of images (n, C, H, W).
        own: The queries' own numbers in the real set, which do not count; None where they are not of it.
        real: With the whole set, which is read once.
    """
    assert real.everything is not None
    rows = [images.reshape(len(images), -1).astype(np.float64) for images in queries]
    squares = [np.square(x).sum(1) for x in rows]
    least = [np.full(len(x), np.inf) for x in rows]
    found = [np.zeros(len(x), dtype=np.int64) for x in rows]
    for part in blocks(len(real.everything), queries[0].shape[1:]):
        numbers = np.arange(part.start, part.stop)
        block = real.everything.images(range(part.start, part.stop)).reshape(len(numbers), -1).astype(np.float64)
        lengths = np.square(block).sum(1)
        for i, x in enumerate(rows):
            distances = squares[i][:, None] + lengths - 2 * (x @ block.T)
            if (mine := own[i]) is not None:
                distances[mine[:, None] == numbers] = np.inf
            best = distances.argmin(1)
            value = distances[np.arange(len(x)), best]
            nearer = value < least[i]
            least[i][nearer], found[i][nearer] = value[nearer], numbers[best[nearer]]
    return found
