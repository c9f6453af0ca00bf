"""Runs as an array of Slurm jobs, through submitit (MIT; the extra `slurm`).

A job starts its run as the local launcher does, and again from its state when it fails. Two minutes before its time limit Slurm sends
SIGUSR2: the run saves its state and the job is queued again. Whoever cancels a job, or takes its node for another, sends SIGTERM: the run
saves its state, and whether there is a next time is Slurm's to say.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medgan import runs
from medgan.errors import ConfigError
from medgan.experiments.launchers import SECONDS_BETWEEN_LOOKS, Attempt, LaunchConfig, Run, may_retry, on_cpu, standing

JOBS = "jobs"
"""Folder of submitit's own files. They name places of the data: not to be passed on."""

SUBMITTED = "submitted.json"
"""In it: name of a run -> its last job."""

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
        self.told = False

    def __call__(self) -> int:
        """Run it; the exit code of the last start, 0 where there was nothing left to do."""
        # submitit's own answer is to go on.
        signal.signal(signal.SIGTERM, self._save)
        code = 0
        for _ in range(self.retries + 1):
            if self.told or standing(self.run).state in ("complete", "running"):
                break
            self.attempt = Attempt(self.run)
            if self.told:
                self.attempt.stop()
            code = self._end()
            if not may_retry(code):
                break
        if self.told and code:
            # SIGKILL comes, or SIGUSR2 where a preempted job is to be queued again: one that has ended by itself would not be.
            time.sleep(SECONDS_TO_SAVE)
        return code

    def _end(self) -> int:
        assert self.attempt
        while not self.attempt.ended():
            time.sleep(SECONDS_BETWEEN_LOOKS)
        code, self.attempt = self.attempt.finish(), None
        return code

    def _save(self, number: int, frame: Any) -> None:
        self.told = True
        if self.attempt:
            self.attempt.stop()

    def checkpoint(self) -> Any:
        """Called by submitit in its signal handler: save, then be queued again."""
        from submitit.helpers import DelayedSubmission

        if self.attempt:
            self.attempt.stop()
            self._end()
        return DelayedSubmission(Job(self.run, self.retries))


def submit(all_runs: Sequence[Run], *, folder: Path, config: LaunchConfig, cluster: str = "slurm") -> dict[str, str]:
    """Submit what is neither complete nor in the queue as one array of jobs.

    Args:
        all_runs: Of the experiment.
        folder: Of the experiment; on Slurm the computing nodes must see it under the same path.
        config: How.
        cluster: `slurm`, or `local`: submitit's own processes on this machine, for tests.

    Returns:
        Name of the run -> its job, of those in the queue now.

    Raises:
        ConfigError: There is no Slurm or no submitit here, or Slurm refuses the jobs.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError("--launcher slurm needs submitit", fix="pip install 'medgan[slurm]'") from None
    if cluster == "slurm" and not shutil.which("srun"):
        raise ConfigError("--launcher slurm: this machine has no srun", fix="a login node of the cluster, or --launcher local")
    path = folder / JOBS / SUBMITTED
    before = runs.read_json(path)
    waiting = queued(before.values()) if cluster == "slurm" else set()
    jobs = {run.name: before[run.name] for run in all_runs if before.get(run.name) in waiting}
    todo = [run for run in all_runs if run.name not in jobs and standing(run).state not in ("complete", "running")]
    if not todo:
        return jobs
    limits = {"slurm_max_num_timeout": config.job_requeues, "local_max_num_timeout": config.job_requeues}
    executor = submitit.AutoExecutor(folder=folder.absolute() / JOBS, cluster=cluster, **limits)
    more = dict(word.split("=", 1) for word in config.sbatch)
    executor.update_parameters(
        name="medgan",
        timeout_min=max(round(config.job_hours * 60), 1),
        gpus_per_node=None if on_cpu() else max(run.gpus for run in todo) if cluster == "slurm" else 0,
        cpus_per_task=config.job_cpus,
        mem_gb=config.job_gib or None,
        slurm_partition=config.partition or None,
        slurm_signal_delay_s=SECONDS_TO_SAVE,
        slurm_array_parallelism=config.at_once or len(todo),
        slurm_additional_parameters=more or None,
        # Since Slurm 22.05 srun does not take it from its job.
        slurm_srun_args=[f"--cpus-per-task={config.job_cpus}"],
    )
    with _refusal(), executor.batch():
        submitted = [executor.submit(Job(run, config.retries)) for run in todo]
    jobs |= {run.name: job.job_id for run, job in zip(todo, submitted, strict=True)}
    runs.write_json(path, {**before, **jobs})
    return jobs


@contextlib.contextmanager
def _refusal() -> Iterator[None]:
    """Turn what sbatch says into one line; its paths name places of the data."""
    from submitit.core.utils import FailedJobError

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except FailedJobError as error:
        lines = [line.removeprefix("sbatch: error: ") for line in str(error).splitlines() if line.strip()]
        said = re.sub(r"\S*/\S*", "...", "; ".join(lines))
        fix = "--partition, --job-hours, --job-cpus, --job-gib, --sbatch"
        raise ConfigError(f"Slurm refused the jobs: {said}", fix=fix) from None


def queued(jobs: Iterable[str]) -> set[str]:
    """Those of some jobs that wait in Slurm's queue or run.

    Raises:
        ConfigError: Slurm does not answer.
    """
    asked = set(jobs)
    if not asked:
        return asked
    words = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(sorted(asked))}"]
    # Its variables would choose other rows.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    # One job alone that Slurm has forgotten is an error.
    if done.returncode and "Invalid job id" not in done.stderr:
        raise ConfigError(f"Slurm does not answer: {done.stderr.strip()}", fix="try again when `squeue` answers")
    return asked.intersection(done.stdout.split())


def wait_for(jobs: Mapping[str, str], *, queued: Callable[[Iterable[str]], set[str]] = queued) -> None:
    """Return when all jobs have left the queue, however they ended: by what Slurm says, for a job that was cancelled leaves no file."""
    seconds = 1.0
    left = set(jobs.values())
    while left:
        time.sleep(seconds)
        seconds = min(1.5 * seconds, 30.0)
        with contextlib.suppress(ConfigError):
            left = queued(left)
