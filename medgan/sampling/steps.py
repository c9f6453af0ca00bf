"""Pairs of images a small step apart in w, for the path length of a generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from medgan.errors import ConfigError
from medgan.sampling.generate import Drawing, group_size, groups


def stepped(
    G: nn.Module, first_seed: int, *, device: torch.device | str = "cpu", labels: Tensor | None = None
) -> Callable[[int, int, float], tuple[Tensor, Tensor]]:
    """Pairs of images by number: `walk(start, count, epsilon)` gives pairs start ... as two tensors (count, C, H, W), about [-1, 1], not clamped.

    The first of pair i is the untruncated image of seed `first_seed` + i; the second lies `epsilon` of the way in w from there to the style of
    another latent of that seed, with the same class and noise. A pair is the same whatever is made beside it.

    Args:
        G: Generator on `device`, in eval mode.
        first_seed: Of pair 0.
        device: Where G is.
        labels: (M, c_dim) of a set, of which each pair draws one; None draws all classes alike.
    """
    drawing = Drawing(among=labels)

    def walk(start: int, count: int, epsilon: float) -> tuple[Tensor, Tensor]:
        if not hasattr(G, "mapping"):
            raise ConfigError("this generator has no space w, in which path length is measured", fix="--metrics without ppl2_wend")
        pairs = []
        with torch.inference_mode():
            for some, meant in groups(range(first_seed + start, first_seed + start + count), group_size(G, device)):
                z = np.stack([np.random.RandomState(seed).randn(2, int(G.z_dim)) for seed in some], axis=1)  # type: ignore[arg-type]
                c = drawing.labels(G, some)
                c = None if c is None else c.to(device)
                here, there = (G.mapping(torch.from_numpy(row).float().to(device), c) for row in z)  # type: ignore[operator]
                ends = (here, here.lerp(there, epsilon))
                pairs.append([G.synthesis(ws, noise_mode=drawing.noise_of(some))[:meant] for ws in ends])  # type: ignore[operator]
        one, other = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
        return one, other

    return walk
