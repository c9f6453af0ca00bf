"""Small studies of noise pictures, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medgan.readers.design import Design, draw, needed
from medgan.readers.study import Study, write_study


def tokens(seed: int = 0):
    """Ids that are the same at every call."""
    rng = np.random.default_rng(seed)
    return lambda count: rng.bytes(count).hex()


def picture(model: str, number: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng([*model.encode(), number]).integers(0, 256, (1, size, size), dtype=np.uint8)


def study(folder: Path, design: Design, models=("model",), seed: int = 0, pixels=picture, **options) -> Study:
    count, counts = needed(design, list(models))
    rng = np.random.default_rng(seed)
    parts = draw(design, range(count), {model: range(number) for model, number in counts.items()}, rng)
    return write_study(folder, title="A test", design=design, parts=parts, pixels=pixels, token=tokens(seed), **options)
