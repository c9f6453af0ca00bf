"""Perceptual path length (Karras et al. 2019, arXiv 1812.04948, section 4.1; 2020, arXiv 1912.04958): how smoothly images follow their latents."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from medgan import weights as pretrained
from medgan.errors import DataError
from medgan.metrics.features import Array
from medgan.metrics.lpips import LPIPS, load_lpips
from medgan.metrics.means import interval
from medgan.metrics.metric import Result
from medgan.progress import Step, nothing
from medgan.ranks import Ranks

Walk = Callable[[int, int, float], tuple[Tensor, Tensor]]
"""`walk(start, count, epsilon)` gives pairs number start ... of images (count, C, H, W) in about [-1, 1]: at a random point of w, and a part
`epsilon` of the way to another random point, with the same noise."""

SIDE = 256
"""Larger images are averaged down to about this."""


def shrunk(images: Tensor) -> Tensor:
    """Images (N, C, H, W) with blocks of H // 256 pixels averaged, as three channels."""
    factor = images.shape[2] // SIDE
    if factor > 1:
        n, channels, height, width = images.shape
        images = images.reshape(n, channels, height // factor, factor, width // factor, factor).mean((3, 5))
    return images.expand(-1, 3, -1, -1)


def ends(distances: Array) -> tuple[float, float]:
    """The 1st and the 99th percentile, each rounded to the distance beyond it, as the official code does."""
    return float(np.percentile(distances, 1, method="lower")), float(np.percentile(distances, 99, method="higher"))


def trimmed_mean(distances: Array) -> float:
    """Mean of the distances between the ends, these included."""
    low, high = ends(distances)
    return float(distances[(distances >= low) & (distances <= high)].mean(dtype=np.float64))


def trimmed_interval(distances: Array) -> Result:
    """The interval of the trimmed mean, from the deviation of the distances moved to the ends (Tukey and McLaughlin 1963)."""
    low, high = ends(distances)
    kept = int(((distances >= low) & (distances <= high)).sum())
    if kept < 2 or low == high:
        return {"interval": None, "interval_method": f"none: {len(distances)} pairs {'all ' if kept > 1 else ''}gave {distances[0]:.4g}"}
    winsorised = distances.astype(np.float64).clip(low, high)
    error = float(winsorised.std(ddof=1)) / (kept / len(distances)) / math.sqrt(len(distances))
    return interval(trimmed_mean(distances), error, kept - 1, f"standard error of a trimmed mean of {len(distances):,} pairs")


@dataclass(frozen=True, kw_only=True)
class PPL2WEnd:
    """Mean LPIPS distance, over epsilon squared, of a generator's images a step of epsilon apart in w, at the end points of paths.

    Lower means smoother. It knows no real images: a generator of one image has the best value, 0.

    Args:
        epsilon: Length of the step, as a part of the way from one random point to another.
        batch: Pairs per forward pass.
        device: Where LPIPS is computed.
        weights: A folder to look for weights in first.
        intervals: Add a confidence interval, the generator as it is.
    """

    needs: ClassVar[str] = "generator"
    higher_is_better: ClassVar[bool] = False
    extractor: ClassVar[str] = ""
    resize: ClassVar[str] = ""
    n_fake: ClassVar[int] = 0
    instead: ClassVar[str] = ""
    epsilon: float = 1e-4
    batch: int = 8
    device: str = "cpu"
    weights: Path | None = None
    intervals: bool = True

    @cached_property
    def model(self) -> LPIPS:
        """LPIPS on VGG16, loaded when it is first asked for."""
        return load_lpips("vgg16", self.device, self.weights)

    def prepare(self) -> None:
        """Load the weights now, so that their absence shows before any work."""
        assert self.model

    def __call__(self, *, walk: Walk, count: int, ranks: Ranks = Ranks(), step: Step = nothing) -> Result:  # noqa: B008 (frozen)
        """The trimmed mean and what it rests on; on ranks other than 0 an empty dictionary.

        Args:
            walk: Makes pairs of images by number.
            count: How many pairs.
            ranks: The processes that share them.
            step: Called with pairs done and pairs in all.

        Raises:
            DataError: A distance is not a finite number.
        """
        parts = [torch.zeros(0, dtype=torch.float64)]
        mine: list[int] = []
        for turn in range(0, count, self.batch * ranks.count):
            start = turn + self.batch * ranks.rank
            numbers = range(min(start, count), min(start + self.batch, count))
            if numbers:
                parts.append(self.distances(*walk(numbers.start, len(numbers), self.epsilon)))
                mine += numbers
            step(min(turn + self.batch * ranks.count, count), count)
        found, order = ranks.gather(torch.cat(parts)), ranks.gather(torch.tensor(mine, dtype=torch.int64))
        if not ranks.speaks:
            return {}
        distances = torch.cat(found)[torch.cat(order).argsort()].numpy()
        if not np.isfinite(distances).all():
            raise DataError("the generator gave images that are not finite numbers", fix="another --bundle")
        return {
            "value": trimmed_mean(distances),
            **(trimmed_interval(distances) if self.intervals else {}),
            "pairs": count,
            "epsilon": self.epsilon,
            "space": "w",
            "weights_sha256": pretrained.known("lpips-vgg16").sha256,
        }

    @torch.inference_mode()
    def distances(self, one: Tensor, other: Tensor) -> Tensor:
        """LPIPS over epsilon squared, (N,) float64."""
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            value = self.model(*(shrunk(images.to(self.device).float()) for images in (one, other)))
        return value.double().cpu() / self.epsilon**2
