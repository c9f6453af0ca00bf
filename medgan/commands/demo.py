"""`medgan demo`: the whole way on two real CT scans, in minutes on two cores."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from medgan.errors import InputError

# Liver in the label maps of the demo's scans (TotalSegmentator's numbering).
LIVER = 5
SCANS = Path(".cache/demo-scans")


@click.command()
@click.option(
    "--scans",
    type=click.Path(path_type=Path, readable=False),
    default=SCANS,
    show_default=True,
    envvar="MEDGAN_SCANS",
    help="the demo's scans; `make demo` fetches them",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, readable=False),
    default=Path("demo"),
    show_default=True,
    envvar="MEDGAN_OUT",
    help="where results and scratch go",
)
@click.option(
    "--kimg",
    type=float,
    default=0.0,
    envvar="MEDGAN_KIMG",
    help="length of the training in thousands of images  [default: the demo preset's own]",
)
@click.option("--weights", type=click.Path(path_type=Path, readable=False), envvar="MEDGAN_WEIGHTS", help="folder with pretrained files")
@click.option(
    "--resume",
    type=click.Choice(["auto", "new"]),
    default="auto",
    show_default=True,
    envvar="MEDGAN_RESUME",
    help="go on in OUT, or start anew",
)
def command(scans: Path, out: Path, kimg: float, weights: Path | None, resume: str) -> None:
    """The whole way on real CT slices: prepare, train, generate, evaluate, report.

    Two abdominal CTs, liver slices at L 50 / W 350, a small StyleGAN2-ADA at 64 px. It shows that everything works; its
    images are no science. The same command again goes on where it stopped.
    """
    import logging

    from medgan.commands.job import JobConfig, run_job

    if not scans.is_dir() or not any(scans.iterdir()):
        raise InputError(
            "the demo's scans are not here", fix="make demo fetches them, or --scans DIR with CT scans and their label maps (liver = 5)"
        )
    logging.basicConfig(format="%(message)s")
    logging.getLogger("medgan").setLevel(logging.INFO)
    started = time.monotonic()
    config = JobConfig(
        preset="demo",
        recipe="ct-liver",
        mask_label=LIVER,
        size=64,
        kimg=kimg,
        images=64,
        held_out=0.0,
        include_real_examples=True,
        resume=resume,
    )
    result = run_job(config, input=scans, output=out / "results", work=out / "work", weights=weights)
    click.echo(json.dumps(result.fields()))
    click.echo(closing(out, result.fields(), time.monotonic() - started), err=True)


def closing(out: Path, numbers: dict[str, str], seconds: float) -> str:
    """What to open, and how to do the same on one's own scans."""
    fid = f"FID {numbers['fid']} from {numbers['n_fake']} images: a smoke figure, so few images say little.\n" if "fid" in numbers else ""
    return f"""
Done in {seconds / 60:.1f} minutes. {fid}
Open     {out}/results/report/report.html
Look at  {out}/results/synthetic/contact_sheet.png   (synthetic)
         {out}/results/report/dataset/qc_sheet.png   (what it was trained on)

More images from this generator:
  medgan generate --bundle {out}/work/run/bundle --out images --seeds 0-99

The same on your own scans (DICOM, NIfTI, MetaImage; label maps beside them or with --masks):
  medgan prepare SCANS data.zip --recipe ct-liver --mask-label 1 --size 256
  medgan train --data data.zip --out run --preset auto --kimg 1000
  medgan generate --bundle run/bundle --out run/synthetic --seeds 0-999
  medgan evaluate --real data.zip --bundle run/bundle --out run/metrics.json
  medgan report run"""
