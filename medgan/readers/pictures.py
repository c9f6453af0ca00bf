"""Pictures of a study, in which nothing but what they show tells a real from a synthetic one.

Two traces would. Scans of whole numbers, mapped to 256 greys by a window, leave some greys empty or thin, and clipped air is exactly 0; a generator's
images have neither. A histogram, or a narrow window in the viewer, shows both. And a compressed file is as long as its noise is strong.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import numpy as np

Array = np.ndarray

DITHER = 1.5
"""Standard deviation, in grey levels, of the noise that `evened` adds. A comb of period q in a histogram is damped to exp(-2 pi^2 (1.5/q)^2) of its
depth: the 350 HU of a liver window on 256 greys (q = 2.7) to 0.2 %, every third grey to 0.7 %."""
MOST_DITHER = 16.0
PER_GAP = 0.8
"""Deviations of noise per period of a comb: it is then damped to exp(-2 pi^2 0.8^2), 3 in a million."""
ENDS = 4
"""Darkest and brightest levels are clipped to so many deviations of the noise from the ends, so that adding noise clips nothing again."""


def needed_dither(images: Iterable[Array]) -> float:
    """The noise that hides the gaps of these images' histograms, in grey levels: DITHER, or more where a narrow window left most greys empty.

    The period of an image's comb is taken between its 5th and 95th percentile, where there are enough pixels to fill every grey that can be filled: 80 HU on
    256 greys give 255 / 80 = 3.2, and an image that was resized has no gaps any more, whatever its window.

    Args:
        images: (C, H, W) uint8, real ones: what a generator draws has no gaps.
    """
    periods = []
    for image in images:
        low, high = np.percentile(image, (5, 95), method="nearest")
        greys = np.unique(image[(image >= low) & (image <= high)]).astype(float)
        periods.append((greys[-1] - greys[0]) / (len(greys) - 1) if len(greys) > 1 else 1.0)
    return min(max(DITHER, PER_GAP * float(np.median(periods))), MOST_DITHER)


def evened(image: Array, rng: np.random.Generator, *, dither: float = DITHER) -> Array:
    """An image with clipped ends and a little noise, which hides gaps of its histogram; the same is done to real and synthetic ones.

    Args:
        image: (C, H, W) uint8; colours get one noise, so that grey stays grey.
        rng: Draws the noise.
        dither: Its standard deviation in grey levels; 0 leaves the image as it is.
    """
    if not dither:
        return image
    noise = dither * rng.standard_normal((1, *image.shape[1:]))
    low = ENDS * dither
    return np.clip(np.round(np.clip(image, low, 255 - low) + noise), 0, 255).astype(np.uint8)


def png(image: Array) -> bytes:
    """An image (C, H, W) uint8, C 1 or 3, as a PNG of the three chunks that must be there; images of one size give files of one length.

    The pixels are stored, not compressed (PNG specification 5.3, 10; RFC 1951 3.2.4), each row with filter 0.
    """
    channels, height, width = image.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = image.transpose(1, 2, 0).reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 0)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
