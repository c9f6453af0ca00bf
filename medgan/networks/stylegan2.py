"""StyleGAN2: mapping network, skip (or residual) synthesis network, residual discriminator.

Written from the papers (Karras et al. 2020, arXiv 1912.04958 and 2006.06676) and checked against reference numbers; names
and shapes of all parameters and buffers are those of the official PyTorch code, so that weights go both ways.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medgan.networks import ops
from medgan.networks.family import Family

NoiseMode = str | Sequence[torch.Generator]
"""`random`, `const` (the stored noise), `none`, or one CPU generator per image, so that an image does not depend on its batch."""


class FullyConnectedLayer(nn.Module):
    """Linear layer with equalised learning rate (arXiv 1710.10196, section 4.1).

    Stored weights are N(0, 1) / lr_multiplier; at run time they are scaled by lr_multiplier / sqrt(in_features).
    """

    def __init__(
        self, in_features: int, out_features: int, *, activation: str = "linear", lr_multiplier: float = 1.0, bias_init: float = 0.0
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_features) -> (N, out_features)."""
        w = self.weight.to(x.dtype) * self.weight_gain
        b = self.bias.to(x.dtype) * self.bias_gain
        return ops.bias_act(torch.addmm(b[None], x, w.t()), act=self.activation)


class Conv2dLayer(nn.Module):
    """Convolution with equalised learning rate, optional resampling, bias, activation and clamp.

    A layer that is not `trainable` (Freeze-D, arXiv 2002.10964) holds its weights as buffers under the same names.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        self.activation, self.up, self.down, self.conv_clamp = activation, up, down, conv_clamp
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.act_gain = ops.ACTIVATIONS[activation][1]
        weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size)
        zeros = torch.zeros(out_channels) if bias else None
        self.weight: Tensor
        self.bias: Tensor | None
        if trainable:
            self.weight = nn.Parameter(weight)
            self.bias = None if zeros is None else nn.Parameter(zeros)
        else:
            self.register_buffer("weight", weight)
            if zeros is None:
                self.bias = None
            else:
                self.register_buffer("bias", zeros)
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", ops.setup_filter(resample_filter))

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """(N, I, H, W) -> (N, O, H up/down, W up/down); `gain` scales activation gain and clamp alike."""
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        gain = self.act_gain * gain
        if self.up > 1 or self.activation not in ops.HOMOGENEOUS:
            x = ops.resample_conv2d(x, (self.weight * self.weight_gain).to(x.dtype), self.resample_filter, up=self.up, down=self.down)
            return ops.bias_act(x, self.bias, act=self.activation, gain=gain, clamp=clamp)
        # The gain goes into the weights and the bias into the convolution: no pass over the image for either.
        w = (self.weight * (self.weight_gain * gain)).to(x.dtype)
        b = None if self.bias is None else (self.bias * gain).to(x.dtype)
        x = ops.activate_(ops.resample_conv2d(x, w, self.resample_filter, b, down=self.down), self.activation)
        return x if clamp is None else x.clamp(-clamp, clamp)


class MappingNetwork(nn.Module):
    """Latents z (and labels c) to intermediate latents w (arXiv 1812.04948, section 2).

    With `z_dim=0` it maps labels alone (the discriminator's); with `num_ws=0` it does not broadcast.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        *,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.998,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.num_layers, self.w_avg_beta = (
            z_dim,
            c_dim,
            w_dim,
            num_ws,
            num_layers,
            w_avg_beta,
        )
        embed = (w_dim if embed_features is None else embed_features) if c_dim else 0
        widths = [z_dim + embed, *[layer_features or w_dim] * (num_layers - 1), w_dim]
        if c_dim:
            self.embed = FullyConnectedLayer(c_dim, embed)
        for i in range(num_layers):
            setattr(self, f"fc{i}", FullyConnectedLayer(widths[i], widths[i + 1], activation=activation, lr_multiplier=lr_multiplier))
        self.w_avg: Tensor
        if num_ws and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Map latents to styles.

        Args:
            z: (N, z_dim), standard normal; None when z_dim is 0.
            c: (N, c_dim) labels, one-hot; None when c_dim is 0.
            truncation_psi: 1 keeps w, 0 gives the mean face of all.
            truncation_cutoff: Truncate only the first rows; None is all.

        Returns:
            (N, num_ws, w_dim), or (N, w_dim) when num_ws is 0.
        """
        parts = []
        if self.z_dim:
            assert z is not None
            parts.append(ops.normalize_2nd_moment(z.float()))
        if self.c_dim:
            assert c is not None
            parts.append(ops.normalize_2nd_moment(self.embed(c.float())))
        x = torch.cat(parts, dim=1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        if self.num_ws:
            x = x[:, None].expand(-1, self.num_ws, -1)
            if truncation_psi != 1:
                cut = self.num_ws if truncation_cutoff is None else truncation_cutoff
                x = torch.cat([self.w_avg.lerp(x[:, :cut], truncation_psi), x[:, cut:]], dim=1)
        return x

    def move_average(self, w: Tensor) -> None:
        """Move the running mean of w, which truncation draws towards, by the mean (w_dim,) of a batch."""
        assert self.w_avg_beta is not None
        self.w_avg.copy_(w.detach().lerp(self.w_avg, self.w_avg_beta))


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution with noise, bias and leaky ReLU (arXiv 1912.04958, figure 2c)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        up: int = 1,
        use_noise: bool = True,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.use_noise, self.conv_clamp = resolution, up, use_noise, conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", ops.setup_filter(resample_filter))
        self.noise_const: Tensor
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor, *, noise_mode: NoiseMode = "random", gain: float = 1.0) -> Tensor:
        """(N, I, H, W), (N, w_dim) -> (N, O, H up, W up)."""
        noise = None
        if self.use_noise and not isinstance(noise_mode, str):
            shape = (1, self.resolution, self.resolution)
            noise = torch.stack([torch.randn(shape, generator=g) for g in noise_mode]).to(x.device) * self.noise_strength
        elif self.use_noise and noise_mode == "random":
            noise = torch.randn(x.shape[0], 1, self.resolution, self.resolution, device=x.device) * self.noise_strength
        elif self.use_noise and noise_mode == "const":
            noise = self.noise_const * self.noise_strength
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        gain = math.sqrt(2) * gain
        x = ops.modulated_conv2d(x, self.weight, self.affine(w), self.resample_filter, up=self.up, noise=noise, gain=gain)
        x = ops.activate_(x.add_((self.bias * gain).to(x.dtype)[:, None, None]), "lrelu")
        return x if clamp is None else x.clamp(-clamp, clamp)


class ToRGBLayer(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, *, conv_clamp: float | None = None) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, I, H, W), (N, w_dim) -> (N, C, H, W)."""
        styles = self.affine(w) * self.weight_gain
        # The few output channels make scaling the weight cheaper than scaling x.
        weight = (self.weight[None, :, :, 0, 0] * styles[:, None]).to(x.dtype)
        n, _, h, width = x.shape
        y = torch.bmm(weight, x.reshape(n, -1, h * width)).reshape(n, -1, h, width)
        return ops.bias_act(y, self.bias, clamp=self.conv_clamp)


