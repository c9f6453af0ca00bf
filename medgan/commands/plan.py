"""`medgan plan`: what a training will take, before anything runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medgan.commands.train import preset_option, settings
from medgan.commands.transfer import given, transferred
from medgan.config import options_from, to_json
from medgan.errors import ConfigError, InputError
from medgan.training.config import TrainConfig, for_set
from medgan.training.devices import DEVICES, Device, nearest

if TYPE_CHECKING:
    from medgan.data.dataset import Dataset
    from medgan.training.plan import Plan

# Steps that a calibration runs: one with every phase, then three kinds twice.
STEPS_CALIBRATED = 7
LONGEST_CALIBRATION = 900.0


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path, readable=False), envvar="MEDGAN_DATA", help="dataset; without one give --size and --images"
)
@click.option("--size", type=int, default=256, show_default=True, envvar="MEDGAN_SIZE", help="side of the images in pixels, without --data")
@click.option("--channels", type=click.Choice(["1", "3"]), default="1", show_default=True, help="1 for grey, 3 for colour, without --data")
@click.option("--images", type=click.IntRange(0), default=0, show_default=True, help="images of the dataset, without --data; 0 unknown")
@click.option("--classes", type=click.IntRange(0), default=0, show_default=True, help="classes, without --data")
@click.option("--device", "device_name", type=click.Choice(["", *DEVICES]), default="", help="class of machine  [default: this one]")
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="threads of a CPU; 0 is this machine's cores")
@click.option("--calibrate", is_flag=True, help="run some real steps on this machine instead of predicting")
@click.option("--out", type=click.Path(path_type=Path, readable=False), envvar="MEDGAN_OUT", help="as of train: whether its disk has room")
@preset_option()
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path, readable=False), envvar="MEDGAN_CONFIG", help="JSON file with settings"
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path, readable=False),
    envvar="MEDGAN_WEIGHTS",
    help="folder with pretrained files, for --pretrained",
)
@click.option("--resume", default="auto", envvar="MEDGAN_RESUME", help="as of train; without influence here")
@click.option("--json", "as_json", is_flag=True, help="as one JSON object")
@options_from(TrainConfig)
def command(
    data: Path | None,
    size: int,
    channels: str,
    images: int,
    classes: int,
    device_name: str,
    threads: int,
    calibrate: bool,
    out: Path | None,
    preset_name: str,
    config_file: Path | None,
    weights: Path | None,
    resume: str,  # noqa: ARG001
    as_json: bool,
    **flags: Any,
) -> None:
    """Memory, disk, seconds per thousand images and hours of a training, and every derived setting with its reason.

    Takes the options of train, so the same words with `plan` instead of `train` answer first.
    Example: medgan plan --size 512 --images 3000 --preset paper-2210.03786 --device a100
    """
    dataset = None
    if data is not None:
        if not data.exists():
            raise InputError("--data names nothing that exists", fix="leave it out and give --size and --images")
        from medgan.data.dataset import open_dataset

        dataset = open_dataset(data)
        size = dataset.resolution
    config = settings(preset_name, flags, config_file, size=size, gpus=flags["gpus"] or 1)
    if config.pretrained:
        explicit = given(flags, config_file)
        config, _ = transferred(config, folder=weights, explicit=explicit)
    if dataset is not None:
        shape = shape_of(dataset, config)
    else:
        shape = {"size": size, "channels": int(channels), "images": images, "c_dim": classes if config.labels else 0, "bits": 8}
    if config.epochs and not shape["images"]:
        raise ConfigError("--epochs are passes over the set, whose images are not known", fix="--data, --images, or --kimg")
    config = for_set(config, shape["images"]) if shape["images"] else config
    made = planned(config, **shape, device_name=device_name, threads=threads, measured=calibrate)
    free = _free(out)
    if as_json:
        click.echo(json.dumps({"settings": to_json(config), **made.to_json(), "disk_free": free}, indent=2))
        return
    show(made, config, free)


def shape_of(data: Dataset, config: TrainConfig) -> dict[str, Any]:
    """What `planned` asks of a dataset: size, channels, bits, images and the classes that the training would use."""
    from medgan.training.batches import one_hot

    labels = one_hot(data) if config.labels else None
    c_dim = 0 if labels is None else labels.shape[1]
    return {"size": data.resolution, "channels": data.channels, "images": len(data), "c_dim": c_dim, "bits": data.bits}


def planned(
    config: TrainConfig,
    *,
    size: int,
    channels: int,
    images: int,
    c_dim: int = 0,
    bits: int = 8,
    device_name: str = "",
    threads: int = 0,
    measured: bool = False,
) -> Plan:
    """The plan of a training on a class of machines, this one by default.

    Args:
        config: Settings.
        size: Side of the images in pixels.
        channels: 1 or 3.
        images: Images of the dataset; 0 where unknown.
        c_dim: Classes.
        bits: Of a stored value: 8 or 16.
        device_name: A name in DEVICES, or empty for this machine.
        threads: Of a CPU; 0 for all of this machine.
        measured: Whether to run real steps here.

    Raises:
        ConfigError: Real steps of another machine were asked for, or more than this one can do in some minutes.
    """
    from dataclasses import replace

    from medgan.training.plan import plan

    if measured and device_name:
        raise ConfigError("--calibrate measures this machine, not --device", fix="leave one of them out")
    notes: list[str] = []
    memory = 0
    if device_name:
        device = DEVICES[device_name]
    else:
        device, memory, notes = _this_machine()
    if not device_name and config.precision == "bf16" and not _has_bf16():
        notes.append("this device has no arithmetic in bfloat16: --precision fp32 is faster here, whatever the figures say")
    threads = threads or len(os.sched_getaffinity(0)) if device.kind == "cpu" else 1
    about: dict[str, Any] = {"size": size, "channels": channels, "c_dim": c_dim}
    everything: dict[str, Any] = {**about, "images": images, "bits": bits, "device": device, "threads": threads, "device_memory": memory}
    calibration = None
    if measured:
        from medgan import machine
        from medgan.training.calibrate import calibrate

        refuse_too_much(plan(config, **everything), images_in_all=STEPS_CALIBRATED * config.round_size)
        machine.keep_freed_memory()
        machine.set_precision(config.precision)
        calibration = calibrate(config, **about, device=machine.device(), batch_gpu=config.round_size)
        if config.gpus > 1:
            notes.append("one device was measured; that several divide the work evenly is assumed")
    made = plan(config, **everything, calibration=calibration)
    return replace(made, warnings=(*notes, *made.warnings))


def refuse_too_much(predicted: Plan, *, images_in_all: int) -> None:
    """Refuse to run steps that would take very long or more memory than is free, by their own prediction.

    Raises:
        ConfigError: They would.
    """
    from medgan.progress import duration

    seconds = images_in_all * predicted.seconds_per_kimg / 1000
    if seconds > LONGEST_CALIBRATION:
        raise ConfigError(
            f"--calibrate would take about {duration(seconds)} here", fix="a smaller --batch-gpu (same result), or no --calibrate"
        )
    free = predicted.device_memory or os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    need = predicted.device_bytes if predicted.device_memory else predicted.host_bytes
    if need > free:
        raise ConfigError(
            f"--calibrate would need about {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free", fix="a smaller --batch-gpu (same result)"
        )


def _this_machine() -> tuple[Device, int, list[str]]:
    """The class of the machine that would train, its accelerator's memory in bytes, and what to say of it."""
    from medgan import machine

    here = machine.device()
    if here.type != "cuda":
        return DEVICES["cpu"], 0, []
    import torch

    facts = torch.cuda.get_device_properties(here)
    device, known = nearest(facts.name, facts.total_memory / 1e9)
    notes = [] if known else [f"no figures for {facts.name}; taken as the nearest by memory, {device.name}: --calibrate measures instead"]
    return device, facts.total_memory, notes


