"""The fast operations give what the plain ones give: networks, their gradients, and the second derivatives the regularisers need."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.plain import plain_operations
from medgan.networks import ops
from medgan.networks.stylegan2 import Discriminator, Generator
from medgan.training import losses
from medgan.training.augment import Augment
from medgan.training.config import PIPES

TINY = {"img_resolution": 32, "img_channels": 2, "channel_base": 256, "channel_max": 16}


def both(run: Any) -> tuple[list[Tensor], list[Tensor]]:
    fast = run()
    with plain_operations():
        plain = run()
    return fast, plain


def assert_alike(fast: list[Tensor], plain: list[Tensor], tolerance: float = 1e-9) -> None:
    """Largest difference relative to the largest value, tensor by tensor."""
    assert len(fast) == len(plain)
    for a, b in zip(fast, plain, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-12)


def gradients(loss: Tensor, network: torch.nn.Module) -> list[Tensor]:
    parameters = [p for p in network.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [g for g in found if g is not None]


@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_synthesis_its_gradients_and_path_length(architecture: str, clamp: float | None):
    torch.manual_seed(0)
    G = Generator(16, w_dim=16, architecture=architecture, conv_clamp=clamp, mapping_layers=2, **TINY).double()
    for name, p in G.named_parameters():
        if name.endswith(("noise_strength", "bias")):
            torch.nn.init.normal_(p, std=0.1)
    ws = torch.randn(3, G.num_ws, 16, dtype=torch.float64)
    y = torch.randn(3, 2, 32, 32, dtype=torch.float64)

    def run() -> list[Tensor]:
        images = G.synthesis(ws, noise_mode="const")
        penalty, _ = losses.path_length_penalty(G, ws, torch.tensor(0.3, dtype=torch.float64), decay=0.01, noise=y, noise_mode="const")
        return [images.detach(), *gradients(images.square().mean(), G.synthesis), penalty.detach(), *gradients(penalty.sum(), G.synthesis)]

    fast, plain = both(run)
    assert len(fast) > 40
    assert_alike(fast, plain)


@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig"])
def test_discriminator_its_gradients_and_r1(architecture: str, clamp: float | None):
    torch.manual_seed(0)
    D = Discriminator(architecture=architecture, conv_clamp=clamp, **TINY).double()
    for name, p in D.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(p, std=0.1)
    images = torch.randn(4, 2, 32, 32, dtype=torch.float64)

    def run() -> list[Tensor]:
        logits = D(images)
        penalty, _ = losses.r1_penalty(D, lambda x: x, images, None)
        return [logits.detach(), *gradients(logits.sum(), D), penalty.detach(), *gradients(penalty.sum(), D)]

    fast, plain = both(run)
    assert len(fast) > 30
    assert_alike(fast, plain)


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_augmentation_its_gradient_and_second_derivative(channels: int):
    pipe = Augment(PIPES["bgc"] if channels < 6 else PIPES["bg"], p=0.9)
    pipe.lowpass = pipe.lowpass.double()
    x = torch.randn(3, channels, 24, 40, dtype=torch.float64, requires_grad=True)
    y = torch.randn_like(x, requires_grad=True)

    def run() -> list[Tensor]:
        torch.manual_seed(4)
        images = pipe(x)
        (first,) = torch.autograd.grad((images * y).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(3).sum(), y)
        return [images.detach(), first.detach(), second]

    fast, plain = both(run)
    assert not torch.equal(fast[0], x)
    assert_alike(fast, plain)


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("taps", [4, 12])
@pytest.mark.parametrize("padding", [0, (2, 1, 2, 1), (1, 2, 1, 2), (3, 3, 3, 3), (-1, 2, 0, -2)])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)])
def test_every_way_to_resample(up: int, down: int, padding: Any, taps: int, channels: int):
    torch.manual_seed(0)
    f = ops.setup_filter(torch.rand(taps)).double()
    x = torch.randn(2, channels, 17, 20, dtype=torch.float64, requires_grad=True)

    def run() -> list[Tensor]:
        y = ops.upfirdn2d(x, f, up=up, down=down, padding=padding, gain=1.5)
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(3).sum(), x)
        return [y.detach(), first.detach(), second]

    assert_alike(*both(run))


@pytest.mark.parametrize("act", list(ops.ACTIVATIONS))
@pytest.mark.parametrize(("gain", "clamp"), [(None, None), (0.5, None), (2.0, 0.4), (-1.0, None)])
def test_every_activation(act: str, gain: float | None, clamp: float | None):
    x, b = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    assert_alike(*both(lambda: [ops.bias_act(x, b, act=act, gain=gain, clamp=clamp), ops.bias_act(x, act=act, gain=gain, clamp=clamp)]))
