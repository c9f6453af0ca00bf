"""`medgan prepare`: stored scans to a dataset of 2-D images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from medgan.config import options_from, resolve
from medgan.data.prepare import PrepareConfig

# A readable path is not asked for here: click's own error would show it, and a path may name a patient.
PATH = click.Path(path_type=Path, readable=False)


@click.command(name="prepare")
@click.argument("source", metavar="SRC", type=PATH)
@click.argument("out", metavar="OUT.zip", type=PATH)
@options_from(PrepareConfig)
@click.option("--dry-run", is_flag=True, help="Print the resolved settings and stop.")
def command(source: Path, out: Path, dry_run: bool, **flags: Any) -> None:
    """Turn the scans below SRC into a dataset.

    Writes OUT.zip (images for training), OUT.held-out.zip (where patients are held out) and the folder OUT.info with
    manifest, exclusions, fingerprint and a contact sheet. SRC holds DICOM, NIfTI, MetaImage, NRRD or an XNAT archive tree, or zips of these;
    for some recipes PNG, JPEG, TIFF, .npz or idx files.
    Stopped at any moment, the same command goes on where it was.

    Example: medgan prepare scans/ liver.zip --mask-label 5 --size 64
    """
    config = resolve(PrepareConfig(), flags)
    if dry_run:
        print(json.dumps({"settings": config.shown(), "recipe": config.resolved().to_dict()}, indent=2))
        return
    from medgan.data.prepare import prepare
    from medgan.progress import bar

    with bar("prepare") as step:
        summary = prepare(config, source, out, step=step)
    print(json.dumps(summary, indent=2))
