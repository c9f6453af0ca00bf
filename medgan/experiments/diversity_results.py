"""The measurements of a diversity experiment as tables, tests and figures, and never more than was planned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from medgan import plots, runs
from medgan.errors import DataError
from medgan.experiments.diversity import DRAWS
from medgan.experiments.sample_size import Point, stability
from medgan.statistics import holm, permutation_test
from medgan.tables import csv_text, latex_table

Row = dict[str, Any]

FIGURES = ("class", "modality", "percent", "images", "metric", "value", "low", "high", "real", "real_low", "real_high", "baseline", "baseline_images",
           "baseline_at_n", "infinity", "infinity_low", "infinity_high")  # fmt: skip
TESTS = (
    "metric",
    "percent",
    "relation",
    "one",
    "other",
    "mean_one",
    "mean_other",
    "difference",
    "n_one",
    "n_other",
    "p",
    "p_holm",
    "significant",
    "exact",
)
STABLE = ("class", "metric", "stable_from", "percent", "width_at_most", "width", "needed", "drift")

TITLES = {
    "ms_ssim": "MS-SSIM of pairs (lower is more varied)",
    "cosine_pixels": "cosine distance of pairs (higher is more varied)",
    "fid": "FID (lower is better)",
    "kid": "KID (lower is better)",
    "precision_inception": "precision, Inception features",
    "recall_inception": "recall, Inception features",
}
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.GREY, "#8A5A00", "#9B3F77")
MARKERS = "osD^vP"
LEGEND_COLUMNS = 3
LABEL_WIDTH, LABEL_HEIGHT = 0.085, 0.035
"""Of a number beside the axis of a figure, as shares of the length of that axis."""


@dataclass(frozen=True)
class Results:
    """What an experiment gave.

    Attributes:
        figures: A row for each class, size and metric.
        tests: A row for each planned test whose values are there.
        stability: A row for each class and metric.
        missing: Classes and sizes that are not measured.
    """

    figures: list[Row]
    tests: list[Row]
    stability: list[Row]
    missing: list[str]


def results(design: Mapping[str, Any], measures: Mapping[str, Mapping[str, Any]]) -> Results:
    """Everything that measurements of a design say.

    Args:
        design: As written before the runs.
        measures: What was measured of each class, by `MODALITY/CLASS`: `sizes` with `percent`, `n`, `metrics` and `values`.

    Raises:
        DataError: Nothing is measured.
    """
    modality = {one["name"]: one["modality"] for one in design["classes"]}
    found = {
        (name, size["percent"]): size
        for name in modality
        for size in sorted(measures.get(name, {}).get("sizes", []), key=lambda size: size["percent"])
    }
    if not found:
        raise DataError("nothing is measured yet", fix="medgan diversity run, then collect")
    missing = [
        f"{name} at {sample['percent']:g} %" for name in modality for sample in design["samples"] if (name, sample["percent"]) not in found
    ]
    figures = [
        figure(name, modality[name], percent, size["n"], metric, size["metrics"][metric])
        for (name, percent), size in found.items()
        for metric in design["settings"]["metrics"]
    ]
    return Results(figures, tests(design, found), stable(figures, design["settings"]), missing)


def figure(name: str, modality: str, percent: float, images: int, metric: str, entry: Mapping[str, Any]) -> Row:
    """One figure with what stands beside it; what it has not is empty."""

    def ends(key: str, of: Mapping[str, Any] = entry) -> tuple[Any, Any]:
        low, high = of.get(key) or ("", "")
        return low, high

    baseline, infinity = entry.get("baseline", {}), entry.get("infinity") or {}
    row = dict.fromkeys(FIGURES, "") | {"class": name, "modality": modality, "percent": percent, "images": images, "metric": metric}
    row["value"], (row["low"], row["high"]) = entry["value"], ends("interval")
    row["real"], (row["real_low"], row["real_high"]) = entry.get("real", ""), ends("real_interval")
    row["baseline"], row["baseline_images"] = baseline.get("value", ""), baseline.get("n", "")
    row["baseline_at_n"] = baseline.get("at_n", baseline.get("value", "") if baseline.get("n") == images else "")
    if infinity.get("value") is not None:
        row["infinity"], (row["infinity_low"], row["infinity_high"]) = infinity["value"], ends("interval", infinity)
    return row


def tests(design: Mapping[str, Any], found: Mapping[tuple[str, float], Mapping[str, Any]]) -> list[Row]:
    """The planned tests, corrected over all planned ones of their metric: those that are not there yet count as not significant."""
    rows = []
    for test in design["tests"]:
        sides = [side.rsplit(" ", 1) for side in (test["one"], test["other"])]
        values = [found.get((name, test["percent"]), {}).get("values", {}).get(test["metric"], {}).get(kind, []) for name, kind in sides]
        row = dict.fromkeys(TESTS, "") | {key: test[key] for key in ("metric", "percent", "relation", "one", "other")}
        if min(map(len, values)) >= 2:
            made = permutation_test(values[0], values[1], draws=DRAWS, seed=design["settings"]["seed"])
            means = [sum(side) / len(side) for side in values]
            row |= {"mean_one": means[0], "mean_other": means[1], "difference": made.statistic, "p": made.p, "exact": made.exact}
            row |= {"n_one": len(values[0]), "n_other": len(values[1])}
        rows.append(row)
    for metric in dict.fromkeys(row["metric"] for row in rows):
        family = [row for row in rows if row["metric"] == metric]
        for row, p in zip(family, holm([1.0 if row["p"] == "" else row["p"] for row in family]), strict=True):
            row |= {"p_holm": p, "significant": p <= design["level"]}
    return [row for row in rows if row["p"] != ""]


def stable(figures: Sequence[Row], settings: Mapping[str, Any]) -> list[Row]:
    """From which size on each metric of each class is stable."""
    rows = []
    for name, metric in dict.fromkeys((row["class"], row["metric"]) for row in figures):
        its = [row for row in figures if (row["class"], row["metric"]) == (name, metric)]
        points = [
            Point(n=row["images"], value=row["value"], interval=None if row["low"] == "" else (row["low"], row["high"])) for row in its
        ]
        found = stability(points, most=settings["stable"])
        percent = next((row["percent"] for row in its if row["images"] == found.n), "")
        rows.append(
            {
                "class": name,
                "metric": metric,
                "stable_from": found.n or "",
                "percent": percent,
                "width_at_most": settings["stable"],
                "width": "" if found.width is None else found.width,
                "needed": found.needed or "",
                "drift": "" if found.drift is None else found.drift,
            }
        )
    return rows


def write(made: Results, design: Mapping[str, Any], folder: Path) -> list[str]:
    """Write tables (CSV and LaTeX), results.json and a figure for each metric; the names of the files."""
    for name, columns, rows in (("figures", FIGURES, made.figures), ("tests", TESTS, made.tests), ("stability", STABLE, made.stability)):
        runs.write_text(folder / f"{name}.csv", csv_text(columns, rows))
    runs.write_text(folder / "figures.tex", figures_table(made, design))
    runs.write_text(folder / "tests.tex", tests_table(made))
    runs.write_text(folder / "stability.tex", stability_table(made))
    runs.write_json(
        folder / "results.json", {"figures": made.figures, "tests": made.tests, "stability": made.stability, "missing": made.missing}
    )
    for metric in design["settings"]["metrics"]:
        runs.write_bytes(folder / f"{metric}.png", drawn(made.figures, metric))
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def shown(value: Any, digits: int = 3) -> str:
    """A figure for a table: three significant digits, empty for none."""
    return "" if value == "" else f"{float(value):#.{digits}g}".rstrip(".") if isinstance(value, float) else str(value)


def figures_table(made: Results, design: Mapping[str, Any]) -> str:
    """Every metric of every class and size: synthetic, and in brackets real against real at the same number of images."""
    metrics = design["settings"]["metrics"]
    by_place: dict[tuple[str, float], dict[str, Row]] = {}
    for row in made.figures:
        by_place.setdefault((row["class"], row["percent"]), {})[row["metric"]] = row
    infinite = [m for m in metrics if any(row["infinity"] != "" for row in made.figures if row["metric"] == m)]
    rows = []
    for (name, percent), of in by_place.items():
        cells = [f"{shown(of[m]['value'])} ({shown(of[m]['baseline_at_n']) or '-'})" for m in metrics]
        rows.append([name, f"{percent:g} %", str(next(iter(of.values()))["images"]), *cells, *(shown(of[m]["infinity"]) for m in infinite)])
    caption = "Synthetic images against as many real ones, and in brackets real images against other real ones (FID above half of a class: from the half, its bias going with 1/N)."
    heads = ["class", "size", "images", *metrics, *(f"{m}, infinitely many" for m in infinite)]
    return latex_table(heads, rows, caption=caption, label="tab:diversity")


def tests_table(made: Results) -> str:
    """The tests."""
    rows = [
        [
            row["metric"],
            f"{row['percent']:g} %",
            row["one"],
            row["other"],
            row["relation"],
            shown(row["difference"]),
            shown(row["p"], 2),
            shown(row["p_holm"], 2),
        ]
        for row in made.tests
    ]
    heads = ["metric", "size", "one", "other", "", "difference", "p", "p (Holm)"]
    caption = "Permutation tests, corrected after Holm over all tests of one metric."
    return latex_table(heads, rows, caption=caption, label="tab:diversity-tests", left=5)


def stability_table(made: Results) -> str:
    """From which size on figures are stable."""
    rows = [
        [
            row["class"],
            row["metric"],
            str(row["stable_from"]) or (f"about {row['needed']}, extrapolated" if row["needed"] else "not known"),
            f"{100 * row['width']:.1f} %" if row["width"] != "" else "no interval",
            f"{100 * row['drift']:.1f} %" if row["drift"] != "" else "",
        ]
        for row in made.stability
    ]
    most = f"{100 * made.stability[0]['width_at_most']:g} %" if made.stability else ""
    caption = f"The smallest sample whose 95 % interval, and that of every larger one, reaches at most {most} of the figure to either side."
    heads = ["class", "metric", "images", "reach at the largest size", "drift from there"]
    return latex_table(heads, rows, caption=caption, label="tab:diversity-stability", left=2)


def places(sizes: Iterable[int]) -> tuple[list[int], bool]:
    """Which numbers of images are written along a logarithmic axis, and whether they lie slanted to be read: a share of that axis is a power of its span."""
    numbers = sorted(set(sizes))
    span = numbers[-1] / numbers[0]
    slanted = any(n < before * span**LABEL_WIDTH for before, n in pairwise(numbers))
    written: list[int] = []
    for n in numbers:
        if not written or n > written[-1] * span**LABEL_HEIGHT:
            written.append(n)
    return written, slanted


def drawn(figures: Sequence[Row], metric: str) -> bytes:
    """One metric against the number of images, a line with intervals for each class, as a PNG: solid synthetic, dashed real, dotted FID-infinity."""
    from matplotlib.lines import Line2D

    rows = [row for row in figures if row["metric"] == metric]
    kinds = {"synthetic": ("value", "-"), "real, equal N": ("baseline_at_n", "--"), "at infinitely many": ("infinity", ":")}
    kinds = {name: (key, dashes) for name, (key, dashes) in kinds.items() if any(row[key] != "" for row in rows)}
    with plots.style() as matplotlib_figure:
        canvas = matplotlib_figure(figsize=(6.4, 4.2), dpi=plots.DOTS_PER_INCH, layout="constrained")
        axes = canvas.add_subplot()
        handles = []
        for place, name in enumerate(dict.fromkeys(row["class"] for row in rows)):
            look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
            its = [row for row in rows if row["class"] == name]
            for key, dashes in kinds.values():
                some = [(row["images"], row[key]) for row in its if row[key] != ""]
                if some:
                    axes.plot(*zip(*some, strict=True), **look, markersize=4 if key == "value" else 2.5, linestyle=dashes, linewidth=1.4)
            for row in [row for row in its if row["low"] != ""]:
                axes.plot([row["images"]] * 2, [row["low"], row["high"]], color=look["color"], linewidth=1, marker="_", markersize=6)
            handles.append(Line2D([], [], **look, markersize=4, label=name))
        # Rows of classes, then one of kinds; a legend is filled column by column.
        handles += [Line2D([], [], linestyle="none", label=" ")] * (-len(handles) % LEGEND_COLUMNS)
        handles += [Line2D([], [], color=plots.GREY, linestyle=dashes, label=name) for name, (_, dashes) in kinds.items()]
        handles += [Line2D([], [], linestyle="none", label=" ")] * (-len(handles) % LEGEND_COLUMNS)
        handles = [handle for column in range(LEGEND_COLUMNS) for handle in handles[column::LEGEND_COLUMNS]]
        axes.set_xscale("log")
        ticks, slanted = places(row["images"] for row in rows)
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks], rotation=45 if slanted else 0)
        axes.minorticks_off()
        axes.set_xlabel("images of either set, with 95 % intervals")
        axes.set_ylabel(TITLES.get(metric, metric))
        axes.margins(y=0.1)
        axes.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=LEGEND_COLUMNS,
            borderpad=0.2,
            handlelength=2.4,
            columnspacing=1.2,
        )
        return plots.encode(canvas)
