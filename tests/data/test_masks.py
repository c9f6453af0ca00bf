import numpy as np
import pytest

from medgan.data.masks import coverage, label_map, labels_of, match, resample_labels
from medgan.data.scans import find_scans, volume_scan, walk
from tests.phantoms import affine_for, body, ct_nifti, oblique, turned, write_nifti


def find(folder):
    """Scans and label maps below a folder."""
    volumes = find_scans(walk(folder)).volumes
    masks = {volume.path.name: mask for volume in volumes if (mask := label_map(volume))}
    return [volume_scan(volume) for volume in volumes if volume.path.name not in masks], list(masks.values())


@pytest.mark.parametrize("codes", ["LAS", "RPI", "SAR"])
def test_a_mask_on_a_flipped_grid_lands_where_the_organ_is(codes):
    hu, liver = body()
    affine = affine_for("LPS", hu.shape)
    other = turned(liver, codes)
    # Spacing along each axis of the other grid follows its anatomical direction: 2 mm head to foot.
    spacing = tuple(2.0 if code in "SI" else 1.0 for code in codes)
    moved = resample_labels(other, affine_for(codes, other.shape, spacing), hu.shape, affine, None)
    np.testing.assert_array_equal(moved, liver)
    assert set(hu[moved > 0]) == {60.0}


def test_a_finer_grid_is_resampled_to_the_nearest_label():
    hu, liver = body()
    fine = np.kron(liver, np.ones((2, 2, 2), np.uint8))
    affine = affine_for("LPS", hu.shape)
    fine_affine = affine @ np.array([[0.5, 0, 0, -0.25], [0, 0.5, 0, -0.25], [0, 0, 0.5, -0.25], [0, 0, 0, 1]])
    np.testing.assert_array_equal(resample_labels(fine, fine_affine, hu.shape, affine, None), liver)


def test_resampling_matches_simple_itk_on_an_oblique_grid():
    import SimpleITK

    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, (9, 8, 7)).astype(np.uint8)
    labels_affine = oblique(affine_for("RAS", labels.shape, (2.0, 2.0, 3.0)), 17)
    shape, affine = (12, 11, 10), affine_for("LPS", (12, 11, 10), (1.3, 1.7, 2.1))

    def itk(array, affine):
        image = SimpleITK.GetImageFromArray(array.T)
        lps = np.diag([-1, -1, 1, 1]) @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        return image

    theirs = SimpleITK.Resample(
        itk(labels, labels_affine), itk(np.zeros(shape, np.uint8), affine), SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0
    )
    ours = resample_labels(labels, labels_affine, shape, affine, None)
    np.testing.assert_array_equal(ours, SimpleITK.GetArrayFromImage(theirs).T)
    assert ours.any()


def test_missing_slices_take_the_label_of_their_own_place():
    hu, liver = body()
    affine = affine_for("LPS", hu.shape)
    kept = [0, 1, 2, 7, 8, 11]
    origins = affine[:3, 3] + np.array(kept)[:, None] * affine[:3, 2]
    moved = resample_labels(liver, affine, (32, 28, 6), affine, origins)
    np.testing.assert_array_equal(moved, liver[:, :, kept])


def test_label_maps_are_told_from_scans():
    _, liver = body()
    assert labels_of(liver) == (1,)
    assert labels_of(liver.astype(np.float32) * 5) == (5,)
    assert labels_of(body()[0]) is None
    assert labels_of(liver * 0.5) is None
    noise = np.random.default_rng(0).integers(0, 200, (20, 20, 20))
    assert labels_of(noise) is None, "an 8-bit scan"
    assert labels_of(np.zeros((4, 4, 4))) == ()


def test_a_mask_elsewhere_is_not_matched_whatever_its_name(tmp_path):
    ct_nifti(tmp_path, "liver_001.nii.gz", mask="")
    _, liver = body()
    affine = affine_for("RAS", liver.shape)
    affine[2, 3] += 500
    write_nifti(tmp_path / "liver_001_mask.nii.gz", turned(liver, "RAS"), affine, dtype=np.uint8)
    scans, masks = find(tmp_path)
    [found] = match(scans, masks, 1)
    assert found.mask is None
    assert found.reason == "no label map lies where the scan lies"


