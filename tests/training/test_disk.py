"""Disk use planned against disk used, room that is not there, and the generators kept on the way."""

from __future__ import annotations

import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

from medgan import runs
from medgan.commands.training_run import run_training
from medgan.data.dataset import open_dataset
from medgan.errors import ConfigError, DiskError
from medgan.networks.bundle import read_bundle, read_metadata
from medgan.training import disk
from medgan.training import state as states
from medgan.training.config import TrainConfig
from medgan.training.loop import train
from medgan.training.sampler import Sampler
from tests.toy import discs, tiny

MIB = 2**20
Usage = namedtuple("Usage", "total used free")


def _bytes(folder) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_the_sum_by_hand():
    """G of 3 M values, D of 2 M: a state holds 4 x 3 + 3 x 2 = 18 M of four bytes. 100 kimg are 25 ticks (27 with both ends), 6 or 7
    snapshots; of every second 3 are kept, 2 and the one that is being written."""
    config = TrainConfig(kimg=100, snapshot_ticks=5, keep_snapshots=2, keep_most=2, mirror=True)
    need = disk.bytes_needed(config, 3 * 10**6, 2 * 10**6, size=64, channels=1, images=1000, decoded=1234)
    assert need.state == 72 * 10**6 + 16_000 + MIB
    assert need.bundle == 12 * 10**6 + MIB
    assert need.kept == 3
    assert need.sheets == 7 * 64 * 64 * 64
    assert need.records == (27 + 7) * 4096
    assert need.features == 1000 * 2048 * 4
    assert need.least == 2 * need.state + 4 * need.bundle + need.sheets + need.records + need.features
    assert need.total == need.least + 1234


def test_nothing_is_kept_unless_asked_for():
    need = disk.bytes_needed(TrainConfig(metrics=()), 1000, 1000, size=32, channels=1, images=10)
    assert (need.kept, need.features, need.decoded) == (0, 0, 0)


def test_decoded_images_by_hand():
    """1000 images of 64 px with a SHA-256 each, and two headers; nothing where a gibibyte is over the bound."""
    assert disk.decoded_bytes(TrainConfig(), 1000, 64 * 64) == 1000 * (4096 + 32) + 4096
    sizes = [disk.decoded_bytes(TrainConfig(cache_gib=most), 2**10, 2**20) for most in (1.0, 0.99, 0.0)]
    assert sizes == [2**30 + 2**15 + 4096, 0, 0]


def test_a_state_is_as_large_as_said(tmp_path):
    """Within 2 %, for networks large enough that their tensors count."""
    config = TrainConfig(channel_base=8192, channel_max=128, latent=128, batch=4, metrics=())
    data = discs(tmp_path / "data", size=64)
    state = states.build(config, size=64, channels=1, c_dim=0, device=torch.device("cpu"))
    for optimizer, network in ((state.G_opt, state.G), (state.D_opt, state.D)):
        for p in network.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
    states.save(state, tmp_path / "state.pt", config=config, dataset_identity=data.identity, sampler=Sampler(12).state())
    need = disk.need_of(config, data)
    assert (need.state - disk.BESIDE_TENSORS) * 0.98 <= (tmp_path / "state.pt").stat().st_size <= need.state


def test_a_run_stays_within_what_was_planned(tmp_path):
    config = tiny(kimg=0.16, snapshot_ticks=2, keep_snapshots=1, keep_most=3)
    data = discs(tmp_path / "data")
    train(config, data, tmp_path / "run")
    need = disk.need_of(config, data)
    assert _bytes(tmp_path / "run" / "bundle") <= need.bundle
    assert _bytes(tmp_path / "run") <= need.total
    assert (tmp_path / "run" / runs.STATS).stat().st_size <= need.records


def test_too_little_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    data = discs(tmp_path / "data")
    need = disk.need_of(tiny(), data)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40, need.least - 5 * MIB))
    with pytest.raises(DiskError) as error:
        train(tiny(), data, tmp_path / "run")
    assert (error.value.code, error.value.exit_code) == ("E_DISK", 74)
    assert "2 states of 2 MiB, 1 generators of 2 MiB" in error.value.message
    assert "fix: free 5 MiB, another disk" in error.value.line
    assert not list((tmp_path / "run").iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40, need.least))
    disk.check_room(need, tmp_path / "run")


