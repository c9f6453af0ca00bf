"""The photometry rules of DICOM, each against pydicom, SimpleITK or numbers worked out by hand."""

import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing

from medgan.data.dataset import open_dataset
from medgan.data.photometry import display, measured_values, stored_values
from medgan.data.prepare import PrepareConfig, prepare
from medgan.data.recipe import Recipe
from medgan.data.windowing import window_for
from tests.data.test_prepare import manifest
from tests.phantoms import dicom_slice, read_dicom, save

XRAY = Recipe(name="x", title="", source="", intensity="display")


def shown(data):
    """A slice in [0, 1] as the recipe `xray` shows it."""
    values = torch.from_numpy(measured_values(data).astype(np.float64))
    return window_for(XRAY, values, display(data))(values).numpy()


def radiograph(pixels, **fields):
    return dicom_slice(pixels, (0, 0, 0), **{"Modality": "DX", "RescaleSlope": None, "RescaleIntercept": None, **fields})


def lut(entries, first, bits, words="US"):
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries) if len(entries) < 65536 else 0, first, bits])
    item.add_new("LUTData", words, entries)
    return item


def test_unsigned_and_signed_pixels_of_few_bits(tmp_path):
    # 12 bits in 16, an overlay in bit 15, noise in bit 12: 0x9ABC -> 0xABC = 2748 unsigned, 2748 - 4096 = -1348 signed.
    for kind, expected in ((np.uint16, 2748), (np.int16, -1348)):
        pixels = np.full((4, 4), 0x9ABC, np.uint16).view(kind)
        data = read_dicom(save(dicom_slice(pixels, (0, 0, 0), BitsStored=12, HighBit=11), tmp_path / "a"))
        assert np.unique(stored_values(data)).tolist() == [expected]


def test_a_high_bit_that_is_not_the_last_stored_one(tmp_path):
    # 12 bits in the upper part of the word: 0xABC0 -> 0xABC.
    data = dicom_slice(np.full((4, 4), 0xABC0, np.uint16), (0, 0, 0), BitsStored=12, HighBit=15)
    assert np.unique(stored_values(read_dicom(save(data, tmp_path / "a")))).tolist() == [0xABC]


@pytest.mark.parametrize(("stored", "high"), [(17, 16), (0, 0), (12, 5)])
def test_bits_that_cannot_be_are_refused(tmp_path, stored, high):
    data = dicom_slice(np.zeros((4, 4), np.uint16), (0, 0, 0), BitsStored=stored, HighBit=high)
    with pytest.raises(Exception, match=r"(?i)bits"):
        stored_values(read_dicom(save(data, tmp_path / "a")))


@pytest.mark.parametrize("representation", ["signed", "unsigned"])
def test_a_range_of_padding_is_not_measured(tmp_path, representation):
    kind, low, high = (np.int16, -2000, -1900) if representation == "signed" else (np.uint16, 63000, 63100)
    pixels = np.array([[low, low + 50, high, high + 1], [low - 1, 40, 60, 80]], kind)
    data = radiograph(pixels, PixelPaddingValue=low, PixelPaddingRangeLimit=high)
    values = measured_values(read_dicom(save(data, tmp_path / "a")))
    assert np.isnan(values).tolist() == [[True, True, True, False], [False] * 4]


def test_padding_is_left_out_of_the_percentiles(tmp_path):
    pixels = np.arange(100, 200, dtype=np.int16).reshape(10, 10)
    pixels[:5] = -3000
    data = radiograph(pixels, PixelPaddingValue=-3000)
    values = torch.from_numpy(measured_values(read_dicom(save(data, tmp_path / "a"))))
    window = window_for(Recipe(name="x", title="", source="", intensity="minmax"), values)
    assert (window.level, window.width) == (174.5, 49.0)


