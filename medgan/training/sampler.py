"""The official order of the real images: an infinite shuffle that a resumed run continues where it stopped."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class Sampler:
    """Endless indices of a set, shuffled once and then stirred locally; ranks take turns.

    After position i is given out it is swapped with one at most `window` of the set behind it.

    Args:
        size: Number of items.
        rank: This process.
        ranks: Number of processes; this one takes every `ranks`-th index.
        seed: Of the order.
        window: Share of the set that the stirring reaches.
    """

    def __init__(self, size: int, *, rank: int = 0, ranks: int = 1, seed: int = 0, window: float = 0.5) -> None:
        self.rank, self.ranks = rank, ranks
        self.order = np.arange(size)
        self.random = np.random.RandomState(seed)
        self.random.shuffle(self.order)
        self.window = round(size * window)
        self.position = 0

    def __next__(self) -> int:
        while True:
            i = self.position % len(self.order)
            mine = self.position % self.ranks == self.rank
            chosen = int(self.order[i])
            if self.window >= 2:
                j = (i - self.random.randint(self.window)) % len(self.order)
                self.order[i], self.order[j] = self.order[j], self.order[i]
            self.position += 1
            if mine:
                return chosen

    def state(self) -> dict[str, Any]:
        """Everything that continues the order, as tensors and numbers."""
        _, keys, position, has_gauss, cached = self.random.get_state()
        return {
            "position": self.position,
            "order": torch.from_numpy(self.order.copy()),
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "random": [int(position), int(has_gauss), float(cached)],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        self.position = state["position"]
        self.order = state["order"].numpy().copy()
        position, has_gauss, cached = state["random"]
        self.random.set_state(("MT19937", state["keys"].numpy().astype(np.uint32), position, has_gauss, cached))
