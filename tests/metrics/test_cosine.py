import numpy as np
import pytest
from scipy.spatial.distance import pdist

from medgan.errors import DataError
from medgan.metrics.cosine import CosineInception, CosinePixels
from medgan.metrics.features import Features
from medgan.metrics.pictures import Pictures
from tests.metrics.phantoms import ImageSet, gaussian, waves


def pictures(images: np.ndarray, labels: np.ndarray | None = None) -> Pictures:
    return Pictures(images, np.arange(len(images)), labels, ImageSet(images))


def flat(*rows: tuple[int, int]) -> np.ndarray:
    return np.array(rows, np.uint8).reshape(len(rows), 1, 1, 2)


def test_worked_by_hand():
    # (3, 4), (4, 3), (10, 0): cosines 24/25, 3/5, 4/5; distances .04, .4, .2: mean .64/3, sd (n - 1) from squares .0016, .16, .04.
    one = pictures(flat((3, 4), (4, 3), (10, 0)))
    result = CosinePixels()(real=pictures(flat((1, 0), (0, 1))), fake=one)
    assert result["value"] == pytest.approx(0.64 / 3, rel=1e-12)
    assert result["sd"] == pytest.approx(np.sqrt((0.2016 - 0.64**2 / 3) / 2), rel=1e-12)
    assert (result["pairs"], result["real"], result["real_sd"], result["real_pairs"]) == (3, 1.0, 0.0, 1)


def test_equals_scipy_over_all_pairs():
    images = waves(9, 30, channels=3)
    rows = images.reshape(9, -1).astype(float)
    result = CosinePixels()(real=pictures(images[:4]), fake=pictures(images))
    assert result["value"] == pytest.approx(pdist(rows, "cosine").mean(), rel=1e-12)
    centred = CosinePixels(center=True)(real=pictures(images[:4]), fake=pictures(images))
    assert centred["value"] == pytest.approx(pdist(rows - rows.mean(0), "cosine").mean(), rel=1e-12)
    assert centred["centred"] == "yes"
    disjoint = CosinePixels(cosine_pairs="disjoint")(real=pictures(images[:4]), fake=pictures(images))
    expected = [pdist(rows[[i, i + 1]], "cosine")[0] for i in (0, 2, 4, 6)]
    assert (disjoint["value"], disjoint["pairs"]) == (pytest.approx(np.mean(expected), rel=1e-12), 4)


def test_pairs_are_of_one_class_where_both_sets_have_classes():
    # Classes along (1, 0) and (0, 1): within a class all images are parallel.
    images, labels = flat((9, 0), (0, 9), (5, 0), (0, 2)), np.array([0, 1, 0, 1])
    with_classes = CosinePixels()(real=pictures(images, labels), fake=pictures(images, labels))
    assert (with_classes["value"], with_classes["pairs"], with_classes["within"]) == (0, 2, "class")
    without = CosinePixels()(real=pictures(images, labels), fake=pictures(images))
    assert (without["value"], without["pairs"], without["within"]) == (pytest.approx(4 / 6), 6, "set")


def test_features_are_compared_as_rows():
    rows, others = gaussian(40, 8, 1, shift=1), gaussian(30, 8, 2)
    result = CosineInception()(real=Features.of(others), fake=Features.of(rows))
    assert result["value"] == pytest.approx(pdist(rows.astype(float), "cosine").mean(), rel=1e-12)
    assert result["real"] == pytest.approx(pdist(others.astype(float), "cosine").mean(), rel=1e-12)
    # More than are looked at: the seed draws them.
    drawn = [float(CosineInception(pairs=5, seed=seed)(real=Features.of(others), fake=Features.of(rows))["value"]) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_features_are_compared_within_classes_where_both_sets_have_them():
    """Two classes at right angles, of 3 and 2 images: 3 + 1 pairs within, and 6 more of the set."""
    rows, labels = np.array([[9.0, 0], [0, 9], [5, 0], [0, 2], [1, 0]]), np.array([0, 1, 0, 1, 0])

    def features(known: bool) -> Features:
        found = Features.of(rows)
        found.labels = labels if known else None
        return found

    both = CosineInception()(real=features(True), fake=features(True))
    assert (both["value"], both["pairs"], both["real_pairs"], both["within"]) == (pytest.approx(0), 4, 4, "class")
    for real, fake in ((True, False), (False, True)):
        one = CosineInception()(real=features(real), fake=features(fake))
        assert (one["value"], one["pairs"], one["within"]) == (pytest.approx(0.6), 10, "set")


def test_images_without_a_direction_are_left_out():
    images = flat((0, 0), (3, 4), (4, 3), (0, 0))
    result = CosinePixels()(real=pictures(images), fake=pictures(images))
    assert (result["value"], result["pairs"]) == (pytest.approx(0.04), 1)
    grey = pictures(np.full((5, 1, 8, 8), 77, np.uint8))
    assert CosinePixels()(real=grey, fake=grey)["value"] == pytest.approx(0, abs=1e-12)
    for metric, wrong in (
        (CosinePixels(center=True), grey),
        (CosinePixels(), pictures(flat((0, 0), (0, 0)))),
        (CosinePixels(), pictures(flat((1, 2)))),
    ):
        with pytest.raises(DataError, match="needs two images of one class") as caught:
            metric(real=wrong, fake=wrong)
        assert "--n-fake" in caught.value.fix


def test_the_figures_of_real_images(scans):
    """Of one order with METRICS.md's 0.037 and 0.028, which name no split; 0.98 centred."""
    xray = np.load(scans / "xray" / "pneumoniamnist_rebuilt.npz")
    images, labels = xray["test_images"][:, None], xray["test_labels"][:, 0]
    values = [float(CosinePixels()(real=pictures(images[labels == c]), fake=pictures(images[labels == c]))["value"]) for c in (0, 1)]
    assert values == pytest.approx([0.0467, 0.0248], abs=1e-4)


@pytest.mark.parametrize("metric", [CosinePixels(), CosineInception()])
def test_sets_cannot_be_swapped_by_position(metric):
    with pytest.raises(TypeError, match="positional"):
        metric(pictures(waves(4)), pictures(waves(4)))
