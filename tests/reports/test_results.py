"""Reading run folders: what is there is read, what is not is named."""

from __future__ import annotations

import json

import pytest

from medgan.errors import InputError
from medgan.reports.results import number, read_results
from tests.reports.folder import FIDS, evaluation, lines, make_run, stat, ticks, write


def test_counts_come_from_the_manifest(tmp_path):
    dataset = read_results(make_run(tmp_path)).dataset
    assert dataset is not None
    assert (dataset.images, dataset.held_out, dataset.patients, dataset.series) == (92, 5, 2, 2)
    assert dataset.windows == ["50 / 350"]
    assert dataset.spacings == ["3x3x3", "0.977x0.977x2"]
    assert dataset.excluded == {"slice without the label": 40, "duplicate": 3}


def test_a_set_made_elsewhere_has_its_counts_only(tmp_path):
    write(tmp_path / "dataset/fingerprint.json", {"images": 61, "size": 64, "channels": 1, "advice": []})
    dataset = read_results(tmp_path).dataset
    assert dataset is not None
    assert (dataset.images, dataset.patients, dataset.excluded) == (61, 0, None)


def test_a_resumed_run_replaces_the_ticks_the_killed_one_wrote(tmp_path):
    killed, resumed = ticks(count=6), ticks(count=8)[3:]
    for row in resumed:
        row["Loss/G/loss"] = stat(-1.0)
    lines(tmp_path / "stats.jsonl", killed + resumed)
    trace = read_results(tmp_path).trace("Loss/G/loss")
    assert [kimg for kimg, _ in trace] == [0.25 * n for n in range(1, 9)]
    assert [value for _, value in trace] == pytest.approx([0.85, 0.95, 1.05, -1, -1, -1, -1, -1])


def test_a_line_torn_by_a_kill_is_left_out(tmp_path):
    whole = json.dumps({"kimg": 0.5, **evaluation(412.31)})
    write(tmp_path / "metrics.jsonl", whole + "\n" + whole[:40])
    assert read_results(tmp_path).curve("fid50k_full") == [(0.5, 412.31)]


def test_the_network_in_the_bundle_is_the_chosen_one(tmp_path):
    run = make_run(tmp_path)
    write(run / "bundle/configs/metadata.json", {"medgan": {"kimg": 2.0}})
    assert read_results(run).chosen_kimg == 2.0
    (run / "bundle/configs/metadata.json").unlink()
    assert read_results(run).chosen_kimg == min(FIDS, key=lambda point: point[1])[0]


def test_values_that_are_no_finite_numbers_are_told_apart_from_zero():
    assert [number(value) for value in (0, 1.5, None, True, "3", float("nan"), float("inf"))] == [0, 1.5, None, None, None, None, None]


def test_gradients_that_were_not_finite_stay_counted_after_a_resumption(tmp_path):
    rows = ticks()
    for row, count in zip(rows, [0, 0, 3, 5, 5, 0, 0, 0], strict=True):
        row["nonfinite"] = count
    del rows[3]["Loss/G/loss"]
    lines(tmp_path / "stats.jsonl", rows)
    results = read_results(tmp_path)
    assert results.not_finite == 5
    assert len(results.trace("Loss/G/loss")) == 7


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{torn"),
        ("metrics.json", "[1, 2]"),
        ("run.json", "null"),
        ("stats.jsonl", "not json\n"),
        ("metrics.jsonl", '"a word"\n17\n'),
        ("dataset/manifest.csv", ""),
        ("dataset/excluded.csv", "\n\n"),
        ("dataset/recipe.json", "{}"),
        ("bundle/configs/metadata.json", '{"medgan": 3}'),
        ("synthetic/manifest.csv", "\x00"),
        ("synthetic/run.json", "7"),
    ],
)
def test_a_damaged_file_stops_nothing(tmp_path, name, content):
    run = make_run(tmp_path)
    write(run / name, content)
    assert read_results(run).kimg in (2.0, None)


def test_bytes_that_are_no_text_are_named_as_unreadable(tmp_path):
    run = make_run(tmp_path)
    for name in ("config.json", "stats.jsonl", "dataset/manifest.csv"):
        (run / name).write_bytes(b"\xff\xfe\x80")
    missing = read_results(run).missing
    assert [line for line in missing if "cannot be read" in line] == [
        "config.json (cannot be read): the settings of training",
        "stats.jsonl (cannot be read): training curves",
        "dataset/manifest.csv (cannot be read): counts of images and patients",
    ]


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="no file of a run"):
        read_results(tmp_path)
