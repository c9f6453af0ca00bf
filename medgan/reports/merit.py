"""The figures of merit as rows: the final evaluation, how varied the images are, and the evaluations made during training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from medgan.reports.commandline import looks_like_path
from medgan.reports.companions import difference_text, interval_text
from medgan.reports.results import FID_NAMES, Results, metric_value, number
from medgan.reports.verdict import amount, fid_text, word

# A long training has hundreds of evaluations; the curve shows them all, the table a dozen.
EVALUATION_ROWS = 12

MEANINGS = {
    "fid50k_full": "Fréchet Inception Distance as the StyleGAN2-ADA code defines it (covariance divided by N). Lower is better, 0 is equal.",
    "fid": "Fréchet Inception Distance with covariances divided by N − 1. Lower is better, 0 is equal.",
    "fid50k": "As fid50k_full, against the first 50,000 real images. Lower is better, 0 is equal.",
    "kid": "Kernel Inception Distance, unbiased: values slightly below zero are correct. Lower is better.",
    "precision_inception": "Share of synthetic images that lie among the real ones (Inception features). Higher is better, 1 is the most.",
    "recall_inception": "Share of real images that lie among the synthetic ones (Inception features). Higher is better, 1 is the most.",
    "precision": "Share of synthetic images that look like real ones. 1 is best.",
    "recall": "Share of real images that the generator could have made. 1 is best.",
    "density_inception": "How crowded the real images are around a synthetic one. Higher is better, about 1 for equal distributions.",
    "ms_ssim": "How alike two synthetic images are (mean MS-SSIM of pairs). Should be near the real images' own figure.",
    "cosine_pixels": "How far apart two synthetic images are (cosine distance of pixels). Should be near the real images' own figure.",
    "cosine_inception": "How far apart two synthetic images are (cosine distance of Inception features). Should be near the real images' own figure.",
    "lpips_alexnet": "How far apart two synthetic images look (LPIPS on AlexNet). Should be near the real images' own figure.",
    "lpips_vgg16": "How far apart two synthetic images look (LPIPS on VGG16). Should be near the real images' own figure.",
    "ppl2_wend": "Perceptual path length: how abruptly images change with their latents. Lower is smoother; it knows no real images.",
    "ssim_nearest": "SSIM of synthetic images with the nearest real one. Far above the real images' own figure, it says that images are repeated.",
    "coverage_inception": "Share of real images with a synthetic one near by. Higher is better, 1 is the most.",
}

VARIETY = ("ms_ssim", "cosine", "lpips", "recall", "coverage")
"""How the names of metrics begin that say whether images are as varied as the real ones."""
WATCHED = (
    (
        "Diversity/distance",
        "Distance of samples",
        "How far apart samples lie. 1 is as far as real images; towards 0 they become one image.",
    ),
    (
        "Diversity/nearest",
        "Distance to the nearest sample",
        "The same of each sample's nearest other. A fall below 1 says that images repeat.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One line of the metrics table."""

    name: str
    value: str
    details: str
    meaning: str


