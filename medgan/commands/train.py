"""`medgan train`: a dataset to a run folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medgan.commands.transfer import carry_source, given, starting_point
from medgan.config import options_from, resolve, to_json
from medgan.errors import DataError, InputError
from medgan.training.config import PRESETS, TrainConfig, preset

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medgan.data.dataset import Dataset
    from medgan.metrics.evaluate import Evaluator
    from medgan.training.loop import Trained

# Seeds of the images that choose the best snapshot; the reported figure comes from others (job.py), so that the choice does not flatter it.
SELECTION_SEED = 1_000_000_000


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
@click.option(
    "--preset",
    "preset_name",
    type=click.Choice(["", *PRESETS]),
    default="",
    envvar="MEDGAN_PRESET",
    help="starting point for the settings below",
)
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
@click.option("--dry-run", is_flag=True, help="print the settings and stop")
@options_from(TrainConfig)
def command(
    data: Path, out: Path, preset_name: str, config_file: Path | None, weights: Path | None, resume: str, dry_run: bool, **flags: Any
) -> None:
    """Train a generator on a prepared dataset.

    Example: medgan train --data liver.zip --out runs/liver --preset auto --kimg 1000
    """
    if not data.exists():
        raise InputError("--data names nothing that exists", fix="medgan prepare SCANS DATA.zip makes a dataset")
    from medgan import runs
    from medgan.data.dataset import open_dataset

    dataset = open_dataset(data, cache=out / runs.DECODED)
    config = resolve(preset(preset_name, size=dataset.resolution), flags, config_file=config_file)
    explicit = given(flags, config_file)
    if dry_run:
        config, _ = starting_point(config, dataset, out, folder=weights, resume=resume, explicit=explicit)
        click.echo(json.dumps(to_json(config), indent=2))
        return
    trained = run_training(config, dataset, out, weights=weights, resume=resume, explicit=explicit)
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


def evaluator_for(config: TrainConfig, weights: Path | None, *, cache: Path) -> Evaluator | None:
    """The measurements of a training, ready, or None where it wants none; absent weights fail here.

    Args:
        config: Settings of the training.
        weights: Folder with pretrained files, or None.
        cache: Folder for features of the training images; they derive from patients, so it lies with the run.
    """
    if not config.metrics:
        return None
    from medgan import machine
    from medgan.metrics.evaluate import Evaluator

    return Evaluator(config.metrics, weights=weights, device=str(machine.device()), cache=cache)


def held_out_beside(data: Dataset) -> Dataset | None:
    """The held-out images that `prepare` wrote beside a dataset: DATA.held-out.zip for DATA.zip; None where there are none."""
    from medgan.data.dataset import open_dataset

    beside = data.path.with_suffix(".held-out.zip")
    if data.path.suffix.lower() != ".zip" or not beside.is_file():
        return None
    try:
        return open_dataset(beside, show_names=False)
    except DataError as error:
        raise DataError(
            f"in the held-out set beside the dataset: {error.message}", fix="prepare both again, or move the .held-out.zip away"
        ) from None


def labels_for(G: nn.Module, data: Dataset) -> Tensor | None:
    """The labels of a dataset as a conditional generator takes them; None where either has none, or they are of another length."""
    from medgan.training.batches import one_hot

    labels = one_hot(data, int(G.c_dim)) if G.c_dim else None  # type: ignore[arg-type]
    return labels if labels is not None and labels.shape[1] == G.c_dim else None


def run_training(
    config: TrainConfig,
    data: Dataset,
    out: Path,
    *,
    weights: Path | None = None,
    resume: str = "auto",
    evaluator: Evaluator | None = None,
    explicit: Collection[str] = (),
) -> Trained:
    """Train with measurements and progress, and leave run.json.

    Args:
        config: Settings.
        data: Opened dataset.
        out: Run folder.
        weights: Folder with pretrained files, or None.
        resume: See `medgan.training.loop.train`.
        evaluator: Made before, or None to make it here.
        explicit: Names of settings that the user gave, which those of a network to start from do not replace.
    """
    from collections.abc import Mapping

    from medgan import machine, runs
    from medgan.progress import bar, watch
    from medgan.sampling.generate import numbered
    from medgan.training.disk import check_room, need_of
    from medgan.training.loop import train

    started = runs.utc_now()
    runs.check_writable(out, "--out")
    data = data.limited(config.max_images, seed=config.seed)
    config, start = starting_point(config, data, out, folder=weights, resume=resume, explicit=explicit)
    if config.pretrained:
        carry_source(out, resume)
    # Before the features of the real images, which may take minutes: the networks fit the images, and the disk the run.
    need = need_of(config, data)
    check_room(need, out)
    with bar("checking images") as step:
        room = shutil.disk_usage(out).free - need.total
        data.check(out / runs.DECODED, most_bytes=max(min(int(config.cache_gib * 2**30), room), 0), step=step)
    held_out = held_out_beside(data)
    machine.keep_freed_memory()
    machine.set_precision(config.precision)
    device = machine.device()
    evaluator = evaluator or evaluator_for(config, weights, cache=out / "cache")
    if evaluator:
        with bar("real features") as step:
            evaluator.reference(data, step=step)

    def measure(G_ema: nn.Module) -> Mapping[str, Any] | None:
        draw = numbered(G_ema, SELECTION_SEED, device=device, labels=labels_for(G_ema, data))
        return {**evaluator.evaluate(sample=draw, n_fake=config.metric_images), "seed": SELECTION_SEED} if evaluator else None

    with watch("training", out / runs.LOG) as on_tick:
        trained = train(
            config,
            data,
            out,
            resume=resume,
            device=device,
            held_out=held_out,
            start=start,
            on_snapshot=measure if evaluator else None,
            on_tick=on_tick,
        )
    runs.write_json(out / runs.STATUS, {"time": runs.utc_now(), "status": trained.status, "kimg": f"{trained.kimg:g}"})
    inputs = {"dataset": data.identity} | ({"pretrained": config.pretrained} if config.pretrained else {})
    runs.write_json(out / runs.PROVENANCE, runs.provenance("train", to_json(config), inputs, started=started))
    return trained
