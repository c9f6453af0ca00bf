"""Batches of real images in the order of the sampler, scaled on the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medgan.data.dataset import Dataset
from medgan.training.sampler import Sampler


class Batches:
    """Batches of real images and labels on the device; with `mirror` the set holds every image flipped as well.

    Args:
        dataset: Opened dataset.
        mirror: Double the set by left-right flips, as items of their own.
        seed: Of the order.
        device: Where batches go.
        labels: Use the set's labels, where it has some.
    """

    def __init__(
        self, dataset: Dataset, *, mirror: bool, seed: int, device: torch.device, labels: bool = True, rank: int = 0, ranks: int = 1
    ) -> None:
        self.dataset, self.device = dataset, device
        self.size = len(dataset)
        self.sampler = Sampler(self.size * (2 if mirror else 1), rank=rank, ranks=ranks, seed=seed)
        self.labels = one_hot(dataset) if labels else None
        self.c_dim = 0 if self.labels is None else self.labels.shape[1]

    def next(self, n: int) -> tuple[Tensor, Tensor | None]:
        """The next n images (n, C, H, W) in [-1, 1] and their labels (n, c_dim), None without labels."""
        indices = [next(self.sampler) for _ in range(n)]
        images = self.dataset.images([i % self.size for i in indices])
        flipped = np.asarray([i >= self.size for i in indices])
        images = np.where(flipped[:, None, None, None], images[..., ::-1], images)
        real = torch.from_numpy(images).to(self.device).float() / 127.5 - 1
        if self.labels is None:
            return real, None
        return real, self.labels[[i % self.size for i in indices]].to(self.device)

    def random_labels(self, n: int) -> Tensor | None:
        """Labels (n, c_dim) of random images of the set."""
        if self.labels is None:
            return None
        return self.labels[torch.randint(self.size, (n,))].to(self.device)


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
        most = max(classes, int(numbers.max()) + 1)
        return torch.nn.functional.one_hot(numbers, most)[:, : classes if classes >= 0 else most].float()
    return torch.from_numpy(labels.astype(np.float32))
