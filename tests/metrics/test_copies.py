import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medgan.metrics.copies import Closest, ClosestFeatures, correlation, grey, smoothed, symmetries, unit
from tests.metrics.patients import patients
from tests.metrics.phantoms import ImageSet


def plain_ncc(image, other, s):
    """The largest NCC over shifts, written down once more with loops and numpy.corrcoef."""
    h, w = image.shape
    inner = image[s : h - s, s : w - s].ravel()
    windows = [other[y : y + h - 2 * s, x : x + w - 2 * s].ravel() for y in range(2 * s + 1) for x in range(2 * s + 1)]
    return max(np.corrcoef(inner, window)[0, 1] for window in windows)


@pytest.mark.parametrize("shape", [(24, 24), (17, 31)])
def test_correlation_is_numpys(shape):
    rng = np.random.default_rng(0)
    images, others = (gaussian_filter(rng.normal(size=(5, *shape)), (0, 1, 1)) * 100 for _ in range(2))
    found = correlation(torch.from_numpy(images).float(), torch.from_numpy(others).float())
    assert found == pytest.approx([plain_ncc(a, b, 2) for a, b in zip(images, others, strict=True)], abs=1e-5)


def test_a_shift_of_two_pixels_is_undone_and_one_of_three_is_not():
    rng = np.random.default_rng(1)
    large = torch.from_numpy(gaussian_filter(rng.normal(size=(40, 40)), 1) * 100).float()
    image, two, three = large[5:29, 5:29], large[3:27, 7:31], large[2:26, 5:29]
    found = correlation(torch.stack([image, image]), torch.stack([two, three]))
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert found[1] < 0.9


def test_a_flat_image_correlates_with_nothing():
    flat, rng = torch.full((1, 16, 16), 7.0), np.random.default_rng(0)
    other = torch.from_numpy(rng.normal(size=(1, 16, 16)) * 50).float()
    assert correlation(flat, other)[0] == 0
    assert correlation(other, flat)[0] == 0
    assert correlation(flat, flat)[0] == 0
    assert not unit(flat.flatten(1)).any()


def test_the_filter_is_scipys():
    from scipy.ndimage import convolve1d

    x = np.random.default_rng(0).normal(size=(2, 9, 11))
    expected = convolve1d(convolve1d(x, [0.25, 0.5, 0.25], axis=1, mode="nearest"), [0.25, 0.5, 0.25], axis=2, mode="nearest")
    assert smoothed(torch.from_numpy(x)).numpy() == pytest.approx(expected)


def test_a_square_has_eight_symmetries_and_another_rectangle_four():
    square = torch.arange(9.0).reshape(1, 3, 3)
    assert len({tuple(view.flatten().tolist()) for view in symmetries(square)[0]}) == 8
    assert symmetries(torch.zeros(2, 3, 5)).shape == (2, 4, 3, 5)


def test_large_images_are_averaged_and_colours_too():
    images = np.zeros((1, 3, 256, 200), np.uint8)
    images[:, 0] = 30
    assert grey(images, 128).shape == (1, 128, 128)
    assert torch.equal(grey(images, 128), torch.full((1, 128, 128), 10.0))


def test_a_copy_is_what_looking_at_all_pairs_finds():
    """Against an exhaustive search over all training images and symmetries; a stranger may keep another turn than the best one, and is then farther."""
    images, keys = patients(0, 12, 3, 32)
    train, fake = images[6:], np.concatenate([images[:6], images[6:9, :, :, ::-1], images[20:22].swapaxes(2, 3)])
    people = np.unique(keys[6:], return_inverse=True)[1]
    found = Closest(ImageSet(train), people)(ImageSet(fake), np.arange(len(fake)))
    views, others = symmetries(smoothed(grey(fake, 128))), smoothed(grey(train, 128))
    pairs = np.array([np.max([correlation(view.expand_as(others), others) for view in views[i]], axis=0) for i in range(len(fake))])
    exhaustive = np.sqrt(2 * (1 - pairs.max(1)))
    assert found.nearest[6:].tolist() == pairs[6:].argmax(1).tolist() == [0, 1, 2, 14, 15]
    assert found.symmetry[6:].tolist() == [1, 1, 1, 4, 4]
    assert found.distance[6:] == pytest.approx(exhaustive[6:], abs=2e-3)
    assert (found.distance > exhaustive - 2e-3).all()
    assert found.distance[:6] == pytest.approx(exhaustive[:6], rel=0.1)


def test_a_search_among_some_training_images_is_that_of_their_own_set():
    images, keys = patients(0, 10, 3, 32)
    people, some = np.unique(keys, return_inverse=True)[1], np.array([3, 4, 5, 12, 13, 20, 26, 29])
    fake = patients(50, 6, 1, 32)[0]
    found = Closest(ImageSet(images), people).among(some)(ImageSet(fake), np.arange(6))
    alone = Closest(ImageSet(images[some]), people[some])(ImageSet(fake), np.arange(6))
    assert found.nearest.tolist() == some[alone.nearest].tolist()
    for name in ("distance", "other", "symmetry", "flat"):
        assert getattr(found, name).tolist() == getattr(alone, name).tolist()


def test_features_are_searched_exactly():
    rng = np.random.default_rng(0)
    rows, queries, people = rng.normal(size=(300, 7)) + 100, rng.normal(size=(40, 7)) + 100, rng.integers(30, size=300)
    found = ClosestFeatures(rows, people)(queries)
    distances = np.linalg.norm(queries[:, None] - rows, axis=2)
    assert found.nearest.tolist() == distances.argmin(1).tolist()
    assert found.distance == pytest.approx(distances.min(1), rel=1e-4)
    strangers = [row[people != people[row.argmin()]].min() for row in distances]
    assert found.other == pytest.approx(strangers, rel=1e-4)
    gap = ClosestFeatures(rows, people).of_training(np.arange(20))
    expected = [np.linalg.norm(rows[i] - rows[people != people[i]], axis=1).min() for i in range(20)]
    assert gap == pytest.approx(expected, rel=1e-4)


def test_one_patient_has_no_other():
    found = ClosestFeatures(np.eye(3), np.zeros(3, int))(np.zeros((1, 3)))
    assert np.isinf(found.other[0])
    assert found.ratio[0] == 0