class SynthesisBlock(nn.Module):
    """The layers of one resolution; `in_channels` 0 is the first block with its learned constant."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        *,
        is_last: bool,
        architecture: str = "skip",
        use_noise: bool = True,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.resolution, self.architecture = in_channels, resolution, architecture
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", ops.setup_filter(resample_filter))
        layer = {"use_noise": use_noise, "resample_filter": resample_filter, "conv_clamp": conv_clamp}
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=2, **layer)  # type: ignore[arg-type]
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, **layer)  # type: ignore[arg-type]
        self.num_conv = 1 if in_channels == 0 else 2
        self.has_torgb = is_last or architecture == "skip"
        if self.has_torgb:
            self.torgb = ToRGBLayer(out_channels, img_channels, w_dim, conv_clamp=conv_clamp)
        if in_channels and architecture == "resnet":
            self.skip = Conv2dLayer(in_channels, out_channels, 1, bias=False, up=2, resample_filter=resample_filter)

    def forward(
        self, x: Tensor | None, img: Tensor | None, ws: Tensor, *, noise_mode: NoiseMode = "random"
    ) -> tuple[Tensor, Tensor | None]:
        """Features, image so far and this block's styles (N, num_conv + num_torgb, w_dim) -> features and image of this resolution."""
        if self.in_channels == 0:
            x = self.conv1(self.const[None].expand(ws.shape[0], -1, -1, -1), ws[:, 0], noise_mode=noise_mode)
        elif self.architecture == "resnet":
            y = self.skip(x, gain=math.sqrt(0.5))
            x = self.conv0(x, ws[:, 0], noise_mode=noise_mode)
            x = y + self.conv1(x, ws[:, 1], noise_mode=noise_mode, gain=math.sqrt(0.5))
        else:
            x = self.conv0(x, ws[:, 0], noise_mode=noise_mode)
            x = self.conv1(x, ws[:, 1], noise_mode=noise_mode)
        assert x is not None
        if img is not None:
            img = ops.upsample2d(img, self.resample_filter)
        if self.has_torgb:
            rgb = ops.at_least_float(self.torgb(x, ws[:, self.num_conv]))
            img = rgb if img is None else img + rgb
        return x, img


