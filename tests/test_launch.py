"""Several ranks on this machine's cores: the same training as one, and one clear end whatever happens to a rank."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from medgan import runs
from medgan.cli import main
from medgan.launch import launch
from medgan.metrics import METRICS
from tests.metrics.phantoms import gaussian
from tests.metrics.pretrained import fetched, inception
from tests.toy import discs

ROOT = Path(__file__).parent.parent
TINY = "--batch 8 --batch-gpu 4 --channel-base 256 --channel-max 8 --latent 8 --map-layers 2 --mirror --gamma 1"
OPTIONS = [*TINY.split(), "--ada-kimg", "0.1", "--ada-target", "-0.99", "--tick-kimg", "0.016", "--snapshot-ticks", "2"]


def _command(folder: Path, out: str, *more: str) -> list[str]:
    if not (folder / "data").exists():
        discs(folder / "data")
    files = ["--data", str(folder / "data"), "--out", str(folder / out)]
    return [sys.executable, "-m", "medgan", "train", *files, *OPTIONS, "--metrics", "", *more]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "MEDGAN_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env=_environment(), timeout=180, cwd=ROOT, check=False)


def _alone(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command on one rank, in this process."""
    monkeypatch.setenv("MEDGAN_DEVICE", "cpu")
    done = CliRunner().invoke(main, [*command[3:], "--gpus", "1"])
    assert done.exit_code == 0, done.stderr


def _state(folder: Path) -> dict:
    return torch.load(folder / runs.STATE, weights_only=True)


