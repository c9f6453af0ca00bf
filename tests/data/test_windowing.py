import numpy as np
import pytest
import torch
from pydicom.pixels import apply_voi_lut

from medgan.data.recipe import Recipe
from medgan.data.recipes.ct_liver import RECIPE
from medgan.data.windowing import DicomWindow, PercentileWindow, Window, to_grey, window_for
from medgan.errors import DataError
from tests.phantoms import dicom_slice


@pytest.mark.parametrize(("hu", "grey"), [(-1000, 0), (-125, 0), (50, 127.5), (60, 134.8), (225, 255), (3000, 255)])
def test_liver_window_has_the_golden_values(hu, grey):
    assert float(Window(50, 350)(torch.tensor([float(hu)]))[0]) * 255 == pytest.approx(grey, abs=0.05)


def test_grey_is_rounded_not_truncated():
    # 60 HU -> 0.528571 -> 134.79: truncation gives 134.
    assert to_grey(Window(50, 350)(torch.tensor([60.0]))).tolist() == [135]
    assert to_grey(torch.tensor([0.0, 1.0])).tolist() == [0, 255]


def test_inverse_returns_the_intensities_inside_the_window():
    hu = torch.linspace(-125, 225, 71, dtype=torch.double)
    assert torch.allclose(Window(50, 350).inverse(Window(50, 350)(hu)), hu)
    assert torch.allclose(DicomWindow(50, 352).inverse(DicomWindow(50, 352)(hu)), hu)


@pytest.mark.parametrize(("center", "width"), [(40, 400), (50, 350), (-600, 1500), (0.5, 2), (100, 1), (10.5, 33.25)])
def test_dicom_window_matches_pydicom(center, width):
    stored = np.arange(-2000, 2000, dtype=np.int16).reshape(40, 100)
    data = dicom_slice(stored, (0, 0, 0), WindowCenter=center, WindowWidth=width)
    low, high = -(2.0**15), 2.0**15 - 1
    theirs = (apply_voi_lut(stored, data) - low) / (high - low)
    ours = DicomWindow(center, width)(torch.from_numpy(stored.astype(np.float64))).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_exact_window_matches_pydicom():
    stored = np.arange(-300, 400, dtype=np.int16).reshape(7, 100)
    data = dicom_slice(stored, (0, 0, 0), WindowCenter=50, WindowWidth=350, VOILUTFunction="LINEAR_EXACT")
    theirs = (apply_voi_lut(stored, data) + 2.0**15) / (2.0**16 - 1)
    np.testing.assert_allclose(Window(50, 350)(torch.from_numpy(stored.astype(np.float64))).numpy(), theirs, atol=1e-9)


def test_padding_is_black_and_left_out_of_percentiles():
    volume = torch.tensor([float("nan")] * 50 + [0.0] * 50 + list(range(1, 102)))
    window = PercentileWindow(0, 100).fit(volume)
    # Foreground 1 to 101.
    assert (window.level, window.width) == (51.0, 100.0)
    assert window(volume)[:50].tolist() == [0.0] * 50


def test_percentiles_match_numpy():
    volume = torch.from_numpy(np.random.default_rng(0).gamma(2, 100, (20, 21, 22)).astype(np.float32))
    window = PercentileWindow(0.5, 99.5).fit(volume)
    values = volume.numpy()[volume.numpy() > volume.numpy().min()].astype(np.float64)
    low, high = np.percentile(values, [0.5, 99.5])
    assert window.level == pytest.approx((low + high) / 2, rel=1e-9)
    assert window.width == pytest.approx(high - low, rel=1e-9)


def test_one_window_holds_for_the_whole_volume():
    volume = torch.zeros(4, 4, 3)
    volume[..., 1], volume[..., 2] = 100.0, 200.0
    recipe = Recipe(name="mr", title="", source="", intensity="minmax")
    grey = to_grey(window_for(recipe, volume)(volume))
    assert [int(grey[0, 0, z]) for z in range(3)] == [0, 128, 255]


def test_a_constant_volume_is_refused():
    with pytest.raises(DataError, match="constant"):
        PercentileWindow(0.5, 99.5).fit(torch.full((4, 4), 7.0))


def test_the_recipe_of_the_paper():
    window = window_for(RECIPE, torch.zeros(1))
    assert (window.level, window.width, RECIPE.plane, RECIPE.size) == (50, 350, "axial", 512)
