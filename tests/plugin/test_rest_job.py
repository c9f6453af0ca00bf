"""The true job on scans that lie in a fake XNAT: the same dataset as through a mount, and a second run that goes on from the first."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from medgan import runs
from tests.metrics.pretrained import inception
from tests.plugin.test_job import PLANTED, SESSION, plugin, said
from tests.plugin.test_job import session as mounted_project  # noqa: F401
from tests.xnat_server import XnatServer
from tests.xnat_server.archive import Node

SECRET = "planted-secret-4711"


@pytest.fixture
def project(xnat: XnatServer, mounted_project: Path) -> Node:  # noqa: F811
    """The phantoms of test_job.py as a project of XNAT."""
    project = xnat.project("LIVER")
    scan = mounted_project / SESSION / "SCANS" / "1"
    dicom = [path for path in sorted((scan / "DICOM").iterdir()) if path.suffix != ".xml"]
    project.session(SESSION, subject="P1", modality="CT").scan("1", type="Abdomen", files={"DICOM": dicom, "NIFTI": scan / "NIFTI"})
    xnat.accounts.add("jane", SECRET)
    project.members["jane"] = "member"
    return project


def job(xnat: XnatServer, where: Path, *words: str, task: str = "train"):
    places = ["--output", str(where / "output"), "--work", str(where / "work"), "--size", "32", "--input", str(where / "none")]
    site = {
        "XNAT_HOST": xnat.url,
        "XNAT_USER": "jane",
        "XNAT_PASS": SECRET,
        "MEDGAN_TARGET": "/archive/projects/LIVER",
        "MEDGAN_DEVICE": "cpu",
    }
    return plugin(task, *places, *words, **site)


def test_rest_gives_the_dataset_of_the_mount(xnat: XnatServer, project: Node, tmp_path: Path):
    places = ["--output", str(tmp_path / "m"), "--work", str(tmp_path / "w"), "--size", "32"]
    mount = plugin("check", "--input", str(project.folder), *places)
    rest = job(xnat, tmp_path / "rest", task="check")
    assert rest.returncode == 0, rest.stderr
    assert rest.stdout == mount.stdout
    assert re.fullmatch(r"RESULT status=checked images=8 size=32 dataset=[0-9a-f]{12}.*\n", rest.stdout)
    # The scans themselves lie in the scratch folder; nothing else may name a patient or hold the password.
    found = said(tmp_path / "rest" / "output", tmp_path / "rest" / "work" / "run") + (rest.stdout + rest.stderr).encode()
    for secret in (*PLANTED.values(), "Muster", "Erika", SESSION, SECRET, xnat.url, str(tmp_path)):
        assert secret.encode() not in found, secret


@pytest.mark.slow
def test_a_second_run_goes_on_from_the_first_one_s_checkpoint_in_xnat(xnat: XnatServer, project: Node, tmp_path: Path):
    inception()
    few = ["--preset", "demo", "--kimg", "0.05", "--metric-images", "4", "--images", "2", "--privacy", "off"]
    first = job(xnat, tmp_path / "a", *few, "--time-budget", "0.001s", "--run-name", "run-1", "--upload", "--live", "0.001")
    assert first.returncode == 0, first.stderr
    told = re.search(r"RESULT status=partial kimg=(0\.\d+)", first.stdout)
    assert told, first.stdout
    checkpoint = project.find("resources", "MEDGAN_CHECKPOINT")
    assert {"run-1/state.pt", "run-1/config.json"} <= set(checkpoint.files())

    # Asked for or not, on another machine with nothing but XNAT; other settings are another training.
    second = job(xnat, tmp_path / "b", *few, "--run-name", "run-2", "--resume", "checkpoint", "--upload", "--live", "0.001")
    assert second.returncode == 0, second.stderr
    assert "RESULT status=complete kimg=0.05" in second.stdout
    # The curve of the first run is the beginning of the second's.
    earlier, stats = (runs.read_json_lines(tmp_path / name / "work" / "run" / runs.STATS) for name in "ab")
    assert stats[: len(earlier)] == earlier
    assert stats[len(earlier)]["kimg"] > float(told[1])
    # A complete run leaves no state, and those of its way are gone.
    assert [name for name in checkpoint.files() if name.startswith("run-2/")] == ["run-2/README.txt"]
    assert json.loads(project.find("resources", "MEDGAN_REPORT").read("run-2/status.json"))["status"] == "complete"

    other = job(xnat, tmp_path / "c", *few, "--seed", "1", "--resume", "checkpoint")
    assert other.returncode == 78
    assert other.stderr.splitlines()[-1].startswith("ERROR E_RESUME seed 0 -> 1")
    auto = job(xnat, tmp_path / "c", *few, "--seed", "1")
    assert auto.returncode == 0, auto.stderr
    assert "the state of an earlier run is not this one's, which begins anew: seed 0 -> 1" in auto.stderr
    assert SECRET.encode() not in b"".join(said(tmp_path / name) for name in "abc") + (first.stderr + second.stderr + other.stderr).encode()
