"""Figures of a visual Turing test: accuracy with exact intervals, both error rates, FID against the false positive rate, ratings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medgan.plots import BLUE, DOTS_PER_INCH, GREEN, GREY, ORANGE, SIZE_INCHES, encode, style
from medgan.readers.analysis import ALL
from medgan.readers.design import LIKERT

if TYPE_CHECKING:
    from medgan.readers.results import Results

LINE_INCHES = 0.28
# From surely synthetic to surely real, told apart by lightness as well.
RATINGS = ("#8A3B00", "#E09A63", "#CCCCCC", "#7FB2D6", "#00507F")


def figures(result: Results) -> dict[str, bytes]:
    """Every figure that the results have data for: file name -> PNG."""
    found: dict[str, bytes | None] = {"accuracy.png": accuracy(result)}
    if result.study.design.kind != "2afc":
        found["errors.png"] = errors(result)
    if len([model for model, one in result.beside.items() if one.fid is not None]) > 1:
        found["fid-fpr.png"] = fid_fpr(result)
    if any(map(sum, result.ratings.values())):
        found["likert.png"] = likert(result)
    return {name: picture for name, picture in found.items() if picture}


def _axes(matplotlib_figure: Any, *, height: float = SIZE_INCHES[1]) -> tuple[Any, Any]:
    canvas = matplotlib_figure(figsize=(SIZE_INCHES[0], height), dpi=DOTS_PER_INCH, layout="constrained")
    return canvas, canvas.add_subplot()


def accuracy(result: Results) -> bytes:
    """Accuracy of each reader, and the mean over complete ones, with their intervals, beside chance."""
    its = [row for row in result.rows if row.model == ALL]
    mean = next((one for one in result.summaries if one.model == ALL and one.accuracy is not None), None)
    names = [row.reader + ("" if row.complete else " (unfinished)") for row in its] + (["mean"] if mean else [])
    with style() as matplotlib_figure:
        canvas, axes = _axes(matplotlib_figure, height=1.1 + LINE_INCHES * len(names))
        axes.axvline(50, color=GREY, linestyle="--", linewidth=1)
        for place, row in enumerate(its):
            reach = [[100 * (row.accuracy - row.accuracy_low)], [100 * (row.accuracy_high - row.accuracy)]]
            axes.errorbar(100 * row.accuracy, place, xerr=reach, fmt="o", color=BLUE if row.complete else GREY, markersize=4, capsize=2.5)
        if mean and mean.accuracy:
            value = mean.means["accuracy"][0]
            reach = [[100 * (value - mean.accuracy.low)], [100 * (mean.accuracy.high - value)]]
            axes.errorbar(100 * value, len(its), xerr=reach, fmt="D", color=ORANGE, markersize=5, capsize=3)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("accuracy, % (95 % intervals; dashed: chance)")
        axes.set_title("Right answers", loc="left")
        return encode(canvas)


def errors(result: Results) -> bytes | None:
    """False positive against false negative rate of complete readers."""
    points = [
        (row.reader, row.fpr, row.fnr)
        for row in result.rows
        if row.model == ALL and row.complete and row.fpr is not None and row.fnr is not None
    ]
    if not points:
        return None
    with style() as matplotlib_figure:
        canvas, axes = _axes(matplotlib_figure, height=4.2)
        axes.plot([0, 100], [100, 0], color=GREY, linestyle="--", linewidth=1)
        axes.plot([100 * fpr for _, fpr, _ in points], [100 * fnr for _, _, fnr in points], "o", color=BLUE, markersize=5)
        for name, fpr, fnr in points:
            axes.annotate(name, (100 * fpr, 100 * fnr), xytext=(5, 4), textcoords="offset points", fontsize=8)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_aspect("equal")
        axes.set_xlabel("false positive rate, %: synthetic taken for real")
        axes.set_ylabel("false negative rate, %: real taken for synthetic")
        r = result.fpr_fnr["r"]
        axes.set_title("Errors of each reader" + ("" if r is None else f", r = {r:.2f}"), loc="left")
        axes.text(3, 4, "dashed: chance", ha="left", fontsize=8, color=GREY)
        return encode(canvas)


def fid_fpr(result: Results) -> bytes | None:
    """Mean false positive rate over readers, with its SD, against FID of each model."""
    points = [
        (one.model, beside.fid, *one.means["fpr"][:2])
        for one in result.summaries
        if (beside := result.beside.get(one.model)) and beside.fid is not None and "fpr" in one.means
    ]
    if len(points) < 2:
        return None
    with style() as matplotlib_figure:
        canvas, axes = _axes(matplotlib_figure)
        for name, fid, mean, sd in points:
            axes.errorbar(fid, 100 * mean, yerr=None if sd is None else 100 * sd, fmt="s", color=GREEN, markersize=5, capsize=3)
            axes.annotate(name, (fid, 100 * mean), xytext=(6, 4), textcoords="offset points", fontsize=8)
        axes.set_ylim(0, 100)
        axes.margins(x=0.15)
        axes.set_xlabel(f"{next(one.fid_name for one in result.beside.values() if one.fid is not None)} (lower is better)")
        axes.set_ylabel("false positive rate, %, mean ± SD")
        r = result.fid_fpr["r"]
        axes.set_title("Readers deceived" + ("" if r is None else f", r = {r:.2f}"), loc="left")
        return encode(canvas)


def likert(result: Results) -> bytes:
    """Shares of the ratings of real and of synthetic images, over complete readers."""
    with style() as matplotlib_figure:
        canvas, axes = _axes(matplotlib_figure, height=2.3)
        for place, truth in enumerate(("real", "fake")):
            counts, left = result.ratings[truth], 0.0
            for rating, count in enumerate(counts):
                width = 100 * count / max(sum(counts), 1)
                axes.barh(
                    place,
                    width,
                    left=left,
                    color=RATINGS[rating],
                    edgecolor="white",
                    label=f"{rating + 1} {LIKERT[rating + 1]}" if place == 0 else None,
                )
                if width >= 6:
                    axes.text(
                        left + width / 2,
                        place,
                        f"{width:.0f}",
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="white" if rating in (0, 4) else "black",
                    )
                left += width
        axes.set_yticks([0, 1], ["real", "synthetic"])
        axes.set_ylim(1.5, -0.5)
        axes.set_xlim(0, 100)
        axes.grid(visible=False)
        axes.set_xlabel("share of ratings, %")
        canvas.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=7.5)
        return encode(canvas)
