import json
import os
import stat

import numpy as np
import pytest
from PIL import Image

from medgan.errors import ConfigError, DataError, InputError
from medgan.readers.answers import Answer, answers_csv, read_answers
from medgan.readers.design import DESIGNS, Design
from medgan.readers.pictures import evened, needed_dither, png
from medgan.readers.study import read_key, read_study
from tests.readers.studies import picture, study

PAIRS = Design(name="pairs", kind="2afc", real=10, fake=10)
MODELS = ("none", "ada", "apa")


@pytest.mark.parametrize(("design", "models"), [(DESIGNS["multi-model"], MODELS), (DESIGNS["clinician"], MODELS[:1]), (PAIRS, MODELS)])
def test_a_written_study_is_read_again_with_its_truth(tmp_path, design, models):
    made = study(tmp_path / "study", design, models)
    assert read_study(tmp_path / "study") == made
    key = read_key(tmp_path / "study")
    items = [item for section in made.sections for item in section.items]
    assert sorted(items) == sorted(key)
    assert sorted(p.name for p in (tmp_path / "study" / "images").iterdir()) == sorted(n for i in items for n in made.images(i))
    assert {one.truth for one in key.values()} == set(design.answers)
    if design.by_model:
        assert {one.model for one in key.values()} == set(models)


def test_the_key_holds_the_checksums_of_the_sources(tmp_path):
    import hashlib

    study(tmp_path / "s", Design(name="x", real=1, fake=1))
    key = read_key(tmp_path / "s")
    assert {one.truth: one.sources for one in key.values()} == {
        "real": (hashlib.sha256(picture("", 0).tobytes()).hexdigest(),),
        "fake": (hashlib.sha256(picture("model", 0).tobytes()).hexdigest(),),
    }


def test_only_the_owner_reads_the_key_and_the_study_names_no_model(tmp_path):
    study(tmp_path / "s", DESIGNS["multi-model"], MODELS, notes={"seed": 4711})
    assert stat.S_IMODE((tmp_path / "s" / "key.json").stat().st_mode) == 0o600
    text = (tmp_path / "s" / "study.json").read_text()
    assert not [word for word in (*MODELS, "4711", "truth") if f'"{word}"' in text]
    assert json.loads((tmp_path / "s" / "key.json").read_text())["seed"] == 4711


def test_the_order_is_each_readers_own_and_always_the_same(tmp_path):
    made = study(tmp_path / "s", DESIGNS["multi-model"], MODELS)
    one, other = made.order("R1"), made.order("R2")
    assert one == read_study(tmp_path / "s").order("R1") != other
    assert sorted(one) == sorted(other) == sorted((section.key, item) for section in made.sections for item in section.items)
    # Section after section, and the first ones differ over readers.
    for order in (one, other):
        assert [key for place, (key, _) in enumerate(order) if place % 40 == 0] == list(dict.fromkeys(key for key, _ in order))
    assert len({made.order(f"R{n}")[0][0] for n in range(20)}) == 3


def test_every_ten_questions_of_a_reader_are_half_real(tmp_path):
    made = study(tmp_path / "s", DESIGNS["clinician"])
    key = read_key(tmp_path / "s")
    for reader in ("R1", "R2"):
        real = [key[item].truth == "real" for _, item in made.order(reader)]
        assert np.reshape(real, (10, 10)).sum(1).tolist() == [5] * 10


def test_the_first_question_is_real_for_half_of_the_readers(tmp_path):
    made, key = study(tmp_path / "s", DESIGNS["clinician"]), read_key(tmp_path / "s")
    first = [key[made.order(f"R{n}")[0][1]].truth == "real" for n in range(400)]
    # Four standard deviations of a fair coin.
    assert abs(sum(first) - 200) < 40


def test_a_png_is_what_it_was_made_of_and_as_long_as_any_other(tmp_path):
    for channels, mode in ((1, "L"), (3, "RGB")):
        images = [np.zeros((channels, 12, 20), np.uint8), np.random.default_rng(0).integers(0, 256, (channels, 12, 20), dtype=np.uint8)]
        files = [png(image) for image in images]
        assert len({len(file) for file in files}) == 1
        for image, file in zip(images, files, strict=True):
            (tmp_path / "x.png").write_bytes(file)
            with Image.open(tmp_path / "x.png") as opened:
                opened.load()
                assert (opened.mode, opened.size, opened.info) == (mode, (20, 12), {})
                assert np.array_equal(np.asarray(opened).reshape(12, 20, channels).transpose(2, 0, 1), image)


