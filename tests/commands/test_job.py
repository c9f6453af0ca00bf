"""The privacy gate of a job, on a run folder whose images were put there: what leaves, and what does not."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medgan import runs, weights
from medgan.commands.job import JobConfig, _as_launched, _audit
from medgan.commands.job_results import RELEASED, Folders
from medgan.data.dataset import open_dataset
from medgan.errors import ConfigError, PrivacyError
from tests.metrics.patients import patients


def pictures(path: Path, images: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for i, image in enumerate(images):
            buffer = io.BytesIO()
            Image.fromarray(image[0]).save(buffer, format="PNG")
            archive.writestr(f"img{i:03}.png", buffer.getvalue())
    return path


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch):
    """Thumbnails instead of Inception: what leaves does not hang on the features, and a test must be quick."""
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDGAN_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "MOUNT", tmp_path / "mount")


@pytest.fixture
def place(tmp_path):
    """A training set of 30 images, no held-out set, and the result folders of an earlier launch."""
    train = patients(0, 15, 2, 32)[0]
    data = open_dataset(pictures(tmp_path / "dataset.zip", train))
    folders = Folders(tmp_path / "output", "run-7")
    for resource, names in RELEASED.items():
        for name in names:
            runs.write_text(folders(resource) / name.replace("*", "0000000001"), "of an earlier launch")
    runs.write_text(folders("report") / "run.log", "a log")
    return train, data, tmp_path / "work" / "run", folders


def files(folders: Folders) -> list[str]:
    return sorted(path.name for path in folders.output.rglob("*") if path.is_file())


def audit(config: JobConfig, data, run, folders, tmp_path):
    return _audit(config, data, run, folders, tmp_path)


def test_a_refusal_withdraws_everything_and_keeps_the_gallery(place, tmp_path):
    train, data, run, folders = place
    pictures(run / runs.SYNTHETIC / "synthetic.zip", train[4:7])
    with pytest.raises(PrivacyError, match="3 of 3 images are near copies of training slices") as caught:
        audit(JobConfig(), data, run, folders, tmp_path)
    assert caught.value.exit_code == 77
    assert files(folders) == ["run.log"]
    assert len(list((run / runs.AUDIT / "pairs").glob("*.png"))) == 3


def test_strangers_are_released(place, tmp_path):
    _, data, run, folders = place
    pictures(run / runs.SYNTHETIC / "synthetic.zip", patients(500, 6, 1, 32)[0])
    before = files(folders)
    assert audit(JobConfig(), data, run, folders, tmp_path) == "not calibrated"
    assert files(folders) == before


def test_the_runs_own_discriminator_is_looked_for(place, tmp_path):
    """There is none in this run folder; a job that gave no network to its audit would say that it was not given one."""
    _, data, run, folders = place
    pictures(data.path.with_suffix(".held-out.zip"), patients(1000, 12, 1, 32)[0])
    pictures(run / runs.SYNTHETIC / "synthetic.zip", patients(500, 6, 1, 32)[0])
    audit(JobConfig(), data, run, folders, tmp_path)
    assert json.loads((run / runs.AUDIT / "audit.json").read_text())["membership"]["reason"].startswith("no discriminator could be read")


def test_held_out_images_beside_the_dataset_calibrate(place, tmp_path):
    _, data, run, folders = place
    pictures(data.path.with_suffix(".held-out.zip"), patients(1000, 30, 1, 32)[0])
    pictures(run / runs.SYNTHETIC / "synthetic.zip", patients(500, 6, 1, 32)[0])
    assert audit(JobConfig(), data, run, folders, tmp_path) == "passed"


def test_single_files_are_audited_and_their_sheet_is_not(place, tmp_path):
    train, data, run, folders = place
    folder = run / runs.SYNTHETIC
    folder.mkdir(parents=True)
    Image.fromarray(train[8, 0]).save(folder / "seed0000000000.png")
    Image.fromarray(np.zeros((64, 256), np.uint8)).save(folder / "contact_sheet.png")
    with pytest.raises(PrivacyError, match="1 of 1 images is a near copy of a training slice"):
        audit(JobConfig(loose=True), data, run, folders, tmp_path)


def test_report_says_it_and_off_does_not_look(place, tmp_path):
    train, data, run, folders = place
    pictures(run / runs.SYNTHETIC / "synthetic.zip", train[:2])
    before = files(folders)
    assert audit(JobConfig(privacy="report"), data, run, folders, tmp_path) == "refused"
    assert json.loads((run / runs.AUDIT / "audit.json").read_text())["near_copies"]["count"] == 2
    assert audit(JobConfig(privacy="off"), data, run, folders, tmp_path) == "not audited"
    assert not (run / runs.AUDIT).exists()
    assert files(folders) == before


def test_there_are_three_ways(tmp_path):
    from medgan.config import read_settings

    (tmp_path / "settings.json").write_text('{"privacy": "maybe"}')
    with pytest.raises(ConfigError, match="not one of gate, report, off"):
        read_settings(tmp_path / "settings.json", JobConfig)


def test_a_job_says_how_it_was_launched_without_a_path():
    config = JobConfig(
        window=(50.0, 350.0),
        mirror="no",
        loose=True,
        pseudonym_key="/data/doe.key",
        pretrained="/nets/doe.pkl",
        time_budget="2h",
        resume="new",
    )
    said = _as_launched(config, "train", "2026-01-31T12:00:00Z")
    words = "--recipe ct-liver --window 50.0 350.0 --size 256 --pseudonym-key FILE --preset standard --pretrained NETWORK --mirror no --loose --seed 0"
    assert said["settings"] == {"task": "train", "words": words.split()}
    assert "doe" not in json.dumps(said)
    assert _as_launched(JobConfig(pretrained="ffhq-256"), "check", "")["settings"]["words"][-4:] == [
        "--pretrained",
        "ffhq-256",
        "--seed",
        "0",
    ]
    assert len(said["inputs"]["requirements.lock"]) == 64
