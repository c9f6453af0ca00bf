"""Features beside Inception's: pixels, and what LPIPS compares; and several extractors in one pass."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from medgan.errors import DataError
from medgan.metrics import EXTRACTORS, METRICS
from medgan.metrics.comparison import comparable
from medgan.metrics.evaluate import Evaluator
from medgan.metrics.lpips import as_input, load_lpips
from medgan.metrics.neighbours import overlap
from medgan.metrics.perceptual import PerceptualExtractor
from medgan.metrics.thumbnails import PixelExtractor
from tests.metrics.phantoms import ImageSet, waves
from tests.metrics.pretrained import fetched, inception

FOUR = ("precision", "recall", "density", "coverage")
OF_PIXELS = [f"{name}_pixels" for name in FOUR]


def evaluated(metrics, real, fake, **settings):
    evaluator = Evaluator(metrics, **settings)
    evaluator.reference(ImageSet(real))
    return evaluator.evaluate(ImageSet(fake))


# Pixels.


def test_a_thumbnail_by_hand():
    # 64 px: each of 1,024 numbers is the mean of 2 x 2 pixels; colours 10, 20, 60 are 30 of grey.
    image = np.zeros((1, 3, 64, 64), np.uint8)
    image[0, 0], image[0, 1], image[0, 2] = 10, 20, 60
    image[0, :, 0, 1] = 90
    rows = PixelExtractor()(image)
    assert rows.shape == (1, PixelExtractor.dim)
    assert rows[0, :3].tolist() == [45, 30, 30]
    assert PixelExtractor()(image[:, :, :32, :32])[0, :2].tolist() == [30, 90]


def test_thumbnails_equal_an_independent_implementation():
    images = waves(3, 96)
    expected = np.stack([np.asarray(Image.fromarray(image[0].astype(np.float32)).reduce(3)).ravel() for image in images])
    np.testing.assert_allclose(PixelExtractor()(images), expected, rtol=1e-6)


def test_metrics_of_pixels_need_no_weights_and_say_their_features(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path))
    monkeypatch.delenv("MEDGAN_WEIGHTS", raising=False)
    monkeypatch.setattr("medgan.weights.MOUNT", tmp_path)
    real, fake = waves(9, 32), np.concatenate([waves(3, 32), waves(6, 32, first=30)])
    result = evaluated(OF_PIXELS, real, fake)
    rows = [images.reshape(len(images), -1).astype(float) for images in (real, fake)]
    for name in FOUR:
        expected = getattr(overlap(*rows, 3 if name in ("precision", "recall") else 5), name)
        assert result["metrics"][f"{name}_pixels"]["value"] == pytest.approx(expected, rel=1e-6)
    assert result["extractor"] == {"name": "pixels-32", "sha256": ""}
    assert result["resize"] == "area"
    assert result["warnings"] == []


# LPIPS's features.


def test_the_squared_distance_of_rows_is_at_most_lpips():
    fetched("lpips-vgg16")
    images = waves(5, 40)
    rows = PerceptualExtractor()(images).double()
    x = as_input(images, "cpu")
    with torch.inference_mode():
        lpips = load_lpips("vgg16", "cpu")(x[:1].expand(4, -1, -1, -1), x[1:]).double()
    squares = (rows[:1] - rows[1:]).square().sum(1)
    assert rows.shape == (5, 1472)
    assert bool((squares < lpips).all())
    assert bool((squares > 0.01 * lpips).all())


def test_a_row_of_lpips_by_hand():
    """One channel of the first compared layer sees red, with weight 0.25: where half of the image is bright its mean is 0.5, times the root 0.5."""
    fetched("lpips-vgg16")
    extractor = PerceptualExtractor()
    for parameter in extractor.model.parameters():
        parameter.zero_()
    extractor.model.conv[0].weight[5, 0, 1, 1] = extractor.model.conv[1].weight[7, 5, 1, 1] = 1.0
    extractor.model.linear[0][7] = 0.25
    image = np.zeros((1, 1, 32, 32), np.uint8)
    image[..., :16] = 255
    row = extractor(image)[0]
    assert row[7].item() == pytest.approx(0.25, rel=1e-6)
    assert row.count_nonzero() == 1


def test_images_too_small_for_it_are_refused():
    fetched("lpips-vgg16")
    with pytest.raises(DataError, match="16 pixels or more, these have 8") as caught:
        evaluated(["precision_lpips_vgg16"], waves(5, 8), waves(5, 8))
    assert "precision_pixels" in caught.value.fix


# Several in one pass.


def test_several_features_come_from_one_pass_and_one_cache_file_each(tmp_path):
    inception()
    metrics = ["fid", "recall_inception", *OF_PIXELS, "ms_ssim"]
    real, fake = ImageSet(waves(6)), ImageSet(waves(7, first=20))
    evaluator = Evaluator(metrics, batch=4, cache=tmp_path)
    evaluator.reference(real)
    result = evaluator.evaluate(fake)
    assert fake.reads == 2
    assert len(list(tmp_path.iterdir())) == 2
    assert list(result["metrics"]) == metrics
    assert result["extractor"]["name"] == "inception-2015-12-05"
    assert result["other_extractors"] == {"pixels-32": {"sha256": "", "resize": "area"}}
    assert {name for name, entry in result["metrics"].items() if "features" in entry} == set(OF_PIXELS)
    alone = {
        **evaluated(["fid", "recall_inception"], real.array, fake.array)["metrics"],
        **evaluated(OF_PIXELS, real.array, fake.array)["metrics"],
    }
    for name, entry in alone.items():
        assert result["metrics"][name]["value"] == pytest.approx(entry["value"], rel=1e-5), name
    json.dumps(result, allow_nan=False)
    # Another set of metrics finds both files.
    again = ImageSet(waves(6))
    evaluator = Evaluator(["precision_pixels", "fid"], cache=tmp_path)
    evaluator.reference(again)
    assert again.reads == 2


def test_figures_of_other_features_are_compared_by_those():
    def result(name, features=None, **others):
        return {"metrics": {name: {"value": 1.0} | ({"features": features} if features else {})}, "n_real": 5, "n_fake": 5, **others}

    main = {"extractor": {"name": "inception", "sha256": "a"}, "resize": "tf1"}
    other = {"extractor": {"name": "inception", "sha256": "b"}, "resize": "pytorch-fid"}
    pixels = {"other_extractors": {"pixels-32": {"sha256": "", "resize": "area"}}}
    one, two = (result("recall_pixels", "pixels-32", **some, **pixels) for some in (main, other))
    assert comparable(one, two, "recall_pixels") == []
    alone = result("recall_pixels", extractor={"name": "pixels-32", "sha256": ""}, resize="area")
    assert comparable(one, alone, "recall_pixels") == []
    assert comparable(result("fid", **main), result("fid", **other), "fid") == ["extractors differ", "resize rules differ"]


def test_every_metric_of_features_names_an_extractor_there_is():
    for name in METRICS.names():
        metric = METRICS.get(name)
        assert not metric.extractor or metric.extractor in EXTRACTORS.names()
        if metric.needs == "features" and metric.extractor.startswith(("pixels", "lpips")):
            assert name.endswith(("_pixels", "_lpips_vgg16"))