def _ranks_of(parent: int) -> dict[int, int]:
    """Rank -> process id of the processes an agent started."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                words = dict(w.split("=", 1) for w in (entry / "environ").read_text().split("\0") if "=" in w)
                found[int(words["RANK"])] = int(entry.name)
        except (OSError, KeyError):
            continue
    return found


def _interrupted(folder: Path, out: str, act, *, due=None, more: Sequence[str] = ()) -> tuple[subprocess.CompletedProcess[str], float]:
    """A long training on two ranks to which `act(process)` is done once it runs, or `due(process)`; how it ended and how long that took."""
    process = subprocess.Popen(
        _command(folder, out, "--gpus", "2", "--kimg", "1000", *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
        cwd=ROOT,
    )
    try:
        deadline = time.monotonic() + 120
        while not (due(process) if due else (folder / out / runs.STATE).exists()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        started = time.monotonic()
        act(process)
        stdout, stderr = process.communicate(timeout=90)
        return subprocess.CompletedProcess([], process.returncode, stdout, stderr), time.monotonic() - started
    finally:
        process.kill()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """48 images on one rank in two rounds of accumulation, and on two ranks in one round each."""
    folder = tmp_path_factory.mktemp("ranks")
    for out, gpus in (("one", "1"), ("two", "2")):
        done = _run(_command(folder, out, "--gpus", gpus, "--kimg", "0.048"))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["status"] == "complete"
    return folder


def test_two_ranks_train_as_one_with_two_rounds(whole):
    one, two = _state(whole / "one"), _state(whole / "two")
    for network in ("G", "D", "G_ema"):
        for name, tensor in one[network].items():
            # Adam divides by the root of the mean square, so rounding of tiny gradients shows at a thousandth of its step, 0.002.
            torch.testing.assert_close(two[network][name], tensor, rtol=1e-3, atol=1e-5, msg=f"{network} {name}")
    torch.testing.assert_close(two["pl_mean"], one["pl_mean"], rtol=1e-4, atol=0)
    assert torch.equal(two["signs"], one["signs"])
    assert two["counters"]["p"] == one["counters"]["p"] > 0
    assert two["sampler"]["position"] == one["sampler"]["position"] == 48
    rows = [runs.read_json_lines(whole / out / runs.STATS)[-1] for out in ("one", "two")]
    for quantity in ("Loss/G/loss", "Loss/D/loss", "Loss/r1_penalty", "Loss/pl_penalty", "Loss/scores/real"):
        if quantity in rows[0]:
            assert rows[1][quantity]["num"] == rows[0][quantity]["num"]
            assert rows[1][quantity]["mean"] == pytest.approx(rows[0][quantity]["mean"], rel=1e-3)


def test_a_state_goes_on_with_another_number_of_ranks(whole, monkeypatch):
    _alone(_command(whole, "two", "--kimg", "0.064"), monkeypatch)
    assert _state(whole / "two")["counters"]["nimg"] == 64


def test_a_signal_to_any_rank_saves_one_state_from_which_the_same_command_goes_on(tmp_path):
    """SIGTERM to the command itself while it trains: tests/plugin/test_job.py."""
    done, seconds = _interrupted(tmp_path, "run", lambda process: os.kill(_ranks_of(process.pid)[1], signal.SIGUSR1))
    assert done.returncode == 75, done.stderr
    assert seconds < 60
    answer = json.loads(done.stdout)
    assert answer["status"] == "preempted"
    stopped = _state(tmp_path / "run")["counters"]["nimg"]
    assert stopped == round(answer["kimg"] * 1000) > 8
    assert "ERROR" not in done.stderr
    until = f"{(stopped + 16) / 1000}"
    assert _run(_command(tmp_path, "run", "--gpus", "2", "--kimg", until)).returncode == 0
    assert _run(_command(tmp_path, "unbroken", "--gpus", "2", "--kimg", until)).returncode == 0
    resumed, unbroken = _state(tmp_path / "run"), _state(tmp_path / "unbroken")
    assert resumed["counters"]["nimg"] == unbroken["counters"]["nimg"]
    for network in ("G", "D", "G_ema"):
        for name, tensor in unbroken[network].items():
            assert torch.equal(resumed[network][name], tensor), name


def test_a_stop_while_the_ranks_are_being_started_is_not_lost(tmp_path):
    """They know the signal only some seconds later, and would die of it."""
    done, _ = _interrupted(tmp_path, "run", lambda process: process.send_signal(signal.SIGTERM), due=lambda process: _ranks_of(process.pid))
    assert done.returncode == 75, done.stderr
    assert json.loads(done.stdout)["status"] == "preempted"
    assert "ERROR" not in done.stderr


def test_a_killed_rank_stops_the_others_with_one_line(tmp_path, monkeypatch):
    done, seconds = _interrupted(tmp_path, "run", lambda process: os.kill(_ranks_of(process.pid)[1], signal.SIGKILL))
    assert seconds < 60
    assert done.returncode == 71
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert errors == [done.stderr.splitlines()[-1]]
    assert errors[0].startswith("ERROR E_RANK rank 1 was killed by SIGKILL; the others were stopped")
    saved = _state(tmp_path / "run")["counters"]["nimg"]
    _alone(_command(tmp_path, "run", "--kimg", f"{(saved + 8) / 1000}"), monkeypatch)


def test_a_problem_of_a_rank_keeps_its_line_and_code(whole):
    done = _run(_command(whole, "one", "--gpus", "2", "--kimg", "0.064", "--seed", "3"))
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1].startswith("ERROR E_RESUME seed 0 -> 3; fix: --resume new")


def test_torchrun_starts_the_same_training(whole):
    """Each rank of an agent that is not ours finds its partners by the environment alone."""
    command = _command(whole, "torchrun", "--kimg", "0.048")
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = _run([*agent, *command[1:]])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "complete"
    first, second = _state(whole / "two"), _state(whole / "torchrun")
    assert torch.equal(first["D"]["b4.out.bias"], second["D"]["b4.out.bias"]) or first["counters"]["nimg"] != 48


def test_gpus_that_do_not_divide_the_batch(tmp_path):
    done = _run(_command(tmp_path, "run", "--gpus", "3"))
    assert done.returncode == 2
    assert "ERROR E_CONFIG --gpus 3: batch 8 is not divisible by 3; fix: --gpus 2" in done.stderr
    assert not (tmp_path / "run").exists()


def test_metrics_over_two_ranks_are_those_of_one(tmp_path):
    inception()
    for name in ("lpips-alexnet", "lpips-vgg16"):
        fetched(name)
    launch("tests.metrics.shared_evaluation", [str(tmp_path / "two.json")], processes=2)
    launch("tests.metrics.shared_evaluation", [str(tmp_path / "one.json")], processes=1)
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert {name for name in METRICS.names() if not METRICS.get(name).n_fake} <= one.keys()
    assert one["sampled rows"] == gaussian(40, 3, 1)[::3].tolist()
    assert one["fid"] == one["fid from a cache"]
    for name, value in one.items():
        assert np.ravel(two[name]) == pytest.approx(np.ravel(value), rel=1e-9), name
