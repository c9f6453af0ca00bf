"""Slices of made-up patients: what differs between patients, what between a patient's neighbouring slices, and noise."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter


def patient(seed: int, slices: int = 4, size: int = 64, *, noise: float = 4.0) -> np.ndarray:
    """Slices (slices, 1, size, size) uint8 of one patient: a body, organs and texture of its own that change slowly from slice to slice."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    body = (x / rng.uniform(0.38, 0.47)) ** 2 + (y / rng.uniform(0.3, 0.42)) ** 2
    organs = [(*rng.uniform(-0.22, 0.22, 2), *rng.uniform(0.05, 0.16, 2), rng.uniform(-70, 90), *rng.normal(0, 0.01, 2)) for _ in range(7)]
    texture = gaussian_filter(rng.normal(size=(slices + 8, size, size)), (3, 2.5, 2.5), mode="wrap")
    texture *= 18 / texture.std()
    images = []
    for z in range(slices):
        image = 110.0 + texture[z]
        for cx, cy, rx, ry, level, sx, sy in organs:
            image = image + level * np.exp(-((((x - cx - sx * z) / rx) ** 2 + ((y - cy - sy * z) / ry) ** 2) ** 2))
        image = np.where(body < 1, image, 10) + rng.normal(0, noise, (size, size))
        images.append(image)
    return np.clip(np.round(images), 0, 255).astype(np.uint8)[:, None]


def patients(first: int, count: int, slices: int = 4, size: int = 64, *, noise: float = 4.0) -> tuple[np.ndarray, list[str]]:
    """Images (count * slices, 1, size, size) of patients number first ... first + count - 1, and the key of each image's patient."""
    images = np.concatenate([patient(first + i, slices, size, noise=noise) for i in range(count)])
    return images, [f"patient-{first + i}" for i in range(count) for _ in range(slices)]
