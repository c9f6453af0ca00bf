"""When a training goes wrong in a way its losses do not show: measures and limits, as plain functions. docs/explanation/training-watch.md.

Three failures: the generator makes few different images (W_DIVERSITY), ADA has nothing left to give (W_AUGMENT_BOUND), the
discriminator knows the training images by heart (W_OVERFIT).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

THUMBNAIL = 32
"""Side in pixels at which images are compared: structure stays, noise of scanner and generator does not."""
LEAST_DISTANCE = 0.5
"""Of samples, in units of real images: below, their variance is under a quarter of the real."""
LEAST_NEAREST = 0.25
"""Of a sample's nearest other, in units of real images."""
SETTLED_KIMG = 200.0
"""From here on (or from half of a shorter run) low diversity counts even where it was never higher: a young generator makes one grey image."""
TICKS_AT_BOUND = 5
"""20 kimg of official ticks, in which p could have moved by 0.04."""
ACCURACY_GAP = 0.25
"""ADA holds D right on 80 % of real images; this far below lies guessing."""
STANDARD_ERRORS = 3.0
"""By which two shares must differ to be no accident of few held-out images."""


@dataclass(frozen=True)
class Alarm:
    """A code that stays, and a sentence with its numbers."""

    code: str
    text: str


def thumbnails(images: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, h, w) of at most 32 px a side, by the mean of each cell."""
    side = min(THUMBNAIL, images.shape[2], images.shape[3])
    return F.adaptive_avg_pool2d(images.float(), side)


def distances(images: Tensor) -> Tensor:
    """Root mean square difference of each pair of images: (N, C, H, W) to (N, N) float64."""
    flat = images.double().flatten(1)
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") / math.sqrt(flat.shape[1])


def mean_distance(pairs: Tensor) -> float:
    """Mean distance of two different images, from their (N, N) distances, N at least 2."""
    n = len(pairs)
    return float(pairs.sum() / (n * (n - 1)))


def nearest_distance(pairs: Tensor) -> float:
    """Median (the lower one) of the distance of an image to its nearest other, from (N, N) distances.

    The mean distance falls to 0 only when all images are one; with k different ones it is still (1 - 1/k) of what it was. By the birthday
    paradox most of 64 images have a twin as soon as k is below about 90, and this median falls.
    """
    others = pairs + torch.diag(torch.full((len(pairs),), math.inf, dtype=pairs.dtype, device=pairs.device))
    return float(others.amin(dim=1).median())


def relative(fake: float, real: float) -> float | None:
    """How many times as far apart samples are as real images; None where the real ones are all the same, or a sample is not finite."""
    return fake / real if real > 0 and math.isfinite(fake) else None


def is_low(distance: float | None, nearest: float | None) -> bool:
    """Whether samples lie too close together, each measure relative to that of real images."""
    return (distance is not None and distance < LEAST_DISTANCE) or (nearest is not None and nearest < LEAST_NEAREST)


def diversity_alarm(distance: float | None, nearest: float | None, *, was_diverse: bool, kimg: float, kimg_total: float) -> Alarm | None:
    """W_DIVERSITY: samples lie too close together, and did not before, or training is too old for that.

    Args:
        distance: Mean distance of samples, relative to real images.
        nearest: Median distance to the nearest other, relative to real images.
        was_diverse: Whether an earlier snapshot was not low.
        kimg: Thousands of images shown.
        kimg_total: Of the whole run.
    """
    if not is_low(distance, nearest) or not (was_diverse or kimg >= min(SETTLED_KIMG, kimg_total / 2)):
        return None
    shown = " and ".join(
        f"{value:.2f} times {what} (least {least:g})"
        for value, what, least in (
            (distance, "the distance", LEAST_DISTANCE),
            (nearest, "the distance to the nearest other", LEAST_NEAREST),
        )
        if value is not None
    )
    return Alarm("W_DIVERSITY", f"samples are too alike: {shown} of real images; look at the last sheets in snapshots/")


def bound_alarm(ticks: int, *, bound: float) -> Alarm | None:
    """W_AUGMENT_BOUND: ADA's p has stood at its bound for `ticks` ticks in a row."""
    if ticks < TICKS_AT_BOUND:
        return None
    return Alarm(
        "W_AUGMENT_BOUND", f"ADA's p has been at its bound {bound:g} for {ticks} ticks: the discriminator overfits more than ADA can help"
    )


def overfit_alarm(train: float, held_out: float, *, n_train: int, n_held_out: int) -> Alarm | None:
    """W_OVERFIT: D takes more training images for real than images of held-out patients.

    Args:
        train: Share of training images with D(x) > 0.
        held_out: The same of held-out images.
        n_train: Training images looked at.
        n_held_out: Held-out images looked at.
    """
    # Of a difference of two shares, if both were the pooled one.
    pooled = (train * n_train + held_out * n_held_out) / (n_train + n_held_out)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n_train + 1 / n_held_out))
    gap = train - held_out
    if gap < ACCURACY_GAP or gap < STANDARD_ERRORS * error:
        return None
    return Alarm(
        "W_OVERFIT",
        f"the discriminator takes {train:.0%} of training images for real but {held_out:.0%} of held-out ones: it knows the former",
    )
