"""Errors as a user meets them: one line, an exit code, nothing that identifies a patient."""

from __future__ import annotations

import errno
import inspect

import pytest

from medgan import errors
from medgan.errors import DataError, DiskError, MedganError, OutputError, from_os_error, redacted_trace

# The contract with schedulers and XNAT: sysexits.h where a meaning fits.
EXIT_CODES = {
    "MedganError": 70,
    "ConfigError": 2,
    "DataError": 65,
    "InputError": 66,
    "WeightsError": 69,
    "DeviceError": 71,
    "OutputError": 73,
    "DiskError": 74,
    "Preempted": 75,
    "DivergedError": 76,
    "PrivacyError": 77,
    "ResumeError": 78,
}


def test_exit_codes():
    found = {name: cls.exit_code for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, MedganError)}
    assert found == EXIT_CODES


def test_a_problem_is_one_line():
    problem = DataError("0 of 812 slices kept:\n  no label 5", fix="--mask-label 1")
    assert problem.line == "ERROR E_DATA 0 of 812 slices kept: no label 5; fix: --mask-label 1"


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskError), (errno.EROFS, OutputError), (errno.EACCES, OutputError)])
def test_known_os_errors_become_problems_without_the_path(number, kind):
    problem = from_os_error(OSError(number, "text", "/data/Doe^John/1.dcm"))
    assert isinstance(problem, kind)
    assert "Doe" not in problem.line


def test_unknown_os_errors_stay_our_bug():
    assert from_os_error(OSError(errno.ENOTDIR, "text")) is None


def test_the_trace_shows_places_and_no_values():
    def inner(name: str) -> None:
        raise ValueError(f"bad header of {name}")

    with pytest.raises(ValueError, match="Doe") as caught:
        inner("Doe^John")
    trace = redacted_trace(caught.value)
    assert trace[-1] == "ValueError"
    assert trace[-2].startswith("tests/test_errors.py:")
    assert "Doe" not in " ".join(trace)
