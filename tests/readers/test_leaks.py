"""Whoever sees everything of a study but the pictures' content must not know more than chance."""

import os
import struct
import zlib

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medgan.readers.design import Design
from medgan.readers.study import read_key
from tests.readers.leaks import accuracy, chance, features
from tests.readers.studies import study

pytest.importorskip("sklearn", reason="scikit-learn is in the dev extra")

DESIGN = Design(name="leaks", real=150, fake=150)
SIZE = 128
LEVEL, WIDTH = 50, 150


def hounsfield(seed: int) -> np.ndarray:
    """A slice of a body with organs and noise, in HU."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    body = (x / rng.uniform(0.4, 0.48)) ** 2 + (y / rng.uniform(0.35, 0.45)) ** 2 < 1
    organs = 40 * gaussian_filter(rng.standard_normal((SIZE, SIZE)), 8) * 8
    return np.where(body, 50 + organs + rng.normal(0, 12, (SIZE, SIZE)), -1000)


def grey(hu: np.ndarray) -> np.ndarray:
    return 255 * np.clip((hu - LEVEL) / WIDTH + 0.5, 0, 1)


def scan_or_generated(model: str, number: int) -> np.ndarray:
    """The traces that real and synthetic images have: whole HU and clipped air of 0 there; any grey, and air of about 0, here."""
    hu = hounsfield(2 * number + bool(model))
    if not model:
        return np.round(grey(np.round(hu))).astype(np.uint8)[None]
    air = np.abs(np.random.default_rng(number).normal(0, 1.2, hu.shape))
    return np.clip(np.round(np.where(hu == -1000, air, grey(hu))), 0, 255).astype(np.uint8)[None]


def known(folder, made):
    items, table = features(folder, made)
    key = read_key(folder)
    return accuracy(table, np.array([key[item].truth == "real" for item in items]))


LOW, HIGH = chance(300)


def test_a_classifier_of_names_sizes_times_chunks_order_and_histograms_is_at_chance(tmp_path):
    made = study(tmp_path / "s", DESIGN, pixels=scan_or_generated)
    assert LOW <= known(tmp_path / "s", made) <= HIGH


def test_the_same_classifier_knows_the_traces_that_were_not_removed(tmp_path):
    made = study(tmp_path / "s", DESIGN, pixels=scan_or_generated, dither=0)
    assert known(tmp_path / "s", made) > 0.99


def _touched(path, real):
    os.utime(path, (1e9 + real, 1e9 + real))


def _chunk(path, real):
    if not real:
        data = path.read_bytes()
        said = b"tEXtsynthetic\x00true"
        path.write_bytes(data[:33] + struct.pack(">I", len(said) - 4) + said + struct.pack(">I", zlib.crc32(said)) + data[33:])


def _compressed(path, real):
    from PIL import Image

    with Image.open(path) as picture:
        picture.save(path, compress_level=6 if real else 1)


@pytest.mark.parametrize("leak", [_touched, _chunk, _compressed])
def test_planted_leaks_are_found(tmp_path, leak):
    made = study(
        tmp_path / "s", Design(name="leaks", real=40, fake=40), pixels=lambda model, number: np.full((1, 16, 16), number, np.uint8)
    )
    key = read_key(tmp_path / "s")
    for item, truth in key.items():
        leak(tmp_path / "s" / "images" / f"{item}.png", truth.truth == "real")
    items, table = features(tmp_path / "s", made, pixels=False)
    assert accuracy(table, np.array([key[item].truth == "real" for item in items])) > chance(80)[1]


def test_all_files_are_of_one_length_time_and_mode(tmp_path):
    study(
        tmp_path / "s",
        DESIGN,
        pixels=lambda model, number: np.random.default_rng(number).integers(0, 2 + 200 * bool(model), (1, 8, 8), dtype=np.uint8),
    )
    facts = {(path.stat().st_size, path.stat().st_mtime, path.stat().st_mode) for path in (tmp_path / "s" / "images").iterdir()}
    assert len(facts) == 1


def test_ids_are_never_drawn_from_the_seed(tmp_path):
    from medgan.readers.design import draw
    from medgan.readers.study import write_study

    def made(name):
        parts = draw(Design(name="x", real=4, fake=4), range(4), {"m": range(4)}, np.random.default_rng(0))
        return write_study(
            tmp_path / name,
            title="x",
            design=Design(name="x", real=4, fake=4),
            parts=parts,
            pixels=lambda m, n: np.zeros((1, 4, 4), np.uint8),
        )

    one, other = made("a"), made("b")
    assert not set(one.sections[0].items) & set(other.sections[0].items)
    assert one.id != other.id
