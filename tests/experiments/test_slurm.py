"""Jobs through submitit's own processes on this machine: what Slurm would start, without Slurm."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from medgan import runs
from medgan.errors import ConfigError
from medgan.experiments.launchers import ATTEMPTS, LaunchConfig, standing
from medgan.experiments.slurm import submit, wait_for
from tests.experiments.test_launchers import listing, process_of, training, wait_for_state
from tests.toy import discs


@pytest.fixture(autouse=True)
def _this_tree(monkeypatch):
    """Jobs are processes that import the package anew."""
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", os.getcwd()))


def test_a_job_told_to_make_room_saves_is_queued_again_and_goes_on(tmp_path):
    """SIGUSR2 to the job, as Slurm sends it before a time limit; beside it a job that fails and one that is done at once."""
    discs(tmp_path / "data")
    long, wrong, quick = (
        training("long", tmp_path, kimg=0.2),
        training("wrong", tmp_path, kimg=1, data="nothing"),
        listing("quick", tmp_path),
    )
    jobs = submit([wrong, long, quick], folder=tmp_path, config=LaunchConfig(), cluster="local")
    wait_for_state(long)
    training_process = process_of(long.folder)
    job_process = int(Path(f"/proc/{training_process}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(job_process, signal.SIGUSR2)
    wait_for(jobs, seconds_between=0.1)
    assert [standing(run).state for run in (long, wrong, quick)] == ["complete", "failed", "complete"]
    assert [row["exit_code"] for row in runs.read_json_lines(long.folder / ATTEMPTS)] == [75, 0]
    assert {name: job.result() for name, job in jobs.items()} == {"long": 0, "wrong": 66, "quick": 0}
    # What is complete is not submitted again.
    assert submit([long, quick], folder=tmp_path, config=LaunchConfig(), cluster="local") == {}


@pytest.mark.skipif(shutil.which("srun") is not None, reason="this machine has Slurm")
def test_a_machine_without_slurm_is_told_so(tmp_path):
    with pytest.raises(ConfigError, match="no srun"):
        submit([listing("a", tmp_path)], folder=tmp_path, config=LaunchConfig())
    assert list(tmp_path.iterdir()) == []
