"""The section of the privacy audit, from audits that were really made."""

from __future__ import annotations

import json

import pytest

from medgan.metrics.memorisation import audit
from tests.metrics.patients import patients
from tests.metrics.phantoms import ImageSet
from tests.reports.folder import html, make_run, write


def text(run) -> str:
    return " ".join(html(run).split())


@pytest.fixture
def run(tmp_path):
    make_run(tmp_path / "run")
    return tmp_path / "run"


def look(fake, *, calibrated):
    train, held_out = patients(0, 10, 2, 32)[0], patients(100, 25, 1, 32)[0]
    return audit(train=ImageSet(train), fake=ImageSet(train[:4] if fake == "copies" else patients(200, 4, 1, 32)[0]), held_out=ImageSet(held_out) if calibrated else None)  # fmt: skip


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("fake", ["copies", "strangers"])
def test_the_verdict_its_numbers_and_its_limits_are_shown(run, fake, calibrated):
    found = look(fake, calibrated=calibrated).result
    write(run / "audit" / "audit.json", found)
    page = text(run)
    assert f"<strong>{found['verdict'].capitalize()}.</strong>" in page
    assert ("4 (100 %, 95 % interval 51 % to 100 %)" if fake == "copies" else "0 (0 %, 95 % interval 0 % to 49 %)") in page
    assert "Only these 4 images were looked at." in page
    assert ("p = " in page) == calibrated
    bound = (
        f"{100 * found['false_alarm']['at_most']:.3g} % at most, calibrated on 25 patients (held-out patients)"
        if calibrated
        else "not known: not calibrated"
    )
    assert bound in page
    assert f"{100 * found['power']['recognised']:.3g} % of 100" in page
    assert "Nobody has tested here" not in page


def test_a_run_without_an_audit_says_how_to_make_one(run):
    (run / "audit" / "audit.json").unlink()
    page = text(run)
    assert "Nobody has looked for copies" in page
    assert "medgan audit --train" in page


@pytest.mark.parametrize(
    "damage", ["{", "[]", json.dumps({"near_copies": {"rate": 1, "interval": ["a"]}}), json.dumps({"verdict": 3, "limits": None})]
)
def test_a_damaged_audit_breaks_no_report(run, damage):
    write(run / "audit" / "audit.json", damage)
    assert "Privacy audit" in text(run)
