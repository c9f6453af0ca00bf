"""Pretrained files for tests: looked up, never downloaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medgan.errors import WeightsError
from medgan.weights import find


def inception() -> Path:
    """The Inception weights."""
    return fetched("inception-2015-12-05")


def fetched(name: str) -> Path:
    """Some weights; without them a test fails in CI, where the set-up has fetched them, and is skipped elsewhere."""
    try:
        return find(name)
    except WeightsError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(error.line)
        pytest.skip(f"weights absent: medgan weights fetch {name}")
