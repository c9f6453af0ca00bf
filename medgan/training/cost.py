"""What networks cost, in closed form: parameters, arithmetic and activations by resolution. Torch-free.

Checked against the networks themselves and torch's own counter (tests/training/test_cost.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from medgan.training.config import TrainConfig

FAMILIES = ("stylegan2", "dcgan")
"""Whose cost is known here."""
TAPS = 16  # of the 4 x 4 low-pass filter [1, 3, 3, 1]
D_MAP_LAYERS = 8


@dataclass(frozen=True)
class Level:
    """One resolution of a network, per image and forward pass.

    Attributes:
        resolution: In pixels; 0 is the mapping network.
        flops: 2 per multiply-add of convolutions, matrix products and low-pass filters.
        elements: Values that layers write.
        layers: Number of layers.
    """

    resolution: int
    flops: int
    elements: int
    layers: int


@dataclass(frozen=True)
class Network:
    """A network's size and its cost by resolution.

    Attributes:
        parameters: Trained values (with nothing frozen).
        buffers: Values that are stored beside them: filters, stored noise, the mean style.
        levels: Cost by resolution.
    """

    parameters: int
    buffers: int
    levels: tuple[Level, ...]

    @property
    def values(self) -> int:
        """Parameters and buffers."""
        return self.parameters + self.buffers

    @property
    def flops(self) -> int:
        """Of one image's forward pass."""
        return sum(level.flops for level in self.levels)

    @property
    def elements(self) -> int:
        """Values that layers write in one image's forward pass."""
        return sum(level.elements for level in self.levels)


