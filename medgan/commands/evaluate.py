"""`medgan evaluate`: numbers for two sets of images, or for a set and a generator."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medgan.config import options_from, resolve, to_json
from medgan.errors import ConfigError, InputError, Preempted
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
    from medgan.commands.train import processes
    from medgan.ranks import started

    flags["gpus"] = processes(flags["gpus"]) if started() > 1 else flags["gpus"]
    config = resolve(EvaluateConfig(), flags, config_file=config_file)
    if (fake is None) == (bundle is None):
        raise ConfigError("give the synthetic images as --fake or the generator as --bundle", fix="one of the two")
    if dry_run:
        click.echo(json.dumps(to_json(config), indent=2))
        return
    result = evaluate(config, real=real, fake=fake, bundle=bundle, out=out, weights=weights)
    if not result:
        return
    for warning in result["warnings"]:
        click.echo(f"{warning['code']} {warning['text']}", err=True)
    click.echo(json.dumps(result, indent=2, allow_nan=False))


def evaluate(
    config: EvaluateConfig, *, real: Path, fake: Path | None, bundle: Path | None, out: Path | None, weights: Path | None
) -> dict[str, Any]:
    """Everything the command does after its options are read; inputs, output and weights are tried before the first image.

    Returns:
        The result; an empty dictionary on ranks that do not speak.
    """
    from medgan.ranks import started
    from medgan.runs import check_writable, write_json

    places = {"real": real, "fake": fake, "bundle": bundle}
    for name, path in places.items():
        if path is not None and not path.exists():
            raise InputError(f"--{name} names nothing that exists", fix="check the path")
    if out is not None:
        if out.is_dir():
            raise ConfigError("--out is a folder", fix="name a file in it, e.g. metrics.json")
        check_writable(out.absolute().parent, "--out")
    if config.gpus > 1 and started() == 1:
        result = _on_processes(config, {**places, "weights": weights})
    else:
        result = measured(config, real=real, fake=fake, bundle=bundle, weights=weights)
    if out is not None and result:
        write_json(out, result)
    return result


def _on_processes(config: EvaluateConfig, places: dict[str, Path | None]) -> dict[str, Any]:
    """The same in `config.gpus` processes of this machine, each of which calls `measured` (medgan/worker.py)."""
    import tempfile

    from medgan import machine, runs
    from medgan.commands.training_run import WORK
    from medgan.launch import launch

    machine.check_devices(config.gpus)
    work = {"stage": "evaluate", **{name: str(path.absolute()) if path else None for name, path in places.items()}}
    with tempfile.TemporaryDirectory(prefix="medgan-ranks-") as name:
        folder = Path(name)
        runs.write_json(folder / runs.CONFIG, to_json(config))
        runs.write_json(folder / WORK, work)
        launch("medgan.worker", [name], processes=config.gpus)
        result: dict[str, Any] = json.loads((folder / runs.METRICS).read_text(encoding="utf-8"))
    return result


def measured(config: EvaluateConfig, *, real: Path, fake: Path | None, bundle: Path | None, weights: Path | None) -> dict[str, Any]:
    """One rank's part of an evaluation, and on the one that speaks its result; alone where nothing else was started.

    Raises:
        Preempted: SIGTERM or SIGUSR1 came to one of several ranks.
    """
    from medgan.data.dataset import open_dataset
    from medgan.metrics.evaluate import Evaluator
    from medgan.progress import bar, hushed
    from medgan.ranks import joined, started
    from medgan.signals import stop_asked, stoppable
    from medgan.weights import cache_folder

    # Alone, a stop ends the block wherever it is (medgan/cli.py); several ranks leave together, between two batches.
    with stop_asked() if started() > 1 else nullcontext(lambda: False) as asked, joined() as ranks:
        evaluator = Evaluator(
            config.metrics,
            extractor=config.extractor,
            resize=config.resize,
            weights=weights,
            cache=cache_folder().parent / "features",
            batch=config.batch,
            seed=config.seed,
            settings=config.of_metrics(),
            ranks=ranks,
        )
        evaluator.check_generator(bundle is not None)
        real_images = open_dataset(real, any_size=True)
        fake_images = open_dataset(fake, any_size=True) if fake is not None else None
        sample, walk = bundle_sampler(bundle, config, real_images) if bundle is not None else (None, None)
        shown = bar if ranks.speaks else hushed

        stop = Preempted("stopped while measuring", fix="the same command begins anew; features of the real set are kept")

        def together() -> bool:
            return ranks.any(asked())

        with shown("real features") as step:
            evaluator.reference(real_images, subjects=real_images.subjects(), step=stoppable(step, together, stop))
        # First the images, then the computations behind intervals: one bar, because a terminal shows one at a time.
        with shown("measuring") as step:
            return evaluator.evaluate(
                fake_images,
                sample=sample,
                walk=walk,
                subjects=fake_images.subjects() if fake_images is not None else None,
                n_fake=config.n_fake,
                step=stoppable(step, together, stop),
                # These are rank 0's alone.
                uncertainty=stoppable(step, asked, stop) if config.intervals else None,
            )


def bundle_sampler(bundle: Path, config: EvaluateConfig, real: Dataset) -> tuple[Sampler, Walk]:
    """The images of a bundle's generator by number, and its pairs of near ones, from seed `config.seed` on, with classes as frequent as in the real set."""
    from medgan import machine
    from medgan.commands.training_run import labels_for
    from medgan.networks.bundle import read_bundle
    from medgan.sampling.generate import numbered
    from medgan.sampling.steps import stepped

    device = machine.device()
    machine.set_precision("fp32")
    G = read_bundle(bundle)[0].to(device)
    labels = labels_for(G, real)
    return numbered(G, config.seed, device=device, labels=labels), stepped(G, config.seed, device=device, labels=labels)
