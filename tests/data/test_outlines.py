import numpy as np
import pytest
import SimpleITK

from medgan.data.contours import _inside, fill
from medgan.data.dataset import open_dataset
from medgan.data.masks import label_map, label_on_grid, match, plain
from medgan.data.prepare import PrepareConfig, prepare
from medgan.data.scans import find_scans, walk
from medgan.data.segmentations import read_segments
from medgan.errors import DataError
from tests.outlines import box, ct_to_outline, outline_of, write_rtstruct, write_seg
from tests.phantoms import affine_for, body, oblique

HU, LIVER = body()
SPLEEN = np.zeros_like(LIVER)
SPLEEN[22:26, 10:14, 6:9] = 1
AFFINE = affine_for("LPS", HU.shape)


def outlines_in(folder):
    """Scans and outlines below a folder."""
    found = find_scans(walk(folder))
    return found.scans, [label_map(volume) for volume in found.volumes]


@pytest.mark.parametrize("omit_empty", [True, False])
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_a_seg_covers_the_organ_it_was_made_of(tmp_path, kind, omit_empty):
    files = ct_to_outline(tmp_path / "ct", HU)
    write_seg(tmp_path / "seg", files, {"Spleen": SPLEEN, "Liver": LIVER}, kind=kind, omit_empty=omit_empty)
    [scan], [mask] = outlines_in(tmp_path)
    assert (mask.labels, mask.kind, [words[0] for words in mask.names]) == ((1, 2), "SEG", ["spleen", "liver"])
    for number, organ in ((1, SPLEEN), (2, LIVER)):
        np.testing.assert_array_equal(label_on_grid(mask, (number,), scan.shape, scan.affine, None), organ)


def test_a_fraction_counts_from_one_half_on(tmp_path):
    files = ct_to_outline(tmp_path / "ct", HU)
    half = LIVER.astype(np.float32)
    half[LIVER > 0] = 0.4
    half[4:8][LIVER[4:8] > 0] = 0.6
    inside, _ = read_segments(write_seg(tmp_path / "seg", files, {"Liver": half}, kind="FRACTIONAL"), (1,))
    expected = (half > 0.5)[:, :, 4:].astype(np.uint8)
    np.testing.assert_array_equal(inside, expected)


def test_a_seg_with_missing_frames_in_the_middle_stays_in_place(tmp_path):
    files = ct_to_outline(tmp_path / "ct", HU)
    gap = LIVER.copy()
    gap[:, :, 6:9] = 0
    write_seg(tmp_path / "seg", files, {"Liver": gap})
    [scan], [mask] = outlines_in(tmp_path)
    np.testing.assert_array_equal(label_on_grid(mask, (1,), scan.shape, scan.affine, None), gap)


def test_a_seg_in_another_frame_of_reference_is_not_matched(tmp_path):
    files = ct_to_outline(tmp_path / "ct", HU)
    write_seg(tmp_path / "seg", files, {"Liver": LIVER}, FrameOfReferenceUID="1.2.3.77")
    scans, masks = outlines_in(tmp_path)
    [found] = match(scans, masks, 1)
    assert (found.mask, found.reason) == (None, "no label map lies where the scan lies")


def test_a_seg_goes_to_the_series_it_was_drawn_on(tmp_path):
    # Two series of one patient on one grid, as the phases of a contrast CT.
    first = ct_to_outline(tmp_path / "1", HU, SeriesInstanceUID="1.2.3.1.1")
    ct_to_outline(tmp_path / "2", HU + 1, SeriesInstanceUID="1.2.3.1.2")
    write_seg(tmp_path / "1" / "seg", first, {"Liver": LIVER})
    scans, masks = outlines_in(tmp_path)
    assert {scan.series.split("/")[1]: bool(found.mask) for scan, found in zip(scans, match(scans, masks, 1), strict=True)} == {
        "1.2.3.1.1": True,
        "1.2.3.1.2": False,
    }


def test_labels_are_found_by_name_where_they_have_one(tmp_path):
    files = ct_to_outline(tmp_path / "ct", HU)
    write_seg(tmp_path / "seg", files, {"Spleen": SPLEEN, "LIVER_": LIVER})
    scans, masks = outlines_in(tmp_path)
    # A recipe's label 1 means the liver in volume files; in this SEG number 1 is the spleen.
    assert match(scans, masks, 1, "liver")[0].labels == (2,)
    assert match(scans, masks, 1)[0].labels == (1,)
    nothing = match(scans, masks, 1, "kidney")[0]
    assert (nothing.mask, nothing.labels_seen, nothing.names_seen) == (None, (), ("liver", "spleen", "tissue"))


def test_names_are_compared_in_plain_words():
    assert plain("  Liver_1 (Left)") == plain("liver-1 LEFT") == "liver 1 left"


