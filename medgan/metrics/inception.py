"""Inception-v3 of 2015-12-05, the network whose features make a Fréchet distance an FID, in plain PyTorch.

Szegedy et al. 2016 (arXiv 1512.00567) with the details of Google's published graph, which differ from torchvision's:
average pooling leaves the padding out of its mean, and the last block pools with the maximum.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgan import weights as pretrained
from medgan.errors import ConfigError

SIZE = 299
RESIZE_RULES = ("tf1", "pytorch-fid")
EPSILON = 1e-3  # of the batch norm in Google's graph


class Conv(nn.Conv2d):
    """A convolution with its batch norm folded in, then ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu_()


Layer = tuple[int, int, int | tuple[int, int]]
"""Channels in, channels out, kernel (height, width)."""


def chain(*layers: Layer, last_stride: int = 1) -> nn.Sequential:
    """Convolutions one after another, named conv, conv_1, ...: zero padding keeps the size, but a strided last one has none."""
    modules = OrderedDict[str, nn.Module]()
    for i, (inputs, outputs, kernel) in enumerate(layers):
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        strided = last_stride > 1 and i == len(layers) - 1
        padding = 0 if strided else (size[0] // 2, size[1] // 2)
        name = f"conv_{i}" if i else "conv"
        modules[name] = Conv(inputs, outputs, size, stride=last_stride if strided else 1, padding=padding)
    return nn.Sequential(modules)


def single(inputs: int, outputs: int, kernel: int | tuple[int, int], *, stride: int = 1) -> nn.Module:
    """One convolution of a chain."""
    return chain((inputs, outputs, kernel), last_stride=stride)[0]


def average(x: Tensor) -> Tensor:
    """Mean over 3 x 3; at the border over those pixels that exist."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def maximum(x: Tensor) -> Tensor:
    """Maximum over 3 x 3, size kept."""
    return F.max_pool2d(x, 3, stride=1, padding=1)


class Towers(nn.Module):
    """Branches side by side, joined in the order conv, tower, tower_1, tower_2; the pooled branch (tower_2) pools first."""

    def __init__(self, conv: Layer, tower: nn.Module, tower_1: nn.Module, pooled: Layer, *, maximum_pool: bool = False) -> None:
        super().__init__()
        self.conv = single(*conv)
        self.tower = tower
        self.tower_1 = tower_1
        self.tower_2 = chain(pooled)
        self.pool: Callable[[Tensor], Tensor] = maximum if maximum_pool else average

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), self.tower(x), self.tower_1(x), self.tower_2(self.pool(x))], 1)


class Reduction(nn.Module):
    """Halves the size: strided branches beside a strided maximum."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, module in branches.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*(branch(x) for branch in self.children()), F.max_pool2d(x, 3, stride=2)], 1)


class Split(nn.Module):
    """A tower whose end forks into a flat (1 x 3) and a tall (3 x 1) convolution."""

    def __init__(self, *stem: Layer) -> None:
        super().__init__()
        for name, module in chain(*stem).named_children():
            self.add_module(name, module)
        self.mixed = nn.ModuleDict({"conv": single(384, 384, (1, 3)), "conv_1": single(384, 384, (3, 1))})

    def forward(self, x: Tensor) -> Tensor:
        for name, module in self.named_children():
            if name != "mixed":
                x = module(x)
        return torch.cat([fork(x) for fork in self.mixed.values()], 1)


def fine(inputs: int, pooled: int) -> Towers:
    """A block at 35 x 35: 1 x 1, 5 x 5 and twice 3 x 3."""
    tower = chain((inputs, 48, 1), (48, 64, 5))
    tower_1 = chain((inputs, 64, 1), (64, 96, 3), (96, 96, 3))
    return Towers((inputs, 64, 1), tower, tower_1, (inputs, pooled, 1))


def middle(width: int) -> Towers:
    """A block at 17 x 17: 7 x 7 as rows and columns."""
    row, column = (1, 7), (7, 1)
    tower = chain((768, width, 1), (width, width, row), (width, 192, column))
    tower_1 = chain((768, width, 1), (width, width, column), (width, width, row), (width, width, column), (width, 192, row))
    return Towers((768, 192, 1), tower, tower_1, (768, 192, 1))


def coarse(inputs: int, *, maximum_pool: bool) -> Towers:
    """A block at 8 x 8 with forked towers."""
    tower, tower_1 = Split((inputs, 384, 1)), Split((inputs, 448, 1), (448, 384, 3))
    return Towers((inputs, 320, 1), tower, tower_1, (inputs, 192, 1), maximum_pool=maximum_pool)


class Inception(nn.Module):
    """Inception-v3 up to its global average: (N, 3, 299, 299) in [-1, 1] -> (N, 2048).

    Modules carry the names of Google's graph. Parameters are frozen; there is no dropout and no logits layer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(3, 32, 3, stride=2)
        self.conv_1 = Conv(32, 32, 3)
        self.conv_2 = Conv(32, 64, 3, padding=1)
        self.conv_3 = Conv(64, 80, 1)
        self.conv_4 = Conv(80, 192, 3)
        self.mixed = fine(192, 32)
        self.mixed_1 = fine(256, 64)
        self.mixed_2 = fine(288, 64)
        self.mixed_3 = Reduction(conv=single(288, 384, 3, stride=2), tower=chain((288, 64, 1), (64, 96, 3), (96, 96, 3), last_stride=2))
        self.mixed_4 = middle(128)
        self.mixed_5 = middle(160)
        self.mixed_6 = middle(160)
        self.mixed_7 = middle(192)
        self.mixed_8 = Reduction(
            tower=chain((768, 192, 1), (192, 320, 3), last_stride=2),
            tower_1=chain((768, 192, 1), (192, 192, (1, 7)), (192, 192, (7, 1)), (192, 192, 3), last_stride=2),
        )
        self.mixed_9 = coarse(1280, maximum_pool=False)
        self.mixed_10 = coarse(2048, maximum_pool=True)
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 299, 299), scaled as the resize rule says, to pool features (N, 2048)."""
        x = self.conv_2(self.conv_1(self.conv(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.conv_4(self.conv_3(x))
        x = F.max_pool2d(x, 3, stride=2)
        for i in range(11):
            x = getattr(self, f"mixed_{i}" if i else "mixed")(x)
        return x.mean((2, 3))


def folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convolution weights and batch-norm statistics as one weight and one bias per convolution.

    `beta + (w*x - mean) / sqrt(var + eps)` is a convolution again; the product is formed in float64. Measured against the unfolded
    network on real X-rays: docs/decisions/0004-inception.md.
    """
    state = {}
    for name in (key.removesuffix(".weight") for key in tensors if key.endswith(".weight")):
        gain = (tensors[f"{name}.var"].double() + EPSILON).rsqrt()
        state[f"{name}.weight"] = (tensors[f"{name}.weight"].double() * gain[:, None, None, None]).float()
        state[f"{name}.bias"] = (tensors[f"{name}.beta"].double() - tensors[f"{name}.mean"].double() * gain).float()
    return state


def resize_tf1(images: Tensor, size: int = SIZE) -> Tensor:
    """Bilinear resize as TensorFlow 1 does by default: output i looks at source i * in/out; edges clamped, no antialiasing.

    The first output pixel is the first input pixel, so pictures move up and left by up to half a pixel; the published FIDs contain that.

    Args:
        images: (N, C, H, W), any real type.
        size: Height and width of the result.

    Returns:
        (N, C, size, size) float32.
    """
    for axis in (2, 3):
        length = images.shape[axis]
        position = torch.arange(size, device=images.device) * length
        low = position // size
        high = (low + 1).clamp(max=length - 1)
        shape = (-1, 1) if axis == 2 else (-1,)
        fraction = (position % size).div(size).reshape(shape)
        start = images.index_select(axis, low).float()
        images = start.lerp(images.index_select(axis, high).float(), fraction)
    return images


def prepared(images: Tensor, resize: str) -> Tensor:
    """8-bit images as the network wants them: three channels, 299 x 299, about [-1, 1].

    `tf1` resizes as TensorFlow 1 and scales (x - 128) / 128, as the official StyleGAN code does; `pytorch-fid` resizes with
    half-pixel centres and scales 2x/255 - 1, as the package of that name does. A size of 299 is left alone by both.

    Args:
        images: (N, 1 or 3, H, W) uint8; grey is repeated.
        resize: One of `RESIZE_RULES`.
    """
    if resize == "tf1":
        x = (resize_tf1(images) - 128) / 128
    else:
        x = images.float() / 255
        if x.shape[2:] != (SIZE, SIZE):
            x = F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        x = 2 * x - 1
    return x.expand(-1, 3, -1, -1)


class InceptionExtractor:
    """Pool features (N, 2048) of 8-bit images. Loading the weights happens here, so that their absence shows before any work.

    Args:
        weights: A folder to look in first.
        resize: How images get to 299 x 299, see `prepared`.
        device: Where to compute; float32 without TF32 everywhere.

    Raises:
        WeightsError: The weights are nowhere.
        ConfigError: No such resize rule.
    """

    name: ClassVar[str] = "inception-2015-12-05"
    dim: ClassVar[int] = 2048

    def __init__(self, *, weights: Path | None = None, resize: str = "tf1", device: str | torch.device = "cpu") -> None:
        if resize not in RESIZE_RULES:
            raise ConfigError(f"unknown resize rule '{resize}'", fix=f"--resize {' or '.join(RESIZE_RULES)}")
        self.resize = resize
        self.device = torch.device(device)
        self.sha256 = pretrained.known(self.name).sha256
        self.network = Inception()
        self.network.load_state_dict(folded(pretrained.read(pretrained.find(self.name, weights))))
        self.network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> Tensor:
        """Features (N, 2048) float32, on the extractor's device, of images (N, 1 or 3, H, W) uint8."""
        x = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        x = prepared(x, self.resize).contiguous(memory_format=torch.channels_last)
        # TF32 rounds products to 10 bits; a published FID was computed without.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            return self.network(x)
