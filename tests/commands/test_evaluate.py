import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from medgan import weights
from medgan.cli import main
from medgan.data.dataset import COLUMNS, image_name, open_dataset, write_dataset
from medgan.tables import csv_text
from tests.metrics.phantoms import waves
from tests.metrics.pretrained import inception


def folder_of(path, images):
    path.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[0]).save(path / f"{i:03}.png")
    return str(path)


def dataset_of(path, images, subjects):
    """A dataset as `prepare` writes it, with the patient of each image in its manifest."""
    pngs = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image[0]).save(buffer, "PNG")
        pngs.append(buffer.getvalue())
    rows = [{"image": image_name(i), "subject_key": subject} for i, subject in enumerate(subjects)]
    write_dataset(path, pngs, None, csv_text(COLUMNS, rows), {})
    return str(path)


def evaluate(*words):
    return CliRunner().invoke(main, ["evaluate", *words])


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Features of the test's sets go into a cache of its own, weights come from where they are."""
    monkeypatch.setenv("MEDGAN_WEIGHTS", str(inception().parent))
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "cache"))


def test_two_folders_give_one_json_object(tmp_path, own_cache):
    real, fake = folder_of(tmp_path / "real", waves(4, size=32)), folder_of(tmp_path / "fake", waves(3, size=32, first=50))
    done = evaluate("--real", real, "--fake", fake, "--metrics", "fid,kid", "--out", str(tmp_path / "made" / "metrics.json"))
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / "made" / "metrics.json").read_text())
    assert (result["n_real"], result["n_fake"], list(result["metrics"])) == (4, 3, ["fid", "kid"])
    assert result["metrics"]["fid"]["value"] > 1
    assert "W_SMALL_N 4 real and 3 synthetic images" in done.stderr
    assert str(tmp_path) not in done.stdout
    assert result["metrics"]["fid"]["floor"]["why"] == "fewer than 24 images of a set"
    assert len(result["real"]) == 64
    # The same images again, from the cache, against themselves.
    same = evaluate("--real", real, "--fake", real, "--metrics", "fid")
    assert json.loads(same.stdout)["metrics"]["fid"]["value"] == pytest.approx(0, abs=1e-6)


def test_a_bundle_is_sampled_from_the_seed_on(tmp_path, own_cache):
    import torch

    from medgan.networks.bundle import write_bundle
    from medgan.networks.stylegan2 import Generator

    torch.manual_seed(0)
    arguments = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "img_channels": 1}
    write_bundle(tmp_path / "bundle", Generator(**arguments), family="stylegan2", arguments=arguments, details={})
    real = folder_of(tmp_path / "real", waves(3, size=16))
    words = ["--real", real, "--bundle", str(tmp_path / "bundle"), "--n-fake", "3", "--metrics", "fid"]
    done = evaluate(*words)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["n_fake"] == 3


def test_a_folder_that_generate_wrote_is_compared(tmp_path, own_cache):
    import torch

    from medgan.networks.stylegan2 import Generator
    from medgan.sampling.generate import write_images

    torch.manual_seed(0)
    G = Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=1).eval()
    write_images(G, {"medgan": {"model_sha256": "0" * 64}}, [0, 1, 2], tmp_path / "made", form="png")
    real = folder_of(tmp_path / "real", waves(3, size=16))
    done = evaluate("--real", real, "--fake", str(tmp_path / "made"), "--metrics", "fid")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["n_fake"] == 3


def test_any_equal_size_is_compared(tmp_path, own_cache):
    real = folder_of(tmp_path / "real", waves(3, size=40)[:, :, :30])
    done = evaluate("--real", real, "--fake", real, "--metrics", "fid")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["fid"]["value"] == pytest.approx(0, abs=1e-6)


def test_a_bundle_is_sampled_in_fp32_on_the_chosen_device(tmp_path, monkeypatch):
    import torch

    from medgan.commands.evaluate import bundle_sampler
    from medgan.errors import DeviceError
    from medgan.machine import set_precision
    from medgan.metrics.config import EvaluateConfig
    from medgan.metrics.evaluate import Evaluator
    from medgan.networks.bundle import write_bundle
    from medgan.networks.stylegan2 import Generator

    arguments = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "img_channels": 1}
    write_bundle(tmp_path / "bundle", Generator(**arguments), family="stylegan2", arguments=arguments, details={})
    set_precision("tf32")
    real = open_dataset(Path(folder_of(tmp_path / "real", waves(3, size=16))), any_size=True)
    bundle_sampler(tmp_path / "bundle", EvaluateConfig(), real)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    monkeypatch.setenv("MEDGAN_DEVICE", "nonsense")
    with pytest.raises(DeviceError, match="MEDGAN_DEVICE=nonsense"):
        bundle_sampler(tmp_path / "bundle", EvaluateConfig(), real)
    with pytest.raises(DeviceError, match="MEDGAN_DEVICE=nonsense"):
        Evaluator(["fid"])


