"""DiffAugment: colour, translation and cutout of everything the discriminator sees, always and of constant strength.

Source: Zhao et al. 2020, arXiv 2006.10738, section 4 (ranges of the draws). It stands where ADA stands and takes the same draws, but
has no gates: real and generated images are augmented in every phase, so there is no p to adapt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medgan import machine
from medgan.training.augment import Draws, RandomDraws

BRIGHTNESS = 0.5
"""Largest shift of all values, in units of images in [-1, 1]."""
REACH = 1 / 8
"""Largest translation, as a share of the side."""
HOLE = 1 / 2
"""Side of the square that is cut out, as a share of the image's."""


class DiffAugment:
    """The pipeline: images in, augmented images out, differentiable in the images to any order.

    Args:
        policy: Parts of it, some of `color`, `translation`, `cutout`; they run in this order, whatever the order given.
    """

    p = 0.0
    """Set by the step for ADA's sake; never read here."""

    def __init__(self, policy: Sequence[str]) -> None:
        self.policy = frozenset(policy)

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Augment (N, C, H, W) images in about [-1, 1], any C."""
        draws = draws or RandomDraws()
        if "color" in self.policy:
            images = self.recolour(images, draws)
        if "translation" in self.policy:
            images = self.translate(images, draws)
        if "cutout" in self.policy:
            images = images * self.draw_hole(images, draws)
        return images

    def recolour(self, images: Tensor, draws: Draws) -> Tensor:
        """Brightness + U(-0.5, 0.5), distance from each pixel's grey x U(0, 2), from the image's mean x U(0.5, 1.5).

        The three commute. Saturation leaves a grey image as it is, up to rounding, so it is drawn but not computed there.
        """
        n = len(images)
        brightness, saturation, contrast = (_each(draws.uniform(name, (n,)), images) for name in ("brightness", "saturation", "contrast"))
        images = images + (2 * brightness - 1) * BRIGHTNESS
        if images.shape[1] > 1:
            grey = images.mean(dim=1, keepdim=True)
            images = grey + (images - grey) * (2 * saturation)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        return mean + (images - mean) * (0.5 + contrast)

    def translate(self, images: Tensor, draws: Draws) -> Tensor:
        """Shift by whole pixels, uniform in -H/8 ... H/8 down and -W/8 ... W/8 right; 0 (mid grey) moves in."""
        shares = draws.uniform("translation", (len(images), 2))
        for dim, share in ((3, shares[:, 0]), (2, shares[:, 1])):
            side = images.shape[dim]
            most = round(side * REACH)
            shift = (share * (2 * most + 1)).floor().long().clamp(max=2 * most) - most
            source = torch.arange(side)[None, :] - shift[:, None]
            shape = (-1, 1, 1, side) if dim == 3 else (-1, 1, side, 1)
            # Wrapped indices are a permutation: gathered once each, so the backward pass adds nothing up in random order.
            index = machine.carried(source.remainder(side).reshape(shape), to=images.device)
            inside = ((source >= 0) & (source < side)).reshape(shape)
            images = images.gather(dim, index.expand(images.shape)) * machine.carried(inside, to=images)
        return images

    def draw_hole(self, images: Tensor, draws: Draws) -> Tensor:
        """Masks (N, 1, H, W): 0 in a square of half the image's side whose centre is anywhere in the image, 1 elsewhere."""
        n, _, height, width = images.shape
        centre = draws.uniform("cutout", (n, 2))
        x = (torch.arange(width) + 0.5) / width
        y = (torch.arange(height) + 0.5) / height
        beside = (x[None, None, None, :] - centre[:, 0, None, None, None]).abs() >= HOLE / 2
        above = (y[None, None, :, None] - centre[:, 1, None, None, None]).abs() >= HOLE / 2
        return machine.carried(beside | above, to=images)


def _each(values: Tensor, images: Tensor) -> Tensor:
    """One value per image, (N, 1, 1, 1), where the images are."""
    return machine.carried(values, to=images)[:, None, None, None]