def test_a_rectangle_holds_the_pixels_whose_centres_it_holds():
    # From 1.5 to 4.5 across and 0.5 to 2.5 down: columns 2, 3, 4 and rows 1, 2.
    inside = _inside([np.array(box(1.5, 0.5, 4.5, 2.5))], (6, 4))
    assert np.argwhere(inside).tolist() == [[2, 1], [2, 2], [3, 1], [3, 2], [4, 1], [4, 2]]


def test_filling_matches_matplotlib_on_a_star():
    from matplotlib.path import Path

    angles = np.linspace(0, 2 * np.pi, 12)[:-1]
    radii = np.where(np.arange(11) % 2, 17.3, 6.1)
    star = np.stack([20.37 + radii * np.cos(angles), 19.61 + radii * np.sin(angles)], axis=1)
    points = np.stack(np.meshgrid(np.arange(41), np.arange(40), indexing="ij"), axis=-1).reshape(-1, 2)
    theirs = Path(np.vstack([star, star[:1]]), closed=True).contains_points(points).reshape(41, 40)
    np.testing.assert_array_equal(_inside([star], (41, 40)), theirs)


@pytest.mark.parametrize("form", ["two outlines", "xor", "keyhole"])
def test_a_hole_is_a_hole(tmp_path, form):
    outer, inner = box(1.5, 1.5, 10.5, 10.5), box(4.5, 4.5, 7.5, 7.5)
    if form == "keyhole":
        # Out to the hole and back along the same line (PS3.3 C.8.8.6.3).
        polygons = [[*outer, outer[0], inner[0], *reversed(inner[1:]), inner[0], outer[0]]]
    else:
        polygons = [outer, inner]
    kind = "CLOSED_PLANAR_XOR" if form == "xor" else "CLOSED_PLANAR"
    path = write_rtstruct(tmp_path / "rt.dcm", {"Ring": [outline_of(p, AFFINE, 3) for p in polygons]}, kind=kind)
    filled = fill(path, (1,), HU.shape, AFFINE, None)
    expected = np.zeros(HU.shape, np.uint8)
    expected[2:11, 2:11, 3] = 1
    expected[5:8, 5:8, 3] = 0
    np.testing.assert_array_equal(filled, expected)


def liver_outlines(affine, slices=range(4, 12)):
    columns, rows = np.nonzero(LIVER[:, :, 6])
    return [outline_of(box(columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5), affine, z) for z in slices]


@pytest.mark.parametrize("degrees", [0, 25])
def test_an_rtstruct_covers_the_organ_on_oblique_slices_too(tmp_path, degrees):
    affine = oblique(AFFINE, degrees)
    path = write_rtstruct(tmp_path / "rt.dcm", {"Liver": liver_outlines(affine)})
    np.testing.assert_array_equal(fill(path, (1,), HU.shape, affine, None), LIVER)


def test_slices_between_outlines_take_the_nearest(tmp_path):
    # Drawn on every second slice: 4, 6, 8, 10 fill 4 to 11 (halves reach to both sides, 11 lies half a step beyond 10).
    path = write_rtstruct(tmp_path / "rt.dcm", {"Liver": liver_outlines(AFFINE, range(4, 12, 2))})
    filled = fill(path, (1,), HU.shape, AFFINE, None)
    assert np.flatnonzero(filled.any((0, 1))).tolist() == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    np.testing.assert_array_equal(filled[:, :, 4:], LIVER[:, :, 4:])


def test_two_parts_of_an_organ_far_apart_are_not_joined(tmp_path):
    path = write_rtstruct(tmp_path / "rt.dcm", {"Node": liver_outlines(AFFINE, (1, 10))})
    assert np.flatnonzero(fill(path, (1,), HU.shape, AFFINE, None).any((0, 1))).tolist() == [1, 10]


def test_outlines_finer_than_the_slices_lie_on_their_slice(tmp_path):
    path = write_rtstruct(tmp_path / "rt.dcm", {"Liver": liver_outlines(AFFINE, np.arange(4, 11.01, 0.5))})
    np.testing.assert_array_equal(fill(path, (1,), HU.shape, AFFINE, None), LIVER)


def test_outlines_across_the_slices_match_simple_itk(tmp_path):
    # The organ was outlined on axial slices; the scan is sagittal and turned by 12 degrees.
    path = write_rtstruct(tmp_path / "rt.dcm", {"Liver": liver_outlines(AFFINE)})
    shape, affine = (25, 20, 16), oblique(affine_for("PIL", (25, 20, 16), (1.1, 1.3, 1.7)), 12)

    def itk(array, affine):
        image = SimpleITK.GetImageFromArray(array.T)
        lps = np.diag([-1, -1, 1, 1]) @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        return image

    theirs = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(
            itk(LIVER, AFFINE), itk(np.zeros(shape, np.uint8), affine), SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0
        )
    ).T
    ours = fill(path, (1,), shape, affine, None)
    # Nearest of 1 mm pixels twice: surfaces differ by a voxel here and there.
    dice = 2 * np.sum(ours & theirs) / (ours.sum() + theirs.sum())
    assert theirs.sum() > 200
    assert dice > 0.9