def test_absent_weights_are_exit_69(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDGAN_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "MOUNT", tmp_path / "mount")
    real = folder_of(tmp_path / "real", waves(2, size=32))
    done = evaluate("--real", real, "--fake", real, "--out", str(tmp_path / "metrics.json"))
    assert done.exit_code == 69
    assert done.stderr.splitlines()[-1].startswith("ERROR E_WEIGHTS inception-2015-12-05 not found")
    assert not (tmp_path / "metrics.json").exists()


def test_sets_of_other_size_are_exit_65(tmp_path, own_cache):
    real, fake = folder_of(tmp_path / "real", waves(2, size=32)), folder_of(tmp_path / "fake", waves(2, size=16))
    done = evaluate("--real", real, "--fake", fake, "--out", str(tmp_path / "metrics.json"))
    assert done.exit_code == 65
    assert "real images are 32 x 32" in done.stderr
    assert not (tmp_path / "metrics.json").exists()


def test_the_floor_has_no_patient_in_both_halves(tmp_path, own_cache):
    """Each patient has four copies of one image: between random halves they are the same images, between halves of patients none is."""
    images, subjects = waves(12, size=32).repeat(4, axis=0), [f"key{i // 4:02}" for i in range(48)]
    whose = dataset_of(tmp_path / "whose.zip", images, subjects)
    anybody = dataset_of(tmp_path / "anybody.zip", images, [""] * 48)
    fake = folder_of(tmp_path / "fake", waves(24, size=32, first=50))
    found = {}
    for name, real in (("patient", whose), ("image", anybody)):
        done = evaluate("--real", real, "--fake", fake, "--metrics", "fid")
        assert done.exit_code == 0, done.stderr
        result = json.loads(done.stdout)
        found[name] = result["metrics"]["fid"]
        assert found[name]["floor"]["by"] == name
        assert ("W_NO_PATIENTS" in done.stderr) == (name == "image")
        assert "key0" not in done.output
    assert found["patient"]["value"] == pytest.approx(found["image"]["value"], rel=1e-6)
    assert found["patient"]["floor"]["value"] > 2 * found["image"]["floor"]["value"]
    assert "12 groups of 12 patients and 12 of synthetic images" in found["patient"]["interval_method"]
    assert open_dataset(Path(whose)).subjects() == subjects
    assert open_dataset(Path(anybody)).subjects() is None


def test_patients_of_the_second_set_count_too(tmp_path, own_cache):
    """Held-out patients against training patients: what real images are worth against one another."""
    images = waves(48, size=32)
    real = dataset_of(tmp_path / "real.zip", images[:24], [f"a{i // 2}" for i in range(24)])
    other = dataset_of(tmp_path / "held-out.zip", images[24:], [f"b{i // 4}" for i in range(24)])
    done = evaluate("--real", real, "--fake", other, "--metrics", "fid,ms_ssim,cosine_pixels")
    assert done.exit_code == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    assert "of 12 patients and 6 of 6 patients of the second set" in metrics["fid"]["interval_method"]
    assert metrics["ms_ssim"]["interval_method"] == "standard error of 12 pairs of 6 patients"
    assert metrics["cosine_pixels"]["interval_method"] == "standard error of 276 pairs of 6 patients"
    assert "W_SHARED_PATIENTS" not in done.stderr
    mixed = dataset_of(tmp_path / "mixed.zip", images[24:], [f"{'a' if i < 8 else 'b'}{i // 4}" for i in range(24)])
    done = evaluate("--real", real, "--fake", mixed, "--metrics", "ms_ssim")
    assert "W_SHARED_PATIENTS 2 patients are in both sets" in done.stderr


def test_distances_are_within_classes_in_pixels_and_in_features(tmp_path, own_cache):
    """Classes 0 and 1 by turns; a second evaluation takes the real set's features from the cache, and its classes from the set."""
    sets = {}
    for name, first in (("real", 0), ("fake", 50)):
        pngs = []
        for image in waves(8, size=32, first=first):
            buffer = io.BytesIO()
            Image.fromarray(image[0]).save(buffer, "PNG")
            pngs.append(buffer.getvalue())
        rows = [{"image": image_name(i)} for i in range(8)]
        write_dataset(tmp_path / f"{name}.zip", pngs, [i % 2 for i in range(8)], csv_text(COLUMNS, rows), {})
        sets[name] = str(tmp_path / f"{name}.zip")
    for _ in range(2):
        done = evaluate("--real", sets["real"], "--fake", sets["fake"], "--metrics", "cosine_pixels,cosine_inception", "--n-fake", "6")
        assert done.exit_code == 0, done.stderr
        for entry in json.loads(done.stdout)["metrics"].values():
            # Classes of 3 and 3 of six synthetic images, of 4 and 4 real ones.
            assert (entry["within"], entry["pairs"], entry["real_pairs"]) == ("class", 6, 12)


PIXELS = "ms_ssim,cosine_pixels,ssim_nearest"


