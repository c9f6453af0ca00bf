"""Adaptive discriminator augmentation: the pipeline and the controller of its probability.

Source: Karras et al. 2020, arXiv 2006.06676, appendix B (figure 7, transformations) and section 3 (controller). All
parameters are drawn on the host and merged into one 3x3 and one 4x4 matrix per image, so a GPU never waits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medgan import machine
from medgan.networks import ops
from medgan.training.config import COLOR

# Low-pass filters of the symlet family: facts of wavelet theory (Daubechies 1992, table 6.3).
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
# Share of natural images' power in the four bands of the filter bank (arXiv 2006.06676, appendix B).
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
GEOM_PAD = len(SYM6) // 4


class Draws(Protocol):
    """Where random numbers come from: called with the transformation's name, so that a test can replay a record."""

    def uniform(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Values of a transformation, in [0, 1)."""

    def normal(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Values of a transformation, standard normal."""

    def gate(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Uniform in [0, 1): the transformation is applied where it is below p."""


class RandomDraws:
    """Draws from PyTorch's default CPU generator, which the loop seeds at every step."""

    def uniform(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape)

    def normal(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape)

    def gate(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape)


def filter_bank() -> Tensor:
    """Four-band filter bank built from sym2, (4, 43): band 0 is the lowest."""
    low = torch.tensor(SYM2, dtype=torch.float64)
    high = low * torch.tensor([1, -1, 1, -1], dtype=torch.float64)
    low2 = torch.from_numpy(_convolve(low, low.flip(0))) / 2
    high2 = torch.from_numpy(_convolve(high, high.flip(0))) / 2
    bank = torch.eye(4, 1, dtype=torch.float64)
    for i in range(1, 4):
        bank = torch.stack([bank, torch.zeros_like(bank)], dim=2).reshape(4, -1)[:, :-1]
        bank = torch.stack([torch.from_numpy(_convolve(row, low2)) for row in bank])
        start = (bank.shape[1] - high2.numel()) // 2
        bank[i, start : start + high2.numel()] += high2
    return bank.float()


def _convolve(a: Tensor, b: Tensor) -> np.ndarray:
    return np.convolve(a.numpy(), b.numpy())


# One small matrix per image: numpy takes half the time of torch for them, and there are up to forty operations per call.
def _matrices(n: int, size: int) -> np.ndarray:
    return np.tile(np.eye(size), (n, 1, 1))


def _translate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    m = _matrices(len(x), 3)
    m[:, 0, 2], m[:, 1, 2] = x, y
    return m


def _scale(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    m = _matrices(len(x), 3)
    m[:, 0, 0], m[:, 1, 1] = x, y
    return m


def _rotate(angle: np.ndarray) -> np.ndarray:
    m = _matrices(len(angle), 3)
    m[:, 0, 0] = m[:, 1, 1] = np.cos(angle)
    m[:, 1, 0] = np.sin(angle)
    m[:, 0, 1] = -m[:, 1, 0]
    return m


def affine_grid(G: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel of an output comes from, (N, height, width, 2): `F.affine_grid` without align_corners, in one pass instead of a matrix product.

    Args:
        G: (N, 2, 3): output coordinates in [-1, 1] to input coordinates.
        height: Of the output.
        width: Of the output.
    """
    x, y = ((torch.arange(size, dtype=G.dtype, device=G.device) * 2 + 1) / size - 1 for size in (width, height))
    rows = G[:, :, 1, None] * y + G[:, :, 2, None]
    return torch.addcmul(rows[..., None], G[:, :, 0, None, None], x).permute(0, 2, 3, 1)


class Augment:
    """The pipeline: images in, augmented images out, differentiable in the images to any order.

    Args:
        transforms: Names of the transformations, e.g. `PIPES["bgc"]`.
        p: Probability with which each transformation is applied to an image.
    """

    def __init__(self, transforms: Sequence[str], p: float = 0.0) -> None:
        self.transforms = frozenset(transforms)
        self.p = p
        self.lowpass = ops.setup_filter(SYM6)
        self.bank = filter_bank()

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Augment (N, C, H, W) images, C 1 or 3."""
        if self.p <= 0:
            # Every gate is closed; the wavelet pair is a perfect reconstruction (3e-5 in the reference).
            return images
        draws = draws or RandomDraws()
        n, channels, height, width = images.shape
        matrix = self.draw_geometry(n, height, width, draws)
        if not np.array_equal(matrix, _matrices(n, 3)):
            images = self.warp(images, matrix)
        if self.transforms & set(COLOR):
            images = self.recolour(images, self.draw_colour(n, channels, draws))
        if "imgfilter" in self.transforms:
            images = self.filter_bands(images, self.draw_bands(n, draws))
        if "noise" in self.transforms:
            sigma = draws.normal("noise", (n,)).abs() * 0.1
            sigma = torch.where(torch.from_numpy(self._open("noise", n, draws)), sigma, 0.0)
            noise = draws.normal("noise.image", tuple(images.shape)) * sigma[:, None, None, None]
            images = images + machine.carried(noise, to=images)
        if "cutout" in self.transforms:
            images = images * machine.carried(self.draw_cutout(n, height, width, draws), to=images)
        return images

    def _open(self, name: str, n: int, draws: Draws, p: float | None = None) -> np.ndarray:
        return (draws.gate(name, (n,)) < (self.p if p is None else p)).numpy()

    def draw_geometry(self, n: int, height: int, width: int, draws: Draws) -> np.ndarray:
        """(N, 3, 3) float64: output pixel (origin at the centre) to input pixel."""
        G = _matrices(n, 3)

        def apply(matrix: np.ndarray, is_open: np.ndarray) -> None:
            G[is_open] = G[is_open] @ matrix[is_open]

        def uniform(name: str, *shape: int) -> np.ndarray:
            return draws.uniform(name, (n, *shape)).double().numpy()

        def normal(name: str, *shape: int) -> np.ndarray:
            return draws.normal(name, (n, *shape)).double().numpy()

        if "xflip" in self.transforms:
            flip = np.floor(uniform("xflip") * 2)
            apply(_scale(1 - 2 * flip, np.ones(n)), self._open("xflip", n, draws))
        if "rotate90" in self.transforms:
            turns = np.floor(uniform("rotate90") * 4)
            apply(_rotate(turns * (math.pi / 2)), self._open("rotate90", n, draws))
        if "xint" in self.transforms:
            t = (uniform("xint", 2) * 2 - 1) * 0.125
            apply(_translate(-(t[:, 0] * width).round(), -(t[:, 1] * height).round()), self._open("xint", n, draws))
        if "scale" in self.transforms:
            s = np.exp2(normal("scale") * 0.2)
            apply(_scale(1 / s, 1 / s), self._open("scale", n, draws))
        # Two rotations, around the anisotropic scaling: together they open with probability p.
        p_rotate = 1 - math.sqrt(min(max(1 - self.p, 0), 1))
        if "rotate" in self.transforms:
            apply(_rotate((uniform("rotate_pre") * 2 - 1) * math.pi), self._open("rotate_pre", n, draws, p_rotate))
        if "aniso" in self.transforms:
            s = np.exp2(normal("aniso") * 0.2)
            apply(_scale(1 / s, s), self._open("aniso", n, draws))
        if "rotate" in self.transforms:
            apply(_rotate((uniform("rotate_post") * 2 - 1) * math.pi), self._open("rotate_post", n, draws, p_rotate))
        if "xfrac" in self.transforms:
            t = normal("xfrac", 2) * 0.125
            apply(_translate(-t[:, 0] * width, -t[:, 1] * height), self._open("xfrac", n, draws))
        return G

    def warp(self, images: Tensor, G: np.ndarray) -> Tensor:
        """Sample images through `G` without aliasing: pad by reflection, upsample, bilinear, downsample."""
        n, _, height, width = images.shape
        cx, cy = (width - 1) / 2, (height - 1) / 2
        corners = np.array([[-cx, -cy, 1], [cx, -cy, 1], [cx, cy, 1], [-cx, cy, 1]])
        reached = (G @ corners.T)[:, :2].transpose(1, 0, 2).reshape(2, -1)
        margin = np.concatenate([-reached, reached]).max(axis=1) + 2 * GEOM_PAD - [cx, cy, cx, cy]
        limit = [width - 1, height - 1, width - 1, height - 1]
        x0, y0, x1, y1 = (int(m) for m in np.ceil(margin.clip(0, limit)))
        images = F.pad(images, (x0, x1, y0, y1), mode="reflect")
        one = np.ones(n)
        G = _translate(one * (x0 - x1) / 2, one * (y0 - y1) / 2) @ G
        lowpass = machine.carried(self.lowpass, to=images.device)
        images = ops.upsample2d(images, lowpass)
        G = _scale(one * 2, one * 2) @ G @ _scale(one / 2, one / 2)
        G = _translate(-one / 2, -one / 2) @ G @ _translate(one / 2, one / 2)
        out_height, out_width = (height + 2 * GEOM_PAD) * 2, (width + 2 * GEOM_PAD) * 2
        G = _scale(one * 2 / images.shape[3], one * 2 / images.shape[2]) @ G @ _scale(one * out_width / 2, one * out_height / 2)
        grid = affine_grid(machine.carried(torch.from_numpy(G[:, :2]), to=images), out_height, out_width)
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return ops.downsample2d(images, lowpass, padding=-2 * GEOM_PAD, flip_filter=True)

    def draw_colour(self, n: int, channels: int, draws: Draws) -> np.ndarray:
        """(N, 4, 4) float64: RGB and one to RGB and one."""
        K = _matrices(n, 4)
        luma = np.array([1.0, 1.0, 1.0, 0.0]) / math.sqrt(3)
        along = np.outer(luma, luma)

        def apply(matrix: np.ndarray, is_open: np.ndarray) -> None:
            K[is_open] = matrix[is_open] @ K[is_open]

        def normal(name: str) -> np.ndarray:
            return draws.normal(name, (n,)).double().numpy()[:, None, None]

        def uniform(name: str) -> np.ndarray:
            return draws.uniform(name, (n,)).double().numpy()[:, None, None]

        if "brightness" in self.transforms:
            m = _matrices(n, 4)
            m[:, :3, 3:] = normal("brightness") * 0.2
            apply(m, self._open("brightness", n, draws))
        if "contrast" in self.transforms:
            m = _matrices(n, 4)
            m[:, :3, :3] *= np.exp2(normal("contrast") * 0.5)
            apply(m, self._open("contrast", n, draws))
        if "lumaflip" in self.transforms:
            flip = np.floor(uniform("lumaflip") * 2)
            apply(_matrices(n, 4) - 2 * along * flip, self._open("lumaflip", n, draws))
        if "hue" in self.transforms and channels > 1:
            angle = (uniform("hue") * 2 - 1) * math.pi
            # Rodrigues: cos I + sin [v]x + (1 - cos) v v^T.
            v = 1 / math.sqrt(3)
            cross = np.array([[0, -v, v, 0], [v, 0, -v, 0], [-v, v, 0, 0], [0, 0, 0, 0]])
            m = np.cos(angle) * _matrices(n, 4) + np.sin(angle) * cross + (1 - np.cos(angle)) * along
            m[:, 3, 3] = 1
            apply(m, self._open("hue", n, draws))
        if "saturation" in self.transforms and channels > 1:
            s = np.exp2(normal("saturation"))
            apply(along + (_matrices(n, 4) - along) * s, self._open("saturation", n, draws))
        return K

    def recolour(self, images: Tensor, colours: np.ndarray) -> Tensor:
        """Apply the colour matrices; a grey image uses the mean of their rows."""
        n, channels, height, width = images.shape
        K = torch.from_numpy(colours)
        if channels == 1:
            K = K[:, :3].mean(dim=1, keepdim=True)
            gain, offset = (machine.carried(part, to=images)[:, :, None, None] for part in (K[:, :, :3].sum(dim=2), K[:, :, 3]))
            return torch.addcmul(offset, images, gain)
        flat = images.reshape(n, channels, height * width)
        K = machine.carried(K[:, :3], to=images)
        return torch.baddbmm(K[:, :, 3:], K[:, :, :3], flat).reshape(n, channels, height, width)

    def draw_bands(self, n: int, draws: Draws) -> Tensor:
        """Gains of the four frequency bands, (N, 4)."""
        power = torch.tensor(BAND_POWER)
        gains = torch.ones(n, 4)
        for band in range(4):
            t = torch.exp2(draws.normal(f"imgfilter_band{band}", (n,)))
            t = torch.where(torch.from_numpy(self._open(f"imgfilter_band{band}", n, draws)), t, 1.0)
            each = torch.ones(n, 4)
            each[:, band] = t
            gains = gains * each / (power * each.square()).sum(dim=1, keepdim=True).sqrt()
        return gains

    def filter_bands(self, images: Tensor, gains: Tensor) -> Tensor:
        """Amplify frequency bands, each image by its own gains, all channels alike."""
        n, channels, height, width = images.shape
        taps = machine.carried(gains @ self.bank, to=images).repeat_interleave(channels, dim=0)
        pad = self.bank.shape[1] // 2
        x = F.pad(images.reshape(1, n * channels, height, width), (pad, pad, pad, pad), mode="reflect")
        x = F.conv2d(x, taps[:, None, None, :], groups=n * channels)
        x = F.conv2d(x, taps[:, None, :, None], groups=n * channels)
        return x.reshape(n, channels, height, width)

    def draw_cutout(self, n: int, height: int, width: int, draws: Draws) -> Tensor:
        """Masks (N, 1, H, W): 0 in a square of half the image's side, 1 elsewhere."""
        size = torch.where(torch.from_numpy(self._open("cutout", n, draws)), 0.5, 0.0)[:, None, None, None]
        centre = draws.uniform("cutout", (n, 2))
        x = (torch.arange(width) + 0.5) / width
        y = (torch.arange(height) + 0.5) / height
        outside_x = (x[None, None, None, :] - centre[:, 0, None, None, None]).abs() >= size / 2
        outside_y = (y[None, None, :, None] - centre[:, 1, None, None, None]).abs() >= size / 2
        return (outside_x | outside_y).float()


class Controller:
    """Moves p so that the discriminator's mean sign on real images stays at `target` (arXiv 2006.06676, eq. 1).

    Args:
        target: Wanted mean of sign(D(real)); 0 switches the adaptation off.
        kimg: Thousands of images in which p can move by one.
        upper: Bound of p, 0 for none (official: none).
    """

    def __init__(self, *, target: float, kimg: float, upper: float = 0.0) -> None:
        self.target, self.kimg, self.upper = target, kimg, upper

    def adjusted(self, p: float, sign_mean: float, images: int) -> float:
        """New p after `images` images whose real logits had the mean sign `sign_mean`."""
        if not self.target:
            return p
        step = (sign_mean > self.target) - (sign_mean < self.target)
        p = max(p + step * images / (self.kimg * 1000), 0.0)
        return min(p, self.upper) if self.upper else p
