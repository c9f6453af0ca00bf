"""The command definitions for an XNAT site: `python -m plugin.xnat write|lint`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from medgan.cli import run_and_exit
from medgan.errors import ConfigError
from medgan.runs import write_text
from plugin.command import ROOT, TASKS, VARIANTS, as_json, command_definition, definitions, dockerfile_with_label, file_name
from plugin.lint import lint, read_command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def group() -> None:
    """The command definitions for an XNAT site."""


@group.command("write")
@click.option("--variant", type=click.Choice(list(VARIANTS)), default="docker", show_default=True, help="kind of backend")
@click.option("--task", type=click.Choice(list(TASKS)), default="train", show_default=True, help="which command, with --out")
@click.option("--out", type=click.Path(path_type=Path, allow_dash=True), help="where to; - is stdout  [default: the repository's files]")
def write_command(variant: str, task: str, out: Path | None) -> None:
    """Write the command files; without --out those of both tasks, and for the docker variant the label in the Dockerfile."""
    from medgan.commands.job import JobConfig

    if out is not None and str(out) == "-":
        click.echo(as_json(command_definition(JobConfig, variant, task)), nl=False)
        return
    targets = {task: out} if out is not None else {each: ROOT / file_name(variant, each) for each in TASKS}
    for each, path in targets.items():
        write_text(path, as_json(command_definition(JobConfig, variant, each)))
    dockerfile = ROOT / "Dockerfile"
    if out is None and variant == "docker" and dockerfile.exists():
        write_text(dockerfile, dockerfile_with_label(dockerfile.read_text(encoding="utf-8"), definitions(JobConfig)))
    versions = {each: command_definition(JobConfig, variant, each)["version"] for each in targets}
    click.echo(json.dumps({"written": [path.name for path in targets.values()], "variant": variant, "versions": versions}))


@group.command("lint")
@click.argument("file", type=click.Path(path_type=Path, readable=False))
def lint_command(file: Path) -> None:
    """Check a command file: all that XNAT refuses, and what it takes in silence and then runs wrongly."""
    from medgan.commands.job import JobConfig

    problems = lint(read_command(file), JobConfig)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise ConfigError(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the command file")
    click.echo(json.dumps({"problems": 0}))


def main() -> None:
    """Run the command line in `sys.argv`."""
    run_and_exit(lambda: group.main(prog_name="python -m plugin.xnat", standalone_mode=False))


if __name__ == "__main__":
    main()
