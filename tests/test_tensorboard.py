"""Event files: the format by published numbers and TensorBoard's own reader, the content against the run's lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medgan import runs
from medgan.errors import Preempted
from medgan.tensorboard import EVENTS, append, crc32c, masked, record, rewrite, scalars
from medgan.training.loop import train
from tests.toy import discs, tiny


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of a run folder, as TensorBoard sees it."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.parametrize(
    ("data", "crc"),
    [(b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)],
)
def test_checksums_are_those_of_rfc_3720_b_4(data, crc):
    assert crc32c(data) == crc


def test_a_record_is_length_data_and_their_turned_checksums():
    """0xE3069283 turned right by 15 bits is 0x2507C60D; plus 0xA282EAD8, without the carry, 0xC78AB0E5."""
    assert masked(b"123456789") == (0xC78AB0E5).to_bytes(4, "little")
    whole = record(b"123456789")
    assert (whole[:8], whole[12:21], whole[21:]) == ((9).to_bytes(8, "little"), b"123456789", masked(b"123456789"))


def test_figures_of_a_line_are_means_values_and_numbers():
    row = {
        "tick": 3,
        "kimg": 1.0,
        "nimg": 1000,
        "sec_per_kimg": 2,
        "Loss/G/loss": {"num": 4, "mean": 0.5, "std": 0.1},
        "alarms": [{"code": "W"}],
        "on": True,
    }
    assert scalars(row) == {"sec_per_kimg": 2.0, "Loss/G/loss": 0.5}
    assert scalars({"kimg": 1.0, "seed": 1, "metrics": {"fid": {"value": 31.5, "interval": [30, 33]}}}) == {"fid": 31.5}


def test_tensorboard_reads_what_is_appended(tmp_path):
    append(tmp_path, 0, {"a": 1.5})
    append(tmp_path, 25_000_000, {"a": -2.25, "Größe/b": 1e-3})
    assert read(tmp_path) == {"a": [(0, 1.5), (25_000_000, -2.25)], "Größe/b": [(25_000_000, pytest.approx(1e-3))]}


def measured(G):
    return {"n_real": 12, "n_fake": 12, "metrics": {"toy": {"value": float(next(G.parameters()).double().sum())}}}


def test_a_run_leaves_an_event_for_every_line_also_where_it_was_broken(tmp_path):
    """Stopped after 12 images with a torn event at its end; the resumed run's events are those of its lines, each once."""
    data, asked = discs(tmp_path / "data"), []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 4

    with pytest.raises(Preempted):
        train(tiny(kimg=0.024), data, tmp_path / "run", on_snapshot=measured, stop=stop)
    assert (tmp_path / "run" / EVENTS).exists()
    with (tmp_path / "run" / EVENTS).open("ab") as file:
        file.write(b"\x00torn")
    train(tiny(kimg=0.024), data, tmp_path / "run", on_snapshot=measured)
    found = read(tmp_path / "run")
    stats = runs.read_json_lines(tmp_path / "run" / runs.STATS)
    assert [step for step, _ in found["Loss/G/loss"]] == [row["nimg"] for row in stats if "Loss/G/loss" in row]
    assert [value for _, value in found["Loss/D/loss"]] == [pytest.approx(row["Loss/D/loss"]["mean"]) for row in stats]
    lines = runs.read_json_lines(tmp_path / "run" / runs.EVALUATIONS)
    assert found["toy"] == [(round(row["kimg"] * 1000), pytest.approx(row["metrics"]["toy"]["value"])) for row in lines]
    assert len(lines) > 1
    # Started over, the old curve is gone.
    train(tiny(kimg=0.004), data, tmp_path / "run", resume="new")
    assert len(read(tmp_path / "run")["Loss/D/loss"]) == 1


def test_times_of_a_rewritten_file_are_those_of_training(tmp_path):
    for name, rows in (
        (runs.STATS, [{"kimg": 1, "seconds": 10.0}, {"kimg": 2, "seconds": 25.0}]),
        (runs.EVALUATIONS, [{"kimg": 2, "metrics": {"fid": {"value": 3}}}]),
    ):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewrite(tmp_path)
    found = EventAccumulator(str(tmp_path)).Reload()
    first, second = found.Scalars("seconds")
    assert second.wall_time - first.wall_time == pytest.approx(15, abs=1e-3)
    assert found.Scalars("fid")[0].wall_time == second.wall_time
    assert [one.step for one in (first, second, *found.Scalars("fid"))] == [1000, 2000, 2000]
