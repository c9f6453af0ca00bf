"""The entry point of the image: folders, banner, log, outputs and exit code around one job.

`python -m plugin train|check` under the contract of docs/decisions/0005-platform-contract.md. What a job does is `medgan.commands.job`'s
business; what surrounds it on a platform (XNAT, a DGX, a scheduler) is here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import click

import medgan
from medgan.cli import as_problem, run_and_exit
from medgan.config import environment_name, options_from, resolve
from medgan.errors import MedganError, Preempted, redacted_trace
from medgan.runs import atomic, check_writable, commit, sweep, utc_now, write_json, write_text
from medgan.signals import on_stop, preemptible
from plugin import gpus
from plugin.live import watching
from plugin.results import labels, send_results
from plugin.source import Remote, earlier_state, find_input
from plugin.surroundings import (
    Folders,
    banner,
    checked_run_name,
    default_work,
    prepare_output,
    redirect_caches,
    refuse_left_over_keys,
    room_of,
)
from plugin.target import SourceConfig

logger = logging.getLogger("medgan.plugin")

RESOURCES = ("report", "synthetic", "metrics", "model", "checkpoint")
"""The sub-folders of /output, one per XNAT resource. XNAT takes every child of each and refuses an empty one."""

DEFAULTS = {"input": Path("/input"), "output": Path("/output"), "weights": Path("/weights")}

Run = Callable[..., Any]
"""`run_job(config, input=, output=, work=, weights=, run_name=, check_only=, earlier=)`, which fills the folders of RESOURCES."""


def main() -> None:
    """Run the command line in `sys.argv` and end the process with the exit code of the contract."""

    def body() -> Any:
        refuse_left_over_keys(os.environ)
        with told_to_stop():
            from medgan.commands.job import JobConfig, run_job

            return program(JobConfig, run_job).main(prog_name="python -m plugin", standalone_mode=False)

    run_and_exit(body)


@contextlib.contextmanager
def told_to_stop() -> Iterator[None]:
    """A block that SIGTERM or SIGUSR1 ends, at whatever moment, with RESULT as the last line and exit code 75.

    No result, no error: whoever sent the signal starts the same command again, on the same scratch folder.
    """
    try:
        with preemptible():
            yield
    except Preempted as stop:
        print("RESULT status=preempted" + ("" if stop.kimg is None else f" kimg={stop.kimg:g}"), flush=True)
        raise click.exceptions.Exit(stop.exit_code) from None


def program(settings: type, run: Run) -> click.Group:
    """The command line of the container.

    Args:
        settings: The job's settings class; each of its fields becomes an option and a MEDGAN_ variable.
        run: The job.
    """

    @click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
    @click.version_option(medgan.__version__, prog_name="medgan plugin")
    def group() -> None:
        """The job of medgan on a platform: scans in /input; report, images, metrics and model in /output."""

    for name, check_only, text in (
        ("train", False, "Scans to synthetic images, metrics, model and report."),
        ("check", True, "Stop after the data check: what would be trained on, without training (no GPU needed)."),
    ):
        group.add_command(_command(settings, run, name, check_only, text))
    from plugin.bids import bids_command

    group.add_command(bids_command(settings, run))
    return group


def _command(settings: type, run: Run, name: str, check_only: bool, text: str) -> click.Command:
    @click.command(name, help=text, epilog="Every option also reads MEDGAN_<OPTION>; a blank value means the default.")
    @_folder("input", "scans as they are: folder, XNAT archive tree, dataset zip  [default: /input]")
    @_folder("output", "results only, one sub-folder per kind  [default: /output]")
    @_folder("work", "scratch, may be deleted afterwards  [default: a folder under $TMPDIR]")
    @_folder("weights", "pretrained files  [default: /weights]")
    @click.option(
        "--run-name", envvar="MEDGAN_RUN_NAME", help="sub-folder of this run in every result folder  [default: in XNAT, run-<workflow id>]"
    )
    @click.option("--quiet", is_flag=True, default=False, envvar="MEDGAN_QUIET", help="no banner")
    @options_from(SourceConfig)
    @options_from(settings)
    def command(
        input: Path | None, output: Path | None, work: Path | None, weights: Path | None, run_name: str | None, quiet: bool, **flags: Any
    ) -> None:
        config, source, name_of_run = resolve(settings(), flags), resolve(SourceConfig(), flags), checked_run_name(run_name)
        remote = Remote(source, needed=source.source == "rest" or source.upload or source.live > 0)
        read, target = input or DEFAULTS["input"], output or DEFAULTS["output"]
        folders = Folders(
            input=read,
            output=target,
            work=work or default_work(name, read.absolute(), target.absolute(), name_of_run, config, source),
            weights=weights or mounted_weights(),
        )
        status = perform(run, config, folders, source=source, remote=remote, run_name=name_of_run, check_only=check_only, quiet=quiet)
        if work is None and status != "partial":
            # RESULT is said: a stop has nothing left to stop.
            with on_stop(lambda: None):
                shutil.rmtree(folders.work, ignore_errors=True)

    return command


def mounted_weights() -> Path | None:
    """The folder where pretrained files are mounted, if there is one."""
    return DEFAULTS["weights"] if DEFAULTS["weights"].is_dir() else None


def _folder(name: str, text: str) -> Callable[[Any], Any]:
    return click.option(
        f"--{name}", type=click.Path(path_type=Path, readable=False), envvar=environment_name(name), metavar="DIR", help=text
    )


@told_to_stop()
def perform(
    run: Run, config: Any, folders: Folders, *, source: SourceConfig, remote: Remote, run_name: str, check_only: bool, quiet: bool
) -> str:
    """Run one job between its folders; print RESULT as the last line of stdout.

    Returns:
        The job's status: `complete`, `partial` or `checked`.

    Raises:
        Exit: A signal stopped the job (75).
        MedganError: Whatever went wrong, with its exit code; report/error.json and report/run.log are written where the output allows it.
    """
    prepare_output(folders.output, _shown("output", folders.output))
    check_writable(folders.work, "the scratch folder (--work)")
    redirect_caches(folders.work)
    for name in RESOURCES:
        sweep(folders.output / name / run_name)
    report = folders.output / "report" / run_name
    (report / "error.json").unlink(missing_ok=True)
    preempted = None
    with recorded(folders.work) as log:
        try:
            if not quiet:
                print("\n".join(banner(folders)), file=sys.stderr, flush=True)
            with preemptible():
                if not check_only:
                    gpus.choose(getattr(config, "gpus", 1))
                    gpus.check()
                scans = find_input(source, folders, remote, _shown("input", folders.input))
                resume = "new" if check_only else getattr(config, "resume", "new")
                earlier = earlier_state(source, folders, remote, run_name=run_name, resume=resume)
                with watching(source.live, remote, folders.work, run_name), room_of(folders):
                    result = run(
                        config,
                        input=scans,
                        output=folders.output,
                        work=folders.work,
                        weights=folders.weights,
                        run_name=run_name,
                        check_only=check_only,
                        earlier=earlier,
                    )
                fill(folders.output, run_name, "the data check does not make this" if check_only else "this run made nothing here")
                if source.upload:
                    _keep_log(log, report)
                    _upload(remote, folders.output, run_name)
        except Preempted as stop:
            preempted = stop
        except Exception as error:
            problem = _problem(error)
            with contextlib.suppress(OSError):
                _leave_failure(report, problem, error, log)
            raise problem from None
        _keep_log(log, report)
    if preempted:
        raise preempted
    fields = result.fields()
    print("RESULT " + " ".join(f"{name}={value}" for name, value in fields.items()), flush=True)
    return str(fields["status"])


def _keep_log(log: Path, report: Path) -> None:
    with atomic(report / "run.log") as temporary:
        shutil.copyfile(log, temporary)


def _upload(remote: Remote, output: Path, run_name: str) -> None:
    """Send the results to XNAT."""
    if os.environ.get("XNAT_WORKFLOW_ID"):
        logger.info("XNAT stores the results of its own launches: --upload has nothing to do")
        return
    with remote.writing() as connection:
        send_results(connection, remote.target, output, labels(output, run_name), run_name)


def _shown(name: str, folder: Path) -> str:
    """`/input` for the default, else the option: the path itself may name a patient."""
    return str(folder) if folder == DEFAULTS[name] else f"--{name}"


def _problem(error: Exception) -> MedganError:
    problem = as_problem(error)
    if problem is not error and problem.code == MedganError.code:
        return MedganError(f"{problem.message}; see report/error.json")
    return problem


def _leave_failure(report: Path, problem: MedganError, error: Exception, log: Path) -> None:
    """Write error.json and run.log, the two files of a job that failed."""
    write_json(
        report / "error.json",
        {
            "code": problem.code,
            "exit_code": problem.exit_code,
            "message": problem.message,
            "fix": problem.fix,
            "trace": redacted_trace(error),
            "version": medgan.__version__,
            "commit": commit(),
            "time": utc_now(),
        },
    )
    write_text(report / "run.log", log.read_text(encoding="utf-8") + problem.line + "\n")


def fill(output: Path, run_name: str, reason: str) -> None:
    """Give every result folder at least one file.

    XNAT answers a missing or empty output with an error or an empty resource, so a folder without results says why.
    """
    for name in RESOURCES:
        folder = output / name / run_name
        folder.mkdir(parents=True, exist_ok=True)
        if next(folder.iterdir(), None) is None:
            write_text(folder / "README.txt", f"{name}: {reason}.\n")


class Tee:
    """Standard error and the run's log at once; never a terminal, so that nobody draws bars or colours into it."""

    encoding = "utf-8"

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self.terminal, self.log = terminal, log

    def write(self, text: str) -> int:
        self.log.write(text)
        return self.terminal.write(text)

    def flush(self) -> None:
        self.log.flush()
        self.terminal.flush()

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self.terminal.fileno()