def test_evening_clips_the_ends_and_moves_the_rest_by_a_level_or_two():
    ramp = np.tile(np.arange(256, dtype=np.uint8), (1, 256, 1))
    out = evened(ramp, np.random.default_rng(0)).astype(int)
    moved = (out - ramp)[0, :, 10:246]
    assert abs(moved.mean()) < 0.02
    # Rounding adds 1/12 to the variance.
    assert moved.std() == pytest.approx((1.5**2 + 1 / 12) ** 0.5, rel=0.01)
    assert out[0, :, :7].mean() == pytest.approx(6, abs=0.1)
    assert out[0, :, 249:].mean() == pytest.approx(249, abs=0.1)
    assert np.array_equal(evened(ramp, np.random.default_rng(0), dither=0), ramp)


def test_noise_grows_with_the_gaps_that_a_narrow_window_leaves():
    hu = np.random.default_rng(0).integers(-36, 37, (1, 256, 256))
    # Each of 80 HU has its grey: a period of 255 / 80 = 3.19, of which 0.8.
    narrow = np.round(255 * (hu / 80 + 0.5)).astype(np.uint8)
    assert needed_dither([narrow]) == pytest.approx(0.8 * 255 / 80, rel=0.02)
    assert needed_dither([np.arange(256, dtype=np.uint8).reshape(1, 16, 16)]) == 1.5
    # The median of the images counts: one odd image changes nothing.
    assert needed_dither([narrow, narrow, np.zeros((1, 8, 8), np.uint8)]) == needed_dither([narrow])
    assert needed_dither([np.array([[[0, 255]]], np.uint8)]) == 16


def test_grey_colours_stay_grey():
    out = evened(np.full((3, 32, 32), 100, np.uint8), np.random.default_rng(0))
    assert np.array_equal(out[0], out[1])
    assert np.array_equal(out[0], out[2])


def test_nothing_is_left_where_a_study_could_not_be_written(tmp_path):
    def broken(model, number):
        return picture(model, number, 16 if model else 32)

    with pytest.raises(DataError, match="differ in size"):
        study(tmp_path / "s", PAIRS, pixels=broken)
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_never_written_over(tmp_path):
    (tmp_path / "s").mkdir()
    study(tmp_path / "s", PAIRS)
    before = (tmp_path / "s" / "study.json").read_bytes()
    with pytest.raises(ConfigError, match="written once"):
        study(tmp_path / "s", PAIRS)
    assert (tmp_path / "s" / "study.json").read_bytes() == before


def test_damaged_studies(tmp_path):
    folder = tmp_path / "s"
    made = study(folder, PAIRS)
    good = (folder / "study.json").read_text()

    def changed(**values):
        (folder / "study.json").write_text(json.dumps({**json.loads(good), **values}))

    with pytest.raises(InputError, match=r"no study\.json"):
        read_study(tmp_path)
    for values in ({"design": {"name": 1}}, {"sections": 3}, {"width": "wide"}):
        changed(**values)
        with pytest.raises(DataError, match="damaged"):
            read_study(folder)
    changed(schema=99)
    with pytest.raises(DataError, match="another version"):
        read_study(folder)
    changed(sections=[{"key": "k", "title": "t", "items": ["../../etc/passwd"], "blocks": 1}])
    with pytest.raises(DataError, match="no list of ids"):
        read_study(folder)
    changed(id="0" * 16)
    with pytest.raises(DataError, match="another study"):
        read_key(folder)
    (folder / "study.json").write_text(good)
    os.remove(folder / "images" / made.images(made.sections[0].items[0])[0])
    with pytest.raises(DataError, match="1 pictures of the study are missing"):
        read_study(folder)


ANSWER = Answer(study="s", reader="R1", section="a", item="i", answer="real")


def test_answers_are_read_as_they_were_written(tmp_path):
    given = [
        ANSWER,
        Answer(
            study="s",
            reader="R2",
            section="a",
            item="i",
            answer="fake",
            likert=2,
            milliseconds=4120,
            changes=1,
            role="radiologist, senior",
            years=7.5,
        ),
    ]
    (tmp_path / "a.csv").write_text(answers_csv(given))
    assert read_answers(tmp_path / "a.csv") == given


def test_answers_that_went_through_a_spreadsheet_are_read(tmp_path):
    (tmp_path / "a.csv").write_text("﻿study;reader;section;item;answer;years\r\ns;R1;a;i;real;7,5\r\n")
    assert read_answers(tmp_path / "a.csv") == [Answer(study="s", reader="R1", section="a", item="i", answer="real", years=7.5)]


def test_answers_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no file"):
        read_answers(tmp_path / "a.csv")
    for text, words in [
        ("reader,item\n", "no column study, section, answer"),
        ("study,reader,section,item,answer\ns,R1,a,,\n", "line 2 of --answers has no item, answer"),
        ("study,reader,section,item,answer,likert\ns,R1,a,i,real,two\n", "line 2 of --answers has a number"),
    ]:
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(DataError, match=words):
            read_answers(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no readable text"):
        read_answers(tmp_path / "a.csv")
