"""Scans to report through the container's command line, on a CPU, with real Inception weights: every room in one run."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medgan.data.dataset import open_dataset
from medgan.networks.bundle import read_bundle
from medgan.sampling.generate import sample
from tests.conftest import ROOT
from tests.metrics.pretrained import inception
from tests.phantoms import affine_for, body, ct_nifti, ct_series, turned, write_nifti

SECRETS = {"PatientName": "Muster^Erika", "PatientID": "PID7741"}
QUICK = ("--preset", "demo", "--size", "32", "--kimg", "0.064", "--metric-images", "8", "--images", "6", "--held-out", "0")


def plugin(*words: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MEDGAN_", "XNAT_"))} | {"OMP_NUM_THREADS": "2"}
    return subprocess.run(
        [sys.executable, "-m", "plugin", *words], capture_output=True, text=True, cwd=ROOT, timeout=600, env=env, check=False
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Two patients: a DICOM series with one truncated file and its label map, and a NIfTI volume with its label map."""
    folder = tmp_path_factory.mktemp("scans")
    hu, liver = body()
    ct_series(folder / "Erika" / "series", hu, **SECRETS)
    broken = sorted(p for p in (folder / "Erika" / "series").rglob("*") if p.is_file())[0]
    broken.write_bytes(broken.read_bytes()[:-700])
    write_nifti(folder / "Erika" / "liver.nii.gz", turned(liver, "LAS"), affine_for("LAS", liver.shape), dtype=np.uint8)
    ct_nifti(folder / "Other", shift=7)
    return folder


@pytest.fixture(scope="module")
def job(source, tmp_path_factory):
    inception()
    root = tmp_path_factory.mktemp("job")
    done = plugin("train", "--input", str(source), "--output", str(root / "output"), "--work", str(root / "work"), *QUICK)
    assert done.returncode == 0, done.stderr
    return root, done


def test_the_lines_of_the_contract(job):
    _, done = job
    assert re.fullmatch(r"RESULT status=complete kimg=0.064 best_kimg=[\d.]+ fid=[\d.e+]+ n_fake=8\n", done.stdout)
    progress = [line for line in done.stderr.splitlines() if " PROGRESS kimg=" in line]
    assert progress
    assert re.search(r"kimg=0.064/0.064 pct=100 eta=0s sec_per_kimg=[\d.]+ gpu_gib=0 ada_p=[\d.]+ fid=[\d.e+]+@0.064 best=", progress[-1])


def test_every_resource_is_filled(job):
    output = job[0] / "output"
    found = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert found >= {
        "report/report.html",
        "report/run.json",
        "report/run.log",
        "report/status.json",
        "report/CITATION.md",
        "report/job.json",
        "report/figures/farthest.png",
        "report/figures/nearest.png",
        "report/figures/latent_walk.png",
        "report/pack/CLAIM-2024.md",
        "report/pack/MI-CLAIM-GEN.md",
        "report/pack/MODEL_CARD.md",
        "report/pack/DATASHEET.md",
        "report/figures/curves.png",
        "report/dataset/manifest.csv",
        "report/dataset/fingerprint.json",
        "report/dataset/splits.json",
        "report/dataset/excluded.csv",
        "report/dataset/qc_sheet.png",
        "synthetic/synthetic.zip",
        "synthetic/manifest.csv",
        "synthetic/contact_sheet.png",
        "metrics/metrics.jsonl",
        "metrics/metrics.json",
        "metrics/audit.json",
        "metrics/stats.jsonl",
        "metrics/curves.png",
        "model/bundle.zip",
        "model/MODEL_CARD.md",
        "model/SHA256SUMS",
        "checkpoint/README.txt",
    }
    assert not [name for name in found if name.endswith(".part")]
    assert "report/error.json" not in found


def test_the_truncated_file_is_listed_and_the_rest_used(job):
    rows = list(csv.DictReader((job[0] / "output/report/dataset/excluded.csv").open()))
    assert any("truncated" in row["reason"] or "cannot be read" in row["reason"] or "unreadable" in row["reason"] for row in rows), rows
    assert len(open_dataset(job[0] / "work/dataset.zip")) >= 12


