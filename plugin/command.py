"""XNAT Container Service command definitions, written from the job's settings.

Nothing is said twice: labels, descriptions, choices and defaults of the form come from `medgan.commands.job.JobConfig`, and every option
reaches the container as a MEDGAN_ variable, so that no value is ever quoted into a command line.
What each key means was read in the sources of Container Service 3.7.3; why this shape: docs/decisions/0005-platform-contract.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import medgan
from medgan.config import environment_name
from plugin.gpus import DEVICE
from plugin.lint import default_text
from plugin.target import SourceConfig

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one command of the site does.

    Attributes:
        label: Its title.
        description: What it is for.
        form: The fields of its form, in this order: at most 12, the ones a user of XNAT changes. All others keep their defaults.
        outputs: Output -> resource label and what it is. The outputs are folders that plugin/container.py fills.
        wrapper: The title of a launch, with `{level}`.
        levels: Wrapper -> what a launch on it makes.
        gpu: Whether it asks for one.
    """

    label: str
    description: str
    form: tuple[str, ...]
    outputs: Mapping[str, tuple[str, str]]
    wrapper: str
    levels: Mapping[str, str]
    gpu: bool


TASKS = {
    "train": Task(
        label="medgan: train a generator of synthetic images",
        description="Trains StyleGAN2-ADA on the scans stored here and returns synthetic images, metrics, the model and a report. "
        "The form can be left as it is.",
        form=(
            "recipe", "mask_label", "window", "size", "sessions", "scan_types", "preset", "kimg", "pretrained", "images", "seed", "time_budget",
        ),
        outputs={
            "report": ("MEDGAN_REPORT", "One HTML file to read first, with figures, log and what became of every scan."),
            "synthetic": ("MEDGAN_SYNTHETIC", "Synthetic images as one zip of PNGs, with a manifest and a contact sheet."),
            "metrics": ("MEDGAN_METRICS", "FID and the curves of the training, as JSON and pictures."),
            "model": ("MEDGAN_MODEL", "The trained generator as a MONAI bundle, with its model card."),
            "checkpoint": ("MEDGAN_CHECKPOINT", "The complete state of an unfinished training, to be resumed with --resume."),
        },
        wrapper="medgan: train on this {level}",
        levels={
            "project": "One generator from every scan of the project.",
            "session": "One generator from one session. Launched on many sessions, it makes one training for each.",
            "scan": "One generator from one scan. Launched on many scans, it makes one training for each.",
        },
        gpu=True,
    ),
    "check": Task(
        label="medgan: check the data before a training",
        description="Reads the scans stored here as a training would and returns counts, warnings, a sheet of images and the predicted time on a GPU. "
        "Trains nothing, needs no GPU. The form can be left as it is.",
        form=("recipe", "mask_label", "window", "size", "sessions", "scan_types", "preset", "kimg", "seed"),
        # A label of its own: a check's findings are looked for apart from the reports of trainings.
        outputs={"report": ("MEDGAN_CHECK", "One HTML file to read first, what became of every scan, a sheet of images and the plan.")},
        wrapper="medgan: check the data of this {level}",
        levels={
            "project": "What a training on every scan of the project would learn from, and how long it would take.",
            "session": "What a training on this session would learn from. Launched on many sessions, it checks each by itself.",
            "scan": "What a training on this scan would learn from. Launched on many scans, it checks each by itself.",
        },
        gpu=False,
    ),
}  # fmt: skip
"""Words of the container's command line -> the command of an XNAT site that runs it."""

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

LEVELS = {
    "project": ("Project", "xnat:projectData"),
    "session": ("Session", "xnat:imageSessionData"),
    "scan": ("Scan", "xnat:imageScanData"),
}
"""Wrapper and external input -> XNAT type and context."""


def definitions(settings: type, variant: str = "docker") -> list[dict[str, Any]]:
    """All commands of a site with this kind of backend: what the image's label lists and `register` adds."""
    return [command_definition(settings, variant, task) for task in TASKS]


def file_name(variant: str = "docker", task: str = "train") -> str:
    """The name of a command's file: the training on a Docker server is `xnat-command.json`."""
    words = (task if task != "train" else "", variant if variant != "docker" and TASKS[task].gpu else "")
    return ".".join(["xnat-command", *filter(None, words), "json"])


