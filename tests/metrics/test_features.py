from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medgan.errors import DataError
from medgan.metrics import features
from medgan.metrics.features import Collector, Features
from tests.metrics.phantoms import ImageSet, gaussian, waves


def collected(rows: np.ndarray, batch: int, *, keep: bool) -> Features:
    collector = Collector(rows.shape[1], keep=keep)
    for start in range(0, len(rows), batch):
        collector.add(torch.from_numpy(rows[start : start + batch]))
    return collector.finish()


@pytest.mark.parametrize("batch", [1, 7, 600, 1300])
def test_streamed_moments_equal_numpy(batch):
    rows = gaussian(1300, 12, 1, shift=5)
    streamed = collected(rows, batch, keep=False)
    np.testing.assert_allclose(streamed.mean, rows.mean(0, dtype=np.float64), rtol=1e-13)
    np.testing.assert_allclose(streamed.covariance(ddof=1), np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-10, atol=1e-12)


def test_rows_are_kept_only_where_they_are_needed():
    assert collected(gaussian(1300, 12, 1), 100, keep=False).rows is None
    np.testing.assert_array_equal(collected(gaussian(1300, 12, 1), 100, keep=True).rows, gaussian(1300, 12, 1))
    np.testing.assert_array_equal(collected(gaussian(12, 12, 1), 5, keep=False).rows, gaussian(12, 12, 1))
    assert collected(gaussian(13, 12, 1), 5, keep=False).rows is None


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_of_a_very_large_set_every_third_row_is_kept(tmp_path, monkeypatch, batch):
    monkeypatch.setattr(features, "MOST_ROWS", 100)
    rows = gaussian(250, 6, 1)
    assert features.stride(250) == 3
    collector = Collector(6, keep=False, every=features.stride(250))
    for start in range(0, 250, batch):
        collector.add(torch.from_numpy(rows[start : start + batch]), range(start, min(start + batch, 250)))
    found = collector.finish()
    assert found.rows is None
    np.testing.assert_array_equal(found.sample()[0], rows[::3])
    np.testing.assert_array_equal(found.sample()[1], np.arange(250)[::3])
    features.save(tmp_path / "f.npz", found)
    back = features.load(tmp_path / "f.npz", dim=6, keep=False, sample=True)
    assert back is not None
    np.testing.assert_array_equal(back.sample()[0], rows[::3])
    # A file of a version or a call that kept no sample, or another, does not serve.
    features.save(tmp_path / "f.npz", collected(rows, 50, keep=False))
    assert features.load(tmp_path / "f.npz", dim=6, keep=False, sample=True) is None
    features.save(tmp_path / "f.npz", found)
    monkeypatch.setattr(features, "MOST_ROWS", 50)
    assert features.load(tmp_path / "f.npz", dim=6, keep=False, sample=True) is None


def test_a_set_that_fits_is_kept_whole():
    found = Collector(6, keep=False, every=features.stride(250))
    found.add(torch.from_numpy(gaussian(250, 6, 1)))
    np.testing.assert_array_equal(found.finish().rows, gaussian(250, 6, 1))


def test_the_root_is_a_factor_of_the_scatter():
    rows = gaussian(40, 6, 1)
    rows[:, 2] = rows[:, 3]
    whole = Features.of(rows)
    assert whole.root.shape == (6, 5)
    np.testing.assert_allclose(whole.root @ whole.root.T, whole.covariance(ddof=0) * 40, atol=1e-10)


def test_no_images_have_no_features():
    with pytest.raises(DataError, match="without images"):
        Collector(4, keep=True).finish()


def test_features_that_are_not_numbers_are_refused():
    with pytest.raises(DataError, match="not finite"):
        collected(np.array([[1.0, np.nan]], np.float32), 1, keep=True)


def test_identity_is_content_and_not_object():
    images = waves(5)
    assert features.identity(ImageSet(images)) == features.identity(ImageSet(images.copy()), batch=2)
    changed = images.copy()
    changed[4, 0, 39, 39] ^= 1
    assert features.identity(ImageSet(images)) != features.identity(ImageSet(changed))
    assert features.identity(ImageSet(images)) != features.identity(ImageSet(images.reshape(5, 1, 20, 80)))


def test_a_cache_file_is_named_after_images_extractor_and_resize(tmp_path):
    def path(images=None, **changes):
        extractor = SimpleNamespace(**({"name": "a", "sha256": "0", "resize": "tf1", "dim": 4} | changes))
        return features.cache_path(tmp_path, ImageSet(waves(5) if images is None else images), extractor)

    other = waves(5)
    other[0, 0, 0, 0] ^= 1
    assert path() == path()
    assert len({path(), path(other), path(sha256="1"), path(resize="pytorch-fid"), path(name="b")}) == 5


def test_a_cache_file_gives_back_what_was_saved(tmp_path):
    rows = gaussian(30, 6, 1)
    features.save(tmp_path / "f.npz", collected(rows, 10, keep=True))
    back = features.load(tmp_path / "f.npz", dim=6, keep=True)
    assert back is not None
    np.testing.assert_array_equal(back.rows, rows)
    np.testing.assert_array_equal(back.covariance(ddof=1), Features.of(rows).covariance(ddof=1))
    assert [p.name for p in tmp_path.iterdir()] == ["f.npz"]


def test_a_cache_file_that_does_not_serve_is_passed_over(tmp_path):
    path = tmp_path / "f.npz"
    assert features.load(path, dim=6, keep=False) is None
    features.save(path, collected(gaussian(30, 6, 1), 10, keep=False))
    assert features.load(path, dim=6, keep=False) is not None
    assert features.load(path, dim=6, keep=True) is None
    assert features.load(path, dim=7, keep=False) is None
    # The file of another extractor or set, under this one's name.
    renamed = path.rename(tmp_path / "features-of-another.npz")
    assert features.load(renamed, dim=6, keep=False) is None
    renamed.rename(path)
    assert features.load(path, dim=6, keep=False) is not None
    path.write_bytes(path.read_bytes()[:100])
    assert features.load(path, dim=6, keep=False) is None
    path.write_bytes(b"")
    assert features.load(path, dim=6, keep=False) is None
