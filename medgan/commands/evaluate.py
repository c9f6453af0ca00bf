"""`medgan evaluate`: numbers for two sets of images, or for a set and a generator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medgan.config import options_from, resolve, to_json
from medgan.errors import ConfigError, InputError
from medgan.metrics.config import EvaluateConfig

if TYPE_CHECKING:
    from medgan.data.dataset import Dataset
    from medgan.metrics.evaluate import Sampler
    from medgan.metrics.path_length import Walk

# A readable path is not asked for here: click's own error would show it, and a path may name a patient.
PATH = click.Path(path_type=Path, readable=False)


@click.command()
@click.option("--real", type=PATH, required=True, envvar="MEDGAN_REAL", help="real images: dataset zip or folder")
@click.option("--fake", type=PATH, envvar="MEDGAN_FAKE", help="synthetic images: zip or folder")
@click.option("--bundle", type=PATH, envvar="MEDGAN_BUNDLE", help="or the generator that makes them")
@click.option("--out", type=PATH, envvar="MEDGAN_OUT", help="file for the result, e.g. metrics.json")
@click.option("--weights", type=PATH, envvar="MEDGAN_WEIGHTS", help="folder with pretrained files")
@click.option("--config", "config_file", type=PATH, envvar="MEDGAN_CONFIG", help="JSON file with settings")
@click.option("--dry-run", is_flag=True, help="print the settings and stop")
@options_from(EvaluateConfig)
def command(
    real: Path,
    fake: Path | None,
    bundle: Path | None,
    out: Path | None,
    weights: Path | None,
    config_file: Path | None,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Compare two sets of images: FID, KID, precision and recall, MS-SSIM, and others.

    The result goes to stdout as JSON, and to --out.
    Example: medgan evaluate --real data.zip --fake run/synthetic/synthetic.zip --out metrics.json
    """
    config = resolve(EvaluateConfig(), flags, config_file=config_file)
    if (fake is None) == (bundle is None):
        raise ConfigError("give the synthetic images as --fake or the generator as --bundle", fix="one of the two")
    if dry_run:
        click.echo(json.dumps(to_json(config), indent=2))
        return
    result = evaluate(config, real=real, fake=fake, bundle=bundle, out=out, weights=weights)
    for warning in result["warnings"]:
        click.echo(f"{warning['code']} {warning['text']}", err=True)
    click.echo(json.dumps(result, indent=2, allow_nan=False))


def evaluate(
    config: EvaluateConfig, *, real: Path, fake: Path | None, bundle: Path | None, out: Path | None, weights: Path | None
) -> dict[str, Any]:
    """Everything the command does after its options are read; inputs, output and weights are tried before the first image."""
    from medgan.runs import check_writable, write_json

    for flag, path in (("--real", real), ("--fake", fake), ("--bundle", bundle)):
        if path is not None and not path.exists():
            raise InputError(f"{flag} names nothing that exists", fix="check the path")
    if out is not None:
        if out.is_dir():
            raise ConfigError("--out is a folder", fix="name a file in it, e.g. metrics.json")
        check_writable(out.absolute().parent, "--out")

    from medgan.data.dataset import open_dataset
    from medgan.metrics.evaluate import Evaluator
    from medgan.progress import bar
    from medgan.weights import cache_folder

    cache = cache_folder().parent / "features"
    evaluator = Evaluator(
        config.metrics,
        extractor=config.extractor,
        resize=config.resize,
        weights=weights,
        cache=cache,
        batch=config.batch,
        seed=config.seed,
        settings=config.of_metrics(),
    )
    evaluator.check_generator(bundle is not None)
    real_images = open_dataset(real, any_size=True)
    fake_images = open_dataset(fake, any_size=True) if fake is not None else None
    sample, walk = bundle_sampler(bundle, config, real_images) if bundle is not None else (None, None)
    with bar("real features") as step:
        evaluator.reference(real_images, subjects=real_images.subjects(), step=step)
    # First the images, then the computations behind intervals: one bar, because a terminal shows one at a time.
    with bar("measuring") as step:
        uncertainty = step if config.intervals else None
        result = evaluator.evaluate(
            fake_images,
            sample=sample,
            walk=walk,
            subjects=fake_images.subjects() if fake_images is not None else None,
            n_fake=config.n_fake,
            step=step,
            uncertainty=uncertainty,
        )
    if out is not None:
        write_json(out, result)
    return result


def bundle_sampler(bundle: Path, config: EvaluateConfig, real: Dataset) -> tuple[Sampler, Walk]:
    """The images of a bundle's generator by number, and its pairs of near ones, from seed `config.seed` on, with classes as frequent as in the real set."""
    from medgan import machine
    from medgan.commands.train import labels_for
    from medgan.networks.bundle import read_bundle
    from medgan.sampling.generate import numbered
    from medgan.sampling.steps import stepped

    device = machine.device()
    machine.set_precision("fp32")
    G = read_bundle(bundle)[0].to(device)
    labels = labels_for(G, real)
    return numbered(G, config.seed, device=device, labels=labels), stepped(G, config.seed, device=device, labels=labels)
