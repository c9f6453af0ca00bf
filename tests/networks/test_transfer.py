"""Adaptation keeps the function, and what does not fit is named on both sides before a weight is copied."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from medgan.errors import WeightsError
from medgan.networks.sources import network
from medgan.networks.stylegan2 import Discriminator, Generator
from medgan.networks.transfer import Pretrained, adapt_discriminator, adapt_generator, check, fill

SHAPE = {"img_resolution": 32, "channel_base": 512, "channel_max": 32}
OF_G = {"z_dim": 24, "w_dim": 16, "mapping_layers": 3}


def generator(seed: int = 0, **changes) -> Generator:
    torch.manual_seed(seed)
    G = Generator(**{**SHAPE, **OF_G, "img_channels": 3, **changes}).eval().requires_grad_(False)
    for name, p in G.named_parameters():
        if name.endswith("bias") or "noise_strength" in name:
            p.add_(torch.randn_like(p) * 0.3)
    return G


def discriminator(seed: int = 0, **changes) -> Discriminator:
    torch.manual_seed(seed)
    D = Discriminator(**{**SHAPE, "img_channels": 3, **changes}).eval().requires_grad_(False)
    for name, p in D.named_parameters():
        if name.endswith("bias"):
            p.add_(torch.randn_like(p) * 0.3)
    return D


def filled(target: torch.nn.Module, weights) -> torch.nn.Module:
    target.load_state_dict(weights)
    return target


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_the_grey_of_an_rgb_generator_is_the_mean_of_its_channels(architecture):
    G = generator(architecture=architecture)
    target = generator(1, img_channels=1, architecture=architecture)
    grey = filled(target, adapt_generator(G.state_dict(), target))
    z = torch.randn(4, 24)
    assert worst(grey(z, noise_mode="const"), G(z, noise_mode="const").mean(dim=1, keepdim=True)) < 1e-5


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_a_grey_image_gets_the_logit_that_it_got_as_rgb(architecture):
    D = discriminator(architecture=architecture)
    target = discriminator(1, img_channels=1, architecture=architecture)
    grey = filled(target, adapt_discriminator(D.state_dict(), target))
    x = torch.randn(4, 1, 32, 32)
    assert worst(grey(x), D(x.expand(-1, 3, -1, -1))) < 1e-5


def test_grey_to_rgb_keeps_both_functions():
    G, D = generator(img_channels=1), discriminator(img_channels=1)
    rgb_G, rgb_D = generator(1), discriminator(1)
    filled(rgb_G, adapt_generator(G.state_dict(), rgb_G))
    filled(rgb_D, adapt_discriminator(D.state_dict(), rgb_D))
    z, x = torch.randn(4, 24), torch.randn(4, 1, 32, 32)
    assert worst(rgb_G(z, noise_mode="const"), G(z, noise_mode="const").expand(-1, 3, -1, -1)) < 1e-5
    assert worst(rgb_D(x.expand(-1, 3, -1, -1)), D(x)) < 1e-5


def test_every_class_of_a_new_conditional_generator_gives_what_the_unconditional_gave():
    G, target = generator(), generator(1, c_dim=5)
    conditional = filled(target, adapt_generator(G.state_dict(), target))
    z = torch.randn(5, 24)
    expected = G(z, noise_mode="const")
    for k in range(5):
        assert worst(conditional(z, torch.eye(5)[[k] * 5], noise_mode="const"), expected) < 1e-5
    assert torch.equal(conditional.mapping.w_avg, G.mapping.w_avg)


def test_every_class_of_a_new_conditional_discriminator_gives_the_old_logit():
    D, target = discriminator(), discriminator(1, c_dim=5)
    conditional = filled(target, adapt_discriminator(D.state_dict(), target))
    x = torch.randn(8, 3, 32, 32)
    expected = D(x)
    for k in range(5):
        assert float((conditional(x, torch.eye(5)[[k] * 8]) - expected).abs().max()) < 1e-5 * max(float(expected.abs().max()), 1) * 10


def test_the_new_label_head_can_learn_to_tell_classes_apart():
    """Rows that begin equal would stay equal: the gradients of the mapped label must differ between its entries."""
    D, target = discriminator(), discriminator(1, c_dim=2)
    conditional = filled(target, adapt_discriminator(D.state_dict(), target)).train().requires_grad_(True)
    logits = conditional(torch.randn(4, 3, 32, 32), torch.eye(2)[[0, 1, 0, 1]])
    (logits[0] - logits[1]).sum().backward()
    gradient = conditional.mapping.fc7.weight.grad
    assert gradient is not None
    assert float(gradient.abs().sum()) > 0
    assert not torch.allclose(gradient[0], gradient[1])


def test_grey_and_conditional_together_and_frozen_layers():
    G, D = generator(), discriminator()
    G2, D2 = generator(1, img_channels=1, c_dim=3), discriminator(1, img_channels=1, c_dim=3, freeze_layers=4)
    ema = copy.deepcopy(G2)
    start = Pretrained("a test", "0" * 64, "", "stylegan2", network(G.state_dict()), network(D.state_dict()), network(G.state_dict()))
    fill(start, G=G2, D=D2, G_ema=ema)
    z, x, c = torch.randn(3, 24), torch.randn(3, 1, 32, 32), torch.eye(3)
    assert worst(ema(z, c, noise_mode="const"), G(z, noise_mode="const").mean(dim=1, keepdim=True)) < 1e-5
    assert worst(D2(x, c), D(x.expand(-1, 3, -1, -1))) < 1e-4
    assert "b32.fromrgb.weight" in dict(D2.named_buffers())


def test_the_configuration_of_a_state_is_in_its_shapes():
    assert network(generator(c_dim=2).state_dict()).arguments == {
        **SHAPE, **OF_G, "img_channels": 3, "c_dim": 2, "architecture": "skip", "use_noise": True, "conv_clamp": None, "w_avg_beta": 0.998
    }  # fmt: skip
    D = network(discriminator(architecture="skip", mbstd_num_channels=2).state_dict())
    assert (D.arguments["architecture"], D.arguments["mbstd_num_channels"]) == ("skip", 2)


def source(**changes) -> Pretrained:
    G = {"z_dim": 512, "c_dim": 0, "w_dim": 512, "img_resolution": 512, "img_channels": 3, "channel_base": 32768, "channel_max": 512, "mapping_layers": 8}  # fmt: skip
    made = replace(network(generator().state_dict()), arguments={**G, **changes})
    D = replace(network(discriminator().state_dict()), arguments={**G, **changes})
    return Pretrained("a test", "0" * 64, "", "stylegan2", made, D, made)


def arguments(size: int = 512, **changes) -> dict:
    run = {"z_dim": 512, "c_dim": 0, "w_dim": 512, "img_resolution": size, "img_channels": 1, "channel_base": 32768, "channel_max": 512, "mapping_layers": 8}  # fmt: skip
    return {**run, **changes}


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (arguments(256, channel_base=16384), "--pretrained is 512 px, channel base 32768; the run is 256 px, channel base 16384; fix: prepare with --size 512 and --channel-base 32768"),
        (arguments(mapping_layers=2), "--pretrained is 8 mapping layers; the run is 2 mapping layers; fix: --map-layers 8"),
        (arguments(z_dim=64, w_dim=64), "--pretrained is z and w of 512 and 512; the run is z and w of 64 and 64; fix: --latent 512"),
        (arguments(architecture="orig"), "generator architecture skip"),
    ],
)  # fmt: skip
def test_a_mismatch_names_both_sides_and_the_fix(run, said):
    with pytest.raises(WeightsError) as error:
        check(source(), family="stylegan2", G=run, D=run if "architecture" not in run else {**run, "architecture": "resnet"})
    assert said in error.value.line


def test_what_fits_passes_and_labels_must_be_the_same_or_new():
    check(source(), family="stylegan2", G=arguments(), D=arguments())
    check(source(), family="stylegan2", G=arguments(c_dim=3, img_channels=1), D=arguments(c_dim=3))
    # At 32 px a channel base of 16384 and one of 32768 are the same 512 channels.
    check(source(img_resolution=32), family="stylegan2", G=arguments(32, channel_base=16384), D=arguments(32, channel_base=16384))
    with pytest.raises(WeightsError, match="10 classes; the run is 3 classes"):
        check(source(c_dim=10), family="stylegan2", G=arguments(c_dim=3), D=arguments(c_dim=3))
    with pytest.raises(WeightsError, match="family stylegan2, the run of dcgan"):
        check(source(), family="dcgan", G=arguments(), D=arguments())