def _run(block: nn.Module, recompute: bool, *inputs: Tensor | None, **options: Any) -> tuple[Tensor, Tensor | None]:
    """A block; with `recompute` a backward pass makes its features again, with the same noise, instead of keeping them from the forward pass."""
    if not (recompute and torch.is_grad_enabled()):
        return block(*inputs, **options)
    return checkpoint(block, *inputs, use_reentrant=False, **options)


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Feature channels of the blocks at `resolution`."""
    return min(channel_base // resolution, channel_max)


class SynthesisNetwork(nn.Module):
    """Styles to image: blocks from 4 px to `img_resolution` (arXiv 1912.04958, figure 7b)."""

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: str = "skip",
        use_noise: bool = True,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.resolutions = [2**i for i in range(2, int(math.log2(img_resolution)) + 1)]
        self.num_ws = 2 * len(self.resolutions)
        self.features_dtype: torch.dtype | None = None
        before = 0
        for r in self.resolutions:
            out = channels_at(r, channel_base, channel_max)
            block = SynthesisBlock(
                before,
                out,
                w_dim,
                r,
                img_channels,
                is_last=r == img_resolution,
                architecture=architecture,
                use_noise=use_noise,
                resample_filter=resample_filter,
                conv_clamp=conv_clamp,
            )
            setattr(self, f"b{r}", block)
            before = out

    def forward(self, ws: Tensor, *, noise_mode: NoiseMode = "random", recompute: bool = False) -> Tensor:
        """(N, num_ws, w_dim) -> (N, img_channels, R, R), about [-1, 1], not clamped; `recompute`: see `_run`."""
        x = img = None
        row = 0
        for r in self.resolutions:
            block = getattr(self, f"b{r}")
            # A torgb reads the row that the next block's conv0 reads again.
            x, img = _run(block, recompute, x, img, ws[:, row : row + block.num_conv + 1], noise_mode=noise_mode)
            row += block.num_conv
            if r == 4:
                x = ops.laid_out(x if self.features_dtype is None else x.to(self.features_dtype))
        assert img is not None
        return img


class Generator(nn.Module):
    """StyleGAN2 generator.

    Args:
        z_dim: Size of the input latent.
        c_dim: Number of classes; 0 is unconditional.
        w_dim: Size of the intermediate latent.
        img_resolution: Image side in pixels, a power of two from 8.
        img_channels: Image channels.
        channel_base: Channels at resolution r are `min(channel_base / r, channel_max)`.
        channel_max: See channel_base.
        mapping_layers: Depth of the mapping network.
        architecture: skip, resnet or orig.
        use_noise: Per-pixel noise inputs.
        conv_clamp: Clamp of layer outputs (official: 256 with float16), None for none.
        w_avg_beta: Decay of the running mean of w.
    """

    def __init__(
        self,
        z_dim: int = 512,
        c_dim: int = 0,
        w_dim: int = 512,
        img_resolution: int = 256,
        img_channels: int = 1,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        mapping_layers: int = 8,
        architecture: str = "skip",
        use_noise: bool = True,
        conv_clamp: float | None = None,
        w_avg_beta: float = 0.998,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.img_resolution, self.img_channels = z_dim, c_dim, w_dim, img_resolution, img_channels
        self.synthesis = SynthesisNetwork(
            w_dim,
            img_resolution,
            img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            architecture=architecture,
            use_noise=use_noise,
            conv_clamp=conv_clamp,
        )
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, num_layers=mapping_layers, w_avg_beta=w_avg_beta)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: NoiseMode = "random",
    ) -> Tensor:
        """(N, z_dim) standard normal, labels (N, c_dim) -> images (N, C, R, R), about [-1, 1], not clamped."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, noise_mode=noise_mode)


