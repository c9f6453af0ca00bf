"""What stands beside an FID: its interval, what real images reach against one another, and its value without the bias of few images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medgan.reports.results import FID_NAMES, Results, number
from medgan.reports.verdict import amount, fid_text


@dataclass(frozen=True, kw_only=True)
class Companion:
    """One line: what it is, its figure, the images on either side, and what it says."""

    name: str
    value: str
    counts: str
    text: str


def interval_text(entry: Mapping[str, Any], digits: Any = amount) -> str:
    """`95 % interval 18.20 to 21.70`, `no interval: why`, or nothing where the entry says nothing."""
    ends = _ends(entry.get("interval"))
    method = entry.get("interval_method")
    if ends is None:
        return f"no interval: {method.removeprefix('none: ')}" if isinstance(method, str) else ""
    level = number(entry.get("interval_level"))
    return f"{f'{level:.0%} '.replace('%', ' %') if level else ''}interval {digits(ends[0])} to {digits(ends[1])}"


def difference_text(entry: Mapping[str, Any]) -> str:
    """`difference to the real images -0.04 (-0.06 to -0.02)`, or nothing where the entry has no interval of it."""
    value, ends = number(entry.get("difference")), _ends(entry.get("difference_interval"))
    if value is None or ends is None:
        return ""
    return f"difference to the real images {amount(value)} ({amount(ends[0])} to {amount(ends[1])})"


def companions(results: Results) -> list[Companion]:
    """The lines for the first FID of the final evaluation; empty where it was measured without them."""
    metrics = results.metrics.get("metrics")
    for name in FID_NAMES:
        entry = metrics.get(name) if isinstance(metrics, Mapping) else None
        if isinstance(entry, Mapping) and number(entry.get("value")) is not None:
            lines = [*_floor(_mapping(entry.get("floor"))), *_infinity(_mapping(entry.get("infinity")))]
            return [_itself(name, entry, results.metrics), *lines] if lines else []
    return []


def _itself(name: str, entry: Mapping[str, Any], metrics: Mapping[str, Any]) -> Companion:
    counts = [number(metrics.get(key)) for key in ("n_real", "n_fake")]
    text = interval_text(entry, fid_text)
    method = entry.get("interval_method")
    how = f" ({method})" if text.startswith(("9", "interval")) and isinstance(method, str) else ""
    return Companion(
        name=f"Synthetic against real ({name})",
        value=fid_text(entry["value"]),
        counts=_counts(*counts),
        text=f"{_sentence(text + how)} It says how much the figure owes to which images and patients were drawn."
        if how
        else _sentence(text),
    )


def _floor(floor: Mapping[str, Any]) -> list[Companion]:
    value, synthetic, n = (number(floor.get(key)) for key in ("value", "synthetic", "n"))
    if value is None or n is None:
        why = floor.get("why")
        return [Companion(name="Real against real", value="not measured", counts="", text=_sentence(why))] if isinstance(why, str) else []
    ends = _ends(floor.get("range"))
    spread = (
        f" Over {amount(number(floor.get('halvings')) or 0)} random halvings {fid_text(ends[0])} to {fid_text(ends[1])}." if ends else ""
    )
    whose = (
        "Halves without a patient in common."
        if floor.get("by") == "patient"
        else "Random halves: the set does not say whose the images are, and slices of one patient in both halves make it too low."
    )
    rows = [
        Companion(
            name="Real against real (the floor)",
            value=fid_text(value),
            counts=_counts(n, n),
            text=f"{whose}{spread} No generator can be expected below it at this number of images.",
        )
    ]
    if synthetic is not None:
        ratio = f"{synthetic / value:.1f} times the floor" if value > 0 else "above a floor of 0"
        rows.append(
            Companion(
                name="Synthetic against real, as many",
                value=fid_text(synthetic),
                counts=_counts(n, n),
                text=f"At equal numbers, and so to be compared with the floor: {ratio}.",
            )
        )
    return rows


def _infinity(infinity: Mapping[str, Any]) -> list[Companion]:
    value = number(infinity.get("value"))
    name = "At infinitely many images (FID∞)"
    if value is None:
        why = infinity.get("why")
        return [Companion(name=name, value="not measured", counts="", text=_sentence(why))] if isinstance(why, str) else []
    fixed = number(infinity.get("real_fixed"))
    text = (
        _sentence(interval_text(infinity, fid_text)) + " The straight line in 1/N, followed to 1/N = 0, to take off the bias of few images."
    )
    if fixed is not None:
        text += f" With the real images as they are (Chong and Forsyth 2020): {fid_text(fixed)}."
    if infinity.get("linear") is False:
        text += " Its parts had fewer images than Inception has features: not on a straight line, and this figure is still too high."
    return [Companion(name=name, value=fid_text(value), counts="∞ / ∞", text=text)]


def _counts(real: float | None, fake: float | None) -> str:
    return " / ".join(amount(n) if n is not None else "?" for n in (real, fake))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _ends(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return (low, high) if low is not None and high is not None else None
