"""`medgan import`: an official network pickle to a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from medgan import weights as known


@click.command()
@click.argument("network", metavar="NETWORK.pkl")
@click.argument("bundle", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--channels",
    type=click.Choice(["0", "1", "3"]),
    default="0",
    show_default=True,
    envvar="MEDGAN_CHANNELS",
    help="image channels of the bundle: 1 is grey (the mean of RGB), 3 is RGB, 0 as in the file",
)
@click.option("--ema/--no-ema", default=True, show_default=True, envvar="MEDGAN_EMA", help="the averaged generator, or the one in training")
@click.option("--weights", type=click.Path(path_type=Path, readable=False), envvar="MEDGAN_WEIGHTS", help="folder with pretrained files")
def command(network: str, bundle: Path, channels: str, ema: bool, weights: Path | None) -> None:
    """Turn an official NVIDIA network pickle into a bundle, safely.

    NETWORK.pkl is a file of stylegan2-ada-pytorch, of the stylegan2 configuration of stylegan3, or of the TensorFlow code; or ffhq-256,
    ffhq-512, ffhq-1024 in a weights folder. Nothing in it is run. The weights stay under NVIDIA's licence: research and evaluation only.

    Example: medgan import ffhq-512.pkl ffhq-512 --channels 1
    """
    click.echo(json.dumps(import_network(known.find_network(network, weights), bundle, channels=int(channels), ema=ema)))


def import_network(path: Path, out: Path, *, channels: int = 0, ema: bool = True) -> dict[str, Any]:
    """Write the networks of an official pickle as a bundle; returns the summary.

    Args:
        path: The pickle.
        out: Folder of the bundle.
        channels: Image channels; 0 as in the file.
        ema: Take the averaged generator.

    Raises:
        WeightsError: The pickle is absent, damaged or not what it should be; nothing is written then.
    """
    from medgan import runs
    from medgan.errors import WeightsError
    from medgan.networks.bundle import METADATA, write_bundle
    from medgan.networks.nvidia import read_official
    from medgan.networks.stylegan2 import Discriminator, Generator
    from medgan.networks.transfer import adapt_discriminator, adapt_generator

    if not path.exists():
        raise WeightsError("NETWORK.pkl names nothing that exists", fix="an official network pickle, or ffhq-256, ffhq-512, ffhq-1024")
    source = read_official(path)
    chosen = source.G_ema if ema else source.G
    arguments = {**chosen.arguments, "img_channels": channels or chosen.arguments["img_channels"]}
    D_arguments = {**source.D.arguments, "img_channels": arguments["img_channels"]}
    G, D = Generator(**arguments), Discriminator(**D_arguments)
    G.load_state_dict(adapt_generator(chosen.weights, G))
    D.load_state_dict(adapt_discriminator(source.D.weights, D))
    runs.check_writable(out, "BUNDLE")
    details = {"source": source.source, "averaged": ema}
    write_bundle(out, G, family=source.family, arguments=arguments, details=details, D=(D, D_arguments), made_by="medgan import")
    about = json.loads((out / METADATA).read_text(encoding="utf-8"))["medgan"]
    return {"bundle": out.name, "arguments": arguments, "model_sha256": about["model_sha256"], **source.source}
