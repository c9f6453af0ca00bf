"""Runs metrics over two sets of images: each image is looked at once, whatever is computed from it."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medgan import machine
from medgan.config import setting
from medgan.errors import ConfigError, DataError
from medgan.metrics import EXTRACTORS, METRICS
from medgan.metrics.features import Array, Collector, Extractor, Features, Images, cache_path, load, save
from medgan.metrics.metric import Metric
from medgan.progress import Step, nothing
from medgan.ranks import Ranks

log = logging.getLogger(__name__)

Sampler = Callable[[int, int], Array]
"""`sample(start, count)` gives synthetic images number start ... start + count - 1 as (count, C, H, W) uint8."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of an evaluation."""

    metrics: tuple[str, ...] = setting(
        ("fid", "kid"),
        "what to compute, separated by commas: fid, fid50k_full, kid, precision_inception, recall_inception, density_inception, coverage_inception",
    )
    extractor: str = setting("inception-2015-12-05", "network whose features are compared")
    resize: str = setting("tf1", "how images reach the extractor's size", choices=("tf1", "pytorch-fid"))
    n_fake: int = setting(50_000, "synthetic images to use, or fewer where a set holds fewer")
    batch: int = setting(32, "images per forward pass; does not change the result", label="Evaluation batch")
    seed: int = setting(0, "first seed of the generator's images, and of random subsets")

    def __post_init__(self) -> None:
        if self.n_fake < 2:
            raise ConfigError(f"--n-fake {self.n_fake}: a distance needs at least 2 images", fix="--n-fake 50000")
        if self.batch < 1:
            raise ConfigError(f"--batch {self.batch}: at least one image at a time", fix="--batch 32")
        if not self.metrics:
            raise ConfigError("--metrics names no metric", fix=f"some of {', '.join(METRICS.names())}")


