"""Worst cases and the walk: the very images the audit names, no others, and no training image."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from medgan.metrics.memorisation import audit
from medgan.reports.gallery import walk, worst_cases
from medgan.reports.results import read_results
from tests.metrics.patients import patients
from tests.metrics.phantoms import ImageSet
from tests.reports.folder import AUDIT, body, make_run, sheet, write


def pixels(exhibit) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(exhibit.picture.png)))


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def test_the_images_are_those_the_audit_names_in_its_order(run):
    farthest, nearest = worst_cases(read_results(run))
    assert np.array_equal(pixels(farthest), np.hstack([np.asarray(body(16, n)) for n in (9, 3)]))
    assert np.array_equal(pixels(nearest), np.hstack([np.asarray(body(16, n)) for n in (60, 5)]))
    assert "seeds 9, 3" in farthest.caption
    assert "The largest correlation is 0.812." in nearest.caption
    assert nearest.alt == "2 synthetic images, most like one real image, row by row: seeds 60, 5."


def test_each_picture_says_that_it_is_synthetic(run):
    results = read_results(run)
    for exhibit in (*worst_cases(results), walk(results)):
        said = Image.open(io.BytesIO(exhibit.picture.png)).text
        assert (said["synthetic"], said["model"]) == ("true", "d7" * 32)
        assert "not for diagnostic use" in said["disclaimer"]
    assert Image.open(io.BytesIO(worst_cases(results)[0].picture.png)).text["images"] == "seeds 9, 3"


def test_an_audit_of_other_images_shows_none(run):
    write(run / "audit/audit.json", AUDIT | {"n_fake": 63})
    assert worst_cases(read_results(run)) == []


@pytest.mark.parametrize("extremes", [None, [], {"farthest": 3}, {"farthest": [{"image": 64}, {"image": -1}, {"image": "1"}, 5]}])
def test_a_damaged_list_shows_none(run, extremes):
    write(run / "audit/audit.json", AUDIT | {"extremes": extremes})
    assert worst_cases(read_results(run)) == []


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_images_that_are_not_here_are_no_reason_to_fail(run, damage):
    archive = run / "synthetic/synthetic.zip"
    content = archive.read_bytes()
    archive.unlink()
    if damage == "cut":
        archive.write_bytes(content[: len(content) // 2])
    assert worst_cases(read_results(run)) == []


def test_the_walk_lies_in_rows_of_six(run):
    found = walk(read_results(run))
    rows = pixels(found)
    assert rows.shape == (64, 192)
    assert [int(rows[16, 32 * n + 16]) for n in range(6)] == [20 * n for n in range(6)]
    assert [int(rows[48, 32 * n + 16]) for n in range(6)] == [20 * n for n in range(6, 12)]


def test_a_walk_that_is_no_picture_is_left_out(run):
    (run / "walk/walk_strip.png").write_bytes(b"no picture")
    assert walk(read_results(run)) is None
    (run / "walk/walk_strip.png").unlink()
    assert walk(read_results(run)) is None


def test_the_audit_names_strangers_and_never_a_copy():
    """Images 0 and 3 are training images, 1 and 2 are other patients', 4 is noise: copies are never named, noise is the farthest."""
    train = patients(0, 10, 2, 32)[0]
    noise = np.random.default_rng(0).integers(0, 256, train[:1].shape, dtype=np.uint8)
    strangers = patients(200, 2, 1, 32)[0]
    fake = np.concatenate([train[:1], strangers, train[5:6], noise])
    found = audit(train=ImageSet(train), fake=ImageSet(fake)).result
    assert found["verdict"] == "refused"
    assert found["extremes"]["farthest"][0]["image"] == 4
    named = {row["image"] for rows in found["extremes"].values() for row in rows}
    assert named == {1, 2, 4}
    nccs = [row["ncc"] for row in found["extremes"]["nearest"]]
    assert nccs == sorted(nccs, reverse=True)
    json.dumps(found["extremes"], allow_nan=False)


def test_loose_images_are_found_too(run):
    (run / "synthetic/synthetic.zip").unlink()
    (run / "synthetic/contact_sheet.png").unlink()
    for n in range(64):
        body(16, n).save(run / f"synthetic/seed{n:08d}.png")
    sheet(run / "synthetic/contact_sheet.png")
    farthest, _ = worst_cases(read_results(run))
    assert np.array_equal(pixels(farthest), np.hstack([np.asarray(body(16, n)) for n in (9, 3)]))
