"""The operations StyleGAN2 is made of, in plain PyTorch: filters, activations, convolutions with resampling, modulation.

Source: STYLEGAN2 (Karras et al. 2020, arXiv 1912.04958) section 4 and appendix B; ADA (Karras et al. 2020, arXiv 2006.06676)
appendix C. All are differentiable to any order, because R1 and path length need second derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Activation and the gain that keeps its output's variance near one (arXiv 1912.04958, appendix B).
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "linear": (lambda x: x, 1.0),
    "relu": (F.relu, math.sqrt(2)),
    "lrelu": (lambda x: F.leaky_relu(x, 0.2), math.sqrt(2)),
    "tanh": (torch.tanh, 1.0),
    "sigmoid": (torch.sigmoid, 1.0),
    "elu": (F.elu, 1.0),
    "selu": (F.selu, 1.0),
    "softplus": (F.softplus, 1.0),
    "swish": (lambda x: torch.sigmoid(x) * x, math.sqrt(2)),
}


def setup_filter(taps: Sequence[float] | Tensor | None, *, normalize: bool = True, flip: bool = False, gain: float = 1.0) -> Tensor:
    """A low-pass filter ready for `upfirdn2d`.

    Args:
        taps: 1-D or 2-D taps; None is the identity. Fewer than 8 taps in one dimension become their outer product,
            longer filters stay 1-D and are applied separably.
        normalize: Divide by the sum, so that a constant image keeps its value.
        flip: Reverse the taps.
        gain: Gain of the two-dimensional filter.

    Returns:
        float32 of shape (k, k) or (k,).
    """
    f = torch.as_tensor([1.0] if taps is None else taps, dtype=torch.float32)
    if f.ndim == 0:
        f = f[None]
    if f.ndim == 1 and f.numel() < 8:
        f = f.outer(f)
    if normalize:
        f = f / f.sum()
    if flip:
        f = f.flip(list(range(f.ndim)))
    return f * (gain ** (f.ndim / 2))


class _Filter(torch.autograd.Function):
    """Depthwise correlation with one constant kernel: (N, C, H, W) -> (N, C, (H - kh) // s + 1, (W - kw) // s + 1).

    Its gradient is `_FilterTransposed` and the other way round, so every order of differentiation is one depthwise
    convolution. PyTorch's own double backward of a grouped convolution loops over the groups (thousands of small calls).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.stride, ctx.size = stride, x.shape[2:]
        return F.conv2d(x, kernel.expand(x.shape[1], 1, -1, -1), stride=stride, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (kernel,) = ctx.saved_tensors
        return _FilterTransposed.apply(grads[0], kernel, ctx.stride, ctx.size), None, None


class _FilterTransposed(torch.autograd.Function):
    """The adjoint of `_Filter`, to an output of `size` pixels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: tuple[int, int], size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.stride = stride
        extra = [n - (m - 1) * s - k for n, m, s, k in zip(size, x.shape[2:], stride, kernel.shape, strict=True)]
        return F.conv_transpose2d(x, kernel.expand(x.shape[1], 1, -1, -1), stride=stride, output_padding=extra, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (kernel,) = ctx.saved_tensors
        return _Filter.apply(grads[0], kernel, ctx.stride), None, None, None


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    x, y = (value, value) if isinstance(value, int) else value
    return x, y


def _four(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    if isinstance(padding, int):
        return padding, padding, padding, padding
    values = list(padding)
    if len(values) == 2:
        values = [values[0], values[0], values[1], values[1]]
    x0, x1, y0, y1 = values
    return x0, x1, y0, y1


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
    """Insert zeros, pad, filter, keep every n-th pixel; each channel alone.

    Args:
        x: (N, C, H, W).
        f: From `setup_filter`; a 1-D filter is applied along x and y.
        up: Factor, or (x, y): `up - 1` zeros are put after each pixel.
        down: Factor, or (x, y): pixels 0, down, 2 down, ... are kept.
        padding: Zeros after upsampling as (x0, x1, y0, y1); negative crops.
        flip_filter: False is a true convolution, True a correlation.
        gain: Factor of the result.
    """
    (up_x, up_y), (down_x, down_y) = _pair(up), _pair(down)
    x0, x1, y0, y1 = _four(padding)
    n, c, h, w = x.shape
    if up_x > 1 or up_y > 1:
        x = x.reshape(n, c, h, 1, w, 1)
        x = F.pad(x, (0, up_x - 1, 0, 0, 0, up_y - 1)).reshape(n, c, h * up_y, w * up_x)
    x = F.pad(x, (x0, x1, y0, y1))
    f = (f * gain ** (f.ndim / 2)).to(x.dtype)
    if not flip_filter:
        f = f.flip(list(range(f.ndim)))
    if f.ndim == 2:
        return _Filter.apply(x, f, (down_y, down_x))
    x = _Filter.apply(x, f[None, :], (1, down_x))
    return _Filter.apply(x, f[:, None], (down_y, 1))


def _filter_size(f: Tensor) -> tuple[int, int]:
    return f.shape[-1], f.shape[0]


def filter2d(x: Tensor, f: Tensor, *, gain: float = 1.0) -> Tensor:
    """Low-pass an image, same size."""
    fw, fh = _filter_size(f)
    return upfirdn2d(x, f, padding=(fw // 2, (fw - 1) // 2, fh // 2, (fh - 1) // 2), gain=gain)


def upsample2d(x: Tensor, f: Tensor, up: int = 2) -> Tensor:
    """(N, C, H, W) -> (N, C, up H, up W); a constant keeps its value away from the border."""
    fw, fh = _filter_size(f)
    padding = ((fw + up - 1) // 2, (fw - up) // 2, (fh + up - 1) // 2, (fh - up) // 2)
    return upfirdn2d(x, f, up=up, padding=padding, gain=up * up)


def downsample2d(x: Tensor, f: Tensor, down: int = 2, *, padding: int = 0, flip_filter: bool = False) -> Tensor:
    """(N, C, H, W) -> (N, C, H / down, W / down); `padding` adds to (or, negative, takes from) each side before."""
    fw, fh = _filter_size(f)
    p = padding
    sides = (p + (fw - down + 1) // 2, p + (fw - down) // 2, p + (fh - down + 1) // 2, p + (fh - down) // 2)
    return upfirdn2d(x, f, down=down, padding=sides, flip_filter=flip_filter)


def bias_act(
    x: Tensor, b: Tensor | None = None, *, dim: int = 1, act: str = "linear", gain: float | None = None, clamp: float | None = None
) -> Tensor:
    """Bias, activation, gain, clamp, in this order.

    Args:
        x: Any shape.
        b: (x.shape[dim],) or None.
        dim: The bias' dimension.
        act: Name in ACTIVATIONS.
        gain: Overrides the activation's own gain.
        clamp: Limit of the absolute value after the gain, or None.
    """
    function, own_gain = ACTIVATIONS[act]
    if b is not None:
        x = x + b.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    x = function(x)
    factor = own_gain if gain is None else gain
    if factor != 1:
        x = x * factor
    return x if clamp is None else x.clamp(-clamp, clamp)


def resample_conv2d(x: Tensor, w: Tensor, f: Tensor, *, up: int = 1, down: int = 1) -> Tensor:
    """A convolution that keeps, doubles or halves the size of the image; padding keeps it otherwise.

    `up = 2` zero-inserts, convolves (the kernel is *flipped* against the plain case) and low-passes; `down = 2`
    low-passes and convolves with stride 2; plain is PyTorch's correlation.

    Args:
        x: (N, I, H, W).
        w: (O, I, k, k), k odd.
        f: Filter from `setup_filter`, 2-D.
        up: 1 or 2.
        down: 1 or 2.
    """
    k = w.shape[-1]
    fw = f.shape[-1]
    if up == 1 and down == 1:
        return F.conv2d(x, w, padding=k // 2)
    if up == 2 and k == 1:
        return upsample2d(F.conv2d(x, w), f)
    if up == 2:
        x = F.conv_transpose2d(x, w.transpose(0, 1), stride=2)
        before, after = (fw + 1) // 2 - k // 2, (fw - 2) // 2 + 1 - k // 2
        return upfirdn2d(x, f, padding=(before, after, before, after), gain=4)
    if k == 1:
        return F.conv2d(downsample2d(x, f), w)
    before, after = k // 2 + (fw - 1) // 2, k // 2 + (fw - 2) // 2
    return F.conv2d(upfirdn2d(x, f, padding=(before, after, before, after)), w, stride=2)


def modulated_conv2d(
    x: Tensor, w: Tensor, s: Tensor, f: Tensor, *, up: int = 1, demodulate: bool = True, noise: Tensor | None = None
) -> Tensor:
    """Convolution whose input channels are scaled per sample (arXiv 1912.04958, eq. 1 and 3).

    The inputs are scaled and the outputs demodulated, which equals scaling the weights per sample; the demodulation
    coefficients are one matrix product instead of an (N, O, I, k, k) tensor.

    Args:
        x: (N, I, H, W).
        w: (O, I, k, k), without equalised-learning-rate gain.
        s: Styles (N, I).
        f: Filter of the resampling.
        up: 1 or 2.
        demodulate: Scale each output channel to unit expected variance.
        noise: Added after demodulation; broadcast to (N, 1, H, W).
    """
    x = resample_conv2d(x * s[:, :, None, None].to(x.dtype), w.to(x.dtype), f, up=up)
    if demodulate:
        d = (F.linear(s.square(), w.square().sum((2, 3))) + 1e-8).rsqrt()
        x = x * d[:, :, None, None].to(x.dtype)
    return x if noise is None else x + noise.to(x.dtype)


def normalize_2nd_moment(x: Tensor, dim: int = 1) -> Tensor:
    """Scale to unit mean square along `dim`."""
    return x * (x.square().mean(dim=dim, keepdim=True) + 1e-8).rsqrt()


def minibatch_std(x: Tensor, group_size: int | None = 4, num_channels: int = 1) -> Tensor:
    """The mean standard deviation over groups of the batch, as extra channels (Karras et al. 2018, arXiv 1710.10196, section 3).

    Args:
        x: (N, C, H, W). The samples of group j are j, j + N/G, j + 2 N/G, ...
        group_size: G, at most N (N must divide by it); None is the whole batch.
        num_channels: F, number of channels made; C must divide by it.

    Returns:
        (N, F, H, W): the new channels only.
    """
    n, c, h, w = x.shape
    g = n if group_size is None else min(group_size, n)
    y = x.reshape(g, -1, num_channels, c // num_channels, h, w)
    y = y - y.mean(dim=0)
    y = (y.square().mean(dim=0) + 1e-8).sqrt().mean(dim=(2, 3, 4))
    return y.reshape(-1, num_channels, 1, 1).repeat(g, 1, h, w)
