import highdicom
import numpy as np
import pydicom
import pytest
from monai.transforms import LoadImage

from medgan.data.scans import find_scans, walk
from medgan.data.series import SeriesReader, read_headers
from medgan.data.slices import load
from medgan.errors import DataError
from tests.phantoms import body, ct_series, dicom_slice, enhanced, read_dicom, save


def numbered(k, kind=np.int16):
    return (np.arange(20, dtype=kind) + 100 * k).reshape(4, 5)


def scans_in(folder):
    found = find_scans(walk(folder))
    assert found.excluded == []
    return found.scans


def test_frames_stand_in_the_order_of_their_position(tmp_path):
    places = [4.0, 0.0, 6.0, 2.0]
    save(enhanced([(numbered(k), (0, 0, z), {}) for k, z in enumerate(places)]), tmp_path / "a")
    [scan] = scans_in(tmp_path)
    assert (scan.shape, scan.file_frames) == ((5, 4, 4), (1, 3, 0, 2))
    loaded = load(scan)
    for z, k in enumerate(scan.file_frames):
        np.testing.assert_array_equal(loaded.values[:, :, z].numpy(), numbered(k).T)
    np.testing.assert_allclose(loaded.affine, np.diag([-1, -1, 2, 1]))


def test_an_enhanced_copy_of_a_ct_by_highdicom_gives_the_same_volume(tmp_path):
    hu, _ = body()
    files = ct_series(tmp_path / "classic", hu, spacing=(0.7, 0.9, 2.5), PatientName="A^B", PatientBirthDate="", PatientSex="", AccessionNumber="", StudyID="", StudyDate="", StudyTime="", ReferringPhysicianName="", Manufacturer="m", SeriesNumber=1, PositionReferenceIndicator="", Laterality="", PatientPosition="HFS")  # fmt: skip
    copy = highdicom.legacy.LegacyConvertedEnhancedCTImage([read_dicom(f) for f in files], "1.2.7", 2, "1.2.7.1", 1)
    copy.save_as(tmp_path / "enhanced")
    classic = LoadImage()(files, reader=SeriesReader())
    ours = LoadImage()([tmp_path / "enhanced"], reader=SeriesReader())
    np.testing.assert_array_equal(ours.numpy(), classic.numpy())
    np.testing.assert_allclose(np.asarray(ours.affine), np.asarray(classic.affine), atol=1e-6)
    # The same by highdicom's own reader, which orders slices by itself.
    theirs = highdicom.imread(tmp_path / "enhanced").get_volume()
    np.testing.assert_allclose(np.sort(theirs.array.ravel()), np.sort(ours.numpy().ravel()))


def test_each_frame_has_its_own_rescale(tmp_path):
    frames = [
        (numbered(0), (0, 0, 2.0 * z), {"PixelValueTransformationSequence": {"RescaleSlope": z + 1, "RescaleIntercept": -z}})
        for z in range(3)
    ]
    save(enhanced(frames), tmp_path / "a")
    values = load(scans_in(tmp_path)[0]).values
    assert [float(values[4, 3, z]) for z in range(3)] == [19, 37, 55]


def test_time_points_and_stacks_are_volumes_of_their_own(tmp_path):
    frames = [
        (numbered(10 * t + z), (0, 0, 2.0 * z), {"FrameContentSequence": {"StackID": "1", "TemporalPositionIndex": t + 1}})
        for z in range(3)
        for t in (1, 0)
    ]
    frames += [
        (numbered(90 + z), (0, 0, 2.0 * z), {"FrameContentSequence": {"StackID": "2", "TemporalPositionIndex": 1}}) for z in range(3)
    ]
    save(enhanced(frames), tmp_path / "a")
    volumes = sorted(float(load(scan).values[0, 0, 0]) for scan in scans_in(tmp_path))
    assert volumes == [0, 1000, 9000]
    assert all(scan.shape == (5, 4, 3) for scan in scans_in(tmp_path))


def test_diffusion_weightings_and_echoes_are_not_stacked(tmp_path):
    frames = [(numbered(k), (0, 0, 0), {"MRDiffusionSequence": {"DiffusionBValue": b}}) for k, b in enumerate((0.0, 1000.0))]
    frames.append(
        (numbered(5), (0, 0, 0), {"MREchoSequence": {"EffectiveEchoTime": 20.5}, "MRDiffusionSequence": {"DiffusionBValue": 0.0}})
    )
    save(enhanced(frames), tmp_path / "a")
    assert sorted(float(load(scan).values[0, 0, 0]) for scan in scans_in(tmp_path)) == [0, 100, 500]


def test_frames_that_do_not_say_where_they_lie_are_left_out(tmp_path):
    data = enhanced([(numbered(k), (0, 0, k), {}) for k in range(3)])
    del data.PerFrameFunctionalGroupsSequence[2]
    [header] = read_headers(save(data, tmp_path / "a"))
    assert header.fault == "multi-frame file that does not say where its frames lie"


def test_a_truncated_enhanced_file_is_a_data_error(tmp_path):
    path = save(enhanced([(numbered(k), (0, 0, k), {}) for k in range(3)]), tmp_path / "a")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="no slice of the series can be decoded"):
        load(scans_in(tmp_path)[0])


def test_frames_of_a_compressed_file_are_decoded_one_by_one(tmp_path):
    data = enhanced([(numbered(k, np.uint16), (0, 0, k), {}) for k in range(3)])
    data.compress(pydicom.uid.RLELossless)
    save(data, tmp_path / "a")
    values = load(scans_in(tmp_path)[0]).values.numpy()
    np.testing.assert_array_equal(values, np.stack([numbered(k).T for k in range(3)], axis=-1))


def test_a_localiser_frame_is_left_out_alone(tmp_path):
    frames = [(numbered(k), (0, 0, k), {"MRImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", kind]}}) for k, kind in enumerate(("LOCALIZER", "M", "M"))]  # fmt: skip
    save(enhanced(frames), tmp_path / "a")
    found = find_scans(walk(tmp_path))
    assert [item.reason for item in found.excluded] == ["localiser"]
    assert found.scans[0].shape == (5, 4, 2)


def test_two_classic_files_and_a_multi_frame_one_share_a_folder(tmp_path):
    save(enhanced([(numbered(k), (0, 0, k), {}) for k in range(3)], SeriesInstanceUID="1.2.5"), tmp_path / "a")
    for z in range(2):
        save(dicom_slice(numbered(7), (0, 0, z), Modality="MR", SeriesInstanceUID="1.2.6"), tmp_path / f"b{z}")
    assert sorted(scan.shape for scan in scans_in(tmp_path)) == [(5, 4, 2), (5, 4, 3)]
