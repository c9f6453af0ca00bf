"""The near copies on which an audit measures its power are what the documents say they are."""

import numpy as np
import pytest

from medgan.metrics.planted import Planted, near_copy
from tests.metrics.phantoms import ImageSet, waves


def copies(image: np.ndarray, count: int = 300) -> np.ndarray:
    return np.stack([near_copy(image, np.random.default_rng(seed)) for seed in range(count)]).astype(float)


def test_brightness_changes_by_five_per_cent_at_most_and_noise_is_two_per_cent():
    found = copies(np.full((1, 40, 40), 120, np.uint8))
    gains, noise = found.mean((1, 2, 3)) / 120, found.std((1, 2, 3))
    # The mean of 1600 pixels has a standard error of 0.13 grey levels, 0.001 of the gain.
    assert 0.946 < gains.min() < 0.953
    assert 1.047 < gains.max() < 1.054
    assert noise.mean() == pytest.approx(0.02 * 255, rel=0.02)


@pytest.mark.parametrize("axis", [1, 2])
def test_shifts_reach_seven_tenths_of_a_pixel_in_either_direction(axis):
    """On a ramp of 5 grey levels a pixel a shift of s changes every pixel inside by 5 s; the mirror image of a ramp along x is turned back."""
    ramp = 60 + 5 * np.arange(24.0)
    image = np.broadcast_to(ramp[:, None] if axis == 1 else ramp, (1, 24, 24)).astype(np.uint8)
    inside = slice(4, 20)
    shifts = []
    for copy in copies(image):
        profile = copy[0].mean(2 - axis)
        profile = profile[::-1] if profile[0] > profile[-1] else profile
        slope, start = np.polyfit(np.arange(24)[inside], profile[inside], 1)
        # A gain changes slope and level alike; their ratio is where the ramp would reach 0.
        shifts.append(abs(60 / 5 - start / slope))
    assert 0.5 < np.quantile(shifts, 0.9) < 0.9
    assert np.median(shifts) == pytest.approx(0.35, abs=0.08)


def test_half_of_them_are_mirrored():
    image = np.full((1, 16, 16), 50, np.uint8)
    image[:, :, :8] = 200
    found = copies(image)
    bright_left = found[:, :, :, :6].mean((1, 2, 3)) > 125
    # 300 throws of a coin: 0.41 to 0.59 at three standard errors.
    assert 0.41 < bright_left.mean() < 0.59


def test_a_planted_copy_is_of_its_image_and_the_same_whenever_it_is_read():
    images = waves(6, 24)
    planted = Planted(ImageSet(images), np.array([4, 1, 4]), np.random.default_rng(0))
    whole = planted.images(slice(None))
    assert (len(planted), whole.shape) == (3, (3, 1, 24, 24))
    assert (planted.images([2]) == whole[2]).all()
    assert (whole[0] != whole[2]).any()
    for copy, number in zip(whole, (4, 1, 4), strict=True):
        alike = [max(np.corrcoef(copy.ravel(), turned.ravel())[0, 1] for turned in (image, image[:, :, ::-1])) for image in images]
        assert int(np.argmax(alike)) == number