def test_padding_of_a_ct_is_written_in_the_wrong_vr(tmp_path):
    # -2000 written as US 63536, as many CT scanners do.
    data = dicom_slice(np.array([[-2000, 5]], np.int16), (0, 0, 0))
    data.add_new("PixelPaddingValue", "US", 63536)
    np.testing.assert_array_equal(measured_values(read_dicom(save(data, tmp_path / "a"))), [[np.nan, 5]])


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(40, 400), (2048, 4096), (0.5, 20), (100, 25)])
def test_windows_match_pydicom(function, center, width):
    stored = np.arange(-2000, 2000, dtype=np.int16).reshape(40, 100)
    data = dicom_slice(stored, (0, 0, 0), WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    low, high = -(2.0**15), 2.0**15 - 1
    np.testing.assert_allclose(shown(data), (apply_windowing(stored, data) - low) / (high - low), atol=1e-6)


def test_sigmoid_by_hand():
    # x = c gives 1/2; x = c + w gives 1 / (1 + e^-4) = 0.98201.
    data = radiograph(np.array([[100, 300]], np.int16), WindowCenter=100, WindowWidth=200, VOILUTFunction="SIGMOID")
    np.testing.assert_allclose(shown(data), [[0.5, 0.9820138]], atol=1e-6)


def test_the_window_is_in_the_unit_after_the_modality_lut():
    stored = np.arange(0, 4000, dtype=np.int16).reshape(40, 100)
    data = dicom_slice(stored, (0, 0, 0), RescaleSlope=0.5, RescaleIntercept=-1000, WindowCenter=40, WindowWidth=400)
    hu = apply_modality_lut(stored, data)
    theirs = apply_windowing(hu, data)
    # pydicom's output range is that of the rescaled pixels.
    low, high = -(2.0**15) * 0.5 - 1000, (2.0**15 - 1) * 0.5 - 1000
    np.testing.assert_allclose(shown(data), (theirs - low) / (high - low), atol=1e-6)


def test_the_first_of_several_windows_counts_and_is_recorded(tmp_path):
    pixels = np.arange(0, 1024, dtype=np.uint16).reshape(32, 32)
    save(radiograph(pixels, WindowCenter=[400, 40], WindowWidth=[800, 80]), tmp_path / "in" / "a")
    summary = prepare(PrepareConfig(mask_label=-1, window_preset="xray", size=32, workers=1), tmp_path / "in", tmp_path / "out.zip")
    [row] = manifest(tmp_path / "out.zip")
    assert (row["level"], row["width"], row["preset"]) == ("400", "800", "xray")
    assert any(warning.startswith("several windows in the header, the first taken") for warning in summary["warnings"])
    image = open_dataset(tmp_path / "out.zip").images([0])[0, 0]
    # (x - 399.5) / 799 + 0.5: 100 -> 0.1252 -> 31.9, 700 -> 0.8761 -> 223.4
    assert (image.reshape(-1)[100], image.reshape(-1)[700]) == (32, 223)


@pytest.mark.parametrize(("first", "bits"), [(0, 8), (100, 12), (-50, 16), (0, 16)])
def test_a_voi_lut_matches_pydicom_and_comes_before_the_window(first, bits):
    entries = ((np.arange(256) ** 2) * ((2**bits - 1) / 255**2)).astype(np.uint16)
    # pydicom wraps around beyond the last entry of an 8-bit table; the last entry holds there (PS3.3 C.11.2.1.1).
    stored = np.arange(-200, 256 if bits == 8 else 600, dtype=np.int16).reshape(8, -1)
    data = radiograph(stored, WindowCenter=10, WindowWidth=20)
    data.VOILUTSequence = [lut(entries.tolist(), first, bits), lut([0, 1], 0, 8)]
    theirs = apply_voi_lut(stored, data) / (2**bits - 1)
    np.testing.assert_allclose(shown(data), theirs, atol=1e-12)


def test_a_voi_lut_by_hand():
    data = radiograph(np.array([[0, 10, 11, 12, 99]], np.uint16))
    data.VOILUTSequence = [lut([0, 51, 255], 10, 8)]
    np.testing.assert_allclose(shown(data), [[0, 0, 0.2, 1, 1]])
    # The same table as bytes, two entries in a word.
    data.VOILUTSequence = [lut(bytes([0, 51, 255, 0]), 10, 8, "OW")]
    data.VOILUTSequence[0].LUTDescriptor = [3, 10, 8]
    np.testing.assert_allclose(shown(data), [[0, 0, 0.2, 1, 1]])


def test_a_modality_lut_matches_pydicom(tmp_path):
    stored = np.arange(0, 64, dtype=np.uint16).reshape(8, 8)
    data = radiograph(stored)
    item = lut((np.arange(32) * 3 + 7).tolist(), 16, 16)
    item.ModalityLUTType = "US"
    data.ModalityLUTSequence = [item]
    data = read_dicom(save(data, tmp_path / "a"))
    np.testing.assert_array_equal(measured_values(data), apply_modality_lut(stored, data))
    # Below the first the first entry, above the last the last; by hand at 20: 3 * 4 + 7.
    assert measured_values(data)[[0, 2, 7], [0, 4, 7]].tolist() == [7, 19, 100]


@pytest.mark.parametrize("shape", [None, "INVERSE", "IDENTITY"])
@pytest.mark.parametrize(("photometric", "expected"), [("MONOCHROME1", [1, 0.75, 0]), ("MONOCHROME2", [0, 0.25, 1])])
def test_monochrome1_is_inverted_once_after_the_window(photometric, shape, expected):
    pixels = np.array([[0, 100, 400]], np.uint16)
    fields = {"WindowCenter": 200, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"}
    data = radiograph(pixels, PhotometricInterpretation=photometric, PresentationLUTShape=shape, **fields)
    np.testing.assert_allclose(shown(data), [expected])


def test_an_asymmetric_lut_shows_that_the_inversion_comes_last():
    data = radiograph(np.array([[0, 1, 2]], np.uint16), PhotometricInterpretation="MONOCHROME1")
    data.VOILUTSequence = [lut([0, 51, 255], 0, 8)]
    np.testing.assert_allclose(shown(data), [[1, 0.8, 0]])


@pytest.mark.parametrize("intensity", ["percentile", "minmax", "window"])
def test_monochrome1_is_inverted_whatever_the_recipe(intensity):
    data = radiograph(np.array([[0, 100, 400]], np.uint16), PhotometricInterpretation="MONOCHROME1")
    values = torch.from_numpy(measured_values(data))
    recipe = Recipe(name="x", title="", source="", intensity=intensity, level=200, width=400)
    plain, inverted = (window_for(recipe, values, d)(values) for d in (None, display(data)))
    torch.testing.assert_close(inverted, 1 - plain)


def test_padding_stays_black_in_an_inverted_picture():
    data = radiograph(np.array([[0, 9, 400]], np.uint16), PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=9)
    assert shown(data).tolist() == [[1, 0, 0]]


def test_without_a_window_the_range_of_the_picture_is_shown():
    np.testing.assert_allclose(shown(radiograph(np.array([[100, 150, 300]], np.uint16))), [[0, 0.25, 1]], atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"WindowCenter": 40, "WindowWidth": 0}, "its window has no width"),
        ({"WindowCenter": 40, "WindowWidth": 0.5}, "its window has no width"),
        ({"WindowCenter": 40, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "its VOI LUT Function is unknown"),
    ],
)
def test_a_broken_window_is_a_reason_for_x_rays_only(tmp_path, fields, fault):
    pixels = np.random.default_rng(0).integers(0, 900, (32, 32)).astype(np.uint16)
    save(radiograph(pixels, Modality="MR", **fields), tmp_path / "in" / "a")
    with pytest.raises(Exception, match=fault):
        prepare(PrepareConfig(mask_label=-1, window_preset="xray", size=32, workers=1), tmp_path / "in", tmp_path / "out.zip")
    assert prepare(PrepareConfig(mask_label=-1, window_preset="mr-minmax", size=32, workers=1), tmp_path / "in", tmp_path / "b.zip")["kept"] == 1  # fmt: skip


