"""Pictures in files (PNG, JPEG, TIFF): found, with the class and patient that a list beside them names, and read as greys from 0 to 255."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from medgan.data.archive import SHEETS
from medgan.data.quiet import quiet
from medgan.data.recipe import Recipe
from medgan.data.scans import PICTURE_SUFFIXES, Excluded, Place, Scan, content_identity, name_matches
from medgan.data.series import MOST_PIXELS_A_SIDE
from medgan.errors import DataError

COLOUR = "colour where grey is expected"
MOST_TABLE_BYTES = 2**28

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def find_pictures(files: Sequence[tuple[Path, Place]], recipe: Recipe, excluded: list[Excluded]) -> list[Scan]:
    """The pictures of a source, each a scan of its own; headers are read, pixels are not."""
    table = _read_table(files, recipe.table) if recipe.table else {}
    scans = []
    for path, place in files:
        name = path.name.lower()
        if not name.endswith(PICTURE_SUFFIXES) or name in SHEETS or not name_matches(name, recipe.files):
            continue
        try:
            columns, rows = picture_size(path)
        except DataError as error:
            excluded.append(Excluded(level="file", identity=content_identity(path), reason=error.message))
            continue
        label, patient = table.get(path.name, ("", ""))
        scans.append(
            Scan(
                files=(path,),
                dicom=False,
                place=place,
                modality="",
                patient=patient or place.patient,
                session=place.session,
                series="",
                shape=(columns, rows, 1),
                affine=np.eye(4),
                kind="picture",
                # Words of the list that are no classes might be anything, also a name.
                label=label if label and {*label.split("|")} <= {*recipe.classes} else None,
            )
        )
    return scans


def picture_size(path: Path) -> tuple[int, int]:
    """Columns and rows.

    Raises:
        DataError: It is no picture that can be read as one grey image.
    """
    try:
        with quiet(), Image.open(path) as image:
            columns, rows = image.size
            pages = int(getattr(image, "n_frames", 1))
    except Image.DecompressionBombError:
        raise DataError("too many pixels in one picture") from None
    except Exception:
        raise DataError("picture unreadable") from None
    if max(columns, rows) > MOST_PIXELS_A_SIDE:
        raise DataError(f"larger than {MOST_PIXELS_A_SIDE} pixels a side")
    if pages > 1:
        raise DataError("several pages in one picture")
    return columns, rows


def read_picture(path: Path, colour: str = "refuse") -> np.ndarray:
    """A picture as (rows, columns) or, where colour is kept, (rows, columns, 3) float32 from 0 to 255.

    16 bits are divided by 65535 and not cut to 8. Colour channels that are equal in every pixel are grey.

    Args:
        path: The file.
        colour: `refuse`, `grey` (Rec. 601 luminance, Pillow's `L`) or `keep`, for channels that differ.

    Raises:
        DataError: It cannot be read, has colour where grey is expected, or transparent parts.
    """
    with path.open("rb") as file:
        head = file.read(26)
    # Pillow would drop the lower 8 bits of such a PNG without a word.
    if head[:8] == PNG_SIGNATURE and head[24] == 16 and head[25] != 0:
        raise DataError("16 bits in colour or with transparency")
    try:
        with quiet(), Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except Exception:
        raise DataError("picture unreadable") from None
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise DataError("pixels of more than 16 bits")
        return values.astype(np.float32) * np.float32(255 / 65535)
    if image.mode in ("P", "PA", "LA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            raise DataError("transparent pixels")
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"), np.float32)
    return one_grey(np.asarray(image.convert("RGB")), colour)


def one_grey(pixels: np.ndarray, colour: str) -> np.ndarray:
    """A colour picture, (rows, columns, 3) uint8, as `read_picture` gives it."""
    if np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2]):
        # A set that keeps its colours has three channels in every image.
        return (pixels if colour == "keep" else pixels[..., 0]).astype(np.float32)
    if colour == "refuse":
        raise DataError(COLOUR)
    return np.asarray(Image.fromarray(pixels).convert("L") if colour == "grey" else pixels, np.float32)


def _read_table(files: Sequence[tuple[Path, Place]], table: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Labels (`a|b`) and patient by file name; empty where there is no such list.

    Raises:
        DataError: The list lacks a column or cannot be read.
    """
    pattern, *columns = table
    lists = [path for path, place in files if name_matches(place.name, [pattern])]
    if not lists:
        return {}
    # Of several editions, the last by name is the newest.
    newest = max(lists, key=lambda path: path.name)
    try:
        if newest.stat().st_size > MOST_TABLE_BYTES:
            raise DataError("the list of labels is larger than 256 MiB")
        with newest.open(encoding="utf-8-sig", newline="") as file:
            return {row[columns[0]]: (row[columns[1]], (row[columns[2]] or "").lstrip("0")) for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError, TypeError):
        fix = f"the CSV of the data set, with the columns {', '.join(columns)}"
        raise DataError("the list of labels beside the pictures cannot be read", fix=fix) from None
