"""LPIPS's own features as rows, for metrics of neighbours: VGG16 as people's judgements weighted it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from medgan import weights as pretrained
from medgan.errors import DataError
from medgan.metrics.features import Array
from medgan.metrics.lpips import SMALLEST, as_input, load_lpips
from medgan.metrics.path_length import shrunk

NETWORK = "vgg16"


class PerceptualExtractor:
    """What LPIPS compares on VGG16, averaged over the image: 1,472 numbers of five layers, each times the root of its learned weight.

    The squared distance of two rows is never more than the LPIPS of the two images, which also sees where things are. Not the features of
    the official pr50k3, which are of VGG16's second fully connected layer.

    Args:
        weights: A folder to look for weights in first.
        resize: Not looked at: images above 256 px are averaged down as for path length, others are taken as they are.
        device: Where to compute.

    Raises:
        WeightsError: The weights are nowhere.
    """

    name = "lpips-vgg16"
    resize = "mean"

    def __init__(self, *, weights: Path | None = None, resize: str = "mean", device: str = "cpu") -> None:
        self.device = device
        self.model = load_lpips(NETWORK, device, weights)
        self.sha256 = pretrained.known(self.name).sha256
        self.dim = sum(len(weight) for weight in self.model.linear)

    @torch.inference_mode()
    def __call__(self, images: Array) -> Tensor:
        """Rows (N, 1472) float32 of images (N, C, H, W) uint8.

        Raises:
            DataError: The images are too small for the network.
        """
        if (side := min(images.shape[2:])) < SMALLEST[NETWORK]:
            raise DataError(
                f"{self.name} features need images of {SMALLEST[NETWORK]} pixels or more, these have {side}",
                fix="metrics of pixels: --metrics precision_pixels,recall_pixels",
            )
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            layers = self.model.units(shrunk(as_input(images, self.device)))
            rows = [units.mean((2, 3)) * weight.clamp(min=0).sqrt() for units, weight in zip(layers, self.model.linear, strict=True)]
        return torch.cat(rows, dim=1)
