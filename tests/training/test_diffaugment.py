"""DiffAugment: each part at draws worked out by hand, gradients of both orders, and its place in a training."""

from __future__ import annotations

import json

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from medgan import runs
from medgan.config import to_json
from medgan.training import losses
from medgan.training.config import DIFFAUGMENT
from medgan.training.diffaugment import DiffAugment
from medgan.training.loop import train
from tests.toy import discs, tiny


class Fixed:
    """The given uniform draws by name, 0.5 (the middle: no change, no shift, a hole in the centre) for any other."""

    def __init__(self, **values) -> None:
        self.values = values

    def uniform(self, name, shape):
        value = torch.as_tensor(self.values.get(name, 0.5), dtype=torch.float32)
        return value.expand(shape) if value.ndim < len(shape) else value

    normal = gate = None


def _pixels(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, 1, len(values))


def test_brightness():
    """0.75 of the way from -0.5 to 0.5 is +0.25."""
    out = DiffAugment(["color"])(_pixels(-1.0, 0.0, 0.5), Fixed(brightness=0.75))
    assert torch.allclose(out, _pixels(-0.75, 0.25, 0.75))


def test_contrast():
    """The mean 0.25 stays; a draw of 0.9 stretches what surrounds it by 1.4."""
    out = DiffAugment(["color"])(_pixels(-0.75, 0.25, 1.25), Fixed(contrast=0.9))
    assert torch.allclose(out, _pixels(-1.15, 0.25, 1.65))


def test_saturation():
    """One pixel (0.9, 0.3, 0.0) of grey 0.4; a draw of 0.75 moves its channels 1.5 times as far from it."""
    x = torch.tensor([0.9, 0.3, 0.0]).reshape(1, 3, 1, 1)
    out = DiffAugment(["color"])(x, Fixed(saturation=0.75))
    assert torch.allclose(out.flatten(), torch.tensor([1.15, 0.25, -0.2]))
    grey = torch.rand(2, 1, 4, 4)
    assert torch.allclose(DiffAugment(["color"])(grey, Fixed(saturation=1.0)), grey)


def test_the_three_colour_changes_commute():
    """Together they are the affine map that each gives alone, composed in any order: here by hand, contrast first."""
    x = torch.randn(2, 3, 4, 4)
    b, s, c = 0.8, 0.1, 0.3
    stretched = x.mean(dim=(1, 2, 3), keepdim=True) + (x - x.mean(dim=(1, 2, 3), keepdim=True)) * (0.5 + c)
    grey = stretched.mean(dim=1, keepdim=True)
    expected = grey + (stretched - grey) * 2 * s + (2 * b - 1) * 0.5
    assert torch.allclose(DiffAugment(["color"])(x, Fixed(brightness=b, saturation=s, contrast=c)), expected, atol=1e-6)


def test_translation():
    """8 px reach 1 px: draws (x, y) of 0.99 and 0.0 move one to the right and one up; zeros come in."""
    x = torch.arange(1.0, 65.0).reshape(1, 1, 8, 8)
    out = DiffAugment(["translation"])(x, Fixed(translation=torch.tensor([[0.99, 0.0]])))
    expected = torch.zeros(8, 8)
    expected[:7, 1:] = x[0, 0, 1:, :7]
    assert torch.equal(out[0, 0], expected)


@pytest.mark.parametrize(("draw", "shift"), [(0.0, -4), (0.1, -4), (0.112, -3), (0.5, 0), (0.9999999, 4)])
def test_translation_reaches_an_eighth_with_equal_shares(draw, shift):
    """32 px have nine shifts from -4 to 4, a ninth of the draws each."""
    x = torch.zeros(1, 1, 32, 32)
    x[..., 16, 16] = 1
    out = DiffAugment(["translation"])(x, Fixed(translation=torch.tensor([[draw, 0.5]])))
    assert out[0, 0, 16].argmax() == 16 + shift


