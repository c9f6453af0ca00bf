"""Synthetic pictures on disk: each says of itself that it is synthetic, by which model and from which seed."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import medgan
from medgan.networks.bundle import DISCLAIMER
from medgan.runs import atomic

# GIF counts time in hundredths of a second.
GIF_FRAME_MS = 40


def marks(model_sha256: str, **facts: object) -> dict[str, str]:
    """What a synthetic picture says of itself: that it is one, software, model, the given facts, disclaimer."""
    return {
        "synthetic": "true",
        "software": f"medgan {medgan.__version__}",
        "model": model_sha256,
        **{name: str(value) for name, value in facts.items() if value != ""},
        "disclaimer": DISCLAIMER,
    }


def picture(image: np.ndarray) -> Image.Image:
    """An image (C, H, W) uint8, C 1 or 3, as a grey or RGB picture."""
    return Image.fromarray(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0))


def png_bytes(image: Image.Image | np.ndarray, said: Mapping[str, str]) -> bytes:
    """A picture, or an image (C, H, W) uint8, as PNG with `said` in its text chunks (PNG specification 11.3.4.3, tEXt)."""
    info = PngInfo()
    for key, value in said.items():
        info.add_text(key, value)
    buffer = io.BytesIO()
    (picture(image) if isinstance(image, np.ndarray) else image).save(buffer, "PNG", pnginfo=info, compress_level=1)
    return buffer.getvalue()


def write_png(path: Path, image: Image.Image | np.ndarray, said: Mapping[str, str]) -> None:
    """`png_bytes` into a file, atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(png_bytes(image, said))


def write_gif(path: Path, frames: Sequence[np.ndarray], said: Mapping[str, str]) -> None:
    """Frames (C, H, W) uint8 as a GIF that repeats for ever, 25 frames a second, with `said` as JSON in its comment.

    A palette of 256 entries holds every grey, so grey frames are kept exactly; colours are reduced to 256.
    """
    first, *others = [picture(frame) for frame in frames]
    comment = json.dumps(said).encode()
    with atomic(path) as temporary:
        first.save(temporary, "GIF", save_all=True, append_images=others, duration=GIF_FRAME_MS, loop=0, comment=comment, optimize=False)
