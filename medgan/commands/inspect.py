"""`medgan inspect`: the data check before the GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from medgan.errors import ConfigError

# A readable path is not asked for here: click's own error would show it, and a path may name a patient.
PATH = click.Path(path_type=Path, readable=False)
BLOCKS = "▁▂▃▄▅▆▇█"
SHOWN = 6


@click.command(name="inspect")
@click.argument("data", metavar="DATA", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="everything as one JSON object on stdout")
@click.option("--sheet", type=PATH, help="write a PNG of 64 images spread over the set")
@click.option("--held-out", type=PATH, help="the held-out images  [default: DATA.held-out.zip beside DATA.zip, where it is]")
def command(data: Path, as_json: bool, sheet: Path | None, held_out: Path | None) -> None:
    """Look at a dataset before a network does: counts, greys, spacing, near-duplicates, advice.

    DATA is a zip from `medgan prepare`, an official zip, or a folder of pictures. Every image is decoded; broken ones are listed.

    Example: medgan inspect liver.zip --sheet liver.png
    """
    from medgan.data.dataset import held_out_of, open_dataset, save_sheet
    from medgan.data.inspection import inspect
    from medgan.progress import bar

    if sheet is not None and sheet.suffix.lower() != ".png":
        raise ConfigError("--sheet is a PNG", fix="--sheet sheet.png")
    dataset = open_dataset(data, any_size=True)
    held_out = held_out or held_out_of(data)
    with bar("inspect") as step:
        facts = inspect(dataset, open_dataset(held_out, any_size=True) if held_out else None, step=step)
    if sheet is not None:
        save_sheet(dataset, sheet)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for line in lines(facts):
        click.echo(line, err=True)


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts for people."""
    light, near, patients = facts["intensity"], facts["near_duplicates"], facts["patients"]
    said = [
        f"images      {facts['images']} of {facts['size']} px, {'grey' if facts['channels'] == 1 else 'RGB'}, {facts['bits']} bit"
        + (f"; {facts['held_out_images']} held out" if facts["held_out_images"] else ""),
        f"made by     {facts['made_by']}" + (f", recipe {facts['recipe'].get('name', '?')}" if facts["recipe"] else ""),
    ]
    if patients:
        each = patients["images_each"]
        said.append(
            f"patients    {patients['training']} in training, {patients['held_out']} held out; {patients['sessions']} sessions, "
            f"{patients['series']} series; images each {each['least']} to {each['most']}, median {each['median']}"
        )
    if facts["labels"]:
        kind = facts["labels"]
        said.append("labels      " + (_table(kind["images"], "class ") if kind["kind"] == "classes" else f"vectors of {kind['length']}"))
    for name, title in (("dropped", "left out"), ("spacing_mm", "spacing mm"), ("scan_size", "scan size"), ("orientation", "orientation")):
        if facts[name]:
            said.append(f"{title:<11} {_table(facts[name])}")
    percentiles = ", ".join(f"{value} ({name} %)" for name, value in light["percentiles"].items())
    said += [
        f"greys       {sparkline(light['histogram'])}  0 to 255, black left out",
        f"            {light['black']:.1%} black, {light['white']:.1%} white; percentiles {percentiles}",
        f"copies      {facts['copies']['in_training']} exact in training, {facts['copies']['held_out_in_training']} held-out ones in training",
        f"alike       {near['same_patient']} of the same patient, {near['other_patient']} of "
        f"{'another' if near['patients_known'] else 'any'} patient, {near['across_the_split']} across the split "
        f"(correlation from {near['correlation_from']})",
    ]
    said += [f"            {' and '.join(pair['images'])}: {pair['correlation']}" for pair in near["examples"]]
    said.append(f"identity    {facts['identity']}")
    said += [f"ADVICE      {text}" for text in facts["advice"]] or ["ADVICE      none: nothing looks wrong"]
    return said


def _table(counts: dict[str, int], prefix: str = "") -> str:
    shown = ", ".join(f"{prefix}{name} ({count})" for name, count in list(counts.items())[:SHOWN])
    return shown + (f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else "")


def sparkline(histogram: list[int], columns: int = 64) -> str:
    """Greys from dark to bright as bars; black is left out, for it would hide the rest."""
    counts = [0, *histogram[1:]]
    width = len(counts) // columns
    bars = [sum(counts[i * width : (i + 1) * width]) for i in range(columns)]
    most = max(bars) or 1
    return "".join(
        BLOCKS[min(round(bar / most * (len(BLOCKS) - 1) + (0.5 if bar else 0)), len(BLOCKS) - 1)] if bar else " " for bar in bars
    )
