"""Synthetic images somebody should look at: those the audit found most and least like real ones, and a walk between images. None is a real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import medgan
from medgan.errors import MedganError
from medgan.reports.citation import NOT_FOR_DIAGNOSIS
from medgan.reports.pictures import Picture, encoded, read_picture
from medgan.reports.results import Results, number

COLUMNS = 4
STRIP_COLUMNS = 6


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A picture of synthetic images: file name without ending, what it shows in words, how to read it."""

    name: str
    title: str
    alt: str
    caption: str
    picture: Picture


def worst_cases(results: Results) -> list[Exhibit]:
    """The extremes of the audit, drawn from the very images it looked at; empty where there are none or they are not here."""
    extremes = results.audit.get("extremes")
    if not isinstance(extremes, Mapping) or results.synthetic_images is None:
        return []
    from medgan.data.dataset import open_dataset

    try:
        images = open_dataset(results.synthetic_images, show_names=False, any_size=True)
        if len(images) != number(results.audit.get("n_fake")):
            return []  # The audit looked at another set.
        seeds, said = _seeds(images.names, results.samples), _marks(results)
        return [
            exhibit
            for exhibit in (
                _exhibit("farthest", "Least like any real image", _FARTHEST, extremes.get("farthest"), images, seeds, said),
                _exhibit("nearest", "Most like one real image", _NEAREST, extremes.get("nearest"), images, seeds, said),
            )
            if exhibit
        ]
    except MedganError:
        return []


_FARTHEST = "The images whose features lie farthest from every training image: look for anatomy that cannot be, seams and noise."
_NEAREST = "The images that resemble a training image most, without being near copies by the audit's rule: compare them with your scans before you give them out."


def _exhibit(name: str, title: str, caption: str, listed: Any, images: Any, seeds: Sequence[str], said: dict[str, str]) -> Exhibit | None:
    rows = [row for row in listed if isinstance(row, Mapping)] if isinstance(listed, list) else []
    numbers = [int(i) for row in rows if (i := number(row.get("image"))) is not None and 0 <= i < len(images)]
    if not numbers:
        return None
    from medgan.data.sheet import contact_sheet

    which = f"seeds {', '.join(seeds[i] for i in numbers)}" if seeds else f"numbers {', '.join(map(str, numbers))}"
    picture = encoded(contact_sheet(images.images(numbers), columns=COLUMNS), said=said | {"images": which})
    alt = f"{len(numbers)} synthetic images, {title[:1].lower()}{title[1:]}, row by row: {which}."
    correlations = [number(row.get("ncc")) for row in rows]
    extent = f" The largest correlation is {max(value for value in correlations if value is not None):.3f}." if any(correlations) else ""
    return Exhibit(name=name, title=title, alt=alt, caption=f"{caption}{extent} Row by row: {which}.", picture=picture)


def _seeds(names: Sequence[str], samples: list[dict[str, str]]) -> list[str]:
    """The seed of each image of the set, or nothing where the manifest does not know all of them."""
    known = {row.get("file", ""): row.get("seed", "") for row in samples}
    found = [known.get(name, "") for name in names]
    return found if all(found) else []


def _marks(results: Results) -> dict[str, str]:
    """What a picture of synthetic images says of itself wherever it goes."""
    model = results.model.get("model_sha256")
    said = {"synthetic": "true", "software": f"medgan {medgan.__version__}", "disclaimer": NOT_FOR_DIAGNOSIS}
    return said | ({"model": model} if isinstance(model, str) else {})


def walk(results: Results) -> Exhibit | None:
    """The strip of a latent walk, in rows that fit a narrow screen."""
    picture = _strip(results.walk_strip, _marks(results)) if results.walk_strip else None
    if picture is None:
        return None
    return Exhibit(
        name="latent_walk",
        title="A walk from image to image",
        alt="Twelve synthetic images along a closed path through the generator's styles, row by row.",
        caption="Frames of a closed path through the generator's styles. Smooth changes between plausible images speak for a generator that "
        "has learned more than single pictures; jumps, or the same picture again and again, speak against it.",
        picture=picture,
    )


def _strip(path: Path, said: dict[str, str]) -> Picture | None:
    """A strip of square frames side by side, laid out in rows; as it is where its frames are not square."""
    from PIL import Image

    image = read_picture(path)
    if image is None:
        return None
    frames, left = divmod(image.width, image.height)
    if left or frames <= STRIP_COLUMNS:
        return encoded(image, said=said)
    side = image.height
    sheet = Image.new(image.mode, (STRIP_COLUMNS * side, -(-frames // STRIP_COLUMNS) * side), "white")
    for i in range(frames):
        row, column = divmod(i, STRIP_COLUMNS)
        sheet.paste(image.crop((i * side, 0, (i + 1) * side, side)), (column * side, row * side))
    return encoded(sheet, said=said)
