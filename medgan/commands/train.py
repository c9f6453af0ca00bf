"""`medgan train`: a dataset to a run folder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from medgan.commands.training_run import run_training
from medgan.commands.transfer import given, starting_point
from medgan.config import options_from, resolve, to_json
from medgan.errors import ConfigError, InputError, Preempted
from medgan.ranks import started
from medgan.training.config import PRESETS, TrainConfig, for_set, preset

F = TypeVar("F", bound=Callable[..., Any])


def preset_option(help: str = "starting point for the settings below") -> Callable[[F], F]:
    """The option that names a preset of train; the command gets it as `preset_name`, empty for none."""
    return click.option("--preset", "preset_name", type=click.Choice(["", *PRESETS]), default="", envvar="MEDGAN_PRESET", help=help)


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, readable=False),
    required=True,
    envvar="MEDGAN_DATA",
    help="dataset from `medgan prepare`, an official zip, or a folder of PNGs",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, readable=False),
    required=True,
    envvar="MEDGAN_OUT",
    help="run folder; the same command again goes on in it",
)
@preset_option()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, readable=False),
    envvar="MEDGAN_CONFIG",
    help="JSON file with settings, e.g. another run's config.json",
)
@click.option("--weights", type=click.Path(path_type=Path, readable=False), envvar="MEDGAN_WEIGHTS", help="folder with pretrained files")
@click.option(
    "--resume", default="auto", show_default=True, envvar="MEDGAN_RESUME", help="auto, new, or the path of a run folder or state.pt"
)
@click.option(
    "--mlflow",
    default="",
    metavar="URI",
    envvar="MEDGAN_MLFLOW",
    help="send settings and curves to this MLflow server, or write them into this folder; nothing is sent otherwise",
)
@click.option("--dry-run", is_flag=True, help="print the settings and stop")
@options_from(TrainConfig)
def command(
    data: Path,
    out: Path,
    preset_name: str,
    config_file: Path | None,
    weights: Path | None,
    resume: str,
    mlflow: str,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Train a generator on a prepared dataset.

    Example: medgan train --data liver.zip --out runs/liver --preset auto --kimg 1000
    """
    if not data.exists():
        raise InputError("--data names nothing that exists", fix="medgan prepare SCANS DATA.zip makes a dataset")
    from medgan import runs
    from medgan.data.dataset import open_dataset

    dataset = open_dataset(data, cache=out / runs.DECODED)
    gpus = processes(flags["gpus"])
    flags["gpus"] = gpus if started() > 1 else flags["gpus"]
    config = settings(preset_name, flags, config_file, size=dataset.resolution, gpus=gpus)
    explicit = given(flags, config_file)
    if dry_run:
        config = for_set(config, len(dataset))
        config, _ = starting_point(config, dataset, out, folder=weights, resume=resume, explicit=explicit)
        click.echo(json.dumps(to_json(config), indent=2))
        return
    try:
        trained = run_training(config, dataset, out, weights=weights, resume=resume, explicit=explicit, mlflow=mlflow)
    except Preempted as stop:
        click.echo(json.dumps({"status": "preempted", "kimg": stop.kimg, "next": stop.fix}))
        sys.exit(stop.exit_code)
    if os.environ.get("RANK", "0") != "0":
        return
    click.echo(
        json.dumps(
            {
                "status": trained.status,
                "kimg": trained.kimg,
                "best": trained.best,
                "bundle": "bundle",
                "next": "medgan generate --bundle RUN/bundle --out IMAGES",
            }
        )
    )


def settings(preset_name: str, flags: Mapping[str, Any], config_file: Path | None, *, size: int, gpus: int) -> TrainConfig:
    """The settings of a training as its options say, for images of `size` pixels; one length given takes the place of a preset's other.

    Raises:
        ConfigError: Both lengths were given.
    """
    flags = dict(flags)
    if flags["kimg"] is not None and flags["epochs"]:
        raise ConfigError("--kimg and --epochs are two lengths of one training", fix="one of them")
    if flags["kimg"] is not None:
        flags["epochs"] = 0.0
    return resolve(preset(preset_name, size=size, gpus=gpus, family=flags["family"] or ""), flags, config_file=config_file)


def processes(asked: int | None) -> int:
    """How many processes will share the work: those that torchrun started, or those that were asked for.

    Raises:
        ConfigError: Both were given and differ.
    """
    there = started()
    if there > 1 and asked not in (None, there):
        raise ConfigError(f"--gpus {asked}: torchrun started {there} processes", fix="leave --gpus out under torchrun")
    return there if there > 1 else asked or 1
