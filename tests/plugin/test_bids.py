"""The BIDS App: which images it takes, and what it refuses; the job behind it is that of test_job.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medgan.errors import ConfigError, InputError
from plugin.bids import chosen, participants
from plugin.command import ROOT
from plugin.container import RESOURCES

NAMES = (
    "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
    "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
    "sub-01/ses-2/anat/sub-01_ses-2_T2w.nii.gz",
    "sub-02/anat/sub-02_acq-x_T1w.nii",
    "sub-02/anat/sub-02_acq-x_T1w.json",
    "sub-02/func/sub-02_task-rest_bold.nii.gz",
    "derivatives/tool/sub-03/anat/sub-03_T1w.nii.gz",
    "sub-04/anat/sub-04_T1w.nii.gz",
)


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "bids" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "bids"


def app(*words: object, how: str = "environment") -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MEDGAN_", "XNAT_"))}
    command = [sys.executable, "-m", "tests.plugin.small", how, "run", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, env=env | {"MEDGAN_DEVICE": "cpu"})


def taken(view: Path) -> list[str]:
    return sorted(path.relative_to(view).as_posix() for path in view.rglob("*") if path.is_file())


def test_images_of_the_suffix_are_taken_and_derivatives_are_not(bids: Path, tmp_path: Path):
    assert taken(chosen(bids, tmp_path / "view", (), "T1w")) == [NAMES[0], NAMES[1], NAMES[3], NAMES[7]]
    assert taken(chosen(bids, tmp_path / "view", (), "bold")) == [NAMES[5]]


def test_only_the_named_participants(bids: Path, tmp_path: Path):
    assert taken(chosen(bids, tmp_path / "view", ("sub-01",), "T1w")) == [NAMES[0], NAMES[1]]
    # A second run of another choice finds none of the first one's links.
    assert taken(chosen(bids, tmp_path / "view", ("sub-02",), "T1w")) == [NAMES[3]]


def test_whose_each_image_is_survives(bids: Path, tmp_path: Path):
    from medgan.data.scans import walk

    places = {place.patient: place.session for _, place in walk(chosen(bids, tmp_path / "view", (), "T1w"))}
    assert places == {"sub-01": "sub-01/ses-2", "sub-02": "sub-02", "sub-04": "sub-04"}


def test_labels_with_and_without_their_prefix():
    assert participants(["02", "sub-01", "02"]) == ("sub-01", "sub-02")
    with pytest.raises(ConfigError, match="not letters and digits"):
        participants(["../01"])


def test_what_is_missing_is_counted_not_named(bids: Path, tmp_path: Path):
    with pytest.raises(InputError, match="1 of 2 participants are not in the data set") as caught:
        chosen(bids, tmp_path / "view", ("sub-01", "sub-doejane"), "T1w")
    assert "doejane" not in caught.value.line
    with pytest.raises(InputError, match="no image sub-\\*_FLAIR"):
        chosen(bids, tmp_path / "view", (), "FLAIR")


def test_the_words_of_a_bids_app(bids: Path, tmp_path: Path):
    out, work = tmp_path / "out", tmp_path / "work"
    done = app(bids, out, "group", "--participant_label", "01", "02", "--skip_bids_validator", "--work", work, "--kimg", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "RESULT status=complete kimg=3\n"
    assert taken(work / "bids") == [NAMES[0], NAMES[1], NAMES[3]]
    assert all(any((out / name).iterdir()) for name in RESOURCES)
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    assert json.loads((out / "report" / "seen.json").read_text())["settings"]["recipe"] == "mr"


def test_a_missing_participant_ends_as_the_contract_says(bids: Path, tmp_path: Path):
    done = app(bids, tmp_path / "out", "group", "--participant_label", "99", "--work", tmp_path / "work")
    assert (done.returncode, done.stdout) == (66, "")
    assert json.loads((tmp_path / "out" / "report" / "error.json").read_text())["code"] == "E_INPUT"
    assert not (tmp_path / "out" / "dataset_description.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("participant",), "there is no participant level"),
        (("group", "01"), "words are left over"),
        (("group", "--suffix", "../T1w"), "--suffix is not letters and digits"),
        (("groups",), "'groups' is not one of"),
    ],
)
def test_a_wrong_word_touches_nothing(bids: Path, tmp_path: Path, words: tuple[str, ...], message: str):
    done = app(bids, tmp_path / "out", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
