import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from medgan.data.scans import Place, find_scans, volume_scan, walk
from medgan.data.volumes import read_volume
from medgan.errors import InputError
from tests.phantoms import affine_for, body, ct_nifti, ct_series, dicom_slice, save, write_nifti


def test_an_empty_source_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="empty"):
        walk(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        walk(tmp_path / "nowhere")


def test_an_xnat_session_tree_is_read_and_its_extras_are_not(tmp_path):
    hu, _ = body()
    for session in ("S1", "S2"):
        ct_series(tmp_path / session / "SCANS" / "2" / "DICOM" / "files", hu, PatientID="", SeriesInstanceUID="1.5", StudyInstanceUID="1.4")
        (tmp_path / session / "SCANS" / "2" / "DICOM" / "scan_2_catalog.xml").write_text("<x/>")
        ct_series(tmp_path / session / "SCANS" / "2" / "SNAPSHOTS", hu, SeriesInstanceUID="1.6")
        # What an earlier run gave back must not train the next.
        ct_series(tmp_path / session / "RESOURCES" / "MEDGAN_SYNTHETIC" / "run-1", hu, SeriesInstanceUID="1.7")
    found = find_scans(walk(tmp_path))
    # One series UID for two sessions, and no PatientID: the sessions keep them apart.
    assert sorted((scan.patient, scan.shape) for scan in found.scans) == [("S1", (32, 28, 12)), ("S2", (32, 28, 12))]
    assert found.excluded == []


def test_links_are_followed_and_loops_are_not(tmp_path):
    elsewhere, source = tmp_path / "elsewhere", tmp_path / "in"
    write_nifti(elsewhere / "deep" / "a.nii", np.zeros((4, 4, 4)), np.eye(4))
    write_nifti(source / "p1" / "b.nii", np.zeros((4, 4, 4)), np.eye(4))
    for name, target in {
        "p2": elsewhere, "p3": elsewhere, "p4": elsewhere / "deep", "p1/back": source, "up": tmp_path, "here": source / "p1",
        "self": source / "self", "self.nii": source / "self.nii", "gone.nii": source / "nothing", "c.nii": elsewhere / "deep" / "a.nii",
    }.items():  # fmt: skip
        (source / name).symlink_to(target)
    assert [place.parts for _, place in walk(source)] == [("c.nii",), ("p1", "b.nii"), ("p2", "deep", "a.nii")]


def test_what_may_not_be_opened_is_listed(tmp_path, monkeypatch):
    for name in ("open", "closed", "listed"):
        write_nifti(tmp_path / name / "a.nii", np.zeros((4, 4, 4)), np.eye(4))
    (tmp_path / "closed").chmod(0)
    (tmp_path / "listed").chmod(0o444)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    excluded = []
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        files = walk(Path(), excluded=excluded)
        with pytest.raises(InputError, match="may not be opened"):
            walk(Path("closed"))
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "closed").chmod(0o755)
        (tmp_path / "listed").chmod(0o755)
    assert [place.parts for _, place in files] == [("open", "a.nii")]
    assert [item.reason for item in excluded] == ["a file or folder that may not be opened"] * 2


def test_volumes_beside_dicom_files_of_one_patient_are_of_that_patient(tmp_path):
    hu, _ = body()
    for session, patients in {"S1": ["PID1", ""], "S2": ["PID2", "PID3"], "S3": []}.items():
        for number, patient in enumerate(patients):
            ct_series(tmp_path / session / "SCANS" / str(number) / "DICOM", hu, PatientID=patient, SeriesInstanceUID=f"1.{number}")
        ct_nifti(tmp_path / session / "SCANS" / "3" / "NIFTI", mask="")
    found = find_scans(walk(tmp_path))
    # The series of S1 without a PatientID is of the one patient named there; S2 names two, so its volume stays with the session.
    assert sorted(scan.patient for scan in found.scans) == ["PID1", "PID1", "PID2", "PID3"]
    assert [volume_scan(volume, found.patients).patient for volume in found.volumes] == ["PID1", "S2", "S3"]


