"""Learned perceptual distance of two images (LPIPS 0.1; Zhang et al. 2018, arXiv 1801.03924), and the variety of a set by it.

Two images pass one network made for photographs; the squared differences of its unit-length features, weighted channel by channel
as people's judgements taught, are averaged over places and summed over five layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medgan import weights as pretrained
from medgan.errors import DataError
from medgan.metrics.features import Array
from medgan.metrics.means import Measured, described
from medgan.metrics.metric import Result
from medgan.metrics.pictures import Pictures, blocks, within

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""Of the red, green and blue values in [-1, 1] that the networks were trained with (mean and deviation of ImageNet)."""

# Of each convolution: channels in and out, width, stride, padding; a pool before it; whether its output is compared.
LAYERS = {
    "vgg16": [
        (inner, outer, 3, 1, 1, pool, compared)
        for inner, outer, pool, compared in (
            (3, 64, False, False), (64, 64, False, True),
            (64, 128, True, False), (128, 128, False, True),
            (128, 256, True, False), (256, 256, False, False), (256, 256, False, True),
            (256, 512, True, False), (512, 512, False, False), (512, 512, False, True),
            (512, 512, True, False), (512, 512, False, False), (512, 512, False, True),
        )
    ],
    "alexnet": [
        (3, 64, 11, 4, 2, False, True), (64, 192, 5, 1, 2, True, True), (192, 384, 3, 1, 1, True, True),
        (384, 256, 3, 1, 1, False, True), (256, 256, 3, 1, 1, False, True),
    ],
}  # fmt: skip
POOL = {"vgg16": 2, "alexnet": 3}
SMALLEST = {"vgg16": 16, "alexnet": 31}
"""Side in pixels below which a pool is left without input."""


class LPIPS(nn.Module):
    """The distance of images (N, 3, H, W) in [-1, 1], (N,); 0 for equal images.

    Args:
        network: `vgg16` or `alexnet`.
    """

    def __init__(self, network: str) -> None:
        super().__init__()
        self.layers, self.pool = LAYERS[network], POOL[network]
        self.conv = nn.ModuleList(nn.Conv2d(i, o, width, stride, padding) for i, o, width, stride, padding, _, _ in self.layers)
        self.linear = nn.ParameterList(torch.zeros(layer[1]) for layer in self.layers if layer[-1])
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(SHIFT).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances (N,) of pairs."""
        distance = x.new_zeros(len(x))
        for units, weight in zip(self.units(torch.cat([x, y])), self.linear, strict=True):
            one, other = units.chunk(2)
            distance = distance + ((one - other).square() * weight.reshape(1, -1, 1, 1)).sum(1).mean((1, 2))
        return distance

    def units(self, x: Tensor) -> Iterator[Tensor]:
        """The compared layers' features of images (N, 3, H, W) in [-1, 1], of length 1 at every place."""
        z = (x - self.shift) / self.scale
        for conv, (*_, pool, compared) in zip(self.conv, self.layers, strict=True):
            z = conv(F.max_pool2d(z, self.pool, 2) if pool else z).relu_()
            if compared:
                yield z / (z.square().sum(1, keepdim=True).sqrt() + 1e-10)


def load_lpips(network: str, device: str, folder: Path | None = None) -> LPIPS:
    """LPIPS with its published weights, in eval mode and float32 without gradients.

    Raises:
        WeightsError: The weights are nowhere.
    """
    model = LPIPS(network)
    model.load_state_dict(pretrained.read(pretrained.find(f"lpips-{network}", folder)))
    return model.eval().requires_grad_(False).to(device)


def as_input(images: Array, device: str) -> Tensor:
    """8-bit images as (N, 3, H, W) float32 in [-1, 1]; grey is repeated."""
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device).float() / 127.5 - 1
    return x.expand(-1, 3, -1, -1)


@dataclass(frozen=True, kw_only=True)
class LPIPSAlexNet:
    """Mean LPIPS distance of random disjoint pairs within a set, on AlexNet's features: how varied its images look.

    Higher means more varied; what counts is the distance to the same figure of the real set, which stands beside it.

    Args:
        pairs: Most pairs of a set.
        device: Where to compute.
        weights: A folder to look for weights in first.
        intervals: Add confidence intervals, of either mean and of their difference.
    """

    needs: ClassVar[str] = "images"
    higher_is_better: ClassVar[bool] = True
    extractor: ClassVar[str] = ""
    resize: ClassVar[str] = ""
    n_fake: ClassVar[int] = 0
    instead: ClassVar[str] = ""
    network: ClassVar[str] = "alexnet"
    pairs: int = 1000
    device: str = "cpu"
    weights: Path | None = None
    intervals: bool = True

    @cached_property
    def model(self) -> LPIPS:
        """The network, loaded when it is first asked for."""
        return load_lpips(self.network, self.device, self.weights)

    def prepare(self) -> None:
        """Load the weights now, so that their absence shows before any work."""
        assert self.model

    def __call__(self, *, real: Pictures, fake: Pictures) -> Result:
        """Means and standard deviations (n - 1) over pairs of either set, how many pairs, and the weights' SHA-256.

        Raises:
            DataError: The images are too small for the network.
        """
        if (side := min(fake.images.shape[2:])) < SMALLEST[self.network]:
            raise DataError(
                f"lpips_{self.network} needs images of {SMALLEST[self.network]} pixels or more, these have {side}",
                fix="--metrics lpips_vgg16, which takes 16 pixels"
                if self.network == "alexnet" and side >= 16
                else "--metrics without lpips",
            )
        of_fake, of_real = self.of_pairs(fake, real), self.of_pairs(real, fake)
        result = described(of_fake, of_real, what="pairs", intervals=self.intervals)
        return result | {"within": within(real, fake), "weights_sha256": pretrained.known(f"lpips-{self.network}").sha256}

    @torch.inference_mode()
    def of_pairs(self, one: Pictures, other: Pictures) -> Measured:
        """Distances of the pairs of one set, float64."""
        pairs = one.pairs(other, self.pairs)
        found = []
        # 64 channels of the first layer, and both images.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            for part in blocks(len(pairs), (8, *one.images.shape[2:])):
                x, y = (as_input(one.images[pairs[part, side]], self.device) for side in (0, 1))
                found.append(self.model(x, y).double().cpu().numpy())
        return one.measured(np.concatenate(found), pairs)


@dataclass(frozen=True, kw_only=True)
class LPIPSVGG16(LPIPSAlexNet):
    """The same on VGG16's features, with which perceptual path length is defined. Higher means more varied."""

    network: ClassVar[str] = "vgg16"