def test_of_several_masks_the_one_with_the_label_wins(tmp_path):
    ct_nifti(tmp_path, mask="a_all.nii.gz", label=5)
    _, liver = body()
    both = turned(liver, "RAS")
    both[:3] = 2
    write_nifti(tmp_path / "b_spleen.nii.gz", both, affine_for("RAS", both.shape), dtype=np.uint8)
    write_nifti(tmp_path / "c_liver.nii.gz", turned(liver, "RAS"), affine_for("RAS", liver.shape), dtype=np.uint8)
    scans, masks = find(tmp_path)
    assert match(scans, masks, 5)[0].mask.path.name == "a_all.nii.gz"
    assert match(scans, masks, 5)[0].warning == ""
    # Label 1 is in two: the map of one organ is meant, and the choice is said.
    assert match(scans, masks, 1)[0].mask.path.name == "c_liver.nii.gz"
    assert match(scans, masks, 1)[0].warning == "2 label maps hold label 1: took the one with 1 label"
    nothing = match(scans, masks, 9)[0]
    assert nothing.mask is None
    assert nothing.labels_seen == (1, 2, 5)


def test_names_choose_among_masks_that_all_fit_in_space(tmp_path):
    # Two patients on one grid, as after registration: space alone cannot tell their masks apart.
    for patient in ("001", "002"):
        ct_nifti(tmp_path / "imagesTr", f"liver_{patient}.nii.gz", mask="", shift=int(patient))
        _, liver = body()
        write_nifti(tmp_path / "labelsTr" / f"liver_{patient}.nii.gz", turned(liver, "RAS"), affine_for("RAS", liver.shape), dtype=np.uint8)
    volumes = find_scans(walk(tmp_path)).volumes
    scans = [volume_scan(v) for v in volumes if v.place.folders == ("imagesTr",)]
    masks = [label_map(v) for v in volumes if v.place.folders == ("labelsTr",)]
    for scan, found in zip(scans, match(scans, masks, 1), strict=True):
        assert found.mask.place.name == scan.place.name


def test_a_mask_that_fits_two_patients_equally_is_given_to_neither(tmp_path):
    for patient in ("a", "b"):
        ct_nifti(tmp_path / patient, mask="", shift=ord(patient))
    _, liver = body()
    write_nifti(tmp_path / "liver.nii.gz", turned(liver, "RAS"), affine_for("RAS", liver.shape), dtype=np.uint8)
    scans, masks = find(tmp_path)
    assert [found.reason for found in match(scans, masks, 1)] == ["its label map fits scans of several patients equally"] * 2


def test_files_of_nobody_in_particular_do_not_share_a_mask(tmp_path):
    # Two volumes on one grid in one folder: whether of one patient or of two is not known.
    for name, shift in (("one.nii", 1), ("ten.nii", 2)):
        ct_nifti(tmp_path, name, mask="", shift=shift)
    _, liver = body()
    write_nifti(tmp_path / "liver.nii", turned(liver, "RAS"), affine_for("RAS", liver.shape), dtype=np.uint8)
    scans, masks = find(tmp_path)
    assert [found.mask for found in match(scans, masks, 1)] == [None, None]


def test_a_name_that_begins_another_is_not_taken_for_it(tmp_path):
    for i, name in enumerate(("p1_a.nii", "p10_a.nii")):
        ct_nifti(tmp_path, name, mask="", shift=i)
    _, liver = body()
    write_nifti(tmp_path / "p10_liver.nii", turned(liver, "RAS"), affine_for("RAS", liver.shape), dtype=np.uint8)
    scans, masks = find(tmp_path)
    assert {scan.place.name: bool(found.mask) for scan, found in zip(scans, match(scans, masks, 1), strict=True)} == {
        "p1_a.nii": False,
        "p10_a.nii": True,
    }


def test_coverage_of_a_half_shifted_box():
    affine = np.eye(4)
    shifted = np.eye(4)
    shifted[0, 3] = 5
    assert coverage((10, 10, 10), affine, (10, 10, 10), affine) == 1
    assert coverage((10, 10, 10), affine, (10, 10, 10), shifted) == pytest.approx(0.5)
