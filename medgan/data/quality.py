"""Why an image is left out of a dataset. Each reason is a fixed phrase, so that reasons can be counted."""

from __future__ import annotations

import numpy as np

EMPTY = "empty: less than 1 % of the image is above black"
CONSTANT = "constant: one grey in the whole image"
CLIPPED = "clipped: more than 60 % of what is not black is white"
DUPLICATE = "duplicate: the same pixels as in another scan"
NO_LABEL = "slice without the label"

LEAST_ABOVE_BLACK = 0.01
MOST_WHITE = 0.6


def fault(image: np.ndarray) -> str:
    """Why an 8-bit image is left out, or "" for one that is fine.

    Black is not counted as clipped: the air around a patient is half of a CT slice. White counts against the pixels that
    are not black, so a scan in a wrong unit, all of it above the window, is found.

    Args:
        image: (H, W) uint8 at the scan's own resolution, before padding.
    """
    if image.min() == image.max():
        return EMPTY if image.max() == 0 else CONSTANT
    above = int(np.count_nonzero(image))
    if above < LEAST_ABOVE_BLACK * image.size:
        return EMPTY
    if np.count_nonzero(image == 255) > MOST_WHITE * above:
        return CLIPPED
    return ""