class Evaluator:
    """Metrics of synthetic images against one reference set, ready to be asked again and again.

    Whatever can fail cheaply fails here: unknown names, weights that are absent, a name that contradicts its settings.

    Args:
        metrics: Names of METRICS.
        extractor: Name of EXTRACTORS.
        resize: Resize rule of the extractor.
        weights: A folder to look for weights in first.
        device: `cpu`, `cuda`, `cuda:1`; empty takes what `medgan.machine.device` says.
        cache: Folder for features of reference sets, found again by content; None keeps nothing.
        batch: Images per forward pass.
        seed: Seed of metrics that draw subsets.
        ranks: The processes that share the work: each looks at some of the images, rank 0 computes.

    Raises:
        ConfigError: An unknown name, or `fid50k_full` with another resize rule than its own.
        WeightsError: The extractor's weights are absent.
        DeviceError: MEDGAN_DEVICE names a device that is not there.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        *,
        extractor: str = "inception-2015-12-05",
        resize: str = "tf1",
        weights: Path | None = None,
        device: str = "",
        cache: Path | None = None,
        batch: int = 32,
        seed: int = 0,
        ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    ) -> None:
        self.ranks = ranks
        self.metrics = {name: _metric(name, seed) for name in metrics}
        for name, metric in self.metrics.items():
            if metric.extractor and metric.extractor != extractor:
                raise ConfigError(f"{name} is a distance of {metric.extractor} features", fix=f"--extractor {metric.extractor}")
            if metric.resize and metric.resize != resize:
                raise ConfigError(
                    f"{name} is defined with --resize {metric.resize}", fix=f"--resize {metric.resize}, or --metrics {metric.instead}"
                )
            if metric.needs not in ("moments", "features"):
                raise ConfigError(f"{name} needs {metric.needs}, which `medgan evaluate` cannot bring", fix="another --metrics")
        self.extractor: Extractor = EXTRACTORS.get(extractor)(weights=weights, resize=resize, device=device or str(machine.device()))
        self.cache = cache
        self.batch = batch
        self.seed = seed
        self._real: Features | None = None
        self._shape: tuple[int, ...] = ()

    def reference(self, real: Images, *, step: Step = nothing) -> None:
        """Take `real` as the reference set; its features come from the cache if the same images were seen before.

        Raises:
            DataError: The set is empty or holds no 8-bit grey or RGB images.
        """
        if len(real) == 0:
            raise DataError("the real set holds no images", fix="give a set with images as --real")
        self._shape = _checked(real.images(range(1))).shape[1:]
        path = cache_path(self.cache, real, self.extractor) if self.cache and self.ranks.speaks else None
        features = load(path, dim=self.extractor.dim, keep=self._keep) if path else None
        if not self.ranks.any(features is not None):
            features = self._collect(real.images, len(real), step)
            if path:
                try:
                    save(path, features)
                except OSError as error:
                    # A cache that cannot be written costs time, never a result.
                    log.warning("features of the real set were not kept for next time: %s", error.strerror)
        self._real = features

    def evaluate(
        self, fake: Images | None = None, *, sample: Sampler | None = None, n_fake: int = 50_000, step: Step = nothing
    ) -> dict[str, Any]:
        """Every metric of synthetic images against the reference.

        Args:
            fake: A set of images, or
            sample: a function that makes them.
            n_fake: How many to use; a set that holds fewer is used whole.
            step: Called with images done and images in all.

        Returns:
            On rank 0 the content of metrics.json, an empty dictionary on others: `metrics` (name -> value and what belongs to it), `n_real`, `n_fake`, `extractor`, `resize`,
            `seed`, `warnings`, `seconds`.

        Raises:
            DataError: The sets differ in size or channels, or are too small for a metric.
        """
        assert self._shape, "call reference() first"
        assert (fake is None) != (sample is None), "give a set or a function"
        started = time.monotonic()
        if fake is not None:
            features = self._collect(fake.images, min(n_fake, len(fake)), step)
        else:
            draw = sample
            assert draw is not None
            features = self._collect(lambda numbers: draw(numbers.start, len(numbers)), n_fake, step)
        if not self.ranks.speaks:
            return {}
        assert self._real is not None
        result = compare(self.metrics, real=self._real, fake=features, seed=self.seed)
        return {
            **result,
            "extractor": {"name": self.extractor.name, "sha256": self.extractor.sha256},
            "resize": self.extractor.resize,
            "seed": self.seed,
            "warnings": result["warnings"],
            "seconds": round(time.monotonic() - started, 3),
        }

    @property
    def _keep(self) -> bool:
        return any(metric.needs == "features" for metric in self.metrics.values())

    def _collect(self, fetch: Callable[[range], Array], total: int, step: Step) -> Features:
        """Features of images number 0 ... total - 1; ranks take batches in turn, and all of them make the same number of steps."""
        collector = Collector(self.extractor.dim, keep=self._keep)
        mine: list[int] = []
        step(0, total)
        for turn in range(0, total, self.batch * self.ranks.count):
            start = turn + self.batch * self.ranks.rank
            numbers = range(min(start, total), min(start + self.batch, total))
            if numbers:
                images = fetch(numbers)
                if _checked(images).shape[1:] != self._shape:
                    raise DataError(
                        f"the sets differ: real images are {_size(self._shape)}, others {_size(images.shape[1:])}",
                        fix="prepare both with the same size and channels",
                    )
                collector.add(self.extractor(images))
                mine += numbers
            step(min(turn + self.batch * self.ranks.count, total), total)
        return collector.finish(self.ranks, mine)


def compare(metrics: dict[str, Metric], *, real: Features, fake: Features, seed: int) -> dict[str, Any]:
    """Metrics of two sets of features, each under the name it has a right to, and what a reader must know about them."""
    values: dict[str, Any] = {}
    warnings = []
    for asked, metric in metrics.items():
        name = asked
        if metric.n_fake and fake.count != metric.n_fake:
            name, metric = metric.instead, _metric(metric.instead, seed)
            warnings.append(
                {
                    "code": "W_NOT_50K",
                    "text": f"{asked} stands for {metrics[asked].n_fake} synthetic images; with {fake.count} the value is reported as {name}.",
                }
            )
        if name not in values:
            values[name] = {**metric(real=real, fake=fake), "higher_is_better": metric.higher_is_better}
    if min(real.count, fake.count) < real.dim:
        text = (
            f"{real.count} real and {fake.count} synthetic images are so few that FID is a smoke figure: below {real.dim}, the width of the "
            f"features, the covariance is rank-deficient and most of the value is bias. Compare it only at the same two counts."
        )
        warnings.append({"code": "W_SMALL_N", "text": text})
    return {"metrics": values, "n_real": real.count, "n_fake": fake.count, "warnings": warnings}


def _metric(name: str, seed: int) -> Metric:
    metric: Metric = METRICS.get(name)()
    if dataclasses.is_dataclass(metric) and any(field.name == "seed" for field in dataclasses.fields(metric)):
        metric = dataclasses.replace(metric, seed=seed)
    return metric


def _checked(images: Array) -> Array:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(f"images must be 8-bit grey or RGB (N, C, H, W), not {images.dtype} {images.shape}")
    return images


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width} x {height} with {channels} channel{'s' if channels > 1 else ''}"
