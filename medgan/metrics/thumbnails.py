"""Pixels as features: for metrics of neighbours without any pretrained network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from medgan.metrics.features import Array

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 32


class PixelExtractor:
    """The grey values of an image averaged over 32 x 32 areas, as a row of 1,024 numbers from 0 to 255; colours are averaged first.

    Euclidean distances between such rows see where things are and how bright, not texture; a shift of some pixels counts as a difference.

    Args:
        weights: Not looked at: there are none.
        resize: Not looked at: areas are averaged.
        device: Where to compute.
    """

    name = "pixels-32"
    sha256 = ""
    resize = "area"
    dim = SIDE * SIDE

    def __init__(self, *, weights: Path | None = None, resize: str = "area", device: str = "cpu") -> None:
        self.device = device

    def __call__(self, images: Array) -> Tensor:
        """Rows (N, 1024) float32 of images (N, C, H, W) uint8; areas of images below 32 px repeat pixels."""
        grey = torch.from_numpy(images).to(self.device).double().mean(1, keepdim=True)
        return F.adaptive_avg_pool2d(grey, SIDE).flatten(1).float()
