"""The four losses of a StyleGAN2 step: adversarial for G and D, path length for G, R1 for D.

Source: Karras et al. 2020, arXiv 1912.04958 (sections 3.2 and 4, appendix B); R1: Mescheder et al. 2018, arXiv 1801.04406.
Each function gives the values to average; the loop weights them, runs backward and steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgan import machine

Images = Callable[[Tensor], Tensor]


def mixed_styles(G: nn.Module, z: Tensor, c: Tensor | None, *, probability: float) -> Tensor:
    """Styles (N, num_ws, w_dim), with style mixing (arXiv 1812.04948, section 3.1): one crossover point for the whole batch.

    Args:
        G: Generator with `mapping`.
        z: (N, z_dim).
        c: (N, c_dim) or None.
        probability: Of mixing at all; 0 draws nothing.
    """
    ws = G.mapping(z, c)  # type: ignore[operator]
    if probability > 0:
        cutoff = int(torch.randint(1, ws.shape[1], []))
        mixes = float(torch.rand([])) < probability
        other = machine.carried(torch.randn(z.shape), to=z)
        if mixes:
            ws = torch.cat([ws[:, :cutoff], G.mapping(other, c)[:, cutoff:]], dim=1)  # type: ignore[operator]
    return ws


def generator_loss(logits: Tensor) -> Tensor:
    """Non-saturating loss of G from the logits (N, 1) of its images: softplus(-D(G(z)))."""
    return F.softplus(-logits)


def discriminator_fake_loss(logits: Tensor) -> Tensor:
    """Loss of D on generated images (N, 1)."""
    return F.softplus(logits)


def discriminator_real_loss(logits: Tensor) -> Tensor:
    """Loss of D on real images (N, 1)."""
    return F.softplus(-logits)


def r1_penalty(D: nn.Module, augment: Images, real: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
    """Squared gradient norm of D at real images, through the augmentation to the image as stored.

    Args:
        D: Discriminator.
        augment: Applied to the images before D.
        real: (N, C, H, W) in [-1, 1].
        c: Labels or None.

    Returns:
        Penalty (N,), and the logits (N, 1) met on the way, detached.
    """
    real = real.detach().requires_grad_(True)
    logits = D(augment(real), c)
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)), logits.detach()


def path_length_penalty(
    G: nn.Module, ws: Tensor, pl_mean: Tensor, *, decay: float, noise: Tensor | None = None, noise_mode: str = "random"
) -> tuple[Tensor, Tensor]:
    """How far the length of the image's response to a step in w is from its running mean (arXiv 1912.04958, eq. 4).

    Args:
        G: Generator with `synthesis`.
        ws: Styles (N, num_ws, w_dim).
        pl_mean: Running mean, shape ().
        decay: Of the running mean.
        noise: Standard normal (N, C, H, W); drawn when None.
        noise_mode: Of the synthesis.

    Returns:
        Penalty (N,), and the new running mean, detached. The penalty's gradient flows through the new mean too.
    """
    if not ws.requires_grad:
        ws = ws.detach().requires_grad_(True)
    images = G.synthesis(ws, noise_mode=noise_mode)  # type: ignore[operator]
    y = (machine.carried(torch.randn(images.shape), to=images) if noise is None else noise) / math.sqrt(images.shape[2] * images.shape[3])
    (jacobian,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    lengths = jacobian.square().sum(dim=2).mean(dim=1).sqrt()
    new_mean = pl_mean.lerp(lengths.mean(), decay)
    return (lengths - new_mean).square(), new_mean.detach()
