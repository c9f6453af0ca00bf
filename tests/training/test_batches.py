import io
import itertools
import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

from medgan.data.dataset import open_dataset, write_dataset
from medgan.errors import DataError
from medgan.training.batches import Batches
from medgan.training.prefetch import Prefetch
from medgan.training.sampler import Sampler

CPU = torch.device("cpu")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def written(path, n=11, labels=None, dtype=np.uint8):
    images = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (n, 16, 16)).astype(dtype)
    write_dataset(path, map(png, images), labels, "image\n", {})
    return images


def plain(images, *, mirror, seed, n, batches, most=255.0):
    """The official way, worked out again: the index list twice, the second half flipped, in the sampler's order."""
    twice = np.concatenate([images, images[:, :, ::-1]]) if mirror else images
    sampler = Sampler(len(twice), seed=seed)
    for _ in range(batches):
        yield torch.from_numpy(twice[[next(sampler) for _ in range(n)]].astype(np.float32))[:, None] / (most / 2) - 1


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("decoded", [False, True])
def test_batches_are_those_of_the_plain_way(tmp_path, mirror, decoded):
    images = written(tmp_path / "a.zip")
    dataset = open_dataset(tmp_path / "a.zip")
    if decoded:
        dataset.check(tmp_path / "cache")
    batches = Batches(dataset, mirror=mirror, seed=5, device=CPU)
    for wanted in plain(images, mirror=mirror, seed=5, n=4, batches=12):
        found, labels = batches.next(4)
        assert torch.equal(found, wanted)
        assert labels is None
        assert found.min() >= -1
        assert found.max() <= 1


def test_sixteen_bits_reach_the_network_whole(tmp_path):
    images = written(tmp_path / "a.zip", dtype=np.uint16)
    batches = Batches(open_dataset(tmp_path / "a.zip"), mirror=True, seed=5, device=CPU)
    for wanted in plain(images, mirror=True, seed=5, n=4, batches=6, most=65535.0):
        assert torch.equal(batches.next(4)[0], wanted)


def test_labels_go_with_their_images(tmp_path):
    written(tmp_path / "a.zip", labels=[i % 3 for i in range(11)])
    dataset = open_dataset(tmp_path / "a.zip")
    batches = Batches(dataset, mirror=True, seed=1, device=CPU)
    sampler = Sampler(22, seed=1)
    for _ in range(5):
        indices = [next(sampler) % 11 for _ in range(4)]
        assert batches.next(4)[1].argmax(1).tolist() == dataset.labels[indices].tolist()
    # A part keeps the classes of the whole.
    part = dataset.limited(2, seed=0)
    assert Batches(part, mirror=False, seed=1, device=CPU).c_dim == 3


def test_a_resumed_order_goes_on_from_what_was_consumed_not_from_what_was_fetched(tmp_path):
    images = written(tmp_path / "a.zip")
    unbroken = list(plain(images, mirror=True, seed=2, n=3, batches=20))
    first = Batches(open_dataset(tmp_path / "a.zip"), mirror=True, seed=2, device=CPU)
    for wanted in unbroken[:7]:
        assert torch.equal(first.next(3)[0], wanted)
    # Batches are being fetched ahead at this moment.
    state = first.sampler.state()
    assert state["position"] == 21
    second = Batches(open_dataset(tmp_path / "a.zip"), mirror=True, seed=2, device=CPU)
    second.next(3)
    second.sampler.load(state)
    for wanted in unbroken[7:]:
        assert torch.equal(second.next(3)[0], wanted)


def test_another_batch_size_drops_what_was_fetched():
    ahead = Prefetch(Sampler(50, seed=0), lambda indices: list(indices))
    sampler = Sampler(50, seed=0)
    for n in (4, 4, 3, 5, 5, 1, 4):
        wanted = [next(sampler) for _ in range(n)]
        assert ahead.next(n) == (wanted, wanted)


def test_the_next_batches_are_read_while_one_is_used():
    fetched = []

    def fetch(indices):
        fetched.append(indices)
        return len(fetched)

    ahead = Prefetch(Sampler(50, seed=0), fetch)
    for count in itertools.count(1):
        ahead.next(2)
        time.sleep(0.05)
        assert len(fetched) == count + 2
        if count == 4:
            break
    assert len(fetched) == len({json.dumps(indices) for indices in fetched}), "nothing is read twice"


def test_an_error_of_reading_is_an_error_of_the_step(tmp_path):
    written(tmp_path / "a.zip")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    dataset = open_dataset(tmp_path / "a.zip")
    data[60:-3000] = bytes(len(data) - 3060)
    (tmp_path / "a.zip").write_bytes(data)
    batches = Batches(dataset, mirror=False, seed=0, device=CPU)
    with pytest.raises(DataError, match="is broken"):
        [batches.next(4) for _ in range(4)]


@pytest.mark.gpu
def test_batches_on_a_gpu_are_those_of_the_cpu(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for dtype, name in ((np.uint8, "a.zip"), (np.uint16, "b.zip")):
        written(tmp_path / name, dtype=dtype)
        dataset = open_dataset(tmp_path / name)
        dataset.check(tmp_path / "cache")
        there = Batches(dataset, mirror=True, seed=3, device=torch.device("cuda"))
        here = Batches(dataset, mirror=True, seed=3, device=CPU)
        for _ in range(9):
            assert torch.equal(there.next(4)[0].cpu(), here.next(4)[0])
