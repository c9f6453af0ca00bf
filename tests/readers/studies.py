"""Small studies of noise pictures, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medgan.readers.answers import Answer
from medgan.readers.design import Design, draw, needed
from medgan.readers.study import Study, Truth, write_study


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


def answers_of(made: Study, key: dict[str, Truth], counts: dict[str, tuple[int, int]], model: str = "") -> list[Answer]:
    """Answers of readers to all images, or to those of one model, of whom reader `name` takes counts[name] real and synthetic images for real."""
    answers = []
    for reader, (tp, fp) in counts.items():
        left = {"real": tp, "fake": fp}
        for section in made.sections:
            for item in section.items:
                if model and key[item].model != model:
                    continue
                said = left[key[item].truth] > 0
                left[key[item].truth] -= said
                rating = (4 if said else 2) if made.design.likert else None
                answer = "real" if said else "fake"
                answers.append(
                    Answer(study=made.id, reader=reader, section=section.key, item=item, answer=answer, likert=rating, milliseconds=3000)
                )
    return answers
