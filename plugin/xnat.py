"""XNAT Container Service command definitions, written from the job's settings.

Nothing is said twice: labels, descriptions, choices and defaults of the form come from `medgan.commands.job.JobConfig`, and every option
reaches the container as a MEDGAN_ variable, so that no value is ever quoted into a command line.
What each key means was read in the sources of Container Service 3.7.3; why this shape: docs/decisions/0005-platform-contract.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import medgan
from medgan.cli import run_and_exit
from medgan.config import environment_name
from medgan.errors import ConfigError
from medgan.runs import write_text
from plugin.lint import default_text, lint

ROOT = Path(__file__).resolve().parent.parent

FORM = (
    "recipe", "mask_label", "window", "size", "preset", "kimg", "pretrained", "mirror", "augment", "images", "seed", "time_budget",
)  # fmt: skip
"""The fields of the form, in this order: at most 12, the ones a user of XNAT changes. All others keep their defaults."""

VARIANTS = {
    # Docker sends no device request; naming the runtime is the only way to a GPU. Neither Swarm nor Kubernetes sends the runtime.
    "docker": {"suffix": "", "where": "one Docker server with the NVIDIA runtime", "keys": {"runtime": "nvidia"}},
    "cluster": {"suffix": "-cluster", "where": "Docker Swarm or Kubernetes, one GPU", "keys": {"generic-resources": {"gpu": "1"}}},
    "cpu": {"suffix": "-cpu", "where": "no GPU", "keys": {}},
}
"""Kinds of backend: XNAT has three ways to ask for a GPU, and each backend ignores or refuses the others'."""

# Room for processes that share tensors through /dev/shm, of which Docker gives 64 MiB. Training is one process and needs none of it yet.
# Counts into a memory limit on Kubernetes.
SHM_BYTES = 2 * 2**30

OUTPUTS = {
    "report": "One HTML file to read first, with figures, log and what became of every scan.",
    "synthetic": "Synthetic images as one zip of PNGs, with a manifest and a contact sheet.",
    "metrics": "FID and the curves of the training, as JSON and pictures.",
    "model": "The trained generator as a MONAI bundle, with its model card.",
    "checkpoint": "The complete state of an unfinished training, to be resumed with --resume.",
}
"""Output -> what it is. The keys are the folders that plugin/container.py fills."""

LEVELS = {
    "project": ("Project", "xnat:projectData", "One generator from every scan of the project."),
    "session": (
        "Session",
        "xnat:imageSessionData",
        "One generator from one session. Launched on many sessions, it makes one training for each.",
    ),
    "scan": ("Scan", "xnat:imageScanData", "One generator from one scan. Launched on many scans, it makes one training for each."),
}
"""Wrapper and external input -> XNAT type, context, description."""


def command_definition(settings: type, variant: str = "docker") -> dict[str, Any]:
    """The command as XNAT takes it by `POST /xapi/commands` or from the image's label.

    Args:
        settings: The job's settings class.
        variant: A key of VARIANTS.

    Returns:
        A JSON object whose `version` ends with a digest of all the rest: XNAT refuses a command whose name, version and image it has, so any
        change must change one of them.
    """
    kind = VARIANTS[variant]
    fields = form_fields(settings)
    command: dict[str, Any] = {
        "name": f"medgan-train{kind['suffix']}",
        "label": "medgan: train a generator of synthetic images",
        "description": "Trains StyleGAN2-ADA on the scans stored here and returns synthetic images, metrics, the model and a report. "
        f"The form can be left as it is. For {kind['where']}.",
        "version": "",
        "schema-version": "1.0",
        "info-url": "https://arxiv.org/abs/2210.03786",
        "image": f"medgan:{medgan.__version__}",
        "type": "docker",
        "command-line": "train",
        "override-entrypoint": False,
        "mounts": [{"name": "input", "writable": False, "path": "/input"}, {"name": "output", "writable": True, "path": "/output"}],
        "environment-variables": {environment_name(field.name): f"#{field.name}#" for field in fields},
        "ports": {},
        "inputs": [*map(_form_input(settings), fields), *_fed_inputs()],
        "outputs": [
            {"name": name, "description": text, "required": True, "mount": "output", "path": name} for name, text in OUTPUTS.items()
        ],
        "xnat": [_wrapper(level) for level in LEVELS],
        "shm-size": SHM_BYTES,
        **kind["keys"],  # type: ignore[dict-item]
    }
    digest = hashlib.sha256(json.dumps(command, sort_keys=True).encode()).hexdigest()[:8]
    command["version"] = f"{medgan.__version__}+{digest}"
    return command


def form_fields(settings: type) -> list[dataclasses.Field[Any]]:
    """The fields of the settings that the form shows, in the form's order."""
    known = {field.name: field for field in dataclasses.fields(settings)}
    return [known[name] for name in FORM if name in known]


