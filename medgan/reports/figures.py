"""Curves of a run as PNGs: legible in print and at 400 px, told apart by line style as well as by colour.

One small figure per question instead of one large one: four in a row shrink to illegible type on a narrow screen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from medgan.plots import BLUE, DOTS_PER_INCH, GREEN, GREY, ORANGE, SIZE_INCHES, encode, style
from medgan.reports.results import FID_NAMES, Results, number
from medgan.reports.verdict import amount, fid_text

# Beyond this ratio of largest to smallest FID the good end of a linear axis is a flat line.
RATIO_FOR_LOG_AXIS = 20

Points = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure: file name without ending, title, what it shows in words (its alt text), how to read it, how to draw it."""

    name: str
    title: str
    alt: str
    caption: str
    draw: Callable[[Any], None]


def figures(results: Results) -> list[Figure]:
    """The figures a run has numbers for, in reading order."""
    found = [
        _fid(results),
        _kid(results),
        _losses(results),
        _scores(results),
        _augmentation(results),
        _diversity(results),
        _held_out(results),
    ]
    return [figure for figure in found if figure]


def png(figure: Figure) -> bytes:
    """A figure as a PNG; equal numbers give equal bytes."""
    with style() as matplotlib_figure:
        canvas = matplotlib_figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
        axes = canvas.add_subplot()
        _panel(axes, figure)
        return encode(canvas)


