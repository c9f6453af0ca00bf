import numpy as np
import pytest
import torch

from medgan.data import geometry
from medgan.data.scans import find_scans, walk
from medgan.data.slices import load
from tests.phantoms import affine_for, dicom_slice, oblique, save, turned


def four_corners():
    """A volume in LPS order whose corners say where they are: 10 right front, 20 left front, 30 right back, 40 left back, + 5 at the top."""
    volume = np.zeros((6, 5, 4))
    for z, up in ((0, 0), (3, 5)):
        volume[0, 0, z], volume[5, 0, z] = 10 + up, 20 + up
        volume[0, 4, z], volume[5, 4, z] = 30 + up, 40 + up
    return volume


def corners(picture):
    return [picture[0, 0].item(), picture[0, -1].item(), picture[-1, 0].item(), picture[-1, -1].item()]


@pytest.mark.parametrize("codes", ["LAS", "RAS", "LPS", "RPI", "SAR", "PIL", "IRP"])
@pytest.mark.parametrize("degrees", [0, 20])
def test_pictures_are_as_a_radiologist_sees_them(codes, degrees):
    volume = turned(four_corners(), codes)
    affine = oblique(affine_for(codes, volume.shape), degrees)
    lps, lps_affine = geometry.towards_lps(torch.from_numpy(volume), affine)
    # Top left, top right, bottom left, bottom right; the first picture is at the feet, at the front, at the right.
    assert corners(geometry.pictures(lps, "axial")[0]) == [10, 20, 30, 40]
    assert corners(geometry.pictures(lps, "axial")[-1]) == [15, 25, 35, 45]
    assert corners(geometry.pictures(lps, "coronal")[0]) == [15, 25, 10, 20]
    assert corners(geometry.pictures(lps, "sagittal")[0]) == [15, 35, 10, 30]
    if degrees == 0:
        assert geometry.orientation_name(lps_affine) == "LPS"


@pytest.mark.parametrize("codes", ["LAS", "SAR"])
def test_turning_keeps_every_voxel_where_it_is(codes):
    volume = turned(four_corners(), codes)
    affine = oblique(affine_for(codes, volume.shape, (0.7, 1.1, 3.0)), 15)
    lps, lps_affine = geometry.towards_lps(torch.from_numpy(volume), affine)
    for value in (10, 45):
        before = affine @ [*np.argwhere(volume == value)[0], 1]
        after = lps_affine @ [*np.argwhere(lps.numpy() == value)[0], 1]
        np.testing.assert_allclose(before, after, atol=1e-9)


def test_spacing_follows_the_plane():
    assert geometry.picture_spacing((0.7, 0.8, 3.0), "axial") == (3.0, 0.8, 0.7)
    assert geometry.picture_spacing((0.7, 0.8, 3.0), "coronal") == (0.8, 3.0, 0.7)
    assert geometry.picture_spacing((0.7, 0.8, 3.0), "sagittal") == (0.7, 3.0, 0.8)


def test_padding_centres_and_does_not_stretch():
    padded = geometry.square(np.ones((3, 7)), (1.0, 1.0))
    assert padded.shape == (7, 7)
    assert padded.sum() == 21
    assert padded[2:5].all()
    # 10 rows of 3 mm and 20 columns of 1 mm are 30 x 20 mm: 10 more columns make 30 mm each way.
    assert geometry.square(np.ones((10, 20)), (3.0, 1.0)).shape == (10, 30)


def test_a_circle_stays_a_circle_when_pixels_are_no_squares():
    y, x = np.mgrid[:40, :120]
    disc = (((y - 19.5) * 3.0) ** 2 + (x - 59.5) ** 2 < 50**2).astype(np.float32)
    picture = geometry.resize(geometry.square(disc, (3.0, 1.0)), 64) > 0.5
    height, width = np.ptp(np.flatnonzero(picture.any(1))), np.ptp(np.flatnonzero(picture.any(0)))
    assert abs(int(height) - int(width)) <= 2


def test_resizing_antialiases_and_keeps_the_range():
    stripes = np.tile([0.0, 1.0], (64, 32)).astype(np.float32)
    small = geometry.resize(stripes, 16)
    # Picking every fourth pixel would give all 0 or all 1.
    np.testing.assert_allclose(small[:, 2:-2], 0.5, atol=0.02)
    edge = np.zeros((64, 64), np.float32)
    edge[:, 32:] = 1
    assert geometry.resize(edge, 32).min() >= 0
    assert geometry.resize(edge, 32).max() <= 1


def test_the_same_size_is_left_alone():
    image = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    assert geometry.resize(image, 32) is image


# Row cosines, column cosines (ImageOrientationPatient, LPS), and the anatomical directions of columns, rows and ascending slices.
DICOM_PLANES = {
    "axial": ([1, 0, 0, 0, 1, 0], "LPS"),
    "axial from above": ([-1, 0, 0, 0, 1, 0], "RPI"),
    "prone": ([-1, 0, 0, 0, -1, 0], "RAS"),
    "coronal": ([1, 0, 0, 0, 0, -1], "LIP"),
    "sagittal": ([0, 1, 0, 0, 0, -1], "PIR"),
}


