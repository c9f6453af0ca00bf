"""`medgan generate`: a bundle to images."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from medgan.config import options_from, resolve, setting, to_json
from medgan.errors import ConfigError
from medgan.machine import PRECISION_HELP, PRECISIONS

MOST_SEEDS = 10_000_000


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Settings of `medgan generate`."""

    seeds: str = setting("0-63", "seeds of the images, one each: 0-99 or 1,5,7-9", metavar="LIST")
    psi: float = setting(1.0, "truncation: 1 keeps the model's variety, 0 gives its mean image")
    psi_cutoff: int = setting(0, "truncate only so many style rows, from the coarsest; 0 is all")
    noise: str = setting("random", "fine noise: each seed's own, the network's stored one, or none", choices=("random", "const", "none"))
    class_index: str = setting("all", "class of all images by its index, or `all`: one drawn with each seed", metavar="K", flag="class")
    format: str = setting("zip", "one zip of PNGs, single PNGs, or DICOM files marked as synthetic", choices=("zip", "png", "dicom"))
    walk: bool = setting(False, "a moving picture that passes the images of --seeds and returns, instead of the images")
    walk_frames: int = setting(25, "frames from one seed to the next; 25 are a second")
    walk_space: str = setting("w", "walk on a spline through the styles, or on great circles through z", choices=("w", "z"))
    precision: str = setting("fp32", PRECISION_HELP, choices=PRECISIONS)
    style_mix: str = setting(
        "", "seeds whose styles are mixed into the images of --seeds: sheets of pictures, instead of the images", metavar="LIST"
    )

    def __post_init__(self) -> None:
        if not 0 <= self.psi <= 2:
            raise ConfigError(f"--psi {self.psi:g} is not between 0 and 2")
        if self.psi_cutoff < 0:
            raise ConfigError("--psi-cutoff is less than 0")
        if self.walk_frames < 1:
            raise ConfigError("--walk-frames is less than 1")
        if self.class_index != "all" and not re.fullmatch(r"\d{1,6}", self.class_index):
            raise ConfigError(f"--class {self.class_index} is not a class", fix="--class 0, or all")
        if self.format == "dicom" and (self.walk or self.style_mix):
            raise ConfigError("--format dicom is for single images; a walk and style sheets are pictures", fix="--format png, or zip")
        parse_seeds(self.seeds)
        if self.style_mix:
            parse_seeds(self.style_mix, "--style-mix")


def parse_seeds(text: str, option: str = "--seeds") -> list[int]:
    """`0-99`, `1,5,7-9`: whole numbers from 0.

    Raises:
        ConfigError: Anything else, or a range that runs backwards.
    """
    seeds: list[int] = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ConfigError(f"{option} {text} is not a list of seeds", fix=f"{option} 0-99")
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= 2**32 or len(seeds) + last - first >= MOST_SEEDS:
            raise ConfigError(f"{option} {text} has a seed of 2^32 or more, or more than {MOST_SEEDS:,} seeds")
        seeds += range(first, last + 1)
    return seeds


@click.command()
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, readable=False),
    required=True,
    envvar="MEDGAN_BUNDLE",
    help="bundle folder or zip of a training run",
)
@click.option("--out", type=click.Path(path_type=Path, readable=False), required=True, envvar="MEDGAN_OUT", help="folder for the images")
@options_from(GenerateConfig)
def command(bundle: Path, out: Path, **flags: Any) -> None:
    """Draw synthetic images from a trained generator.

    The same seed gives the same image to the last bit, alone or among others; --walk and --style-mix make pictures of how
    images pass into one another.
    Example: medgan generate --bundle runs/liver/bundle --out images --seeds 0-99
    """
    click.echo(json.dumps(generate(resolve(GenerateConfig(), flags), bundle, out)))


def generate(config: GenerateConfig, bundle: Path, out: Path) -> dict[str, Any]:
    """Images, a walk or style sheets, and run.json into `out`; returns the summary."""
    from medgan import machine, runs
    from medgan.networks.bundle import read_bundle
    from medgan.networks.family import compute_in
    from medgan.progress import bar
    from medgan.sampling.generate import Drawing, write_images
    from medgan.sampling.mixing import write_sheets
    from medgan.sampling.walk import write_walk

    started = runs.utc_now()
    seeds = parse_seeds(config.seeds)
    G, metadata = read_bundle(bundle)
    drawing = Drawing(
        psi=config.psi,
        cutoff=config.psi_cutoff,
        noise=config.noise,
        category=None if config.class_index == "all" else int(config.class_index),
    )
    drawing.check(G)
    runs.check_writable(out, "--out")
    machine.keep_freed_memory()
    machine.set_precision(config.precision)
    device = machine.device()
    G = compute_in(G, config.precision).to(device)
    summary: dict[str, Any] = {}
    if config.walk:
        with bar("walk") as step:
            summary |= write_walk(
                G,
                metadata,
                seeds,
                out,
                form=config.format,
                drawing=drawing,
                frames=config.walk_frames,
                space=config.walk_space,
                device=device,
                step=step,
            )
    if config.style_mix:
        columns = parse_seeds(config.style_mix, "--style-mix")
        with bar("style mixing") as step:
            summary |= write_sheets(G, metadata, seeds, columns, out, drawing=drawing, device=device, step=step)
    if not (config.walk or config.style_mix):
        with bar("images") as step:
            summary = write_images(G, metadata, seeds, out, form=config.format, drawing=drawing, device=device, step=step)
    runs.write_json(
        out / runs.PROVENANCE, runs.provenance("generate", to_json(config), {"model": summary["model_sha256"]}, started=started)
    )
    return summary
