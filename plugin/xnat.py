"""An XNAT site: its command definitions, and what is done there over REST. `python -m plugin.xnat write|lint|register|launch|status|upload`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from medgan.cli import run_and_exit
from medgan.errors import ConfigError, InputError, OutputError
from medgan.runs import write_text
from plugin.command import ROOT, TASKS, VARIANTS, as_json, command_definition, definitions, dockerfile_with_label, file_name
from plugin.credentials import Site, ask, site
from plugin.lint import lint, read_command
from plugin.rest import Connection
from plugin.results import labels, send_results
from plugin.site import launch, register, status
from plugin.surroundings import checked_run_name
from plugin.target import target_of


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def group() -> None:
    """The command definitions for an XNAT site, and the site itself.

    The password is read from XNAT_PASS or ~/.netrc, or asked for; never from an option.
    """


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


F = TypeVar("F", bound=Callable[..., Any])


def _site_options(function: F) -> F:
    host = click.option("--host", envvar="XNAT_HOST", default="", help="the site's address  [default: $XNAT_HOST]")
    user = click.option("--user", envvar="XNAT_USER", default="", help="who asks  [default: $XNAT_USER, or as ~/.netrc says]")
    return host(user(function))


def _site(host: str, user: str) -> Site:
    return site(os.environ, host=host, user=user, ask=ask if sys.stdin.isatty() else None)


@group.command("register")
@_site_options
@click.option("--project", default="", help="enable the commands in this project too")
@click.option("--variant", type=click.Choice(list(VARIANTS)), default="docker", show_default=True, help="kind of backend")
@click.option("--file", type=click.Path(path_type=Path, readable=False), help="this command file instead of the variant's commands")
@click.option("--image", default="", help="the image's name where the site's backend finds it, with a tag  [default: the command's own]")
@click.option("--pull", is_flag=True, default=False, help="let the site's Docker server pull the image first")
def register_command(host: str, user: str, project: str, variant: str, file: Path | None, image: str, pull: bool) -> None:
    """Add the commands, enable them for the site and, with --project, for a project. To repeat it does no harm."""
    from medgan.commands.job import JobConfig

    commands = definitions(JobConfig, variant) if file is None else [read_command(file)]
    if image:
        commands = [{**command, "image": image} for command in commands]
    for command in commands:
        if problems := lint(command, JobConfig):
            raise ConfigError(f"the command file has problems, the first: {problems[0]}", fix="python -m plugin.xnat lint FILE shows all")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with Connection(_site(host, user), OutputError) as connection:
        click.echo(json.dumps(register(connection, commands, project=project, pull=pull, say=say)))


@group.command("launch")
@click.argument("target")
@_site_options
@click.option("--project", default="", help="the project of the session or scan  [default: as XNAT says]")
@click.option("--command", "name", default="medgan-train", show_default=True, help="name of the command")
@click.option("--version", default="", help="its version  [default: the one added last]")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="a field of the form; may be repeated")
def launch_command(target: str, host: str, user: str, project: str, name: str, version: str, values: tuple[str, ...]) -> None:
    """Launch a command on TARGET: projects/ID, experiments/ID or experiments/ID/scans/1."""
    pairs = [value.partition("=") for value in values]
    if odd := [key for key, equals, _ in pairs if not key or not equals]:
        raise ConfigError(f"--set {odd[0]} is not NAME=VALUE")
    with Connection(_site(host, user), OutputError) as connection:
        chosen = {key: value for key, _, value in pairs}
        click.echo(json.dumps(launch(connection, name, target, chosen, project=project, version=version)))


@group.command("status")
@click.argument("launch")
@_site_options
@click.option("--project", default="", help="the project it was launched in")
def status_command(launch: str, host: str, user: str, project: str) -> None:
    """What became of a LAUNCH: the workflow that `launch` printed, or a container's id."""
    with Connection(_site(host, user), InputError) as connection:
        click.echo(json.dumps(status(connection, launch, project=project)))


@group.command("upload")
@click.argument("output", type=click.Path(path_type=Path, readable=False))
@click.argument("target")
@_site_options
@click.option("--run-name", default="", help="the run's sub-folder in each result folder, if it has one")
def upload_command(output: Path, target: str, host: str, user: str, run_name: str) -> None:
    """Send the results in the folder OUTPUT to TARGET (projects/ID, experiments/ID), and compare what arrived."""
    place, run = target_of(target), checked_run_name(run_name)
    if not (output / "report" / run).is_dir():
        raise InputError("the folder holds no results", fix="give the output folder of a run, and its --run-name if it had one")
    wanted = labels(output, run)
    with Connection(_site(host, user), OutputError) as connection:
        sent = send_results(connection, place, output, wanted, run)
    click.echo(json.dumps({"files": sent, "resources": list(wanted.values())}))


def main() -> None:
    """Run the command line in `sys.argv`."""
    run_and_exit(lambda: group.main(prog_name="python -m plugin.xnat", standalone_mode=False))


if __name__ == "__main__":
    main()
