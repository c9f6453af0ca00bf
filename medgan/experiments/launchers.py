"""Runs of an experiment: plain `medgan` command lines, each with a folder of its own, started, started again from their state, and watched.

What a run has come to is said by its folder alone: the state and status.json that the command itself keeps, and one line of attempts.jsonl
for each start that ended. So a launcher may be killed, and another one, on another machine, goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medgan import runs
from medgan.config import setting
from medgan.errors import ConfigError, DataError, DivergedError, InputError, Preempted, PrivacyError, ResumeError, WeightsError
from medgan.signals import stop_asked

ATTEMPTS = "attempts.jsonl"
OUTPUT = "output.txt"
LOCK = "run.lock"

HOPELESS = frozenset(
    kind.exit_code for kind in (ConfigError, DataError, InputError, WeightsError, DivergedError, PrivacyError, ResumeError)
)
"""Exit codes that the same command would meet again: these runs wait for a person. A diverged run draws the same numbers from its state."""

# The only settings of ours that a run takes from its surroundings; any other would change a run without standing in its design.
KEPT_VARIABLES = ("MEDGAN_COMMIT", "MEDGAN_DEBUG", "MEDGAN_DEVICE", "MEDGAN_CACHE")

SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """How the runs of an experiment are started."""

    launcher: str = setting("local", "where the runs go: this machine, or Slurm (the extra `slurm`)", choices=("local", "slurm"))
    at_once: int = setting(0, "runs at a time; 0 is one per GPU here (one without GPUs), and no limit of ours on Slurm")
    retries: int = setting(2, "how often a run that fails is started again from its state before the others go on without it")
    wait: bool = setting(False, "with slurm, stay until all runs have ended")
    partition: str = setting("", "Slurm's partition")
    job_hours: float = setting(24.0, "time limit of a Slurm job; two minutes before it the state is saved and the job queued again")
    job_requeues: int = setting(50, "how often a Slurm job may reach its time limit")
    job_cpus: int = setting(8, "cores of a Slurm job")
    job_gib: float = setting(0.0, "memory of a Slurm job in GiB; 0 leaves it to the site")
    sbatch: tuple[str, ...] = setting((), "further options of sbatch, e.g. account=radiology,qos=long", metavar="NAME=VALUE,...")

    def __post_init__(self) -> None:
        for name, least in (("at_once", 0), ("retries", 0), ("job_hours", 0.1), ("job_requeues", 0), ("job_cpus", 1), ("job_gib", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name):g} is less than {least:g}")
        for word in self.sbatch:
            if not word.partition("=")[0] or "=" not in word:
                raise ConfigError(f"--sbatch {word} is not NAME=VALUE", fix="--sbatch account=radiology,qos=long")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One command of an experiment.

    Attributes:
        name: Unique in the experiment.
        folder: Its own; what `--out` among the words says.
        words: The command line after `medgan`.
        gpus: GPUs it needs where there are any.
    """

    name: str
    folder: Path
    words: tuple[str, ...]
    gpus: int = 1

    @property
    def command(self) -> str:
        """The command line as one would type it."""
        return shlex.join(["medgan", *self.words])