@contextlib.contextmanager
def recorded(work: Path) -> Iterator[Path]:
    """Keep what we say on stderr in a log file, and what other libraries say out of sight.

    Image libraries quote header values and file names in warnings, on Python's level and on C's (ITK writes to the descriptor itself);
    both may name a patient. They go to work/native.log, which is scratch and no result. MEDGAN_DEBUG lets everything through.

    Yields:
        The path of the log of our own lines.
    """
    path = work / "run.log"
    path.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    stdout, stderr = os.dup(1), os.dup(2)
    ours = logging.getLogger("medgan")
    former = (sys.stdout, sys.stderr, ours.level, ours.propagate)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(path.open("w", encoding="utf-8", buffering=1))
        terminal = stack.enter_context(os.fdopen(stderr, "w", encoding="utf-8", buffering=1))
        if not os.environ.get("MEDGAN_DEBUG"):
            native = stack.enter_context((work / "native.log").open("w", encoding="utf-8", errors="replace"))
            os.dup2(native.fileno(), 1)
            os.dup2(native.fileno(), 2)
            sys.stdout = native
            others = logging.StreamHandler(native)
            logging.getLogger().addHandler(others)  # a root without a handler would print on our stderr
            stack.callback(logging.getLogger().removeHandler, others)
            logging.captureWarnings(True)
            stack.callback(logging.captureWarnings, False)
        sys.stderr = Tee(terminal, log)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
        ours.propagate = False
        try:
            yield path
        finally:
            sys.stderr.flush()
            ours.removeHandler(handler)
            sys.stdout, sys.stderr, level, ours.propagate = former
            ours.setLevel(level)
            os.dup2(stdout, 1)
            os.dup2(terminal.fileno(), 2)
            os.close(stdout)
