import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from medgan import weights
from medgan.cli import main
from medgan.data.dataset import image_name, open_dataset, write_dataset
from medgan.networks.bundle import write_bundle
from medgan.networks.stylegan2 import Discriminator, Generator
from medgan.tables import csv_text
from tests.metrics.patients import patients
from tests.metrics.phantoms import waves

SIZE = 32


def folder_of(path: Path, images: np.ndarray) -> Path:
    path.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[0]).save(path / f"{i:03}.png")
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("SMITH^JOHN")
    train, _ = patients(0, 15, 2, SIZE)
    fake, _ = patients(3000, 12, 1, SIZE)
    copied = fake.copy()
    copied[3], copied[7] = train[5], train[20][:, :, ::-1]
    return {
        "train": folder_of(root / "train", train),
        "held_out": folder_of(root / "held_out", patients(1000, 25, 1, SIZE)[0]),
        "fake": folder_of(root / "fake", fake),
        "copied": folder_of(root / "copied", copied),
    }


def audit(*words):
    return CliRunner().invoke(main, ["audit", "--features", "thumbnails", *map(str, words)])


def test_two_copies_are_exit_77_and_lie_in_the_gallery(folders, tmp_path):
    done = audit("--train", folders["train"], "--held-out", folders["held_out"], "--fake", folders["copied"], "--out", tmp_path)
    assert done.exit_code == 77
    assert done.stderr.splitlines()[-1].startswith("ERROR E_PRIVACY 2 of 12 images are near copies of training slices; fix: ")
    result = json.loads((tmp_path / "audit.json").read_text())
    assert json.loads(done.stdout) == result
    assert (result["verdict"], result["near_copies"]["count"]) == ("refused", 2)
    pairs = json.loads((tmp_path / "pairs" / "pairs.json").read_text())
    assert {(pair["fake"], pair["train"]) for pair in pairs[:2]} == {(3, 5), (7, 20)}
    for pair in pairs[:2]:
        picture = np.asarray(Image.open(tmp_path / "pairs" / pair["picture"])).astype(int)
        left, middle, right = np.split(picture, 3, axis=1)
        # The synthetic image is shown turned onto the training image, so that the eye sees a copy as one.
        assert (left == middle).all()
        assert (right == 128).all()
    assert "SMITH" not in done.stdout + done.stderr


def test_strangers_pass_and_no_training_image_is_named_in_the_result(folders, tmp_path):
    done = audit("--train", folders["train"], "--held-out", folders["held_out"], "--fake", folders["fake"], "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["verdict"] == "passed"
    assert result["membership"] == {"auc": None, "reason": "no discriminator was given (--run)"}
    assert ".png" not in done.stdout
    assert "SMITH" not in done.stdout + done.stderr


def dataset_of(path: Path, images: np.ndarray, keys: list[str], *, bits: int = 8) -> Path:
    """A conditional dataset as `prepare` writes it, two classes, with patients and stored values of 8 or 16 bits."""
    stored = images.astype(np.uint16) * 257 if bits == 16 else images
    files = []
    for image in stored:
        buffer = io.BytesIO()
        Image.fromarray(image[0]).save(buffer, format="PNG")
        files.append(buffer.getvalue())
    rows = [{"image": image_name(i), "subject_key": key} for i, key in enumerate(keys)]
    write_dataset(path, files, [i % 2 for i in range(len(images))], csv_text(("image", "subject_key"), rows), {"bits": bits})
    return path


@pytest.mark.parametrize("bits", [8, 16])
def test_copies_of_a_conditional_training_set_of_8_and_16_bits_are_found(tmp_path, bits):
    """One honest set and one with a mirrored near copy of a slice of the second class, compared with all classes; patients come from the manifest."""
    train, keys = patients(0, 24, 2, SIZE)
    data = dataset_of(tmp_path / "data.zip", train, keys, bits=bits)
    dataset_of(tmp_path / "data.held-out.zip", *patients(1000, 12, 2, SIZE), bits=bits)
    fake = patients(3000, 30, 1, SIZE)[0]
    assert (open_dataset(data).bits, open_dataset(data).classes) == (bits, 2)
    done = audit("--train", data, "--fake", folder_of(tmp_path / "honest", fake), "--out", tmp_path / "audit")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["train_patients"], result["held_out_patients"], result["patients_known"]) == (24, 12, True)
    assert result["calibrated_on"] == "held-out patients"
    fake[11] = np.clip(1.04 * train[21][:, :, ::-1] + np.random.default_rng(0).normal(0, 2, train[21].shape), 0, 255)
    done = audit("--train", data, "--fake", folder_of(tmp_path / "copied", fake), "--out", tmp_path / "audit")
    assert done.exit_code == 77
    first = json.loads((tmp_path / "audit" / "pairs" / "pairs.json").read_text())[0]
    assert (first["fake"], first["train"], first["near_copy"]) == (11, 21, True)


