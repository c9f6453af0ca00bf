"""Contact sheets: many images of one size in one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


def contact_sheet(images: np.ndarray, columns: int = 8) -> Image:
    """Images side by side, row by row, without gaps.

    Args:
        images: (N, C, H, W) uint8, N at least 1, C 1 or 3.
        columns: Images in a row; fewer where N is smaller.

    Returns:
        A grey or RGB picture; places without an image are black.
    """
    from PIL import Image

    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"expected (N, 1 or 3, H, W) uint8, got {images.shape} {images.dtype}")
    n, c, h, w = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    sheet = np.zeros((rows * columns, c, h, w), np.uint8)
    sheet[:n] = images
    picture = sheet.reshape(rows, columns, c, h, w).transpose(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    return Image.fromarray(picture[:, :, 0] if c == 1 else picture)