def _form_input(settings: type) -> Callable[[dataclasses.Field[Any]], dict[str, Any]]:
    hints = typing.get_type_hints(settings)

    def write(field: dataclasses.Field[Any]) -> dict[str, Any]:
        # Only these types exist in XNAT; any other word silently becomes "string". It does not check numbers: our own command line does.
        kind = {bool: "boolean", int: "number", float: "number"}.get(hints[field.name], "string")
        entry: dict[str, Any] = {
            "name": field.name,
            "label": field.metadata["label"] or field.name.replace("_", " ").capitalize(),
            "description": field.metadata["help"],
            "type": "select-one" if field.metadata["choices"] else kind,
            "required": False,
            "default-value": default_text(field.default),
            "replacement-key": f"#{field.name}#",
        }
        if field.metadata["choices"]:
            entry["select-values"] = list(field.metadata["choices"])
        if kind == "boolean":
            entry |= {"true-value": "true", "false-value": "false"}
        return entry

    return write


def _fed_inputs() -> list[dict[str, Any]]:
    """Inputs that the wrappers fill, so that no form shows them: the object launched on, and its project."""
    return [
        {"name": "target", "description": "XNAT's address of what was launched on.", "type": "string", "required": False},
        {"name": "project-id", "description": "The project that holds it.", "type": "string", "required": False},
    ]


def _wrapper(level: str) -> dict[str, Any]:
    kind, context, text = LEVELS[level]
    external: dict[str, Any] = {
        "name": level,
        "description": f"The {level} whose scans are mounted at /input, read-only.",
        "type": kind,
        "required": True,
        "provides-files-for-command-mount": "input",
    }
    if kind == "Project":
        # Otherwise XNAT loads every experiment and file of the project into memory when the dialog opens.
        external["load-children"] = False
    # A scan's own project-id may be null; its session's is not.
    parent = "scan-session" if level == "scan" else level
    derived = [_string("uri", level, "uri", "target"), _string("id", parent, "id" if level == "project" else "project-id", "project-id")]
    if level == "scan":
        derived.insert(1, {"name": parent, "type": "Session", "user-settable": False, "derived-from-wrapper-input": "scan"})
    return {
        "name": level,
        "label": f"medgan: train on this {level}",
        "description": text,
        "contexts": [context],
        "external-inputs": [external],
        "derived-inputs": derived,
        "output-handlers": [
            {
                "name": f"{name}-resource",
                "accepts-command-output": name,
                "as-a-child-of": level,
                "type": "Resource",
                # A constant label: with a varying one nobody finds the results of the last run again.
                "label": f"MEDGAN_{name.upper()}",
            }
            for name in OUTPUTS
        ],
    }


def _string(suffix: str, parent: str, prop: str, feeds: str) -> dict[str, Any]:
    return {
        "name": f"{parent}-{suffix}",
        "type": "string",
        "required": True,
        "user-settable": False,
        "derived-from-wrapper-input": parent,
        "derived-from-xnat-object-property": prop,
        "provides-value-for-command-input": feeds,
    }


def as_json(command: dict[str, Any]) -> str:
    """The file's text."""
    return json.dumps(command, indent=2, ensure_ascii=False) + "\n"


LABEL_START = "# Written by `python -m plugin.xnat write`: pulling the image registers this command in XNAT.\n"


def dockerfile_with_label(text: str, command: dict[str, Any]) -> str:
    r"""The Dockerfile with the label `org.nrg.commands` at its end: a plain `docker build` then needs no further argument.

    Inside double quotes a Dockerfile reads `\`, `"` and `$` only behind a backslash; a backslash at the end of a line joins it to the next.
    """
    body = json.dumps([command], indent=1, ensure_ascii=True)
    for character in ("\\", '"', "$"):
        body = body.replace(character, "\\" + character)
    label = 'LABEL org.nrg.commands="' + body.replace("\n", "\\\n") + '"\n'
    return text.partition(LABEL_START)[0].rstrip("\n") + "\n\n" + LABEL_START + label


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def group() -> None:
    """The command definitions for an XNAT site."""


@group.command("write")
@click.option("--variant", type=click.Choice(list(VARIANTS)), default="docker", show_default=True, help="kind of backend")
@click.option("--out", type=click.Path(path_type=Path, allow_dash=True), help="where to; - is stdout  [default: the repository's file]")
def write_command(variant: str, out: Path | None) -> None:
    """Write the command file; without --out also the label in the Dockerfile (docker variant)."""
    from medgan.commands.job import JobConfig

    command = command_definition(JobConfig, variant)
    if out is not None and str(out) == "-":
        click.echo(as_json(command), nl=False)
        return
    path = out or ROOT / ("xnat-command.json" if variant == "docker" else f"xnat-command.{variant}.json")
    write_text(path, as_json(command))
    dockerfile = ROOT / "Dockerfile"
    if out is None and variant == "docker" and dockerfile.exists():
        write_text(dockerfile, dockerfile_with_label(dockerfile.read_text(encoding="utf-8"), command))
    click.echo(json.dumps({"written": path.name, "variant": variant, "version": command["version"]}))


@group.command("lint")
@click.argument("file", type=click.Path(path_type=Path, readable=False))
def lint_command(file: Path) -> None:
    """Check a command file: all that XNAT refuses, and what it takes in silence and then runs wrongly."""
    from medgan.commands.job import JobConfig

    try:
        command = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"the file is not JSON: {error}") from None
    problems = lint(command, JobConfig)
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
