import json

import numpy as np
import pytest
import torch

from medgan.errors import ConfigError, DataError, WeightsError
from medgan.metrics import METRICS
from medgan.metrics.config import EvaluateConfig
from medgan.metrics.evaluate import Evaluator
from medgan.metrics.features import Features
from medgan.metrics.fid import FID, FID50kFull
from medgan.metrics.kid import KID
from medgan.metrics.pictures import Pictures
from medgan.metrics.values import compare
from tests.metrics.phantoms import ImageSet, gaussian, waves
from tests.metrics.pretrained import fetched, inception
from tests.metrics.test_path_length import walk


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory):
    inception()
    return Evaluator(["fid", "kid", "fid50k_full"], cache=tmp_path_factory.mktemp("cache"), batch=3)


@pytest.fixture(scope="module")
def result(evaluator):
    evaluator.reference(ImageSet(waves(5)))
    steps = []
    found = evaluator.evaluate(ImageSet(waves(4, first=20)), n_fake=50_000, step=lambda done, total: steps.append((done, total)))
    return found | {"steps": steps}


# Cosine distance says how varied a set is, not how far from another.
OF_FEATURES = [name for name in METRICS.names() if METRICS.get(name).needs in ("moments", "features") and "cosine" not in name]


@pytest.mark.parametrize("name", OF_FEATURES)
def test_every_metric_of_features_keeps_the_contract(name):
    metric = METRICS.get(name)()
    same = Features.of(gaussian(30, 8, 1))
    near, far = Features.of(gaussian(30, 8, 2, shift=0.5)), Features.of(gaussian(30, 8, 3, shift=3))
    at_home, at_near, at_far = (float(metric(real=same, fake=other)["value"]) for other in (same, near, far))
    assert (at_far < at_near) if metric.higher_is_better else (at_home < at_near < at_far)
    assert metric(real=same, fake=near) == metric(real=same, fake=near)
    assert METRICS.get(metric.instead) if metric.n_fake else not metric.instead
    json.dumps(metric(real=same, fake=near), allow_nan=False)


@pytest.mark.parametrize("name", [name for name in METRICS.names() if METRICS.get(name).needs == "images"])
def test_every_metric_of_images_keeps_the_contract(name):
    metric = METRICS.get(name)()
    if name.startswith("lpips"):
        fetched(name.replace("_", "-"))
    real = waves(10, 32)
    alike = np.stack([real[0]] * 9 + [real[1]])
    sets = [Pictures(images, np.arange(len(images)), None, ImageSet(images)) for images in (real, alike)]
    varied, repeated = (metric(real=sets[0], fake=fake) for fake in sets)
    assert metric(real=sets[0], fake=sets[1]) == repeated
    if name != "ssim_nearest":
        # A generator that repeats itself has the worse value.
        assert (varied["value"] > repeated["value"]) == metric.higher_is_better
        assert varied["value"] == varied["real"] == repeated["real"]
    assert {"real", "sd"} <= set(varied)
    json.dumps(varied, allow_nan=False)


OF_PIXELS_AND_INCEPTION = [
    f"{share}_{kind}" for kind in ("pixels", "inception") for share in ("precision", "recall", "density", "coverage")
]
PIXELS = ["ms_ssim", "cosine_pixels", "ssim_nearest"]


def measured(real: np.ndarray, fake: np.ndarray, *, metrics=tuple(PIXELS), **settings) -> dict:
    evaluator = Evaluator(metrics, **settings)
    evaluator.reference(ImageSet(real))
    return evaluator.evaluate(ImageSet(fake))


def test_pixels_alone_need_no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path))
    monkeypatch.delenv("MEDGAN_WEIGHTS", raising=False)
    monkeypatch.setattr("medgan.weights.MOUNT", tmp_path)
    result = measured(waves(7), waves(9, first=20))
    assert list(result["metrics"]) == PIXELS
    assert (result["n_real"], result["n_fake"]) == (7, 9)
    assert "extractor" not in result
    assert result["metrics"]["ms_ssim"]["pairs"] == 4
    assert result["warnings"] == []


def test_pixels_do_not_depend_on_the_batch_and_neither_on_who_gives_them():
    real, fake = waves(7), waves(9, first=20)
    expected = measured(real, fake, batch=2)["metrics"]
    assert measured(real, fake, batch=32)["metrics"] == expected
    evaluator = Evaluator(PIXELS, batch=4)
    evaluator.reference(ImageSet(real))
    assert evaluator.evaluate(sample=lambda start, count: fake[start : start + count], n_fake=9)["metrics"] == expected


