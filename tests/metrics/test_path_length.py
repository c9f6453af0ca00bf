import numpy as np
import pytest
import torch

from medgan.errors import ConfigError, DataError
from medgan.metrics.evaluate import Evaluator
from medgan.metrics.lpips import load_lpips
from medgan.metrics.path_length import PPL2WEnd, shrunk, trimmed_mean
from tests.metrics.phantoms import ImageSet, waves
from tests.metrics.pretrained import fetched


def walk(start: int, count: int, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs by number: an image, and the same a step of epsilon brighter where another one is."""
    one, other = (torch.from_numpy(waves(count, 32, first=first + start)).double() / 127.5 - 1 for first in (0, 40))
    return one, one + epsilon * other


def test_trimming_worked_by_hand():
    # Of 0 ... 99 the 1st percentile lies at 0.99 and is rounded down to 0, the 99th at 98.01 and up to 99: all stay. With 101 entries, 1 ... 99 stay.
    assert trimmed_mean(np.arange(100.0)) == 49.5
    outliers = np.concatenate([[-1e9], np.arange(1.0, 100.0), [1e12]])
    assert trimmed_mean(outliers) == 50


def test_the_official_number(golden):
    reference = np.load(golden / "metrics.npz")
    assert trimmed_mean(reference["ppl_dist"]) == pytest.approx(float(reference["ppl"]), rel=1e-6)


def test_large_images_are_averaged_to_256():
    image = torch.arange(512.0 * 512).reshape(1, 1, 512, 512)
    small = shrunk(image)
    assert small.shape == (1, 3, 256, 256)
    assert float(small[0, 2, 0, 1]) == (2 + 3 + 514 + 515) / 4
    assert shrunk(image[..., :64, :64]).shape == (1, 3, 64, 64)


def test_a_figure_is_lpips_over_epsilon_squared_whatever_the_batch():
    fetched("lpips-vgg16")
    one, other = walk(0, 5, 0.1)
    with torch.inference_mode():
        expected = load_lpips("vgg16", "cpu")(one.float().expand(-1, 3, -1, -1), other.float().expand(-1, 3, -1, -1)).double() / 0.1**2
    for batch in (2, 5):
        steps = []
        result = PPL2WEnd(epsilon=0.1, batch=batch)(walk=walk, count=5, step=lambda done, total: steps.append(done))  # noqa: B023
        # Of five distances none is trimmed.
        assert result["value"] == pytest.approx(float(expected.mean()), rel=1e-4)
        assert (result["pairs"], result["epsilon"]) == (5, 0.1)
        assert steps[-1] == 5


def test_a_generator_of_one_image_has_a_path_of_no_length():
    fetched("lpips-vgg16")
    still = torch.zeros(1, 1, 32, 32)
    assert PPL2WEnd()(walk=lambda start, count, epsilon: (still.expand(count, -1, -1, -1),) * 2, count=4)["value"] == 0
    broken = still / 0
    with pytest.raises(DataError, match="not finite"):
        PPL2WEnd()(walk=lambda start, count, epsilon: (broken.expand(count, -1, -1, -1),) * 2, count=4)


def test_evaluation_measures_a_generator_and_makes_no_other_images():
    fetched("lpips-vgg16")
    evaluator = Evaluator(["ppl2_wend"])
    evaluator.reference(ImageSet(waves(4, 32)))
    with pytest.raises(ConfigError, match="ppl2_wend looks at a generator") as caught:
        evaluator.evaluate(ImageSet(waves(4, 32)))
    assert "--bundle" in caught.value.fix

    def sample(start: int, count: int) -> np.ndarray:
        raise AssertionError

    result = evaluator.evaluate(sample=sample, walk=walk, n_fake=6)
    entry = result["metrics"]["ppl2_wend"]
    assert (entry["pairs"], result["n_fake"], entry["higher_is_better"]) == (6, 6, False)
    assert entry["value"] == PPL2WEnd()(walk=walk, count=6)["value"]
