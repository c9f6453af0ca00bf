"""Membership inference: does a score tell images that were trained on from images that were not?"""

from __future__ import annotations

from typing import Any

import numpy as np

from medgan.metrics.features import Array
from medgan.statistics import larger, wilson

RATES = (0.01, 0.001)
RESAMPLES = 500


def auc(train: Array, held_out: Array) -> float:
    """Probability that a training image scores higher than a held-out one, ties counting half (Mann-Whitney U / (n m))."""
    return larger(train, held_out) / (len(train) * len(held_out))


def membership(
    *, train: Array, held_out: Array, train_patients: Array, held_out_patients: Array, seed: int = 0, level: float = 0.95
) -> dict[str, Any]:
    """How well a score of single images tells training patients from held-out ones.

    The attacker calls an image a member when its score is above a threshold; a false positive is a held-out image called so. AUC is an average over
    all thresholds and misses few memorised images, which the rate of true positives at a low false positive rate shows (Carlini et al. 2022, arXiv 2112.03570).

    Args:
        train: Scores of training images, (N,): higher looks more like a member.
        held_out: Scores of images of patients that were not trained on, (M,).
        train_patients: Patient of each training image, (N,).
        held_out_patients: Patient of each held-out image, (M,).
        seed: Of the bootstrap.
        level: Of the intervals.

    Returns:
        `auc` with its interval from resampled patients (null 0.5), and per false positive rate `tpr` with a Wilson interval (null: the rate
        itself), or why it cannot be had.
    """
    train, held_out = np.asarray(train, np.float64), np.asarray(held_out, np.float64)
    rng = np.random.default_rng(seed)
    drawn = [auc(train[_resampled(train_patients, rng)], held_out[_resampled(held_out_patients, rng)]) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    points: dict[str, Any] = {}
    for rate in RATES:
        name = f"fpr {rate:g}"
        allowed = int(rate * len(held_out))
        if not allowed:
            points[name] = {"tpr": None, "reason": f"needs {round(1 / rate)} held-out images, there are {len(held_out)}"}
            continue
        threshold = np.sort(held_out)[-allowed - 1]
        hits = int((train > threshold).sum())
        interval = wilson(hits, len(train), level=level)
        points[name] = {"tpr": hits / len(train), "interval": [interval.low, interval.high], "null": rate}
    return {
        "auc": auc(train, held_out),
        "interval": [float(low), float(high)],
        "null": 0.5,
        **points,
        "n_train": len(train),
        "n_held_out": len(held_out),
        "train_patients": len(np.unique(train_patients)),
        "held_out_patients": len(np.unique(held_out_patients)),
    }


def _resampled(patients: Array, rng: np.random.Generator) -> Array:
    """Numbers of the images of as many patients as there are, drawn with replacement."""
    order = np.argsort(patients, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(patients[order])) + 1)
    return np.concatenate([parts[i] for i in rng.integers(len(parts), size=len(parts))])