def command_definition(settings: type, variant: str = "docker", task: str = "train") -> dict[str, Any]:
    """A command as XNAT takes it by `POST /xapi/commands` or from the image's label.

    Args:
        settings: The job's settings class.
        variant: A key of VARIANTS. A task that asks for no GPU is the same in each.
        task: A key of TASKS.

    Returns:
        A JSON object whose `version` ends with a digest of all the rest: XNAT refuses a command whose name, version and image it has, so any
        change must change one of them.
    """
    kind, what = VARIANTS[variant], TASKS[task]
    fields = form_fields(settings, task)
    command: dict[str, Any] = {
        "name": f"medgan-{task}" + (str(kind["suffix"]) if what.gpu else ""),
        "label": what.label,
        "description": what.description + (f" For {kind['where']}." if what.gpu else ""),
        "version": "",
        "schema-version": "1.0",
        "info-url": "https://arxiv.org/abs/2210.03786",
        "image": f"medgan:{medgan.__version__}",
        "type": "docker",
        "command-line": task,
        "override-entrypoint": False,
        "mounts": [{"name": "input", "writable": False, "path": "/input"}, {"name": "output", "writable": True, "path": "/output"}],
        "environment-variables": {environment_name(field.name): f"#{field.name}#" for field in fields}
        | {environment_name(name.replace("-", "_")): f"#{name}#" for name in FED}
        # An image with CUDA otherwise takes a missing GPU for a mistake.
        | ({DEVICE: "cpu"} if variant == "cpu" and what.gpu else {}),
        "ports": {},
        "inputs": [*map(_form_input(settings), fields), *_fed_inputs()],
        "outputs": [
            {"name": name, "description": text, "required": True, "mount": "output", "path": name}
            for name, (_, text) in what.outputs.items()
        ],
        "xnat": [_wrapper(what, level) for level in LEVELS],
    }
    if what.gpu:
        command |= {"shm-size": SHM_BYTES, **kind["keys"]}  # type: ignore[dict-item]
    digest = hashlib.sha256(json.dumps(command, sort_keys=True).encode()).hexdigest()[:8]
    command["version"] = f"{medgan.__version__}+{digest}"
    return command


def form_fields(settings: type, task: str = "train") -> list[dataclasses.Field[Any]]:
    """The fields of the settings that a task's form shows, in the form's order."""
    known = {field.name: field for field in (*dataclasses.fields(settings), *dataclasses.fields(SourceConfig))}
    return [known[name] for name in TASKS[task].form if name in known]


def _form_input(settings: type) -> Callable[[dataclasses.Field[Any]], dict[str, Any]]:
    hints = typing.get_type_hints(settings) | typing.get_type_hints(SourceConfig)

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


FED = {"target": "XNAT's address of what was launched on.", "project-id": "The project that holds it."}
"""Inputs that the wrappers fill, so that no form shows them."""


def _fed_inputs() -> list[dict[str, Any]]:
    return [{"name": name, "description": text, "type": "string", "required": False} for name, text in FED.items()]


def _wrapper(task: Task, level: str) -> dict[str, Any]:
    kind, context = LEVELS[level]
    external: dict[str, Any] = {
        "name": level,
        "description": f"The {level} mounted at /input, read-only.",
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
        "label": task.wrapper.format(level=level),
        "description": task.levels[level],
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
                "label": label,
            }
            for name, (label, _) in task.outputs.items()
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


LABEL_START = "# Written by `python -m plugin.xnat write`: pulling the image registers these commands in XNAT.\n"


def dockerfile_with_label(text: str, commands: list[dict[str, Any]]) -> str:
    r"""The Dockerfile with the label `org.nrg.commands` at its end: a plain `docker build` then needs no further argument.

    Inside double quotes a Dockerfile reads `\`, `"` and `$` only behind a backslash; a backslash at the end of a line joins it to the next.
    """
    body = json.dumps(commands, indent=1, ensure_ascii=True)
    for character in ("\\", '"', "$"):
        body = body.replace(character, "\\" + character)
    label = 'LABEL org.nrg.commands="' + body.replace("\n", "\\\n") + '"\n'
    return text.partition(LABEL_START)[0].rstrip("\n") + "\n\n" + LABEL_START + label
