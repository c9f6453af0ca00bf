"""Every benchmark still runs: its tiny mode prints rows that say what, how much, of what unit, on what, with which memory and versions."""

from __future__ import annotations

import importlib
import json
import math
import runpy
import sys
import time

import pytest

from medgan.data import dataset
from tests.conftest import ROOT
from tests.metrics.pretrained import inception

BENCHMARKS = ROOT / "benchmarks"
NAMES = {"question", "value", "unit", "device", "commit", "versions", "peak_memory_mb", "date"}

# Script -> words that some of its questions must hold.
EXPECTED = {
    "bench_data_loader.py": ("decoded as needed", "memory-mapped", "with a step between"),
    "bench_data_prepare.py": ("only read", "workers 1"),
    "bench_metrics_audit.py": ("refused of honest", "refused of 5% copies", "speed"),
    "bench_metrics_features.py": ("plain", "medgan"),
    "bench_metrics_fid.py": ("new reference", "reference kept", "pytorch-fid's way", "with interval"),
    "bench_metrics_frechet.py": ("both of full rank", "few synthetic images", "few of both"),
    "bench_metrics_intervals.py": ("fid of", "kid of", "precision_inception of", "cosine_inception of"),
    "bench_training_augment.py": ("bgc, p 0:", "bgc, p 1:", "diffaugment", "watch"),
    "bench_training_phases.py": ("Gmain", "Greg", "Dmain", "Dreg", "amortised step"),
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
    if "features" in script:
        inception()
    monkeypatch.setattr(sys, "argv", [script, "--tiny"])
    # What scripts change for their own process.
    monkeypatch.setattr(dataset, "MOST_CACHE_BYTES", dataset.MOST_CACHE_BYTES)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(row.keys() >= NAMES for row in printed)
    assert all(math.isfinite(row["value"]) and row["value"] >= 0 and row["peak_memory_mb"] > 10 for row in printed)
    questions = "; ".join(f"{row['question']}:" for row in printed)
    assert [words for words in EXPECTED[script] if words not in questions] == []


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