def _has_bf16() -> bool:
    from medgan import machine

    return machine.computes_bf16(machine.device())


def _free(out: Path | None) -> int | None:
    """Bytes free where the run would go, or None without --out."""
    if out is None:
        return None
    import shutil

    return shutil.disk_usage(next(p for p in [out, *out.absolute().parents] if p.exists())).free


def show(made: Plan, config: TrainConfig, free: int | None) -> None:
    """The plan for people, on stderr: stdout carries JSON only."""
    from medgan.progress import duration

    def gb(count: int) -> str:
        return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"

    disk = made.disk_bytes
    share = 100 * made.metric_hours / made.hours
    parts = f"2 states of {gb(disk['state'])}, {1 + disk['kept']} generators of {gb(disk['bundle'])}, sheets {gb(disk['sheets'])}"
    parts += f", decoded images {gb(disk['decoded'])}" if disk["decoded"] else ""
    rows = [
        ("images", f"{made.images or 'unknown number'}, {made.size} x {made.size} x {made.channels}"),
        ("networks", f"G {made.parameters_G:,} and D {made.parameters_D:,} parameters; {made.gflop_per_image:g} GFLOP per image"),
        ("device", made.device),
        ("speed", f"{made.seconds_per_kimg:g} s per thousand images"),
        ("time", f"{duration(made.hours * 3600)} for {config.kimg:g} kimg: training {duration(made.training_hours * 3600)}"
         + (f", {made.snapshots} measurements {duration(made.metric_hours * 3600)} ({share:.0f} %)" if config.metrics or config.kid_every else "")),
        ("schedule", f"{made.steps:,} steps, {made.ticks:,} ticks, {made.snapshots:,} snapshots"),
        ("GPU memory", f"{gb(made.device_bytes)} of {gb(made.device_memory)}" if made.device_memory else "none"),
        ("host memory", gb(made.host_bytes) + (" (mostly an estimate)" if made.device_memory else "")),
        ("disk", f"{gb(disk['total'])}: {parts}" + (f"; {gb(free)} are free" if free is not None else "")),
    ]  # fmt: skip
    for name, text in rows:
        click.echo(f"{name:<12} {text}", err=True)
    click.echo("\nwhat follows from the settings", err=True)
    for row in made.derived:
        click.echo(f"  {row.name:<26} {row.value:<36} {row.reason}", err=True)
    if free is not None and free < disk["least"]:
        click.echo(f"\nnote: the disk of --out lacks {gb(disk['least'] - free)}", err=True)
    elif free is not None and free < disk["total"]:
        click.echo("\nnote: the disk of --out has no room for the decoded images; each is decoded whenever it is shown", err=True)
    for warning in made.warnings:
        click.echo(f"\nnote: {warning}", err=True)
