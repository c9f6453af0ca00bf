"""Pictures inside the HTML file: re-encoded, small enough, without metadata."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

# Two sheets and three exhibits at these sizes, base64 and nine curves stay below the 5 MB a mail or XNAT's viewer takes.
SHEET_BYTES = 900_000
EXHIBIT_BYTES = 350_000
SHEET_SIDES = (1600, 1280, 1024, 800, 640, 480)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture for an `<img>`: a PNG, its size in pixels, and whether it was made smaller."""

    png: bytes
    width: int
    height: int
    reduced: bool

    @property
    def uri(self) -> str:
        """As the `src` of an `<img>`."""
        return data_uri(self.png)


def data_uri(png: bytes) -> str:
    """A PNG as the `src` of an `<img>`."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def read_picture(path: Path) -> Image.Image | None:
    """A picture as grey or RGB values, or None when the file is no readable picture."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return opened.convert("L" if opened.mode in ("L", "1") else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def read_sheet(path: Path, *, limit: int = SHEET_BYTES) -> Picture | None:
    """A contact sheet for the report, or None when the file is no readable picture.

    The pixels are encoded anew: text chunks of the file do not come along.

    Args:
        path: A PNG.
        limit: Most bytes the PNG may have; it is made smaller until it fits.
    """
    image = read_picture(path)
    return None if image is None else encoded(image, limit=limit)


def encoded(image: Image.Image, *, limit: int = EXHIBIT_BYTES, said: Mapping[str, str] = {}) -> Picture:
    """A picture for the report with `said` in its text chunks, made smaller until its PNG has at most `limit` bytes."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    for key, value in said.items():
        notes.add_text(key, value)
    longest = max(image.size)
    for side in (longest, *(side for side in SHEET_SIDES if side < longest)):
        if side > SHEET_SIDES[0]:
            continue
        scale = side / longest
        size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        shown = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        shown.save(buffer, format="PNG", pnginfo=notes)
        if buffer.tell() <= limit or side == SHEET_SIDES[-1]:
            break
    return Picture(png=buffer.getvalue(), width=shown.width, height=shown.height, reduced=shown.size != image.size)
