"""`medgan report`: what a run folder holds, as one HTML file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medgan import runs
from medgan.errors import ConfigError, InputError


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
    "--pack",
    type=click.Path(path_type=Path, readable=False),
    envvar="MEDGAN_PACK",
    help="also write CLAIM, MI-CLAIM-GEN, model card and datasheet into this folder, filled from the run, open items marked",
)
@click.option(
    "--include-real-examples",
    is_flag=True,
    envvar="MEDGAN_INCLUDE_REAL_EXAMPLES",
    help="show the sheet of real training images: for a file that stays with those who may see the scans",
)
@click.option("--pdf", is_flag=True, envvar="MEDGAN_PDF", help="also write the report as PDF beside the HTML file; needs the extra `pdf`")
def command(run: Path, out: Path | None, figures: Path | None, pack: Path | None, include_real_examples: bool, pdf: bool) -> None:
    """Write one HTML file from what the folder RUN holds.

    The folder may be that of a partial run: the report says what is missing. The file needs no network and no JavaScript.

    Example: medgan report runs/liver --out liver.html --pack liver-pack
    """
    from medgan.reports.build import build_report
    from medgan.reports.results import read_results
    from medgan.reports.verdict import verdict

    if not run.is_dir():
        raise InputError("RUN names no folder that exists", fix="give the --out folder of medgan train")
    target = out or run / runs.REPORT
    if pdf and target.suffix.lower() == ".pdf":
        raise ConfigError("--out names the HTML file; the PDF is written beside it", fix="--out FILE.html --pdf")
    path = build_report(
        run,
        target,
        include_real_examples=include_real_examples,
        figures=figures,
        pack=pack,
        pdf=target.with_suffix(".pdf") if pdf else None,
    )
    results = read_results(run)
    judged = verdict(results)
    checks = {check.name: check.state for check in judged.checks}
    also = {"pdf": str(path.with_suffix(".pdf"))} if pdf else {}
    print(json.dumps({"report": str(path), **also, "verdict": judged.title, "checks": checks, "missing": results.missing}, indent=2))