def test_fid_is_a_number_with_its_warning(job):
    metrics = json.loads((job[0] / "output/metrics/metrics.json").read_text())
    assert metrics["metrics"]["fid"]["value"] > 0
    assert metrics["n_fake"] == 8
    assert "W_SMALL_N" in [w["code"] for w in metrics["warnings"]]
    assert metrics["extractor"]["name"] == "inception-2015-12-05"


def test_what_is_given_back_was_audited_and_no_pair_left(job):
    root = job[0]
    found = json.loads((root / "output/metrics/audit.json").read_text())
    assert (found["verdict"], found["n_fake"], found["n_train"]) == ("not calibrated", 6, len(open_dataset(root / "work/dataset.zip")))
    assert json.loads((root / "output/report/status.json").read_text())["privacy"] == "not calibrated"
    assert len(list((root / "work/run/audit/pairs").glob("*.png"))) == 6
    assert not [path for path in (root / "output").rglob("*") if "pairs" in path.parts or path.name == "01.png"]


def test_the_images_come_from_the_model(job):
    """What lies in synthetic.zip is what the bundle in model/ draws for the seeds of the manifest."""
    output = job[0] / "output"
    G, metadata = read_bundle(output / "model/bundle.zip")
    archive = zipfile.ZipFile(output / "synthetic/synthetic.zip")
    rows = list(csv.DictReader((output / "synthetic/manifest.csv").open()))
    assert [int(row["seed"]) for row in rows] == list(range(6))
    for row in rows:
        content = archive.read(row["file"])
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
        picture = Image.open(io.BytesIO(content))
        assert picture.text["synthetic"] == "true"
        assert picture.text["model"] == metadata["medgan"]["model_sha256"]
        assert np.abs(np.asarray(picture).astype(int) - sample(G, [int(row["seed"])])[0, 0]).max() <= 1


def test_the_report_shows_the_worst_cases_and_how_to_do_it_again(job):
    page = (job[0] / "output/report/report.html").read_text()
    for words in ("Least like any real image", "A walk from image to image", "medgan:0.1.0-cpu train --recipe ct-liver", "--kimg 0.064"):
        assert words in page
    assert "real images of patients" not in page
    audit = json.loads((job[0] / "output/metrics/audit.json").read_text())
    assert sorted(row["image"] for row in audit["extremes"]["farthest"]) == list(range(6))


def test_checksums_hold(job):
    model = job[0] / "output/model"
    for line in (model / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((model / name).read_bytes()).hexdigest() == digest


def test_nothing_names_a_patient(job, source):
    said = (job[1].stdout + job[1].stderr).encode()
    for path in (job[0] / "output").rglob("*"):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                said += b"".join(archive.read(name) for name in archive.namelist())
        elif path.is_file():
            said += path.name.encode() + path.read_bytes()
    for secret in (*SECRETS.values(), "Erika", str(source)):
        assert secret.encode() not in said, secret


def test_a_picture_that_does_not_fit_is_listed_without_its_name(tmp_path):
    (tmp_path / "input").mkdir()
    for i in range(3):
        Image.new("L", (64, 64) if i == 1 else (32, 32), 40 * i).save(tmp_path / "input" / f"Erika_{i}.png")
    done = plugin("check", "--input", str(tmp_path / "input"), "--output", str(tmp_path / "output"), "--work", str(tmp_path / "work"))
    assert done.returncode == 65
    assert "picture 2 of 3" in done.stderr.splitlines()[-1]
    said = done.stderr + (tmp_path / "output/report/error.json").read_text() + (tmp_path / "output/report/run.log").read_text()
    assert "Erika" not in said


def test_a_budget_ends_as_partial_and_the_same_command_goes_on(source, tmp_path):
    inception()
    words = ("train", "--input", str(source), "--output", str(tmp_path / "output"), "--work", str(tmp_path / "work"), *QUICK)
    done = plugin(*words, "--time-budget", "0.1s")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("RESULT status=partial kimg=0.004 ")
    assert (tmp_path / "output/checkpoint/state.pt").stat().st_size > 100_000
    done = plugin(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("RESULT status=complete kimg=0.064 ")
    assert not (tmp_path / "output/checkpoint/state.pt").exists()