def test_each_image_and_all_its_channels_move_by_its_own_draw():
    x = torch.randn(2, 3, 16, 16)
    out = DiffAugment(["translation"])(x, Fixed(translation=torch.tensor([[0.5, 0.5], [0.99, 0.5]])))
    assert torch.equal(out[0], x[0])
    assert torch.equal(out[1, :, :, 2:], x[1, :, :, :14])


def test_cutout():
    """The hole around (x 0.25, y 0.5) of an 8 px image is columns 0 to 3 of rows 2 to 5."""
    out = DiffAugment(["cutout"])(torch.ones(1, 2, 8, 8), Fixed(cutout=torch.tensor([[0.25, 0.5]])))
    expected = torch.ones(8, 8)
    expected[2:6, 0:4] = 0
    assert torch.equal(out[0, 0], expected)
    assert torch.equal(out[0, 1], expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_differentiates_twice(channels):
    torch.manual_seed(0)
    x = torch.randn(2, channels, 8, 8, dtype=torch.float64, requires_grad=True)
    draws = Fixed(brightness=0.2, saturation=0.9, contrast=0.1, translation=torch.tensor([[0.9, 0.1], [0.5, 0.9]]), cutout=torch.rand(2, 2))

    def run(x):
        return DiffAugment(DIFFAUGMENT)(x, draws).pow(3)

    assert gradcheck(run, (x,))
    assert gradgradcheck(run, (x,))


def test_r1_sees_the_stored_image_through_it():
    """D sums its pixels: through a contrast of 1.4 and a hole over a quarter, the gradient at 16 x 16 px has a norm worked out here."""
    draws = Fixed(contrast=0.9, cutout=0.5)
    augment = DiffAugment(["color", "cutout"])
    penalty, _ = losses.r1_penalty(lambda x, c: x.sum(dim=(1, 2, 3))[:, None], lambda x: augment(x, draws), torch.randn(2, 1, 16, 16), None)
    # 192 pixels are seen. d/dx_j of their sum of m + 1.4 (x - m) is 1.4 [j seen] - 0.4 * 192 / 256.
    seen, hidden = 1.4 - 0.3, -0.3
    assert torch.allclose(penalty, torch.full((2,), 192 * seen**2 + 64 * hidden**2), rtol=1e-5)


def test_same_seed_same_images_and_the_order_of_the_policy_is_fixed():
    x = torch.randn(4, 1, 16, 16)
    outs = []
    for policy in (DIFFAUGMENT, DIFFAUGMENT[::-1]):
        torch.manual_seed(3)
        outs.append(DiffAugment(policy)(x))
    assert torch.equal(*outs)
    assert not torch.equal(outs[0], DiffAugment(DIFFAUGMENT)(x))


def test_a_training_with_it_has_no_p(tmp_path):
    data = discs(tmp_path / "data")
    config = tiny(augment="diffaugment", ada_target=-0.99)
    train(config, data, tmp_path / "run")
    rows = runs.read_json_lines(tmp_path / "run" / runs.STATS)
    assert len(rows) == 5
    assert all("Progress/augment" not in row for row in rows)
    assert "ada_p" not in json.loads((tmp_path / "run" / runs.STATUS).read_text())
    assert to_json(config)["diffaugment_policy"] == ["color", "translation", "cutout"]


def test_it_acts_on_real_and_generated_images_in_every_phase(tmp_path):
    """Two steps from one seed, with and without: every reported score and R1 differs, and the generator's loss too."""
    data = discs(tmp_path / "data")
    with_it, without = ({}, {})
    for rows, augment in ((with_it, "diffaugment"), (without, "none")):
        train(tiny(kimg=0.004, augment=augment), data, tmp_path / augment)
        rows |= runs.read_json_lines(tmp_path / augment / runs.STATS)[0]
    for name in ("Loss/G/loss", "Loss/scores/fake", "Loss/scores/real", "Loss/r1_penalty"):
        assert with_it[name]["mean"] != without[name]["mean"], name
    assert with_it["Loss/pl_penalty"]["mean"] > 0
