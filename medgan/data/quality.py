"""Why an image is left out of a dataset. Each reason is a fixed phrase, so that reasons can be counted."""

from __future__ import annotations

import numpy as np

EMPTY = "empty: less than 1 % of the image is above black"
CONSTANT = "constant: one grey in the whole image"
CLIPPED = "clipped: more than 60 % of what is not black is white"
DUPLICATE = "duplicate: the same pixels as in another scan"
NO_LABEL = "slice without the label"
OTHER_CLASS = "of another class"
LOST_BY_PAPER = "last slice of the volume, lost as in the paper (--paper-compatible)"

LEAST_ABOVE_BLACK = 0.01
MOST_WHITE = 0.6


def fault(image: np.ndarray, least_above_black: float = LEAST_ABOVE_BLACK, *, constant_only: bool = False) -> str:
    """Why an 8-bit image is left out, or "" for one that is fine.

    Black is not counted as clipped: the air around a patient is half of a CT slice. White counts against the pixels that
    are not black, so a scan in a wrong unit, all of it above the window, is found.

    Args:
        image: (H, W) or (H, W, 3) uint8 at the scan's own resolution, before padding.
        least_above_black: Share of pixels above black below which an image is empty; 0 finds only those that are all black.
        constant_only: Leave out nothing but images of a single grey.
    """
    if image.min() == image.max():
        return EMPTY if image.max() == 0 else CONSTANT
    above = int(np.count_nonzero(image))
    if constant_only:
        return ""
    if above < least_above_black * image.size:
        return EMPTY
    if np.count_nonzero(image == 255) > MOST_WHITE * above:
        return CLIPPED
    return ""
