"""Synthetic images: same seed same pixels, what the PNGs say, what the folder holds."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from medgan.commands.generate import parse_seeds
from medgan.errors import ConfigError
from medgan.networks.stylegan2 import Generator
from medgan.sampling.generate import sample, to_uint8, write_images
from tests.golden import Golden

METADATA = {"medgan": {"model_sha256": "ab" * 32}}


@pytest.fixture
def G():
    torch.manual_seed(0)
    G = Generator(16, 0, 16, 32, 1, channel_base=256, channel_max=8, mapping_layers=2)
    for name, p in G.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.ones_(p)
    return G.eval()


def test_an_image_depends_on_its_seed_and_not_on_its_batch(G):
    together, alone = sample(G, range(7), batch=4), np.concatenate([sample(G, [s]) for s in range(7)])
    # Batches round differently in the last bit of float32, which may turn one grey level.
    assert np.abs(together.astype(int) - alone).max() <= 1
    assert not np.array_equal(together[0], together[1])


def test_a_conditional_generator_draws_a_class_with_each_seed():
    torch.manual_seed(0)
    G = Generator(16, 3, 16, 32, 1, channel_base=256, channel_max=8, mapping_layers=2).eval()
    together, alone = sample(G, range(5), batch=2), np.concatenate([sample(G, [s]) for s in range(5)])
    assert np.abs(together.astype(int) - alone).max() <= 1
    fixed = sample(G, [4], c=torch.eye(3)[[np.random.RandomState(4).randint(3)]])
    assert np.array_equal(fixed[0], alone[4])


def test_noise_belongs_to_the_seed(G):
    assert np.array_equal(sample(G, [3]), sample(G, [3]))
    assert not np.array_equal(sample(G, [3], noise_mode="none"), sample(G, [3]))


def test_quantisation_is_the_official_one(golden):
    ref = Golden(golden, "g32_gray")
    assert torch.equal(to_uint8(ref["syn/img_const"]), ref["out/uint8"])


def test_quantisation_by_hand():
    assert to_uint8(torch.tensor([-2.0, -1.0, 0.0, 0.9, 1.0, 3.0])).tolist() == [0, 0, 128, 242, 255, 255]


@pytest.mark.parametrize(("text", "seeds"), [("0-3", [0, 1, 2, 3]), ("7", [7]), ("1,5, 7-9", [1, 5, 7, 8, 9])])
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1-", "0-99999999999"])
def test_wrong_seeds(text):
    with pytest.raises(ConfigError, match="--seeds"):
        parse_seeds(text)


@pytest.mark.parametrize("form", ["zip", "png"])
def test_folder(tmp_path, G, form):
    summary = write_images(G, METADATA, range(10), tmp_path, psi=0.7, form=form, batch=4)
    assert summary["images"] == 10
    rows = list(csv.DictReader((tmp_path / "manifest.csv").open()))
    assert [row["seed"] for row in rows] == [str(i) for i in range(10)]
    if form == "zip":
        archive = zipfile.ZipFile(tmp_path / "synthetic.zip")
        contents = {name: archive.read(name) for name in archive.namelist()}
    else:
        assert not (tmp_path / "synthetic.zip").exists()
        contents = {path.name: path.read_bytes() for path in tmp_path.glob("seed*.png")}
    assert {row["file"]: row["sha256"] for row in rows} == {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    picture = Image.open(io.BytesIO(contents["seed0000000003.png"]))
    assert (picture.mode, picture.size) == ("L", (32, 32))
    assert picture.text["synthetic"] == "true"
    assert picture.text["seed"] == "3"
    assert picture.text["model"] == "ab" * 32
    assert "not for diagnostic use" in picture.text["disclaimer"]
    assert Image.open(tmp_path / "contact_sheet.png").size == (8 * 32, 2 * 32)


def test_single_files_leave_an_earlier_zip_alone(tmp_path, G):
    (tmp_path / "synthetic.zip").write_bytes(b"an earlier set")
    write_images(G, METADATA, range(2), tmp_path, psi=1.0, form="png")
    assert (tmp_path / "synthetic.zip").read_bytes() == b"an earlier set"


def test_the_same_call_writes_the_same_bytes(tmp_path, G):
    for name in ("a", "b"):
        write_images(G, METADATA, range(5), tmp_path / name, psi=1.0, form="zip")
    assert (tmp_path / "a/synthetic.zip").read_bytes() == (tmp_path / "b/synthetic.zip").read_bytes()