def test_a_short_voi_lut_is_a_fault():
    data = radiograph(np.zeros((2, 2), np.uint16))
    item = lut([1, 2, 3], 0, 8)
    item.LUTDescriptor = [9, 0, 8]
    data.VOILUTSequence = [item]
    assert display(data).fault == "its VOI LUT is shorter than its descriptor says"


def test_the_slope_of_each_pet_slice_is_its_own_as_in_simple_itk(tmp_path):
    from monai.transforms import LoadImage

    from medgan.data.series import SeriesReader

    pixels = np.random.default_rng(1).integers(0, 30000, (6, 5)).astype(np.int16)
    slopes = [0.25, 1.5, 3.125]
    files = [save(dicom_slice(pixels, (0, 0, 2.0 * z), Modality="PT", RescaleSlope=slope), tmp_path / f"{z}") for z, slope in enumerate(slopes)]  # fmt: skip
    volume = LoadImage()(files, reader=SeriesReader()).numpy()
    for z, file in enumerate(files):
        np.testing.assert_allclose(volume[:, :, z], SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))[0].T)


def test_the_real_monochrome1_chest_is_black_outside(scans, tmp_path):
    data = pydicom.dcmread(scans / "xray" / "gdcm-CR-MONO1-10-chest.dcm")
    ours = shown(data)
    stored = data.pixel_array
    theirs = apply_voi_lut(stored, data).astype(float)
    theirs = (theirs - theirs.min()) / (theirs.max() - theirs.min())
    # 1 - what pydicom shows, which knows no MONOCHROME1; lungs darker than the spine between them.
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] < -0.99
    rows, columns = stored.shape
    middle = ours[rows // 3 : rows // 2]
    assert middle[:, columns // 2 - 15 : columns // 2 + 15].mean() > middle[:, columns // 4 : columns // 3].mean()
