"""Which scans a recipe takes, and the reason of each that it leaves out."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from medgan.data.choose import DERIVED, choose, patient_of
from medgan.data.recipe import Recipe
from medgan.data.scans import Place, find_scans, name_matches, walk
from tests.phantoms import affine_for, body, ct_series, write_nifti

CT = Recipe(name="ct", title="", source="", modality="CT", intensity="window", width=400.0)


def chosen(folder, recipe):
    files = walk(folder)
    found = find_scans(files)
    scans, masks = choose(files, found, recipe)
    reasons = Counter()
    for item in found.excluded:
        reasons[item.reason] += item.count
    return scans, masks, dict(reasons)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """One session: a thin and a thick original series, a derived one, a localiser, a reformat, a dose screen, an MR."""
    folder = tmp_path_factory.mktemp("session")
    hu, _ = body((8, 8, 4))
    original = ["ORIGINAL", "PRIMARY", "AXIAL"]
    for number, fields in enumerate(
        [
            {"SeriesDescription": "Portal 3.0", "ConvolutionKernel": ["Br38f", "3"], "SliceThickness": 3.0, "ImageType": original},
            {
                "SeriesDescription": "Thorax 1.0",
                "ConvolutionKernel": "B70f",
                "SliceThickness": 1.0,
                "ImageType": original,
                "ProtocolName": "Lung",
            },
            {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]},
            {"ImageType": ["ORIGINAL", "SECONDARY", "AXIAL"]},
            {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
            {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
            {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
            {"Modality": "MR"},
        ]
    ):
        ct_series(folder / str(number), hu, **{"SeriesInstanceUID": f"1.{number}", **fields})
    return folder


ALWAYS = {"localiser": 4, "reformat": 4, "screen capture": 4}
MR = {"modality MR, the recipe takes CT": 4}


def test_every_series_left_out_has_its_reason(session):
    scans, _, reasons = chosen(session, CT)
    assert sorted(scan.thickness_mm for scan in scans) == [1.0, 3.0]
    assert reasons == {**ALWAYS, **MR, DERIVED: 8}


@pytest.mark.parametrize(
    ("changes", "thickness", "reason"),
    [
        ({"series": "*portal*"}, [3.0], "series not called as --series asks"),
        ({"series": "lung"}, [1.0], "series not called as --series asks"),
        ({"kernel": "br38*"}, [3.0], "kernel not as --kernel asks"),
        ({"thickness_mm": (0.5, 1.5)}, [1.0], "slice thickness not as --thickness asks"),
    ],
)
def test_series_are_chosen_by_pattern_and_thickness(session, changes, thickness, reason):
    scans, _, reasons = chosen(session, dataclasses.replace(CT, **changes))
    assert [scan.thickness_mm for scan in scans] == thickness
    assert reasons == {**ALWAYS, **MR, DERIVED: 8, reason: 4}


def test_derived_series_are_taken_when_asked_for(session):
    scans, _, reasons = chosen(session, dataclasses.replace(CT, original=False))
    assert len(scans) == 4
    assert reasons == {**ALWAYS, **MR}


def four_d(folder, *, cfg="ED: 1\nES: 3\nGroup: DCM\nNbFrame: 4\n", count=4):
    values = np.random.default_rng(0).integers(0, 900, (6, 5, 3, count))
    write_nifti(folder / f"{folder.name}_4d.nii.gz", values, affine_for("LPS", (6, 5, 3)))
    if cfg:
        (folder / "Info.cfg").write_text(cfg)
    return values


FRAMES = dataclasses.replace(CT, modality="MR", intensity="minmax", frames="ed-es", files=("patient*.nii.gz",))


def test_ed_and_es_come_out_of_the_4d_file_as_info_cfg_says(tmp_path):
    four_d(tmp_path / "patient001")
    scans, _, reasons = chosen(tmp_path, FRAMES)
    assert [(scan.frame, scan.label, scan.patient) for scan in scans] == [(0, "ED", "patient001"), (2, "ES", "patient001")]
    assert reasons == {}


def test_files_of_single_frames_stand_in_for_the_4d_file(tmp_path):
    values = four_d(tmp_path / "patient001")
    write_nifti(tmp_path / "patient001" / "patient001_frame01.nii.gz", values[..., 0], affine_for("LPS", (6, 5, 3)))
    write_nifti(tmp_path / "patient001" / "patient001_frame01_gt.nii.gz", values[..., 0] > 400, affine_for("LPS", (6, 5, 3)))
    scans, _, _ = chosen(tmp_path, dataclasses.replace(FRAMES, files=("patient*_4d.nii.gz", "patient*_frame[0-9][0-9].nii.gz")))
    # ED from its own file, ES, which has none here, out of the 4-D file.
    assert sorted((scan.label, scan.frame) for scan in scans) == [("ED", -1), ("ES", 2)]


@pytest.mark.parametrize(
    ("cfg", "reason"),
    [("", "no Info.cfg beside it names its ED and ES frames"), ("ED: 1\nES: 9\n", "only 4 volumes, Info.cfg names a later one"), ("ED: x\nES: 0\n", "no Info.cfg beside it names its ED and ES frames")],
)  # fmt: skip
def test_an_info_cfg_that_does_not_fit_is_a_reason(tmp_path, cfg, reason):
    four_d(tmp_path / "patient001", cfg=cfg)
    scans, _, reasons = chosen(tmp_path, FRAMES)
    assert reasons == {reason: 1}
    assert [scan.label for scan in scans] == (["ED"] if "ES: 9" in cfg else [])


@pytest.mark.parametrize(("frames", "taken"), [("all", [0, 1, 2, 3]), ("2", [2]), ("", []), ("4", [])])
def test_volumes_of_a_4d_file(tmp_path, frames, taken):
    four_d(tmp_path, cfg="")
    scans, _, reasons = chosen(tmp_path, dataclasses.replace(CT, frames=frames))
    assert [scan.frame for scan in scans] == taken
    # Frames of one nameless file are of one patient.
    assert len({scan.patient for scan in scans}) == min(len(taken), 1)
    assert len(reasons) == (0 if taken else 1)


def test_a_patient_is_found_by_pattern_in_the_name_first():
    assert patient_of(Place(("BRATS_9", "imagesTr", "BRATS_012.nii.gz")), r"BRATS_(\d+)") == "12"
    assert patient_of(Place(("patient003", "x.nii")), r"patient(\d+)") == "3"
    assert patient_of(Place(("a", "x.nii")), r"patient(\d+)") == ""
    assert patient_of(Place(("patient0", "x.nii")), r"patient(\d+)") == "0"


def test_names_match_without_regard_to_case():
    assert name_matches("BRATS_001.NII.GZ", ("brats_*.nii.gz",))
    assert not name_matches("._BRATS_001.nii.gz", ("brats_*.nii.gz",))
    assert name_matches("anything", ())