def test_the_difference_of_a_pair_is_that_of_its_structure(folders, tmp_path):
    """A darker copy of less contrast shows no difference: the audit disregards both, and so must the eye."""
    train = open_dataset(folders["train"]).images(range(30))
    fake = patients(3000, 12, 1, SIZE)[0]
    fake[2] = np.round(0.7 * train[9] + 20)
    audit("--train", folders["train"], "--fake", folder_of(tmp_path / "fake", fake), "--out", tmp_path / "audit")
    right = np.split(np.asarray(Image.open(tmp_path / "audit" / "pairs" / "01.png")).astype(int), 3, axis=1)[2]
    assert abs(right - 128).max() <= 4


def test_without_held_out_images_it_says_so(folders, tmp_path):
    done = audit("--train", folders["train"], "--fake", folders["fake"], "--out", tmp_path, "--pairs", 0)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["why_not_calibrated"].startswith("there are no held-out images and training images of unknown patients")
    assert not (tmp_path / "pairs").exists()


def bundle(path: Path) -> Path:
    torch.manual_seed(0)
    arguments = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": SIZE, "img_channels": 1, "channel_base": 256, "channel_max": 16}
    own = {name: value for name, value in arguments.items() if name not in ("z_dim", "w_dim")}
    D = Discriminator(**own)
    write_bundle(path, Generator(**arguments), family="stylegan2", arguments=arguments, details={}, D=(D, own))
    return path


def test_a_bundle_is_sampled_and_its_discriminator_asked(folders, tmp_path):
    network = bundle(tmp_path / "bundle")
    done = audit(
        "--train", folders["train"], "--held-out", folders["held_out"], "--bundle", network, "--run", network, "--n-fake", 5, "--out", tmp_path / "audit"
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["n_fake"] == 5
    member = result["membership"]
    assert (member["n_train"], member["n_held_out"]) == (30, 25)
    assert member["interval"][0] <= member["auc"] <= member["interval"][1]
    assert member["fpr 0.001"]["tpr"] is None
    assert sorted(path.name for path in (tmp_path / "audit").iterdir()) == ["audit.json", "pairs"]


def test_a_discriminator_that_remembers_is_found_out(folders):
    """A score that is high on dark images, asked of dark training and bright held-out ones, in mixed batches."""
    from medgan.commands.audit import discriminator_scores

    class Darkness(torch.nn.Module):
        c_dim = 0

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, c):
            assert x.shape[0] == 32
            assert -1 <= x.min() <= x.max() <= 1
            return -x.mean((1, 2, 3))[:, None]

    train, fake = open_dataset(folders["train"]), open_dataset(folders["fake"])
    ours, theirs = discriminator_scores(Darkness(), [(train, np.arange(len(train))), (fake, np.array([2, 9]))], np.random.default_rng(0))
    expected = -(train.images(range(len(train))).astype(float) / 127.5 - 1).mean((1, 2, 3))
    assert ours == pytest.approx(expected, abs=1e-5)
    assert theirs == pytest.approx(-(fake.images([2, 9]).astype(float) / 127.5 - 1).mean((1, 2, 3)), abs=1e-5)


def test_a_batch_of_the_discriminator_mixes_both_kinds(folders):
    """It compares the images of a batch: one that answers with the batch's mean must answer all of them about alike."""
    from medgan.commands.audit import discriminator_scores

    class OfTheBatch(torch.nn.Module):
        c_dim = 0

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, c):
            return x.mean().expand(len(x))[:, None]

    class Flat:
        def __init__(self, level):
            self.level = level

        def images(self, numbers):
            return np.full((len(numbers), 1, 8, 8), self.level, np.uint8)

    parts = [(Flat(level), np.arange(320)) for level in (0, 255)]
    dark, bright = discriminator_scores(OfTheBatch(), parts, np.random.default_rng(0))
    # 20 batches of 32: alone, dark ones would have -1 and bright ones 1.
    assert abs(bright.mean() - dark.mean()) < 0.2


