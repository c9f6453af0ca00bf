"""What went in, as rows: counts, modality, window, spacing."""

from __future__ import annotations

from collections.abc import Mapping

from medgan.reports.results import DatasetFacts, Results, number
from medgan.reports.verdict import amount, count, word


def data_rows(results: Results) -> list[tuple[str, str]]:
    """What went in, as (name, value); only what the run folder says."""
    dataset = results.dataset
    if dataset is None:
        return []
    recipe = dataset.recipe
    title = recipe.get("title") or recipe.get("name")
    if title and recipe.get("name") and recipe["name"] != title:
        title = f"{title} ({recipe['name']})"
    arguments = results.model.get("arguments")
    size = number(recipe.get("size")) or (number(arguments.get("img_resolution")) if isinstance(arguments, Mapping) else None)
    rows = [
        ("Recipe", title),
        ("Images", amount(dataset.images) if dataset.images else ""),
        ("Patients", amount(dataset.patients) if dataset.patients else ""),
        ("Scans (series)", amount(dataset.series) if dataset.series else ""),
        ("Modality", ", ".join(dataset.modalities)),
        ("Intensities", _intensities(dataset)),
        ("Plane", ", ".join(dataset.planes)),
        ("Size", f"{amount(size)} × {amount(size)} pixels" if size else ""),
        ("Spacing", _spacings(dataset.spacings)),
        ("Held out, by patient", count(dataset.held_out, "image") if dataset.held_out else ""),
    ]
    return [(name, str(value)) for name, value in rows if value]


def _intensities(dataset: DatasetFacts) -> str:
    """How the scans' values became grey; where the volume itself sets the window, its rule instead of hundreds of windows."""
    recipe = dataset.recipe
    percentiles = recipe.get("percentiles")
    if recipe.get("intensity") == "percentile" and isinstance(percentiles, list) and len(percentiles) == 2:
        return f"percentiles {word(percentiles[0])} to {word(percentiles[1])} of each volume"
    if recipe.get("intensity") == "minmax":
        return "whole range of each volume"
    if recipe.get("intensity") == "stored":
        return "as stored"
    return _windows(dataset.windows, " HU" if dataset.modalities == ["CT"] else "")


def _windows(windows: list[str], unit: str) -> str:
    """Level and width, and what they do to the ends of the range."""
    shown = []
    for window in windows[:4]:
        try:
            level, width = (float(part) for part in window.split(" / "))
        except ValueError:
            shown.append(window)
            continue
        low, high = level - width / 2, level + width / 2
        shown.append(f"L {level:g} / W {width:g}: {_signed(low)}{unit} becomes black, {_signed(high)}{unit} white")
    more = len(windows) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _signed(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _spacings(spacings: list[str]) -> str:
    shown = [text.replace("\\", " × ").replace("x", " × ") + " mm" for text in spacings[:3]]
    more = len(spacings) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")
