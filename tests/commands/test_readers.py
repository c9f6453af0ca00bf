import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from medgan.cli import main
from medgan.data.dataset import open_dataset
from medgan.readers.answers import answers_csv
from medgan.readers.design import DESIGNS
from medgan.readers.store import Store, default_url
from medgan.readers.study import read_key, read_study
from tests.commands.test_audit import SIZE, dataset_of, folder_of
from tests.metrics.patients import patients
from tests.readers.studies import answers_of, study

GOLDEN = json.loads((Path(__file__).parents[1] / "reference" / "turing_tables.json").read_text())
SMALL = {"name": "small", "real": 6, "fake": 6, "by_model": True}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A dataset of 24 patients, 12 held-out ones beside it, and two models of 20 images, of which the second copied two training images."""
    root = tmp_path_factory.mktemp("SMITH^JOHN")
    train, keys = patients(0, 24, 2, SIZE)
    dataset_of(root / "data.zip", train, keys)
    dataset_of(root / "data.held-out.zip", *patients(1000, 12, 3, SIZE))
    fake, _ = patients(3000, 40, 1, SIZE)
    folder_of(root / "good", fake[:20])
    copied = fake[20:].copy()
    copied[3], copied[7] = train[5], train[20][:, :, ::-1]
    folder_of(root / "copied", copied)
    (root / "small.json").write_text(json.dumps(SMALL))
    return root


def readers(*words):
    return CliRunner().invoke(main, ["readers", *map(str, words)])


def make(sets, out, *words, fakes=("good", "copied"), real="data.zip", design="small.json"):
    given = [word for name in fakes for word in ("--fake", f"{name}={sets / name}")]
    design = sets / design if design.endswith(".json") else design
    return readers("make", "--real", sets / real, "--design", design, *given, "--out", out, *words)


def sources(folder):
    return sorted((one.model, one.truth, one.sources) for one in read_key(folder).values())


def digests(dataset):
    return {row.tobytes().hex() for row in dataset.digests()}


def test_a_study_shows_held_out_patients_and_no_copies(sets, tmp_path):
    done = make(sets, tmp_path / "study")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    made, key = read_study(tmp_path / "study"), read_key(tmp_path / "study")
    assert result["study"] == made.id
    assert [len(section.items) for section in made.sections] == [12, 12]
    shown = {truth: [digest for one in key.values() if one.truth == truth for digest in one.sources] for truth in ("real", "fake")}
    assert len(set(shown["real"])) == len(set(shown["fake"])) == 12
    assert set(shown["real"]) <= digests(open_dataset(sets / "data.held-out.zip"))
    assert not {*shown["real"], *shown["fake"]} & digests(open_dataset(sets / "data.zip"))
    assert (
        "SMITH"
        not in done.stdout + done.stderr + (tmp_path / "study" / "study.json").read_text() + (tmp_path / "study" / "key.json").read_text()
    )


def test_every_copy_is_left_out_when_all_other_images_are_needed(sets, tmp_path):
    (tmp_path / "d.json").write_text(json.dumps({**SMALL, "real": 10, "fake": 18}))
    done = make(sets, tmp_path / "study", "--design", tmp_path / "d.json", fakes=["copied"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["left_out"]["copied"] == {"nearly a training image": 2}
    (tmp_path / "d.json").write_text(json.dumps({**SMALL, "real": 10, "fake": 19}))
    done = make(sets, tmp_path / "more", "--design", tmp_path / "d.json", fakes=["copied"])
    assert done.exit_code == 65
    assert "needs 19 copied images, and 18 are left of 20 (2 nearly a training image)" in done.stderr
    assert not (tmp_path / "more").exists()


def test_twelve_real_images_are_of_twelve_patients(sets, tmp_path):
    assert make(sets, tmp_path / "study").exit_code == 0
    held_out = open_dataset(sets / "data.held-out.zip")
    patient = {row.tobytes().hex(): subject for row, subject in zip(held_out.digests(), held_out.subjects(), strict=True)}
    assert len({patient[one.sources[0]] for one in read_key(tmp_path / "study").values() if one.truth == "real"}) == 12


def test_a_seed_draws_the_same_images_under_other_ids(sets, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert make(sets, tmp_path / name, "--seed", seed).exit_code == 0
    one, again, other = (sources(tmp_path / name) for name in "abc")
    assert one == again != other
    assert not set(read_key(tmp_path / "a")) & set(read_key(tmp_path / "b"))


def test_the_pictures_are_those_of_the_sets_but_for_the_noise(sets, tmp_path):
    assert make(sets, tmp_path / "study", "--dither", 0, fakes=["good"]).exit_code == 0
    made, key = read_study(tmp_path / "study"), read_key(tmp_path / "study")
    import hashlib

    for item, truth in key.items():
        with Image.open(tmp_path / "study" / "images" / made.images(item)[0]) as picture:
            assert hashlib.sha256(np.asarray(picture)[None].tobytes()).hexdigest() == truth.sources[0]


def test_the_held_out_set_may_be_named_itself_or_with_its_training_set(sets, tmp_path):
    assert make(sets, tmp_path / "a", real="data.held-out.zip").exit_code == 0
    assert make(sets, tmp_path / "b", "--train", sets / "data.zip", real="data.held-out.zip").exit_code == 0
    assert sources(tmp_path / "a") == sources(tmp_path / "b")


def test_power_is_printed_before_anything_is_read(sets, tmp_path):
    done = readers(
        "make",
        "--real",
        "nowhere.zip",
        "--fake",
        "a=nowhere",
        "--fake",
        "b=nowhere",
        "--design",
        "multi-model",
        "--readers",
        4,
        "--out",
        tmp_path / "s",
        "--dry-run",
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["power"]["smallest_p"] == 0.125
    assert "no outcome can be significant" in done.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--train", "DATA"], 65, "24 patients of the real images were trained on"),
        (
            ["--fake", "wide=WIDE"],
            65,
            "real 32 x 32 grey, training 32 x 32 grey, good 32 x 32 grey, copied 32 x 32 grey, wide 64 x 64 grey",
        ),
        (["--fake", "colour=COLOUR"], 65, "colour 32 x 32 colour"),
        (["--fake", "few=FEW"], 65, "needs 6 few images, and there are 5"),
        (["--design", "multi-model"], 65, "needs 40 held-out real images, and there are 36"),
        (["--real", "WIDE"], 65, "there are no held-out images beside --real"),
        (["--real", "nowhere.zip"], 66, "--real names nothing"),
        (["--fake", "x=nowhere"], 66, "--fake x names nothing"),
        (["--fake", "nowhere"], 2, "--fake takes NAME=PATH"),
        (["--fake", "good=FEW"], 2, "'good' is given twice"),
        (["--fake", "real=FEW"], 2, "'real' means something else"),
        (["--design", "clinic"], 2, "neither multi-model nor clinician"),
        (["--dither", "99"], 2, "--dither 99"),
        (["--dither", "much"], 2, "--dither much"),
        (["--readers", "0"], 2, "--readers 0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(sets, tmp_path, words, code, said):
    folder_of(tmp_path / "WIDE", patients(3000, 8, 1, 64)[0])
    folder_of(tmp_path / "FEW", patients(3000, 5, 1, SIZE)[0])
    (tmp_path / "COLOUR").mkdir()
    for n in range(8):
        Image.fromarray(np.full((SIZE, SIZE, 3), (n, 2 * n, 90), np.uint8)).save(tmp_path / "COLOUR" / f"{n}.png")
    places = {"DATA": sets / "data.zip", **{name: tmp_path / name for name in ("WIDE", "FEW", "COLOUR")}}
    for name, path in places.items():
        words = [str(path) if word == name else word.replace(f"={name}", f"={path}") for word in words]
    done = make(sets, tmp_path / "study", *words)
    assert done.exit_code == code, done.output
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ERROR E_")
    assert said in last
    assert "SMITH" not in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["COLOUR", "FEW", "WIDE"]


def test_a_study_is_never_made_twice_in_one_folder(sets, tmp_path):
    assert make(sets, tmp_path / "study").exit_code == 0
    done = make(sets, tmp_path / "study")
    assert done.exit_code == 2
    assert "written once" in done.stderr


# score


@pytest.fixture(scope="module")
def clinicians(tmp_path_factory):
    """The clinicians of arXiv 2210.03786 as answers to a study of its design."""
    root = tmp_path_factory.mktemp("clinicians")
    made = study(root / "study", DESIGNS["clinician"], ("ours",))
    counts = {name: (row["tp"], row["fp"]) for name, row in GOLDEN["clinicians"].items()}
    (root / "answers.csv").write_text(answers_csv(answers_of(made, read_key(root / "study"), counts)))
    (root / "metrics.json").write_text(json.dumps({"metrics": {"fid": {"value": 5.06}, "recall_inception": {"value": 0.31}}}))
    return root


def test_score_prints_the_papers_table_and_correlation(clinicians, tmp_path):
    words = ("--answers", clinicians / "answers.csv", "--metrics", f"ours={clinicians / 'metrics.json'}", "--out", tmp_path)
    done = readers("score", clinicians / "study", *words)
    assert done.exit_code == 0, done.stderr
    text = " ".join(done.stderr.split())
    for name, row in GOLDEN["clinicians"].items():
        printed = row["published"]
        assert f"{name} {printed['precision']} {printed['recall']} {printed['accuracy']} {printed['fpr']} {printed['fnr']}" in text
    means = [
        f"{GOLDEN['summary'][rate]['mean']} ± {GOLDEN['summary'][rate]['sd']}" for rate in ("precision", "recall", "accuracy", "fpr", "fnr")
    ]
    assert f"Mean ± SD {' '.join(means)}" in text
    assert "pooled FPR 148/350" in text
    assert "FPR and FNR over readers: Pearson r = -0.708, p = 0.075 (t)" in text
    assert "The correlation of FPR and FNR over readers is not significant at 5 %" in text
    # Chance is not shown, and what the test cannot show stands there with FID and recall.
    assert "ours 7 65 ± 10 42 ± 27 28 ± 21 5.06 0.31" in text
    assert "not diverse ones" in text
    result = json.loads(done.stdout)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(result["files"])
    assert result["files"] == [
        "results.json",
        "readers.csv",
        "summaries.csv",
        "tests.csv",
        "tables.tex",
        "results.txt",
        "accuracy.png",
        "errors.png",
        "likert.png",
    ]
    assert json.loads((tmp_path / "results.json").read_text())["readers"] == result["readers"]
    latex = (tmp_path / "tables.tex").read_text()
    assert r"R1 & 80 & 86 & 82 & 22 & 14" in latex
    assert r"66 $\pm$ 12" in latex
    for name in result["files"][-3:]:
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300


def test_scores_rest_on_all_files_together(clinicians, tmp_path):
    lines = (clinicians / "answers.csv").read_text().splitlines(keepends=True)
    (tmp_path / "a.csv").write_text("".join(lines[:301]))
    (tmp_path / "b.csv").write_text("".join([lines[0], *lines[301:]]))
    whole = readers("score", clinicians / "study", "--answers", clinicians / "answers.csv", "--out", tmp_path / "1")
    halves = readers(
        "score", clinicians / "study", "--answers", tmp_path / "a.csv", "--answers", tmp_path / "b.csv", "--out", tmp_path / "2"
    )
    assert json.loads(whole.stdout) == json.loads(halves.stdout)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--answers", "nowhere.csv"], 66, "--answers names no file"),
        (["--answers", "ANSWERS", "--answers", "ANSWERS"], 65, "two answers to one item"),
        (["--answers", "OTHER"], 65, "answers of another study"),
        (["--answers", "EMPTY"], 65, "there is no answer"),
        (["--answers", "ANSWERS", "--metrics", "theirs=METRICS"], 65, "--metrics names theirs, and the study's models are ours"),
        (["--answers", "ANSWERS", "--metrics", "ours=ANSWERS"], 65, "is no metrics.json"),
        (["--answers", "ANSWERS", "--metrics", "ours=nowhere"], 66, "--metrics ours names no file"),
        (["--answers", "ANSWERS", "--metrics", "ours"], 2, "--metrics takes NAME=PATH"),
    ],
)
def test_scores_that_cannot_be(clinicians, tmp_path, words, code, said):
    text = (clinicians / "answers.csv").read_text()
    (tmp_path / "other.csv").write_text(text.replace(read_study(clinicians / "study").id, "0" * 16))
    (tmp_path / "empty.csv").write_text(text.splitlines()[0] + "\n")
    places = {
        "ANSWERS": clinicians / "answers.csv",
        "OTHER": tmp_path / "other.csv",
        "EMPTY": tmp_path / "empty.csv",
        "METRICS": clinicians / "metrics.json",
    }
    for name, path in places.items():
        words = [str(path) if word == name else word.replace(f"={name}", f"={path}") for word in words]
    done = readers("score", clinicians / "study", *words, "--out", tmp_path / "out")
    assert done.exit_code == code, done.output
    assert said in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_score_needs_the_key(clinicians, tmp_path):
    import shutil

    shutil.copytree(clinicians / "study", tmp_path / "study")
    (tmp_path / "study" / "key.json").unlink()
    done = readers("score", tmp_path / "study", "--answers", clinicians / "answers.csv")
    assert done.exit_code == 66
    assert "no key.json" in done.stderr


def test_the_folder_for_a_stick_holds_pages_and_pictures_and_no_truth(sets, tmp_path):
    assert make(sets, tmp_path / "study", "--offline").exit_code == 0
    stick, made = tmp_path / "study" / "offline", read_study(tmp_path / "study")
    names = {path.relative_to(stick).as_posix() for path in stick.rglob("*") if path.is_file()}
    pictures = {f"images/{path.name}" for path in (made.folder / "images").iterdir()}
    assert names == pictures | {"index.html"} | {f"static/{name}" for name in ("icon.svg", "readers.css", "viewer.js", "offline.js")}
    assert {(stick / name).stat().st_mtime for name in pictures} == {315_532_800}
    page = (stick / "index.html").read_text()
    key = read_key(made.folder)
    assert not [word for one in key.values() for word in (*one.sources, f'"{one.truth}":', one.model) if word in page]
    assert "http://" not in page
    assert "https://" not in page


def test_answers_of_the_database_and_of_a_stick_count_together(tmp_path):
    made = study(tmp_path / "study", DESIGNS["clinician"])
    given = answers_of(made, read_key(made.folder), {"R1": (43, 11), "R2": (22, 7)})
    store = Store(default_url(made.folder), made.id)
    store.invite("R1", days=1)
    store.begin("R1", role="Radiologist", years=3)
    for one in given:
        if one.reader == "R1":
            store.save(one, change=True)
    store.close()
    (tmp_path / "R2.csv").write_text(answers_csv([one for one in given if one.reader == "R2"]))
    alone = readers("score", made.folder, "--out", tmp_path / "alone")
    both = readers("score", made.folder, "--answers", tmp_path / "R2.csv", "--out", tmp_path / "both")
    assert [row["reader"] for row in json.loads(alone.stdout)["readers"]] == ["R1"]
    assert sorted(row["reader"] for row in json.loads(both.stdout)["readers"]) == ["R1", "R2"]


def test_without_an_answer_there_is_no_score(tmp_path):
    made = study(tmp_path / "study", DESIGNS["clinician"])
    done = readers("score", made.folder)
    assert (done.exit_code, "no answers are given" in done.stderr) == (2, True)
    elsewhere = readers("score", made.folder, "--database", f"sqlite:///{tmp_path}/nothing.sqlite")
    assert (elsewhere.exit_code, "names no file that exists" in elsewhere.stderr) == (66, True)
