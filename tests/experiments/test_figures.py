"""Numbers and pixels of the figures."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from medgan.experiments.figures import LABEL_INCHES, binned, image_rows, losses
from medgan.plots import DOTS_PER_INCH


def rows(value: float, ticks: int = 40) -> list[dict]:
    return [{"kimg": tick + 1.0, "Loss/G/loss": {"mean": value}, "Loss/D/loss": {"mean": -value}} for tick in range(ticks)]


def test_points_are_means_over_repeats_with_their_sample_sd():
    """Repeats at 1 and 4 all the way: mean 2.5, SD with n - 1 of 3 / sqrt(2)."""
    kimg, mean, sd = binned([rows(1), rows(4)], "Loss/G/loss", bins=4)
    assert kimg.tolist() == [5, 15, 25, 35]
    assert mean.tolist() == [2.5] * 4
    assert np.allclose(sd, 3 / 2**0.5, atol=1e-12)


def test_each_repeat_counts_once_however_many_ticks_it_has():
    """Three ticks at 0, 0, 3 and one tick at 5: means 1 and 5."""
    first = [{"kimg": x, "Loss/G/loss": {"mean": v}} for x, v in ((1.0, 0.0), (2.0, 0.0), (3.0, 3.0))]
    _, mean, sd = binned([first, [{"kimg": 3.0, "Loss/G/loss": {"mean": 5.0}}]], "Loss/G/loss", bins=1)
    assert (mean.tolist(), sd.round(12).tolist()) == ([3.0], [round(8**0.5, 12)])


def test_one_repeat_has_no_bar():
    _, mean, sd = binned([rows(1)], "Loss/G/loss", bins=2)
    assert mean.tolist() == [1, 1]
    assert np.isnan(sd).all()


def test_losses_draw_the_same_bytes_again_and_nothing_from_nothing():
    curves = {"Baseline": [rows(1), rows(2)], "Augmented": [rows(3)]}
    assert losses(curves) == losses(curves) != losses({**curves, "Augmented": [rows(4)]})
    assert losses({"Baseline": [[{"kimg": 1.0}]]}) is None


def test_images_stand_upright_in_their_rows_pixel_by_pixel():
    """32 px are enlarged four times; the first row's images are brighter above, the second's left."""
    upright, aside = np.zeros((2, 1, 32, 32), np.uint8), np.zeros((2, 1, 32, 32), np.uint8)
    upright[:, :, :16], aside[:, :, :, :16] = 200, 100
    png = image_rows([("Real", upright), ("A title that is longer than one line holds", aside)], said={"synthetic": "true"})
    picture = Image.open(io.BytesIO(png))
    assert picture.text["synthetic"] == "true"
    seen = np.asarray(picture.convert("L"))
    left = round(LABEL_INCHES * DOTS_PER_INCH)
    for place, images in enumerate((upright, aside)):
        for column in range(2):
            top, x = 4 + place * 132, left + column * 132
            assert np.array_equal(seen[top : top + 128, x : x + 128], images[column, 0].repeat(4, 0).repeat(4, 1))
