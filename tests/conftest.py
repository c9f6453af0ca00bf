"""What every test may ask for: the developers' shared folder, golden numbers, real scans, pretrained weights."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from medgan.signals import STOPS
from tests.xnat_server import XnatServer

# Outside the suite's own processes no test reads the user's cache or settings by accident.
for _name in [n for n in os.environ if n.startswith("MEDGAN_") and n not in ("MEDGAN_WEIGHTS", "MEDGAN_CACHE")]:
    del os.environ[_name]

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SHARED", ROOT.parent / "shared"))


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"shared/{name} is not beside this checkout (developers' reference data)")
    return folder


# All reference numbers of the official code where the developers' folder is there, else the part that is in the repository.
GOLDEN = SHARED / "golden" if (SHARED / "golden").is_dir() else ROOT / "tests" / "reference" / "golden"


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """A command line run in pytest's own process keeps its exit code to the end, which is not pytest's."""
    former = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference numbers of the official code."""
    return GOLDEN


@pytest.fixture(scope="session")
def scans() -> Path:
    """The folder of real scans for developers."""
    return _folder("scans")


@pytest.fixture
def xnat(tmp_path: Path) -> Iterator[XnatServer]:
    """A fake XNAT on loopback, empty; tests/xnat_server/__init__.py says how to fill it and what it can do."""
    with XnatServer(tmp_path / "xnat") as server:
        yield server
