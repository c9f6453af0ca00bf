"""The how-to pages for an administrator of XNAT and an engineer of a DGX: their commands run as they stand there.

All blocks of a page are one script, in the page's order, in a copy of the repository. What is replaced, and why, is said in `script`; a block below a
paragraph that begins with "*Not" (tried, in that test) is left out, and the page says the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin.command import ROOT, TASKS
from tests.metrics.pretrained import inception
from tests.phantoms import ct_nifti
from tests.plugin.backend import Backend
from tests.plugin.containers import SMALL, UID, half_written
from tests.test_docs_commands import blocks
from tests.xnat_server import XnatServer

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]


def script(page: str, place: Path, image: str, more: dict[str, str]) -> str:
    """The blocks of a page that can be tried, one after the other."""
    replaced = {
        "docker build -t medgan:0.1.0 ": "docker build -t medgan-how-to:built ",  # the image under test stays what it is
        "python -m plugin.docker build": "python -m plugin.docker build --tag medgan-how-to:built --network host",
        "python -m plugin.docker run ": f"python -m plugin.docker run --image {image} ",
        "--gpus all ": "",  # the engine has none
        ".venv/bin/python ": "python ",
        " /data/": f" {place}/data/",
        "=/data/": f"={place}/data/",
        " /raid/": f" {place}/raid/",
    } | more
    text = "\n".join(f": '{page}, block {number}'\n{block}" for number, block in enumerate(blocks(page), start=1))
    for old, new in replaced.items():
        assert old in text or old not in more, f"{page} has no {old!r} any more"
        text = text.replace(old, new)
    # The same image with the settings of a small training as variables.
    return re.sub(r"\bmedgan:0\.1\.0(?=\s)", image, text)


@pytest.fixture
def place(tmp_path: Path, engine: Any) -> Iterator[Path]:
    """Scans under /data/scans, and a copy of the repository to stand in."""
    for patient in range(4):
        ct_nifti(tmp_path / "data" / "scans" / f"scan-{patient}", shift=patient)
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / "checkout" / name)
    yield tmp_path
    shutil.rmtree(tmp_path / "checkout")  # it holds an image as a file
    for built in engine.images.list("medgan-how-to"):
        engine.images.remove("medgan-how-to:built" if built.tags else built.id)


def run(text: str, place: Path, **env: str) -> subprocess.CompletedProcess[str]:
    git = subprocess.run(["git", "rev-parse", "--absolute-git-dir"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    ours = {"GIT_DIR": git, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": "", "MEDGAN_DEVICE": "cpu"} | SMALL
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", text], cwd=place / "checkout", env=os.environ | ours | env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def test_the_page_for_a_dgx(place: Path, small: str):
    inception()
    done = run(script("how-to/dgx.md", place, small, {}), place)
    results = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    # The check, and four trainings: plain, with scratch outside, without rights, without Docker.
    assert results == ["status=checked", *4 * ["status=complete"]]
    assert (place / "data/check/report/report.html").exists()
    assert half_written(place / "data/results") == []
    assert (place / "checkout/sbom.cdx.json").stat().st_size > 10_000
    assert "medgan-0.1.0.tar: OK" in done.stdout
    assert f"Loaded image: {small}" in done.stdout


def test_the_page_for_xnat(place: Path, small: str, xnat: XnatServer):
    xnat.accounts.add("jane", "jane-password", administrator=True)
    project = xnat.project("LIVER")
    for patient in range(2):
        files = {"NIFTI": place / "data" / "scans" / f"scan-{patient}"}
        project.session(f"CT_{patient}", subject=f"P{patient}", modality="CT").scan("1", type="Abdomen", files=files)
    xnat.containers.runner = Backend(user=f"{UID}:{UID}", online=("project",))
    (place / "data" / "xnat-server").mkdir()
    (place / "data" / "xnat-server" / "archive").symlink_to(xnat.archive.folder)
    replaced = {
        "https://xnat.example.org": xnat.url,
        "register --project": f"register --image {small} --project",
        "-e XNAT_HOST": "--network host -e XNAT_HOST",  # the engine has no bridge
        "kimg=1000": " --set ".join(["kimg=0.064", "size=32", "preset=demo", "images=8"]),
        # The number that the line above it prints.
        "status 1234": 'status "$(curl -fsu jane:$XNAT_PASS $XNAT_HOST/xapi/containers | python -c "import json, sys; print(json.load(sys.stdin)[-1][\'workflow-id\'])")"',
    }
    done = run(script("how-to/xnat.md", place, small, replaced), place, XNAT_PASS="jane-password")
    assert [line for line in done.stdout.splitlines() if line == "LIVER"] == ["LIVER"]
    check, training = xnat.containers.launches
    assert (check.wait(600), training.wait(600)) == ("Complete", "Complete"), check.stderr + training.stderr
    labels = {label for task in TASKS.values() for label, _ in task.outputs.values()}
    assert {resource.label for resource in project.of("resources")} == labels
    names = {command["name"] for command in xnat.containers.commands.values()}
    assert names == {"medgan-train", "medgan-check", "medgan-train-cpu"}
    # What a person ran and sent over REST lies beside what XNAT stored of its own launch.
    report = set(project.find("resources", "MEDGAN_REPORT").files())
    assert {"report.html", f"run-{training.id}/report.html"} <= report


def test_the_page_for_other_platforms(place: Path, small: str):
    for patient in (1, 2):
        ct_nifti(place / f"data/archive/P1/arc001/S{patient}/SCANS/4/NIFTI/files", shift=patient)
        ct_nifti(place / f"data/bids/sub-0{patient}/anat", f"sub-0{patient}_T1w.nii.gz", mask="", shift=patient)
    replaced = {"size=64": "size=32", "kimg=100": "kimg=0.064 --set preset=demo --set images=8"}
    done = run(script("how-to/other-platforms.md", place, small, replaced), place)
    results = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results == ["status=complete", "status=checked", "status=complete"]
    filed = {path.name for path in (place / "checkout/results").iterdir()}
    assert filed == {label for task in TASKS.values() for label, _ in task.outputs.values()}
    assert (place / "data/results/dataset_description.json").exists()
    assert '"image": "medgan-how-to:built"' in done.stdout
