"""How our figures look: legible in print and at 400 px, told apart by line style as well as by colour, equal bytes for equal numbers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# Okabe and Ito's palette for colour-blind readers, without its colours too pale for white paper (contrast below 3:1).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#007A5A", "#555555"
SIZE_INCHES = (4.6, 3.2)
DOTS_PER_INCH = 200


@contextmanager
def style() -> Iterator[Any]:
    """Give matplotlib's Figure class under our settings only; a user's matplotlibrc would change the bytes."""
    import matplotlib
    from matplotlib.figure import Figure as MatplotlibFigure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.size": 9.5,
                "axes.titlesize": 10.5,
                "axes.titleweight": "bold",
                "axes.edgecolor": GREY,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "grid.color": "#DDDDDD",
                "grid.linewidth": 0.6,
                "legend.frameon": False,
                "legend.fontsize": 9,
                "lines.linewidth": 1.6,
            }
        )
        yield MatplotlibFigure


def encode(canvas: Any, said: Mapping[str, str] = {}) -> bytes:
    """A matplotlib figure as a PNG, with `said` in its text chunks."""
    buffer = io.BytesIO()
    # Without the Software chunk, which names the matplotlib version, equal pictures are equal files.
    canvas.savefig(buffer, format="png", metadata={"Software": None, **said})
    return buffer.getvalue()
