"""Recipes, splits, keys, quality, sheets: the small files of the room."""

import hashlib
import hmac

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgan.data import RECIPES
from medgan.data.pseudonyms import Pseudonyms, pseudonyms_from
from medgan.data.quality import CLIPPED, CONSTANT, EMPTY, fault
from medgan.data.recipe import SIZES, WINDOW_PRESETS, Recipe, preset_changes
from medgan.data.sheet import contact_sheet
from medgan.data.splits import held_out_patients
from medgan.errors import ConfigError


@pytest.mark.parametrize("name", RECIPES.names())
def test_every_recipe_survives_json(name):
    recipe = RECIPES.get(name)
    assert recipe.name == name
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.size in (0, *SIZES)


def test_presets_are_those_of_the_specification():
    assert WINDOW_PRESETS["ct-lung"] == (-600, 1500)
    assert preset_changes("ct-brain") == {"intensity": "window", "preset": "ct-brain", "level": 40.0, "width": 80.0}
    assert preset_changes("mr")["percentiles"] == (0.5, 99.5)
    with pytest.raises(ConfigError, match="--window-preset"):
        preset_changes("ct-livre")


def test_no_patient_is_on_both_sides_and_the_draw_is_seeded():
    patients = [f"p{i}" for i in range(25)]
    out, note = held_out_patients(patients, share=0.1, seed=0)
    assert (len(out), note) == (2, "")
    assert out == held_out_patients(patients, share=0.1, seed=0)[0]
    assert any(out != held_out_patients(patients, share=0.1, seed=s)[0] for s in range(1, 5))


def test_few_patients_are_not_split():
    assert held_out_patients(["a"], share=0.1, seed=0) == (set(), "nothing is held out: 1 patient, and a split needs 10")
    assert held_out_patients([str(i) for i in range(9)], share=0.1, seed=0)[0] == set()
    assert len(held_out_patients([str(i) for i in range(10)], share=0.1, seed=0)[0]) == 1
    assert held_out_patients([str(i) for i in range(50)], share=0, seed=0) == (set(), "")


def test_keys_are_hmac_sha256():
    expected = hmac.new(b"s" * 32, b"series\x001.2.3", hashlib.sha256).hexdigest()[:16]
    assert Pseudonyms(b"s" * 32).key("series", "1.2.3") == expected
    assert Pseudonyms(b"s" * 32).key("subject", "1.2.3") != expected
    assert pseudonyms_from("").key("series", "1.2.3") != pseudonyms_from("").key("series", "1.2.3")


def test_a_key_file_must_be_a_secret(tmp_path):
    (tmp_path / "short").write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes"):
        pseudonyms_from(str(tmp_path / "short"))
    with pytest.raises(ConfigError, match="not a readable file") as caught:
        pseudonyms_from(str(tmp_path / "CANARY"))
    assert "CANARY" not in caught.value.line


def test_why_an_image_is_left_out():
    image = np.zeros((20, 20), np.uint8)
    assert fault(image) == EMPTY
    assert fault(image + 9) == CONSTANT
    image[0, :3] = 50
    assert fault(image) == EMPTY, "3 of 400 pixels are below 1 %"
    image[:10] = np.linspace(1, 254, 200).reshape(10, 20)
    assert fault(image) == ""
    # 121 of 200 pixels that are not black: 60.5 %.
    image[:10].reshape(-1)[:121] = 255
    assert fault(image) == CLIPPED
    image[:10].reshape(-1)[:2] = 50
    assert fault(image) == ""


def test_a_data_set_may_keep_all_that_is_not_black():
    image = np.zeros((20, 20), np.uint8)
    image[0, 0] = 255
    assert fault(image) == EMPTY
    assert fault(image, 0.0) == CLIPPED
    image[0, 1] = 9
    assert fault(image, 0.0) == ""
    image[:] = 255
    image[0, 0] = 0
    assert fault(image) == CLIPPED
    assert fault(image, constant_only=True) == ""
    assert fault(image * 0, constant_only=True) == EMPTY


def test_a_sheet_puts_images_row_by_row():
    images = np.arange(1, 6, dtype=np.uint8).reshape(5, 1, 1, 1) * np.ones((5, 1, 2, 3), np.uint8)
    assert np.asarray(contact_sheet(images, columns=3))[::2, ::3].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert contact_sheet(np.zeros((2, 3, 8, 8), np.uint8)).mode == "RGB"


@settings(deadline=None)
@given(
    count=st.integers(1, 200), share=st.floats(0, 0.99), seed=st.integers(0, 2**31), order=st.randoms(use_true_random=False)
)  # fmt: skip
def test_a_split_is_by_patient_and_by_nothing_else(count, share, seed, order):
    patients = [f"p{i}" for i in range(count)]
    out, note = held_out_patients(patients, share=share, seed=seed)
    assert out <= {*patients}
    assert len(out) < count, "someone is left to train on"
    assert out == held_out_patients(patients, share=share, seed=seed)[0]
    if count < 10:
        assert not out
        assert bool(note) == (share > 0)
    elif share > 0:
        assert len(out) == min(max(1, round(share * count)), count - 1)
    # Which places of the list are drawn does not depend on what the patients are called.
    renamed = order.sample(range(10**6), count)
    others, _ = held_out_patients([str(name) for name in renamed], share=share, seed=seed)
    assert [str(name) in others for name in renamed] == [name in out for name in patients]
