import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from monai.data import MetaTensor
from monai.transforms import LoadImage, Orientation
from pydicom.pixels import apply_modality_lut

from medgan.data.photometry import measured_values, stored_values
from medgan.data.series import SeriesReader, notes_on, read_headers, stacks
from medgan.errors import DataError
from tests.phantoms import body, ct_series, dicom_slice, read_dicom, save


def load(files):
    return LoadImage()(list(files), reader=SeriesReader())


def only_header(path):
    [header] = read_headers(path)
    return header


def test_slices_stand_in_the_order_of_their_position(tmp_path):
    hu, _ = body()
    volume = load(ct_series(tmp_path, hu))
    # Names and instance numbers of the phantom run against the position.
    assert isinstance(volume, MetaTensor)
    np.testing.assert_array_equal(volume.numpy(), hu.astype(np.float32))


def test_voxels_and_affine_match_simple_itk(tmp_path):
    hu, _ = body()
    files = ct_series(tmp_path, hu, spacing=(0.7, 0.9, 2.5))
    ours = load(files)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    theirs = SimpleITK.ReadImage(names)
    np.testing.assert_allclose(ours.numpy(), SimpleITK.GetArrayFromImage(theirs).T)
    for index in [(0, 0, 0), (31, 0, 0), (3, 27, 11)]:
        place = np.asarray(ours.affine) @ [*index, 1]
        np.testing.assert_allclose(place[:3] * [-1, -1, 1], theirs.TransformIndexToPhysicalPoint(index), atol=1e-6)


def test_monai_transforms_take_the_volume(tmp_path):
    hu, _ = body()
    volume = LoadImage(ensure_channel_first=True)(ct_series(tmp_path, hu), reader=SeriesReader())
    assert volume.shape == (1, 32, 28, 12)
    turned = Orientation(axcodes="RAS", labels=None)(volume)
    np.testing.assert_array_equal(turned.numpy()[0], hu[::-1, ::-1, :].astype(np.float32))


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (0.5, -7.25), (2, 0)])
def test_rescale_matches_pydicom_and_simple_itk(tmp_path, slope, intercept):
    stored = np.arange(-32, 32, dtype=np.int16).reshape(8, 8)
    path = save(dicom_slice(stored, (0, 0, 0), RescaleSlope=slope, RescaleIntercept=intercept), tmp_path / "a")
    ours = measured_values(read_dicom(path))
    np.testing.assert_allclose(ours, apply_modality_lut(stored, read_dicom(path)))
    np.testing.assert_allclose(ours, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))[0])


def test_each_slice_has_its_own_slope(tmp_path):
    pixels = np.arange(16, dtype=np.int16).reshape(4, 4)
    files = [save(dicom_slice(pixels, (0, 0, 2.0 * z), RescaleSlope=z + 1), tmp_path / str(z)) for z in range(3)]
    assert [float(load(files)[3, 3, z]) for z in range(3)] == [15, 30, 45]


def test_bits_above_the_stored_ones_are_no_part_of_the_value(tmp_path):
    # 12 bits stored; an overlay sits in bit 15. 0x8FFF -> 0xFFF: 4095 unsigned, -1 signed.
    for kind, expected in ((np.uint16, 4095), (np.int16, -1)):
        pixels = np.full((4, 4), 0x8FFF, np.uint16).view(kind)
        data = dicom_slice(pixels, (0, 0, 0), BitsStored=12, HighBit=11)
        assert stored_values(read_dicom(save(data, tmp_path / "a"))).tolist() == [[expected] * 4] * 4


def test_padding_is_not_measured(tmp_path):
    pixels = np.array([[-2000, 40], [60, -2000]], np.int16)
    values = measured_values(read_dicom(save(dicom_slice(pixels, (0, 0, 0), PixelPaddingValue=-2000), tmp_path / "a")))
    np.testing.assert_array_equal(values, [[np.nan, 40], [60, np.nan]])


def test_two_series_are_never_one_volume(tmp_path):
    hu, _ = body()
    files = ct_series(tmp_path / "a", hu) + ct_series(tmp_path / "b", hu, SeriesInstanceUID="1.2.3.1.2")
    with pytest.raises(DataError, match="2 series"):
        SeriesReader().read(files)


def test_a_cine_is_parted_into_phases(tmp_path):
    pixels = np.zeros((4, 4), np.int16)
    headers = [
        only_header(save(dicom_slice(pixels, (0, 0, 8.0 * z), Modality="MR", TriggerTime=50 * t), tmp_path / f"{z}{t}"))
        for z in range(3)
        for t in (1, 0)
    ]
    phases, left_out = stacks(headers)
    assert [[(h.position, h.order[1]) for h in phase] for phase in phases] == [
        [(0, 0), (8, 0), (16, 0)],
        [(0, 50), (8, 50), (16, 50)],
    ]
    assert left_out == []


