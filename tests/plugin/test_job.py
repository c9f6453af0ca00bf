"""The true job behind the container's command line: an XNAT session of phantoms, and each kind of bad input with its exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from medgan import runs
from plugin.command import ROOT
from plugin.container import RESOURCES
from plugin.resolution import Server, Target, resolve
from tests.metrics.pretrained import inception
from tests.phantoms import affine_for, body, ct_series, turned, write_nifti

# Everything here may name a patient: header values, XNAT's session label, the folder the scans came from.
PLANTED = {"PatientName": "Muster^Erika", "PatientID": "PID7741", "AccessionNumber": "ACC5519", "StudyInstanceUID": "1.2.840.4711.1", "SeriesInstanceUID": "1.2.840.4711.2"}  # fmt: skip
SESSION = "Erika_CT_2019"


def start(*words: str, **env: str) -> subprocess.Popen[str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith(("MEDGAN_", "XNAT_"))}
    if not torch.cuda.is_available():
        base["MEDGAN_DEVICE"] = "cpu"  # a CUDA build asks for a GPU
    command = [sys.executable, "-m", "plugin", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=base | {"OMP_NUM_THREADS": "1"} | env
    )


def end(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def plugin(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return end(start(*words, **env))


def said(*folders: Path, files: str = "*") -> bytes:
    """Names and content of all files, those in zips too."""
    parts = []
    for path in [path for folder in folders for path in folder.rglob(files)]:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                parts += [name.encode() + archive.read(name) for name in archive.namelist()]
        elif path.is_file():
            parts.append(path.name.encode() + path.read_bytes())
    return b"".join(parts)


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
    assert re.fullmatch(
        r"RESULT status=checked images=8 size=32 dataset=[0-9a-f]{12} advice=\d+ gpu_hours=t4:\S+,h200:[\d.]+\n", done.stdout
    )
    output = tmp_path / "output"
    plan = json.loads((output / "report" / "plan.json").read_text())
    assert f",a100:{plan['devices']['a100']['hours']:g}," in done.stdout
    assert {"inspection.json", "qc_sheet.png", "manifest.csv"} <= {path.name for path in (output / "report" / "dataset").iterdir()}
    assert "ADVICE" in (output / "report" / "run.log").read_text()
    assert not (tmp_path / "work" / "run" / runs.STATE).exists()
    assert all(any((output / name).iterdir()) for name in RESOURCES)
    found = said(output) + said(tmp_path / "work", files="*.zip") + (done.stdout + done.stderr).encode()
    for secret in (*PLANTED.values(), "Muster", "Erika", SESSION, str(session)):
        assert secret.encode() not in found, secret


@pytest.mark.parametrize("below", [SESSION, f"{SESSION}/SCANS/1"], ids=["session", "scan"])
def test_check_reads_what_a_session_and_a_scan_mount(session: Path, words: list[str], below: str):
    # /input/SCANS/1/DICOM/... and /input/DICOM/...: the same eight slices at each level.
    done = plugin("check", "--input", str(session / below), *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("RESULT status=checked images=8 size=32 ")


def test_a_job_on_two_ranks_stops_when_told_and_the_same_command_ends_it(session: Path, words: list[str], tmp_path: Path):
    inception()
    few = ["--preset", "demo", "--kimg", "0.06", "--metric-images", "4", "--images", "2", "--gpus", "2"]
    command = ["train", "--input", str(session), *words, *few]
    report, work = tmp_path / "output" / "report", tmp_path / "work"
    process = start(*command, MEDGAN_DEVICE="cpu")
    try:
        deadline = time.monotonic() + 120
        # The first step is saved before it is measured, so training is not over yet.
        while not (work / "run" / runs.STATE).exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        stopped = end(process)
    finally:
        process.kill()
    assert stopped.returncode == 75, stopped.stderr
    told = re.fullmatch(r"RESULT status=preempted kimg=(0\.\d+)\n", stopped.stdout)
    assert told, stopped.stdout
    assert 0.004 <= float(told[1]) < 0.06
    assert "ERROR" not in stopped.stderr
    # What rank 0 says passes through the job's own streams into its log.
    assert "PROGRESS stage=real-features done=8/8 pct=100" in (report / "run.log").read_text()
    assert sorted(path.name for path in (tmp_path / "output").rglob("*") if path.is_file()) == ["run.log"]

    done = plugin(*command, MEDGAN_DEVICE="cpu")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"RESULT status=complete kimg=0\.06 best_kimg=0\.06 fid=\S+ n_fake=4\n", done.stdout), done.stdout
    ticks = [line for line in (report / "run.log").read_text().splitlines() if " PROGRESS kimg=" in line]
    assert re.search(r" PROGRESS kimg=0\.06/0\.06 pct=100 eta=0s .*fid=\S+@0\.06", ticks[-1])
    assert ticks[-1] in done.stderr
    found = said(tmp_path / "output", work / "run") + "".join(run.stdout + run.stderr for run in (stopped, done)).encode()
    for secret in (*PLANTED.values(), "Muster", "Erika", SESSION, str(session), str(tmp_path)):
        assert secret.encode() not in found, secret


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """Work that a process has done, in all its threads (proc(5), stat): to wait for a core that others use is none."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_untouched_form_trains(session: Path, tmp_path: Path):
    """Every field as XNAT hands it over when nobody touched it; beside the form only what makes a first step short enough for a test."""
    inception()
    folder = Target(kind="Project", directory=session, properties={"id": "P1", "uri": "/archive/projects/P1"})
    command = json.loads((ROOT / "xnat-command.json").read_text())
    body = resolve(command, "project", folder, {}, Server(build=tmp_path)).body
    env = dict(pair.split("=", 1) for pair in body["Env"])
    # Two images are the fewest that the path length penalty takes; most of the time goes into the 64 images of the first snapshot's sheet.
    short = {"MEDGAN_BATCH": "2", "MEDGAN_METRIC_IMAGES": "4", "MEDGAN_DEVICE": "cpu", "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    places = ["--input", str(session), "--output", str(tmp_path / "output"), "--work", str(tmp_path / "work")]
    process = start(*body["Cmd"], *places, **env, **short)
    try:
        # The first step's state is saved before it is measured, so training is not over yet.
        while not (tmp_path / "work" / "run" / runs.STATE).exists():
            assert process.poll() is None, process.communicate()
            assert cpu_seconds(process) < 400
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        stopped = end(process)
    finally:
        process.kill()
    assert stopped.returncode == 75, stopped.stderr
    assert stopped.stdout == "RESULT status=preempted kimg=0.002\n"


def test_a_checkpoint_goes_on_elsewhere_with_its_curves_and_its_best_network(session: Path, words: list[str], tmp_path: Path):
    inception()
    few = ["--input", str(session), "--size", "32", "--preset", "demo", "--kimg", "0.06", "--metric-images", "4", "--images", "2"]
    first = plugin("train", *few, *words[:4], "--time-budget", "0.01s", MEDGAN_DEVICE="cpu")
    assert first.stdout.startswith("RESULT status=partial kimg=0.004 "), first.stderr
    checkpoint = tmp_path / "output" / "checkpoint"
    assert {"state.pt", "config.json", "stats.jsonl", "metrics.jsonl", "bundle"} <= {path.name for path in checkpoint.iterdir()}

    # Another folder for results and another for scratch: all it knows is the checkpoint.
    elsewhere = ["--output", str(tmp_path / "two"), "--work", str(tmp_path / "work-two"), "--resume", str(checkpoint)]
    second = plugin("train", *few, *elsewhere, MEDGAN_DEVICE="cpu")
    assert second.stdout.startswith("RESULT status=complete kimg=0.06 "), second.stderr
    assert [row["kimg"] for row in runs.read_json_lines(tmp_path / "two/metrics/stats.jsonl")] == [0.004, 0.06]
    assert [path.name for path in (tmp_path / "two/checkpoint").iterdir()] == ["README.txt"]
    assert str(tmp_path).encode() not in said(tmp_path / "two") + (second.stdout + second.stderr).encode()


def test_a_checkpoint_that_is_not_there(session: Path, words: list[str], tmp_path: Path):
    inception()
    done = plugin("train", "--input", str(session), *words, "--resume", str(tmp_path / "none"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("ERROR E_CONFIG --resume names no saved state; fix: --resume auto, new, or")
    assert not (tmp_path / "work" / "dataset.zip").exists()


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
