"""Designs of a visual Turing test: how many images of what, in which sections, and what is asked; and the draw of a study."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from medgan.errors import ConfigError, DataError

KINDS = ("real_fake", "2afc")
REAL, FAKE = "real", "fake"
SIDES = ("a", "b")
LIKERT = {1: "surely synthetic", 2: "rather synthetic", 3: "undecided", 4: "rather real", 5: "surely real"}
LEAST_BLOCK = 10
"""Questions in a block at least: in smaller ones a reader who counts his answers could guess the last."""

CONSENT = (
    "You will be shown medical images, some of patients and some made by a computer, and asked which is which. Taking part is voluntary, and you may "
    "stop at any time. Stored are your reader code, role and years of experience, your answers and the time that each took; no name and no address. "
    "How you did is told at the end at the earliest. The images are for this study only: do not copy them, and do not base any medical decision on them."
)


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a visual Turing test shows and asks.

    Attributes:
        name: Lower-case word.
        kind: `real_fake`: one image, real or synthetic? `2afc`: a real and a synthetic image side by side, which is real?
        likert: Whether a scale from 1, surely synthetic, to 5, surely real, is asked too.
        by_model: A section for each model, the sections in an order of each reader's own; otherwise one section of all models' images.
        real: Real images of a section; of `2afc`, pairs.
        fake: Synthetic images of a section; of `2afc` as many.
        go_back: Whether a reader may return to an image and change the answer.
        consent: What a reader agrees to before the first image.
        alpha: Level of the permutation tests between models.
    """

    name: str
    kind: str = "real_fake"
    likert: bool = False
    by_model: bool = False
    real: int = 50
    fake: int = 50
    go_back: bool = True
    consent: str = CONSENT
    alpha: float = 0.10

    def __post_init__(self) -> None:
        if problems := _problems(self):
            raise ConfigError(f"the design cannot be: {'; '.join(problems)}", fix="docs/how-to/reader-study.md lists the keys")

    @property
    def questions(self) -> int:
        """Items of a section: images, or pairs."""
        return self.real if self.kind == "2afc" else self.real + self.fake

    @property
    def answers(self) -> tuple[str, str]:
        """What may be answered."""
        return SIDES if self.kind == "2afc" else (REAL, FAKE)


def _problems(design: Design) -> list[str]:
    """What is wrong with a design's values, all of it."""
    wrong = []
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", design.name):
        wrong.append("name must be lower-case letters, digits and dashes, 40 at most")
    if design.kind not in KINDS:
        wrong.append(f"kind must be one of {', '.join(KINDS)}")
    wrong += [f"{name} must be 1 or more" for name in (REAL, FAKE) if getattr(design, name) < 1]
    if design.kind == "2afc" and design.real != design.fake:
        wrong.append("real and fake must be equal where pairs are shown (kind 2afc)")
    if design.kind == "2afc" and design.likert:
        wrong.append("likert rates one image: not with pairs (kind 2afc)")
    if not design.consent.strip():
        wrong.append("consent must say what a reader agrees to")
    if not 0 < design.alpha < 1:
        wrong.append("alpha must lie between 0 and 1")
    return wrong


# Both of arXiv 2210.03786: 20 + 20 images of each of four models; 50 + 50 with a Likert scale for clinicians. The level of its tests is 0.10.
DESIGNS = {
    "multi-model": Design(name="multi-model", by_model=True, real=20, fake=20),
    "clinician": Design(name="clinician", likert=True, real=50, fake=50),
}


def find_design(word: str) -> Design:
    """The design called so, or the one in the JSON file at that path.

    Raises:
        ConfigError: There is neither, or the file is wrong: everything that is wrong is named at once.
    """
    if word in DESIGNS:
        return DESIGNS[word]
    path = Path(word)
    if path.suffix != ".json":
        raise ConfigError(f"--design is neither {' nor '.join(DESIGNS)} nor a .json file", fix="--design multi-model")
    return read_design(path)


