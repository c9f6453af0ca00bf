"""The privacy audit as rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medgan.reports.results import number
from medgan.reports.verdict import word


def audit_rows(audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The audit's rows, or none where the file is not what `medgan audit` writes."""
    try:
        return _rows(audit)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError):
        return [("Details", "audit.json is damaged; `medgan audit` writes it anew")]


def _rows(audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the privacy audit found, as (name, value); whatever is absent is left out."""

    def part(name: str) -> Mapping[str, Any]:
        found = audit.get(name)
        return found if isinstance(found, Mapping) else {}

    def share(value: Any) -> str:
        return f"{100 * value:.3g} %"

    copies, test, power, alarm, features, authentic, statistic, member = map(
        part, ("near_copies", "count_test", "power", "false_alarm", "features", "authenticity", "c_t", "membership")
    )
    against = power.get("against")
    shares = [f"{share(value)} at {name}" for name, value in against.items()] if isinstance(against, Mapping) else []
    interval = copies.get("interval")
    rows = [
        ("Synthetic images looked at", audit.get("n_fake")),
        (
            "Training images",
            f"{word(audit['n_train'])} of {word(audit.get('train_patients'))} patients" if audit.get("n_train") else None,
        ),
        (
            "Held-out images",
            f"{word(audit['n_held_out'])} of {word(audit.get('held_out_patients'))} patients" if audit.get("n_held_out") else "none",
        ),
        (
            "Near copies",
            f"{word(copies['count'])} ({share(copies['rate'])}, 95 % interval {share(interval[0])} to {share(interval[1])})"
            if isinstance(interval, list) and number(copies.get("rate")) is not None
            else None,
        ),
        ("Correlation from which an image is a near copy", f"{copies['ncc']:.4f}" if number(copies.get("ncc")) is not None else None),
        (
            "Nearer than other patients' images",
            f"{word(test['count'])}, p = {test['p']:.2g} (refused below {test['level']:.2g})"
            if number(test.get("p")) is not None
            else None,
        ),
        (
            "Authenticity",
            share(authentic["share"])
            + (f", {share(authentic['null'])} on held-out images" if number(authentic.get("null")) is not None else "")
            if number(authentic.get("share")) is not None
            else None,
        ),
        (
            "C_T, in standard deviations",
            f"{statistic['value'] / statistic['sd']:.2f}" if number(statistic.get("value")) is not None else None,
        ),
        (
            "Does D know its training images (AUC)",
            f"{member['auc']:.3f}, 95 % interval {member['interval'][0]:.3f} to {member['interval'][1]:.3f}; 0.5 is no"
            if number(member.get("auc")) is not None
            else None,
        ),
        (
            "Planted near copies that are recognised",
            f"{share(power['recognised'])} of {word(power.get('planted'))}" if number(power.get("recognised")) is not None else None,
        ),
        ("Probability to find any, if so many were near copies", "; ".join(shares)),
        (
            "Probability to refuse honest images",
            f"{share(alarm['at_most'])} at most, calibrated on {word(audit.get('calibration_patients'))} patients ({word(audit.get('calibrated_on'))})"
            if number(alarm.get("at_most")) is not None
            else "not known: not calibrated",
        ),
        ("Features beside grey values", features.get("name")),
    ]
    return [(name, word(value)) for name, value in rows if value not in (None, "")]
