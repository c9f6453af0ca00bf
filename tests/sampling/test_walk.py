"""A walk passes its seeds' images, closes, is smooth; what is written says that it is synthetic."""

from __future__ import annotations

import csv
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from medgan.errors import ConfigError
from medgan.sampling.generate import Drawing, sample
from medgan.sampling.walk import sphere_loop, spline_loop, walk, write_walk
from tests.sampling.test_generate import METADATA, network


def test_a_spline_by_hand():
    """Through 1, 0, -1, 0 the periodic spline is a cubic; half-way its value is 11/16 (Hermite form with slopes 0 and -3/2)."""
    loop = spline_loop(np.array([1.0, 0, -1, 0]), 2)
    assert loop == pytest.approx([1, 11 / 16, 0, -11 / 16, -1, -11 / 16, 0, 11 / 16])


def test_a_great_circle_by_hand():
    loop = sphere_loop(np.array([[1.0, 0], [0, 3.0]]), 2)
    assert loop == pytest.approx(np.array([[1, 0], [2**0.5, 2**0.5], [0, 3], [2**0.5, 2**0.5]]))


def test_a_circle_through_one_point_twice_stays_there():
    assert sphere_loop(np.array([[1.0, 2], [1.0, 2]]), 3) == pytest.approx(np.tile([1.0, 2], (6, 1)))


def test_a_spline_loop_has_no_corner_where_it_closes():
    points = np.random.default_rng(0).normal(size=(5, 3))
    loop = spline_loop(points, 200)
    steps = np.diff(np.concatenate([loop, loop[:2]]), axis=0)
    assert np.abs(np.diff(steps, axis=0)).max() < 0.02 * np.abs(steps).max()


@pytest.mark.parametrize("space", ["w", "z"])
def test_a_walk_passes_the_images_of_its_seeds(space):
    G, drawing = network("demo"), Drawing(noise="const", psi=0.8)
    frames = walk(G, [4, 7, 9], drawing, frames=3, space=space)
    assert np.array_equal(frames[::3], sample(G, [4, 7, 9], drawing))
    assert len(frames) == 9
    assert not np.array_equal(frames[0], frames[1])


def test_random_noise_is_held_still():
    G = network("demo")
    frames = walk(G, [4, 7], Drawing(), frames=2)
    assert np.array_equal(frames[0], sample(G, [4])[0])
    assert not np.array_equal(frames[2], sample(G, [7])[0])


@pytest.mark.parametrize("form", ["png", "zip"])
def test_what_a_walk_leaves(tmp_path, form):
    G = network("demo")
    summary = write_walk(G, METADATA, [1, 2], tmp_path, form=form, drawing=Drawing(), frames=4, space="w")
    frames = walk(G, [1, 2], Drawing(), frames=4)
    assert summary["frames"] == 8
    movie = Image.open(tmp_path / "walk.gif")
    assert (movie.n_frames, movie.info["loop"]) == (8, 0)
    assert json.loads(movie.info["comment"])["synthetic"] == "true"
    assert "not for diagnostic use" in json.loads(movie.info["comment"])["disclaimer"]
    for i, frame in enumerate(frames):
        movie.seek(i)
        assert np.array_equal(np.asarray(movie.convert("L")), frame[0]), "grey frames are kept exactly"
    strip = Image.open(tmp_path / "walk_strip.png")
    assert np.array_equal(np.asarray(strip), np.concatenate(list(frames[:, 0]), axis=1))
    assert strip.text["synthetic"] == "true"
    rows = list(csv.DictReader((tmp_path / "walk.csv").open()))
    assert [(row["from_seed"], row["to_seed"], row["t"]) for row in rows[3:6]] == [("1", "2", "0.75"), ("2", "1", "0"), ("2", "1", "0.25")]
    names = zipfile.ZipFile(tmp_path / "walk.zip").namelist() if form == "zip" else [p.name for p in sorted((tmp_path / "walk").iterdir())]
    assert names == [f"frame{i:05d}.png" for i in range(8)]


@pytest.mark.parametrize(
    ("name", "seeds", "frames", "space", "message"),
    [
        ("demo", [1], 4, "w", "two seeds or more"),
        ("demo", range(64), 100, "w", "--seeds 0-19"),
        ("colour with classes", [1, 2], 4, "z", "--class K"),
    ],
)
def test_walks_that_cannot_be(tmp_path, name, seeds, frames, space, message):
    with pytest.raises(ConfigError) as error:
        write_walk(network(name), METADATA, seeds, tmp_path, form="png", drawing=Drawing(), frames=frames, space=space)
    assert message in error.value.line
    assert list(tmp_path.iterdir()) == []
