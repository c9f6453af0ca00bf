"""`medgan ablate` as a user types it: two experiments of two runs on discs of 32 px, one of them from pretrained networks."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from medgan import runs
from medgan.cli import main
from medgan.data.dataset import open_dataset
from medgan.experiments.launchers import ATTEMPTS
from medgan.experiments.outcomes import ANEW
from medgan.experiments.plan import PLAN
from medgan.training.loop import train
from tests.toy import discs, tiny

SETTINGS = {"kimg": 0.024, "batch": 4, "channel_base": 256, "channel_max": 8, "latent": 8, "map_layers": 2, "tick_kimg": 0.008}
SETTINGS |= {"snapshot_ticks": 1, "metrics": ["cosine_pixels"], "metric_images": 8, "check_transfer": False}
DESIGN = {
    "preset": "demo",
    "settings": SETTINGS,
    "experiments": [
        {"name": "plain", "title": "Plain", "settings": {"mirror": False, "augment": "none"}},
        {"name": "both", "title": "Pretrained, augmented", "settings": {"mirror": True, "augment": "ada"}, "pretrained": True},
    ],
    "tests": [["plain", "both"]],
    "repeats": 2,
}


def medgan(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args], env={"MEDGAN_SEED": None})


@pytest.fixture(scope="module")
def ablation(tmp_path_factory) -> tuple[Path, Result]:
    """Data, a network to start from, a design, and its four runs in `out`."""
    root = tmp_path_factory.mktemp("ablation")
    data = discs(root / "data")
    train(tiny(kimg=0.008), data, root / "source")
    (root / "small.json").write_text(json.dumps(DESIGN))
    return root, medgan("ablate", "run", *words(root), "--at-once", 2)


def words(root: Path, **changes: Any) -> list[object]:
    options = {"design": root / "small.json", "data": root / "data", "out": root / "out", "pretrained": root / "source"} | changes
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def test_runs_are_made_and_the_design_is_older_than_all_of_them(ablation):
    root, done = ablation
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == {"runs": 4, "complete": 4, "next": "medgan ablate collect --out OUT"}
    assert "NOTE too few repeats for any significance: the smallest p of 2 against 2 runs is 0.33" in done.stderr
    plan = json.loads((root / "out" / PLAN).read_text())
    assert [(run["name"], run["seed"]) for run in plan["runs"]] == [("plain-1", 0), ("plain-2", 1), ("both-1", 2), ("both-2", 3)]
    written = (root / "out" / PLAN).stat().st_mtime_ns
    configs = [json.loads((root / "out" / "runs" / run["name"] / runs.CONFIG).read_text()) for run in plan["runs"]]
    assert [(c["seed"], c["mirror"], c["augment"], bool(c["pretrained"])) for c in configs] == [
        (0, False, "none", False),
        (1, False, "none", False),
        (2, True, "ada", True),
        (3, True, "ada", True),
    ]
    # design.json says every setting that the runs have had.
    assert [{**plan["experiments"][i // 2]["settings"], "seed": i} for i in range(4)] == configs
    assert all((root / "out" / "runs" / run["name"] / runs.CONFIG).stat().st_mtime_ns > written for run in plan["runs"])


def test_the_same_command_goes_on_and_another_design_is_refused(ablation):
    root, _ = ablation
    assert json.loads(medgan("ablate", "run", *words(root)).stdout)["complete"] == 4
    assert len(runs.read_json_lines(root / "out" / "runs" / "plain-1" / ATTEMPTS)) == 1
    other = medgan("ablate", "run", *words(root), "--repeats", 3, "--set", "gamma=2")
    assert other.exit_code == 78
    for words_of_it in ("experiments[plain].repeats 2 -> 3", "experiments[plain].settings.gamma 0.5 -> 2.0", "4 runs -> 6"):
        assert words_of_it in other.stderr


def test_status_says_where_each_run_stands(ablation):
    root, _ = ablation
    done = medgan("ablate", "status", "--out", root / "out", "--json")
    each = json.loads(done.stdout)["each"]
    assert [each[0][name] for name in ("name", "state", "kimg", "attempts")] == ["plain-1", "complete", "0.024", 1]
    table = medgan("ablate", "status", "--out", root / "out").stderr.splitlines()
    assert table[0].split() == ["run", "state", "kimg", "best", "cosine_pixels", "starts"]
    assert [line.split()[:2] for line in table[1:]] == [[one["name"], "complete"] for one in each]


def test_collect_writes_tables_tests_and_figures(ablation):
    root, _ = ablation
    done = medgan("ablate", "collect", "--out", root / "out", "--images", 4, "--data", root / "data", "--include-real-examples")
    assert done.exit_code == 0, done.stderr
    result, folder = json.loads(done.stdout), root / "out" / "results"
    assert json.loads((folder / "results.json").read_text()) == result
    assert (result["complete"], result["missing"], result["figures"]) == (4, {}, ["losses.png", "images-data.png"])
    # Each value is the best one of the run's own records, random weights left out.
    for row in result["runs"]:
        records = runs.read_json_lines(root / "out" / "runs" / row["run"] / runs.EVALUATIONS)
        values = {record["kimg"]: record["metrics"]["cosine_pixels"]["value"] for record in records if record["kimg"] > 0.004}
        assert row["value"] == (max if row["higher_is_better"] else min)(values.values())
    assert [row["p"] for row in result["tests"]] in ([1 / 3], [2 / 3], [1.0])
    assert [row["experiment"] for row in csv.DictReader((folder / "experiments.csv").open())] == ["plain", "both"]
    assert len(list(csv.DictReader((folder / "runs.csv").open()))) == 4
    assert r"Pretrained, augmented & 2 &" in (folder / "tables.tex").read_text()
    picture = Image.open(folder / "images-data.png")
    assert picture.text["synthetic"] == "true"
    assert picture.size == (340 + 4 * 132, 4 + 3 * 132)


def test_networks_are_measured_anew_against_the_main_set_once(ablation, tmp_path):
    root, _ = ablation
    shutil.copytree(root / "out", tmp_path / "out")
    plan = json.loads((tmp_path / "out" / PLAN).read_text())
    plan["tests"][0]["anew"] = True
    (tmp_path / "out" / PLAN).write_text(json.dumps(plan))
    command = ("ablate", "collect", "--out", tmp_path / "out", "--images", 0, "--measure", "--data")
    done = medgan(*command, root / "data")
    assert done.exit_code == 0, done.stderr
    (test,), each = json.loads(done.stdout)["tests"], json.loads(done.stdout)["runs"]
    files = [tmp_path / "out" / "runs" / row["run"] / ANEW for row in each]
    measured = [json.loads(path.read_text())["metrics"]["cosine_pixels"]["value"] for path in files]
    assert [row["anew"] for row in each] == measured
    assert test["anew"]
    assert test["difference"] == pytest.approx(sum(measured[:2]) / 2 - sum(measured[2:]) / 2)
    written = [path.stat().st_mtime_ns for path in files]
    assert medgan(*command, root / "data").exit_code == 0
    assert [path.stat().st_mtime_ns for path in files] == written
    other = medgan(*command, discs(tmp_path / "others", n=13).path)
    assert (other.exit_code, "not the one that the runs were trained on" in other.stderr) == (65, True)


def test_a_set_without_its_real_images_has_rows_of_synthetic_ones_alone(ablation, tmp_path):
    root, _ = ablation
    shutil.copytree(root / "out", tmp_path / "out")
    plan = json.loads((tmp_path / "out" / PLAN).read_text())
    plan["data"].append({**plan["data"][0], "name": "further"})
    plan["experiments"][1]["data"] = "further"
    (tmp_path / "out" / PLAN).write_text(json.dumps(plan))
    command = ("ablate", "collect", "--out", tmp_path / "out", "--images", 3, "--include-real-examples", "--data", root / "data")
    done = medgan(*command)
    assert json.loads(done.stdout)["figures"] == ["losses.png", "images-data.png", "images-further.png"], done.stderr
    heights = [Image.open(tmp_path / "out" / "results" / name).size[1] for name in ("images-data.png", "images-further.png")]
    assert heights == [4 + 2 * 132, 4 + 132]


def test_no_place_of_the_data_stands_in_what_is_passed_on(ablation):
    root, _ = ablation
    medgan("ablate", "collect", "--out", root / "out", "--images", 1)
    texts = [path for path in (root / "out").rglob("*") if path.suffix in (".json", ".jsonl", ".csv", ".tex", ".txt", ".md")]
    assert len(texts) > 20
    assert [path.name for path in texts if str(root) in path.read_text(encoding="utf-8")] == []


def test_dry_run_prints_command_lines_that_are_the_runs(ablation, tmp_path):
    """A printed line, typed into a shell, finds that its run is complete."""
    root, _ = ablation
    done = medgan("ablate", "run", *words(root), "--dry-run")
    commands = json.loads(done.stdout)["commands"]
    assert len(commands) == 4
    first, *rest = shlex.split(commands[3])
    assert first == "medgan"
    again = medgan(*rest)
    assert json.loads(again.stdout)["status"] == "complete"
    assert len(runs.read_json_lines(root / "out" / "runs" / "both-2" / runs.STATS)) == 4
    assert medgan("ablate", "run", *words(root, out=tmp_path / "new"), "--dry-run").exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_every_run_is_told_where_its_curves_go_and_the_design_is_not(ablation, tmp_path):
    root, _ = ablation
    plain, told = (
        json.loads(medgan("ablate", "run", *words(root), "--dry-run", *more).stdout) for more in ([], ["--mlflow", "http://host:5000"])
    )
    assert [command.endswith(" --mlflow http://host:5000") for command in told["commands"]] == [True] * 4
    assert plain | {"commands": []} == told | {"commands": []}


def test_runs_chosen_by_name_or_place_and_one_that_fails_leaves_the_other_alone(ablation, tmp_path):
    """As tasks of a job array start them. One folder holds the state of other settings: exit code 78, not tried again."""
    root, _ = ablation
    train(tiny(kimg=0.008), open_dataset(root / "data"), tmp_path / "new" / "runs" / "plain-1")
    (tmp_path / "new" / PLAN).write_text((root / "out" / PLAN).read_text())
    done = medgan("ablate", "run", *words(root, out=tmp_path / "new"), "--only", "1,plain-2")
    assert done.exit_code == 78
    assert {name: count for name, count in json.loads(done.stdout).items() if name != "next"} == {"runs": 2, "failed": 1, "complete": 1}
    assert done.stderr.splitlines()[-1].startswith("ERROR E_RUNS 1 of 2 runs have not ended well; plain-1: ERROR E_RESUME")
    assert sorted(path.name for path in (tmp_path / "new" / "runs").iterdir()) == ["plain-1", "plain-2"]
    assert "plain-1: ERROR E_RESUME" in medgan("ablate", "status", "--out", tmp_path / "new").stderr
    look = json.loads(medgan("ablate", "collect", "--out", tmp_path / "new", "--images", 0).stdout)
    assert look["missing"] == {"plain-1": "failed", "both-1": "waiting", "both-2": "waiting"}
    assert (look["complete"], look["tests"]) == (1, [])


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--set", "mirror=yes"], 2, "--set mirror: these differ between the runs"),
        (["--set", "gama=1"], 2, "--set has unknown settings: gama"),
        (["--set", "kimg=many"], 2, "--set kimg: "),
        (["--set", "metrics="], 2, "compared by one metric"),
        (["--only", "plain-3,9"], 2, "--only plain-3, 9: no such run"),
        (["--data", "nothing"], 66, "the dataset of --data does not exist"),
        (["--extra-data", "data"], 2, "no experiment on an enlarged set"),
        (["--also", "acdc"], 2, "--also is not NAME=DATA"),
        (["--pretrained", "nothing"], 69, "--pretrained names nothing that exists"),
        (["--pretrained", ""], 2, "experiment both starts from pretrained networks"),
        (["--pretrained", "ffhq"], 2, "there is no ffhq-32"),
        (["--launcher", "slurm", "--at-once", "-1"], 2, "--at-once -1"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(ablation, tmp_path, more, code, said):
    root, _ = ablation
    done = medgan("ablate", "run", *words(root, out=tmp_path / "new"), *more)
    assert (done.exit_code, said in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "new").exists()


def test_two_runs_of_one_name_are_refused_also_where_a_further_set_makes_the_name(ablation, tmp_path):
    root, _ = ablation
    arms = [{"name": "on-acdc"}, {"name": "on", "data": "further"}]
    (tmp_path / "design.json").write_text(json.dumps({**DESIGN, "experiments": arms, "tests": []}))
    done = medgan("ablate", "run", *words(root, design=tmp_path / "design.json", out=tmp_path / "new"), "--also", f"acdc={root / 'data'}")
    assert done.exit_code == 2
    assert "two runs have one name: on-acdc-1" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_no_ablation(tmp_path):
    assert medgan("ablate", "status", "--out", tmp_path).exit_code == 78
    assert medgan("ablate", "collect", "--out", tmp_path / "nothing").exit_code == 66


def test_the_papers_design_asks_for_what_it_needs(ablation, tmp_path):
    root, _ = ablation
    done = medgan("ablate", "run", "--data", root / "data", "--out", tmp_path / "new")
    assert done.stderr.splitlines()[-1].endswith("fix: --pretrained ffhq-512, or a bundle")
    assert os.listdir(tmp_path) == []
