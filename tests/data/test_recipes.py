"""The contract of a recipe: on its data set in the published layout it needs no other option, and says what it dropped and why."""

import csv
import json

import numpy as np
import pytest

from medgan.data import RECIPES
from medgan.data.dataset import open_dataset
from medgan.data.prepare import PrepareConfig, prepare
from medgan.data.recipe import SIZES, Recipe
from medgan.errors import ConfigError
from tests.data import layouts


def run(tmp_path, recipe, source=None, **settings):
    """Prepare in one process; the summary, the training set and its manifest."""
    out = tmp_path / "out.zip"
    summary = prepare(PrepareConfig(recipe=recipe, workers=1, **settings), source or tmp_path / "in", out)
    with (tmp_path / "out.info" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    return summary, open_dataset(out), rows


@pytest.mark.parametrize("name", RECIPES.names())
def test_a_recipe_needs_no_other_option(tmp_path, name):
    build, images = layouts.LAYOUTS[name]
    build(tmp_path / "in")
    summary, dataset, rows = run(tmp_path, name)
    recipe = RECIPES.get(name)
    assert (summary["kept"], len(rows)) == (images, images)
    assert len(dataset) == images - summary["held_out"]
    assert dataset.resolution == (recipe.size or 28)
    assert dataset.labels is None, "an unconditional network, as in the papers, unless --labels is given"
    assert dataset.identity == summary["identity"]
    pictures = dataset.images(slice(None))
    assert pictures.dtype == np.uint8
    assert pictures.max() > 100
    written = json.loads((tmp_path / "out.info" / "recipe.json").read_text())
    assert Recipe.from_dict(written).name == name


@pytest.mark.parametrize("name", RECIPES.names())
def test_a_recipe_says_where_it_comes_from(name):
    recipe = RECIPES.get(name)
    assert recipe.name == name
    assert recipe.source
    assert recipe.size in (0, *SIZES)
    assert recipe.title[-1] != "."
    assert RECIPES.get(name).paper_images in (0, 10_600, 4_159, 112_120, 1_902, 103_030)
    with pytest.raises(ConfigError, match="--class nonsense"):
        PrepareConfig(recipe=name, only_class="nonsense")
