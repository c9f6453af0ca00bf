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

MOST_SEEDS = 10_000_000


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Settings of `medgan generate`."""

    seeds: str = setting("0-63", "seeds of the images, one each: 0-99 or 1,5,7-9", metavar="LIST")
    psi: float = setting(1.0, "truncation: 1 keeps the model's variety, 0 gives its mean image")
    format: str = setting("zip", "one zip of PNGs, or single files", choices=("zip", "png"))

    def __post_init__(self) -> None:
        if not 0 <= self.psi <= 2:
            raise ConfigError(f"--psi {self.psi:g} is not between 0 and 2")
        parse_seeds(self.seeds)


def parse_seeds(text: str) -> list[int]:
    """`0-99`, `1,5,7-9`: whole numbers from 0.

    Raises:
        ConfigError: Anything else, or a range that runs backwards.
    """
    seeds: list[int] = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ConfigError(f"--seeds {text} is not a list of seeds", fix="--seeds 0-99")
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= 2**32 or len(seeds) + last - first >= MOST_SEEDS:
            raise ConfigError(f"--seeds {text} has a seed of 2^32 or more, or more than {MOST_SEEDS:,} seeds")
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

    The same seed gives the same image, alone or among others.
    Example: medgan generate --bundle runs/liver/bundle --out images --seeds 0-99
    """
    click.echo(json.dumps(generate(resolve(GenerateConfig(), flags), bundle, out)))


def generate(config: GenerateConfig, bundle: Path, out: Path) -> dict[str, Any]:
    """Images, manifest, contact sheet and run.json into `out`; returns the summary."""
    from medgan import machine, runs
    from medgan.networks.bundle import read_bundle
    from medgan.progress import bar
    from medgan.sampling.generate import write_images

    started = runs.utc_now()
    seeds = parse_seeds(config.seeds)
    G, metadata = read_bundle(bundle)
    runs.check_writable(out, "--out")
    machine.keep_freed_memory()
    machine.set_precision("fp32")
    device = machine.device()
    with bar("images") as step:
        summary = write_images(G.to(device), metadata, seeds, out, psi=config.psi, form=config.format, device=device, step=step)
    runs.write_json(
        out / runs.PROVENANCE, runs.provenance("generate", to_json(config), {"model": summary["model_sha256"]}, started=started)
    )
    return summary
