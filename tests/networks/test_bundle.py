"""The bundle: what we write we read, MONAI opens, and nobody is fooled by a damaged one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from medgan.data import RECIPES
from medgan.data.recipe import Recipe
from medgan.data.windowing import Window
from medgan.errors import DataError, InputError
from medgan.networks import dcgan
from medgan.networks.bundle import RENEW, SUMS, read_bundle, read_discriminator, window_of, write_bundle
from medgan.networks.stylegan2 import Discriminator, Generator
from medgan.sampling.generate import sample
from tests.conftest import ROOT
from tests.networks.tiny import GENERATOR as ARGUMENTS


@pytest.fixture
def bundle(tmp_path):
    torch.manual_seed(0)
    G = Generator(**ARGUMENTS).eval()
    details = {"kimg": 1.5, "recipe": RECIPES.get("ct-liver").to_dict(), "dataset": "ab" * 32, "images": 77}
    write_bundle(tmp_path / "bundle", G, family="stylegan2", arguments=ARGUMENTS, details=details)
    return tmp_path / "bundle", G


def rewrite(folder, **changes):
    """Change our part of the metadata, with the checksums renewed as the model card says."""
    path = folder / "configs/metadata.json"
    metadata = json.loads(path.read_text())
    metadata["medgan"] |= changes
    path.write_text(json.dumps(metadata))
    subprocess.run(RENEW, shell=True, cwd=folder, check=True)


def test_a_bundle_gives_back_its_generator(bundle):
    folder, G = bundle
    again, metadata = read_bundle(folder)
    z = torch.randn(3, 16)
    assert torch.equal(G(z, noise_mode="const"), again(z, noise_mode="const"))
    assert metadata["medgan"]["kimg"] == 1.5
    assert not any(p.requires_grad for p in again.parameters())


def test_a_zip_of_the_folder_opens_as_well(bundle, tmp_path):
    folder, G = bundle
    path = shutil.make_archive(str(tmp_path / "zipped"), "zip", folder)
    again, _ = read_bundle(tmp_path / "zipped.zip")
    assert zipfile.is_zipfile(path)
    assert torch.equal(G.synthesis.b4.const, again.synthesis.b4.const)


@pytest.mark.filterwarnings("ignore")
def test_monai_opens_it_and_samples(bundle):
    from monai.bundle import load

    folder, G = bundle
    network = load("bundle", bundle_dir=str(folder.parent), workflow_type="inference", source="github")
    module = network if isinstance(network, torch.nn.Module) else network.network_def
    assert torch.equal(module.state_dict()["synthesis.b4.const"], G.synthesis.b4.const)
    assert module(torch.randn(2, 16)).shape == (2, 1, 32, 32)


def test_monai_runs_it_from_its_folder_alone(bundle, tmp_path):
    """`python -m monai.bundle run`, as the model card says it: the images of `medgan generate`, to the last bit."""
    folder, _ = bundle
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = ["--output_dir", str(tmp_path / "images"), "--seeds", "3-4", "--psi", "0.5"]
    done = subprocess.run([*command, *options], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    from medgan.sampling.generate import Drawing

    expected = sample(read_bundle(folder)[0], [3, 4], Drawing(psi=0.5))
    for seed, image in zip((3, 4), expected, strict=True):
        picture = Image.open(tmp_path / f"images/seed{seed:010d}.png")
        assert np.array_equal(np.asarray(picture), image[0])
        assert picture.text["synthetic"] == "true"


def test_checksums_cover_every_file_as_sha256sum_reads_them(bundle):
    folder, _ = bundle
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    lines = dict(reversed(line.split("  ")) for line in (folder / SUMS).read_text().splitlines())
    assert lines == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if name != SUMS}
    assert len(lines) == 5
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("name", ["LICENSE", "configs/inference.json", "configs/metadata.json", "docs/README.md", "models/model.pt"])
def test_one_changed_byte_of_any_file_is_found(bundle, tmp_path, name):
    folder, _ = bundle
    path = folder / name
    # Bytes that change no meaning of JSON or Markdown: only the checksum can see them.
    path.write_bytes(path.read_bytes() + b"\n")
    shutil.make_archive(str(tmp_path / "zipped"), "zip", folder)
    for place in (folder, tmp_path / "zipped.zip"):
        with pytest.raises(
            DataError, match="not those its metadata names" if name == "models/model.pt" else f"^{name} in the bundle is not"
        ):
            read_bundle(place)
    path.unlink()
    with pytest.raises((DataError, InputError), match="has no configs/metadata.json" if "metadata" in name else f"the bundle lacks {name}"):
        read_bundle(folder)


def test_a_bundle_without_its_checksums_is_refused_and_a_first_one_that_had_none_is_read(bundle):
    folder, _ = bundle
    (folder / SUMS).unlink()
    with pytest.raises(DataError, match="the bundle lacks SHA256SUMS"):
        read_bundle(folder)
    metadata = json.loads((folder / "configs/metadata.json").read_text())
    del metadata["medgan"]["checksums"]
    (folder / "configs/metadata.json").write_text(json.dumps(metadata))
    assert read_bundle(folder)[1]["medgan"]["kimg"] == 1.5


def test_a_filled_in_card_is_taken_once_its_checksum_is_renewed(bundle):
    folder, _ = bundle
    card = folder / "docs/README.md"
    card.write_text(card.read_text().replace("**TODO**: number, sex, age", "205 patients"))
    with pytest.raises(DataError, match=r"docs/README.md") as error:
        read_bundle(folder)
    assert error.value.fix.endswith(RENEW)
    assert RENEW in card.read_text()
    subprocess.run(RENEW, shell=True, cwd=folder, check=True)
    read_bundle(folder)


def test_the_card_says_what_is_known_and_marks_what_is_not(bundle):
    text = (bundle[0] / "docs/README.md").read_text()
    metadata = json.loads((bundle[0] / "configs/metadata.json").read_text())
    for known in (
        "77",
        "ct-liver",
        "level 50, width 350 HU: value = 50 + 175 x",
        "1.5 thousand",
        metadata["medgan"]["model_sha256"],
        "ab" * 32,
    ):
        assert known in text
    assert "not for diagnostic use" in text
    for section in (
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Training data",
        "Evaluation data",
        "Ethical considerations",
        "Caveats",
    ):
        assert f"\n## {section}\n" in text
    unknown = [line for line in text.splitlines() if "**TODO**" in line]
    assert len(unknown) == 11
    assert any(line.startswith("| Ethics and consent | **TODO**") for line in unknown)
    assert any(line.startswith("| Seed | **TODO**") for line in unknown)


def test_a_window_goes_back_to_the_scans_unit():
    """Level 50, width 350: black is -125 HU, white 225 HU, the middle 50 HU; and Window itself forwards, for every grey."""
    window = window_of(RECIPES.get("ct-liver").to_dict())
    assert [window["intercept"] + window["slope"] * p for p in (0, 127.5, 255)] == pytest.approx([-125, 50, 225], abs=1e-9)
    assert (window["unit"], window["function"]) == ("HU", "LINEAR_EXACT")
    greys = torch.arange(256, dtype=torch.float64)
    values = window["intercept"] + window["slope"] * greys
    assert torch.equal((255 * Window(50, 350)(values)).round(), greys)


def paper() -> Recipe:
    return Recipe(**{**RECIPES.get("ct-liver").__dict__, "paper_compatible": True})


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (RECIPES.get("mr"), "own percentiles"),
        (RECIPES.get("acdc"), "own range"),
        (RECIPES.get("xray"), "own header"),
        (paper(), "own range"),
        (Recipe(name="x", title="", source="", level=1, width=2), "MONOCHROME1"),
        (None, "not known"),
    ],
)
def test_where_there_is_no_way_back_the_reason_stands(recipe, reason):
    window = window_of(recipe and recipe.to_dict())
    assert reason in window["reason"]
    assert "slope" not in window


def test_a_conditional_bundle_says_its_label_and_dcgan_loads_too(tmp_path):
    torch.manual_seed(0)
    arguments = {**ARGUMENTS, "c_dim": 3, "img_channels": 3}
    write_bundle(tmp_path / "a", Generator(**arguments), family="stylegan2", arguments=arguments, details={})
    data = read_bundle(tmp_path / "a")[1]["network_data_format"]
    assert data["inputs"]["label"]["num_channels"] == 3
    assert data["outputs"]["image"]["channel_def"] == {"0": "red", "1": "green", "2": "blue"}
    small = {"z_dim": 8, "img_resolution": 28, "img_channels": 1, "channel_base": 112, "channel_max": 16}
    write_bundle(tmp_path / "b", dcgan.Generator(**small), family="dcgan", arguments=small, details={})
    assert "label" not in read_bundle(tmp_path / "b")[1]["network_data_format"]["inputs"]


@pytest.mark.parametrize(
    "changes",
    [{"family": "stylegan4"}, {"arguments": {**ARGUMENTS, "attention": True}}, {"discriminator": {"arguments": {"tall": 1}, "sha256": ""}}],
)
def test_a_bundle_of_a_newer_version_says_so(bundle, changes):
    folder, _ = bundle
    read = read_discriminator if "discriminator" in changes else read_bundle
    if "discriminator" in changes:
        D = {"img_resolution": 32, "img_channels": 1, "channel_base": 256, "channel_max": 8}
        write_bundle(folder, Generator(**ARGUMENTS), family="stylegan2", arguments=ARGUMENTS, details={}, D=(Discriminator(**D), D))
        digest = json.loads((folder / "configs/metadata.json").read_text())["medgan"]["discriminator"]["sha256"]
        changes["discriminator"]["sha256"] = digest
    rewrite(folder, **changes)
    with pytest.raises(DataError, match=r"written by medgan 0\.\d+\.\d+, is none that medgan 0\.\d+\.\d+ knows") as error:
        read(folder)
    assert error.value.fix == "upgrade medgan"


def test_wrong_bundles(bundle, tmp_path):
    folder, _ = bundle
    with pytest.raises(InputError, match="not a medgan bundle"):
        read_bundle(tmp_path)
    rewrite(folder, arguments={**ARGUMENTS, "channel_max": 4})
    with pytest.raises(DataError, match="do not fit"):
        read_bundle(folder)
    rewrite(folder, model_sha256="00" * 32)
    with pytest.raises(DataError, match=r"models/model.pt in the bundle is not the file"):
        read_bundle(folder)
    rewrite(folder, format="two")
    with pytest.raises(DataError, match="not complete"):
        read_bundle(folder)
    rewrite(folder, format=99)
    with pytest.raises(DataError, match="format 99") as error:
        read_bundle(folder)
    assert error.value.fix == "upgrade medgan"
    (folder / "configs/metadata.json").write_text("{}")
    with pytest.raises(DataError, match="not written by medgan"):
        read_bundle(folder)
