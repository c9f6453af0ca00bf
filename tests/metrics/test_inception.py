import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medgan.errors import ConfigError
from medgan.metrics.evaluate import Evaluator
from medgan.metrics.features import Features
from medgan.metrics.inception import EPSILON, Conv, Inception, InceptionExtractor, average, folded, prepared, resize_tf1
from medgan.metrics.kid import squared_mmd
from medgan.weights import torchvision_names
from tests.metrics.phantoms import ImageSet, waves
from tests.metrics.pretrained import inception

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "metrics_inception.json").read_text())


@pytest.fixture(scope="module", params=["tf1", "pytorch-fid"])
def extractor(request):
    inception()
    return InceptionExtractor(resize=request.param)


def test_tensorflow_1_resize_worked_by_hand():
    # Twice as large: sources 0, 0.5, 1, 1.5; the last one is clamped to the edge.
    image = torch.tensor([[[[0, 100], [50, 200]]]], dtype=torch.uint8)
    expected = [[0, 50, 100, 100], [25, 87.5, 150, 150], [50, 125, 200, 200], [50, 125, 200, 200]]
    assert resize_tf1(image, 4)[0, 0].tolist() == expected


def test_tensorflow_1_resize_downwards_takes_single_pixels():
    image = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4)
    assert resize_tf1(image, 2)[0, 0].tolist() == [[0, 2], [8, 10]]


def test_scaling_follows_the_rule():
    black_white = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 1, 299, 299)
    assert prepared(black_white, "tf1")[:, 2, 7, 9].tolist() == [-1, 127 / 128]
    assert prepared(black_white, "pytorch-fid")[:, 2, 7, 9].tolist() == [-1, 1]


def test_average_pooling_leaves_padding_out():
    assert average(torch.ones(1, 1, 5, 5)).eq(1).all()


def test_the_last_block_pools_with_the_maximum():
    network = Inception()
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 1] = 9
    assert network.mixed_10.pool(x).eq(9).all()
    assert network.mixed_9.pool(x)[0, 0, 1, 1] == 1


def test_batch_norm_folds_into_the_convolution():
    generator = torch.Generator().manual_seed(0)
    tensors = {"conv.weight": torch.randn(8, 3, 3, 3, generator=generator)}
    tensors |= {f"conv.{name}": torch.rand(8, generator=generator) for name in ("beta", "mean", "var")}
    x = torch.randn(2, 3, 9, 9, generator=generator)
    norm = F.batch_norm(
        F.conv2d(x, tensors["conv.weight"]), tensors["conv.mean"], tensors["conv.var"], None, tensors["conv.beta"], eps=EPSILON
    )
    conv = Conv(3, 8, 3)
    conv.load_state_dict({name.removeprefix("conv."): value for name, value in folded(tensors).items()})
    torch.testing.assert_close(conv(x), norm.relu(), rtol=1e-5, atol=1e-5)


def test_every_convolution_has_a_name_in_the_published_state():
    convolutions = {name for name, module in Inception().named_modules() if isinstance(module, Conv)}
    assert convolutions == set(torchvision_names().values())
    assert len(convolutions) == 94


def test_features_equal_the_independent_network(extractor):
    expected = REFERENCE[extractor.resize]
    grey = extractor(waves(1))[0]
    np.testing.assert_allclose(grey[:16], expected["grey_40_first_16"], atol=2e-4)
    assert float(grey.double().sum()) == pytest.approx(expected["grey_40_sum"], rel=1e-5)
    colour = extractor(waves(1, size=61, channels=3))[0]
    np.testing.assert_allclose(colour[:16], expected["colour_61_first_16"], atol=2e-4)


def test_fid_of_phantoms_equals_the_independent_number():
    inception()
    evaluator = Evaluator(["fid"], resize="tf1")
    evaluator.reference(ImageSet(waves(8)))
    value = evaluator.evaluate(ImageSet(waves(6, first=50)))["metrics"]["fid"]["value"]
    # Two singular covariances: scipy's matrix root, with which the reference was made, is good to about 1e-6 of them.
    assert value == pytest.approx(REFERENCE["tf1"]["fid_8_against_6"], rel=1e-5)


def test_features_do_not_depend_on_the_batch():
    inception()
    extractor = InceptionExtractor()
    images = waves(3)
    together, apart = extractor(images), torch.cat([extractor(images[:1]), extractor(images[1:])])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


def test_an_unknown_resize_rule_is_refused():
    with pytest.raises(ConfigError, match="bicubic"):
        InceptionExtractor(resize="bicubic")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_published_pytorch_fid_numbers(scans):
    # One test, because its 714 images take a minute or two: WEIGHTS.md has the numbers, from pytorch-fid 0.3.0 itself.
    inception()
    xray = np.load(scans / "xray" / "pneumoniamnist_rebuilt.npz")
    fashion = np.load(scans / "fashion" / "fashion_mnist_sprite900.npz")
    images, labels = xray["test_images"][:, None], xray["test_labels"][:, 0]
    sets = {"normal": images[labels == 0], "pneumonia": images[labels == 1], "trousers": fashion["images"][fashion["labels"] == 1][:, None]}
    assert [len(s) for s in sets.values()] == [234, 390, 90]
    evaluator = Evaluator(["fid", "kid"], resize="pytorch-fid", batch=16)
    values = {}
    kept: dict[str, Features] = {}
    for name, array in sets.items():
        rows = torch.cat(
            [evaluator.extractors["inception-2015-12-05"](array[start : start + 16]) for start in range(0, len(array), 16)]
        ).numpy()
        kept[name] = Features.of(rows)
    for real, fake in (("normal", "pneumonia"), ("normal", "trousers"), ("pneumonia", "trousers")):
        values[real, fake] = evaluator.metrics["fid"](real=kept[real], fake=kept[fake])["value"]
    assert values["normal", "pneumonia"] == pytest.approx(123.47724, abs=1e-3)
    assert values["normal", "trousers"] == pytest.approx(362.14171, abs=1e-3)
    assert values["pneumonia", "trousers"] == pytest.approx(332.34504, abs=1e-3)
    assert squared_mmd(kept["normal"].rows, kept["pneumonia"].rows) == pytest.approx(0.1066855, abs=2e-6)
