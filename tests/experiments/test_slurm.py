"""Jobs through submitit's own processes on this machine: what Slurm would start, without Slurm."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from medgan import runs
from medgan.errors import ConfigError
from medgan.experiments.launchers import ATTEMPTS, LaunchConfig, Run, standing
from medgan.experiments.slurm import JOBS, submit, wait_for
from tests.experiments.test_launchers import listing, process_of, training, wait_for_state
from tests.toy import discs


@pytest.fixture(autouse=True)
def _this_tree(monkeypatch):
    """Jobs are processes that import the package anew."""
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", os.getcwd()))


def processes_of(run: Run) -> tuple[int, int]:
    """The training and the job that started it."""
    process = process_of(run.folder)
    return process, int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_job_told_to_make_room_saves_is_queued_again_and_goes_on(tmp_path):
    """SIGUSR2 as Slurm sends it before a time limit, or to all processes where it tracks them by /proc; SIGTERM first where jobs are preempted.

    Beside them a job that fails and one that is done at once.
    """
    discs(tmp_path / "data")
    timed, preempted = training("timed", tmp_path, kimg=0.1), training("preempted", tmp_path, kimg=0.2)
    wrong, quick = training("wrong", tmp_path, kimg=1, data="nothing"), listing("quick", tmp_path)
    everything = [wrong, timed, preempted, quick]
    jobs = submit(everything, folder=tmp_path, config=LaunchConfig(), cluster="local")
    wait_for_state(timed)
    process, job = processes_of(timed)
    os.kill(process, signal.SIGUSR2)
    os.kill(job, signal.SIGUSR2)
    wait_for_state(preempted)
    _, job = processes_of(preempted)
    os.kill(job, signal.SIGTERM)
    while standing(preempted).state == "running":
        time.sleep(0.05)
    # It does not begin anew by itself.
    time.sleep(1)
    assert standing(preempted).state == "stopped"
    os.kill(job, signal.SIGUSR2)
    wait_for(jobs, queued=lambda ids: {one for one in ids if not (tmp_path / JOBS / f"{one}_0_result.pkl").exists()})
    assert [standing(run).state for run in everything] == ["failed", "complete", "complete", "complete"]
    codes = [[row["exit_code"] for row in runs.read_json_lines(run.folder / ATTEMPTS)] for run in everything]
    assert codes == [[66], [75, 0], [75, 0], [0]]
    # What is complete is not submitted again.
    assert submit([timed, quick], folder=tmp_path, config=LaunchConfig(), cluster="local") == {}


def test_a_machine_without_slurm_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no srun"):
        submit([listing("a", tmp_path)], folder=tmp_path, config=LaunchConfig())
    assert list(tmp_path.iterdir()) == []
