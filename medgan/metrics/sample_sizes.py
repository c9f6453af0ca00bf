"""Metrics of growing parts of two sets at equal numbers of images: what a figure says about a generator, and what about N.

Parts are nested: of one random order of each set the first n, so that a curve over n is not that of n different draws. Each image is looked
at once, whatever the sizes: features are rows, and a part is some of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from medgan.errors import DataError
from medgan.metrics.cosine import CosinePixels
from medgan.metrics.evaluate import compare
from medgan.metrics.features import Array, Features, Images
from medgan.metrics.fid import FID
from medgan.metrics.metric import Metric
from medgan.metrics.pictures import Pictures, drawn
from medgan.metrics.ssim import MSSSIM
from medgan.metrics.uncertainty import HALVINGS
from medgan.progress import Step, nothing

PARTS = 10
"""Disjoint parts of a set whose figures are the values of a test: 10 against 10 have 184,756 relabelings."""
FEWEST_IN_PART = 5
"""Images of a part. Precision and its kin need more than three; a distance of fewer says nothing."""

Metrics = Mapping[str, Metric]


@dataclass(frozen=True, eq=False)
class OneSet:
    """A set of images in one random order.

    Attributes:
        images: The set.
        rows: Feature rows of all images by the name of their extractor, each (N, D).
        seed: Of the order.
    """

    images: Images
    rows: Mapping[str, Array]
    seed: int

    @cached_property
    def order(self) -> Array:
        """Numbers of all images, (N,)."""
        return np.random.default_rng(self.seed).permutation(len(self.images))

    def features(self, extractor: str, numbers: Array) -> Features:
        """Of the images of these numbers."""
        return Features.of(self.rows[extractor][numbers])

    def pictures(self, n: int, most: int) -> Pictures:
        """At most `most` of the first n images."""
        shape = self.images.images([0]).shape[1:]
        numbers = self.order[drawn(n, most, shape, seed=self.seed)]
        return Pictures(self.images.images(numbers.tolist()), numbers, everything=self.images)


def measured(
    metrics: Metrics, *, real: OneSet, fake: OneSet, n: int, in_part: int = 0, pairs: int = 1000, seed: int = 0, uncertainty: Step = nothing
) -> dict[str, Any]:
    """Every metric of n synthetic against n real images.

    Args:
        metrics: Name -> metric; those of a generator are left out.
        real: The real set.
        fake: The synthetic one.
        n: Images of either.
        in_part: Images of a part, for `values` of metrics of features; 0 leaves them out.
        pairs: Most pairs of a set, for metrics of pictures.
        seed: Of what metrics draw.
        uncertainty: Told of computations behind intervals.

    Returns:
        `n`; `metrics`, as evaluation has them, with intervals and each with `baseline`, real against other real images: `value` at `n` on either
        side, and `at_n` where that is fewer than n and the figure is an FID, whose bias goes with 1/N; `values`, the numbers that tests
        compare, by metric; `warnings`.

    Raises:
        DataError: A set holds fewer than n images, or a metric needs more.
    """
    for given, kind in ((real, "real"), (fake, "synthetic")):
        if len(given.images) < n:
            raise DataError(f"{n} {kind} images are wanted of {len(given.images)}")
    metrics = {name: metric for name, metric in metrics.items() if metric.needs != "generator"}
    kinds = dict.fromkeys(metric.extractor for metric in metrics.values() if metric.needs in ("moments", "features"))
    sets = {kind: (real.features(kind, real.order[:n]), fake.features(kind, fake.order[:n])) for kind in kinds}
    main = next(iter(sets), "")
    one, other = sets.pop(main, (None, None))
    pictures = (real.pictures(n, 2 * pairs), fake.pictures(n, 2 * pairs))
    result = compare(
        metrics,
        real=one,
        fake=other,
        others=sets,
        seed=seed,
        pictures=pictures,
        counts=(n, n),
        uncertainty=uncertainty,
    )
    entries: dict[str, Any] = result["metrics"]
    values: dict[str, dict[str, list[float]]] = {}
    for name, metric in metrics.items():
        if metric.needs == "images":
            entries[name]["baseline"] = {"value": entries[name]["real"], "n": n}
            values |= {name: found} if (found := _of_pairs(metric, *pictures)) else {}
        else:
            entries[name]["baseline"] = real_against_real(metric, real, n)
            values |= {name: {"synthetic": _of_parts(metric, real, fake, n, in_part)}} if in_part >= FEWEST_IN_PART else {}
    return {"n": n, "metrics": entries, "values": values, "warnings": result["warnings"]}


def real_against_real(metric: Metric, real: OneSet, n: int) -> dict[str, Any]:
    """A metric of real images against as many others of the same set, at n on either side or at half the set where that is fewer.

    Mean over some random divisions. At the whole of a set there is nothing left to compare with; an FID's bias, which is all it has there,
    goes with 1/N, and so `at_n` is taken from the half.
    """
    total = len(real.images)
    m = min(n, total // 2)
    rng = np.random.default_rng(real.seed + 1)
    found = []
    for _ in range(HALVINGS):
        some = rng.permutation(total)
        one, other = (real.features(metric.extractor, np.sort(part)) for part in (some[:m], some[m : 2 * m]))
        found.append(float(metric(real=one, fake=other)["value"]))
    value = float(np.mean(found))
    return {"value": value, "n": m, "range": [min(found), max(found)]} | (
        {"at_n": value * m / n} if m < n and isinstance(metric, FID) else {}
    )


def _of_pairs(metric: Metric, real: Pictures, fake: Pictures) -> dict[str, list[float]]:
    """A similarity's values of disjoint pairs of either set, which share no image; empty for what is no mean over pairs."""
    if isinstance(metric, MSSSIM):
        found = [metric.of_pairs(one, other) for one, other in ((fake, real), (real, fake))]
    elif isinstance(metric, CosinePixels):
        apart = CosinePixels(pairs=metric.pairs, cosine_pairs="disjoint", center=metric.center)
        found = [apart.of_set(one, other) for one, other in ((fake, real), (real, fake))]
    else:
        return {}
    return {kind: [float(value) for value in one.values] for kind, one in zip(("synthetic", "real"), found, strict=True)}


def _of_parts(metric: Metric, real: OneSet, fake: OneSet, n: int, in_part: int) -> list[float]:
    """The metric of disjoint parts of the first n images, `in_part` of either set in each."""
    found = []
    for start in range(0, min(PARTS, n // in_part) * in_part, in_part):
        one, other = (s.features(metric.extractor, s.order[start : start + in_part]) for s in (real, fake))
        found.append(float(metric(real=one, fake=other)["value"]))
    return found
