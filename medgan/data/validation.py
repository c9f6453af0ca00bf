"""Whether images of a set can be trained on: headers first, then every pixel. Whatever is unfit is listed, not skipped. Torch-free."""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import numpy as np

from medgan.data.archive import MOST_IMAGE_BYTES, Files
from medgan.data.recipe import SIZES
from medgan.errors import DataError

# 8192 x 8192; the largest size a network takes is 1024.
MOST_PIXELS = 2**26
TRANSPARENT = "transparency (RGBA or LA)"
WORDS = {"P": "palette", "PA": "palette", "RGBA": TRANSPARENT, "LA": TRANSPARENT}


class Kind(NamedTuple):
    """What the images of a set have in common: channels, height and width in pixels, bits of a value (8 or 16)."""

    channels: int
    height: int
    width: int
    bits: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def dtype(self) -> np.dtype:
        """Of the stored values."""
        return np.dtype("u1" if self.bits == 8 else "<u2")

    @property
    def nbytes(self) -> int:
        """Of one image."""
        return self.channels * self.height * self.width * self.bits // 8


def describe(files: Files, name: str) -> tuple[Kind, str]:
    """An image's kind from its header, and what is wrong with it ("" where nothing is)."""
    from PIL import Image

    head = files.head(name)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 26:
        width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        depth, colour = head[24], head[25]
        kind = Kind(1 if colour == 0 else 3, height, width, depth)
        if width * height > MOST_PIXELS:
            return kind, f"{width} x {height} pixels"
        if colour in (3, 4, 6):
            return kind, WORDS["P" if colour == 3 else "RGBA"]
        if depth not in (8, 16) or (depth == 16 and colour != 0):
            return kind, f"{depth} bit" + (" colour" if depth == 16 else "")
        return kind, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(files.read(name, MOST_IMAGE_BYTES))) as image:
                (width, height), mode, frames = image.size, image.mode, getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        return Kind(0, 0, 0, 0), f"more than {MOST_PIXELS} pixels"
    except Exception:
        return Kind(0, 0, 0, 0), "no readable image"
    kind = Kind({"L": 1, "I;16": 1, "I;16B": 1, "RGB": 3}.get(mode, 0), height, width, 16 if mode.startswith("I;16") else 8)
    if width * height > MOST_PIXELS:
        return kind, f"{width} x {height} pixels"
    if frames > 1:
        return kind, f"{frames} pictures in one file"
    return kind, "" if kind.channels else WORDS.get(mode, f"mode {mode}")


def common_kind(files: Files, *, any_size: bool) -> Kind:
    """The kind that all images share, by their headers.

    Raises:
        DataError: They share none: the offending files are listed by kind of fault.
    """
    faults: dict[str, list[str]] = {}
    kinds: dict[Kind, list[str]] = {}
    for name in files.images:
        kind, fault = describe(files, name)
        if fault:
            faults.setdefault(fault, []).append(name)
        else:
            kinds.setdefault(kind, []).append(name)
    problems = [f"{fault}: {files.listed(found)}" for fault, found in faults.items()]
    usual = max(kinds, key=lambda kind: len(kinds[kind]), default=None)
    for kind, found in kinds.items():
        if usual and kind.shape != usual.shape:
            words = f"{kind.width} x {kind.height} with {kind.channels} channel{'s' if kind.channels > 1 else ''}"
            problems.append(f"{words}, unlike the others: {files.listed(found)}")
        elif usual and kind != usual:
            problems.append(f"{kind.bits} bit, unlike the others: {files.listed(found)}")
    if usual and not any_size and (misfit := unfit(usual)):
        problems.append(f"{misfit}: {files.listed(kinds[usual])}")
    if (problems or usual is None) and any_size:
        raise DataError(f"the images cannot be compared: {'; '.join(problems)}", fix="all images grey or RGB, of one size and depth")
    if problems or usual is None:
        raise DataError(
            f"the dataset cannot be trained on: {'; '.join(problems)}",
            fix=f"all images grey or RGB, square, one of {', '.join(map(str, SIZES))} px; or medgan prepare on the scans",
        )
    return usual


def unfit(kind: Kind) -> str:
    """Why no network takes images of a kind; "" where one does."""
    if kind.height != kind.width:
        return f"not square ({kind.width} x {kind.height})"
    return "" if kind.height in SIZES else f"{kind.height} px, which no network family takes"


def decode(files: Files, name: str, kind: Kind) -> tuple[np.ndarray | None, str]:
    """An image (C, H, W) as stored, and what is wrong with it ("" where nothing is)."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(files.read(name, MOST_IMAGE_BYTES))) as image:
                if image.width * image.height > MOST_PIXELS:
                    return None, "is not what its header says"
                pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, DataError):
        return None, "is broken"
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if pixels.shape != kind.shape or pixels.dtype.kind != "u" or pixels.dtype.itemsize != kind.dtype.itemsize:
        return None, "is not what its header says"
    return np.ascontiguousarray(pixels, kind.dtype), ""
