"""Figures of an ablation: losses with bars of one SD over the repeats, and rows of images."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medgan.plots import BLUE, DOTS_PER_INCH, GREEN, GREY, ORANGE, SIZE_INCHES, encode, style

Array = np.ndarray[Any, Any]

BINS = 20
"""Points of a loss curve: a bar at each tick of thousands would hide the curve."""
LINES = [(BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, "-.", "^"), (GREY, ":", "D"), ("#7A3E9D", (0, (5, 1, 1, 1, 1, 1)), "v")]
LOSSES = (("Loss/G/loss", "Generator loss"), ("Loss/D/loss", "Discriminator loss"))

LEAST_CELL = 128
"""Pixels of a picture in a row at least; smaller images are enlarged by a whole number, so that their pixels stay what they are."""
LABEL_INCHES = 1.7
LABEL_LETTERS = 24


def binned(runs: Sequence[Sequence[Mapping[str, Any]]], name: str, bins: int = BINS) -> tuple[Array, Array, Array]:
    """A statistic of training over repeats.

    Args:
        runs: The rows of stats.jsonl of each repeat.
        name: Of the statistic.
        bins: Parts of the training; the longest repeat's length is divided into so many.

    Returns:
        (kimg at the middle, mean over repeats of their means in the part, SD with n - 1 over repeats), each (parts with values,); the SD is
        nan where only one repeat has values.
    """
    traces = [[(row["kimg"], row[name]["mean"]) for row in rows if name in row] for rows in runs]
    last = max((kimg for trace in traces for kimg, _ in trace), default=0.0)
    found = []
    for part in range(bins):
        low, high = last * part / bins, last * (part + 1) / bins
        means = [np.mean(inside) for trace in traces if (inside := [value for kimg, value in trace if low < kimg <= high])]
        if means:
            found.append(((low + high) / 2, np.mean(means), np.std(means, ddof=1) if len(means) > 1 else np.nan))
    kimg, mean, sd = np.array(found, dtype=np.float64).reshape(-1, 3).T
    return kimg, mean, sd


def losses(experiments: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> bytes | None:
    """Losses of both networks over training, a line per experiment with bars of one SD over its repeats, as a PNG.

    Args:
        experiments: Title -> the rows of stats.jsonl of each of its runs.

    Returns:
        None where no run has a loss.
    """
    curves = {title: [binned(runs, name) for name, _ in LOSSES] for title, runs in experiments.items()}
    curves = {title: pair for title, pair in curves.items() if all(len(kimg) for kimg, _, _ in pair)}
    if not curves:
        return None
    with style() as matplotlib_figure:
        canvas = matplotlib_figure(figsize=(2 * SIZE_INCHES[0], SIZE_INCHES[1] + 0.4), dpi=DOTS_PER_INCH, layout="constrained")
        for place, (_, label) in enumerate(LOSSES):
            axes = canvas.add_subplot(1, 2, place + 1)
            for number, (title, pair) in enumerate(curves.items()):
                kimg, mean, sd = pair[place]
                color, dashes, marker = LINES[number % len(LINES)]
                # A little apart from one another, or the bars of one experiment would cover those of the next.
                shift = (number - (len(curves) - 1) / 2) * 0.15 * (kimg[1] - kimg[0] if len(kimg) > 1 else 0.0)
                axes.errorbar(
                    kimg + shift,
                    mean,
                    yerr=np.nan_to_num(sd) if np.isfinite(sd).any() else None,
                    color=color,
                    linestyle=dashes,
                    marker=marker,
                    markersize=3,
                    capsize=1.5,
                    elinewidth=0.8,
                    linewidth=1.3,
                    label=title,
                )
            axes.set_title(label, loc="left")
            axes.set_xlabel("images shown, thousands (kimg)")
            axes.set_ylabel("loss, mean ± SD over repeats")
            axes.margins(y=0.08)
        handles, titles = canvas.axes[0].get_legend_handles_labels()
        canvas.legend(handles, titles, loc="outside upper center", ncols=min(len(titles), 4))
        return encode(canvas)


def image_rows(rows: Sequence[tuple[str, Array]], *, said: Mapping[str, str]) -> bytes:
    """Rows of images with their titles at the left, pixel by pixel, as a PNG.

    Args:
        rows: Title and images (N, C, H, W) uint8 of each row, all of one size.
        said: What the PNG's text chunks say of it.
    """
    count, size = max(len(images) for _, images in rows), rows[0][1].shape[2]
    scale = -(-LEAST_CELL // size)
    cell, gap = size * scale, 4
    label = round(LABEL_INCHES * DOTS_PER_INCH)
    width, height = label + count * (cell + gap), len(rows) * (cell + gap) + gap
    with style() as matplotlib_figure:
        canvas = matplotlib_figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH)
        for place, (title, images) in enumerate(rows):
            # The origin of a matplotlib figure is its lower left corner.
            bottom = height - (place + 1) * (cell + gap)
            canvas.text(
                (label - 12) / width, (bottom + cell / 2) / height, textwrap.fill(title, LABEL_LETTERS), ha="right", va="center", fontsize=9
            )
            for column, image in enumerate(images):
                pixels = image.repeat(scale, axis=1).repeat(scale, axis=2).transpose(1, 2, 0)
                pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
                canvas.figimage(pixels, xo=label + column * (cell + gap), yo=bottom, origin="upper")
        return encode(canvas, said)