def test_pixels_and_features_come_from_one_pass():
    inception()
    fake = ImageSet(waves(5, first=20))
    evaluator = Evaluator(["ms_ssim", "fid"], batch=2)
    evaluator.reference(ImageSet(waves(7)))
    result = evaluator.evaluate(fake)
    assert fake.reads == 3
    assert list(result["metrics"]) == ["ms_ssim", "fid"]
    assert result["metrics"]["ms_ssim"] == measured(waves(7), waves(5, first=20), metrics=["ms_ssim"])["metrics"]["ms_ssim"]


def test_only_so_many_images_are_drawn_and_the_seed_draws_them():
    real, fake = waves(20), waves(30, first=50)
    values = [measured(real, fake, seed=s, settings={"pairs": 3})["metrics"] for s in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert values[0]["ms_ssim"]["pairs"] == 3
    assert values[0]["cosine_pixels"]["pairs"] == 15
    made = []

    def sample(start: int, count: int) -> np.ndarray:
        made.extend(range(start, start + count))
        return fake[start : start + count]

    evaluator = Evaluator(["ms_ssim"], settings={"pairs": 3}, batch=4)
    evaluator.reference(ImageSet(real))
    evaluator.evaluate(sample=sample, n_fake=30)
    assert made == list(range(6))


def test_memory_bounds_the_images_drawn(monkeypatch):
    monkeypatch.setattr("medgan.metrics.pictures.MOST_BYTES", 6 * 40 * 40)
    assert measured(waves(20), waves(30, first=50))["metrics"]["ms_ssim"]["pairs"] == 3


def test_pixels_of_sets_that_differ_are_refused():
    with pytest.raises(DataError, match="others 24 x 24 with 1 channel"):
        measured(waves(4), waves(4, size=24))
    with pytest.raises(DataError, match="1 images hold no pair") as caught:
        measured(waves(4), waves(1))
    assert "--n-fake" in caught.value.fix


def test_a_result_says_what_it_rests_on(result):
    assert (result["n_real"], result["n_fake"], result["resize"], result["seed"]) == (5, 4, "tf1", 0)
    assert result["extractor"]["name"] == "inception-2015-12-05"
    assert len(result["extractor"]["sha256"]) == 64
    assert result["seconds"] > 0
    json.dumps(result, allow_nan=False)


def test_few_images_are_called_a_smoke_figure(result):
    texts = {warning["code"]: warning["text"] for warning in result["warnings"]}
    assert texts["W_SMALL_N"].startswith("5 real and 4 synthetic images are so few that FID is a smoke figure")
    assert "rank-deficient" in texts["W_SMALL_N"]


def test_fid50k_full_is_not_said_of_fewer_images(result):
    assert list(result["metrics"]) == ["fid", "kid"]
    assert result["metrics"]["fid"]["covariance_divisor"] == "N - 1"
    assert any(w["code"] == "W_NOT_50K" and "50000 synthetic images; with 4" in w["text"] for w in result["warnings"])


def test_fid50k_full_is_said_of_50000_images():
    # Moments of 50,000 rows, so that only the name and the divisor are at stake.
    real, fake = Features.of(gaussian(9000, 4, 1)), Features.of(gaussian(50_000, 4, 2, scale=1.1))
    found = compare({"fid50k_full": FID50kFull(), "fid": FID()}, real=real, fake=fake, seed=0)
    assert found["warnings"] == []
    assert found["metrics"]["fid50k_full"]["covariance_divisor"] == "N"
    assert found["metrics"]["fid"]["value"] != found["metrics"]["fid50k_full"]["value"]


def test_progress_counts_every_image(result):
    assert result["steps"] == [(0, 4), (3, 4), (4, 4)]


def test_a_function_that_samples_gives_what_a_set_gives(evaluator, result):
    images = waves(4, first=20)
    asked = []

    def sample(start: int, count: int) -> np.ndarray:
        asked.append((start, count))
        return images[start : start + count]

    again = evaluator.evaluate(sample=sample, n_fake=4)
    assert asked == [(0, 3), (3, 1)]
    assert again["metrics"] == result["metrics"]


def test_the_reference_comes_from_the_cache_by_content(evaluator, result):
    again = ImageSet(waves(5))
    kept = list(evaluator.cache.iterdir())
    evaluator.reference(again)
    assert list(evaluator.cache.iterdir()) == kept
    assert len(kept) == 1
    # One read for the shape, one to see what the images are, none for the network.
    assert again.reads == 2
    assert evaluator.evaluate(ImageSet(waves(4, first=20)))["metrics"] == result["metrics"]


def test_sets_of_other_size_or_channels_are_refused(evaluator, result):
    with pytest.raises(DataError, match="real images are 40 x 40 with 1 channel, others 24 x 24 with 1 channel"):
        evaluator.evaluate(ImageSet(waves(4, size=24)))
    with pytest.raises(DataError, match="others 40 x 40 with 3 channels"):
        evaluator.evaluate(ImageSet(waves(4, channels=3)))
    with pytest.raises(DataError, match="8-bit"):
        evaluator.evaluate(ImageSet(waves(4).astype(np.float32)))


def test_an_empty_set_is_refused(evaluator):
    with pytest.raises(DataError, match="no images"):
        evaluator.reference(ImageSet(waves(5)[:0]))


def test_absent_weights_show_before_any_image(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path))
    monkeypatch.delenv("MEDGAN_WEIGHTS", raising=False)
    monkeypatch.setattr("medgan.weights.MOUNT", tmp_path)
    with pytest.raises(WeightsError, match="inception-2015-12-05 not found") as caught:
        Evaluator(["fid"])
    assert caught.value.exit_code == 69
    assert "medgan weights fetch inception-2015-12-05" in caught.value.fix