@pytest.mark.parametrize("plane", DICOM_PLANES)
@pytest.mark.parametrize("degrees", [0, 20])
def test_dicom_pictures_are_as_a_radiologist_sees_them(tmp_path, plane, degrees):
    """A four-corner phantom written as DICOM slices in shuffled order, straight and oblique, read as `prepare` reads it."""
    cosines, codes = DICOM_PLANES[plane]
    volume = turned(four_corners(), codes)
    affine = oblique(affine_for(codes, volume.shape), degrees) * np.array([[-1], [-1], [1], [1]])
    across = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    # The normal that a reader derives is the one the slices are counted along.
    np.testing.assert_allclose(np.cross(across[:, 0], across[:, 1]), across[:, 2], atol=1e-9)
    if degrees == 0:
        np.testing.assert_allclose([*across[:, 0], *across[:, 1]], cosines, atol=1e-9)
    for number, z in enumerate(np.random.default_rng(1).permutation(volume.shape[2])):
        fields = {
            "ImageOrientationPatient": [float(f"{v:.9f}") for v in (*across[:, 0], *across[:, 1])],
            "PixelSpacing": [float(np.linalg.norm(affine[:3, 1])), float(np.linalg.norm(affine[:3, 0]))],
            "InstanceNumber": number + 1,
        }
        position = affine[:3, 3] + z * affine[:3, 2]
        data = dicom_slice(volume[:, :, z].T.astype(np.int16), [float(f"{v:.6f}") for v in position], **fields)
        save(data, tmp_path / "s" / f"{number}")
    (scan,) = find_scans(walk(tmp_path)).scans
    loaded = load(scan)
    lps, _ = geometry.towards_lps(loaded.values, loaded.affine)
    assert corners(geometry.pictures(lps, "axial")[0]) == [10, 20, 30, 40]
    assert corners(geometry.pictures(lps, "axial")[-1]) == [15, 25, 35, 45]
    assert corners(geometry.pictures(lps, "coronal")[0]) == [15, 25, 10, 20]
    assert corners(geometry.pictures(lps, "sagittal")[0]) == [15, 35, 10, 30]


def test_padding_alone_leaves_every_pixel():
    picture = np.random.default_rng(0).random((20, 14)).astype(np.float32)
    padded = geometry.fit(picture, (1.5, 1.5), 32, "pad")
    assert padded.shape == (32, 32)
    np.testing.assert_array_equal(padded[6:26, 9:23], picture)
    assert padded.sum() == pytest.approx(picture.sum())
    assert geometry.upsampling((20, 14), 32, "pad") == 1.0
    assert geometry.upsampling((20, 14), 32) == 1.6


def test_padding_alone_scales_what_is_too_large_or_not_square():
    assert geometry.fit(np.ones((40, 30), np.float32), (1.0, 1.0), 32, "pad").shape == (32, 32)
    # Rows of 2 mm and columns of 1 mm: 10 rows become 20, so that a millimetre is a pixel both ways.
    filled = geometry.fit(np.ones((10, 20), np.float32), (2.0, 1.0), 32, "pad") > 0.5
    assert (np.flatnonzero(filled.any(1)).size, np.flatnonzero(filled.any(0)).size) == (20, 20)


@pytest.mark.parametrize("how", ["resize", "pad"])
def test_colour_channels_are_fitted_alike(how):
    picture = np.random.default_rng(0).random((20, 14, 3)).astype(np.float32)
    together = geometry.fit(picture, (1.0, 1.0), 32, how)
    for channel in range(3):
        np.testing.assert_array_equal(together[..., channel], geometry.fit(picture[..., channel], (1.0, 1.0), 32, how))


@pytest.mark.parametrize(("pixels", "size"), [(28, 28), (29, 32), (128, 128), (224, 256), (1024, 1024), (3000, 1024)])
def test_the_next_size_a_network_takes(pixels, size):
    assert geometry.next_size(pixels) == size


def test_only_coarse_slices_cut_across_are_warned_of():
    coarse = affine_for("LPS", (9, 9, 9), (1.0, 1.0, 8.0))
    assert geometry.notes_on_plane(coarse, "axial") == []
    assert geometry.notes_on_plane(coarse, "stored") == []
    assert [note.endswith("8 mm apart") for note in geometry.notes_on_plane(coarse, "coronal")] == [True]
    assert geometry.notes_on_plane(affine_for("LPS", (9, 9, 9), (1.0, 1.0, 1.5)), "coronal") == []


def test_what_is_stored_is_not_turned(tmp_path):
    volume = four_corners()
    assert corners(geometry.pictures(torch.from_numpy(volume), "stored")[0]) == [10, 20, 30, 40]
