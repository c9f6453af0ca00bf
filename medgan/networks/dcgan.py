"""DCGAN: strided and fractionally strided convolutions with batch normalisation.

Source: Radford, Metz and Chintala 2015, arXiv 1511.06434, section 3 and figure 1. Their images have 64 px; 28 px grow from 7 x 7 instead of 4 x 4.
The kernels are 4 x 4 where theirs are 5 x 5: with a stride of 2 every pixel is then made of equally many products (docs/decisions/0034-dcgan.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from medgan.networks.family import Family

DEVIATION = 0.02
"""Of the first weights, normal around 0 (section 4)."""
SLOPE = 0.2
"""Of the leaky ReLU of the discriminator (section 4)."""


def resolutions(size: int) -> list[int]:
    """Sides of the feature maps from the first ones to the image: 28 -> 7, 14, 28; 64 -> 4, 8, 16, 32, 64."""
    found = [7 if size % 7 == 0 else 4]
    while found[-1] < size:
        found.append(2 * found[-1])
    return found


def _channels(size: int, img_channels: int, channel_base: int, channel_max: int) -> list[int]:
    return [*(max(min(channel_base // r, channel_max), 1) for r in resolutions(size)[:-1]), img_channels]


def _draw(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            # As a plain draw, which also the meta device makes at once.
            layer.weight = nn.Parameter(DEVIATION * torch.randn(layer.weight.shape))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Generator(nn.Module):
    """DCGAN generator: z is projected to the first feature maps, then each layer doubles the side. In eval mode no image depends on its batch.

    Args:
        z_dim: Size of the latent.
        img_resolution: Image side in pixels: 28, 32 or 64.
        img_channels: Image channels.
        channel_base: Channels at resolution r are `min(channel_base / r, channel_max)`.
        channel_max: See channel_base.
    """

    c_dim = 0

    def __init__(
        self, z_dim: int = 100, img_resolution: int = 28, img_channels: int = 1, *, channel_base: int = 896, channel_max: int = 1024
    ) -> None:
        super().__init__()
        self.z_dim, self.img_resolution, self.img_channels = z_dim, img_resolution, img_channels
        widths = _channels(img_resolution, img_channels, channel_base, channel_max)

        def layers() -> Iterator[nn.Module]:
            yield nn.ConvTranspose2d(z_dim, widths[0], resolutions(img_resolution)[0], bias=False)
            for left, (wide, narrow) in zip(range(len(widths) - 2, -1, -1), pairwise(widths), strict=True):
                # Batch normalisation has its own shift: no bias before it.
                yield nn.BatchNorm2d(wide)
                yield nn.ReLU(inplace=True)
                yield nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=left == 0)

        self.layers = nn.Sequential(*layers())
        _draw(self)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: object = "random",
    ) -> Tensor:
        """(N, z_dim) standard normal -> images (N, C, R, R) in [-1, 1]; there are no classes, styles or noise, and their arguments say nothing."""
        images: Tensor = self.layers(z[:, :, None, None])
        return images.tanh()


class Discriminator(nn.Module):
    """DCGAN discriminator, the generator backwards; batch normalisation in all layers but the first and the last.

    Args:
        img_resolution: As in Generator.
        img_channels: As in Generator.
        channel_base: As in Generator.
        channel_max: As in Generator.
    """

    c_dim = 0
    num_layers = 0
    """Layers that Freeze-D knows: their statistics over the batch would go on changing."""

    def __init__(self, img_resolution: int = 28, img_channels: int = 1, *, channel_base: int = 896, channel_max: int = 1024) -> None:
        super().__init__()
        self.img_resolution, self.img_channels = img_resolution, img_channels
        widths = _channels(img_resolution, img_channels, channel_base, channel_max)[::-1]

        def layers() -> Iterator[nn.Module]:
            for number, (narrow, wide) in enumerate(pairwise(widths)):
                yield nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=number == 0)
                if number:
                    yield nn.BatchNorm2d(wide)
                yield nn.LeakyReLU(SLOPE, inplace=True)
            yield nn.Conv2d(widths[-1], 1, resolutions(img_resolution)[0])

        self.layers = nn.Sequential(*layers())
        _draw(self)

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        """Images (N, C, R, R) in about [-1, 1] -> logits (N, 1); positive means real."""
        return torch.flatten(self.layers(img), 1)


FAMILY = Family(
    name="dcgan",
    generator=Generator,
    discriminator=Discriminator,
    sizes=(28, 32, 64),
    tiny={"channel_base": 112, "channel_max": 16},
    styles=False,
    batch_norm=True,
)
