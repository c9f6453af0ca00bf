"""Pretrained files for tests: looked up, never downloaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medgan.errors import WeightsError
from medgan.weights import find


def inception() -> Path:
    """The Inception weights; without them a test fails in CI, where the set-up has fetched them, and is skipped elsewhere."""
    try:
        return find("inception-2015-12-05")
    except WeightsError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(error.line)
        pytest.skip("Inception weights absent: medgan weights fetch inception-2015-12-05")
