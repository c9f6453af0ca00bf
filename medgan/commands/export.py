"""`medgan export`: a bundle's networks for programs that have no medgan."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from medgan.config import options_from, resolve, setting
from medgan.errors import ConfigError

FORMATS = ("safetensors", "torchscript", "onnx")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of `medgan export`."""

    formats: tuple[str, ...] = setting(FORMATS, "what is written; onnx needs the extra `export`", metavar="LIST")

    def __post_init__(self) -> None:
        if not self.formats or {*self.formats} - {*FORMATS}:
            raise ConfigError(
                f"--formats {','.join(self.formats)} is not a list of formats", fix=f"--formats {','.join(FORMATS)}, or fewer"
            )


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, readable=False))
@click.argument("out", type=click.Path(path_type=Path, readable=False))
@options_from(ExportConfig)
def command(bundle: Path, out: Path, **flags: Any) -> None:
    """Write a trained generator for programs that have no medgan.

    The folder OUT gets the weights as safetensors, under the names of the official code and with its constructor arguments, the generator as
    TorchScript and as ONNX, licence, model card and checksums.

    Example: medgan export runs/liver/bundle liver-export
    """
    from medgan.networks.export import export_bundle

    config = resolve(ExportConfig(), flags)
    click.echo(json.dumps(export_bundle(bundle, out, config.formats)))
