"""Batches of real images in the order of the sampler, scaled on the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medgan import machine
from medgan.data.dataset import Dataset
from medgan.ranks import Ranks
from medgan.training.prefetch import Prefetch
from medgan.training.sampler import Sampler


class Batches:
    """Batches of real images and labels on the device; with `mirror` the set holds every image flipped as well.

    Args:
        dataset: Opened dataset.
        mirror: Double the set by left-right flips, as items of their own.
        seed: Of the order.
        device: Where batches go.
        labels: Use the set's labels, where it has some.
        ranks: The processes that share each batch. All of them follow the one order, so that a state resumes on any number of them.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        mirror: bool,
        seed: int,
        device: torch.device,
        labels: bool = True,
        ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    ) -> None:
        self.dataset, self.device, self.ranks = dataset, device, ranks
        self.size = len(dataset)
        self.sampler = Sampler(self.size * (2 if mirror else 1), seed=seed)
        self.ahead = Prefetch(self.sampler, self._read)
        self.labels = one_hot(dataset) if labels else None
        self.c_dim = 0 if self.labels is None else self.labels.shape[1]

    def next(self, n: int) -> tuple[Tensor, Tensor | None]:
        """This rank's part of the next n images, (n / ranks, C, H, W) in [-1, 1], and their labels (n / ranks, c_dim), None without labels."""
        indices, stored = self.ahead.next(n)
        indices = self._mine(indices)
        real = stored.to(self.device, non_blocking=True).float().div_(127.5 if self.dataset.bits == 8 else 32767.5).sub_(1)
        if self.labels is None:
            return real, None
        return real, machine.carried(self.labels[[i % self.size for i in indices]], to=self.device)

    def _mine(self, indices: list[int]) -> list[int]:
        """This rank's part of a batch."""
        share = self.ranks.share(len(indices), "batch")
        return indices[self.ranks.rank * share :][:share]

    def _read(self, indices: list[int]) -> Tensor:
        """This rank's stored images (n / ranks, C, H, W); for a GPU in pinned memory, from which they are copied while it computes."""
        mine = np.asarray(self._mine(indices))
        stored, flipped = self.dataset.stored(mine % self.size), mine >= self.size
        # Here, a batch ahead of the step, and on whole numbers: a quarter of the bytes of what a step gets.
        stored[flipped] = stored[flipped, ..., ::-1]
        images = torch.from_numpy(stored)
        return images.pin_memory() if self.device.type == "cuda" else images

    def random_labels(self, n: int) -> Tensor | None:
        """Labels (n, c_dim) of random images of the set."""
        if self.labels is None:
            return None
        return machine.carried(self.labels[torch.randint(self.size, (n,))], to=self.device)


def one_hot(dataset: Dataset, classes: int = -1) -> Tensor | None:
    """Labels (N, c_dim) float32: whole numbers become one-hot, vectors stay; None without labels.

    Args:
        dataset: Opened dataset.
        classes: How many there are; -1 counts them. A class beyond them is a row of zeros.
    """
    if dataset.labels is None:
        return None
    labels = np.asarray(dataset.labels)
    if labels.ndim == 1:
        numbers = torch.from_numpy(labels.astype(np.int64))
        # A part of a set has the classes of the whole.
        most = max(classes, dataset.classes)
        return torch.nn.functional.one_hot(numbers, most)[:, : classes if classes >= 0 else most].float()
    return torch.from_numpy(labels.astype(np.float32))