def test_intervals_of_pixels_are_left_out_where_nobody_wants_them(tmp_path):
    real, fake = folder_of(tmp_path / "real", waves(8, size=16)), folder_of(tmp_path / "fake", waves(9, size=16, first=50))
    for words, there in (((), True), (("--no-intervals",), False)):
        metrics = json.loads(evaluate("--real", real, "--fake", fake, "--metrics", PIXELS, *words).stdout)["metrics"]
        for entry in metrics.values():
            assert [key in entry for key in ("interval", "real_interval", "difference_interval")] == [there] * 3


def test_pixels_are_compared_with_their_settings(tmp_path):
    real, fake = folder_of(tmp_path / "real", waves(6, size=28)), folder_of(tmp_path / "fake", waves(8, size=28, first=50))
    words = ("--metrics", PIXELS, "--picture-size", "176", "--pairs", "2", "--cosine-pairs", "disjoint", "--center")
    done = evaluate("--real", real, "--fake", fake, *words)
    assert done.exit_code == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    assert (metrics["ms_ssim"]["scales"], metrics["ms_ssim"]["pairs"]) == (5, 2)
    assert (metrics["cosine_pixels"]["pairing"], metrics["cosine_pixels"]["centred"]) == ("disjoint", "yes")
    assert metrics["ssim_nearest"]["images"] == 2


@pytest.mark.parametrize("which", ["real", "fake"])
def test_a_corrupt_image_is_exit_65_without_its_path(tmp_path, which):
    sets = {name: folder_of(tmp_path / name, waves(4, size=32, first=k)) for name, k in (("real", 0), ("fake", 50))}
    path = tmp_path / which / "002.png"
    path.write_bytes(path.read_bytes()[:200])
    done = evaluate("--real", sets["real"], "--fake", sets["fake"], "--metrics", PIXELS, "--out", str(tmp_path / "metrics.json"))
    assert done.exit_code == 65
    assert "ERROR E_DATA" in done.stderr
    assert str(tmp_path) not in done.output
    assert not (tmp_path / "metrics.json").exists()


def test_too_few_images_name_the_option(tmp_path):
    real, fake = folder_of(tmp_path / "real", waves(4, size=32)), folder_of(tmp_path / "fake", waves(4, size=32, first=50))
    done = evaluate("--real", real, "--fake", fake, "--metrics", "cosine_pixels", "--n-fake", "2", "--pairs", "1")
    assert done.exit_code == 0, done.stderr
    one = folder_of(tmp_path / "one", waves(1, size=32))
    for metric in ("ms_ssim", "cosine_pixels", "precision_pixels", "ms_ssim_saad2022"):
        done = evaluate("--real", real, "--fake", one, "--metrics", metric)
        assert done.exit_code == 65
        assert "--n-fake" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 2, "--fake or the generator as --bundle"),
        (["--fake", "."], 66, "--real names nothing"),
        (["--fake", ".", "--resize", "bicubic"], 2, "bicubic"),
        (["--fake", ".", "--n-fake", "1"], 2, "--n-fake 1"),
        (["--fake", ".", "--pairs", "0"], 2, "--pairs 0"),
        (["--fake", ".", "--cosine-pairs", "some"], 2, "some"),
    ],
)
def test_bad_options_touch_nothing(tmp_path, words, code, text):
    done = evaluate("--real", str(tmp_path / "SMITH^JOHN"), *words)
    assert done.exit_code == code
    assert text in done.stderr
    assert "SMITH" not in done.stderr


def test_a_dry_run_prints_the_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGAN_N_FAKE", "777")
    done = evaluate("--real", "a", "--fake", "b", "--metrics", "fid50k_full", "--dry-run")
    assert json.loads(done.stdout) | {"batch": 0} == {
        "metrics": ["fid50k_full"],
        "extractor": "inception-2015-12-05",
        "resize": "tf1",
        "n_fake": 777,
        "batch": 0,
        "gpus": 1,
        "intervals": True,
        "seed": 0,
        "pairs": 1000,
        "picture_size": 0,
        "cosine_pairs": "all",
        "center": False,
    }


def test_settings_come_from_the_file_in_medgan_config(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"n_fake": 321}')
    monkeypatch.setenv("MEDGAN_CONFIG", str(tmp_path / "config.json"))
    assert json.loads(evaluate("--real", "a", "--fake", "b", "--dry-run").stdout)["n_fake"] == 321


def test_waves_are_not_all_alike():
    assert len({image.tobytes() for image in waves(60)}) == 60
    assert np.ptp(waves(1)) > 200


def test_one_image_is_too_few_for_distances_of_features(tmp_path, own_cache):
    real, one = folder_of(tmp_path / "real", waves(4, size=32)), folder_of(tmp_path / "one", waves(1, size=32))
    for metric in ("fid", "kid", "recall_inception", "cosine_inception"):
        done = evaluate("--real", real, "--fake", one, "--metrics", metric)
        assert done.exit_code == 65, metric
        assert "fix: " in done.stderr.splitlines()[-1]
        assert "--n-fake" in done.stderr.splitlines()[-1], metric
