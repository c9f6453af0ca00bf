"""`medgan diversity` with real trainings of seconds: the whole way, a failure among others, going on, and what is refused before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from medgan import runs
from medgan.cli import main
from tests.toy import discs

METRICS = ("--metrics", "ms_ssim,cosine_pixels,precision_pixels", "--sizes", "50,100", "--retries", "0")
TINY = ("--", "--epochs", "1", "--latent", "8", "--channel-base", "112", "--channel-max", "8")


def noise(folder: Path, n: int = 60) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(folder / f"img{i:08d}.png")
    return folder


def medgan(*words: object):
    return CliRunner().invoke(main, ["diversity", *map(str, words)])


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """An experiment of two classes, finished."""
    root = tmp_path_factory.mktemp("diversity")
    discs(root / "discs", n=48, size=28)
    result = medgan(
        "run", "--data", f"toy/discs={root / 'discs'}", "--data", f"noise={noise(root / 'noise')}", "--out", root / "out", *METRICS, *TINY
    )
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["classes"]
    assert [(row["class"], row["images"], row["state"], row["measured"]) for row in rows] == [
        ("toy/discs", 48, "complete", [50.0, 100.0]),
        ("noise", 60, "complete", [50.0, 100.0]),
    ]
    return root


def again(root: Path, *more: object):
    return medgan(
        "run", "--data", f"toy/discs={root / 'discs'}", "--data", f"noise={root / 'noise'}", "--out", root / "out", *METRICS, *more, *TINY
    )


def test_collect_writes_tables_tests_and_a_figure_for_each_metric(done):
    result = medgan("collect", "--out", done / "out")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["missing"] == []
    # Two classes at two sizes, synthetic against real, and the two classes with each other, for two metrics of pairs; and parts of 2 and 4 images are too few.
    assert summary["tests"] == 2 * 2 * 3
    names = {Path(name).name for name in summary["files"]}
    assert {
        "figures.csv",
        "figures.tex",
        "tests.csv",
        "tests.tex",
        "stability.csv",
        "stability.tex",
        "ms_ssim.png",
        "precision_pixels.png",
    } <= names
    figures = json.loads((done / "out/results/results.json").read_text())["figures"]
    real = {row["class"]: row["real"] for row in figures if row["metric"] == "ms_ssim" and row["percent"] == 100}
    assert real["noise"] < 0.1 < real["toy/discs"]


def test_each_size_compares_so_many_of_both_and_the_real_ones_are_the_class(done):
    """Half and all of 48 and of 60 images. Over a whole class the mean cosine distance of real pairs is that of all its pairs, whatever the order."""
    found = {name: json.loads((done / f"out/measures/{name}.json").read_text())["sizes"] for name in ("toy-discs", "noise")}
    assert {name: [size["n"] for size in sizes] for name, sizes in found.items()} == {"toy-discs": [24, 48], "noise": [30, 60]}
    for name, folder in (("toy-discs", "discs"), ("noise", "noise")):
        pixels = np.stack([np.asarray(Image.open(path), dtype=float).ravel() for path in sorted((done / folder).glob("*.png"))])
        pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
        apart = 1 - (pixels @ pixels.T)[np.triu_indices(len(pixels), 1)]
        assert found[name][1]["metrics"]["cosine_pixels"]["real"] == pytest.approx(apart.mean(), abs=0.01)
        assert found[name][1]["metrics"]["cosine_pixels"]["value"] != pytest.approx(apart.mean(), abs=0.02)


def test_the_same_command_has_nothing_left_to_do(done):
    files = sorted(path for path in (done / "out/measures").iterdir()) + sorted((done / "out").glob("runs/*/checkpoint/state.pt"))
    before = [path.stat().st_mtime_ns for path in files]
    assert again(done).exit_code == 0
    assert len(before) == 4
    assert [path.stat().st_mtime_ns for path in files] == before


def test_another_setting_in_the_same_folder_is_refused(done):
    result = again(done, "--seed", 5)
    assert result.exit_code == 78
    assert "another design: seed 0 -> 5" in result.stderr


def test_no_file_of_the_experiment_itself_names_a_path(done):
    for path in [done / "out/design.json", *(done / "out/measures").iterdir(), *(done / "out/results").glob("*.*")]:
        assert str(done).encode() not in path.read_bytes(), path.name


def test_a_size_that_is_lost_is_measured_again_alike(done):
    path = done / "out/measures/noise.json"
    before = json.loads(path.read_text())
    runs.write_json(path, before | {"sizes": before["sizes"][:1]})
    status = medgan("status", "--out", done / "out")
    assert [row["state"] for row in json.loads(status.stdout)["classes"]] == ["complete", "to be measured"]
    assert again(done).exit_code == 0
    assert json.loads(path.read_text()) == before


def test_one_class_that_fails_does_not_stop_the_others(tmp_path):
    """Its state is damaged, which train refuses with exit code 78; repaired, the same command finishes it."""
    discs(tmp_path / "discs", n=24, size=28)
    words = (
        "run",
        "--data",
        f"a={tmp_path / 'discs'}",
        "--data",
        f"b={noise(tmp_path / 'noise', 24)}",
        "--out",
        tmp_path / "out",
        *METRICS,
        *TINY,
    )
    state = tmp_path / "out/runs/a" / runs.STATE
    state.parent.mkdir(parents=True)
    state.write_bytes(b"no state")
    result = medgan(*words)
    assert result.exit_code == 78, result.output
    assert result.stderr.splitlines()[-1].startswith("ERROR E_RESUME a did not finish: the saved state cannot be read")
    rows = json.loads(medgan("status", "--out", tmp_path / "out").stdout)["classes"]
    assert [row["state"] for row in rows] == ["failed", "complete"]
    assert "E_RESUME" in rows[0]["problem"]
    collected = medgan("collect", "--out", tmp_path / "out")
    assert json.loads(collected.stdout)["missing"] == ["a at 50 %", "a at 100 %"]
    state.unlink()
    assert medgan(*words).exit_code == 0
    assert [row["problem"] for row in json.loads(medgan("status", "--out", tmp_path / "out").stdout)["classes"]] == ["", ""]


def test_a_dry_run_prints_plain_command_lines_and_writes_nothing(tmp_path):
    discs(tmp_path / "discs", n=24, size=28)
    result = medgan("run", "--data", f"a={tmp_path / 'discs'}", "--out", tmp_path / "out", "--dry-run", *METRICS, *TINY)
    made = json.loads(result.stdout)
    train, generate = made["classes"][0]["commands"]
    assert train.startswith(
        f"medgan train --data {tmp_path}/discs --out {tmp_path}/out/runs/a --family dcgan --preset paper-2308.02505 --seed 0 --epochs 1"
    )
    assert generate.endswith("--seeds 0-23 --format zip")
    assert (made["classes"][0]["training"]["kimg"], made["classes"][0]["training"]["batch"]) == (0.024, 24)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((*METRICS, "--", "--ephocs", "1"), 2, "No such option"),
        ((*METRICS, "--", "--kimg", "1", "--epochs", "1"), 2, "two lengths"),
        ((*METRICS, "--", "--family", "stylegan2"), 2, "the experiment dcgan"),
        (("--metrics", "ms_sim"), 2, "did you mean 'ms_ssim'"),
        (("--metrics", "ppl2_wend"), 2, "ppl2_wend looks at a generator"),
        ((*METRICS, "--family", "stylegan2"), 65, "no networks for 28 px"),
        ((*METRICS, "--sizes", "10,100"), 65, "10 % a class has fewer than the 8 images"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(tmp_path, words, code, message):
    discs(tmp_path / "discs", n=24, size=28)
    result = medgan("run", "--data", f"a={tmp_path / 'discs'}", "--out", tmp_path / "out", *words)
    assert result.exit_code == code, result.output
    assert message in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out/design.json").exists()


def test_a_set_of_several_classes_is_refused(tmp_path):
    names = discs(tmp_path / "discs", n=24, size=28).names
    (tmp_path / "discs/dataset.json").write_text(json.dumps({"labels": [[name, i % 2] for i, name in enumerate(names)]}))
    result = medgan("run", "--data", f"a={tmp_path / 'discs'}", "--out", tmp_path / "out", *METRICS)
    assert result.exit_code == 65
    assert "a holds several classes" in result.stderr


def medmnist(folder: Path) -> Path:
    """A file like PneumoniaMNIST's: 20 and 40 images of two classes in each part."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 28, 28), dtype=np.uint8), np.array([[i % 3 > 0] for i in range(60)], dtype=np.uint8)
    parts = {f"{part}_{kind}": value for part in ("train", "val", "test") for kind, value in (("images", images), ("labels", labels))}
    np.savez(folder / "pneumoniamnist.npz", **parts)
    return folder / "pneumoniamnist.npz"


def test_a_class_given_by_itself_and_with_its_file_is_refused(tmp_path):
    file = medmnist(tmp_path)
    result = medgan("run", "--data", f"xray={file}", "--data", f"xray/normal={file}", "--out", tmp_path / "out", "--dry-run", *METRICS)
    assert result.exit_code == 2
    assert "two classes have one name: xray/normal" in result.stderr


def test_a_medmnist_file_gives_its_classes(tmp_path):
    result = medgan("run", "--data", f"xray={medmnist(tmp_path)}", "--out", tmp_path / "out", "--dry-run", *METRICS)
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert [(one["name"], one["modality"], one["images"]) for one in made["classes"]] == [
        ("xray/normal", "xray", 20),
        ("xray/pneumonia", "xray", 40),
    ]
    assert f"{tmp_path}/out/data/xray-normal.zip" in made["classes"][0]["commands"][0]
    assert {test["relation"] for test in made["tests"]} == {"synthetic against real", "within a modality"}
