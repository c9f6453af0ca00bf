"""The training's own watch: at ticks and snapshots it measures what alarms.py judges, and says each alarm once, when it begins."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medgan.data.dataset import Dataset
from medgan.errors import DataError
from medgan.training import alarms
from medgan.training.alarms import Alarm
from medgan.training.batches import Batches, one_hot
from medgan.training.config import TrainConfig
from medgan.training.state import State

log = logging.getLogger(__name__)

MOST_JUDGED = 256
"""Images of each set that D judges at a snapshot: the share it takes for real is then known to about 3 %."""


class Watch:
    """Measures and judges; what it remembers lies in the state, so a resumed run goes on and repeats no alarm.

    Args:
        config: Settings of the run.
        batches: The training images.
        samples: How many fixed samples a snapshot has.
        augment: What D sees images through.
        held_out: Images of patients that are not trained on, or None.

    Raises:
        DataError: The held-out images are of another kind than the training images.
    """

    def __init__(
        self, config: TrainConfig, batches: Batches, *, samples: int, augment: Callable[[Tensor], Tensor], held_out: Dataset | None
    ) -> None:
        data = batches.dataset
        if held_out and (held_out.resolution, held_out.channels) != (data.resolution, data.channels):
            raise DataError(
                f"the held-out images are {held_out.resolution} px with {held_out.channels} channel(s), "
                f"the training images {data.resolution} px with {data.channels}",
                fix="prepare both again, or move the .held-out.zip away",
            )
        self.config, self.augment, self.data = config, augment, data
        # A set of few images must not look as if a good generator had collapsed onto it: most samples then have no twin by chance.
        self.samples = min(samples, len(data) // 2)
        self._real: tuple[float, float] | None = None
        self.sets = {"train": (data, batches.labels)}
        if held_out and batches.labels is not None and held_out.labels is None:
            log.info("the held-out images have no labels: D is not compared on them")
        elif held_out:
            self.sets["held_out"] = (held_out, one_hot(held_out, batches.c_dim) if batches.labels is not None else None)

    def look(self, state: State, images: Tensor | None) -> dict[str, Any]:
        """What this tick adds to its row of stats.jsonl: measures at snapshots, and `alarms` where some begin.

        Args:
            state: The training; what the watch remembers is updated in it.
            images: At a snapshot the fixed samples (N, C, H, W) of G_ema, None at other ticks.
        """
        row: dict[str, Any] = {}
        found: dict[str, Alarm | None] = {"W_AUGMENT_BOUND": self._bound(state)}
        if images is not None:
            found["W_DIVERSITY"] = self._diversity(state, images, row)
            if "held_out" in self.sets:
                found["W_OVERFIT"] = self._overfit(state, row)
        before = state.watch.setdefault("on", [])
        begun = [alarm for code, alarm in found.items() if alarm and code not in before]
        # One that was not looked at now stays as it was.
        state.watch["on"] = [code for code in before if code not in found or found[code]] + [alarm.code for alarm in begun]
        for alarm in begun:
            log.warning("%s at kimg %g: %s", alarm.code, state.nimg / 1000, alarm.text)
        return row | ({"alarms": [{"code": alarm.code, "text": alarm.text} for alarm in begun]} if begun else {})

    def _bound(self, state: State) -> Alarm | None:
        bound = self.config.ada_max or 1.0
        at_bound = self.config.augment == "ada" and state.p >= bound
        state.watch["ticks_at_bound"] = state.watch.get("ticks_at_bound", 0) + 1 if at_bound else 0
        return alarms.bound_alarm(state.watch["ticks_at_bound"], bound=bound)

    def _diversity(self, state: State, images: Tensor, row: dict[str, Any]) -> Alarm | None:
        if self.samples < 2:
            return None
        real = self._real = self._real or _closeness(self._pixels(self.data, _spread(len(self.data), self.samples)))
        fake = _closeness(images[: self.samples])
        distance, nearest = (alarms.relative(f, r) for f, r in zip(fake, real, strict=True))
        if distance is None and nearest is None:
            return None
        row |= {f"Diversity/{name}": round(value, 6) for name, value in (("distance", distance), ("nearest", nearest)) if value is not None}
        alarm = alarms.diversity_alarm(
            distance, nearest, was_diverse=state.watch.get("diverse", False), kimg=state.nimg / 1000, kimg_total=self.config.kimg
        )
        # Random weights make images that are far apart (1.4 times the real, measured on chest X-rays) and of nothing.
        if state.step > 1 and not alarms.is_low(distance, nearest):
            state.watch["diverse"] = True
        return alarm

    def _overfit(self, state: State, row: dict[str, Any]) -> Alarm | None:
        (train, n_train), (held_out, n_held_out) = (self._accuracy(state, *self.sets[name]) for name in ("train", "held_out"))
        row |= {"Overfit/train": round(train, 6), "Overfit/held_out": round(held_out, 6)}
        return alarms.overfit_alarm(train, held_out, n_train=n_train, n_held_out=n_held_out)

    def _accuracy(self, state: State, data: Dataset, labels: Tensor | None) -> tuple[float, int]:
        """Share of a set's images that D takes for real, through the augmentation it is trained with, and how many were judged."""
        device, group = state.pl_mean.device, min(self.config.mbstd_group, self.config.round_size)
        n = min(MOST_JUDGED, len(data))
        chosen = _spread(len(data), n - n % group if n > group else n)
        # Neighbours in a set are neighbours in a body; the minibatch statistics must not see that.
        np.random.RandomState(self.config.seed).shuffle(chosen)
        real = torch.zeros([], device=device)
        # What D's layers remember of batches must not learn from those that are only looked at.
        state.D.eval()
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(self.config.seed)
            for start in range(0, len(chosen), self.config.round_size):
                part = chosen[start : start + self.config.round_size]
                c = None if labels is None else labels[part].to(device)
                real += (state.D(self.augment(self._pixels(data, part).to(device)), c) > 0).sum()
        state.D.train()
        return float(real) / len(chosen), len(chosen)

    @staticmethod
    def _pixels(data: Dataset, indices: np.ndarray) -> Tensor:
        return torch.from_numpy(data.images(indices)).float() / 127.5 - 1


def _closeness(images: Tensor) -> tuple[float, float]:
    """Mean distance, and median distance to the nearest other, of images' thumbnails; samples beyond [-1, 1] are clipped as on disk."""
    pairs = alarms.distances(alarms.thumbnails(images.clamp(-1, 1)))
    return alarms.mean_distance(pairs), alarms.nearest_distance(pairs)


def _spread(n: int, count: int) -> np.ndarray:
    """`count` numbers of 0 ... n - 1, spread evenly."""
    return np.linspace(0, n - 1, count).round().astype(np.int64)
