"""`medgan evaluate` on two processes of this machine's cores: the figures of one, one answer, one error, one stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from medgan.cli import main
from medgan.networks.bundle import write_bundle
from medgan.networks.stylegan2 import Generator
from tests.commands.test_evaluate import folder_of
from tests.metrics.phantoms import waves

ROOT = Path(__file__).parents[2]
METRICS = "precision_pixels,density_pixels,ms_ssim,cosine_pixels"


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """Real and synthetic images of 16 px, and a generator of them."""
    folder = tmp_path_factory.mktemp("SMITH^JOHN")
    torch.manual_seed(0)
    arguments = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "img_channels": 1, "channel_base": 256, "channel_max": 16}
    write_bundle(folder / "bundle", Generator(**arguments), family="stylegan2", arguments=arguments, details={})
    sets = {"real": folder_of(folder / "real", waves(30, 16)), "fake": folder_of(folder / "fake", waves(29, 16, first=50))}
    return sets | {"bundle": str(folder / "bundle"), "cache": str(folder / "cache")}


def words(places: dict[str, str], synthetic: str, *more: str) -> list[str]:
    return ["evaluate", "--real", places["real"], f"--{synthetic}", places[synthetic], "--metrics", METRICS, "--batch", "4", *more]


def environment(places: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "MEDGAN_DEVICE": "cpu", "MEDGAN_CACHE": places["cache"], "OMP_NUM_THREADS": "1"}


def alone(places, monkeypatch, *words: str):
    for name, value in environment(places).items():
        monkeypatch.setenv(name, value)
    return CliRunner().invoke(main, list(words))


def figures(text: str) -> dict[str, list[float]]:
    """Every number of an answer but its seconds, by where it stands."""
    found: dict[str, list[float]] = {}

    def walk(value, path=""):
        if isinstance(value, dict):
            for key, part in value.items():
                walk(part, f"{path}/{key}")
        elif path != "/seconds" and value is not None and not isinstance(value, str):
            found[path] = np.ravel(value).astype(float).tolist()

    walk(json.loads(text))
    return found


def assert_alike(one: str, other: str) -> None:
    expected, found = figures(one), figures(other)
    assert found.keys() == expected.keys()
    for place, numbers in expected.items():
        assert found[place] == pytest.approx(numbers, rel=1e-9), place


def test_two_processes_give_the_figures_of_one(places, monkeypatch, tmp_path):
    one = alone(places, monkeypatch, *words(places, "bundle", "--n-fake", "26"))
    two = alone(places, monkeypatch, *words(places, "bundle", "--n-fake", "26", "--gpus", "2", "--out", str(tmp_path / "metrics.json")))
    assert (one.exit_code, two.exit_code) == (0, 0), two.stderr
    assert_alike(one.stdout, two.stdout)
    assert "/metrics/ms_ssim/interval" in figures(one.stdout)
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(two.stdout)


def test_torchrun_starts_the_same_and_rank_0_answers(places, monkeypatch, tmp_path):
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "medgan"]
    command = [*agent, *words(places, "fake", "--out", str(tmp_path / "metrics.json"))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(places), timeout=180, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(done.stdout)
    assert_alike(alone(places, monkeypatch, *words(places, "fake")).stdout, done.stdout)


def test_a_problem_of_a_process_keeps_its_line_and_code(places, monkeypatch, tmp_path):
    other = folder_of(tmp_path / "other", waves(29, 24))
    done = alone(places, monkeypatch, *words({**places, "fake": other}, "fake", "--gpus", "2", "--out", str(tmp_path / "metrics.json")))
    assert done.exit_code == 65
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert errors == [done.stderr.splitlines()[-1]]
    assert errors[0].startswith("ERROR E_DATA the sets differ: real images are 16 x 16")
    assert "SMITH" not in done.output
    assert not (tmp_path / "metrics.json").exists()


def test_a_stop_ends_all_processes_with_exit_code_75(places, tmp_path):
    command = [
        sys.executable,
        "-m",
        "medgan",
        *words(places, "bundle", "--n-fake", "1000000", "--gpus", "2", "--out", str(tmp_path / "m.json")),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(places), cwd=ROOT)
    try:
        assert process.stderr
        for line in process.stderr:
            if "stage=measuring" in line:
                break
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, stderr
    assert stderr.splitlines()[-1].startswith("ERROR E_PREEMPTED stopped while measuring")
    assert (stdout, list(tmp_path.iterdir())) == ("", [])


def test_no_process_at_all_is_refused(places, monkeypatch):
    done = alone(places, monkeypatch, *words(places, "fake", "--gpus", "0"))
    assert done.exit_code == 2
    assert "--gpus 0: at least one process" in done.stderr
