"""Metrics of growing parts: nested, at equal numbers, with real against real beside them."""

from __future__ import annotations

import numpy as np
import pytest

from medgan.errors import DataError
from medgan.metrics.cosine import CosinePixels
from medgan.metrics.features import Features
from medgan.metrics.fid import FID
from medgan.metrics.frechet import frechet_distance
from medgan.metrics.neighbours import PrecisionPixels
from medgan.metrics.sample_sizes import OneSet, measured, real_against_real
from medgan.metrics.ssim import MSSSIM, ms_ssim, prepared


class Held:
    """Images in memory."""

    def __init__(self, images: np.ndarray) -> None:
        self.held = images

    def __len__(self) -> int:
        return len(self.held)

    def images(self, indices) -> np.ndarray:
        return self.held[indices if isinstance(indices, slice) else np.asarray(indices, dtype=np.int64)]


def a_set(n: int, seed: int, *, mean: float = 0.0, name: str = "inception-2015-12-05") -> OneSet:
    rng = np.random.default_rng(seed)
    return OneSet(Held(rng.integers(0, 256, (n, 1, 28, 28), dtype=np.uint8)), {name: rng.normal(mean, 1, (n, 6)).astype(np.float32)}, seed)


def test_a_smaller_sample_is_part_of_a_larger_one():
    one = a_set(40, 0)
    assert set(one.pictures(10, 99).numbers) < set(one.pictures(20, 99).numbers)
    assert sorted(one.order) == list(range(40))


def test_fid_of_n_against_n_is_that_of_the_rows_of_these_images():
    real, fake = a_set(60, 0), a_set(60, 1, mean=0.5)
    found = measured({"fid": FID()}, real=real, fake=fake, n=30)["metrics"]["fid"]
    rows = [Features.of(one.rows["inception-2015-12-05"][one.order[:30]]) for one in (real, fake)]
    assert found["value"] == pytest.approx(frechet_distance(real=rows[0], fake=rows[1], ddof=1), rel=1e-9)
    assert found["infinity"]["value"] < found["value"]
    assert found["interval"][0] < found["value"] < found["interval"][1]


def test_real_against_real_has_equal_numbers_and_beyond_half_goes_with_one_over_n():
    real = a_set(200, 0)
    small, large = real_against_real(FID(), real, 50), real_against_real(FID(), real, 200)
    assert (small["n"], large["n"]) == (50, 100)
    assert "at_n" not in small
    assert large["at_n"] == pytest.approx(large["value"] * 100 / 200)
    # The figure of equal distributions is bias, which goes with 1/N: half of it at twice the number.
    assert small["value"] / large["value"] == pytest.approx(2, rel=0.35)
    assert "at_n" not in real_against_real(PrecisionPixels(), a_set(40, 0, name="pixels-32"), 40)


def test_values_of_pairs_are_those_of_disjoint_pairs():
    real, fake = a_set(24, 0), a_set(24, 1)
    values = measured({"ms_ssim": MSSSIM(), "cosine_pixels": CosinePixels()}, real=real, fake=fake, n=20, pairs=8)["values"]
    pictures = fake.pictures(20, 16)
    one, other = pictures.images[0:16:2], pictures.images[1:16:2]
    by_hand = ms_ssim(prepared(one, "cpu"), prepared(other, "cpu")).numpy()
    assert values["ms_ssim"]["synthetic"] == pytest.approx(list(by_hand))
    x, y = one.reshape(8, -1).astype(float), other.reshape(8, -1).astype(float)
    cosine = 1 - (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))
    assert values["cosine_pixels"]["synthetic"] == pytest.approx(list(cosine))
    assert len(values["ms_ssim"]["real"]) == len(values["cosine_pixels"]["real"]) == 8


def test_values_of_features_are_those_of_ten_disjoint_parts():
    real, fake = a_set(100, 0), a_set(100, 1)
    found = measured({"fid": FID()}, real=real, fake=fake, n=100, in_part=9)["values"]["fid"]["synthetic"]
    assert len(found) == 10
    rows = [Features.of(one.rows["inception-2015-12-05"][one.order[9:18]]) for one in (real, fake)]
    assert found[1] == pytest.approx(frechet_distance(real=rows[0], fake=rows[1], ddof=1))
    assert measured({"fid": FID()}, real=real, fake=fake, n=40, in_part=4)["values"] == {}


def test_metrics_of_two_kinds_of_features_each_get_their_own():
    real, fake = a_set(30, 0), a_set(30, 1)
    for one in (real, fake):
        one.rows["pixels-32"] = one.rows["inception-2015-12-05"] * (1 if one is real else 50)
    found = measured({"fid": FID(), "precision_pixels": PrecisionPixels()}, real=real, fake=fake, n=30)["metrics"]
    assert found["fid"]["value"] < 10
    assert found["precision_pixels"]["value"] < 0.2
    assert found["precision_pixels"]["baseline"]["value"] > 0.2


def test_more_images_than_there_are_is_refused():
    with pytest.raises(DataError, match="30 synthetic images are wanted of 20"):
        measured({"fid": FID()}, real=a_set(40, 0), fake=a_set(20, 1), n=30)
