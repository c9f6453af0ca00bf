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
from medgan.sampling.generate import Drawing, latent, numbered, render, sample, styles, to_uint8, write_images
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


NETWORKS = {
    "tiny": (16, 0, 16, 32, 1, {"channel_base": 256, "channel_max": 8, "mapping_layers": 2}),
    "demo": (64, 0, 64, 64, 1, {"channel_base": 1024, "channel_max": 64, "mapping_layers": 2}),
    "colour with classes": (32, 3, 32, 64, 3, {"channel_base": 2048, "channel_max": 64, "mapping_layers": 4}),
    "128 px": (64, 0, 64, 128, 1, {"channel_base": 2048, "channel_max": 64, "mapping_layers": 8}),
    "wide": (512, 0, 512, 32, 1, {"channel_base": 4096, "channel_max": 256, "mapping_layers": 8}),
}


def network(name):
    *places, options = NETWORKS[name]
    torch.manual_seed(0)
    G = Generator(*places, **options)
    for parameter, p in G.named_parameters():
        if parameter.endswith("noise_strength"):
            torch.nn.init.constant_(p, 0.3)
    return G.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_same_seed_same_pixels_on_any_batch_size(name):
    G = network(name)
    together = sample(G, range(16))
    for size in (1, 3, 5, 16):
        parts = np.concatenate([sample(G, range(start, min(start + size, 16))) for start in range(0, 16, size)])
        assert np.array_equal(parts, together), f"batches of {size}"
    assert np.array_equal(sample(G, [9, 2, 2])[1], together[2])
    assert not np.array_equal(together[0], together[1])


def test_the_network_itself_is_not_that_exact():
    """The reason for fixed groups: the order of additions depends on the batch's size. Should this fail, they can go."""
    G = network("128 px")
    z = torch.randn(8, 64)
    with torch.inference_mode():
        alone = torch.cat([G(one[None], noise_mode="const") for one in z])
        assert not torch.equal(G(z, noise_mode="const"), alone)


def test_a_conditional_generator_draws_a_class_with_each_seed():
    G = network("colour with classes")
    images = sample(G, range(5))
    drawn = int(np.random.RandomState(4).randint(3))
    assert np.array_equal(sample(G, [4], Drawing(category=drawn))[0], images[4])
    assert not np.array_equal(sample(G, [4], Drawing(category=(drawn + 1) % 3))[0], images[4])


def test_a_comparison_draws_classes_as_often_as_the_dataset_has_them():
    """Three of four images are of class 0: about 300 of 400 seeds draw it (standard deviation 8.7); without labels half of them do."""
    G = Generator(z_dim=8, c_dim=2, w_dim=8, img_resolution=16, img_channels=1, channel_base=64, channel_max=8, mapping_layers=1).eval()
    labels = torch.eye(2)[[0, 0, 1, 0]]
    assert abs(Drawing(among=labels).labels(G, range(400))[:, 0].sum() - 300) < 30
    assert abs(Drawing().labels(G, range(400))[:, 0].sum() - 200) < 30
    vectors = torch.tensor([[0.5, -1.0]])
    assert torch.equal(Drawing(among=vectors).labels(G, [7, 8]), vectors.expand(2, 2))
    draw = numbered(G, 10, labels=labels[:2])
    assert np.array_equal(draw(0, 3), sample(G, [10, 11, 12], Drawing(category=0)))
    assert np.array_equal(draw(1, 1)[0], draw(0, 3)[1])


def test_truncation_with_a_cutoff_leaves_the_finer_styles(golden):
    """Against the mapping's own definition: rows below the cutoff are w_avg + psi (w - w_avg), the others w."""
    G = network("demo")
    G.mapping.w_avg.normal_()
    z = torch.from_numpy(latent(5, 64))[None].float()
    ws, all_ws = styles(G, z.numpy(), None, Drawing(psi=0.5, cutoff=3)), G.mapping(z)
    assert torch.allclose(ws[:, :3], G.mapping.w_avg + 0.5 * (all_ws[:, :3] - G.mapping.w_avg), atol=1e-5)
    assert torch.allclose(ws[:, 3:], all_ws[:, 3:], atol=1e-5)
    assert np.array_equal(sample(G, [5], Drawing(psi=0.5, cutoff=3)), render(G, ws, [5], Drawing()))


@pytest.mark.parametrize(
    ("name", "drawing", "message"),
    [
        ("tiny", {"category": 0}, "without classes"),
        ("colour with classes", {"category": 3}, "--class 0 to 2, or all"),
        ("tiny", {"cutoff": 9}, "--psi-cutoff 0 to 8"),
    ],
)
def test_what_a_generator_has_not_is_refused(tmp_path, name, drawing, message):
    with pytest.raises(ConfigError) as error:
        write_images(network(name), METADATA, [0], tmp_path / "out", form="png", drawing=Drawing(**drawing))
    assert message in error.value.line
    assert not (tmp_path / "out").exists()


def test_noise_belongs_to_the_seed(G):
    assert np.array_equal(sample(G, [3]), sample(G, [3]))
    stored = sample(G, [3], Drawing(noise="const"))
    assert not np.array_equal(stored, sample(G, [3]))
    assert not np.array_equal(stored, sample(G, [3], Drawing(noise="none")))
    assert np.array_equal(stored, sample(G, [3], Drawing(noise="const")))


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
    summary = write_images(G, METADATA, range(10), tmp_path, form=form, drawing=Drawing(psi=0.7, noise="const"))
    assert summary["images"] == 10
    rows = list(csv.DictReader((tmp_path / "manifest.csv").open()))
    assert [row["seed"] for row in rows] == [str(i) for i in range(10)]
    assert {(row["psi"], row["psi_cutoff"], row["class"], row["noise"]) for row in rows} == {("0.7", "0", "", "const")}
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
    assert (picture.text["psi"], picture.text["noise"]) == ("0.7", "const")
    sheet = Image.open(tmp_path / "contact_sheet.png")
    assert sheet.size == (8 * 32, 2 * 32)
    assert sheet.text["synthetic"] == "true"


def test_single_files_leave_an_earlier_zip_alone(tmp_path, G):
    (tmp_path / "synthetic.zip").write_bytes(b"an earlier set")
    write_images(G, METADATA, range(2), tmp_path, form="png")
    assert (tmp_path / "synthetic.zip").read_bytes() == b"an earlier set"


def test_the_same_call_writes_the_same_bytes(tmp_path, G):
    for name in ("a", "b"):
        write_images(G, METADATA, range(5), tmp_path / name, form="zip")
    assert (tmp_path / "a/synthetic.zip").read_bytes() == (tmp_path / "b/synthetic.zip").read_bytes()