class DiscriminatorBlock(nn.Module):
    """The layers of one resolution; `in_channels` 0 is the first block, which reads the image only."""

    def __init__(
        self,
        in_channels: int,
        tmp_channels: int,
        out_channels: int,
        img_channels: int,
        *,
        architecture: str = "resnet",
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        frozen: int = 0,
    ) -> None:
        super().__init__()
        self.in_channels, self.architecture = in_channels, architecture
        self.resample_filter: Tensor
        self.register_buffer("resample_filter", ops.setup_filter(resample_filter))
        made = 0

        def layer(
            i: int, o: int, k: int, *, bias: bool = True, activation: str = "lrelu", down: int = 1, clamp: float | None = conv_clamp
        ) -> Conv2dLayer:
            nonlocal made
            made += 1
            trainable = made > frozen
            return Conv2dLayer(
                i, o, k, bias=bias, activation=activation, down=down, resample_filter=resample_filter, conv_clamp=clamp, trainable=trainable
            )

        self.has_fromrgb = in_channels == 0 or architecture == "skip"
        if self.has_fromrgb:
            self.fromrgb = layer(img_channels, tmp_channels, 1)
        self.conv0 = layer(tmp_channels, tmp_channels, 3)
        self.conv1 = layer(tmp_channels, out_channels, 3, down=2)
        if architecture == "resnet":
            self.skip = layer(tmp_channels, out_channels, 1, bias=False, activation="linear", down=2, clamp=None)
        self.num_layers = made

    def forward(self, x: Tensor | None, img: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Features (N, I, H, W) and image of this resolution -> features of half the size, and the image if it is still needed."""
        if self.has_fromrgb:
            assert img is not None
            y = ops.laid_out(self.fromrgb(img))
            x = y if x is None else x + y
            img = ops.downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        if self.architecture == "resnet":
            y = self.skip(x, gain=math.sqrt(0.5))
            return y + self.conv1(self.conv0(x), gain=math.sqrt(0.5)), img
        return self.conv1(self.conv0(x)), img


class DiscriminatorEpilogue(nn.Module):
    """From 4x4 features to a logit (or to cmap_dim features for a conditional one)."""

    def __init__(
        self,
        in_channels: int,
        cmap_dim: int,
        img_channels: int,
        *,
        architecture: str = "resnet",
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.cmap_dim, self.architecture, self.mbstd_group_size, self.mbstd_num_channels = (
            cmap_dim,
            architecture,
            mbstd_group_size,
            mbstd_num_channels,
        )
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, 1, activation="lrelu")
        self.conv = Conv2dLayer(in_channels + mbstd_num_channels, in_channels, 3, activation="lrelu", conv_clamp=conv_clamp)
        self.fc = FullyConnectedLayer(in_channels * 16, in_channels, activation="lrelu")
        self.out = FullyConnectedLayer(in_channels, cmap_dim or 1)

    def forward(self, x: Tensor, img: Tensor | None, cmap: Tensor | None) -> Tensor:
        """(N, I, 4, 4) and mapped labels (N, cmap_dim) -> logits (N, 1)."""
        x = ops.at_least_float(x)
        if self.architecture == "skip":
            x = x + self.fromrgb(img)
        if self.mbstd_num_channels:
            x = torch.cat([x, ops.minibatch_std(x, self.mbstd_group_size, self.mbstd_num_channels)], dim=1)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if self.cmap_dim:
            assert cmap is not None
            x = (x * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)
        return x


class Discriminator(nn.Module):
    """StyleGAN2 discriminator.

    Args:
        c_dim: Number of classes; 0 is unconditional.
        img_resolution: Image side in pixels, a power of two from 8.
        img_channels: Image channels.
        channel_base: As in Generator.
        channel_max: As in Generator.
        architecture: resnet, skip or orig.
        mbstd_group_size: Group of the minibatch standard deviation, None for the whole batch.
        mbstd_num_channels: Its channels, 0 for none.
        mapping_layers: Depth of the label mapping.
        conv_clamp: As in Generator.
        freeze_layers: Number of layers, counted from the image, that are not trained (Freeze-D); `num_layers` can be, the last block
            never is.
    """

    def __init__(
        self,
        c_dim: int = 0,
        img_resolution: int = 256,
        img_channels: int = 1,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: str = "resnet",
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,
        mapping_layers: int = 8,
        conv_clamp: float | None = None,
        freeze_layers: int = 0,
    ) -> None:
        super().__init__()
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        self.features_dtype: torch.dtype | None = None
        self.resolutions = [2**i for i in range(int(math.log2(img_resolution)), 2, -1)]
        made = 0
        for r in self.resolutions:
            block = DiscriminatorBlock(
                channels_at(r, channel_base, channel_max) if r < img_resolution else 0,
                channels_at(r, channel_base, channel_max),
                channels_at(r // 2, channel_base, channel_max),
                img_channels,
                architecture=architecture,
                conv_clamp=conv_clamp,
                frozen=max(freeze_layers - made, 0),
            )
            setattr(self, f"b{r}", block)
            made += block.num_layers
        self.num_layers = made
        last = channels_at(4, channel_base, channel_max)
        cmap_dim = last if c_dim else 0
        if c_dim:
            self.mapping = MappingNetwork(0, c_dim, cmap_dim, 0, num_layers=mapping_layers, w_avg_beta=None)
        self.b4 = DiscriminatorEpilogue(
            last,
            cmap_dim,
            img_channels,
            architecture=architecture,
            mbstd_group_size=mbstd_group_size,
            mbstd_num_channels=mbstd_num_channels,
            conv_clamp=conv_clamp,
        )

    def forward(self, img: Tensor, c: Tensor | None = None, *, recompute: bool = False) -> Tensor:
        """Images (N, C, R, R) in about [-1, 1], labels (N, c_dim) -> logits (N, 1); positive means real. `recompute`: see `_run`."""
        x: Tensor | None = None
        image: Tensor | None = img if self.features_dtype is None else img.to(self.features_dtype)
        for r in self.resolutions:
            x, image = _run(getattr(self, f"b{r}"), recompute, x, image)
        assert x is not None
        return self.b4(x, image, self.mapping(None, c) if self.c_dim else None)


FAMILY = Family(
    name="stylegan2",
    generator=Generator,
    discriminator=Discriminator,
    sizes=(32, 64, 128, 256, 512, 1024),
    tiny={"channel_base": 512, "channel_max": 16},
)