def test_a_missing_slice_does_not_shift_the_outlines(tmp_path):
    path = write_rtstruct(tmp_path / "rt.dcm", {"Liver": liver_outlines(AFFINE)})
    kept = [0, 3, 4, 5, 8, 11]
    origins = AFFINE[:3, 3] + np.array(kept)[:, None] * AFFINE[:3, 2]
    uneven = AFFINE.copy()
    uneven[:3, 2] = (origins[-1] - origins[0]) / 5
    np.testing.assert_array_equal(fill(path, (1,), (32, 28, 6), uneven, origins), LIVER[:, :, kept])


def test_an_rtstruct_is_matched_to_its_series(tmp_path):
    ct_to_outline(tmp_path / "ct", HU)
    write_rtstruct(tmp_path / "rt.dcm", {"Liver": liver_outlines(AFFINE)}, first=7)
    scans, masks = outlines_in(tmp_path)
    [found] = match(scans, masks, 1, "liver")
    assert (found.labels, found.mask.kind) == ((7,), "RTSTRUCT")
    write_rtstruct(tmp_path / "rt.dcm", {"Liver": liver_outlines(AFFINE)}, space="1.2.3.55")
    scans, masks = outlines_in(tmp_path)
    assert match(scans, masks, 1, "liver")[0].mask is None


@pytest.mark.parametrize(
    ("organs", "reason"),
    [
        ({}, "no closed outline"),
        ({"Liver": [np.array([[0.0, 0, 0], [1, 1, 1]])]}, "outline of the RT-STRUCT is broken"),
        ({"Liver": [np.array([[0.0, 0, 0], [9000, 0, 0], [0, 9, 0]])]}, "farther than a patient"),
    ],
)
def test_broken_outlines_are_a_reason(tmp_path, organs, reason):
    write_rtstruct(tmp_path / "rt.dcm", organs)
    [volume] = find_scans(walk(tmp_path)).volumes
    with pytest.raises(DataError, match=reason):
        label_map(volume)


def small(**settings):
    return PrepareConfig(**{"size": 32, "workers": 1, **settings})


def test_an_xnat_session_with_its_assessors(tmp_path):
    session = tmp_path / "in" / "SESSION_01"
    files = ct_to_outline(session / "SCANS" / "2" / "DICOM" / "files", HU)
    write_seg(session / "ASSESSORS" / "SEG_20260101" / "SEG" / "seg.dcm", files, {"Spleen": SPLEEN, "Liver": LIVER})
    reference = prepare(small(), tmp_path / "in", tmp_path / "seg.zip")
    assert (reference["kept"], reference["dropped"]) == (8, {"slice without the label": 4})
    assert prepare(small(mask_name="SPLEEN"), tmp_path / "in", tmp_path / "spleen.zip")["kept"] == 3
    assert prepare(small(mask_label=1), tmp_path / "in", tmp_path / "number.zip")["kept"] == 3
    (session / "ASSESSORS" / "SEG_20260101" / "SEG" / "seg.dcm").unlink()
    write_rtstruct(session / "ASSESSORS" / "RT_1" / "RTSTRUCT" / "rt.dcm", {"Body": [], "Liver": liver_outlines(AFFINE)})
    assert prepare(small(), tmp_path / "in", tmp_path / "rt.zip")["kept"] == 8
    images = [open_dataset(tmp_path / f"{name}.zip").images(slice(None)) for name in ("seg", "rt")]
    np.testing.assert_array_equal(*images)


def test_an_unknown_name_lists_those_of_anatomy_and_counts_the_others(tmp_path):
    files = ct_to_outline(tmp_path / "in" / "ct", HU)
    write_seg(tmp_path / "in" / "seg", files, {"Spleen": SPLEEN, "Canary Anna": LIVER})
    with pytest.raises(DataError, match='no voxel of "kidney"; labels seen: spleen, tissue, 1 other names') as caught:
        prepare(small(mask_name="kidney"), tmp_path / "in", tmp_path / "out.zip")
    assert caught.value.fix == '--mask-name "spleen"'
    assert "canary" not in caught.value.line.lower()


def test_a_seg_with_broken_pixels_costs_its_scan_and_says_so(tmp_path):
    files = ct_to_outline(tmp_path / "in" / "ct", HU)
    path = write_seg(tmp_path / "in" / "seg", files, {"Liver": LIVER})
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"0 of 12 slices kept: .*unreadable"):
        prepare(small(), tmp_path / "in", tmp_path / "out.zip")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"0 of 12 slices kept: .*SEG unreadable|no label map"):
        prepare(small(), tmp_path / "in", tmp_path / "out.zip")
