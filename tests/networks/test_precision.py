"""Features in bfloat16 and in other memory layouts: what stays equal, what stays near, and what is float32 all along."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from medgan.errors import ConfigError
from medgan.networks.family import compute_in
from medgan.networks.stylegan2 import Discriminator, Generator
from medgan.sampling.generate import sample
from medgan.training import losses
from tests.golden import Golden

TINY = {"img_resolution": 32, "img_channels": 2, "channel_base": 512, "channel_max": 32}
# bfloat16 has 8 bits: each rounding is off by up to 2^-9 = 0.2 %.
IMAGE, LOGIT, PENALTY = 0.03, 0.02, 0.1
"""Limits of what bfloat16 changes: of an image's and of a logit's largest value, of the mean of each penalty."""
ALIKE = 0.99
"""Least cosine between the gradients of float32 and bfloat16."""


def layout_of(module: torch.nn.Module, run: Any) -> tuple[bool, torch.dtype]:
    """Whether what `module` gives while `run` runs has its channels last, and its type."""
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda _m, _i, y: seen.append(y[0] if isinstance(y, tuple) else y))
    try:
        run()
    finally:
        handle.remove()
    return seen[0].is_contiguous(memory_format=torch.channels_last) and not seen[0].is_contiguous(), seen[0].dtype


def networks(architecture: str = "", **options: Any) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    G = Generator(16, w_dim=16, mapping_layers=2, architecture=architecture or "skip", **TINY, **options)
    D = Discriminator(architecture=architecture or "resnet", **TINY, **options)
    for name, p in (*G.named_parameters(), *D.named_parameters()):
        if name.endswith(("noise_strength", "bias")) and "affine" not in name:
            torch.nn.init.normal_(p, std=0.1)
    return G, D


@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_channels_last_gives_the_same_images_and_logits(architecture: str, clamp: float | None):
    """Without gradients channels are last, with gradients they are not: in float64 both agree to rounding."""
    G, D = networks(architecture, conv_clamp=clamp)
    G, D = G.double(), D.double()
    ws, images = torch.randn(3, G.num_ws, 16).double(), torch.randn(4, 2, 32, 32).double()
    with_gradients = G.synthesis(ws, noise_mode="const"), D(images)
    with torch.no_grad():
        without = G.synthesis(ws, noise_mode="const"), D(images)
    for a, b in zip(with_gradients, without, strict=True):
        assert (a - b).abs().max() < 1e-12 * a.abs().max()
    assert without[0].is_contiguous()


def test_the_layout_follows_what_is_computed():
    G, D = networks()
    ws, images = torch.randn(2, G.num_ws, 16), torch.randn(4, 2, 32, 32)

    def looks(no_gradients: bool) -> list[tuple[bool, torch.dtype]]:
        with torch.set_grad_enabled(not no_gradients):
            parts = [(part, lambda: G.synthesis(ws)) for part in (G.synthesis.b4, G.synthesis.b8, G.synthesis.b32)]
            return [layout_of(*part) for part in (*parts, (D.b32, lambda: D(images)), (D.b8, lambda: D(images)))]

    assert looks(False) == [(False, torch.float32)] * 5
    assert looks(True) == [(False, torch.float32)] + [(True, torch.float32)] * 4
    compute_in(G, "bf16"), compute_in(D, "bf16")
    assert looks(False) == [(False, torch.float32)] + [(True, torch.bfloat16)] * 4
    compute_in(G, "tf32"), compute_in(D, "fp32")
    assert looks(False) == [(False, torch.float32)] * 5


def gradients(loss: Tensor, network: torch.nn.Module) -> Tensor:
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    assert all(g is None or g.dtype == torch.float32 for g in found)
    return torch.cat([g.flatten() for g in found if g is not None])


@pytest.mark.parametrize("architecture", ["", "skip", "orig"])
def test_bfloat16_stays_near_float32(architecture: str):
    """Images, logits, both penalties, and the gradients of all four losses."""
    G, D = networks(architecture)
    z, images, y = torch.randn(4, 16), torch.randn(4, 2, 32, 32), torch.randn(4, 2, 32, 32)

    def run(precision: str) -> tuple[list[Tensor], list[Tensor]]:
        compute_in(G, precision), compute_in(D, precision)
        fake, logits = G(z, noise_mode="const"), D(images)
        r1, _ = losses.r1_penalty(D, lambda x: x, images, None)
        pl, _ = losses.path_length_penalty(G, G.mapping(z), torch.tensor(0.3), decay=0.01, noise=y, noise_mode="const")
        values = [fake, logits, r1, pl]
        assert all(value.dtype == torch.float32 for value in values)
        slopes = [
            gradients(losses.generator_loss(D(fake)).mean(), G),
            gradients(losses.discriminator_real_loss(logits).mean(), D),
            gradients(r1.mean(), D),
            gradients(pl.mean(), G),
        ]
        return [value.detach() for value in values], slopes

    exact, exact_slopes = run("fp32")
    near, near_slopes = run("bf16")
    apart = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(near[:2], exact[:2], strict=True)]
    penalties = [float((a.mean() / b.mean() - 1).abs()) for a, b in zip(near[2:], exact[2:], strict=True)]
    assert 0 < apart[0] < IMAGE
    assert 0 < apart[1] < LOGIT
    assert 0 < max(penalties) < PENALTY
    assert min(float(torch.cosine_similarity(a, b, dim=0)) for a, b in zip(near_slopes, exact_slopes, strict=True)) > ALIKE


def test_bfloat16_stays_near_the_reference(golden):
    ref = Golden(golden, "g32_gray")
    G, D = (compute_in(network, "bf16") for network in ref.networks())
    with torch.no_grad():
        images = G(ref["in/z"], ref["in/c"], noise_mode="const")
        logits = D(ref["syn/img_const"], ref["in/c"])
    expected = ref["syn/img_const"]
    assert (images - expected).abs().max() < IMAGE * expected.abs().max()
    assert logits.dtype == torch.float32


def test_same_seed_same_pixels_in_bfloat16_too():
    G = compute_in(networks()[0].eval(), "bf16")
    together = sample(G, range(6))
    assert (sample(G, [4])[0] == together[4]).all()
    exact = sample(compute_in(G, "fp32"), range(6)).astype(int)
    assert 0 < abs(exact - together).max() <= 8
    assert abs(exact - together).mean() < 1


def test_a_network_that_cannot_is_refused():
    with pytest.raises(ConfigError, match="bfloat16"):
        compute_in(torch.nn.Linear(2, 2), "bf16")
    compute_in(torch.nn.Linear(2, 2), "tf32")
