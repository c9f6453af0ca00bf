import numpy as np
import pytest
import torch
from monai.metrics import MultiScaleSSIMMetric, SSIMMetric
from torch.nn import functional as F

from medgan.errors import DataError
from medgan.metrics.pictures import Pictures
from medgan.metrics.ssim import MSSSIM, WEIGHTS, NearestSSIM, gaussian_window, ms_ssim, prepared, scales_of, similarity
from tests.metrics.phantoms import ImageSet, waves


def pictures(images: np.ndarray, labels: np.ndarray | None = None) -> Pictures:
    return Pictures(images, np.arange(len(images)), labels, ImageSet(images))


def blobs(count: int, size: int, *, channels: int = 1, seed: int = 0, noise: float = 0.1, base: torch.Tensor | None = None) -> np.ndarray:
    """Smooth images (count, channels, size, size) uint8 with noise."""
    generator = torch.Generator().manual_seed(seed)
    # Half of each image is common to all, as in medical images.
    common = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(99))
    low = (common + torch.rand(count, channels, 6, 6, generator=generator)) / 2 if base is None else base
    smooth = F.interpolate(low, size=(size, size), mode="bilinear")
    return ((smooth + noise * torch.rand(count, channels, size, size, generator=generator)).clamp(0, 1) * 255).byte().numpy()


def test_worked_by_hand():
    # Flat images 0 and 1: no contrast on either side, so its part is c2/c2 = 1, and luminance (0 + c1) / (0 + 1 + c1) = 0.0001 / 1.0001.
    black, white = torch.zeros(1, 1, 12, 12, dtype=torch.float64), torch.ones(1, 1, 12, 12, dtype=torch.float64)
    whole, contrast = similarity(black, white, 11)
    assert float(contrast) == pytest.approx(1, rel=1e-9)
    assert float(whole) == pytest.approx(0.0001 / 1.0001, rel=1e-9)
    # 12 px hold one scale: MS-SSIM is SSIM. 22 px hold two, and only the coarsest has luminance, with weight .2856 / (.0448 + .2856).
    assert float(ms_ssim(black, white)) == pytest.approx(0.0001 / 1.0001, rel=1e-9)
    larger = [F.interpolate(x, size=(22, 22)) for x in (black, white)]
    assert float(ms_ssim(*larger)) == pytest.approx((0.0001 / 1.0001) ** (0.2856 / 0.3304), rel=1e-9)


def test_one_window_worked_by_hand():
    # 3 px with a window of 3: weights 1, w, 1 with 1/w = exp(-1 / 4.5); x is one bright pixel in the middle, y nothing.
    side = np.exp(-1 / 4.5) / (1 + 2 * np.exp(-1 / 4.5))
    middle = (1 - 2 * side) ** 2
    np.testing.assert_allclose(gaussian_window(3), [side, 1 - 2 * side, side], rtol=1e-12)
    x, y = torch.zeros(1, 1, 3, 3, dtype=torch.float64), torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    x[0, 0, 1, 1] = 1
    variance = middle - middle**2
    expected = 0.0001 / (middle**2 + 0.0001) * 0.0009 / (variance + 0.0009)
    assert float(similarity(x, y, 3)[0]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("side", "scales", "window"), [(256, 5, 11), (176, 5, 11), (175, 4, 11), (128, 4, 11), (64, 3, 11), (32, 2, 11), (28, 2, 11), (21, 1, 11), (10, 1, 9), (7, 1, 7), (1, 1, 1)])  # fmt: skip
def test_small_images_have_fewer_scales_and_then_a_smaller_window(side, scales, window):
    weights, size = scales_of(side)
    assert (len(weights), size) == (scales, window)
    assert sum(weights) == pytest.approx(1, rel=1e-12)
    assert weights[0] / weights[-1] == pytest.approx(WEIGHTS[0] / WEIGHTS[scales - 1])
    x = torch.rand(2, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert ms_ssim(x, x) == pytest.approx([1, 1], rel=1e-9)


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (64, 3), (200, 1)])
def test_equals_monai(size, channels):
    x, y = (prepared(blobs(4, size, channels=channels, seed=s), "cpu") for s in (1, 2))
    weights, window = scales_of(size)
    theirs = MultiScaleSSIMMetric(spatial_dims=2, data_range=1.0, kernel_size=window, weights=weights)(x, y).flatten()
    # MONAI computes in float32.
    np.testing.assert_allclose(ms_ssim(x, y), theirs, rtol=5e-4)
    single = SSIMMetric(spatial_dims=2, data_range=1.0)(x, y).flatten()
    np.testing.assert_allclose(similarity(x, y, 11)[0], single, rtol=2e-4, atol=2e-5)


