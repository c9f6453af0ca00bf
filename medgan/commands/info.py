"""`medgan info`: what is here; downloads nothing, needs no GPU."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

import medgan

PACKAGES = ("torch", "monai", "numpy", "scipy", "nibabel", "pydicom", "SimpleITK", "click", "docker", "xnat")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="as one JSON object")
def command(as_json: bool) -> None:
    """Versions, devices, recipes, families, metrics, presets and weights present.

    Example: medgan info --json
    """
    facts = collect()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            value = "  ".join(f"{key} {item}" for key, item in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        click.echo(f"{name + ':':<12} {value}", err=True)


def collect() -> dict[str, Any]:
    """Everything `medgan info` tells, as JSON values."""
    from medgan.data import RECIPES
    from medgan.metrics import EXTRACTORS, METRICS
    from medgan.networks import NETWORKS
    from medgan.runs import commit
    from medgan.training.config import PRESETS
    from medgan.weights import status

    return {
        "medgan": medgan.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: _installed(name) for name in PACKAGES},
        "cores": os.cpu_count(),
        "devices": _devices(),
        "recipes": RECIPES.names(),
        "families": NETWORKS.names(),
        "metrics": METRICS.names(),
        "extractors": EXTRACTORS.names(),
        "presets": list(PRESETS),
        "weights": {row["name"]: row["state"] for row in status()},
    }


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _devices() -> list[str]:
    import torch

    return ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]
