"""The job of an XNAT launch on this machine's Docker engine: `python -m plugin.docker run --wrapper project --archive DIR --output DIR`.

The command file itself is what runs: resolved as XNAT resolves it (plugin/resolution.py), created by the same request, and its results are
filed as XNAT files them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

import medgan
from medgan.cli import run_and_exit
from medgan.errors import ConfigError, DeviceError, MedganError
from medgan.runs import check_writable, commit
from plugin.archive import file_results, next_workflow, target
from plugin.command import LEVELS, ROOT, TASKS, command_definition, file_name
from plugin.lint import lint, read_command
from plugin.resolution import MASK, Launch, Server, resolve

if TYPE_CHECKING:
    from docker import DockerClient

FOLDER = click.Path(path_type=Path, readable=False)
CREDENTIALS = ("XNAT_HOST", "XNAT_USER", "XNAT_PASS")
LONGEST_SILENCE = 30 * 86400
"""Seconds to wait for the engine's next word: a training may be silent for longer than the SDK's minute."""
# What an engine says that has no GPU to give: Docker before 29, Docker since then, and NVIDIA's own tool in both.
NO_GPU = ("could not select device driver", "discover GPU vendor", "nvidia-container-cli")
FAILED = "failed"
"""Where the files of a launch that did not end with 0 are kept: XNAT leaves them in its build folder and stores none."""


class EngineError(MedganError):
    """There is no Docker engine, or it refuses the container."""

    code, exit_code = "E_ENGINE", 69


def launch(client: DockerClient, resolved: Launch) -> int:
    """Create the container by exactly the resolved request, start it, pass its log on, and return its exit code.

    SIGTERM, SIGUSR1 and Ctrl-C are handed to the container, which then stops by itself with its state saved.

    Raises:
        EngineError: The engine refuses it.
    """
    import docker

    for folder in resolved.made:
        folder.mkdir(parents=True, mode=0o755, exist_ok=True)
    try:
        identity = client.api.create_container_from_config(resolved.body)["Id"]
    except docker.errors.APIError as error:
        raise refusal(error, resolved) from None
    try:
        with _handed_on(client, identity):
            stream = client.api.attach(identity, stdout=True, stderr=True, stream=True, logs=True, demux=True)
            client.api.start(identity)
            # The last line of all is the container's own on stdout: what it says on stderr, and what we say, comes before.
            last: list[bytes] = []
            for out, err in stream:
                if out:
                    last.append(out)
                if err:
                    sys.stderr.write(err.decode(errors="replace"))
                    sys.stderr.flush()
            code = int(client.api.wait(identity)["StatusCode"])
        if client.api.inspect_container(identity)["State"].get("OOMKilled"):
            print("ERROR E_MEMORY the container was killed for its memory; fix: more of it, or a smaller --batch-gpu", file=sys.stderr)
        sys.stdout.write(b"".join(last).decode(errors="replace"))
        sys.stdout.flush()
    except docker.errors.APIError as error:
        raise refusal(error, resolved) from None
    finally:
        client.api.remove_container(identity, force=True)
    return code


@contextlib.contextmanager
def _handed_on(client: DockerClient, identity: str) -> Iterator[None]:
    """Inside the block signals go to the container and not to this process."""
    import docker

    def hand_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        # It may have ended by itself by then.
        with contextlib.suppress(docker.errors.APIError):
            client.api.kill(identity, signal="SIGTERM")

    former = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def refusal(error: Any, resolved: Launch) -> MedganError:
    """What an engine refuses, in our words: its own quote paths of this machine."""
    said = str(error.explanation or "")
    if "No such image" in said:
        return EngineError(f"the engine has no image {resolved.body['Image']}", fix="python -m plugin.docker build, or --image NAME")
    runtime = resolved.body["HostConfig"]["Runtime"]
    fix = "NVIDIA's driver and container toolkit on the engine's machine, or --variant cpu without --gpus"
    if any(words in said for words in NO_GPU):
        return DeviceError("the engine has no GPU to give", fix=fix)
    if re.search("unknown (or invalid )?runtime", said, re.IGNORECASE):
        return DeviceError(f"the engine does not know the runtime {runtime}", fix=fix)
    for name, folder in resolved.folders.items():
        said = said.replace(str(folder), f"the folder of {name}")
    for secret in resolved.secrets:
        said = said.replace(secret, MASK)
    return EngineError(f"the engine refuses the container: {said}")


def connect() -> DockerClient:
    """The engine of DOCKER_HOST, or this machine's.

    Raises:
        EngineError: It does not answer.
    """
    import docker

    try:
        client = docker.from_env(timeout=LONGEST_SILENCE)
        client.ping()
    except (docker.errors.DockerException, OSError):
        raise EngineError("no Docker engine answers", fix="start Docker, or set DOCKER_HOST") from None
    return client


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def group() -> None:
    """The job of an XNAT launch on this machine's Docker engine."""


