"""Every benchmark still runs: its tiny mode prints rows that say what, how much, of what unit, on what, with which memory and versions."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import runpy
import sys
import time

import numpy as np
import pytest

from medgan.data import dataset
from tests.conftest import ROOT
from tests.metrics.pretrained import inception

BENCHMARKS = ROOT / "benchmarks"
NAMES = {"question", "value", "unit", "device", "commit", "versions", "peak_memory_mb", "date"}

# Script -> words that some of its questions must hold.
EXPECTED = {
    "bench_commands_start.py": ("medgan --help", "import torch", "first step"),
    "bench_data_loader.py": ("decoded as needed", "memory-mapped", "with a step between"),
    "bench_data_prepare.py": ("only read", "workers 1"),
    "bench_metrics_audit.py": ("refused of honest", "refused of 5% copies", "speed"),
    "bench_metrics_features.py": ("plain", "medgan"),
    "bench_metrics_fid.py": ("new reference", "reference kept", "pytorch-fid's way", "with interval"),
    "bench_metrics_frechet.py": ("both of full rank", "few synthetic images", "few of both"),
    "bench_metrics_intervals.py": ("fid of", "kid of", "precision_inception of", "cosine_inception of"),
    "bench_sampling_images.py": ("plain as shipped", "plain, allocator equal", "medgan fp32"),
    "bench_training_augment.py": ("forward: bgc, p 0:", "forward and backward: bgc, p 1:", "diffaugment", "watch"),
    "bench_training_phases.py": ("plain as shipped", "plain, allocator equal", "medgan fp32"),
    "bench_training_precision.py": (": 2 runs in fp32:", ": 2 runs in bf16:"),
    "bench_training_ranks.py": ("1 rank, 1 thread", "2 ranks, 1 thread each", "1 rank, 2 threads"),
    "bench_training_shares.py": (": Gmain", ": Greg", ": Dmain", ": Dreg"),
    "bench_training_step.py": ("keeps freed memory", "as the system has it"),
}


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("rows")


def test_no_benchmark_is_forgotten():
    assert {path.name for path in BENCHMARKS.glob("bench_*.py")} == EXPECTED.keys()


@pytest.mark.parametrize("script", EXPECTED)
def test_a_benchmark_prints_rows(script, monkeypatch, capsys, rows):
    if "features" in script or "precision" in script:
        inception()
    # What scripts change for their own process.
    monkeypatch.setattr(dataset, "MOST_CACHE_BYTES", dataset.MOST_CACHE_BYTES)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    printed = run(script, monkeypatch, capsys)
    assert all(row.keys() >= NAMES for row in printed)
    assert all(math.isfinite(row["value"]) and row["value"] >= 0 and row["peak_memory_mb"] > 10 for row in printed)
    questions = "; ".join(f"{row['question']}:" for row in printed)
    assert [words for words in EXPECTED[script] if words not in questions] == []


CHECKOUT = """
from medgan.networks import stylegan2


class Generator(stylegan2.Generator):
    def __init__(self, *, mapping_kwargs, num_fp16_res, **named):
        super().__init__(**named, mapping_layers=mapping_kwargs["num_layers"])


class Discriminator(stylegan2.Discriminator):
    def __init__(self, *, epilogue_kwargs, num_fp16_res, **named):
        super().__init__(**named, **epilogue_kwargs)
"""


def run(script, monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", [script, "--tiny", *words])
    runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_checkout_that_the_user_brings_is_a_side(tmp_path, monkeypatch, rows):
    """A stand-in with the official names, over medgan's own networks: the same images, logits and gradients, and every phase runs."""
    sides = importlib.import_module("sides")
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "networks_stylegan2.py").write_text(CHECKOUT)
    monkeypatch.syspath_prepend(str(tmp_path))
    what = sides.What(size=32, batch=4, channel_base=256)
    ours, theirs = sides.tasks(what), sides.tasks(dataclasses.replace(what, official=str(tmp_path)))
    assert sys.modules["training.networks_stylegan2"].__file__.startswith(str(tmp_path))
    found = []
    for name, side in (("ours", ours), ("theirs", theirs)):
        side["outputs"](str(tmp_path / f"{name}.npz"))
        for task in (*sides.PHASES, "sample"):
            side[task]("")
        with np.load(tmp_path / f"{name}.npz") as stored:
            found.append(dict(stored))
    assert found[0].keys() == {"images", "logits", *sides.PHASES}
    for key, value in found[0].items():
        assert np.abs(found[1][key] - value).max() < 1e-4 * np.abs(value).max(), key


def test_no_checkout_there_is_one_clear_line(tmp_path, monkeypatch, capsys, rows):
    with pytest.raises(SystemExit, match="give the folder of a checkout"):
        run("bench_sampling_images.py", monkeypatch, capsys, "--official", str(tmp_path))


def test_sides_take_turns_and_the_warm_up_does_not_count(rows):
    calls = []
    clock = iter(range(100))
    sides = rows.in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2, clock=lambda: next(clock))
    assert calls == ["a", "b"] * 3
    assert [side.seconds for side in sides.values()] == [[1, 1], [1, 1]]


def test_memory_stands_beside_the_side_that_held_it(rows):
    """200 MB for a moment, in one of two sides."""
    rows.reset_peak()
    before = rows.peak()[0]
    bytearray(50_000_000)
    if rows.peak()[0] < before:
        pytest.skip("this system does not say how much memory a process held")
    sides = rows.in_turn({"large": lambda: len(bytearray(b"x" * 200_000_000)), "small": lambda: time.sleep(0)}, repeats=1, warm_ups=0)
    assert sides["large"].peak_bytes - sides["small"].peak_bytes > 150_000_000


def test_a_row_says_its_versions_and_significant_digits(rows):
    row = rows.row("what", 123.456, "s", ratio=2.0)
    assert (row["value"], row["unit"], row["ratio"]) == (123.5, "s", 2.0)
    assert row["versions"]["python"].startswith("3.")
    assert "cores" in row["device"]
