import pytest
import torch
from torch import nn

from medgan.errors import ConfigError
from medgan.networks.stylegan2 import FAMILY
from medgan.sampling.generate import numbered, to_uint8
from medgan.sampling.steps import stepped


def generator(**changes) -> nn.Module:
    torch.manual_seed(0)
    return FAMILY.generator(**{**FAMILY.tiny, **changes}).eval().requires_grad_(False)


def test_the_first_of_a_pair_is_the_image_of_its_seed():
    G = generator()
    one, _ = stepped(G, 7)(2, 5, 1e-4)
    assert (to_uint8(one).numpy() == numbered(G, 7)(2, 5)).all()


def test_pairs_do_not_depend_on_what_is_made_beside_them():
    G = generator()
    together = stepped(G, 0)(0, 6, 1e-4)
    apart = [stepped(G, 0)(start, 2, 1e-4) for start in (0, 2, 4)]
    for i in (0, 1):
        assert torch.equal(together[i], torch.cat([part[i] for part in apart]))


def test_a_step_is_a_part_of_the_way_with_the_same_noise():
    G = generator()
    here, still = stepped(G, 3)(0, 3, 0.0)
    assert torch.equal(here, still)
    _, near = stepped(G, 3)(0, 3, 1e-3)
    _, far = stepped(G, 3)(0, 3, 2e-3)
    steps = [(image - here).square().mean().sqrt() for image in (near, far)]
    assert steps[0] > 0
    assert float(steps[1] / steps[0]) == pytest.approx(2, rel=0.05)


def test_a_generator_without_w_is_refused():
    with pytest.raises(ConfigError, match="no space w"):
        stepped(nn.Identity(), 0)(0, 2, 1e-4)
