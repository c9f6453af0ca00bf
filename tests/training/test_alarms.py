"""The measures and limits of the alarms, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from medgan.training import alarms


def _flat(*values: float, side: int = 4) -> torch.Tensor:
    """Images of one value each."""
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, side, side).clone()


def test_the_distance_of_two_images_is_their_root_mean_square_difference():
    """Black and white are 2 apart; a picture that differs by 1 in a quarter of its pixels is half a unit away."""
    pairs = alarms.distances(_flat(-1, 1))
    assert pairs.tolist() == [[0, 2], [2, 0]]
    corner = _flat(0, 0)
    corner[1, :, :2, :2] = 1
    assert alarms.distances(corner)[0, 1] == 0.5


def test_mean_and_nearest_distance_by_hand():
    """Values 0, 1, 3, 10: distances 1, 3, 10, 2, 9, 7, mean 32 / 6; the nearest others are 1, 1, 2, 7 away, lower median 1."""
    pairs = alarms.distances(_flat(0, 1, 3, 10))
    assert alarms.mean_distance(pairs) == pytest.approx(32 / 6)
    assert alarms.nearest_distance(pairs) == 1
    assert alarms.nearest_distance(alarms.distances(_flat(0, 1, 3, 10, 30))) == 2


def test_collapse_to_two_images_halves_the_mean_and_zeroes_the_nearest():
    """Of 64 samples of two kinds, 32 each, 1024 of 2016 pairs differ."""
    pairs = alarms.distances(_flat(*[0.0, 1.0] * 32))
    assert alarms.mean_distance(pairs) == pytest.approx(1024 / 2016)
    assert alarms.nearest_distance(pairs) == 0


def test_thumbnails_are_means_of_cells_and_never_larger_than_the_image():
    x = torch.arange(64.0 * 64).reshape(1, 1, 64, 64)
    small = alarms.thumbnails(x)
    assert small.shape == (1, 1, 32, 32)
    assert small[0, 0, 0, 0] == (0 + 1 + 64 + 65) / 4
    assert torch.equal(alarms.thumbnails(x[..., :8, :8]), x[..., :8, :8])


def test_noise_of_pixels_hardly_separates_thumbnails():
    """White noise of 0.2 is averaged over 64 pixels of a 256 px image: 0.2 / 8 x sqrt 2 of distance remain."""
    torch.manual_seed(0)
    pairs = alarms.distances(alarms.thumbnails(torch.randn(8, 1, 256, 256) * 0.2))
    assert alarms.mean_distance(pairs) == pytest.approx(0.2 / 8 * math.sqrt(2), rel=0.02)


def test_nothing_is_relative_to_nothing():
    assert alarms.relative(1.0, 2.0) == 0.5
    assert alarms.relative(1.0, 0.0) is None
    assert alarms.relative(float("nan"), 1.0) is None
    assert not alarms.is_low(None, None)


@pytest.mark.parametrize(
    ("distance", "nearest", "was_diverse", "kimg", "rings"),
    [
        (0.9, 0.9, True, 100, False),
        (0.49, 0.9, True, 1, True),  # it fell
        (0.9, 0.24, True, 1, True),  # few images, far apart
        (0.1, 0.1, False, 1, False),  # a young generator makes one grey image
        (0.1, 0.1, False, 199, False),
        (0.1, 0.1, False, 200, True),
        (None, 0.1, True, 1, True),
    ],
)
def test_low_diversity(distance, nearest, was_diverse, kimg, rings):
    alarm = alarms.diversity_alarm(distance, nearest, was_diverse=was_diverse, kimg=kimg, kimg_total=1000)
    assert bool(alarm) == rings


def test_a_short_run_is_settled_halfway_and_the_text_has_the_numbers():
    assert not alarms.diversity_alarm(0.1, 0.05, was_diverse=False, kimg=2.9, kimg_total=6)
    alarm = alarms.diversity_alarm(0.1, 0.05, was_diverse=False, kimg=3, kimg_total=6)
    assert alarm.code == "W_DIVERSITY"
    assert "0.10 times the distance (least 0.5) and 0.05 times the distance to the nearest other (least 0.25) of real images" in alarm.text


def test_p_rings_at_its_bound_after_five_ticks():
    assert alarms.bound_alarm(4, bound=0.8) is None
    alarm = alarms.bound_alarm(5, bound=0.8)
    assert alarm.code == "W_AUGMENT_BOUND"
    assert "its bound 0.8 for 5 ticks" in alarm.text


@pytest.mark.parametrize(
    ("train", "held_out", "n", "rings"),
    [
        (0.8, 0.5, 256, True),
        (0.8, 0.56, 256, False),  # a gap of 0.24
        (0.5, 0.8, 256, False),  # the other way round
        (0.8, 0.5, 16, False),  # pooled 0.65: three standard errors are 3 sqrt(0.65 x 0.35 / 8) = 0.506
        (1.0, 0.5, 256, True),
        (1.0, 1.0, 8, False),
    ],
)
def test_overfitting(train, held_out, n, rings):
    assert bool(alarms.overfit_alarm(train, held_out, n_train=n, n_held_out=n)) == rings


def test_four_images_prove_nothing():
    """Pooled 0.5, three standard errors are 3 sqrt(0.25 x 2 / 4) = 1.06, more than any gap; eighteen give 0.5."""
    assert alarms.overfit_alarm(1.0, 0.0, n_train=4, n_held_out=4) is None
    alarm = alarms.overfit_alarm(1.0, 0.0, n_train=18, n_held_out=18)
    assert alarm.code == "W_OVERFIT"
    assert "takes 100% of training images for real but 0% of held-out ones" in alarm.text
