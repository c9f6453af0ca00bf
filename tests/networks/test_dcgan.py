"""DCGAN against its paper: figure 1 and the numbers of section 3 and 4 of arXiv 1511.06434."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medgan.networks.dcgan import Discriminator, Generator, resolutions


@pytest.mark.parametrize(("size", "sides"), [(28, [7, 14, 28]), (32, [4, 8, 16, 32]), (64, [4, 8, 16, 32, 64])])
def test_sides_double_up_to_the_image(size, sides):
    assert resolutions(size) == sides


def test_at_64_px_with_the_papers_widths_the_feature_maps_are_those_of_figure_1():
    G = Generator(img_resolution=64, img_channels=3, channel_base=4096)
    seen = []
    for layer in G.layers:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda module, _, out: seen.append(tuple(out.shape[1:])))
    G(torch.randn(2, 100))
    assert seen == [(1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32), (3, 64, 64)]


def test_parameters_counted_by_hand():
    """28 px, widths 128 and 64. G: 100·128·49 + 2·128 + 128·64·16 + 2·64 + 64·16 + 1; D: 64·16 + 64 + 64·128·16 + 2·128 + 128·49 + 1."""
    assert sum(p.numel() for p in Generator().parameters()) == 627_200 + 256 + 131_072 + 128 + 1_024 + 1
    assert sum(p.numel() for p in Discriminator().parameters()) == 1_024 + 64 + 131_072 + 256 + 6_272 + 1


def test_batch_normalisation_is_in_all_layers_but_the_generators_last_and_the_discriminators_first_and_last():
    kinds = [[type(layer).__name__ for layer in network.layers] for network in (Generator(), Discriminator())]
    assert kinds[0] == ["ConvTranspose2d", "BatchNorm2d", "ReLU", "ConvTranspose2d", "BatchNorm2d", "ReLU", "ConvTranspose2d"]
    assert kinds[1] == ["Conv2d", "LeakyReLU", "Conv2d", "BatchNorm2d", "LeakyReLU", "Conv2d"]
    assert {layer.negative_slope for layer in Discriminator().layers if isinstance(layer, nn.LeakyReLU)} == {0.2}


def test_first_weights_are_normal_with_deviation_0_02():
    torch.manual_seed(0)
    for network in (Generator(), Discriminator()):
        for layer in network.layers:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                n = layer.weight.numel()
                # Five standard errors of a standard deviation of n normal values.
                assert abs(float(layer.weight.detach().std()) - 0.02) < 5 * 0.02 / (2 * n) ** 0.5
                assert layer.bias is None or not layer.bias.any()


def test_pixels_lie_within_the_range_of_tanh():
    G = Generator().eval()
    with torch.no_grad():
        images = G(100 * torch.randn(4, 100))
    assert float(images.abs().max()) <= 1


def test_in_eval_mode_an_image_has_nothing_of_its_batch_and_in_training_it_has():
    torch.manual_seed(0)
    G, z = Generator(), torch.randn(4, 100)
    with torch.no_grad():
        assert not torch.allclose(G(z)[:2], G(z[:2]), atol=1e-3)
        G.eval()
        assert torch.allclose(G(z)[:2], G(z[:2]), atol=1e-6)
