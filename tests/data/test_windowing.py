import dataclasses

import numpy as np
import pytest
import torch
from pydicom.pixels import apply_voi_lut

from medgan.data.recipe import OTHER_PRESETS, WINDOW_PRESETS, Recipe, preset_changes
from medgan.data.recipes.ct_liver import RECIPE
from medgan.data.windowing import DicomWindow, PercentileWindow, SliceRange, Window, foreground, to_grey, window_for
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


def test_the_air_of_a_skull_stripped_brain_is_no_foreground():
    """Four fifths zeros with a few negative values of interpolation: the window is the brain's, not that of the zeros."""
    brain = torch.arange(100.0, 300.0).repeat(100)
    volume = torch.cat([torch.zeros(80_000), torch.full((50,), -7.0), brain])
    window = PercentileWindow(0.5, 99.5).fit(volume)
    low, high = np.percentile(brain.numpy().astype(np.float64), [0.5, 99.5])
    assert window.level == pytest.approx((low + high) / 2, abs=1e-6)
    assert window.width == pytest.approx(high - low, abs=1e-6)
    assert window(torch.tensor([0.0, -7.0])).tolist() == [0.0, 0.0]


def test_a_few_undershoots_around_a_blanked_skull_do_not_make_the_brain_white():
    """As in BraTS: 80 % zeros, 1,000 to 1,999 in the brain, and a few interpolated values down to -8 % of the range."""
    brain = torch.linspace(1000, 1999, 20_000)
    volume = torch.cat([torch.zeros(79_950), torch.linspace(-160, -1, 50), brain])
    window = PercentileWindow(0.5, 99.5).fit(volume)
    low, high = np.percentile(brain.numpy(), [0.5, 99.5])
    assert (window.level - window.width / 2, window.level + window.width / 2) == pytest.approx((low, high), abs=0.01)


def test_air_with_noise_does_not_shift_the_upper_end():
    draw = np.random.default_rng(0)
    air = np.abs(draw.normal(0, 6, 60_000))
    tissue = draw.uniform(100, 800, 40_000)
    window = PercentileWindow(0.5, 99.5).fit(torch.from_numpy(np.concatenate([air, tissue])))
    # Half the air may count; the whole of it would leave the 99.5th percentile of all at that of tissue's 98.75th.
    assert window.level + window.width / 2 == pytest.approx(np.percentile(tissue, 99.5), abs=6)


def test_foreground_that_is_most_of_the_volume_stays():
    volume = torch.tensor([0.0] * 10 + [500.0] * 80 + [900.0] * 10)
    assert sorted(foreground(volume).unique().tolist()) == [500.0, 900.0]
    assert len(foreground(torch.full((5,), 3.0))) == 0


@pytest.mark.parametrize("name", [*WINDOW_PRESETS, *OTHER_PRESETS])
def test_every_preset_gives_a_recipe_its_window(name):
    """The table of windows that radiologists and the papers use, written out once more."""
    table = {
        "ct-liver": (50, 350), "ct-abdomen": (50, 350), "ct-mediastinum": (50, 350), "ct-soft": (40, 400), "ct-lung": (-600, 1500),
        "ct-bone": (400, 1800), "ct-brain": (40, 80),
    }  # fmt: skip
    rules = {"mr": "percentile", "mr-minmax": "minmax", "xray": "display", "png": "stored"}
    recipe = dataclasses.replace(RECIPE, **preset_changes(name))
    if name in table:
        level, width = table[name]
        window = window_for(recipe, torch.zeros(1))
        edges = torch.tensor([level - width / 2, float(level), level + width / 2])
        assert window(edges).tolist() == [0.0, 0.5, 1.0]
    else:
        assert recipe.intensity == rules[name]
        assert recipe.modality == ("MR" if name.startswith("mr") else "")


def test_the_papers_slices_have_each_their_own_range():
    """One organ of 60 HU comes out as 255, 134, 102 and 0 in four slices of one volume, worked out by hand.

    After L 50 / W 350, clipped to -125..225 HU: with air alone the organ is the brightest (255); with air and bone the range is the
    window's, (60 + 125) / 350 * 255 = 134.8, cut to 134; with -40 and 210 HU (60 + 40) / 250 * 255 = 102; with bone alone it is darkest (0).
    """
    volume = torch.full((4, 4, 4), 60.0)
    volume[0, :, 0] = -1000.0
    volume[0, :, 1], volume[1, :, 1] = -1000.0, 700.0
    volume[0, :, 2], volume[1, :, 2] = -40.0, 210.0
    volume[0, :, 3] = 700.0
    recipe = dataclasses.replace(RECIPE, paper_compatible=True)
    window = window_for(recipe, volume)
    assert [int(to_grey(window(volume[..., z]))[3, 0]) for z in range(4)] == [255, 134, 102, 0]
    right = window_for(RECIPE, volume)
    assert [int(to_grey(right(volume[..., z]))[3, 0]) for z in range(4)] == [135] * 4


def test_a_slice_of_one_grey_or_of_nothing_is_black_in_the_papers_way():
    for before in (None, Window(50, 350)):
        assert SliceRange(before)(torch.full((2, 2), 7.0)).tolist() == [[0, 0], [0, 0]]
        assert SliceRange(before)(torch.full((2, 2), float("nan"))).tolist() == [[0, 0], [0, 0]]
    assert SliceRange()(torch.tensor([float("nan"), 10.0, 20.0])).tolist() == [0, 0, 1]