@group.command("run")
@click.option("--wrapper", type=click.Choice(list(LEVELS)), default="project", show_default=True, help="what is launched on")
@click.option(
    "--archive", "--input", type=FOLDER, required=True, help="its folder, as XNAT would mount it; with --project the root of XNAT's archive"
)
@click.option("--output", type=FOLDER, required=True, help="gets a folder for each resource, e.g. MEDGAN_REPORT")
@click.option("--project", default="", help="ID of the project, as its folder in the archive")
@click.option("--session", default="", help="label of the session")
@click.option("--scan", default="", help="ID of the scan")
@click.option("--set", "chosen", multiple=True, metavar="NAME=VALUE", help="a field of the form; left alone, each keeps its default")
@click.option("--task", type=click.Choice(list(TASKS)), default="train", show_default=True, help="which command")
@click.option("--variant", type=click.Choice(["docker", "cpu"]), default="docker", show_default=True, help="cpu asks for no GPU")
@click.option("--command", "file", type=FOLDER, help="a command file of your own  [default: the repository's]")
@click.option("--image", default="", help="another image than the command's")
@click.option("--user", default="", metavar="UID:GID", help="the container user of XNAT's server settings  [default: you]")
@click.option("--gpus", default="", metavar="all|NUMBER", help="ask as docker run --gpus does, instead of by the runtime")
@click.option("--network", default="", help="the container's network, e.g. none  [default: the engine's]")
@click.option("--work", type=FOLDER, help="keep scratch here, so that a run that was stopped can go on; XNAT mounts none")
@click.option("--workflow-id", default="", metavar="NUMBER", help="names the run's folders  [default: the next free number]")
@click.option("--xnat", is_flag=True, help="hand over XNAT_HOST, XNAT_USER and XNAT_PASS of this environment, as XNAT does")
@click.option("--dry-run", is_flag=True, help="print the request, secrets masked, and run nothing")
def run_command(
    wrapper: str,
    archive: Path,
    output: Path,
    project: str,
    session: str,
    scan: str,
    chosen: tuple[str, ...],
    task: str,
    variant: str,
    file: Path | None,
    image: str,
    user: str,
    gpus: str,
    network: str,
    work: Path | None,
    workflow_id: str,
    xnat: bool,
    dry_run: bool,
) -> None:
    """Launch as XNAT does, stream the log, file the results, and end with the container's exit code.

    Results are stored only at exit 0, as in XNAT; otherwise what there is lies in OUTPUT/failed/run-<number>.

    Example: python -m plugin.docker run --wrapper project --archive /data/arc001 --output results --set size=64
    """
    command = _command(task, variant, file, image)
    number = workflow_id or next_workflow(output)
    build = output.absolute() / f".build-{number}"
    resolved = resolve(
        command,
        wrapper,
        target(LEVELS[wrapper][0], archive.absolute(), project=project, session=session, scan=scan),
        _chosen(chosen),
        Server(
            build=build,
            user=user or f"{os.getuid()}:{os.getgid()}",
            environment=_environment(number, xnat),
            labels={"XNAT_PROJECT": project or "local"},
        ),
    )
    _beyond_xnat(resolved.body, gpus=gpus, network=network, work=work)
    if dry_run:
        click.echo(json.dumps(resolved.shown(), indent=2))
        return
    check_writable(output, "--output")
    if work:
        check_writable(work, "--work")
    client = connect()
    try:
        shutil.rmtree(build, ignore_errors=True)
        code = launch(client, resolved)
        if code == 0:
            stored = file_results(resolved.handled, output)
            print("stored " + ", ".join(f"{label} ({count} files)" for label, count in stored.items()), file=sys.stderr, flush=True)
        elif build.is_dir() and any(path.is_file() for path in build.rglob("*")):
            kept = output / FAILED / f"run-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            kept.parent.mkdir(parents=True, exist_ok=True)
            build.rename(kept)
    finally:
        shutil.rmtree(build, ignore_errors=True)
        client.close()
    raise click.exceptions.Exit(code)


