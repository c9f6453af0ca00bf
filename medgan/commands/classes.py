"""The classes of `medgan diversity`: their images, opened or prepared, and the command line and settings of each one's training."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

from medgan import runs
from medgan.config import to_json
from medgan.errors import ConfigError, DataError
from medgan.experiments.diversity import DATA, PRESET_OF, RUNS, SYNTHETIC, ClassOf, DiversityConfig, with_class

if TYPE_CHECKING:
    from medgan.data.dataset import Dataset
    from medgan.training.config import TrainConfig

log = logging.getLogger(__name__)

STACKS = ("pneumonia-mnist", "oct-mnist", "fashion-mnist")
"""Recipes whose files are known by their names; any other .npz is one of MedMNIST."""


@contextmanager
def prepared_in(out: Path, *, dry_run: bool) -> Iterator[Path]:
    """Where classes of raw files are prepared: in the experiment, or for a dry run in a folder that vanishes."""
    import tempfile

    if not dry_run:
        yield out / DATA
        return
    with tempfile.TemporaryDirectory(prefix="medgan-dry-run-") as folder:
        yield Path(folder)


def opened(one: ClassOf, config: DiversityConfig, folder: Path) -> list[tuple[ClassOf, Dataset]]:
    """The classes behind one --data, each opened; those of raw files are prepared first, as `medgan prepare` does.

    Raises:
        DataError: A set holds several classes, or images of a size that the family does not take.
    """
    from medgan.data.dataset import open_dataset

    recipe = recipe_of(one.path)
    if not recipe:
        data = open_dataset(one.path)
        if data.labels is not None and len({str(label) for label in data.labels.tolist()}) > 1:
            raise DataError(f"{one.title} holds several classes", fix="medgan prepare --class NAME makes a dataset of one")
        return [(one, data)]
    from medgan.data import RECIPES

    names = [one.name] if one.name else RECIPES.get(recipe).classes
    if not names:
        raise ConfigError(f"--data {one.title}: the classes of this file have no names", fix=f"--data {one.modality}/0=PATH, by number")
    return [(part, open_dataset(prepare_class(part, recipe, config, folder))) for part in (with_class(one, name) for name in names)]


def recipe_of(path: Path) -> str:
    """The recipe of a MedMNIST or Fashion-MNIST file, or of a folder that holds such files; empty for a dataset."""
    from medgan.data import RECIPES

    names = [path.name] if path.is_file() else [file.name for file in sorted(path.iterdir())]
    for recipe in STACKS:
        patterns = RECIPES.get(recipe).files
        if any(fnmatch(name, pattern) for name in names for pattern in patterns):
            return recipe
    return "medmnist" if path.suffix.lower() == ".npz" else ""


def prepare_class(one: ClassOf, recipe: str, config: DiversityConfig, folder: Path) -> Path:
    """One class of a raw file as a dataset: the training part, all of it."""
    from medgan.data.prepare import PrepareConfig, prepare
    from medgan.progress import bar

    out = folder / f"{one.key}.zip"
    wanted = PrepareConfig(recipe=recipe, only_class=one.name, size=config.size, fit=config.fit, held_out=0.0, seed=config.seed)
    with bar("preparing") as step:
        prepare(wanted, one.path, out, step=step)
    return out


def describe(
    one: ClassOf, data: Dataset, config: DiversityConfig, out: Path, weights: Path | None, options: Sequence[str]
) -> dict[str, Any]:
    """What the design says of a class: its images, its command lines and the settings of its training."""
    # As the runs find it, also where a dry run prepared it elsewhere.
    where = data.path if not recipe_of(one.path) else out / DATA / data.path.name
    words = train_words(one, where, config, out, weights, options)
    training = training_of(words, data, config.family)
    copies = len(data) - len({row.tobytes() for row in data.digests()})
    if copies:
        log.warning(
            "%s: %d of %d images are exact copies of others, so that it looks less diverse than it is", one.title, copies, len(data)
        )
    generate = [
        "generate",
        "--bundle",
        str(out.absolute() / RUNS / one.key / runs.BUNDLE),
        "--out",
        str(out.absolute() / SYNTHETIC / one.key),
    ]
    return {
        "name": one.title,
        "key": one.key,
        "modality": one.modality,
        "images": len(data),
        "pixels": data.resolution,
        "copies": copies,
        "dataset": data.identity,
        "words": words,
        "commands": [join(["medgan", *words]), join(["medgan", *generate, "--seeds", f"0-{len(data) - 1}", "--format", "zip"])],
        "training": {name: value for name, value in to_json(training).items() if name not in ("pretrained", "time_budget")},
    }


def train_words(one: ClassOf, where: Path, config: DiversityConfig, out: Path, weights: Path | None, options: Sequence[str]) -> list[str]:
    """The command line of a class's training, after `medgan`."""
    preset = [] if "--preset" in options else ["--preset", PRESET_OF.get(config.family, "")]
    folder = ["--weights", str(weights.absolute())] if weights else []
    own = ["--data", str(where.absolute()), "--out", str(out.absolute() / RUNS / one.key), "--family", config.family, *preset]
    return ["train", *own, "--seed", str(config.seed), *folder, *options]


def training_of(words: Sequence[str], data: Dataset, family: str) -> TrainConfig:
    """The settings that a command line of train means for a dataset, with everything refused now that the run would refuse.

    Raises:
        ConfigError, DataError: As train itself.
    """
    from medgan.commands import train
    from medgan.training.config import for_set
    from medgan.training.disk import need_of

    with without_settings():
        flags = dict(train.command.make_context("medgan train", list(words[1:])).params)
    config = train.settings(flags["preset_name"], flags, flags["config_file"], size=data.resolution, gpus=flags["gpus"] or 1)
    if config.family != family:
        raise ConfigError(
            f"the options of train say --family {config.family}, the experiment {family}", fix=f"--family {config.family} before the dashes"
        )
    config = for_set(config, len(data))
    need_of(config, data)
    return config


@contextmanager
def without_settings() -> Iterator[None]:
    """Without the variables that set options: the runs do not see them either."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("MEDGAN_")}
    try:
        yield
    finally:
        os.environ.update(kept)
