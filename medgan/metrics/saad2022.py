"""MS-SSIM as the group of arXiv 2201.10324 computed it, for comparison with their figures and for nothing else.

Images of 128 px in five scales of the package sewar 0.4.5, whose numbers this repeats: the last scale has 8 px, less than the window of 11, and the
roles are swapped: the image slides over the window, whose weights there do not sum to 1. Neighbours in the set are the pairs, so slices of one
patient are compared with one another. None of it is recommended.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medgan.metrics.means import Measured, described
from medgan.metrics.metric import Result
from medgan.metrics.pictures import Pictures, within
from medgan.metrics.ssim import K1, K2, MSSSIM, WEIGHTS, WINDOW, gaussian_window, of_places

SIDE = 128


def five_scales(x: Tensor, y: Tensor) -> Tensor:
    """Their MS-SSIM (N,) of images (N, C, H, W) in [0, 1]: the real part where a scale's mean is negative."""
    value = torch.ones(len(x), dtype=torch.complex128, device=x.device)
    for number, weight in enumerate(WEIGHTS):
        if number:
            x, y = _halved(x), _halved(y)
        whole, contrast = _similarity(x, y)
        value = value * (whole if number == len(WEIGHTS) - 1 else contrast).to(value).pow(weight)
    return value.real


def _halved(image: Tensor) -> Tensor:
    """Means of the pixels 2 i - 1 and 2 i, the first one repeated before the edge; theirs go over neighbouring channels too, so colours mix."""
    image = F.avg_pool2d(F.pad(image, (1, 0, 1, 0), mode="replicate"), 2)
    return (image + torch.cat([image[:, :1], image[:, :-1]], 1)) / 2


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its part without luminance, (N,) each: means over channels and the places where the smaller of window and image lies in the other."""
    mean_x, mean_y, square_x, square_y, product = (_blurred(image) for image in (x, y, x * x, y * y, x * y))
    c1, c2 = K1**2, K2**2
    contrast = (2 * (product - mean_x * mean_y) + c2) / (square_x - mean_x.square() + square_y - mean_y.square() + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (luminance * contrast).mean((1, 2, 3)), contrast.mean((1, 2, 3))


def _blurred(image: Tensor) -> Tensor:
    n, channels, height, width = image.shape
    line = gaussian_window(WINDOW).to(image)
    window = torch.outer(line, line)[None, None]
    single = image.reshape(n * channels, 1, height, width)
    # The window is symmetric, so which of the two is turned over only changes the order of places.
    blurred = F.conv2d(single, window) if min(height, width) >= WINDOW else F.conv2d(window, single)
    return blurred.reshape(n, channels, *blurred.shape[2:])


@dataclass(frozen=True, kw_only=True)
class SaadMSSSIM(MSSSIM):
    """MS-SSIM of neighbouring images at 128 px as in arXiv 2201.10324 (sewar 0.4.5), only to compare with its figures. Lower means more varied."""

    def __call__(self, *, real: Pictures, fake: Pictures) -> Result:
        """As MS-SSIM, but of pairs of neighbours in the order of either set: of all its images where `pairs` is half their number or more."""
        result = described(self.of_pairs(fake, real), self.of_pairs(real, fake), what="pairs", intervals=self.intervals)
        return {**result, "within": within(real, fake), "scales": len(WEIGHTS), "window": WINDOW, "size": SIDE}

    def of_pairs(self, one: Pictures, other: Pictures) -> Measured:
        """Their MS-SSIM of each pair of one set."""
        order = np.argsort(one.numbers, kind="stable")
        labels = None if one.labels is None else one.labels[order]
        neighbours = Pictures(one.images[order], one.numbers[order], labels, one.everything)
        pairs = order[neighbours.pairs(other, self.pairs)]
        size = 0 if one.images.shape[2:] == (SIDE, SIDE) else SIDE
        return one.measured(of_places(one.images, pairs, five_scales, self.device, size), pairs)
