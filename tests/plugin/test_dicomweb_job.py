"""The job on scans of a real Orthanc: the same dataset as through a mount, and neither password, token, query nor address anywhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from plugin.xnat import ROOT
from tests.outlines import COMPLETE, write_seg
from tests.phantoms import body, ct_series, save
from tests.plugin.orthanc import PASSWORD, USER, Orthanc
from tests.plugin.test_job import PLANTED, plugin, said

TOKEN = "planted-token-4711"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A liver CT with its SEG."""
    folder = tmp_path_factory.mktemp("dicom")
    hu, liver = body()
    series = ct_series(folder / "ct", hu, **{**COMPLETE, **PLANTED})
    write_seg(folder / "seg.dcm", series, {"liver": liver}, StudyInstanceUID=PLANTED["StudyInstanceUID"], PatientID=PLANTED["PatientID"])
    return folder


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc") / "own") as running:
        running.store(path for path in folder.rglob("*") if path.is_file())
        yield running


def words(where: Path, orthanc: Orthanc, query: str) -> list[str]:
    places = ["--output", str(where / "output"), "--work", str(where / "work")]
    return [*places, "--source", "dicomweb", "--dicomweb", orthanc.url, "--query", query]


def test_dicomweb_gives_the_dataset_of_the_mount(orthanc: Orthanc, folder: Path, tmp_path: Path):
    choice = ["--size", "32", "--mask-label", "1"]
    mount = plugin("check", "--input", str(folder), "--output", str(tmp_path / "m"), "--work", str(tmp_path / "w"), *choice)
    assert re.fullmatch(r"RESULT status=checked images=8 size=32 dataset=[0-9a-f]{12}.*\n", mount.stdout), mount.stderr
    query = f"PatientID={PLANTED['PatientID']}&Modality=CT"
    done = plugin("check", *words(tmp_path, orthanc, query), *choice, DICOMWEB_USER=USER, DICOMWEB_PASS=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert done.stdout == mount.stdout
    # The scans themselves lie in the scratch folder; nothing else may name a patient, the server or who asks.
    found = said(tmp_path / "output", tmp_path / "work" / "run") + (done.stdout + done.stderr).encode()
    for secret in (*PLANTED.values(), "Muster", "Erika", USER, PASSWORD, orthanc.url, orthanc.site.removeprefix("http://"), str(tmp_path)):
        assert secret.encode() not in found, secret


@pytest.mark.slow
def test_real_ct_as_it_is_stored_gives_the_dataset_of_the_mount(scans: Path, tmp_path: Path):
    """JPEG 2000 in 20 slices and the liver as SEG; the sample has no UIDs, without which no archive takes it."""
    files = []
    for number, path in enumerate(sorted((scans / "ct_abdomen_dicom" / "series").iterdir())):
        slice = pydicom.dcmread(path)
        slice.SOPClassUID, slice.SOPInstanceUID = slice.file_meta.MediaStorageSOPClassUID, slice.file_meta.MediaStorageSOPInstanceUID
        slice.StudyInstanceUID, slice.SeriesInstanceUID, slice.PatientID = "1.2.840.4733.1", "1.2.840.4733.2", "PID9963"
        files.append(save(slice, tmp_path / "dicom" / f"{number}.dcm"))
    # The label map lies the other way round in y (README.md of the scans).
    liver = np.asarray(nibabel.load(scans / "ct_abdomen_dicom" / "liver_mask.nii.gz").dataobj)[:, ::-1]
    files.append(write_seg(tmp_path / "dicom" / "seg.dcm", files, {"liver": liver.astype(np.uint8)}))
    choice = ["--size", "64", "--mask-label", "1"]
    mount = plugin("check", "--input", str(tmp_path / "dicom"), "--output", str(tmp_path / "m"), "--work", str(tmp_path / "w"), *choice)
    assert mount.returncode == 0, mount.stderr
    with Orthanc(tmp_path / "orthanc") as orthanc:
        orthanc.store(files)
        done = plugin("check", *words(tmp_path, orthanc, "SeriesDescription=CT?Body*"), *choice, DICOMWEB_USER=USER, DICOMWEB_PASS=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert done.stdout == mount.stdout
    assert "images=20 " in done.stdout


def small(where: Path, orthanc: Orthanc, query: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The container's command line around a job that says what it was given and what a process that it starts would inherit."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("MEDGAN_", "XNAT_", "DICOMWEB_"))}
    command = [sys.executable, "-m", "tests.plugin.small", "read", "train", *words(where, orthanc, query)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, env=base | {"HOME": str(where)} | env)


def kept(where: Path) -> str:
    """Every file that a job left, results and scratch, but the scans themselves."""
    files = [path for path in where.rglob("*") if path.is_file() and "scans" not in path.parts]
    return "".join(path.read_text(errors="replace") for path in files)


def test_a_job_hands_on_neither_password_nor_token(orthanc: Orthanc, tmp_path: Path):
    query = f"StudyInstanceUID={PLANTED['StudyInstanceUID']}"
    done = small(tmp_path, orthanc, query, DICOMWEB_USER=USER, DICOMWEB_PASS=PASSWORD)
    assert done.returncode == 0, done.stderr
    seen = json.loads((tmp_path / "output" / "report" / "seen.json").read_text())
    assert len(seen["files"]) == 13
    assert "DICOMWEB_USER" in seen["environment"]
    told = done.stdout + done.stderr + kept(tmp_path)
    for secret in (PASSWORD, "DICOMWEB_PASS", "DICOMWEB_TOKEN", "Muster"):
        assert secret not in told, secret
    # The address and the query are words of the command line, which the small job shows; the log has neither.
    log = done.stderr + (tmp_path / "output" / "report" / "run.log").read_text()
    for secret in (orthanc.url, *PLANTED.values()):
        assert secret not in log, secret


@pytest.mark.parametrize("env", [{"DICOMWEB_TOKEN": TOKEN}, {"DICOMWEB_USER": "jane", "DICOMWEB_PASS": TOKEN}])
def test_a_job_that_fails_says_why_and_not_with_what(orthanc: Orthanc, tmp_path: Path, env: dict[str, str]):
    query = f"PatientID={PLANTED['PatientID']}"
    done = small(tmp_path, orthanc, query, **env)
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr.splitlines()[-1].startswith("ERROR E_DICOMWEB the DICOMweb server does not know who asks (401), while searching")
    error = json.loads((tmp_path / "output" / "report" / "error.json").read_text())
    assert (error["code"], error["exit_code"]) == ("E_DICOMWEB", 66)
    for secret in (TOKEN, "jane", PLANTED["PatientID"], orthanc.url, orthanc.site.removeprefix("http://")):
        assert secret not in done.stderr + kept(tmp_path), secret


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--source", "dicomweb"], "--source dicomweb needs the server's address"),
        (["--source", "dicomweb", "--dicomweb", "http://x"], "--source dicomweb would read all that the server has"),
        (["--dicomweb", "http://x"], "--dicomweb and --query are of --source dicomweb"),
        (
            ["--source", "dicomweb", "--dicomweb", "http://x", "--query", "Modality=CT", "--sessions", "CT*"],
            "--sessions and --scan-types choose in XNAT",
        ),
    ],
)
def test_options_that_do_not_fit_are_named_before_anything_is_touched(tmp_path: Path, given: list[str], line: str):
    base = {name: value for name, value in os.environ.items() if not name.startswith(("MEDGAN_", "XNAT_", "DICOMWEB_"))}
    command = [sys.executable, "-m", "tests.plugin.small", "read", "check", "--output", str(tmp_path / "output"), *given]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, env=base)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ERROR E_CONFIG {line}")
    assert not (tmp_path / "output").exists()