def test_copies_and_taken_positions_are_left_out(tmp_path):
    pixels = np.zeros((4, 4), np.int16)
    files = [save(dicom_slice(pixels, (0, 0, 2.0 * z), SOPInstanceUID=f"1.9.{z}"), tmp_path / str(z)) for z in range(3)]
    files.append(save(dicom_slice(pixels, (0, 0, 2.0), SOPInstanceUID="1.9.1"), tmp_path / "copy"))
    files.append(save(dicom_slice(pixels, (0, 0, 4.0), SOPInstanceUID="1.9.7", InstanceNumber=9), tmp_path / "other"))
    volumes, left_out = stacks([only_header(file) for file in files])
    assert [header.position for header in volumes[0]] == [0, 2, 4]
    assert sorted(reason for _, reason in left_out) == ["another file at the same position", "copy of another file of the series"]


def test_gaps_and_tilt_are_noted(tmp_path):
    pixels = np.zeros((4, 4), np.int16)

    def notes(positions):
        headers = [only_header(save(dicom_slice(pixels, p, SOPInstanceUID=f"1.{i}"), tmp_path / str(i))) for i, p in enumerate(positions)]
        return notes_on(headers)

    assert notes([(0, 0, 2.0 * z) for z in range(5)]) == []
    assert notes([(0, 0, 2.0 * z) for z in (0, 1, 2, 5, 6)]) == ["gaps: 2 slices missing at 2 mm steps"]
    # 10 degrees: each slice shifts by 2 mm x tan(10 degrees).
    assert notes([(0, 2 * z * np.tan(np.radians(10)), 2.0 * z) for z in range(5)]) == [
        "tilted: slices shift by 10.0 degrees against their normal"
    ]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localiser"),
        ({"BurnedInAnnotation": "YES"}, "annotation burned into the pixels"),
        ({"RescaleSlope": None}, "no RescaleSlope, so the values are not HU"),
        ({"NumberOfFrames": 7}, "multi-frame file that does not say where its frames lie"),
        ({"Rows": 16000, "Columns": 16000, "NumberOfFrames": 10}, "the header claims more than 2 billion pixels"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "screen capture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "reformat"),
        ({"Rows": 60000, "Columns": 60000}, "larger than 16384 pixels a side"),
        ({}, ""),
    ],
)
def test_files_that_are_no_slices_are_told(tmp_path, fields, fault):
    assert only_header(save(dicom_slice(np.zeros((4, 4), np.int16), (0, 0, 0), **fields), tmp_path / "a")).fault == fault


def test_synthetic_data_is_refused(tmp_path):
    data = dicom_slice(np.zeros((4, 4), np.int16), (0, 0, 0))
    data.add_new(0x0008001C, "CS", "YES")
    assert only_header(save(data, tmp_path / "a")).fault == "marked as synthetic data"


def test_a_text_file_is_no_dicom(tmp_path):
    path = tmp_path / "README"
    path.write_text("no scan")
    assert read_headers(path) == []


def test_a_truncated_file_is_skipped_and_said(tmp_path):
    hu, _ = body()
    files = ct_series(tmp_path, hu)
    broken = files[5]
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(Exception):  # noqa: B017, PT011
        SeriesReader().read(files)
    volume = LoadImage()(files, reader=SeriesReader(skip_broken=True))
    assert volume.shape == (32, 28, 11)
    assert [Path(path).name for path, _ in volume.meta["skipped"]] == [broken.name]
    # Slice 5 is missing: the sixth one has its own position, 2 mm above where an even volume would have it.
    np.testing.assert_allclose(np.diff(volume.meta["slice_origins"][:, 2]), [2, 2, 2, 2, 4, 2, 2, 2, 2, 2])


def test_reading_says_nothing(tmp_path, caplog, recwarn):
    data = dicom_slice(np.zeros((4, 4), np.int16), (0, 0, 0))
    path = save(data, tmp_path / "a")
    # A UID that breaks the rules: pydicom quotes it in a warning.
    path.write_bytes(path.read_bytes().replace(b"1.2.3.1.1", b"CANARY-UI"))
    with caplog.at_level(logging.DEBUG):
        read_headers(path)
        SeriesReader().read([path])
    assert "CANARY" not in caplog.text + "".join(str(w.message) for w in recwarn)


def test_a_compression_without_decoder_is_named(tmp_path):
    data = dicom_slice(np.zeros((4, 4), np.int16), (0, 0, 0))
    path = save(data, tmp_path / "a")
    # MPEG-4 video: no still pictures, no free decoder.
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    data["PixelData"].is_undefined_length = True
    with pytest.raises(DataError, match="no decoder for its compression"):
        measured_values(read_dicom(save(data, path)))
