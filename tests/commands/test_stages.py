"""Each stage alone, as a user types it: train, generate, report on a toy dataset; and the job's own decisions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from medgan import runs
from medgan.commands.job import JobConfig, dataset_for
from medgan.errors import ConfigError, DataError
from tests.phantoms import ct_nifti
from tests.toy import discs

TINY = ["--batch", "4", "--channel-base", "256", "--channel-max", "8", "--latent", "8", "--map-layers", "2", "--tick-kimg", "0.004"]


def medgan(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    base = {name: value for name, value in os.environ.items() if not name.startswith("MEDGAN_")} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", "medgan", *map(str, args)], capture_output=True, text=True, check=False, env=base | env)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    root = tmp_path_factory.mktemp("stages")
    discs(root / "data")
    return root, medgan("train", "--data", root / "data", "--out", root / "run", "--kimg", 0.008, "--metrics", "", *TINY)


def test_train(trained):
    root, done = trained
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["status"], result["kimg"]) == ("complete", 0.008)
    made = json.loads((root / "run" / runs.PROVENANCE).read_text())
    assert made["settings"]["batch"] == 4
    assert len(made["inputs"]["dataset"]) == 64
    assert str(root) not in (root / "run" / runs.PROVENANCE).read_text()
    assert len((root / "run" / runs.LOG).read_text().splitlines()) == 2
    assert json.loads((root / "run" / runs.STATUS).read_text())["status"] == "complete"


def test_a_settings_file_repeats_a_run(trained):
    root, _ = trained
    done = medgan("train", "--data", root / "data", "--out", root / "again", "--config", root / "run" / runs.CONFIG)
    assert done.returncode == 0, done.stderr
    states = [torch.load(root / name / runs.STATE, weights_only=True)["G_ema"] for name in ("run", "again")]
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def test_dry_run_prints_settings_and_touches_nothing(trained, tmp_path):
    done = medgan(
        "train", "--data", trained[0] / "data", "--out", tmp_path / "run", "--preset", "paper-2210.03786", "--dry-run", MEDGAN_SEED="7"
    )
    assert json.loads(done.stdout) | {"beta1": 0.9, "gamma": 8.2, "seed": 7, "mirror": True, "ada_max": 0.0} == json.loads(done.stdout)
    assert not (tmp_path / "run").exists()


def test_another_seed_in_the_same_folder_is_refused(trained):
    root, _ = trained
    done = medgan("train", "--data", root / "data", "--out", root / "run", "--kimg", 0.008, "--metrics", "", *TINY, "--seed", 1)
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1] == "ERROR E_RESUME seed 0 -> 1; fix: --resume new, or the settings and data of the saved run"


def test_generate_and_report(trained, tmp_path):
    root, _ = trained
    done = medgan("generate", "--bundle", root / "run" / "bundle", "--out", tmp_path / "images", "--seeds", "3,5-6", "--format", "png")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 3
    assert sorted(p.name for p in (tmp_path / "images").glob("seed*.png")) == [
        "seed0000000003.png",
        "seed0000000005.png",
        "seed0000000006.png",
    ]
    done = medgan("report", root / "run")
    assert done.returncode == 0, done.stderr
    assert "<html" in (root / "run" / runs.REPORT).read_text()


def test_classes_of_dataset_json_go_into_the_networks_and_out_as_images(tmp_path):
    """Sixteen pictures of two classes; without --no-labels the networks are conditional, with it they are not."""
    discs(tmp_path / "data", n=16)
    pairs = [[f"img{i:08d}.png", i % 2] for i in range(16)]
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": pairs}))
    for run, flags, classes in (("with", (), 2), ("without", ("--no-labels",), 0)):
        done = medgan("train", "--data", tmp_path / "data", "--out", tmp_path / run, "--kimg", 0.008, "--metrics", "", *TINY, *flags)
        assert done.returncode == 0, done.stderr
        about = json.loads((tmp_path / run / runs.BUNDLE / "configs" / "metadata.json").read_text())["medgan"]
        assert about["arguments"]["c_dim"] == classes
    done = medgan("generate", "--bundle", tmp_path / "with" / "bundle", "--out", tmp_path / "images", "--seeds", "0-5", "--format", "png")
    assert done.returncode == 0, done.stderr
    assert len({path.read_bytes() for path in (tmp_path / "images").glob("seed*.png")}) == 6


def test_generate_walks_mixes_and_refuses(trained, tmp_path):
    bundle = trained[0] / "run" / "bundle"
    done = medgan(
        "generate",
        "--bundle",
        bundle,
        "--out",
        tmp_path / "a",
        "--seeds",
        "0-1",
        "--walk",
        "--walk-frames",
        2,
        "--style-mix",
        "5,7",
        "--noise",
        "none",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a" / "walk.gif").exists()
    assert json.loads(done.stdout) | {
        "frames": 4,
        "noise": "none",
        "sheets": ["style_mix_coarse.png", "style_mix_middle.png"],
    } == json.loads(done.stdout)
    assert json.loads((tmp_path / "a" / runs.PROVENANCE).read_text())["settings"]["style_mix"] == "5,7"
    for words, says in (
        (["--class", "1"], "trained without classes"),
        (["--class", "x"], "--class x is not a class"),
        (["--psi-cutoff", "99"], "99"),
    ):
        done = medgan("generate", "--bundle", bundle, "--out", tmp_path / "b", *words)
        assert done.returncode == 2
        assert says in done.stderr.splitlines()[-1]
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("trap", ["mixed sizes", "palette", "16 bit", "empty"])
def test_unfit_pictures_are_listed(trap, tmp_path):
    discs(tmp_path / "data", n=4)
    picture = Image.open(tmp_path / "data" / "img00000001.png")
    if trap == "mixed sizes":
        picture.resize((64, 64)).save(tmp_path / "data" / "img00000001.png")
    elif trap == "palette":
        picture.convert("P").save(tmp_path / "data" / "img00000001.png")
    elif trap == "16 bit":
        Image.new("I;16", (32, 32)).save(tmp_path / "data" / "img00000001.png")
    else:
        for path in (tmp_path / "data").iterdir():
            path.unlink()
    done = medgan("train", "--data", tmp_path / "data", "--out", tmp_path / "run", *TINY)
    assert done.returncode in (65, 66)
    line = done.stderr.splitlines()[-1]
    assert line.startswith("ERROR E_")
    assert trap == "empty" or "img00000001.png" in line
    assert not (tmp_path / "run").exists()


def test_a_job_leaves_torch_its_threads(tmp_path):
    """Preparing uses one thread; the training after it in the same process must get all back."""
    ct_nifti(tmp_path / "scans")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        data = dataset_for(JobConfig(size=32), tmp_path / "scans", tmp_path / "data.zip")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert data.resolution == 32


def test_a_ready_dataset_is_taken_as_it_is(tmp_path):
    made = discs(tmp_path / "data")
    assert dataset_for(JobConfig(size=32), tmp_path / "data", tmp_path / "unused.zip").identity == made.identity
    assert not (tmp_path / "unused.zip").exists()


def test_a_job_overrides_its_preset_only_where_told():
    config = JobConfig(preset="demo", kimg=0, mirror="no", augment="none", batch=8, seed=3).training(64)
    assert (config.kimg, config.batch, config.mirror, config.augment, config.seed) == (6, 8, False, "none", 3)
    assert JobConfig(preset="demo", augment="diffaugment").training(64).augment == "diffaugment"
    assert JobConfig(preset="demo", kimg=0).training(64).mirror is True
    assert JobConfig().training(256).kimg == 1000
    assert JobConfig(preset="paper-2210.03786").training(512).kimg == 25000
    for wrong in ({"psi": 5.0}, {"images": 20_000_000}, {"images": 0}, {"held_out": 1.0}):
        with pytest.raises(ConfigError):
            JobConfig(**wrong)
    assert JobConfig(window=(40, 80), held_out=0).preparing().resolved().level == 40
    with pytest.raises(ConfigError, match="exclude each other"):
        JobConfig(window=(40, 80), window_preset="ct-brain")
    with pytest.raises(ConfigError, match="not divisible by --batch-gpu 4"):
        JobConfig(batch=5, batch_gpu=4)


def test_a_job_takes_one_class_a_part_and_the_papers_rules():
    recipe = JobConfig(recipe="pneumonia-mnist", size=32, only_class="pneumonia", split="test").preparing().resolved()
    assert (recipe.only_class, recipe.split) == ("pneumonia", "test")
    assert JobConfig(recipe="ct-liver", paper_compatible=True).preparing().resolved().paper_compatible
    with pytest.raises(ConfigError, match="--class"):
        JobConfig(recipe="pneumonia-mnist", only_class="normall")


def test_a_folder_of_pictures_is_prepared_by_a_recipe_that_takes_pictures(tmp_path):
    """Elsewhere it is a dataset as it is; these pictures, of two sizes, would be none."""
    from tests.data.layouts import xray

    for name, shape in (("a", (40, 40)), ("b", (30, 50))):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.fromarray(xray(3, shape)).save(tmp_path / "in" / name / "x.png")
    made = dataset_for(JobConfig(recipe="xray", size=32), tmp_path / "in", tmp_path / "data.zip")
    assert (len(made), made.resolution) == (2, 32)
    with pytest.raises(DataError):
        dataset_for(JobConfig(size=32), tmp_path / "in", tmp_path / "unused.zip")