def test_a_set_that_repeats_itself_has_a_higher_figure_than_the_real_one():
    real, collapsed = blobs(12, 32), blobs(12, 32, base=torch.rand(1, 1, 6, 6).expand(12, -1, -1, -1))
    result = MSSSIM()(real=pictures(real), fake=pictures(collapsed))
    assert result["value"] > 0.8 > result["real"]
    assert (result["pairs"], result["real_pairs"], result["within"], result["scales"], result["window"]) == (6, 6, "set", 2, 11)
    swapped = MSSSIM()(real=pictures(collapsed), fake=pictures(real))
    assert (swapped["value"], swapped["real"]) == (result["real"], result["value"])


def test_a_figure_is_the_mean_over_its_pairs_whatever_the_blocks(monkeypatch):
    images = blobs(6, 40)
    x = prepared(images, "cpu")
    expected = [float(ms_ssim(x[i : i + 1], x[i + 1 : i + 2])) for i in (0, 2, 4)]
    result = MSSSIM()(real=pictures(images), fake=pictures(images))
    monkeypatch.setattr("medgan.metrics.ssim.blocks", lambda n, shape: [slice(i, i + 1) for i in range(n)])
    again = MSSSIM()(real=pictures(images), fake=pictures(images))
    for found in (result, again):
        assert found["value"] == pytest.approx(np.mean(expected), rel=1e-12)
        assert found["sd"] == pytest.approx(np.std(expected, ddof=1), rel=1e-9)


def test_images_can_be_resized_to_have_five_scales():
    images = blobs(4, 28)
    result = MSSSIM(picture_size=176)(real=pictures(images), fake=pictures(images))
    assert result["scales"] == 5
    assert result["value"] != MSSSIM()(real=pictures(images), fake=pictures(images))["value"]


def test_constant_images_are_equal_and_no_error():
    grey = np.full((4, 1, 28, 28), 77, np.uint8)
    assert MSSSIM()(real=pictures(waves(4, 28)), fake=pictures(grey))["value"] == pytest.approx(1)
    assert np.isfinite(NearestSSIM()(real=pictures(grey), fake=pictures(grey))["value"])


def test_pairs_are_of_one_class_where_both_sets_have_classes():
    images = waves(8, 16)
    labels = np.array([0, 1, 0, 1, 1, 0, 2, 0])
    one = pictures(images, labels)
    pairs = one.pairs(one, 10)
    assert sorted(pairs.tolist()) == [[0, 2], [1, 3], [5, 7]]
    assert len(one.pairs(pictures(images), 10)) == 4
    assert MSSSIM()(real=one, fake=one)["within"] == "class"
    with pytest.raises(DataError, match="2 images hold no pair of one class") as caught:
        pictures(images[:2], labels[:2]).pairs(one, 10)
    assert "--n-fake" in caught.value.fix


def test_copies_are_found_and_real_images_do_not_find_themselves():
    real = blobs(30, 20, seed=3)
    fake = np.concatenate([real[[7, 11]], blobs(2, 20, seed=4)])
    result = NearestSSIM()(real=pictures(real), fake=pictures(fake))
    assert result["highest"] == pytest.approx(1)
    assert result["real_highest"] < 0.99
    assert result["images"] == 4
    # By hand: the real image with the least sum of squares, and SSIM with it.
    differences = np.square(fake[:, None].astype(float) - real[None].astype(float)).sum((2, 3, 4))
    nearest = differences.argmin(1)
    assert nearest[:2].tolist() == [7, 11]
    expected = SSIMMetric(spatial_dims=2, data_range=1.0)(prepared(fake, "cpu"), prepared(real[nearest], "cpu"))
    assert result["value"] == pytest.approx(float(expected.mean()), rel=1e-4)


def test_one_real_image_has_no_other():
    with pytest.raises(DataError, match="at least 2"):
        NearestSSIM()(real=pictures(waves(1)), fake=pictures(waves(3)))


@pytest.mark.parametrize("metric", [MSSSIM(), NearestSSIM()])
def test_sets_cannot_be_swapped_by_position(metric):
    with pytest.raises(TypeError, match="positional"):
        metric(pictures(waves(4)), pictures(waves(4)))
