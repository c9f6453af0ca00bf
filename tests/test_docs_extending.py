"""How to add a metric, a recipe and a GAN family: each page is followed to the letter, as a package beside medgan, and its entry keeps the contract of its table."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medgan.data import RECIPES
from medgan.metrics import METRICS
from medgan.networks import NETWORKS
from tests.conftest import ROOT
from tests.data import layouts, test_recipes
from tests.metrics import test_evaluate
from tests.networks import test_families
from tests.phantoms import ct_nifti
from tests.test_docs import read
from tests.test_docs_commands import blocks
from tests.test_docs_run import run, smaller
from tests.toy import discs

Install = Callable[[str], Path]


def fenced(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", read(f"docs/{page}"), re.M | re.S)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Follows a page: its module and entry points become an installed package, its tests are run."""
    modules = []

    def follow(page: str) -> Path:
        [project] = (tomllib.loads(text)["project"] for text in fenced(page, "toml"))
        code, test = fenced(page, "python")
        [(group, points)] = project["entry-points"].items()
        [target] = points.values()
        modules.append(target.partition(":")[0])
        assert f"`{modules[-1]}.py`" in read(f"docs/{page}")
        site = tmp_path / "site"
        about = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        about.mkdir(parents=True)
        (site / f"{modules[-1]}.py").write_text(code)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
        (about / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in points.items()))
        monkeypatch.syspath_prepend(site)
        monkeypatch.setenv("MEDGAN_DEVICE", "cpu")
        told: dict[str, object] = {}
        exec(compile(test, page, "exec"), told)
        proofs = [proof for name, proof in told.items() if name.startswith("test_")]
        assert proofs
        (tmp_path / "proof").mkdir()
        for proof in proofs:
            proof(*([tmp_path / "proof"] if proof.__code__.co_argcount else []))
        monkeypatch.chdir(tmp_path)
        return site

    yield follow
    for name in modules:
        sys.modules.pop(name, None)


def test_a_metric_is_added_as_the_page_says(install: Install, capsys: pytest.CaptureFixture[str]):
    install("how-to/new-metric.md")
    assert METRICS.names()[-1] == "energy_pixels"
    test_evaluate.test_every_metric_of_features_keeps_the_contract("energy_pixels")
    for patient in range(4):
        ct_nifti(Path("scans") / f"{patient}", shift=patient)
    run("medgan prepare scans data.zip --recipe ct-liver\nmedgan prepare scans synthetic.zip --recipe ct-liver --mask-label -1")
    capsys.readouterr()
    evaluate, train = blocks("how-to/new-metric.md")[0].splitlines()
    run(evaluate)
    assert '"energy_pixels": {' in capsys.readouterr().out
    run(train, metrics="energy_pixels", metric_images="4")
    assert "energy_pixels" in Path("run/metrics.jsonl").read_text()


def test_a_recipe_is_added_as_the_page_says(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install("how-to/new-recipe.md")
    assert RECIPES.names()[-1] == "ct-lung"
    monkeypatch.setitem(layouts.LAYOUTS, "ct-lung", layouts.LAYOUTS["ct"])
    test_recipes.test_a_recipe_says_where_it_comes_from("ct-lung")
    test_recipes.test_a_recipe_needs_no_other_option(tmp_path / "contract", "ct-lung")
    layouts.ct(Path("SCANS"))
    for block in blocks("how-to/new-recipe.md"):
        run(block)


def test_a_family_is_added_as_the_page_says(install: Install, tmp_path: Path):
    site = install("how-to/new-family.md")
    assert NETWORKS.names()[-1] == "upgan"
    test_families.test_images_have_every_size_of_the_family_and_one_logit_each("upgan")
    test_families.test_a_gradient_of_the_logit_reaches_z_and_every_weight("upgan")
    test_families.test_an_image_is_the_same_alone_and_among_others("upgan")
    test_families.test_a_bundle_gives_back_the_generator("upgan", tmp_path)
    test_families.test_without_styles_there_is_no_truncation("upgan")
    discs(Path("discs"))
    train, generate = blocks("how-to/new-family.md")[0].splitlines()
    # In a process of its own: the choices of --family are those of the packages that are there when medgan starts.
    words = smaller(shlex.split(train.replace("data.zip", "discs"))[1:])
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    done = subprocess.run([sys.executable, "-m", "medgan", *words], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run(generate)
    assert '"family": "upgan"' in Path("run/bundle/configs/metadata.json").read_text()
    assert len(list(Path("images").glob("*.zip"))) == 1
