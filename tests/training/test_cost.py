"""The closed forms against the networks, torch's counter and the published tables."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from medgan.training import cost, state
from medgan.training.config import TrainConfig, preset

CASES = {
    "demo": (preset("demo", size=64), 64, 1, 0),
    "quick": (preset("quick", size=256), 256, 1, 0),
    "paper": (preset("paper-2210.03786", size=512), 512, 1, 0),
    "colour": (preset("auto", size=1024), 1024, 3, 0),
    "classes": (TrainConfig(channel_base=2048, latent=96, map_layers=3), 32, 3, 5),
    "skip": (TrainConfig(channel_base=2048, d_architecture="skip"), 64, 3, 0),
    "dcgan": (preset("paper-2308.02505", size=28), 28, 1, 0),
    "dcgan 64": (replace(preset("paper-2308.02505", size=64), channel_base=4096), 64, 3, 0),
    "cifar": (preset("cifar", size=32), 32, 3, 0),
}


def networks(config, size, channels, c_dim):
    with torch.device("meta"):
        return state.networks(config, size=size, channels=channels, c_dim=c_dim)


@pytest.mark.parametrize("name", CASES)
def test_parameters_and_buffers_are_those_of_the_networks(name):
    config, size, channels, c_dim = CASES[name]
    for formula, network in zip((cost.generator, cost.discriminator), networks(config, size, channels, c_dim), strict=True):
        counted = formula(config, size=size, channels=channels, c_dim=c_dim)
        assert counted.parameters == sum(p.numel() for p in network.parameters())
        assert counted.values == sum(tensor.numel() for tensor in network.state_dict().values())


@pytest.mark.parametrize("name", CASES)
def test_flops_are_those_of_torchs_counter(name):
    config, size, channels, c_dim = CASES[name]
    G, D = networks(config, size, channels, c_dim)
    c = torch.zeros(1, c_dim, device="meta") if c_dim else None
    for network, formula, inputs in (
        (G, cost.generator, torch.zeros(1, config.latent, device="meta")),
        (D, cost.discriminator, torch.zeros(1, channels, size, size, device="meta")),
    ):
        counter = FlopCounterMode(display=False)
        network.requires_grad_(False)
        with counter:
            network(inputs, c)
        # How a filter is computed is an implementation's choice, and filters are 2 % of the whole in wide networks.
        assert formula(config, size=size, channels=channels, c_dim=c_dim).flops == pytest.approx(counter.get_total_flops(), rel=0.02)


# STYLEGAN2 official graph, RGB: G, D forward and the amortised step in GFLOP (counted by others on the official code).
OFFICIAL = [
    (64, 16384, 15.3, 15.8, 205),
    (256, 8192, 9.4, 9.8, 126),
    (256, 16384, 30.1, 31.3, 403),
    (256, 32768, 90.8, 94.0, 1216),
    (512, 32768, 120.4, 125.2, 1615),
    (1024, 32768, 150.8, 157.5, 2024),
]


@pytest.mark.parametrize(("size", "base", "g", "d", "step"), OFFICIAL)
def test_the_official_graph_costs_what_was_counted_on_it(size, base, g, d, step):
    config = TrainConfig(channel_base=base)
    G, D = (formula(config, size=size, channels=3) for formula in (cost.generator, cost.discriminator))
    assert G.flops / 1e9 == pytest.approx(g, rel=0.02)
    assert D.flops / 1e9 == pytest.approx(d, rel=0.02)
    in_G, in_D = cost.passes(config)
    assert (in_G * G.flops + in_D * D.flops) / 1e9 == pytest.approx(step, rel=0.02)


def test_passes_by_hand():
    assert cost.passes(TrainConfig()) == (4.75, 8.375)
    assert cost.passes(replace(TrainConfig(), pl_weight=0.0, d_reg_interval=0)) == (4, 8)