def check_names(names: Sequence[str]) -> None:
    """Refuse two runs of one name, which would write over each other.

    Raises:
        ConfigError: With all such names.
    """
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two runs have one name: {', '.join(twice)}", fix="rename one of them in the design")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a run has come to.

    Attributes:
        name: Of the run.
        state: `waiting`, `running`, `complete`, `partial` (its own time budget), `stopped` (its state is saved), `failed`, or `unfinished`
            (it wrote that it was running, and nobody runs it).
        kimg: Thousands of images shown, of those it will show: `412/1000`; empty before the first tick.
        best: The best figure so far and where, `5.31@760`; empty where there is none.
        attempts: Starts that have ended.
        problem: The last ERROR line of a run that failed.
    """

    name: str
    state: str
    kimg: str = ""
    best: str = ""
    attempts: int = 0
    problem: str = ""


def standing(run: Run) -> Standing:
    """What a run has come to, read from its folder; nothing is written."""
    status = runs.read_json(run.folder / runs.STATUS)
    attempts = runs.read_json_lines(run.folder / ATTEMPTS)
    last = attempts[-1] if attempts else {}
    best = status.get("best", "")
    if isinstance(best, dict):
        # As a training says it at its end.
        best = f"{best['value']:.4g}@{best['kimg']:g}" if best.get("value") is not None else ""
    state = status.get("status", "")
    if _held(run):
        state = "running"
    elif state not in ("complete", "partial"):
        code = last.get("exit_code")
        state = {None: "unfinished" if state else "waiting", 0: "complete", Preempted.exit_code: "stopped"}.get(code, "failed")
    problem = last.get("problem", "") if state == "failed" else ""
    return Standing(name=run.name, state=state, kimg=str(status.get("kimg", "")), best=best, attempts=len(attempts), problem=problem)


def _held(run: Run) -> bool:
    """Whether some process runs it now."""
    try:
        with (run.folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


class Attempt:
    """One start of a run, in a process of its own.

    The process inherits the lock of the run's folder: as long as it lives, even after its launcher was killed, nobody starts a second one.

    Args:
        run: What to start.
        gpus: What CUDA_VISIBLE_DEVICES says to it; None leaves that as it is.

    Raises:
        BlockingIOError: Another process runs it.
    """

    def __init__(self, run: Run, *, gpus: str | None = None) -> None:
        self.run, self.started, self.asked = run, runs.utc_now(), False
        run.folder.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDGAN_") or name in KEPT_VARIABLES}
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpus
        with (run.folder / LOCK).open("ab") as lock, (run.folder / OUTPUT).open("ab") as output:
            _take(lock)
            self.output_start = output.tell()
            # Slurm may send a job's signal to all its processes (proctrack/linuxproc). SIGUSR2 is meant for the one that queues it again;
            # this one would die of it. A mask, other than a handler, outlives the start of a program.
            former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
            # A session of its own: Ctrl-C and a scheduler's signals reach the launcher, which passes on what the run should know.
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "medgan", *run.words],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,
                    pass_fds=[lock.fileno()],
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, former)

    def ended(self) -> bool:
        """Whether the process is gone; it waits for nothing and takes no exit code, so that a signal handler may ask too."""
        try:
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def stop(self) -> None:
        """Ask the run, once, to save its state and end."""
        if not self.asked:
            self.asked = True
            # Popen's own send_signal would take the exit code of a process that has just ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)

    def finish(self) -> int:
        """Write down how it ended; the exit code, below 0 where a signal killed it."""
        code = self.process.wait()
        row = {"started": self.started, "finished": runs.utc_now(), "exit_code": code}
        if code:
            row["problem"] = self._last_words() if code > 0 else f"killed by {signal.Signals(-code).name}"
        runs.append_json(self.run.folder / ATTEMPTS, row)
        return code

    def _last_words(self) -> str:
        with (self.run.folder / OUTPUT).open("rb") as file:
            file.seek(self.output_start)
            lines = file.read()[-20_000:].decode("utf-8", "replace").splitlines()
        errors = [line for line in lines if line.startswith("ERROR ")]
        return errors[-1] if errors else f"ended with exit code {self.process.returncode}"


def _take(lock: Any) -> None:
    """The lock, also where somebody just looks whether it is held."""
    for attempt in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt == 9:
                raise
            time.sleep(0.05)
        else:
            return


def may_retry(exit_code: int) -> bool:
    """Whether the same command may do better from its state: after a kill, a crash, a lost GPU, a full disk; not after a wrong option."""
    return exit_code != 0 and exit_code not in HOPELESS


@dataclass
class _Queue:
    """Runs that are to be started, and how often each has failed here."""

    waiting: list[Run]
    failures: dict[str, int] = field(default_factory=dict)

    def after(self, run: Run, exit_code: int, retries: int) -> None:
        """Queue a run that failed again, behind those that have not been tried."""
        self.failures[run.name] = self.failures.get(run.name, 0) + (exit_code != 0)
        if may_retry(exit_code) and self.failures[run.name] <= retries:
            self.waiting.append(run)


def start(
    all_runs: Sequence[Run], *, folder: Path, config: LaunchConfig, changed: Callable[[Standing], None] = lambda standing: None
) -> dict[str, str]:
    """Run what is not complete where the settings say: on this machine to the end, or as jobs of Slurm, whose ends `wait` waits for.

    Args:
        all_runs: Of the experiment.
        folder: Of the experiment.
        config: How.
        changed: Told when a run starts and ends on this machine.

    Returns:
        Job of each run that is in Slurm's queue, or was when `wait` began.

    Raises:
        ConfigError: A run cannot be started so.
        Preempted: Told to stop; the states are saved.
    """
    if config.launcher == "slurm":
        from medgan.experiments.slurm import submit, wait_for

        jobs = submit(all_runs, folder=folder, config=config)
        if config.wait:
            wait_for(jobs)
        return jobs
    with stop_asked() as asked:
        run_here(all_runs, config=config, gpus=gpus_here(), stop=asked, changed=changed)
    return {}


def run_here(
    all_runs: Sequence[Run],
    *,
    config: LaunchConfig,
    gpus: Sequence[str] = (),
    stop: Callable[[], bool] = lambda: False,
    changed: Callable[[Standing], None] = lambda standing: None,
) -> list[Standing]:
    """Run what is not complete on this machine, one after another or as many as have GPUs; a failed run never stops the others.

    Args:
        all_runs: Of the experiment; those that are complete or run elsewhere are left alone.
        config: `at_once` and `retries` count here.
        gpus: The GPUs to share out, as CUDA_VISIBLE_DEVICES names them; none leaves the choice to the runs.
        stop: Asked all the time; when true the runs save their state and end, and no other is started.
        changed: Told when a run starts and ends.

    Returns:
        Where each run stands, in the order given.

    Raises:
        ConfigError: A run needs more GPUs than there are.
        Preempted: `stop` said so; the states are saved.
    """
    most = max((run.gpus for run in all_runs), default=1)
    if gpus and most > len(gpus):
        raise ConfigError(f"a run needs {most} GPUs, here are {len(gpus)}", fix="fewer GPUs for each run")
    slots = [",".join(gpus[i : i + most]) for i in range(0, len(gpus) - most + 1, most)]
    free: list[str | None] = [*slots] if slots else [None] * max(config.at_once, 1)
    free = free[: config.at_once or len(free)]
    queue = _Queue([run for run in all_runs if standing(run).state not in ("complete", "running")])
    active: list[tuple[Attempt, str | None]] = []
    with _left_alive(active):
        while active or (queue.waiting and not stop()):
            while queue.waiting and free and not stop():
                run, slot = queue.waiting.pop(0), free.pop(0)
                try:
                    active.append((Attempt(run, gpus=slot), slot))
                except BlockingIOError:
                    free.append(slot)
                changed(standing(run))
            if stop():
                for attempt, _ in active:
                    attempt.stop()
            for attempt, slot in [pair for pair in active if pair[0].ended()]:
                active.remove((attempt, slot))
                free.append(slot)
                queue.after(attempt.run, attempt.finish(), config.retries)
                changed(standing(attempt.run))
            time.sleep(SECONDS_BETWEEN_LOOKS)
    end = [standing(run) for run in all_runs]
    if stop() and any(one.state != "complete" for one in end):
        raise Preempted("told to stop; the runs' states are saved")
    return end


@contextlib.contextmanager
def _left_alive(active: list[tuple[Attempt, str | None]]) -> Iterator[None]:
    """Whatever ends the block (Ctrl-C, a full disk), no run goes on unwatched: each saves its state first."""
    try:
        yield
    finally:
        for attempt, _ in active:
            attempt.stop()
        for attempt, _ in active:
            attempt.finish()


def on_cpu() -> bool:
    """Whether the runs were told to stay off GPUs."""
    return os.environ.get("MEDGAN_DEVICE", "").strip() == "cpu"


def gpus_here() -> list[str]:
    """The GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them; none on a machine without."""
    import torch

    if on_cpu() or not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
