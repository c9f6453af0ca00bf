"""The `medgan` command: subcommands are imported when asked for, problems are shown as one line with an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

import medgan
from medgan.errors import ConfigError, MedganError, from_os_error, redacted_trace
from medgan.signals import keep_exit_code, preemptible

COMMANDS = {
    "demo": ("medgan.commands.demo:command", "The whole way on real CT slices: scans to report."),
    "prepare": ("medgan.commands.prepare:command", "Turn stored scans into a dataset of 2-D images."),
    "plan": ("medgan.commands.plan:command", "Time, memory and disk of a training before it runs."),
    "inspect": ("medgan.commands.inspect:command", "Look at a dataset before a network does: counts, checks, advice."),
    "train": ("medgan.commands.train:command", "Train a generator on a prepared dataset."),
    "import": ("medgan.commands.import_network:command", "Turn an official NVIDIA network pickle into a bundle, safely."),
    "export": ("medgan.commands.export:command", "Write a trained generator as safetensors, TorchScript and ONNX."),
    "generate": ("medgan.commands.generate:command", "Draw synthetic images from a trained generator."),
    "evaluate": ("medgan.commands.evaluate:command", "Compare two sets of images: FID and others."),
    "audit": ("medgan.commands.audit:command", "Privacy gate: are training images copied?"),
    "compare": ("medgan.commands.compare:command", "Compare two evaluations, where they may be compared."),
    "ablate": ("medgan.commands.ablate:command", "Designs of many trainings: the paper's experiments, tests, tables."),
    "diversity": ("medgan.commands.diversity:command", "Diversity and quality of single classes against sample size, the second paper."),
    "readers": ("medgan.commands.readers:command", "Visual Turing tests that clinicians can take."),
    "report": ("medgan.commands.report:command", "Write one HTML file from what a run folder holds."),
    "info": ("medgan.commands.info:command", "Versions, devices, recipes, metrics, weights present."),
    "weights": ("medgan.commands.weights:command", "List, fetch and verify pretrained files."),
}


class Group(click.Group):
    """Loads a command when it is asked for, and is the one place that turns errors into lines and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The table's own words, so that `--help` imports no command and stays torch-free.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        return run_and_exit(lambda: super(Group, self).main(*args, **{**kwargs, "standalone_mode": False}))


def run_and_exit(body: Any) -> None:
    """Run a click command's body; end the process with its result's or its error's exit code and one last line.

    Used by `medgan` and by `python -m plugin`, so that both answer alike.
    """
    keep_exit_code()
    try:
        with preemptible():
            code = body()
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        fail(MedganError("interrupted from the keyboard", fix="the same command resumes", code="E_INTERRUPTED"), exit_code=130)
    except click.UsageError as error:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
            sys.exit(2)
        hint = f"{error.ctx.command_path} --help" if error.ctx else ""
        fail(ConfigError(error.format_message(), fix=hint))
    except click.ClickException as error:
        fail(ConfigError(error.format_message()))
    except BrokenPipeError:
        # The reader of our output left (`medgan info | head`): that is its right.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        sys.exit(0)
    except Exception as error:
        fail(as_problem(error))
    sys.exit(code if isinstance(code, int) else 0)


def as_problem(error: Exception) -> MedganError:
    """Any exception as a problem with one line; our bugs show where they came from but no value of the data."""
    if isinstance(error, MedganError):
        return error
    if os.environ.get("MEDGAN_DEBUG"):
        raise error
    if isinstance(error, OSError) and (known := from_os_error(error)):
        return known
    if type(error).__name__ == "OutOfMemoryError":
        from medgan.errors import DeviceError

        return DeviceError("the GPU has too little free memory", fix="a smaller --batch-gpu (same result)", code="E_GPU_MEMORY")
    trace = redacted_trace(error)
    return MedganError(
        f"{trace[-1]} at {trace[-2] if len(trace) > 1 else '?'}", fix="report it; MEDGAN_DEBUG=1 shows the whole trace on this machine"
    )


def fail(problem: MedganError, *, exit_code: int | None = None) -> None:
    """Print the one ERROR line, last, and leave with the problem's exit code."""
    sys.stdout.flush()
    print(problem.line, file=sys.stderr, flush=True)
    sys.exit(problem.exit_code if exit_code is None else exit_code)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(medgan.__version__, prog_name="medgan")
def main() -> None:
    """Train StyleGAN2-ADA on medical scans; get synthetic images, metrics, the model and a report.

    The whole way in one command: medgan demo
    """
