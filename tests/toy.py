"""A toy training: images of discs as a folder of PNGs, and the smallest settings that run every phase."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medgan.data.dataset import Dataset, open_dataset
from medgan.training.config import TrainConfig

TINY = TrainConfig(
    kimg=0.032,
    batch=4,
    channel_base=256,
    channel_max=8,
    latent=8,
    map_layers=2,
    mirror=True,
    augment="ada",
    ada_kimg=0.1,
    gamma=1.0,
    tick_kimg=0.008,
    snapshot_ticks=2,
    metrics=(),
    metric_images=8,
)


def tiny(**changes: Any) -> TrainConfig:
    return replace(TINY, **changes)


def discs(folder: Path, n: int = 12, size: int = 32) -> Dataset:
    """`n` pictures of a bright disc that wanders and grows, the same for every call."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:size, :size]
    for i in range(n):
        inside = (x - size / 2 - i % 4) ** 2 + (y - size / 2 + i % 3) ** 2 < (4 + i) ** 2
        Image.fromarray((40 + 180 * inside).astype(np.uint8)).save(folder / f"img{i:08d}.png")
    return open_dataset(folder)
