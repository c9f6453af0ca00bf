"""What a run will write, and whether there is room for it: counted before the first step, not met at the last."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from medgan import runs
from medgan.data.dataset import Dataset
from medgan.errors import DiskError
from medgan.training import state as states
from medgan.training.batches import one_hot
from medgan.training.config import TrainConfig

SHEET_IMAGES = 64
# Whatever a file holds beside its tensors: names, settings, the archive's own tables. Measured 0.2 MiB for a state at 1024 px.
BESIDE_TENSORS = 2**20
# A line of stats.jsonl or of metrics.jsonl and its event; measured 1.4 and 0.7 KB, and below 1 KB.
LINE = 4096
# Inception features of the real images, 2048 float32 each, which measurements keep beside the run.
FEATURES = 2048 * 4
# Of each decoded image, its SHA-256; and the headers of both files.
DIGEST, HEADERS = 32, 4096


@dataclass(frozen=True, kw_only=True)
class DiskNeed:
    """Bytes of each kind of file that a run leaves or has at its fullest moment; upper bounds.

    Attributes:
        state: One checkpoint/state.pt; a second one stands beside it while it is written.
        bundle: One generator as a MONAI bundle.
        kept: Bundles under snapshots/ at the fullest moment, their number.
        sheets: Sample sheets, all of them.
        records: stats.jsonl, metrics.jsonl, the event file, log.txt.
        features: Cached features of the real images; 0 where nothing is measured.
        decoded: The decoded images; 0 where they are more than --cache-gib. Where the disk is short, the run goes without.
    """

    state: int
    bundle: int
    kept: int
    sheets: int
    records: int
    features: int
    decoded: int

    @property
    def least(self) -> int:
        """What the run cannot do without, at the fullest moment: while a state is written, the old one is still there."""
        return 2 * self.state + (1 + self.kept) * self.bundle + self.sheets + self.records + self.features

    @property
    def total(self) -> int:
        """All of it."""
        return self.least + self.decoded


def bytes_needed(
    config: TrainConfig, parameters_G: int, parameters_D: int, *, size: int, channels: int, images: int, decoded: int = 0
) -> DiskNeed:
    """Bytes a run of these settings writes.

    Args:
        config: Settings.
        parameters_G: Values a generator holds, parameters and buffers.
        parameters_D: The same of the discriminator.
        size: Side of the images in pixels.
        channels: 1 or 3.
        images: Images of the dataset.
        decoded: As `decoded_bytes` gives it.
    """
    # G, its average and two moments of Adam; D and two moments. The sampler's order is 64 bit.
    state = 4 * (4 * parameters_G + 3 * parameters_D) + 8 * images * (2 if config.mirror else 1) + BESIDE_TENSORS
    ticks = math.ceil(config.kimg / config.tick_kimg) + 2
    snapshots = math.ceil(ticks / config.snapshot_ticks) + 1
    # A new one is complete before the oldest goes.
    kept = min(snapshots // config.keep_snapshots, config.keep_most + 1) if config.keep_snapshots else 0
    return DiskNeed(
        state=state,
        bundle=4 * parameters_G + BESIDE_TENSORS,
        kept=kept,
        sheets=snapshots * SHEET_IMAGES * size * size * channels,
        records=(ticks + snapshots) * LINE,
        features=FEATURES * ((images if config.metrics else 0) + (min(config.kid_images, images) if config.kid_every else 0)),
        decoded=decoded,
    )


def decoded_bytes(config: TrainConfig, count: int, image_bytes: int) -> int:
    """Bytes of a set's decoded images and what is kept of each; 0 where the images are more than --cache-gib.

    Args:
        config: Settings.
        count: Images of the whole set, also where only a part is trained on.
        image_bytes: Of one, decoded.
    """
    pixels = count * image_bytes
    return pixels + count * DIGEST + HEADERS if 0 < pixels <= config.cache_gib * 2**30 else 0


def values_of(network: nn.Module) -> int:
    """Values that a network's state holds: parameters and buffers."""
    return sum(tensor.numel() for tensor in network.state_dict().values())


def need_of(config: TrainConfig, data: Dataset) -> DiskNeed:
    """What a run on a dataset writes; the networks are built without their weights to be counted."""
    labels = one_hot(data) if config.labels else None
    with torch.device("meta"):
        G, D = states.networks(config, size=data.resolution, channels=data.channels, c_dim=0 if labels is None else labels.shape[1])
    shape = {"size": data.resolution, "channels": data.channels, "images": len(data)}
    decoded = decoded_bytes(config, data.whole, data.channels * data.resolution**2 * data.bits // 8)
    return bytes_needed(config, values_of(G), values_of(D), **shape, decoded=decoded)


def check_room(need: DiskNeed, out: Path) -> None:
    """Compare what a run must write with what is free where it goes; files of an earlier call in the same folder count as written.

    The decoded images are no part of it: they are written only where there is room for them beside the rest. Quotas of a file system are not seen here.

    Raises:
        DiskError: Less is free than the run needs.
    """
    folders = (Path(runs.STATE).parent, Path(runs.BUNDLE), Path(runs.SNAPSHOTS), Path("cache"))
    there = sum(file.stat().st_size for folder in folders for file in (out / folder).rglob("*") if file.is_file())
    missing, free = max(need.least - there, 0), shutil.disk_usage(out).free
    if missing <= free:
        return
    parts = f"2 states of {_size(need.state)}, {1 + need.kept} generators of {_size(need.bundle)}, samples {_size(need.sheets)}"
    raise DiskError(
        f"the run will write up to {_size(missing)} more ({parts}), {_size(free)} are free",
        fix=f"free {_size(missing - free)}, another disk for --out" + (", or --keep-snapshots 0" if need.kept else ""),
    )


def _size(count: int) -> str:
    """Bytes for people: `1.4 GiB`, `210 MiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{math.ceil(count / 2**20)} MiB"