def _command(task: str, variant: str, file: Path | None, image: str) -> dict[str, Any]:
    """The command to run: the file itself, without a fault."""
    from medgan.commands.job import JobConfig

    path = file or ROOT / file_name(variant, task)
    command: dict[str, Any] = read_command(path) if file or path.is_file() else command_definition(JobConfig, variant, task)
    if problems := lint(command, JobConfig):
        raise ConfigError(f"the command file has {len(problems)} problem(s), first: {problems[0]}", fix="python -m plugin.xnat lint FILE")
    return command | ({"image": image} if image else {})


def _chosen(pairs: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {name} has no value", fix=f"--set {name}=VALUE; --set {name}= leaves the field blank")
        values[name] = value
    return values


def _environment(number: str, xnat: bool) -> dict[str, str]:
    if not re.fullmatch(r"\d{1,18}", number):
        raise ConfigError("--workflow-id is not a number")
    given = {"XNAT_WORKFLOW_ID": number, "XNAT_EVENT_ID": number}
    if xnat:
        missing = [name for name in CREDENTIALS if not os.environ.get(name)]
        if missing:
            raise ConfigError(f"--xnat, but {', '.join(missing)} is not set")
        given |= {name: os.environ[name] for name in CREDENTIALS}
    return given


def _beyond_xnat(body: dict[str, Any], *, gpus: str, network: str, work: Path | None) -> None:
    """What a person at an engine may ask for and XNAT cannot."""
    host = body["HostConfig"]
    if gpus:
        if not re.fullmatch(r"all|[1-9]\d*", gpus):
            raise ConfigError("--gpus is all or a number")
        host["Runtime"] = ""
        host["DeviceRequests"] = [{"Driver": "", "Count": -1 if gpus == "all" else int(gpus), "Capabilities": [["gpu"]]}]
    if network:
        host["NetworkMode"] = network
    if work:
        host["Binds"].append(f"{work.absolute()}:/work")
        body["Env"].append("MEDGAN_WORK=/work")


@group.command("build")
@click.option("--tag", default=f"medgan:{medgan.__version__}", show_default=True, help="name of the image")
@click.option("--build-arg", "arguments", multiple=True, metavar="NAME=VALUE", help="an ARG of the Dockerfile, e.g. TORCH_OPTIONS")
@click.option("--network", default="", help="network of the build's steps  [default: the engine's]")
def build_command(tag: str, arguments: tuple[str, ...], network: str) -> None:
    """Build the repository's Dockerfile through the engine's API, and print the image's name and size."""
    import docker

    values: Mapping[str, str] = {"MEDGAN_COMMIT": commit(), "MEDGAN_CREATED": _commit_time()} | _chosen_arguments(arguments)
    client = connect()
    try:
        # The log is the image builder's own; a failed step is an entry of it and not an HTTP error.
        for entry in client.api.build(path=str(ROOT), tag=tag, buildargs=dict(values), network_mode=network or None, rm=True, decode=True):
            if "error" in entry:
                raise EngineError(f"the image cannot be built: {' '.join(str(entry['error']).split())}")
            sys.stderr.write(entry.get("stream", ""))
        image = client.images.get(tag)
        click.echo(json.dumps({"image": tag, "id": image.id, "bytes": image.attrs["Size"]}))
    except docker.errors.APIError as error:
        raise EngineError(f"the engine refuses the build: {error.explanation}") from None
    finally:
        client.close()


def _commit_time() -> str:
    """When the checkout's commit was made (ISO 8601), or empty."""
    try:
        asked = subprocess.run(["git", "log", "-1", "--format=%cI"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()


def _chosen_arguments(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise ConfigError(f"--build-arg {pair} has no value")
    return dict(pair.partition("=")[::2] for pair in pairs)


def main() -> None:
    """Run the command line in `sys.argv`."""
    run_and_exit(lambda: group.main(prog_name="python -m plugin.docker", standalone_mode=False))


if __name__ == "__main__":
    main()
