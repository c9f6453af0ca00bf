"""Authenticity (Alaa et al. 2022) and C_T (Meehan et al. 2020): whole-set signs of copying, each beside what honest images would show."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats
from scipy.cluster.vq import kmeans2

from medgan.metrics.features import Array
from medgan.statistics import larger, wilson

# Fewer of either kind in a cell and its rank test says nothing.
FEWEST_IN_CELL = 20
MOST_CELLS = 10


def authenticity(*, fake: Array, fake_gap: Array, held_out: Array | None, held_out_gap: Array | None) -> dict[str, Any]:
    """Share of synthetic images that are farther from their nearest training image than that one is from the next patient's.

    Alaa et al. 2022 (arXiv 2102.08921, section 4.3); here the next image must be another patient's, or neighbouring slices would make everything
    authentic. Its value on honest images is far from 1 and depends on the data (69 % in one measurement), so held-out images are the null.

    Args:
        fake: Distance of synthetic images to their nearest training image, (n,).
        fake_gap: Distance of that training image to the nearest of another patient, (n,).
        held_out: The same of held-out images, (m,), or None.
        held_out_gap: See fake_gap.

    Returns:
        `share`, its Wilson `interval`, the held-out share as `null`, and the one-sided Fisher `p` of a share that low, images counted as independent.
    """
    authentic = int((fake > fake_gap).sum())
    interval = wilson(authentic, len(fake))
    result: dict[str, Any] = {
        "share": authentic / len(fake),
        "interval": [interval.low, interval.high],
        "null": None,
        "p": None,
    }
    if held_out is not None and held_out_gap is not None:
        honest = int((held_out > held_out_gap).sum())
        table = np.array([[authentic, len(fake) - authentic], [honest, len(held_out) - honest]])
        result |= {"null": honest / len(held_out), "p": float(stats.fisher_exact(table, alternative="less").pvalue)}
    return result


def c_t(*, train: Array, held_out: Array, fake: Array, held_out_distance: Array, fake_distance: Array, seed: int = 0) -> dict[str, Any]:
    """C_T, the data-copying statistic of Meehan et al. 2020 (arXiv 2004.05675, section 4).

    In each cell of feature space a rank test asks whether synthetic images lie nearer to the training images than held-out ones do; the cells' z
    values are averaged with the held-out images' shares. Far below 0 means copying; 0 is expected of an honest generator.

    Args:
        train: Features of training images, (N, D), from which the cells are made.
        held_out: Of held-out images, (m, D).
        fake: Of synthetic images, (n, D).
        held_out_distance: Distance to the nearest training image, (m,).
        fake_distance: The same, (n,).
        seed: Of the cells.

    Returns:
        `value`, its standard deviation under the null (`sd`), `p` of a value that low, and the number of `cells` that were used.
    """
    wanted = max(min(MOST_CELLS, len(held_out) // (4 * FEWEST_IN_CELL), len(fake) // (4 * FEWEST_IN_CELL)), 1)
    rng = np.random.default_rng(seed)
    sample = np.asarray(train[np.sort(rng.permutation(len(train))[:5000])], np.float64)
    centres = kmeans2(sample, wanted, minit="++", rng=rng)[0] if wanted > 1 else sample.mean(0, keepdims=True)
    ours, theirs = _cells(fake, centres), _cells(held_out, centres)
    values, weights = [], []
    for cell in range(len(centres)):
        q, p = fake_distance[ours == cell], held_out_distance[theirs == cell]
        if min(len(q), len(p)) >= FEWEST_IN_CELL:
            values.append(_z(q, p))
            weights.append(len(p))
    if not values:
        return {"value": None, "reason": f"no cell has {FEWEST_IN_CELL} held-out and {FEWEST_IN_CELL} synthetic images"}
    w = np.array(weights) / sum(weights)
    value, sd = float(w @ np.array(values)), float(np.sqrt((w**2).sum()))
    return {"value": value, "sd": sd, "null": 0.0, "p": float(stats.norm.cdf(value / sd)), "cells": len(values)}


def _cells(rows: Array, centres: Array) -> Array:
    squares = (centres**2).sum(1)
    return np.argmax(np.asarray(rows, np.float64) @ centres.T - squares / 2, 1)


def _z(q: Array, p: Array) -> float:
    """The z value of the Mann-Whitney U of q against p; negative when q is smaller, ties corrected by their mean rank."""
    n, m = len(q), len(p)
    return float((larger(q, p) - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))