def _width(config: TrainConfig, resolution: int) -> int:
    return min(config.channel_base // resolution, config.channel_max)


def _resolutions(size: int) -> list[int]:
    return [2**i for i in range(2, size.bit_length())]


def _mapping(widths: list[int], c_dim: int, embedded: int) -> tuple[int, Level]:
    """Parameters and cost of fully connected layers of these widths, and of the embedding of labels before them."""
    parameters = sum(a * b + b for a, b in pairwise(widths))
    flops = 2 * sum(a * b for a, b in pairwise(widths))
    if c_dim:
        parameters, flops = parameters + c_dim * embedded + embedded, flops + 2 * c_dim * embedded
    return parameters, Level(0, flops, sum(widths[1:]), len(widths) - 1)


def generator(config: TrainConfig, *, size: int, channels: int, c_dim: int = 0) -> Network:
    """The generator of a run: of StyleGAN2 with skip architecture (arXiv 1912.04958, figure 7b), or of DCGAN."""
    if config.family == "dcgan":
        return _dcgan(config, size=size, channels=channels, up=True)
    w = config.latent
    parameters, mapping = _mapping([w + (w if c_dim else 0)] + [w] * config.map_layers, c_dim, w)
    buffers, levels = w, [mapping]
    for r in _resolutions(size):
        o, pixels = _width(config, r), r * r
        flops = elements = layers = 0
        buffers += TAPS
        if r == 4:
            parameters += o * pixels
        for up in [True, False] if r > 4 else [False]:
            i = _width(config, r // 2) if up else o
            # affine, weight, bias, strength of the noise; filter and stored noise
            parameters += (w * i + i) + 9 * i * o + o + 1
            buffers += TAPS + pixels
            flops += 2 * w * i + 2 * i * o + 2 * 9 * i * o * (pixels // 4 if up else pixels)
            flops += 2 * TAPS * o * pixels if up else 0
            elements += (2 if up else 1) * o * pixels
            layers += 1
        parameters += (w * o + o) + o * channels + channels
        flops += 2 * w * o + 2 * o * channels * pixels + (2 * TAPS * channels * pixels if r > 4 else 0)
        levels.append(Level(r, flops, elements + channels * pixels, layers + 1))
    return Network(parameters, buffers, tuple(levels))


def discriminator(config: TrainConfig, *, size: int, channels: int, c_dim: int = 0) -> Network:
    """The discriminator of a run: of StyleGAN2 with its architecture (arXiv 1912.04958, figure 7c by default), or of DCGAN."""
    if config.family == "dcgan":
        return _dcgan(config, size=size, channels=channels, up=False)
    architecture, last = config.d_architecture, _width(config, 4)
    parameters, buffers, levels = 0, 0, []
    if c_dim:
        parameters, mapping = _mapping([last] * (D_MAP_LAYERS + 1), c_dim, last)
        levels.append(mapping)
    for r in reversed(_resolutions(size)[1:]):
        i, o, pixels, quarter = _width(config, r), _width(config, r // 2), r * r, r * r // 4
        flops = elements = layers = 0
        buffers += TAPS
        if r == size or architecture == "skip":
            parameters += channels * i + i
            buffers += TAPS
            flops, elements, layers = 2 * channels * i * pixels, i * pixels, 1
        if architecture == "skip":
            flops, elements = flops + 2 * TAPS * channels * quarter, elements + channels * quarter
        parameters += (9 * i * i + i) + (9 * i * o + o)
        buffers += 2 * TAPS
        flops += 2 * 9 * i * i * pixels + 2 * TAPS * i * (r + 1) ** 2 + 2 * 9 * i * o * quarter
        elements += 2 * i * pixels + o * quarter
        layers += 2
        if architecture == "resnet":
            parameters += i * o
            buffers += TAPS
            flops += 2 * TAPS * i * quarter + 2 * i * o * quarter
            elements += (i + o) * quarter
            layers += 1
        levels.append(Level(r, flops, elements, layers))
    if architecture == "skip":
        parameters += channels * last + last
        buffers += TAPS
    out = last if c_dim else 1
    parameters += (9 * (last + 1) * last + last) + (16 * last * last + last) + (last * out + out)
    buffers += TAPS
    flops = 2 * 16 * 9 * (last + 1) * last + 2 * 16 * last * last + 2 * last * out
    flops += 2 * 16 * channels * last if architecture == "skip" else 0
    levels.append(Level(4, flops, 16 * last + 2 * last, 3 + (architecture == "skip")))
    return Network(parameters, buffers, tuple(levels))


def _dcgan(config: TrainConfig, *, size: int, channels: int, up: bool) -> Network:
    """DCGAN's generator (`up`) or discriminator: 4 x 4 kernels between sides that double, from 7 or 4 px to the image, and normalisation in between."""
    sides = [7 if size % 7 == 0 else 4]
    while sides[-1] < size:
        sides.append(2 * sides[-1])
    widths = [*(max(_width(config, r), 1) for r in sides[:-1]), channels]
    first = sides[0] ** 2 * widths[0] * (config.latent if up else 1)
    # The generator's first layer has no bias, the discriminator's last one has.
    parameters, buffers = first + (0 if up else 1), 0
    levels = [Level(sides[0], 2 * first, 2 * sides[0] ** 2 * widths[0] if up else 1, 1)]
    for place, (r, (wide, narrow)) in enumerate(zip(sides[1:], pairwise(widths), strict=True)):
        weights = 16 * wide * narrow
        # A generator normalises what each doubling reads, a discriminator what each halving writes, but for the first, at the image.
        normalised = wide if up or place < len(sides) - 2 else 0
        parameters += weights + (narrow if up and r == size else 0) + (wide if not up and r == size else 0) + 2 * normalised
        buffers += (2 * normalised + 1) if normalised else 0
        out = narrow * r * r if up else wide * r * r // 4
        levels.append(Level(r, 2 * weights * r * r // 4, out + normalised * r * r // 4, 1 + bool(normalised)))
    return Network(parameters, buffers, tuple(levels))


def passes(config: TrainConfig) -> tuple[float, float]:
    """Forward passes' worth of work of G and D per real image, averaged over lazy regularisation.

    A backward pass costs two forward passes, half of it where only the input's gradient is wanted; a regulariser with its
    second derivative six. Gmain is 3 g + 2 d, Dmain g + 6 d (fakes and reals), path length 6 g on half the batch, R1 6 d.
    """
    path_length = 3 / config.g_reg_interval if config.pl_weight and config.g_reg_interval else 0.0
    r1 = 6 / config.d_reg_interval if config.d_reg_interval else 0.0
    return 4 + path_length, 8 + r1
