"""`medgan report`: what a run folder holds, as one HTML file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medgan import runs
from medgan.errors import InputError


@click.command()
@click.argument("run", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--out", type=click.Path(path_type=Path, readable=False), envvar="MEDGAN_OUT", help="the HTML file  [default: RUN/report.html]"
)
@click.option(
    "--figures",
    type=click.Path(path_type=Path, readable=False),
    envvar="MEDGAN_FIGURES",
    help="also write the figures as PNG files into this folder",
)
@click.option(
    "--sheet/--no-sheet",
    default=True,
    envvar="MEDGAN_SHEET",
    help="show the sheet of real training images; leave it out of a file that is passed on  [default: sheet]",
)
def command(run: Path, out: Path | None, figures: Path | None, sheet: bool) -> None:
    """Write one HTML file from what the folder RUN holds.

    The folder may be that of a partial run: the report says what is missing. The file needs no network and no JavaScript.

    Example: medgan report runs/liver --no-sheet --out liver.html
    """
    from medgan.reports.build import build_report
    from medgan.reports.results import read_results
    from medgan.reports.verdict import verdict

    if not run.is_dir():
        raise InputError("RUN names no folder that exists", fix="give the --out folder of medgan train")
    path = build_report(run, out or run / runs.REPORT, include_sheet=sheet, figures=figures)
    results = read_results(run)
    judged = verdict(results)
    checks = {check.name: check.state for check in judged.checks}
    print(json.dumps({"report": str(path), "verdict": judged.title, "checks": checks, "missing": results.missing}, indent=2))
