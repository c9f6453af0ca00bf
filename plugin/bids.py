"""The job as a BIDS App: `run BIDS_DIR OUTPUT_DIR group [--participant_label 01 02]`.

Gorgolewski et al. 2017, "BIDS apps", PLoS Comput Biol 13(3): three words in this order, labels without `sub-`. A generator learns from a whole data
set, so the one level is `group`. The job itself is `train`'s.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import medgan
from medgan.config import options_from, resolve
from medgan.errors import ConfigError, InputError
from medgan.runs import write_json
from plugin.container import Run, mounted_weights, perform
from plugin.source import Remote
from plugin.surroundings import Folders, checked_run_name, default_work
from plugin.target import SourceConfig

FOLDER = click.Path(path_type=Path, readable=False)
RECIPE = "mr"
"""What is done to the scans unless --recipe says otherwise: BIDS holds MR."""


def bids_command(settings: type, run: Run) -> click.Command:
    """The `run` word of the container's command line.

    Args:
        settings: The job's settings class.
        run: The job.
    """

    @click.command(
        "run", help="The job as a BIDS App on the images of one suffix.", epilog=f"The recipe is {RECIPE} unless --recipe is given."
    )
    @click.argument("bids_dir", type=FOLDER)
    @click.argument("output_dir", type=FOLDER)
    @click.argument("level", metavar="group", type=click.Choice(["participant", "group"]))
    @click.argument("more", nargs=-1, metavar="")
    @click.option(
        "--participant_label", "--participant-label", "labels", multiple=True, metavar="LABEL ...", help="only these, without sub-"
    )
    @click.option("--suffix", default="T1w", show_default=True, envvar="MEDGAN_SUFFIX", help="kind of images: what their names end with")
    @click.option("--skip_bids_validator", "--skip-bids-validator", is_flag=True, help="accepted; no validator is part of this image")
    @click.option("--work", "-w", type=FOLDER, envvar="MEDGAN_WORK", metavar="DIR", help="scratch  [default: a folder under $TMPDIR]")
    @click.option("--weights", type=FOLDER, envvar="MEDGAN_WEIGHTS", metavar="DIR", help="pretrained files")
    @click.option("--run-name", envvar="MEDGAN_RUN_NAME", help="sub-folder of this run in every result folder")
    @click.option("--quiet", is_flag=True, default=False, envvar="MEDGAN_QUIET", help="no banner")
    @options_from(settings)
    def command(
        bids_dir: Path,
        output_dir: Path,
        level: str,
        more: tuple[str, ...],
        labels: tuple[str, ...],
        suffix: str,
        skip_bids_validator: bool,  # noqa: ARG001
        work: Path | None,
        weights: Path | None,
        run_name: str | None,
        quiet: bool,
        **flags: Any,
    ) -> None:
        if level != "group":
            raise ConfigError("there is no participant level: a generator learns from a whole data set", fix="group")
        if more and not labels:
            raise ConfigError("words are left over behind the level", fix="--participant_label before labels")
        config, name = resolve(replace(settings(), recipe=RECIPE), flags), checked_run_name(run_name)
        wanted = participants([*labels, *more])
        if not re.fullmatch(r"[A-Za-z0-9]+", suffix):
            raise ConfigError("--suffix is not letters and digits", fix="--suffix T1w")
        scratch = work or default_work("bids", bids_dir.absolute(), output_dir.absolute(), name, wanted, suffix, config)

        def on_chosen(config: Any, *, input: Path, output: Path, work: Path, **rest: Any) -> Any:
            result = run(config, input=chosen(input, work / "bids", wanted, suffix), output=output, work=work, **rest)
            _describe(output)
            return result

        folders = Folders(input=bids_dir, output=output_dir, work=scratch, weights=weights or mounted_weights())
        source = SourceConfig(source="mount")
        remote = Remote(source, needed=False)
        status = perform(on_chosen, config, folders, source=source, remote=remote, run_name=name, check_only=False, quiet=quiet)
        if work is None and status != "partial":
            shutil.rmtree(scratch, ignore_errors=True)

    return command


def participants(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels as folder names, `01` -> `sub-01`, each once and sorted.

    Raises:
        ConfigError: One is no label.
    """
    names = sorted({"sub-" + label.removeprefix("sub-") for label in labels})
    if not all(re.fullmatch(r"sub-[A-Za-z0-9]+", name) for name in names):
        raise ConfigError("a --participant_label is not letters and digits", fix="--participant_label 01 02")
    return tuple(names)


def chosen(source: Path, view: Path, names: Sequence[str], suffix: str) -> Path:
    """A folder of links to the images of one suffix, of some participants or all: derivatives and other kinds of images stay out.

    Args:
        source: The BIDS data set.
        view: The folder, made anew.
        names: `sub-` folders, or none for all.
        suffix: What the images' names end with, e.g. T1w.

    Returns:
        `view`.

    Raises:
        InputError: A participant is missing, or there is no such image.
    """
    there = {path.name for path in source.glob("sub-*") if path.is_dir()}
    missing = len(set(names) - there)
    if missing:
        raise InputError(
            f"{missing} of {len(names)} participants are not in the data set", fix="--participant_label with labels of its sub- folders"
        )
    shutil.rmtree(view, ignore_errors=True)
    for name in names or sorted(there):
        for path in sorted((source / name).rglob(f"sub-*_{suffix}.nii*")):
            link = view / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
    if not view.exists():
        raise InputError(
            f"no image sub-*_{suffix}.nii.gz in the data set", fix="--suffix with the kind of image that is there, or train instead of run"
        )
    return view


def _describe(output: Path) -> None:
    """BIDS asks of every folder of derivatives what made it."""
    made = {"Name": "medgan", "Version": medgan.__version__}
    write_json(
        output / "dataset_description.json",
        {"Name": "medgan results", "BIDSVersion": "1.10.0", "DatasetType": "derivative", "GeneratedBy": [made]},
    )
