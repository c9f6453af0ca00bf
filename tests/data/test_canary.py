"""What identifies a patient is planted everywhere a scan can carry it, and looked for in everything that comes out."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.outlines import ct_to_outline, write_seg
from tests.phantoms import affine_for, body, dicom_slice, save, turned, write_nifti
from tests.planted import FAILURES, SECRETS

ROOT = Path(__file__).resolve().parents[2]
TRACES = ("canary", *(SECRETS[name] for name in ("birth date", "study date", "study uid", "series uid")), "1.2.840.99999")
HEADER = {
    "PatientName": SECRETS["name"], "PatientID": SECRETS["id"], "StudyInstanceUID": SECRETS["study uid"], "SeriesInstanceUID": SECRETS["series uid"],
    "SeriesDescription": SECRETS["description"], "InstitutionName": "CANARYHOSPITAL", "ProtocolName": "CANARYPROTOCOL", "StationName": "CANARYSTATION",
}  # fmt: skip


def plant(folder):
    """A patient as DICOM with a SEG, one in a zip, and files that cannot be read."""
    hu, liver = body()
    here = folder / SECRETS["folder"]
    files = ct_to_outline(here / "DICOM", hu, **HEADER)
    for path in files:
        data = dicom_of(path)
        data.AccessionNumber, data.PatientBirthDate, data.StudyDate = SECRETS["accession"], SECRETS["birth date"], SECRETS["study date"]
        data.private_block(0x0011, "CANARYCREATOR", create=True).add_new(1, "LO", SECRETS["private tag"])
        save(data, path.with_name(f"{SECRETS['file']}{path.name}"))
        path.unlink()
    files = sorted((here / "DICOM").iterdir())
    write_seg(here / f"{SECRETS['mask']}.dcm", files, {"Liver": liver, SECRETS["mask"]: liver})
    files[6].write_bytes(files[6].read_bytes()[:-100])
    save(
        dicom_slice(np.zeros((4, 4), np.int16), (0, 0, 0), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **HEADER),
        here / f"{SECRETS['file']}LOC",
    )
    (here / f"{SECRETS['file']}.nii").write_bytes(b"torn")
    (here / f"{SECRETS['file']}.mhd").write_text(f"ObjectType = Image\nElementDataFile = /home/{SECRETS['name']}/x.raw\n")
    inner = folder / "inner"
    other, liver = body(shift=9)
    affine = affine_for("RAS", other.shape)
    write_nifti(inner / "a.nii.gz", turned(other, "RAS"), affine, description=SECRETS["descrip"])
    write_nifti(inner / "b.nii", turned(liver, "RAS"), affine, dtype=np.uint8, description=SECRETS["descrip"])
    with zipfile.ZipFile(folder / f"{SECRETS['file']}.zip", "w") as archive:
        archive.write(inner / "a.nii.gz", f"{SECRETS['zip member']}/{SECRETS['file']}.nii.gz")
        archive.write(inner / "b.nii", f"{SECRETS['zip member']}/{SECRETS['mask']}.nii")
        archive.writestr(f"../{SECRETS['zip member']}", b"x")
    for path in inner.iterdir():
        path.unlink()
    inner.rmdir()


def dicom_of(path):
    from tests.phantoms import read_dicom

    return read_dicom(path)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("canary") / "CANARYSOURCE"
    plant(folder)
    return folder


def run(program, failure, *words):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MEDGAN_", "XNAT_"))}
    return subprocess.run(
        [sys.executable, "-m", "tests.planted", program, *words], capture_output=True, text=True, cwd=ROOT, timeout=200,
        env={**env, "FORCED_FAILURE": failure},
    )  # fmt: skip


def nothing_of_it_in(result, folder):
    said = result.stdout + result.stderr
    assert "Traceback" not in said
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    names = " ".join(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    for trace in TRACES:
        assert trace not in said.lower()
        assert trace not in names.lower()
        assert [name for name, content in contents.items() if trace.encode() in content.lower()] == []


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES)
def test_no_identity_leaves_prepare_whatever_fails(source, tmp_path, failure):
    words = ["--mask-name", "liver", "--mask-label", "1", "--size", "32", "--workers", "2" if failure == "crash" else "1"]
    result = run("medgan", failure, "prepare", str(source), str(tmp_path / "out" / "o.zip"), *words)
    nothing_of_it_in(result, tmp_path / "out")
    if failure == "none":
        assert (result.returncode, '"patients": 2' in result.stdout) == (0, True), result.stderr
        assert '"kept": 15' in result.stdout
    elif result.returncode:
        assert result.stderr.strip().splitlines()[-1].startswith("ERROR E_")


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["none", "walk", "pixels", "json", "rename"])
def test_no_identity_leaves_the_plugin_whatever_fails(source, tmp_path, failure):
    places = ["--input", str(source), "--output", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    result = run("plugin", failure, "check", *places, "--mask-name", "liver", "--mask-label", "1", "--size", "32")
    nothing_of_it_in(result, tmp_path / "out")
    if failure == "none":
        assert result.returncode == 0, result.stderr
    else:
        assert result.returncode
        assert result.stderr.strip().splitlines()[-1].startswith("ERROR E_")


def test_an_unknown_label_names_no_mask(source, tmp_path):
    result = run("medgan", "none", "prepare", str(source), str(tmp_path / "out" / "o.zip"), "--mask-name", "kidney", "--size", "32")
    assert result.returncode == 65
    assert "labels seen: 1, liver, tissue, 1 other names" in result.stderr or "labels seen: liver, tissue, 1 other names" in result.stderr
    nothing_of_it_in(result, tmp_path / "out")
