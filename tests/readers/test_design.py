import json
from collections import Counter

import numpy as np
import pytest

from medgan.errors import ConfigError, DataError
from medgan.readers.design import DESIGNS, Design, draw, find_design, needed, read_design, spread


def drawn(design, models=("none", "ada"), seed=0, real=200, fake=200):
    rng = np.random.default_rng(seed)
    return draw(design, list(range(real)), {model: list(range(fake)) for model in models}, rng)


def questions(part):
    return [question for block in part.blocks for question in block]


def test_the_papers_designs():
    many, few = DESIGNS["multi-model"], DESIGNS["clinician"]
    assert (many.real, many.fake, many.by_model, many.likert, many.questions) == (20, 20, True, False, 40)
    assert (few.real, few.fake, few.by_model, few.likert, few.questions) == (50, 50, False, True, 100)
    assert many.alpha == few.alpha == 0.10


def test_four_models_show_eighty_real_and_eighty_synthetic_images_each_once():
    models = ("none", "ada", "apa", "diffaug")
    assert needed(DESIGNS["multi-model"], models) == (80, dict.fromkeys(models, 20))
    parts = drawn(DESIGNS["multi-model"], models)
    shown = [picture for part in parts for question in questions(part) for picture in question.pictures]
    assert len(shown) == len(set(shown)) == 160
    assert Counter(model for model, _ in shown) == {"": 80, **dict.fromkeys(models, 20)}
    for part in parts:
        assert Counter(one.truth for one in questions(part)) == {"real": 20, "fake": 20}
        assert {one.model for one in questions(part)} == {part.model}


def test_every_block_holds_as_many_real_as_synthetic_images():
    [part] = drawn(DESIGNS["clinician"])
    assert [Counter(one.truth for one in block) for block in part.blocks] == [{"real": 5, "fake": 5}] * 10


@pytest.mark.parametrize(("real", "fake", "blocks"), [(3, 3, 1), (20, 20, 4), (30, 20, 5), (7, 13, 1), (10, 100, 10)])
def test_blocks_are_equal_and_of_ten_questions_at_least(real, fake, blocks):
    [part] = drawn(Design(name="x", real=real, fake=fake))
    assert len(part.blocks) == blocks
    assert {len(block) for block in part.blocks} == {(real + fake) // blocks}


def test_models_of_one_section_have_equal_shares():
    assert needed(DESIGNS["clinician"], ["a", "b", "c"]) == (50, {"a": 17, "b": 17, "c": 16})
    [part] = drawn(DESIGNS["clinician"], ("a", "b", "c"))
    assert Counter(one.model for one in questions(part)) == {"": 50, "a": 17, "b": 17, "c": 16}


def test_pairs_have_the_real_image_as_often_on_either_side():
    [part] = drawn(Design(name="pairs", kind="2afc", real=30, fake=30))
    assert Counter(one.truth for one in questions(part)) == {"a": 15, "b": 15}
    for one in questions(part):
        sides = dict(zip("ab", (model for model, _ in one.pictures), strict=True))
        assert sides.pop(one.truth) == ""
        assert list(sides.values()) == [one.model]


def test_a_seed_draws_one_study_and_another_seed_another():
    assert drawn(DESIGNS["multi-model"], seed=1) == drawn(DESIGNS["multi-model"], seed=1) != drawn(DESIGNS["multi-model"], seed=2)


def test_patients_take_turns():
    patients = ["a"] * 50 + ["b"] * 3 + ["c"] * 2
    order = spread(patients, np.random.default_rng(0))
    assert sorted(order) == list(range(55))
    assert [Counter(patients[i] for i in order[:n]) for n in (3, 6, 8)] == [
        {"a": 1, "b": 1, "c": 1},
        {"a": 2, "b": 2, "c": 2},
        {"a": 3, "b": 3, "c": 2},
    ]
    assert order != spread(patients, np.random.default_rng(1))


def test_too_few_images_are_counted():
    with pytest.raises(DataError, match="shows 40 images of the set 'real', and there are 39"):
        drawn(DESIGNS["multi-model"], real=39)
    with pytest.raises(DataError, match="shows 20 images of the set 'none', and there are 19"):
        drawn(DESIGNS["multi-model"], fake=19)
    with pytest.raises(ConfigError, match="no synthetic set"):
        needed(DESIGNS["clinician"], [])
    with pytest.raises(ConfigError, match="2 synthetic images cannot be of 3 models"):
        needed(Design(name="x", fake=2), ["a", "b", "c"])


def test_a_design_file_is_read(tmp_path):
    (tmp_path / "d.json").write_text(json.dumps({"name": "pairs", "kind": "2afc", "real": 30, "fake": 30, "go_back": False, "alpha": 0.05}))
    assert find_design(str(tmp_path / "d.json")) == Design(name="pairs", kind="2afc", real=30, fake=30, go_back=False, alpha=0.05)
    assert find_design("clinician") is DESIGNS["clinician"]


def test_everything_wrong_in_a_design_file_is_named_at_once(tmp_path):
    wrong = {
        "name": "Two Words",
        "kind": "3afc",
        "likert": "yes",
        "real": 0,
        "fake": 2.5,
        "alpha": 1,
        "consent": " ",
        "colour": 1,
        "go_back": 1,
    }
    (tmp_path / "d.json").write_text(json.dumps(wrong))
    with pytest.raises(ConfigError) as problem:
        read_design(tmp_path / "d.json")
    for words in (
        "name must",
        "kind must",
        "likert must",
        "real must",
        "fake must",
        "alpha must",
        "consent must",
        "unknown key 'colour'",
        "go_back must",
    ):
        assert words in problem.value.message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ('{"real": 3}', "name is missing"),
        ("[1]", "a JSON object"),
        ("{", "no readable JSON"),
        ('{"name": "x", "kind": "2afc", "real": 3, "fake": 4}', "must be equal"),
        ('{"name": "x", "kind": "2afc", "real": 4, "fake": 4, "likert": true}', "not with pairs"),
    ],
)
def test_wrong_design_files(tmp_path, values, words):
    (tmp_path / "d.json").write_text(values)
    with pytest.raises(ConfigError, match=words):
        read_design(tmp_path / "d.json")


def test_a_word_that_is_no_design():
    with pytest.raises(ConfigError, match="multi-model nor clinician"):
        find_design("clinicians")
    with pytest.raises(ConfigError, match="no readable JSON"):
        find_design("nowhere.json")
