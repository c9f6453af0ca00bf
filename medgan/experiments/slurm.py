"""Runs as an array of Slurm jobs, through submitit (MIT; the extra `slurm`).

A job starts its run as the local launcher does, and again from its state when it fails. Two minutes before its time limit, or when it must
make room, Slurm sends SIGUSR2: the run saves its state and the job is queued again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medgan.errors import ConfigError
from medgan.experiments.launchers import SECONDS_BETWEEN_LOOKS, Attempt, LaunchConfig, Run, may_retry, standing

JOBS = "jobs"
"""Folder of submitit's own files. They name places of the data: not to be passed on."""

SECONDS_TO_SAVE = 120


class Job:
    """What a Slurm job does: one run, with its retries.

    Args:
        run: The run.
        retries: How often it is started again in this job.
    """

    def __init__(self, run: Run, retries: int) -> None:
        self.run, self.retries = run, retries
        self.attempt: Attempt | None = None

    def __call__(self) -> int:
        """Run it; the exit code of the last start, 0 where there was nothing left to do."""
        code = 0
        for _ in range(self.retries + 1):
            if standing(self.run).state in ("complete", "running"):
                return 0
            self.attempt = Attempt(self.run)
            while not self.attempt.ended():
                time.sleep(SECONDS_BETWEEN_LOOKS)
            code = self.attempt.finish()
            if not may_retry(code):
                break
        return code

    def checkpoint(self) -> Any:
        """Called by submitit in its signal handler: save, then be queued again."""
        from submitit.helpers import DelayedSubmission

        if self.attempt:
            self.attempt.stop()
            while not self.attempt.ended():
                time.sleep(SECONDS_BETWEEN_LOOKS)
            self.attempt.finish()
        return DelayedSubmission(Job(self.run, self.retries))


def submit(all_runs: Sequence[Run], *, folder: Path, config: LaunchConfig, cluster: str = "slurm") -> dict[str, Any]:
    """Submit what is not complete as one array of jobs.

    Args:
        all_runs: Of the experiment.
        folder: Of the experiment; on Slurm the computing nodes must see it under the same path.
        config: How.
        cluster: `slurm`, or `local`: submitit's own processes on this machine, for tests.

    Returns:
        Name of the run -> its submitit job.

    Raises:
        ConfigError: There is no Slurm or no submitit here.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError("--launcher slurm needs submitit", fix="pip install 'medgan[slurm]'") from None
    if cluster == "slurm" and not shutil.which("srun"):
        raise ConfigError("--launcher slurm: this machine has no srun", fix="a login node of the cluster, or --launcher local")
    todo = [run for run in all_runs if standing(run).state not in ("complete", "running")]
    if not todo:
        return {}
    limits = {"slurm_max_num_timeout": config.job_requeues, "local_max_num_timeout": config.job_requeues}
    executor = submitit.AutoExecutor(folder=folder.absolute() / JOBS, cluster=cluster, **limits)
    more = dict(word.split("=", 1) for word in config.sbatch)
    executor.update_parameters(
        name="medgan",
        timeout_min=max(round(config.job_hours * 60), 1),
        gpus_per_node=max(run.gpus for run in todo) if cluster == "slurm" else 0,
        cpus_per_task=config.job_cpus,
        mem_gb=config.job_gib or None,
        slurm_partition=config.partition or None,
        slurm_signal_delay_s=SECONDS_TO_SAVE,
        slurm_array_parallelism=config.at_once or len(todo),
        slurm_additional_parameters=more or None,
    )
    with executor.batch():
        jobs = [executor.submit(Job(run, config.retries)) for run in todo]
    return {run.name: job for run, job in zip(todo, jobs, strict=True)}


def wait_for(jobs: dict[str, Any], *, seconds_between: float = 30.0) -> None:
    """Return when all jobs have ended, however they did."""
    while not all(job.done() for job in jobs.values()):
        time.sleep(seconds_between)
