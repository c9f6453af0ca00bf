"""Benchmarks of the data room still run: their tiny mode prints one JSON line with the values its question asks for."""

import json
import runpy
import sys

import pytest

from medgan.data import dataset
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("bench_data_prepare.py", ["scans_per_second", "mb_per_second", "times_the_floor"]),
        ("bench_data_loader.py", ["decoded_as_needed", "memory_mapped", "ratio", "waited_ms_per_step"]),
    ],
)
def test_a_benchmark_prints_one_line(script, names, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--tiny"])
    monkeypatch.setattr(dataset, "MOST_CACHE_BYTES", dataset.MOST_CACHE_BYTES)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    runpy.run_path(str(ROOT / "benchmarks" / script), run_name="__main__")
    [line] = capsys.readouterr().out.splitlines()
    row = json.loads(line)
    assert {*names, "question", "unit", "device", "commit", "date"} <= set(row)