def test_what_a_run_has_written_need_not_be_free_again(tmp_path, monkeypatch):
    data = discs(tmp_path / "data")
    train(tiny(kimg=0.004), data, tmp_path / "run")
    need, there = disk.need_of(tiny(), data), _bytes(tmp_path / "run" / "checkpoint") + _bytes(tmp_path / "run" / "bundle")
    there += _bytes(tmp_path / "run" / "snapshots")
    for free, fits in ((need.least - there, True), (need.least - there - 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Usage(2**40, 2**40, free))
        if fits:
            disk.check_room(need, tmp_path / "run")
        else:
            with pytest.raises(DiskError):
                disk.check_room(need, tmp_path / "run")


@pytest.mark.parametrize("bits", [8, 16])
def test_the_decoded_images_take_what_was_planned(tmp_path, bits):
    data = discs(tmp_path / "data")
    if bits == 16:
        for file in sorted((tmp_path / "data").glob("*.png")):
            Image.fromarray(np.asarray(Image.open(file)).astype(np.uint16) * 257).save(file)
        data = open_dataset(tmp_path / "data")
    need = disk.need_of(tiny(), data.limited(5))
    data.check(tmp_path / "run" / runs.DECODED)
    assert need.decoded - disk.HEADERS <= _bytes(tmp_path / "run" / runs.DECODED) <= need.decoded
    assert need.decoded == 12 * (32 * 32 * bits // 8 + 32) + disk.HEADERS


def test_a_disk_too_short_for_the_decoded_images_alone_is_long_enough(tmp_path, monkeypatch):
    data = discs(tmp_path / "data")
    need = disk.need_of(tiny(), data)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40, need.least))
    (tmp_path / "run").mkdir()
    disk.check_room(need, tmp_path / "run")
    run_training(tiny(kimg=0.004), data, tmp_path / "run")
    assert data.decoded_in is None
    assert (tmp_path / "run" / runs.STATE).exists()


def test_counting_builds_no_weights_and_checks_the_networks(tmp_path):
    """A network of 1.3 GB is counted without a byte of it, and one that cannot be is refused here already."""
    data = discs(tmp_path / "data")
    assert disk.need_of(TrainConfig(channel_base=2**20, channel_max=4096), data).state > 10 * 2**30
    with pytest.raises(ConfigError, match="--freeze-d 11"):
        disk.need_of(tiny(freeze_d=11), data)


def test_every_second_snapshot_is_kept_and_the_oldest_goes(tmp_path):
    """Ticks of 8 images from the first 4, snapshots every second tick: images 4, 20, 36, 52, 68, 84, and 100 at the end."""
    config = tiny(kimg=0.1, keep_snapshots=2, keep_most=1)
    train(config, discs(tmp_path / "data"), tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run" / runs.SNAPSHOTS).glob("network*"))
    assert kept == ["network000000.100"]
    train(tiny(kimg=0.1, keep_snapshots=2), discs(tmp_path / "data"), tmp_path / "all")
    folder = tmp_path / "all" / runs.SNAPSHOTS
    assert sorted(path.name for path in folder.glob("network*")) == ["network000000.036", "network000000.068", "network000000.100"]
    assert [read_metadata(folder / name)["medgan"]["kimg"] for name in ("network000000.036", "network000000.100")] == [0.036, 0.1]
    G, _ = read_bundle(folder / "network000000.100")
    last = torch.load(tmp_path / "all" / runs.STATE, weights_only=True)["G_ema"]
    assert all(torch.equal(tensor, last[name]) for name, tensor in G.state_dict().items())


def test_a_resumed_run_keeps_the_same_generators_byte_for_byte(tmp_path):
    data = discs(tmp_path / "data")
    train(tiny(kimg=0.05, keep_snapshots=2), data, tmp_path / "run")
    train(tiny(kimg=0.1, keep_snapshots=2), data, tmp_path / "run")
    train(tiny(kimg=0.1, keep_snapshots=2), data, tmp_path / "whole")
    kept = [
        {path.parts[-3]: path.read_bytes() for path in (tmp_path / run / runs.SNAPSHOTS).glob("network*/models/model.pt")}
        for run in ("run", "whole")
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 3
