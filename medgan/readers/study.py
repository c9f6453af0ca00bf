"""A study on disk: study.json and images/ for the readers, key.json for the analysis alone.

A reader may see everything but key.json. Ids come from the system's source of randomness, never from the seed, which whoever knows the program could
try; files have equal lengths, times and modes and are written in the order of their ids. Who serves them must not compress them: a compressed
answer is as long as the image is noisy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medgan import runs
from medgan.errors import ConfigError, DataError, InputError, MedganError
from medgan.readers.design import SIDES, Design, Part, design_from
from medgan.readers.pictures import DITHER, evened, png

STUDY, KEY, IMAGES = "study.json", "key.json", "images"
DATABASE = "answers.sqlite"
SCHEMA = 1
FILE_TIME = 315_532_800
"""Modification time of every picture: 1980, the earliest that a zip can say."""


@dataclass(frozen=True)
class Section:
    """Items that are judged together.

    Attributes:
        key: Opaque.
        title: For readers; says nothing of the model.
        items: Ids of images, or of pairs, block after block.
        blocks: So many equal parts of `items` hold real and synthetic images in the shares of the whole.
    """

    key: str
    title: str
    items: tuple[str, ...]
    blocks: int = 1


@dataclass(frozen=True)
class Study:
    """What readers are shown; nothing here tells real from synthetic.

    Attributes:
        folder: Where it lies.
        id: Opaque; answers name it.
        title: For readers.
        design: What is asked.
        width: Of every picture, in pixels.
        height: The same.
        channels: 1, grey, or 3.
        sections: In no order of meaning.
    """

    folder: Path
    id: str
    title: str
    design: Design
    width: int
    height: int
    channels: int
    sections: tuple[Section, ...]

    @property
    def total(self) -> int:
        """How many items a reader judges."""
        return sum(len(section.items) for section in self.sections)

    def images(self, item: str) -> tuple[str, ...]:
        """The file names of an item in images/: one, or those of both sides."""
        return tuple(f"{item}-{side}.png" for side in SIDES) if self.design.kind == "2afc" else (f"{item}.png",)

    def order(self, reader: str) -> list[tuple[str, str]]:
        """Section key and item of everything that a reader judges, in the order of that reader: the same on every machine and at every time.

        Sections, their blocks and the items of a block stand in the order of SHA-256 over study, reader and name.
        """

        def place(*words: object) -> bytes:
            return hashlib.sha256("/".join(map(str, (self.id, reader, *words))).encode()).digest()

        result = []
        for section in sorted(self.sections, key=lambda one: place("section", one.key)):
            size = len(section.items) // section.blocks
            for block in sorted(range(section.blocks), key=lambda number: place("block", section.key, number)):
                items = section.items[block * size : (block + 1) * size]
                result += [(section.key, item) for item in sorted(items, key=lambda item: place("item", item))]
        return result


@dataclass(frozen=True)
class Truth:
    """What an item is.

    Attributes:
        truth: `real` or `fake`; of a pair the side that is real, `a` or `b`.
        model: Name of the set that the synthetic image is of, or of the section's; empty for a real image among those of several models.
        section: Key of its section.
        sources: SHA-256 of the pixels of each source image, as it lay in its set.
    """

    truth: str
    model: str
    section: str
    sources: tuple[str, ...]


def write_study(
    out: Path,
    *,
    title: str,
    design: Design,
    parts: Sequence[Part],
    pixels: Callable[[str, int], np.ndarray],
    dither: float = DITHER,
    notes: dict[str, Any] | None = None,
    token: Callable[[int], str] = secrets.token_hex,
) -> Study:
    """Write the folder of a study, whole or not at all.

    Args:
        out: The folder; must not exist, or be empty.
        title: For readers.
        design: What is shown.
        parts: Its sections, as `design.draw` made them.
        pixels: Set, empty for the real one, and number -> (C, H, W) uint8.
        dither: Standard deviation, in grey levels, of the noise that hides gaps of histograms; drawn from `token`, so that no seed takes it off again.
        notes: What the key says besides, such as the seed and checksums of the sets.
        token: Number of bytes -> unguessable word of twice as many hexadecimal digits.

    Raises:
        ConfigError: `out` holds something.
        DataError: Images differ in size or channels.
    """
    check_new(out)
    sections, truths, sizes = [], {}, set()
    pictures: dict[str, tuple[str, int]] = {}
    for place, part in enumerate(parts):
        key, items = token(4), []
        for block in part.blocks:
            named = {token(8): question for question in block}
            for item, question in named.items():
                for side, source in zip(SIDES if len(question.pictures) > 1 else ("",), question.pictures, strict=True):
                    pictures[f"{item}-{side}.png" if side else f"{item}.png"] = source
                truths[item] = Truth(question.truth, question.model, key, ())
            items += sorted(named)
        sections.append(Section(key, f"Part {place + 1}", tuple(items), len(part.blocks)))
    rng = np.random.default_rng(int(token(16), 16))
    with whole(out) as folder:
        (folder / IMAGES).mkdir()
        checksums: dict[str, list[str]] = {}
        for name in sorted(pictures):
            image = pixels(*pictures[name])
            sizes.add(image.shape)
            checksums.setdefault(name[:16], []).append(hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest())
            (folder / IMAGES / name).write_bytes(png(evened(image, rng, dither=dither)))
            os.utime(folder / IMAGES / name, (FILE_TIME, FILE_TIME))
        if len(sizes) != 1:
            raise DataError(
                "images of the study differ in size or channels", fix="prepare and generate all with the same size and channels"
            )
        channels, height, width = sizes.pop()
        study = Study(out, token(8), title, design, width, height, channels, tuple(sorted(sections, key=lambda one: one.key)))
        runs.write_json(folder / STUDY, _as_json(study))
        truth = {
            "schema": SCHEMA,
            "study": study.id,
            "note": "The truth of the study: never served, not for readers.",
            **(notes or {}),
            "sections": {section.key: part.model for section, part in zip(sections, parts, strict=True)},
            "items": {
                item: dataclasses.asdict(dataclasses.replace(truths[item], sources=tuple(checksums[item]))) for item in sorted(truths)
            },
        }
        runs.write_json(folder / KEY, truth)
        (folder / KEY).chmod(0o600)
    return study


def check_new(out: Path) -> None:
    """Prove that no study is written over.

    Raises:
        ConfigError: There is something at `out`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("--out holds something already, and a study is written once: answers belong to it", fix="name a new folder")


