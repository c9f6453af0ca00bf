"""The image as a Kaapana processing container: `python -m plugin.kaapana` writes processing-container.json from the job's settings.

Kaapana reads the file at the root of the image; each task template lists its environment variables, its channels and its command (Kaapana's
developer guide, "processing-container"). All options are variables here too, so nothing of the job is said again.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from medgan.cli import run_and_exit
from medgan.config import environment_name
from medgan.runs import write_text
from plugin.command import ROOT, TASKS
from plugin.lint import default_text

FILE = "processing-container.json"


def processing_container(settings: type) -> dict[str, Any]:
    """The file's JSON object: one task template for each task of the container.

    Args:
        settings: The job's settings class.
    """
    return {
        "name": "medgan",
        "description": "StyleGAN2-ADA for medical images: scans in, synthetic images, metrics, model and report out.",
        "api_version": 1,
        "templates": [_template(settings, task) for task in TASKS],
    }


def _template(settings: type, task: str) -> dict[str, Any]:
    template: dict[str, Any] = {
        "identifier": task,
        "description": TASKS[task].description,
        "env": [_variable(field) for field in dataclasses.fields(settings) if field.metadata.get("help")],
        "inputs": [{"name": "input", "mounted_path": "/input", "description": "Scans as they are, or a dataset."}],
        # One channel: the container proves that it can write /output before it does anything, and fills a folder for each kind of result below it.
        "outputs": [{"name": "output", "mounted_path": "/output", "description": f"Folders: {', '.join(TASKS['train'].outputs)}."}],
        "command": ["python", "-m", "plugin", task],
    }
    if TASKS[task].gpu:
        template["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    return template


def _variable(field: dataclasses.Field[Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": environment_name(field.name),
        "value": default_text(field.default),
        "description": field.metadata["help"],
    }
    choices = ["true", "false"] if isinstance(field.default, bool) else list(field.metadata["choices"])
    return entry | ({"choices": choices} if choices else {})


def as_json(settings: type) -> str:
    """The file's text."""
    return json.dumps(processing_container(settings), indent=2, ensure_ascii=False) + "\n"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--out", type=click.Path(path_type=Path, allow_dash=True), help="where to; - is stdout  [default: the repository's file]")
def command(out: Path | None) -> None:
    """Write processing-container.json."""
    from medgan.commands.job import JobConfig

    if out is not None and str(out) == "-":
        click.echo(as_json(JobConfig), nl=False)
        return
    write_text(out or ROOT / FILE, as_json(JobConfig))
    click.echo(json.dumps({"written": (out or Path(FILE)).name}))


if __name__ == "__main__":
    run_and_exit(lambda: command.main(prog_name="python -m plugin.kaapana", standalone_mode=False))