@pytest.mark.parametrize(
    ("parts", "patient"),
    [
        (("S1", "SCANS", "2", "DICOM", "a"), "S1"),
        (("S1", "ASSESSORS", "A1", "seg.nii"), "S1"),
        (("SCANS", "2", "DICOM", "a"), "(session)"),
        (("RESOURCES", "MASKS", "a.nii"), "(session)"),
        (("DICOM", "a"), "(scan)"),
        (("sub-01", "ses-2", "anat", "a.nii"), "sub-01"),
        (("data", "sub-01", "a.nii"), "sub-01"),
        (("patient001", "a.nii"), "patient001"),
        (("sub-01_ses-2_T1w.nii.gz",), "sub-01"),
        (("T1", "sub-01_T1w.nii.gz"), "sub-01"),
        (("S1", "SCANS", "2", "NIFTI", "sub-01_T1w.nii.gz"), "S1"),
        (("submandibular_sub-.nii",), ""),
        (("a.nii",), ""),
    ],
)
def test_whose_a_file_is(parts, patient):
    assert Place(parts).patient == patient


def test_a_volume_with_a_bids_name_beside_dicom_files_is_of_their_patient(tmp_path):
    hu, _ = body()
    ct_series(tmp_path / "case" / "dicom", hu, PatientID="PID1")
    ct_nifti(tmp_path / "case", mask="").rename(tmp_path / "case" / "sub-01_ct.nii.gz")
    found = find_scans(walk(tmp_path))
    assert [scan.patient for scan in found.scans] == ["PID1"]
    assert [volume_scan(volume, found.patients).patient for volume in found.volumes] == ["PID1"]


def test_empty_series_uids_are_grouped_by_folder_and_geometry(tmp_path):
    hu, _ = body()
    empty = {"SeriesInstanceUID": "", "StudyInstanceUID": "", "PatientID": ""}
    ct_series(tmp_path / "a", hu, **empty)
    ct_series(tmp_path / "b", hu, **empty)
    # A coronal reformat in the same folder has other cosines.
    for y in range(3):
        pixels = np.zeros((28, 32), np.int16)
        save(dicom_slice(pixels, (0, 2.0 * y, 0), ImageOrientationPatient=[1, 0, 0, 0, 0, -1], **empty), tmp_path / "a" / f"R{y}")
    shapes = sorted(scan.shape for scan in find_scans(walk(tmp_path)).scans)
    assert shapes == [(32, 28, 3), (32, 28, 12), (32, 28, 12)]


def test_everything_left_out_has_a_reason(tmp_path):
    hu, _ = body()
    ct_series(tmp_path / "ct", hu)
    save(dicom_slice(np.zeros((4, 4), np.int16), (0, 0, 0), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), tmp_path / "ct" / "LOC")
    (tmp_path / "IM9").write_bytes(b"")
    (tmp_path / "bad.nii.gz").write_bytes(b"no gzip")
    (tmp_path / "notes.txt").write_text("kept out of the list")
    reasons = sorted(item.reason for item in find_scans(walk(tmp_path)).excluded)
    assert reasons == ["file of no known format", "header unreadable (ImageFileError)", "localiser"]


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd"])
def test_meta_image_equals_nifti(tmp_path, suffix):
    path = ct_nifti(tmp_path, codes="LAS", mask="")
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(tmp_path / f"ct{suffix}"))
    found = {volume.path.suffix: volume for volume in find_scans(walk(tmp_path)).volumes}
    (ours, affine), (nifti, nifti_affine) = read_volume(found[suffix]), read_volume(found[".gz"])
    np.testing.assert_array_equal(ours, nifti)
    np.testing.assert_allclose(affine, nifti_affine, atol=1e-5)
    np.testing.assert_allclose(found[suffix].affine, nifti_affine, atol=1e-5)


def test_one_volume_of_a_4d_file_is_read(tmp_path):
    values = np.arange(4 * 5 * 6 * 3).reshape(4, 5, 6, 3)
    path = write_nifti(tmp_path / "a_4d.nii.gz", values, affine_for("LAS", (4, 5, 6)))
    found = find_scans(walk(tmp_path))
    assert found.volumes[0].shape == (4, 5, 6, 3)
    for frame in range(3):
        read, affine = read_volume(found.volumes[0], frame)
        np.testing.assert_array_equal(read, values[..., frame])
        np.testing.assert_allclose(affine, nibabel.load(path).affine)