def test_names_are_checked_before_weights_are_looked_for():
    with pytest.raises(ConfigError, match="unknown metric 'fidd'") as caught:
        Evaluator(["fidd"])
    assert "did you mean 'fid'" in caught.value.fix
    with pytest.raises(ConfigError, match="fid50k_full is defined with --resize tf1"):
        Evaluator(["fid50k_full"], resize="pytorch-fid")
    with pytest.raises(ConfigError, match="fid is a distance of inception-2015-12-05 features"):
        Evaluator(["fid"], extractor="dinov2")


def test_the_seed_reaches_metrics_that_draw():
    real, fake = Features.of(gaussian(1200, 4, 1)), Features.of(gaussian(40, 4, 2))
    values = [compare({"kid": KID(seed=seed, subsets=3)}, real=real, fake=fake, seed=seed)["metrics"]["kid"]["value"] for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_settings_that_cannot_be():
    for wrong in ({"n_fake": 1}, {"batch": 0}, {"metrics": ()}, {"pairs": 0}, {"picture_size": -1}):
        with pytest.raises(ConfigError):
            EvaluateConfig(**wrong)


def every_metric(**settings) -> dict:
    """All metrics that nine images have a right to, of one pair of sets and one walk."""
    inception()
    for name in ("lpips-alexnet", "lpips-vgg16"):
        fetched(name)
    names = [name for name in METRICS.names() if not METRICS.get(name).n_fake]
    fake, evaluator = waves(9, 32, first=20), Evaluator(names, **settings)
    evaluator.reference(ImageSet(waves(7, 32)))
    found = evaluator.evaluate(sample=lambda start, count: fake[start : start + count], walk=walk, n_fake=9)["metrics"]
    assert list(found) == names
    return {name: entry["value"] for name, entry in found.items()}


def test_no_metric_depends_on_the_batch():
    assert every_metric(batch=2) == pytest.approx(every_metric(batch=16), rel=2e-4)


@pytest.mark.gpu
def test_no_metric_depends_on_the_device():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert every_metric(device="cuda") == pytest.approx(every_metric(device="cpu"), rel=1e-2)


def test_no_metric_takes_its_sets_by_position():
    for name in METRICS.names():
        with pytest.raises(TypeError, match="positional"):
            METRICS.get(name)()(None, None)


def test_constant_sets_give_numbers_or_reasons(tmp_path):
    inception()
    names = ["fid", "kid", *OF_PIXELS_AND_INCEPTION, "ms_ssim", "ms_ssim_saad2022", "cosine_pixels", "cosine_inception", "ssim_nearest"]
    black, grey = np.zeros((30, 1, 24, 24), np.uint8), np.full((30, 1, 24, 24), 77, np.uint8)
    evaluator = Evaluator(names)
    evaluator.reference(ImageSet(waves(30, 24)))
    found = evaluator.evaluate(ImageSet(grey), uncertainty=lambda done, total: None)
    json.dumps(found, allow_nan=False)
    assert found["metrics"]["ms_ssim"]["interval_method"] == "none: 15 pairs all gave 1"
    assert found["metrics"]["cosine_pixels"]["value"] == pytest.approx(0, abs=1e-9)
    evaluator = Evaluator(["fid"])
    evaluator.reference(ImageSet(black))
    assert evaluator.evaluate(ImageSet(black))["metrics"]["fid"]["value"] == pytest.approx(0, abs=1e-6)
