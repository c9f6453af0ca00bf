"""Metrics of two sets whose features and images are at hand, each under the name it has a right to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from medgan.metrics import METRICS
from medgan.metrics.features import Features
from medgan.metrics.fid import FID
from medgan.metrics.metric import Metric, Result
from medgan.metrics.pictures import Pictures
from medgan.metrics.uncertainty import add_uncertainty
from medgan.progress import Step


def compare(
    metrics: dict[str, Metric],
    *,
    real: Features | None,
    fake: Features | None,
    seed: int,
    others: Mapping[str, tuple[Features, Features]] = {},
    pictures: tuple[Pictures | None, Pictures | None] = (None, None),
    counts: tuple[int, int] = (0, 0),
    made: Mapping[str, Result] = {},
    uncertainty: Step | None = None,
) -> dict[str, Any]:
    """Metrics of two sets, each under the name it has a right to, and what a reader must know about them.

    Args:
        metrics: Name -> metric.
        real: Features of the real set; None where no metric needs them.
        fake: Of the synthetic set.
        others: Further features of both sets by the name of their extractor, for metrics that are named after them.
        seed: Of a metric that stands in for another.
        pictures: Images of the real and of the synthetic set, for metrics that need them.
        made: Results of metrics of a generator.
        counts: How many images either set has; its features' count where there are features.
        uncertainty: See `Evaluator.evaluate`.
    """

    def features_of(metric: Metric) -> tuple[Features | None, Features | None]:
        return others.get(metric.extractor, (real, fake))

    n_real, n_fake = (features.count if features else count for features, count in zip((real, fake), counts, strict=True))
    values: dict[str, Any] = {}
    measured: dict[str, Metric] = {}
    warnings = []
    for asked, metric in metrics.items():
        name = asked
        if metric.n_fake and n_fake != metric.n_fake:
            name, metric = metric.instead, metric_of(metric.instead, seed=seed)
            warnings.append(
                {
                    "code": "W_NOT_50K",
                    "text": f"{asked} stands for {metrics[asked].n_fake} synthetic images; with {n_fake} the value is reported as {name}.",
                }
            )
        if name not in values:
            one, other = pictures if metric.needs == "images" else features_of(metric)
            measured[name] = metric
            values[name] = {**(made[name] if name in made else metric(real=one, fake=other)), "higher_is_better": metric.higher_is_better}
            if metric.extractor in others:
                values[name]["features"] = metric.extractor
    if real and min(n_real, n_fake) < real.dim and any(isinstance(metric, FID) for metric in measured.values()):
        text = (
            f"{n_real} real and {n_fake} synthetic images are so few that FID is a smoke figure: below {real.dim}, the width of the "
            f"features, the covariance is rank-deficient and most of the value is bias. Compare it only at the same two counts."
        )
        warnings.append({"code": "W_SMALL_N", "text": text})
    for one, other in ((real, fake), *others.values()):
        if uncertainty and one and other:
            its = {name: metric for name, metric in measured.items() if features_of(metric)[0] is one}
            warnings += add_uncertainty(values, its, real=one, fake=other, seed=seed, step=uncertainty)
    return {"metrics": values, "n_real": n_real, "n_fake": n_fake, "warnings": warnings}


def metric_of(name: str, **settings: Any) -> Metric:
    """A metric with those of the settings that it has."""
    metric: Metric = METRICS.get(name)()
    if dataclasses.is_dataclass(metric):
        own = {field.name for field in dataclasses.fields(metric)}
        metric = dataclasses.replace(metric, **{key: value for key, value in settings.items() if key in own})
    return metric
