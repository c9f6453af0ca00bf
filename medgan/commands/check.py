"""What a job says before a GPU is asked for: what its images are like, and what the training would take on each class of GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medgan import runs
from medgan.commands.inspect import lines
from medgan.commands.plan import planned, shape_of
from medgan.commands.training_run import held_out_beside
from medgan.commands.transfer import transferred
from medgan.config import to_json
from medgan.errors import ConfigError
from medgan.progress import bar, duration
from medgan.training.config import TrainConfig
from medgan.training.devices import DEVICES

if TYPE_CHECKING:
    from medgan.data.dataset import Dataset
    from medgan.training.plan import Plan

HERE = "this machine"


@dataclass(frozen=True)
class Checked:
    """What was found: the facts of `medgan inspect`, and a plan of `medgan plan` for each class of GPU, by its name."""

    config: TrainConfig
    facts: dict[str, Any]
    plans: dict[str, Plan]

    def fields(self) -> dict[str, str]:
        """Words of the RESULT line: how much advice there is, and the hours on each class of GPU."""
        hours = ",".join(f"{name.replace(' ', '-')}:{made.hours:g}" for name, made in self.plans.items())
        return {"advice": str(len(self.facts["advice"])), **({"gpu_hours": hours} if hours else {})}


def check(config: TrainConfig, data: Dataset, run: Path, *, weights: Path | None = None) -> Checked:
    """Look at a dataset and predict its training; both are said on stderr and stored in `run`.

    Args:
        config: Settings of the training that would follow.
        data: Opened dataset.
        run: Gets dataset/inspection.json and plan.json.
        weights: Folder with pretrained files, or None.

    Raises:
        DataError: Images are broken, or there are no networks for their size.
        WeightsError: The networks to start from are absent or not what they should be.
    """
    from medgan.data.inspection import inspect

    if config.pretrained:
        # By its SHA-256 from here on: a path may name a patient.
        config, _ = transferred(config, folder=weights, explicit=())
    with bar("inspect") as step:
        facts = inspect(data, held_out_beside(data), step=step)
    runs.write_json(run / runs.DATASET / runs.INSPECTION, facts)
    for line in lines(facts):
        click.echo(line, err=True)
    plans = predictions(config, data)
    runs.write_json(run / runs.PLAN, {"settings": to_json(config), "devices": {name: made.to_json() for name, made in plans.items()}})
    for name, made in plans.items():
        click.echo(f"plan        {name}: {_said(made)}", err=True)
    return Checked(config, facts, plans)


def predictions(config: TrainConfig, data: Dataset) -> dict[str, Plan]:
    """The plan on every class of GPU that is known, and on this machine where it has one."""
    from medgan import machine

    shape = shape_of(data, config)
    try:
        plans = {name: planned(config, **shape, device_name=name) for name, device in DEVICES.items() if device.kind == "cuda"}
    except ConfigError as error:
        click.echo(f"plan        none: {error.message}", err=True)
        return {}
    return {**({HERE: planned(config, **shape)} if machine.device().type == "cuda" else {}), **plans}


def _said(made: Plan) -> str:
    text = f"{duration(made.hours * 3600)} for the whole training, {made.device_bytes / 1e9:.1f} of {made.device_memory / 1e9:.0f} GB"
    if made.fits:
        return text
    return f"{text}: too much; " + (f"--batch-gpu {made.largest_batch_gpu} fits" if made.largest_batch_gpu else "no --batch-gpu fits")