def evaluation_rows(results: Results) -> list[dict[str, Any]]:
    """At most a dozen of the evaluations made during training: the first, the last, the chosen one and some between."""
    rows = [row for row in results.evaluations if any(metric_value(row, name) is not None for name in FID_NAMES)]
    step = max(-(-len(rows) // (EVALUATION_ROWS - 2)), 1)
    picked = [row for index, row in enumerate(rows) if index % step == 0 or index == len(rows) - 1 or row["kimg"] == results.chosen_kimg]
    return [
        {
            "kimg": row["kimg"],
            "values": {name: metric_value(row, name) for name in FID_NAMES if any(metric_value(r, name) is not None for r in rows)},
            "n_real": number(row.get("n_real")),
            "n_fake": number(row.get("n_fake")),
            "chosen": row["kimg"] == results.chosen_kimg,
        }
        for row in picked
    ]


def why_kept(results: Results) -> str:
    """Why this snapshot is the one in the bundle, in a sentence; empty where nothing says it."""
    curve = results.curve(results.fid_name)
    chosen = next((value for kimg, value in curve if kimg == results.chosen_kimg), None)
    if chosen is not None and chosen <= min(value for _, value in curve):
        others = f"the lowest of {len(curve)} measured during training" if len(curve) > 1 else "the only one measured during training"
        return f"Its {results.fid_name}, {fid_text(chosen)}, is {others}."
    chosen_by = results.model.get("chosen_by")
    return f"Chosen by: {chosen_by}." if isinstance(chosen_by, str) and not looks_like_path(chosen_by) else ""


def variety_rows(results: Results) -> list[MetricRow]:
    """How varied the synthetic images are beside the real ones: the metrics that ask for it, and the training's own watch."""
    rows = [row for row in metric_rows(results) if row.name.startswith(VARIETY)]
    for key, name, meaning in WATCHED:
        if trace := results.trace(key):
            kimg, value = trace[-1]
            details = f"of 64 samples at {amount(kimg)} kimg, relative to as many real images"
            rows.append(MetricRow(name=name, value=amount(value), details=details, meaning=meaning))
    return rows


def metric_rows(results: Results) -> list[MetricRow]:
    """The metrics of the final evaluation, each with what belongs to it and what it says."""
    metrics = results.metrics.get("metrics")
    rows = []
    for name, entry in metrics.items() if isinstance(metrics, Mapping) else ():
        values = dict(entry) if isinstance(entry, Mapping) else {"value": entry}
        meaning = MEANINGS.get(name, "")
        values.pop("higher_is_better", None)  # the meaning says it
        details = interval_text(values, partial(_figure, name))
        difference = difference_text(values)
        for key in ("interval", "interval_level", "interval_method", *(("difference",) if difference else ())):
            values.pop(key, None)
        if name == "fid50k_full" and number(results.metrics.get("n_fake")) not in (None, 50000):
            # The name promises 50,000 images; a short evaluation under it must say what it is.
            details = f"from {word(results.metrics['n_fake'])} synthetic images instead of 50,000" + (f", {details}" if details else "")
        if "value" in values:
            shown = _figure(name, values.pop("value"))
            details = ", ".join(
                filter(
                    None,
                    [details, difference, *(f"{key.replace('_', ' ')} {word(value)}" for key, value in values.items() if _is_word(value))],
                )
            )
            rows.append(MetricRow(name=name, value=shown, details=details, meaning=meaning))
            continue
        for key, value in values.items():
            if number(value) is not None:
                rows.append(MetricRow(name=f"{name}: {key}", value=word(value), details="", meaning=MEANINGS.get(key, meaning)))
    return rows


def _figure(name: str, value: Any) -> str:
    found = number(value)
    if found is None:
        return "not a finite number"
    return fid_text(found) if name.startswith("fid") else amount(found)


def _is_word(value: Any) -> bool:
    return number(value) is not None or (isinstance(value, str | bool) and not looks_like_path(str(value)))


def metric_facts(results: Results) -> list[tuple[str, str]]:
    """What the figures rest on: counts, extractor, seed."""
    metrics = results.metrics
    extractor = metrics.get("extractor")
    extractor = extractor if isinstance(extractor, Mapping) else {"name": extractor}
    resize = {"tf1": "tf1 (as the official StyleGAN2-ADA code)", "pytorch-fid": "pytorch-fid (as that package)"}
    rows = [
        ("Real images", metrics.get("n_real")),
        ("Synthetic images", metrics.get("n_fake")),
        ("Feature extractor", extractor.get("name")),
        ("Its SHA-256", extractor.get("sha256")),
        ("Resizing to its input", resize.get(str(metrics.get("resize")), metrics.get("resize"))),
        ("Seed", metrics.get("seed")),
        ("Real set, by content", metrics.get("real")),
    ]
    return [(name, word(value)) for name, value in rows if value not in (None, "")]
