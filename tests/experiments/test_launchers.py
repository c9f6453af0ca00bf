"""Runs that are killed, fail, are stopped or are already there."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from medgan import runs
from medgan.errors import ConfigError, Preempted
from medgan.experiments.launchers import ATTEMPTS, LOCK, OUTPUT, LaunchConfig, Run, check_names, may_retry, run_here, standing
from tests.toy import discs

TINY = ["--batch", "4", "--channel-base", "256", "--channel-max", "8", "--latent", "8", "--map-layers", "2", "--metrics", ""]
TINY += ["--tick-kimg", "0.008", "--snapshot-ticks", "2"]


def training(name: str, root: Path, *, kimg: float, data: str = "data") -> Run:
    folder = root / name
    words = ["train", "--data", str(root / data), "--out", str(folder), "--kimg", f"{kimg:g}", *TINY]
    return Run(name=name, folder=folder, words=tuple(words))


def listing(name: str, root: Path) -> Run:
    """A command that ends well within a second."""
    return Run(name=name, folder=root / name, words=("weights", "list", "--json"))


def process_of(folder: Path) -> int:
    """The process whose command line names a folder, other than this one."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in words and b"medgan" in words:
            return int(entry.parent.name)
    raise LookupError(folder)


def wait_for_state(run: Run) -> None:
    for _ in range(1200):
        if (run.folder / runs.STATE).exists():
            return
        time.sleep(0.05)
    raise TimeoutError(run.name)


def test_a_killed_run_is_resumed_and_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    """SIGKILL in the middle: the second start goes on from the state, and no setting of the surroundings creeps in."""
    monkeypatch.setenv("MEDGAN_SEED", "7")
    discs(tmp_path / "data")
    whole, broken = training("whole", tmp_path, kimg=0.06), training("broken", tmp_path, kimg=0.06)
    killed, first_line = [], []

    def kill() -> None:
        wait_for_state(broken)
        first_line.extend(runs.read_json_lines(broken.folder / runs.STATS)[:1])
        killed.append(process_of(broken.folder))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    end = run_here([whole, broken], config=LaunchConfig(at_once=1, retries=1))
    killer.join()
    assert [(one.state, one.kimg) for one in end] == [("complete", "0.06")] * 2
    attempts = runs.read_json_lines(broken.folder / ATTEMPTS)
    assert [(row["exit_code"], row.get("problem")) for row in attempts] == [(-9, "killed by SIGKILL"), (0, None)]
    # From its state: the line of the first tick is the first start's own, seconds and all.
    assert runs.read_json_lines(broken.folder / runs.STATS)[0] == first_line[0]
    states = [torch.load(run.folder / runs.STATE, weights_only=True) for run in (whole, broken)]
    assert all(torch.equal(a, b) for a, b in zip(states[0]["G_ema"].values(), states[1]["G_ema"].values(), strict=True))
    assert [json.loads((run.folder / runs.CONFIG).read_text())["seed"] for run in (whole, broken)] == [0, 0]


def test_a_run_that_cannot_work_leaves_the_others_alone_and_is_not_tried_again(tmp_path):
    hopeless = training("hopeless", tmp_path, kimg=0.1, data="nothing")
    told: list[tuple[str, str]] = []
    end = run_here(
        [listing("first", tmp_path), hopeless, listing("last", tmp_path)],
        config=LaunchConfig(retries=5),
        changed=lambda one: told.append((one.name, one.state)),
    )
    assert [one.state for one in end] == ["complete", "failed", "complete"]
    assert end[1].attempts == 1
    assert end[1].problem.startswith("ERROR E_INPUT --data names nothing")
    assert told == [(name, state) for name, last in zip(("first", "hopeless", "last"), ("complete", "failed", "complete"), strict=True)
                    for state in ("running", last)]  # fmt: skip
    # What is complete is not run again; what failed is, once more, by the same call.
    end = run_here([listing("first", tmp_path), hopeless], config=LaunchConfig())
    assert [one.attempts for one in end] == [1, 2]


def test_a_run_that_fails_again_and_again_is_tried_so_often_and_behind_the_others(tmp_path):
    """Its output cannot be written (73), which another day may change: two retries, the first of them behind the run that had not been tried."""
    (tmp_path / "file").touch()
    words = ("train", "--data", str(discs(tmp_path / "data").path), "--out", str(tmp_path / "file" / "run"))
    failing, told = Run(name="failing", folder=tmp_path / "failing", words=words), []
    end = run_here(
        [failing, listing("other", tmp_path)], config=LaunchConfig(retries=2), changed=lambda one: told.append((one.name, one.state))
    )
    assert [(one.state, one.attempts) for one in end] == [("failed", 3), ("complete", 1)]
    assert [name for name, state in told if state == "running"] == ["failing", "other", "failing", "failing"]
    assert [row["exit_code"] for row in runs.read_json_lines(failing.folder / ATTEMPTS)] == [73] * 3


def test_a_stop_saves_states_and_starts_nothing_more(tmp_path):
    discs(tmp_path / "data")
    long, never = training("long", tmp_path, kimg=1000), listing("never", tmp_path)
    with pytest.raises(Preempted):
        run_here([long, never], config=LaunchConfig(), stop=(long.folder / runs.STATE).exists)
    assert (standing(long).state, standing(never).state) == ("stopped", "waiting")
    assert not never.folder.exists()
    assert json.loads((long.folder / OUTPUT).read_text().splitlines()[-1])["status"] == "preempted"


def test_a_run_in_progress_elsewhere_is_left_to_it(tmp_path):
    run = listing("taken", tmp_path)
    run.folder.mkdir()
    with (run.folder / LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert [one.state for one in run_here([run], config=LaunchConfig())] == ["running"]
        assert not (run.folder / OUTPUT).exists()
    assert [one.state for one in run_here([run], config=LaunchConfig())] == ["complete"]


def test_each_run_of_two_gpus_gets_two_of_its_own(tmp_path):
    """Which GPUs a process may see stands in its environment; five GPUs hold two such runs at a time."""
    seen: dict[str, str] = {}

    def note(one) -> None:
        if one.state == "running":
            environment = Path(f"/proc/{last_child()}/environ").read_bytes().split(b"\0")
            seen[one.name] = next(word.decode() for word in environment if word.startswith(b"CUDA_VISIBLE_DEVICES="))

    all_runs = [Run(name=name, folder=tmp_path / name, words=("weights", "list", "--json"), gpus=2) for name in "ab"]
    run_here(all_runs, config=LaunchConfig(), gpus=["0", "3", "4", "5", "6"], changed=note)
    assert seen == {"a": "CUDA_VISIBLE_DEVICES=0,3", "b": "CUDA_VISIBLE_DEVICES=4,5"}
    with pytest.raises(ConfigError, match="needs 2 GPUs, here are 1"):
        run_here(all_runs, config=LaunchConfig(), gpus=["0"])


def last_child() -> int:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return int(children[-1])


def test_kills_and_crashes_are_worth_another_try_and_mistakes_are_not():
    assert [code for code in (-9, 70, 71, 73, 74, 75) if not may_retry(code)] == []
    assert [code for code in (0, 2, 65, 66, 69, 76, 77, 78) if may_retry(code)] == []


def test_two_runs_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="one name: a, b"):
        check_names(list("abcba"))


@pytest.mark.parametrize(("changes", "words"), [({"at_once": -1}, "--at-once"), ({"sbatch": ("qos",)}, "NAME=VALUE")])
def test_settings_that_cannot_be(changes, words):
    with pytest.raises(ConfigError, match=words):
        LaunchConfig(**changes)
