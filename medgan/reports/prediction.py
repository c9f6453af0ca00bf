"""What a training would take, as rows of the data check's report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medgan.progress import duration
from medgan.reports.results import Results, number
from medgan.reports.verdict import amount


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The training on one class of GPU: its name, time, speed, memory, and whether it fits."""

    device: str
    time: str
    speed: str
    memory: str
    remark: str


def predictions(results: Results) -> list[Prediction]:
    """One row for each class of GPU in plan.json, the fastest first; a damaged row is left out."""
    plans = [(name, row) for name, row in results.plans.items() if _hours(row) is not None and number(row.get("device_memory"))]
    return [_row(name, row) for name, row in sorted(plans, key=lambda plan: _hours(plan[1]) or 0)]


def basis(results: Results) -> str:
    """How long the training is, what the predictions rest on and how far off they are; empty without predictions."""
    rows = list(results.plans.values())
    if not rows:
        return ""
    settings = results.plan.get("settings")
    kimg = number(settings.get("kimg")) if isinstance(settings, Mapping) else None
    error, source = rows[0].get("error"), rows[0].get("source")
    text = f"{amount(kimg * 1000)} images shown." if kimg is not None else ""
    text += f" Basis: {source}." if source else ""
    if isinstance(error, list) and len(error) == 2 and all(number(value) for value in error):
        text += f" Off by {100 * error[0]:.0f} % typically and {100 * error[1]:.0f} % at most, where it was checked."
    return text.strip()


def _hours(row: Mapping[str, Any]) -> float | None:
    return number(row.get("hours"))


def _row(name: str, row: Mapping[str, Any]) -> Prediction:
    need, there = number(row.get("device_bytes")) or 0, number(row.get("device_memory")) or 0
    largest = int(number(row.get("largest_batch_gpu")) or 0)
    speed = number(row.get("seconds_per_kimg"))
    if row.get("fits") is not False:
        remark = "fits"
    else:
        remark = f"too much: --batch-gpu {largest} fits (same result)" if largest else "too much: smaller images"
    return Prediction(
        device=name,
        time=duration((_hours(row) or 0) * 3600),
        speed=f"{amount(speed)} s" if speed is not None else "",
        memory=f"{need / 1e9:.1f} of {there / 1e9:.0f} GB",
        remark=remark,
    )
