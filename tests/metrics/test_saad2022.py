import numpy as np
import pytest
import torch

from medgan.metrics import METRICS
from medgan.metrics.config import EvaluateConfig
from medgan.metrics.pictures import Pictures
from medgan.metrics.saad2022 import SaadMSSSIM, five_scales
from medgan.metrics.ssim import MSSSIM, prepared
from tests.metrics.phantoms import ImageSet, waves


def pictures(images: np.ndarray, *, order=None, labels=None) -> Pictures:
    numbers = np.arange(len(images)) if order is None else np.array(order)
    return Pictures(images[numbers], numbers, None if labels is None else labels[numbers], ImageSet(images))


# By colours, real parts of what sewar 0.4.5 gives under scipy 1.17 for waves(8, 128) number 0 with 1 (where a scale is negative), 2 with 7, and 0 with
# 3/4 of itself + 1/4 of 3.
SEWAR = {
    1: (0.06499968610140673, 0.15014785010218706, 0.9430893605914068),
    3: (0.07893061738019365, 0.1566982175561556, 0.9435799510730364),
}


@pytest.mark.parametrize("channels", SEWAR)
def test_equals_the_package_they_used(channels):
    images = waves(8, 128, channels=channels)
    mixed = (images[0].astype(int) * 3 // 4 + images[3] // 4).astype(np.uint8)
    x, y = (prepared(np.stack(some), "cpu") for some in ([images[0], images[2], images[0]], [images[1], images[7], mixed]))
    assert five_scales(x, y).tolist() == pytest.approx(SEWAR[channels], rel=1e-12)


def test_worked_by_hand():
    """Flat images 0 and 1: no contrast anywhere; the last scale has luminance (0 + c1) / (s^2 + c1), s the window's weight in the 8 px, differing by place."""
    black, white = torch.zeros(1, 1, 128, 128, dtype=torch.float64), torch.ones(1, 1, 128, 128, dtype=torch.float64)
    line = np.exp(-np.square(np.arange(11) - 5.0) / 4.5)
    line /= line.sum()
    inside = np.array([line[i : i + 8].sum() for i in range(4)])
    weight = np.outer(inside, inside)
    # A window that does not sum to 1 leaves a variance of s - s^2 in the flat image.
    contrast = 0.0009 / (weight - weight**2 + 0.0009)
    expected = (0.0001 / (weight**2 + 0.0001) * contrast).mean() ** 0.1333
    assert five_scales(black, white).item() == pytest.approx(expected, rel=1e-9)
    assert five_scales(white, white).item() == pytest.approx(1, rel=1e-12)


def test_pairs_are_neighbours_in_the_set_whatever_the_draw():
    images = waves(6, 128)
    x = prepared(images, "cpu")
    expected = [five_scales(x[i : i + 1], x[i + 1 : i + 2]).item() for i in (0, 2, 4)]
    shuffled = SaadMSSSIM()(real=pictures(images[:4]), fake=pictures(images, order=[4, 1, 0, 5, 3, 2]))
    assert shuffled["value"] == pytest.approx(np.mean(expected), rel=1e-12)
    assert (shuffled["pairs"], shuffled["size"], shuffled["scales"], shuffled["within"]) == (3, 128, 5, "set")
    # Of one class: 0 with 2, 3 with 5.
    labels = np.array([0, 1, 0, 2, 1, 2])
    one = pictures(images, order=[5, 4, 3, 2, 1, 0], labels=labels)
    classes = [five_scales(x[i : i + 1], x[j : j + 1]).item() for i, j in ((0, 2), (1, 4), (3, 5))]
    assert SaadMSSSIM()(real=one, fake=one)["value"] == pytest.approx(np.mean(classes), rel=1e-12)


def test_images_of_other_sizes_are_resized():
    small = SaadMSSSIM()(real=pictures(waves(4, 28)), fake=pictures(waves(4, 28, first=9)))
    assert 0 < small["value"] < 1
    assert small["value"] != MSSSIM(picture_size=128)(real=pictures(waves(4, 28)), fake=pictures(waves(4, 28, first=9)))["value"]


def test_it_has_a_name_of_its_own_and_is_no_default():
    assert METRICS.get("ms_ssim_saad2022") is SaadMSSSIM
    assert METRICS.get("ms_ssim") is MSSSIM
    assert not any("saad" in name for name in EvaluateConfig().metrics)
    with pytest.raises(TypeError, match="positional"):
        SaadMSSSIM()(pictures(waves(4)), pictures(waves(4)))
