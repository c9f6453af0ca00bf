"""The operations of StyleGAN2 as their definitions say, without any rearrangement: what the fast ones are measured and tested against.

Same names and arguments as in `medgan.networks.ops` and `medgan.training.augment`; `plain_operations()` puts them in its place. The allocator, Adam and the order of the
phases are not part of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medgan.networks import ops
from medgan.training import augment

fast_resample_conv2d = ops.resample_conv2d


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    *,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Zeros in, zeros around, PyTorch's grouped convolution, every n-th pixel."""
    (up_x, up_y), (down_x, down_y) = (v if isinstance(v, Sequence) else (v, v) for v in (up, down))
    sides = [padding] * 4 if isinstance(padding, int) else list(padding)
    x0, x1, y0, y1 = sides if len(sides) == 4 else (sides[0], sides[0], sides[1], sides[1])
    n, c, h, w = x.shape
    x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, up_x - 1, 0, 0, 0, up_y - 1)).reshape(n, c, h * up_y, w * up_x)
    x = F.pad(x, (x0, x1, y0, y1))
    f = (f * gain ** (f.ndim / 2)).to(x.dtype)
    f = f if flip_filter else f.flip(list(range(f.ndim)))
    for kernel in (f,) if f.ndim == 2 else (f[None, :], f[:, None]):
        x = F.conv2d(x, kernel.expand(c, 1, -1, -1), groups=c)
    return x[:, :, ::down_y, ::down_x]


def bias_act(
    x: Tensor, b: Tensor | None = None, *, dim: int = 1, act: str = "linear", gain: float | None = None, clamp: float | None = None
) -> Tensor:
    """Bias, activation, gain, clamp, one after the other."""
    function, own_gain = ops.ACTIVATIONS[act]
    if b is not None:
        x = x + b.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    x = function(x) * (own_gain if gain is None else gain)
    return x if clamp is None else x.clamp(-clamp, clamp)


def resample_conv2d(x: Tensor, w: Tensor, f: Tensor, b: Tensor | None = None, *, up: int = 1, down: int = 1) -> Tensor:
    """The bias after the convolution."""
    x = fast_resample_conv2d(x, w, f, up=up, down=down)
    return x if b is None else x + b[:, None, None]


def modulated_conv2d(
    x: Tensor,
    w: Tensor,
    s: Tensor,
    f: Tensor,
    *,
    up: int = 1,
    demodulate: bool = True,
    noise: Tensor | None = None,
    gain: float = 1.0,
) -> Tensor:
    """A weight of its own for each sample, (N, O, I, k, k), from which its demodulation coefficients come (arXiv 1912.04958, eq. 3)."""
    weights = w[None] * s[:, None, :, None, None]
    x = ops.resample_conv2d(x * s[:, :, None, None].to(x.dtype), w.to(x.dtype), f, up=up)
    if demodulate:
        x = x * (weights.square().sum(dim=(2, 3, 4)) + 1e-8).rsqrt()[:, :, None, None].to(x.dtype)
    if noise is not None:
        x = x + noise.to(x.dtype)
    return x * gain


def activate_(x: Tensor, act: str) -> Tensor:
    """In memory of its own."""
    return F.leaky_relu(x, 0.2) if act == "lrelu" else torch.relu(x) if act == "relu" else x


def laid_out(x: Tensor) -> Tensor:
    """As it is."""
    return x


def affine_grid(G: Tensor, height: int, width: int) -> Tensor:
    """PyTorch's own, (N, height, width, 2)."""
    return F.affine_grid(G, [len(G), 1, height, width], align_corners=False)


PLACES = {ops: ("upfirdn2d", "bias_act", "resample_conv2d", "modulated_conv2d", "activate_", "laid_out"), augment: ("affine_grid",)}


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """Networks and ADA compute with the plain operations inside."""
    fast = [(module, name, getattr(module, name)) for module, names in PLACES.items() for name in names]
    try:
        for module, name, _ in fast:
            setattr(module, name, globals()[name])
        yield
    finally:
        for module, name, function in fast:
            setattr(module, name, function)