@contextlib.contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends well, and vanishes when it does not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    made = out.with_name(f".{out.name}.{secrets.token_hex(4)}{runs.PART}")
    made.mkdir()
    try:
        yield made
        made.replace(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _as_json(study: Study) -> dict[str, Any]:
    values = dataclasses.asdict(study)
    del values["folder"]
    return {"schema": SCHEMA, **values}


def read_study(folder: Path) -> Study:
    """The study in a folder.

    Raises:
        InputError: There is none.
        DataError: It is damaged, or of another version.
    """
    values = _read(folder / STUDY)
    try:
        study = Study(
            folder=folder,
            design=design_from(values["design"]),
            sections=tuple(
                Section(str(one["key"]), str(one["title"]), tuple(map(str, one["items"])), int(one["blocks"])) for one in values["sections"]
            ),
            id=str(values["id"]),
            title=str(values["title"]),
            width=int(values["width"]),
            height=int(values["height"]),
            channels=int(values["channels"]),
        )
    except (KeyError, TypeError, ValueError, MedganError):
        raise DataError(f"{STUDY} is damaged", fix="copy the study's folder again") from None
    items = [item for section in study.sections for item in section.items]
    # The names of files come from here: nothing else than an id may become one.
    if not items or len(set(items)) < len(items) or not all(re.fullmatch(r"[0-9a-f]{16}", item) for item in items):
        raise DataError(f"{STUDY} is damaged: its items are no list of ids", fix="copy the study's folder again")
    if missing := sum(not (folder / IMAGES / name).is_file() for item in items for name in study.images(item)):
        raise DataError(f"{missing} pictures of the study are missing", fix="copy the study's folder again")
    return study


def read_key(folder: Path) -> dict[str, Truth]:
    """What each item of the study in a folder is.

    Raises:
        InputError: There is no key.
        DataError: It is damaged, or of another study.
    """
    study, values = read_study(folder), _read(folder / KEY)
    try:
        truths = {str(item): Truth(**{**one, "sources": tuple(one["sources"])}) for item, one in values["items"].items()}
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{KEY} is damaged", fix="copy the study's folder again") from None
    placed = {item: section.key for section in study.sections for item in section.items}
    if values.get("study") != study.id or {item: one.section for item, one in truths.items()} != placed:
        raise DataError(f"{KEY} is that of another study", fix="keep study.json and key.json together, as they were made")
    return truths


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a study."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no {path.name} in the study's folder", fix="give the --out folder of medgan readers make") from None
    except PermissionError:
        raise InputError(f"{path.name} may not be read by this user", fix="the user who made the study may") from None
    except (OSError, ValueError, RecursionError):
        raise DataError(f"{path.name} is no JSON file", fix="copy the study's folder again") from None
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise DataError(f"{path.name} is of another version of medgan", fix="use the version that made the study")
    return values
