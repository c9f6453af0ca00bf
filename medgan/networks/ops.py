"""The operations StyleGAN2 is made of, in plain PyTorch: filters, activations, convolutions with resampling, modulation.

Source: STYLEGAN2 (Karras et al. 2020, arXiv 1912.04958) section 4 and appendix B; ADA (Karras et al. 2020, arXiv 2006.06676)
appendix C. All are differentiable to any order, because R1 and path length need second derivatives.
"""

from __future__ import annotations

import functools
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

HOMOGENEOUS = ("linear", "relu", "lrelu")
"""Activations with f(g x) = g f(x) for every g > 0."""


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


FEW_CHANNELS = 4


def _depthwise(convolution: Callable[..., Tensor], x: Tensor, kernel: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """A convolution of each channel of (N, C, H, W) with the same kernel.

    A CPU computes channels side by side. With few of them it takes samples for channels too; along one axis only, rows or columns: the memory stays
    as it is. Measured for four images of 256 px and 12 taps: 1.8 times as fast along y, 2.3 times along x.
    """
    n, c, h, w = x.shape
    planes, columns = x, False
    # A recorded network must not hold the number of samples, which the folded ones would.
    if x.device.type == "cpu" and not torch.jit.is_tracing():
        if (kernel.shape[0], stride[0], padding[0]) == (1, 1, 0):
            planes = x.reshape(1, -1, 1, w)
        elif (kernel.shape[1], stride[1], padding[1]) == (1, 1, 0):
            planes, columns = x.reshape(n * c, h, 1, w).permute(0, 3, 1, 2), True
        elif c <= FEW_CHANNELS:
            planes = x.reshape(1, n * c, h, w)
    channels = int(planes.shape[1])
    y = convolution(planes, kernel.expand(channels, 1, -1, -1), stride=stride, padding=padding, groups=channels)
    if planes is x:
        return y
    y = y.permute(0, 2, 3, 1) if columns else y
    return y.reshape(n, c, -1, y.shape[3])


def _depthwise_transposed(x: Tensor, kernel: Tensor, stride: tuple[int, int], padding: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Its adjoint, to an output of `size` pixels."""
    sides = zip(map(int, x.shape[2:]), stride, padding, map(int, kernel.shape), size, strict=True)
    extra = [n - ((m - 1) * s - 2 * p + k) for m, s, p, k, n in sides]
    return _depthwise(functools.partial(F.conv_transpose2d, output_padding=extra), x, kernel, stride, padding)


class _Filter(torch.autograd.Function):
    """Depthwise correlation with one constant kernel: (N, C, H, W) -> (N, C, (H + 2 p - kh) // s + 1, (W + 2 p - kw) // s + 1).

    Its gradient is `_FilterTransposed` and the other way round, so every order of differentiation is one depthwise
    convolution. PyTorch's own double backward of a grouped convolution loops over the groups (thousands of small calls).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.stride, ctx.padding, ctx.size = stride, padding, x.shape[2:]
        return _depthwise(F.conv2d, x, kernel, stride, padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (kernel,) = ctx.saved_tensors
        return _FilterTransposed.apply(grads[0], kernel, ctx.stride, ctx.padding, ctx.size), None, None, None


class _FilterTransposed(torch.autograd.Function):
    """The adjoint of `_Filter`, to an output of `size` pixels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: tuple[int, int], padding: tuple[int, int], size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.stride, ctx.padding = stride, padding
        return _depthwise_transposed(x, kernel, stride, padding, size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (kernel,) = ctx.saved_tensors
        return _Filter.apply(grads[0], kernel, ctx.stride, ctx.padding), None, None, None, None


def _filter(x: Tensor, kernel: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """`_Filter`; while a network is recorded, which holds no function of ours, the convolution in it."""
    return _depthwise(F.conv2d, x, kernel, stride, padding) if torch.jit.is_tracing() else _Filter.apply(x, kernel, stride, padding)


def _filter_transposed(x: Tensor, kernel: Tensor, stride: tuple[int, int], padding: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """`_FilterTransposed`, likewise."""
    if torch.jit.is_tracing():
        return _depthwise_transposed(x, kernel, stride, padding, size)
    return _FilterTransposed.apply(x, kernel, stride, padding, size)


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
    f = (f * gain ** (f.ndim / 2)).to(x.dtype)
    if not flip_filter:
        f = f.flip(list(range(f.ndim)))
    if f.ndim == 2:
        return _resample(x, f, (up_y, up_x), (down_y, down_x), ((y0, y1), (x0, x1)))
    x = _resample(x, f[None, :], (1, up_x), (1, down_x), ((0, 0), (x0, x1)))
    return _resample(x, f[:, None], (up_y, 1), (down_y, 1), ((y0, y1), (0, 0)))


def _resample(
    x: Tensor, kernel: Tensor, up: tuple[int, int], down: tuple[int, int], padding: tuple[tuple[int, int], tuple[int, int]]
) -> Tensor:
    """`upfirdn2d` with a correlation kernel (kh, kw); pairs are (y, x).

    Most cases are one depthwise convolution, which pads by itself, or one transposed convolution, which never makes the zeros.
    """
    (y0, y1), (x0, x1) = padding
    if up == (1, 1) and y0 == y1 >= 0 and x0 == x1 >= 0:
        return _filter(x, kernel, down, (y0, x0))
    # Numbers, where a recording of the network would take the shapes for further inputs.
    taps, pixels = [*map(int, kernel.shape)], [*map(int, x.shape[2:])]
    crop = [k - 1 - before for k, (before, _) in zip(taps, padding, strict=True)]
    extra = [u - 1 + after - before for u, (before, after) in zip(up, padding, strict=True)]
    if down == (1, 1) and min(crop) >= 0 and all(0 <= e < u for e, u in zip(extra, up, strict=True)):
        size = [n * u + sum(sides) - k + 1 for n, u, sides, k in zip(pixels, up, padding, taps, strict=True)]
        return _filter_transposed(x, kernel.flip([0, 1]), up, (crop[0], crop[1]), (size[0], size[1]))
    if up != (1, 1):
        n, c, h, w = x.shape
        x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, up[1] - 1, 0, 0, 0, up[0] - 1)).reshape(n, c, h * up[0], w * up[1])
    return _filter(F.pad(x, (x0, x1, y0, y1)), kernel, down, (0, 0))


def _filter_size(f: Tensor) -> tuple[int, int]:
    return int(f.shape[-1]), int(f.shape[0])


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
    factor = own_gain if gain is None else gain
    if b is not None:
        b = b.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
        if act in HOMOGENEOUS and factor >= 0:
            # The gain goes through such an activation, and into the same pass as the bias; the sum is new, so it may be overwritten.
            x = activate_(torch.add(b * factor, x, alpha=factor), act)
            return x if clamp is None else x.clamp(-clamp, clamp)
        x = x + b
    x = function(x)
    if factor != 1:
        x = x * factor
    return x if clamp is None else x.clamp(-clamp, clamp)


def at_least_float(x: Tensor) -> Tensor:
    """Half precision to single; anything else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def laid_out(x: Tensor) -> Tensor:
    """Features (N, C, H, W) in the memory layout that their convolutions are fastest in; values and shape are the same.

    Channels last on a GPU (its tensor cores read nothing else), in bfloat16, and wherever no gradient is wanted. In float32 on a CPU gradients
    of weights are slower so than what the rest gains: rows stay last there (docs/decisions/0033-precision-and-layout.md).
    """
    last = x.is_cuda or x.dtype == torch.bfloat16 or not torch.is_grad_enabled()
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def activate_(x: Tensor, act: str) -> Tensor:
    """A homogeneous activation without its gain, in the memory of `x`, which nothing else may need."""
    if act == "lrelu":
        return F.leaky_relu_(x, 0.2)
    return F.relu_(x) if act == "relu" else x


def resample_conv2d(x: Tensor, w: Tensor, f: Tensor, b: Tensor | None = None, *, up: int = 1, down: int = 1) -> Tensor:
    """A convolution that keeps, doubles or halves the size of the image; padding keeps it otherwise.

    `up = 2` zero-inserts, convolves (the kernel is *flipped* against the plain case) and low-passes; `down = 2`
    low-passes and convolves with stride 2; plain is PyTorch's correlation.

    Args:
        x: (N, I, H, W).
        w: (O, I, k, k), k odd.
        f: Filter from `setup_filter`, 2-D.
        b: Bias (O,), or None; not with `up = 2`.
        up: 1 or 2.
        down: 1 or 2.
    """
    k, fw = int(w.shape[-1]), int(f.shape[-1])
    if up == 1 and down == 1:
        return F.conv2d(x, w, b, padding=k // 2)
    if up == 2:
        assert b is None
        if k == 1:
            return upsample2d(F.conv2d(x, w), f)
        x = F.conv_transpose2d(x, w.transpose(0, 1), stride=2)
        before, after = (fw + 1) // 2 - k // 2, (fw - 2) // 2 + 1 - k // 2
        return upfirdn2d(x, f, padding=(before, after, before, after), gain=4)
    if k == 1:
        return F.conv2d(downsample2d(x, f), w, b)
    before, after = k // 2 + (fw - 1) // 2, k // 2 + (fw - 2) // 2
    return F.conv2d(upfirdn2d(x, f, padding=(before, after, before, after)), w, b, stride=2)


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
        gain: Factor of the result.
    """
    x = resample_conv2d(x * s[:, :, None, None].to(x.dtype), w.to(x.dtype), f, up=up)
    if not demodulate:
        x = x if gain == 1 else x * gain
        return x if noise is None else x + (noise * gain).to(x.dtype)
    d = ((F.linear(s.square(), w.square().sum((2, 3))) + 1e-8).rsqrt() * gain)[:, :, None, None].to(x.dtype)
    return x * d if noise is None else torch.addcmul((noise * gain).to(x.dtype), x, d)


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
