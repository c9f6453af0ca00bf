"""Whether two figures may be compared, and how far apart they are.

FID falls with the number of images whatever the generator does, and changes with extractor, resize rule and real set. So figures of other counts
are refused unless somebody insists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medgan.errors import ConfigError, DataError
from medgan.statistics import relative_improvement

Result = Mapping[str, Any]
"""The content of a metrics.json."""

UNBIASED = ("kid",)
"""Metrics whose expected value is the same at any number of images."""


SETTINGS = ("k", "within", "pairing", "centred", "scales", "window", "size", "epsilon", "weights_sha256")
"""What an entry says of how it was measured, beyond extractor and resize rule."""


def comparable(a: Result, b: Result, name: str) -> list[str]:
    """Why a metric of two evaluations may not be compared; empty where it may.

    Args:
        a: One evaluation.
        b: The other.
        name: The metric, in both.
    """
    facts = [("extractors differ", lambda result: _extractor(result, name)), ("resize rules differ", lambda result: _resize(result, name))]
    reasons = [what for what, fact in facts if fact(a) != fact(b)]
    ours, theirs = ((result.get("metrics") or {}).get(name) or {} for result in (a, b))
    known = [key for key in SETTINGS if key in ours and key in theirs]
    reasons += [f"{key} is {ours[key]} and {theirs[key]}" for key in known if ours[key] != theirs[key]]
    # An evaluation of an older version does not say what its real set was.
    if a.get("real") and b.get("real") and a["real"] != b["real"]:
        reasons.append("the real sets differ")
    if name not in UNBIASED:
        for key, kind in (("n_real", "real"), ("n_fake", "synthetic")):
            if a.get(key) != b.get(key) or a.get(key) is None:
                reasons.append(f"{_count(a.get(key))} and {_count(b.get(key))} {kind} images")
    return reasons


def compare_results(a: Result, b: Result, *, metrics: Sequence[str] = (), unequal: bool = False) -> dict[str, Any]:
    """How evaluation `b` stands to `a`, metric by metric.

    Args:
        a: The evaluation to start from.
        b: The one that may be better.
        metrics: Names; all that both have when empty.
        unequal: Compare also what may not be compared, and say why it may not.

    Returns:
        By name: `a`, `b`, `difference` (b - a), `relative_improvement` (None where `a` is not above 0), `intervals` (`apart`, `overlap` or `unknown`),
        and for FIDs that have it `infinity` with the same; `unequal`: what should not have been compared.

    Raises:
        ConfigError: A metric that one of them lacks.
        DataError: Figures that may not be compared.
    """
    ours, theirs = a.get("metrics") or {}, b.get("metrics") or {}
    names = list(metrics) or [name for name in ours if name in theirs]
    for name in names:
        if name not in ours or name not in theirs:
            raise ConfigError(
                f"{name} is not in both evaluations", fix=f"--metrics of {', '.join(n for n in ours if n in theirs) or 'none'}"
            )
    if not names:
        raise DataError("the two evaluations have no metric in common", fix="evaluate both with the same --metrics")
    reasons = {name: why for name in names if (why := comparable(a, b, name))}
    if reasons and not unequal:
        name, why = next(iter(reasons.items()))
        raise DataError(
            f"{name} of the two evaluations cannot be compared: {'; '.join(why)}",
            fix="evaluate both alike (--real, --n-fake), or --unequal",
        )
    found = {name: _stand(ours[name], theirs[name]) for name in names}
    return {"metrics": found, "unequal": reasons}


def _stand(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    result = {
        "a": a["value"],
        "b": b["value"],
        "difference": b["value"] - a["value"],
        "relative_improvement": relative_improvement(
            baseline=a["value"], value=b["value"], higher_is_better=bool(a.get("higher_is_better"))
        )
        if a["value"] > 0
        else None,
        "intervals": _intervals(a.get("interval"), b.get("interval")),
    }
    far = [entry.get("infinity") or {} for entry in (a, b)]
    if all(entry.get("value") is not None for entry in far):
        result["infinity"] = _stand(far[0], far[1])
    return result


def _intervals(a: Sequence[float] | None, b: Sequence[float] | None) -> str:
    if not a or not b:
        return "unknown"
    return "apart" if a[1] < b[0] or b[1] < a[0] else "overlap"


def _others(result: Result, name: str) -> Any:
    """What the result says of the features of a metric that has other ones than the rest; None where it has the same."""
    features = ((result.get("metrics") or {}).get(name) or {}).get("features")
    return (result.get("other_extractors") or {}).get(features)


def _resize(result: Result, name: str) -> Any:
    other = _others(result, name)
    return other.get("resize") if isinstance(other, Mapping) else result.get("resize")


def _extractor(result: Result, name: str) -> Any:
    if isinstance(other := _others(result, name), Mapping):
        return other.get("sha256")
    extractor = result.get("extractor")
    return extractor.get("sha256") if isinstance(extractor, Mapping) else extractor


def _count(n: Any) -> str:
    return f"{n:,}" if isinstance(n, int) else "an unknown number of"
