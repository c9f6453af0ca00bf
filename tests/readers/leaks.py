"""A classifier that sees everything of a study's files but what the pictures show."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import binom

from medgan.readers.study import Study

FOLDS = 5
CHANCE = 0.999
FREQUENCIES = np.arange(0.1, 0.51, 0.05)


def chunks(data: bytes) -> list[tuple[bytes, int]]:
    """Kinds and lengths of a PNG's chunks (PNG specification 5.3)."""
    found, place = [], 8
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        found.append((kind, length))
        place += 12 + length
    return found


def histogram_features(pixels: np.ndarray) -> list[float]:
    """Gaps, combs and clipped ends of a histogram; nothing that tells how much of which tissue there is."""
    counts = np.bincount(pixels.ravel(), minlength=256).astype(float)
    used = np.flatnonzero(counts)
    low, high = used[0], used[-1]
    inside = counts[low + 1 : high]
    empty = float((inside == 0).mean()) if len(inside) else 0.0
    # Neighbouring levels against one another, and the spectrum of that, away from both ends.
    middle = np.log1p(counts[24:232])
    rough = middle[1:-1] - (middle[2:] + middle[:-2]) / 2
    wave = np.exp(-2j * np.pi * FREQUENCIES[:, None] * np.arange(len(rough)))
    return [
        empty,
        float(low),
        float(high),
        float(counts[0] > 0),
        float(counts[255] > 0),
        counts[low] / counts.sum(),
        counts[high] / counts.sum(),
        float(rough.std()),
        *np.abs(wave @ (rough - rough.mean())).tolist(),
    ]


def features(folder: Path, study: Study, *, pixels: bool = True) -> tuple[list[str], np.ndarray]:
    """Items, and a row for each of what can be known of its files: name, place, size, time, mode, PNG structure and, with `pixels`, histogram."""
    text = (folder / "study.json").read_text()
    listed = [item for section in study.sections for item in section.items]
    on_disk = {entry.name: (place, entry.inode()) for place, entry in enumerate(os.scandir(folder / "images"))}
    orders = [dict(zip((item for _, item in study.order(reader)), range(len(listed)), strict=True)) for reader in ("R1", "R2")]
    rows = []
    for place, item in enumerate(listed):
        [name] = study.images(item)
        path = folder / "images" / name
        data, status = path.read_bytes(), path.stat()
        parts = chunks(data)
        with Image.open(path) as picture:
            seen = np.asarray(picture)
            row = [
                *(int(item[i : i + 4], 16) for i in range(0, 16, 4)),
                place,
                text.index(item),
                *on_disk[name],
                *(order[item] for order in orders),
            ]
            row += [status.st_size, status.st_mtime, status.st_mode, *picture.size, len(picture.mode), len(picture.info), len(parts)]
            row += [sum(kind[0] * 256 + kind[1] for kind, _ in parts), max(length for _, length in parts), *data[16:33]]
            rows.append(row + (histogram_features(seen) if pixels else []))
    return listed, np.array(rows, dtype=np.float64)


def accuracy(table: np.ndarray, truth: np.ndarray) -> float:
    """Cross-validated accuracy of a random forest and of a logistic regression, whichever is farther from chance."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    models = (RandomForestClassifier(60, random_state=0), make_pipeline(StandardScaler(), LogisticRegression(C=0.1)))
    return max((float(cross_val_score(model, table, truth, cv=folds).mean()) for model in models), key=lambda value: abs(value - 0.5))


def chance(count: int, looks: int = 2) -> tuple[float, float]:
    """Between what the accuracy of so many guesses lies with the probability `CHANCE`, for all `looks` together (Bonferroni)."""
    tail = (1 - CHANCE) / 2 / looks
    return binom.ppf(tail, count, 0.5) / count, binom.ppf(1 - tail, count, 0.5) / count


def facts(folder: Path) -> dict:
    """study.json as it lies there."""
    return json.loads((folder / "study.json").read_text())
