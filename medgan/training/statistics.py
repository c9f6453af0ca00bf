"""Running statistics of named quantities, kept on the device until a tick asks for them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medgan.ranks import Ranks


class Collector:
    """Counts, sums and sums of squares by name; adding never waits for the device."""

    def __init__(self) -> None:
        self._moments: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Take in all entries of `values`."""
        v = values.detach().double().flatten()
        moments = torch.stack([torch.full_like(v[0], v.numel()), v.sum(), v.square().sum()])
        self._moments[name] = self._moments[name] + moments if name in self._moments else moments

    def total(self, name: str) -> float:
        """Sum of what was added under a name; 0 when nothing was."""
        return float(self._moments[name][1]) if name in self._moments else 0.0

    def sum_over(self, ranks: Ranks) -> None:
        """Take in what the other ranks added; all of them call this, with the same names."""
        names = sorted(self._moments)
        if names:
            moments = ranks.sum_(torch.stack([self._moments[name] for name in names]))
            self._moments = dict(zip(names, moments, strict=True))

    def mean(self, name: str) -> float:
        """Mean of what was added under a name; nan when nothing was."""
        if name not in self._moments:
            return math.nan
        n, total, _ = self._moments[name].tolist()
        return total / n

    def summary(self) -> dict[str, dict[str, float]]:
        """`{num, mean, std}` per name, the official layout of stats.jsonl; names without finite values are left out."""
        result = {}
        for name, moments in sorted(self._moments.items()):
            n, total, squares = moments.tolist()
            mean = total / n
            if math.isfinite(mean) and math.isfinite(squares):
                result[name] = {"num": int(n), "mean": mean, "std": math.sqrt(max(squares / n - mean**2, 0.0))}
        return result

    def clear(self) -> None:
        """Forget everything."""
        self._moments.clear()
