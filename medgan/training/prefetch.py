"""Reads the next batches while the device computes, without changing which images come."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from medgan.training.sampler import Sampler

T = TypeVar("T")

# One batch is being copied to the device, one is being read.
DEPTH = 2


class Prefetch(Generic[T]):
    """What `fetch` gives for the sampler's next indices, fetched ahead in one thread.

    The sampler itself moves only when a batch is taken, so its state is that of what was consumed and a resumed run is exact. Ahead of it
    runs a copy; where their indices differ (after `Sampler.load`, or another batch size) what was fetched is dropped.

    Args:
        sampler: Gives the indices.
        fetch: Reads a batch; runs in a thread of its own.
    """

    def __init__(self, sampler: Sampler, fetch: Callable[[list[int]], T]) -> None:
        self.sampler, self.fetch = sampler, fetch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="medgan-batches")
        self._ahead = copy.deepcopy(sampler)
        self._ready: deque[tuple[list[int], Future[T]]] = deque()

    def next(self, n: int) -> tuple[list[int], T]:
        """The next n indices and what `fetch` gives for them; its errors are raised here."""
        wanted = [next(self.sampler) for _ in range(n)]
        if not self._ready or self._ready[0][0] != wanted:
            for _, future in self._ready:
                future.cancel()
            self._ready = deque([(wanted, self._thread.submit(self.fetch, wanted))])
            self._ahead = copy.deepcopy(self.sampler)
        _, future = self._ready.popleft()
        while len(self._ready) < DEPTH:
            indices = [next(self._ahead) for _ in range(n)]
            self._ready.append((indices, self._thread.submit(self.fetch, indices)))
        return wanted, future.result()
