"""Runs metrics over two sets of images: each image is looked at once, whatever is computed from it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medgan import machine
from medgan.errors import ConfigError, DataError
from medgan.metrics import EXTRACTORS
from medgan.metrics.features import Array, Collector, Extractor, Features, Images, cache_path, identity, load, save, stride
from medgan.metrics.metric import Result
from medgan.metrics.pictures import Pictures, alike, checked, class_numbers, drawn, patients_of
from medgan.metrics.sweep import sweep
from medgan.metrics.values import compare, metric_of
from medgan.progress import Step, nothing
from medgan.ranks import Ranks
from medgan.runs import METRICS_FORMAT

if TYPE_CHECKING:
    from medgan.metrics.path_length import Walk

log = logging.getLogger(__name__)

DEFAULT = "inception-2015-12-05"
"""The features that FID and KID are defined on."""

Sampler = Callable[[int, int], Array]
"""`sample(start, count)` gives synthetic images number start ... start + count - 1 as (count, C, H, W) uint8."""


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
        settings: Settings of metrics by the names of their fields, as `EvaluateConfig.of_metrics` gives them.
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
        settings: Mapping[str, Any] = {},
        ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    ) -> None:
        self.ranks = ranks
        device = device or str(machine.device())
        self.metrics = {name: metric_of(name, **{**settings, "seed": seed, "device": device, "weights": weights}) for name in metrics}
        self.pairs = int(settings.get("pairs", 1000))
        for name, metric in self.metrics.items():
            if metric.extractor == DEFAULT and extractor != DEFAULT:
                raise ConfigError(f"{name} is a distance of {metric.extractor} features", fix=f"--extractor {metric.extractor}")
            if metric.resize and metric.resize != resize:
                raise ConfigError(
                    f"{name} is defined with --resize {metric.resize}", fix=f"--resize {metric.resize}, or --metrics {metric.instead}"
                )
            if metric.needs not in ("moments", "features", "images", "generator"):
                raise ConfigError(f"{name} needs {metric.needs}, which `medgan evaluate` cannot bring", fix="another --metrics")
        for metric in self.metrics.values():
            if prepare := getattr(metric, "prepare", None):
                prepare()
        # Metrics of images alone need no network and no pass over the whole of the sets.
        wanted = [metric.extractor or extractor for metric in self.metrics.values() if metric.needs in ("moments", "features")]
        self.extractors: dict[str, Extractor] = {
            name: EXTRACTORS.get(name)(weights=weights, resize=resize, device=device) for name in dict.fromkeys(wanted)
        }
        self.main = extractor if extractor in wanted or not wanted else wanted[0]
        """The extractor whose features the result names first."""
        self._whole = {name for name in self.extractors if self._keeps_rows(name)}
        self.cache = cache
        self.batch = batch
        self.seed = seed
        self._real: dict[str, Features] = {}
        self._identity = ""
        self._subjects: Sequence[str] | None = None
        self._real_pictures: Pictures | None = None
        self._shape: tuple[int, ...] = ()

    def reference(self, real: Images, *, subjects: Sequence[str] | None = None, step: Step = nothing) -> None:
        """Take `real` as the reference set; its features come from the cache if the same images were seen before.

        Args:
            real: The images.
            subjects: A key of each image's patient, so that floors and intervals divide the set by patient; None where it is not known.
            step: Called with images done and images in all.

        Raises:
            DataError: The set is empty or holds no 8-bit grey or RGB images.
        """
        if len(real) == 0:
            raise DataError("the real set holds no images", fix="give a set with images as --real")
        self._shape = checked(real.images(range(1))).shape[1:]
        self._n_real = len(real)
        if self._needs("images") and self.ranks.speaks:
            numbers = drawn(len(real), 2 * self.pairs, self._shape, seed=self.seed)
            self._real_pictures = self._pictures(real, numbers, subjects)
        self._subjects = subjects
        if not self.extractors:
            return
        self._identity = identity(real) if self.ranks.speaks else ""
        paths: dict[str, Path] = {}
        found: dict[str, Features] = {}
        if self.cache and self.ranks.speaks:
            for name, extractor in self.extractors.items():
                paths[name] = cache_path(self.cache, real, extractor, self._identity)
                if kept := load(paths[name], dim=extractor.dim, keep=name in self._whole, sample=True):
                    found[name] = kept
        missing = [name for name in self.extractors if not self.ranks.any(name in found)]
        if missing:
            made, _ = self._sweep(real.images, len(real), step, extractors=missing, sample=True)
            found |= made
        for name in set(missing) & set(paths):
            try:
                save(paths[name], found[name])
            except OSError as error:
                # A cache that cannot be written costs time, never a result.
                log.warning("features of the real set were not kept for next time: %s", error.strerror)
        for features in found.values():
            features.subjects, features.labels = subjects, class_numbers(real, np.arange(len(real)))
        self._real = found

    def rows(self, images: Images, *, step: Step = nothing) -> dict[str, Array]:
        """Feature rows (N, D) of all images by the name of their extractor, from the cache if the same images were seen before."""
        found = {}
        known = identity(images) if self.extractors else ""
        for name, extractor in self.extractors.items():
            path = cache_path(self.cache, images, extractor, known) if self.cache else None
            kept = load(path, dim=extractor.dim, keep=True) if path else None
            if kept is None:
                collector = Collector(extractor.dim, keep=True)
                for start in range(0, len(images), self.batch):
                    numbers = range(start, min(start + self.batch, len(images)))
                    collector.add(extractor(checked(images.images(numbers))), numbers)
                    step(numbers.stop, len(images))
                kept = collector.finish()
                if path:
                    save(path, kept)
            assert kept.rows is not None
            found[name] = kept.rows
        return found

    def check_generator(self, there: bool) -> None:
        """Refuse metrics of a generator where there is none.

        Raises:
            ConfigError: There is none.
        """
        if not there and (names := [name for name, metric in self.metrics.items() if metric.needs == "generator"]):
            raise ConfigError(
                f"{names[0]} looks at a generator, not at its images", fix="--bundle instead of --fake, or --metrics without it"
            )

    def evaluate(
        self,
        fake: Images | None = None,
        *,
        sample: Sampler | None = None,
        walk: Walk | None = None,
        subjects: Sequence[str] | None = None,
        n_fake: int = 50_000,
        step: Step = nothing,
        uncertainty: Step | None = None,
    ) -> dict[str, Any]:
        """Every metric of synthetic images against the reference.

        Args:
            fake: A set of images, or
            sample: a function that makes them.
            walk: A function that makes pairs of near images, for metrics of a generator.
            subjects: A key of the patient of each image of `fake`, where that is a set of other patients; None where it is not known.
            n_fake: How many to use; a set that holds fewer is used whole.
            step: Called with images done and images in all.
            uncertainty: Called with computations done and in all; None leaves out intervals, floors and FID-infinity, which take
                longer than the figures themselves.

        Returns:
            On rank 0 the content of metrics.json, an empty dictionary on others: `format`, `metrics` (name -> value and what belongs to it), `n_real`, `n_fake`, `real` (what set it
            was, by content), `extractor`, `resize`, `seed`, `warnings`, `seconds`.

        Raises:
            DataError: The sets differ in size or channels, or are too small for a metric.
            ConfigError: A metric needs a generator, and there is none.
        """
        self.check_generator(walk is not None)
        assert self._shape, "call reference() first"
        assert (fake is None) != (sample is None), "give a set or a function"
        started = time.monotonic()
        if fake is not None:
            count = min(n_fake, len(fake))
        else:
            # A generator's images are alike in any order: where no features are wanted, only those that are looked at are made.
            looked_at = len(drawn(n_fake, 2 * self.pairs, self._shape, seed=self.seed)) if self._needs("images") else 0
            count = n_fake if self.extractors else looked_at
        numbers = drawn(count, 2 * self.pairs, self._shape, seed=self.seed) if self._needs("images") else np.arange(0)
        features: dict[str, Features] = {}
        if fake is not None and not self.extractors:
            pictures = self._pictures(fake, numbers, subjects) if self.ranks.speaks else None
        else:
            draw = sample or (lambda first, some: fake.images(range(first, first + some)))  # type: ignore[union-attr]
            features, images = self._sweep(
                lambda numbers: draw(numbers.start, len(numbers)),
                count,
                step,
                extractors=list(self.extractors),
                keep=numbers,
                sample=bool(uncertainty),
            )
            classes = class_numbers(fake, numbers) if fake is not None else None
            pictures = Pictures(images, numbers, classes, fake, patients_of(subjects, numbers))
            for found in features.values():
                found.subjects = subjects[:count] if subjects else None
                found.labels = class_numbers(fake, np.arange(count)) if fake is not None else None
        made: dict[str, Result] = {}
        for name, metric in self.metrics.items():
            if metric.needs == "generator":
                made[name] = metric(walk=walk, count=n_fake, ranks=self.ranks, step=step)  # type: ignore[call-arg]
        if not self.ranks.speaks:
            return {}
        result = compare(
            self.metrics,
            real=self._real.get(self.main),
            fake=features.get(self.main),
            others={name: (self._real[name], features[name]) for name in self.extractors if name != self.main},
            seed=self.seed,
            pictures=(self._real_pictures, pictures),
            counts=(self._n_real, count or n_fake),
            made=made,
            uncertainty=uncertainty,
        )
        warnings = result["warnings"] + self._shared(subjects[:count] if subjects else ())
        about = self.extractors.get(self.main)
        others = {n: {"sha256": e.sha256, "resize": e.resize} for n, e in self.extractors.items() if n != self.main}
        return {
            "format": METRICS_FORMAT,
            **result,
            **({"real": self._identity} if self._identity else {}),
            **({"extractor": {"name": about.name, "sha256": about.sha256}, "resize": about.resize} if about else {}),
            **({"other_extractors": others} if others else {}),
            "seed": self.seed,
            "warnings": warnings,
            "seconds": round(time.monotonic() - started, 3),
        }

    def _keeps_rows(self, extractor: str) -> bool:
        """Whether a metric of this extractor's features needs all of their rows."""
        return any(metric.needs == "features" and (metric.extractor or extractor) == extractor for metric in self.metrics.values())

    def _needs(self, *kinds: str) -> bool:
        return any(metric.needs in kinds for metric in self.metrics.values())

    def _shared(self, subjects: Sequence[str]) -> list[dict[str, str]]:
        """A warning where patients are in both sets."""
        both = len(set(subjects) & set(self._subjects or ()))
        if not both:
            return []
        text = f"{both} patients are in both sets: as a comparison of patients with other patients, the figures are too good."
        return [{"code": "W_SHARED_PATIENTS", "text": text}]

    def _pictures(self, images: Images, numbers: Array, subjects: Sequence[str] | None) -> Pictures:
        """Some images of a set, in this order, read in its own."""
        order = numbers.argsort()
        found = alike(images.images(numbers[order].tolist()), self._shape)
        return Pictures(found[order.argsort()], numbers, class_numbers(images, numbers), images, patients_of(subjects, numbers))

    def _sweep(
        self,
        fetch: Callable[[range], Array],
        total: int,
        step: Step,
        *,
        extractors: Sequence[str],
        keep: Array = np.arange(0),  # noqa: B008 (never written to)
        sample: bool = False,
    ) -> tuple[dict[str, Features], Array]:
        """Features of images number 0 ... total - 1, and those images whose numbers are to be kept; `sample` keeps feature rows for intervals."""
        return sweep(
            fetch,
            total,
            shape=self._shape,
            extractors={name: self.extractors[name] for name in extractors},
            whole=self._whole,
            every=stride(total) if sample else 0,
            keep=keep,
            batch=self.batch,
            ranks=self.ranks,
            step=step,
        )
