"""What every family of networks promises, whatever it is made of."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from medgan.errors import ConfigError
from medgan.networks import NETWORKS
from medgan.networks.bundle import read_bundle, write_bundle
from medgan.sampling.generate import Drawing, numbered, sample

FAMILIES = NETWORKS.names()


def arguments_of(name: str, size: int) -> dict:
    family = NETWORKS.get(name)
    wanted = {"z_dim": 8, "w_dim": 8, "c_dim": 0, "img_resolution": size, "img_channels": 1, "mapping_layers": 2, **family.tiny}
    return {key: value for key, value in wanted.items() if key in inspect.signature(family.generator).parameters}


def pair(name: str, size: int = 0):
    family = NETWORKS.get(name)
    size = size or family.sizes[0]
    torch.manual_seed(0)
    G = family.generator(**arguments_of(name, size))
    return G, family.discriminator(img_resolution=size, img_channels=1, **family.tiny)


@pytest.mark.parametrize("name", FAMILIES)
def test_images_have_every_size_of_the_family_and_one_logit_each(name):
    for size in [size for size in NETWORKS.get(name).sizes if size <= 128]:
        G, D = pair(name, size)
        images = G(torch.randn(3, 8))
        assert images.shape == (3, 1, size, size)
        assert D(images).shape == (3, 1)
        assert (G.z_dim, G.c_dim, G.img_resolution, G.img_channels) == (8, 0, size, 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gradient_of_the_logit_reaches_z_and_every_weight(name):
    G, D = pair(name)
    z = torch.randn(4, 8, requires_grad=True)
    D(G(z)).square().sum().backward()
    assert float(z.grad.abs().min(dim=1).values.max()) > 0
    # StyleGAN2's strengths of noise begin at 0, and so does what its biases see of a constant.
    assert all(p.grad is not None for network in (G, D) for p in network.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_is_the_same_alone_and_among_others(name):
    G = pair(name)[0].eval()
    among = sample(G, range(9))
    assert (sample(G, [4]) == among[4:5]).all()
    assert (numbered(G, 2)(1, 3) == among[3:6]).all()
    assert len(np.unique(among, axis=0)) == 9


@pytest.mark.parametrize("name", FAMILIES)
def test_a_bundle_gives_back_the_generator(name, tmp_path):
    G = pair(name)[0].eval()
    write_bundle(tmp_path / "bundle", G, family=name, arguments=arguments_of(name, G.img_resolution), details={})
    again, metadata = read_bundle(tmp_path / "bundle")
    assert metadata["medgan"]["family"] == name
    assert (sample(again, [0, 1]) == sample(G, [0, 1])).all()


@pytest.mark.parametrize("name", [name for name in FAMILIES if not NETWORKS.get(name).styles])
def test_without_styles_there_is_no_truncation(name):
    with pytest.raises(ConfigError, match="no styles to truncate"):
        Drawing(psi=0.7).check(pair(name)[0])
    Drawing().check(pair(name)[0])