def sheet(all_figures: list[Figure]) -> bytes:
    """All figures side by side in one PNG, two in a row: the curves.png of the metrics folder."""
    rows = -(-len(all_figures) // 2)
    columns = min(len(all_figures), 2)
    with style() as matplotlib_figure:
        size = (SIZE_INCHES[0] * columns, SIZE_INCHES[1] * rows)
        canvas = matplotlib_figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
        for position, figure in enumerate(all_figures, start=1):
            axes = canvas.add_subplot(rows, columns, position)
            _panel(axes, figure)
        return encode(canvas)


def _panel(axes: Any, figure: Figure) -> None:
    figure.draw(axes)
    entries = len(axes.get_legend_handles_labels()[1])
    axes.set_title(figure.title, loc="left", pad=8 + 14 * -(-entries // 2))


def _span(points: Points) -> str:
    return f"{amount(points[0][1])} at {amount(points[0][0])} kimg, {amount(points[-1][1])} at {amount(points[-1][0])} kimg"


def _line(axes: Any, points: Points, label: str, color: str, dashes: str) -> None:
    # A curve of few points needs marks, one of thousands would drown in them.
    marker = "o" if len(points) < 30 else None
    x, y = zip(*points, strict=True)
    axes.plot(x, y, color=color, linestyle=dashes, marker=marker, markersize=3.5, label=label)


def _finish(axes: Any, label: str, chosen: float | None = None) -> None:
    if chosen is not None:
        axes.axvline(chosen, color=GREY, linestyle=":", linewidth=1.3, label="chosen network")
    axes.set_xlabel("images shown, thousands (kimg)")
    axes.set_ylabel(label)
    axes.margins(y=0.12)
    # Above the axes: inside, a legend of four lines hides curves.
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=2, borderpad=0.2, handlelength=2.2, columnspacing=1.4)


def _lines(
    results: Results,
    name: str,
    title: str,
    label: str,
    caption: str,
    traces: list[tuple[str, str, str, str]],
    level: tuple[float, str] | None = None,
) -> Figure | None:
    """A figure of training statistics; None when none of them was measured."""
    known = [(results.trace(key), text, color, dashes) for key, text, color, dashes in traces]
    known = [trace for trace in known if trace[0]]
    if not known:
        return None

    def draw(axes: Any) -> None:
        for points, text, color, dashes in known:
            _line(axes, points, text, color, dashes)
        if level:
            axes.axhline(level[0], color=GREY, linestyle="-.", linewidth=1, label=level[1])
        _finish(axes, label, results.chosen_kimg)

    parts = [f"{text} {_span(points)}" for points, text, _, _ in known]
    if level:
        parts.append(f"{level[1]} {amount(level[0])}")
    return Figure(name=name, title=title, alt=f"Line chart of {'; '.join(parts)}.", caption=caption, draw=draw)


def _losses(results: Results) -> Figure | None:
    return _lines(
        results,
        "losses",
        "Losses",
        "loss (mean of a tick)",
        "The two networks pull against each other, so neither loss is meant to reach zero. Look for curves that stay bounded.",
        [("Loss/G/loss", "generator loss", BLUE, "-"), ("Loss/D/loss", "discriminator loss", ORANGE, "--")],
    )


def _kid(results: Results) -> Figure | None:
    return _lines(
        results,
        "kid",
        "KID of a small sample",
        "KID (lower is better)",
        "A cheap figure between FIDs, of the same latents each time: it shows the course and chooses nothing. It has no bias, so it may lie slightly below 0.",
        [("KID/value", "KID", BLUE, "-")],
    )


def _scores(results: Results) -> Figure | None:
    return _lines(
        results,
        "scores",
        "What the discriminator says",
        "output (mean of a tick)",
        "Above zero it takes an image for real. Curves that drift apart mean that it recognises the training images.",
        [("Loss/scores/real", "real images", GREEN, "-"), ("Loss/scores/fake", "synthetic images", ORANGE, "--")],
    )


def _augmentation(results: Results) -> Figure | None:
    if not results.trace("Progress/augment") or results.config.get("augment") == "none":
        return None
    target = number(results.config.get("ada_target"))
    return _lines(
        results,
        "ada_p",
        "Augmentation (ADA)",
        "p and sign, no unit",
        "ADA raises its probability p while the mean sign of the discriminator on real images lies above the target.",
        [("Progress/augment", "augmentation p", BLUE, "-"), ("Loss/signs/real", "sign on real images", GREEN, "--")],
        level=(target, "target") if target and results.trace("Loss/signs/real") else None,
    )


def _diversity(results: Results) -> Figure | None:
    return _lines(
        results,
        "diversity",
        "Diversity of samples",
        "relative to real images",
        "How far apart the same 64 samples lie, and each from its nearest other. At 1 they are as varied as the real images; a fall towards 0 is a collapse.",
        [("Diversity/distance", "mean distance", BLUE, "-"), ("Diversity/nearest", "distance to the nearest", ORANGE, "--")],
        level=(1.0, "real images"),
    )


def _held_out(results: Results) -> Figure | None:
    return _lines(
        results,
        "held_out",
        "Taken for real by the discriminator",
        "share of images",
        "Both sets are real. Where the held-out patients fall below the training images, the discriminator knows the latter by heart.",
        [("Overfit/train", "training images", GREEN, "-"), ("Overfit/held_out", "held-out images", ORANGE, "--")],
    )


def _fid(results: Results) -> Figure | None:
    curves = [(name, results.curve(name)) for name in FID_NAMES if results.curve(name)]
    if not curves:
        return None
    name, followed = next(curve for curve in curves if curve[0] == results.fid_name)
    chosen = next((point for point in followed if point[0] == results.chosen_kimg), None)

    def draw(axes: Any) -> None:
        for (curve_name, points), color, dashes in zip(curves, (BLUE, ORANGE), ("-", "--"), strict=False):
            _line(axes, points, curve_name, color, dashes)
        values = [value for _, points in curves for _, value in points]
        if min(values) > 0 and max(values) / min(values) > RATIO_FOR_LOG_AXIS:
            from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
        if chosen:
            axes.plot(
                [chosen[0]],
                [chosen[1]],
                marker="D",
                markersize=8,
                color=ORANGE,
                linestyle="none",
                zorder=3,
                label=f"chosen, {fid_text(chosen[1])}",
            )
        _finish(axes, "FID (lower is better)", None if chosen else results.chosen_kimg)

    alt = f"Line chart of {name} over training: {fid_text(followed[0][1])} at {amount(followed[0][0])} kimg"
    alt += f", {fid_text(followed[-1][1])} at {amount(followed[-1][0])} kimg"
    alt += f"; the chosen network is the one at {amount(chosen[0])} kimg with {fid_text(chosen[1])}." if chosen else "."
    caption = "Distance between synthetic and real images, each time by the same number of them. The mark is the network that was kept."
    return Figure(name="fid", title="FID during training", alt=alt, caption=caption, draw=draw)