def read_design(path: Path) -> Design:
    """A design from a JSON object of the fields of `Design`; those left out have their defaults.

    Raises:
        ConfigError: No such file, no JSON object, or wrong keys and values: all are named at once.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError):
        raise ConfigError("--design is no readable JSON file", fix='{"name": "pairs", "kind": "2afc", "real": 30, "fake": 30}') from None
    return design_from(values)


def design_from(values: Any) -> Design:
    """A design from JSON values.

    Raises:
        ConfigError: As `read_design`.
    """
    if not isinstance(values, dict):
        raise ConfigError("a design is a JSON object", fix='{"name": "pairs", "kind": "2afc", "real": 30, "fake": 30}')
    hints = get_type_hints(Design)
    wrong = [f"unknown key {name!r}" for name in values if name not in hints]
    wrong += [f"{name} must be {_word(hints[name])}" for name, value in values.items() if name in hints and not _is_a(hints[name], value)]
    if "name" not in values:
        wrong.append("name is missing")
    # Values of the right type are looked at beside those of a wrong one, in whose place the defaults stand.
    usable = {name: value for name, value in values.items() if name in hints and _is_a(hints[name], value)}
    draft = object.__new__(Design)
    for field in dataclasses.fields(Design):
        object.__setattr__(draft, field.name, usable.get(field.name, "x" if field.name == "name" else field.default))
    if wrong := wrong + _problems(draft):
        raise ConfigError(f"the design file is wrong: {'; '.join(wrong)}", fix=f"keys: {', '.join(hints)}")
    return draft


def _is_a(kind: type, value: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _word(kind: type) -> str:
    return {str: "text", bool: "true or false", int: "a whole number", float: "a number"}[kind]


@dataclass(frozen=True)
class Question:
    """One item of a study with its truth.

    Attributes:
        truth: `real` or `fake`; of a pair the side that is real, `a` or `b`.
        model: Name of the set that the synthetic image is of; of a real image that of its section, empty where sections are not models.
        pictures: Set, empty for the real one, and number in it, of the image or of both sides.
    """

    truth: str
    model: str
    pictures: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Part:
    """A section: its model, empty where models are mixed, and its blocks of questions."""

    model: str
    blocks: list[list[Question]]


def needed(design: Design, models: Sequence[str]) -> tuple[int, dict[str, int]]:
    """How many real images a study shows, and how many of each model; no image is shown twice.

    Where one section mixes models, they have equal shares, the first ones of the rest one more.

    Raises:
        ConfigError: No model, or a model without an image.
    """
    if not models:
        raise ConfigError("there is no synthetic set", fix="--fake NAME=PATH")
    if design.by_model:
        return design.real * len(models), dict.fromkeys(models, design.fake)
    if len(models) > design.fake:
        raise ConfigError(
            f"{design.fake} synthetic images cannot be of {len(models)} models", fix="fewer --fake, or a design with more images"
        )
    share, rest = divmod(design.fake, len(models))
    return design.real, {model: share + (place < rest) for place, model in enumerate(models)}


def draw(design: Design, real: Sequence[int], fakes: Mapping[str, Sequence[int]], rng: np.random.Generator) -> list[Part]:
    """Put images together to sections, in random order.

    Args:
        design: What is shown.
        real: Numbers of real images, each once, in a random order.
        fakes: The same of each model.
        rng: Draws sections, pairs and blocks.

    Returns:
        Sections of blocks with equal shares of either truth: neither fatigue nor practice falls on one of them.

    Raises:
        DataError: There are fewer images than the design shows.
    """
    count, counts = needed(design, list(fakes))
    for name, have, want in [("real", len(real), count), *((model, len(fakes[model]), counts[model]) for model in fakes)]:
        if have < want:
            raise DataError(
                f"the design shows {want} images of the set {name!r}, and there are {have}", fix="more images, or a smaller design"
            )
    left = iter(real)
    parts = []
    for group in [[model] for model in fakes] if design.by_model else [list(fakes)]:
        pool = [("", next(left)) for _ in range(design.real)]
        made = [(model, number) for model in group for number in fakes[model][: counts[model]]]
        model = group[0] if design.by_model else ""
        parts.append(Part(model, _blocks(design, _questions(design, model, pool, _shuffled(made, rng), rng), rng)))
    return _shuffled(parts, rng)


def _questions(
    design: Design, model: str, real: Sequence[tuple[str, int]], fake: Sequence[tuple[str, int]], rng: np.random.Generator
) -> list[Question]:
    """The items of a section."""
    if design.kind != "2afc":
        return [Question(REAL, model, (one,)) for one in real] + [Question(FAKE, one[0], (one,)) for one in fake]
    # As often on either side, so that a reader who always takes the same one is right by chance.
    sides = _shuffled([SIDES[place % 2] for place in range(len(real))], rng)
    return [
        Question(side, theirs[0], (ours, theirs) if side == "a" else (theirs, ours))
        for side, ours, theirs in zip(sides, real, fake, strict=True)
    ]


def _blocks(design: Design, questions: Sequence[Question], rng: np.random.Generator) -> list[list[Question]]:
    """Questions in as many blocks as can have equal shares of either truth and `LEAST_BLOCK` questions each."""
    kinds = [_shuffled([one for one in questions if one.truth == answer], rng) for answer in design.answers]
    shared = math.gcd(len(kinds[0]), len(kinds[1]))
    number = max(n for n in range(1, shared + 1) if shared % n == 0 and (n == 1 or len(questions) >= n * LEAST_BLOCK))
    return [[one for kind in kinds for one in kind[block::number]] for block in range(number)]


def _shuffled(things: Sequence[Any], rng: np.random.Generator) -> list[Any]:
    return [things[i] for i in rng.permutation(len(things))]


def spread(patients: Sequence[str], rng: np.random.Generator) -> list[int]:
    """A random order of images in which patients take turns: the first n are of as many patients as there are.

    Neighbouring slices of one patient are almost the same picture; two of them in a test would tell that both are real.

    Args:
        patients: Patient of each image.
        rng: Draws the order.
    """
    images: dict[str, list[int]] = {}
    for number in rng.permutation(len(patients)).tolist():
        images.setdefault(patients[number], []).append(number)
    return [
        number for turn in range(max(map(len, images.values()), default=0)) for own in images.values() for number in own[turn : turn + 1]
    ]
