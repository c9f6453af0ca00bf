"""The true job behind the container's command line: an XNAT session of phantoms, and each kind of bad input with its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from plugin.container import RESOURCES
from plugin.xnat import ROOT
from tests.phantoms import affine_for, body, ct_series, turned, write_nifti

# Everything here may name a patient: header values, XNAT's session label, the folder the scans came from.
PLANTED = {"PatientName": "Muster^Erika", "PatientID": "PID7741", "AccessionNumber": "ACC5519", "StudyInstanceUID": "1.2.840.4711.1", "SeriesInstanceUID": "1.2.840.4711.2"}  # fmt: skip
SESSION = "Erika_CT_2019"


def plugin(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith(("MEDGAN_", "XNAT_"))}
    return subprocess.run(
        [sys.executable, "-m", "plugin", *words], capture_output=True, text=True, cwd=ROOT, timeout=300, env=base | {"OMP_NUM_THREADS": "1"} | env
    )  # fmt: skip


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder as XNAT mounts it: session / SCANS / number / resource / files, catalogs beside them."""
    project = tmp_path_factory.mktemp("project")
    scan = project / SESSION / "SCANS" / "1"
    hu, liver = body()
    ct_series(scan / "DICOM", hu, **PLANTED)
    (scan / "DICOM" / "DICOM_catalog.xml").write_text("<cat/>")
    write_nifti(scan / "NIFTI" / "liver.nii.gz", turned(liver, "LPS"), affine_for("LPS", liver.shape), dtype=np.uint8)
    return project


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return ["--output", str(tmp_path / "output"), "--work", str(tmp_path / "work"), "--size", "32"]


def test_check_of_an_xnat_project_leaves_no_name_behind(session: Path, words: list[str], tmp_path: Path):
    done = plugin("check", "--input", str(session), *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("RESULT status=checked images=8 size=32 ")
    output = tmp_path / "output"
    assert all(any((output / name).iterdir()) for name in RESOURCES)
    said = (done.stdout + done.stderr).encode()
    for path in [*output.rglob("*"), *(tmp_path / "work").rglob("*.zip")]:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                said += b"".join([name.encode() + archive.read(name) for name in archive.namelist()])
        elif path.is_file():
            said += path.name.encode() + path.read_bytes()
    for secret in (*PLANTED.values(), "Muster", "Erika", SESSION, str(session)):
        assert secret.encode() not in said, secret


def test_a_folder_without_images(words: list[str], tmp_path: Path):
    source = tmp_path / "input"
    source.mkdir()
    (source / "letter.txt").write_text("Dear Erika")
    done = plugin("check", "--input", str(source), *words)
    assert (done.returncode, done.stdout) == (65, "")
    assert done.stderr.splitlines()[-1].startswith("ERROR E_DATA")
    assert sorted(path.name for path in (tmp_path / "output").rglob("*") if path.is_file()) == ["error.json", "run.log"]


def test_a_label_that_no_mask_has(session: Path, words: list[str]):
    done = plugin("check", "--input", str(session), *words, "--mask-label", "7")
    assert done.returncode == 65
    assert done.stderr.splitlines()[-1].startswith("ERROR E_DATA")
    assert "--mask-label 1" in done.stderr.splitlines()[-1]


def test_weights_are_missed_before_any_work(session: Path, words: list[str], tmp_path: Path):
    done = plugin("train", "--input", str(session), *words, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    if Path("/weights").is_dir():
        pytest.skip("this machine has /weights")
    assert done.returncode == 69, done.stderr
    assert done.stderr.splitlines()[-1].startswith("ERROR E_WEIGHTS inception-2015-12-05 not found")
    assert not (tmp_path / "work" / "dataset.zip").exists()


def test_a_batch_that_does_not_divide(session: Path, words: list[str], tmp_path: Path):
    done = plugin("train", "--input", str(session), *words, "--batch", "5", "--batch-gpu", "4")
    assert done.returncode == 2
    assert done.stderr == "ERROR E_CONFIG --batch 5 is not divisible by --batch-gpu 4; fix: --batch 4\n"
    assert not (tmp_path / "output").exists()


def test_the_front_door_refuses_keys_and_unknown_words():
    assert plugin("train", MEDGAN_KIMG="#kimg#").stderr.startswith("ERROR E_CONFIG MEDGAN_KIMG is still #kimg#")
    assert plugin("trian").returncode == 2
    done = plugin("train", "--help")
    assert done.returncode == 0
    assert "--mask-label" in done.stdout