def test_membership_counts_the_patients_of_both_sets(tmp_path):
    train, held_out = patients(0, 14, 2, SIZE), patients(1000, 11, 2, SIZE)
    data = dataset_of(tmp_path / "data.zip", *train)
    dataset_of(tmp_path / "data.held-out.zip", *held_out)
    fake = folder_of(tmp_path / "fake", patients(3000, 5, 1, SIZE)[0])
    done = audit("--train", data, "--fake", fake, "--run", bundle(tmp_path / "bundle"), "--out", tmp_path / "audit")
    assert done.exit_code == 0, done.stderr
    member = json.loads(done.stdout)["membership"]
    assert (member["n_train"], member["train_patients"], member["n_held_out"], member["held_out_patients"]) == (28, 14, 22, 11)


def test_many_images_are_too_many_for_inception_on_a_cpu(monkeypatch):
    from medgan.commands.audit import MOST_ON_CPU, _extractor

    monkeypatch.setenv("MEDGAN_DEVICE", "cpu")
    extractor, reason = _extractor("auto", MOST_ON_CPU + 1, None)
    assert extractor is None
    assert reason == "1501 images are many for Inception on a CPU; --features inception-2015-12-05 takes the time"


def test_sets_of_other_size_are_exit_65(folders, tmp_path):
    other = folder_of(tmp_path / "other", waves(3, size=16))
    done = audit("--train", folders["train"], "--fake", other, "--out", tmp_path / "audit")
    assert done.exit_code == 65
    assert "train 32 x 32 with 1 channel, fake 16 x 16 with 1 channel" in done.stderr
    assert not (tmp_path / "audit" / "audit.json").exists()


@pytest.mark.parametrize("which", ["train", "held_out", "fake"])
def test_a_corrupt_image_is_exit_65_and_leaves_no_verdict_not_even_an_earlier_one(folders, tmp_path, which):
    (tmp_path / "audit" / "pairs").mkdir(parents=True)
    (tmp_path / "audit" / "pairs" / "01.png").write_bytes(b"of an earlier audit")
    (tmp_path / "audit" / "audit.json").write_text('{"verdict": "passed"}')
    sets = dict(folders)
    sets[which] = folder_of(tmp_path / "SMITH^ANNA", open_dataset(folders[which]).images(range(12)))
    path = sets[which] / "007.png"
    path.write_bytes(path.read_bytes()[:200])
    done = audit("--train", sets["train"], "--held-out", sets["held_out"], "--fake", sets["fake"], "--out", tmp_path / "audit")
    assert done.exit_code == 65, done.output
    assert done.stderr.splitlines()[-1].startswith("ERROR E_DATA")
    assert "SMITH" not in done.output
    assert list((tmp_path / "audit").iterdir()) == []


def test_absent_weights_are_thumbnails_unless_they_were_asked_for(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDGAN_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "MOUNT", tmp_path / "mount")
    words = ["audit", "--train", str(folders["train"]), "--fake", str(folders["fake"]), "--out", str(tmp_path / "audit")]
    done = CliRunner().invoke(main, words)
    assert json.loads(done.stdout)["features"] | {"distance": 0} == {
        "name": "thumbnails-24", "sha256": "", "resize": "area", "reason": "the weights of Inception are not here", "distance": 0,
    }  # fmt: skip
    done = CliRunner().invoke(main, [*words, "--features", "inception-2015-12-05"])
    assert done.exit_code == 69


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--train", "."], 2, "--fake or the generator as --bundle"),
        (["--train", "SMITH^JOHN", "--fake", "."], 66, "--train names nothing"),
        (["--train", ".", "--fake", ".", "--run", "SMITH^JOHN"], 66, "--run names nothing"),
        (["--train", ".", "--fake", ".", "--n-fake", "0"], 2, "--n-fake 0"),
        (["--train", ".", "--fake", ".", "--batch", "0"], 2, "--batch 0"),
        (["--train", ".", "--fake", ".", "--pairs", "-1"], 2, "--pairs"),
    ],
)
def test_bad_options_touch_nothing(tmp_path, words, code, text):
    done = audit(*words, "--out", tmp_path / "audit")
    assert done.exit_code == code
    assert text in done.stderr
    assert "SMITH" not in done.stderr
    assert not (tmp_path / "audit").exists()


def test_a_dry_run_prints_the_settings(tmp_path):
    done = audit("--train", "a", "--fake", "b", "--out", "c", "--dry-run")
    assert json.loads(done.stdout) == {"n_fake": 1000, "features": "thumbnails", "pairs": 20, "batch": 32, "seed": 0}
