"""Problems a user can fix, each with a code for its line and an exit code for its process.

The exit codes follow sysexits.h where a meaning fits; XNAT and schedulers read them.
"""

from __future__ import annotations

import traceback
from pathlib import Path

PACKAGE_ROOT = Path(__file__).resolve().parent.parent


class MedganError(Exception):
    """A problem that is not our bug: one line says what and where, `fix` says what to do.

    Args:
        message: What is wrong and where, without identifying strings (scan keys, never names or paths of scans).
        fix: What the user can do about it; empty where nothing can be named.
        code: A narrower code than the class's own, e.g. `E_GPU_MEMORY`.
    """

    code = "E_INTERNAL"
    exit_code = 70

    def __init__(self, message: str, *, fix: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        if code:
            self.code = code

    @property
    def line(self) -> str:
        """The whole problem as the one `ERROR ...` line a user sees."""
        text = f"ERROR {self.code} {self.message}"
        if self.fix:
            text += f"; fix: {self.fix}"
        return " ".join(text.split())


class ConfigError(MedganError):
    """An option that cannot be: nothing was touched."""

    code, exit_code = "E_CONFIG", 2


class DataError(MedganError):
    """The data cannot be used."""

    code, exit_code = "E_DATA", 65


class InputError(MedganError):
    """The input is missing or empty."""

    code, exit_code = "E_INPUT", 66


class WeightsError(MedganError):
    """Pretrained weights are absent, or a file is not what it should be."""

    code, exit_code = "E_WEIGHTS", 69


class DeviceError(MedganError):
    """The accelerator is missing, unsupported or out of memory."""

    code, exit_code = "E_GPU", 71


class OutputError(MedganError):
    """The output cannot be written."""

    code, exit_code = "E_OUTPUT", 73


class DiskError(MedganError):
    """The disk is full or failed while writing."""

    code, exit_code = "E_DISK", 74


class Preempted(MedganError):
    """A signal asked the run to stop; its state is saved and the same command resumes.

    Args:
        message: Where it stopped.
        fix: How to go on.
        kimg: Thousands of images shown by then, of a training.
    """

    code, exit_code = "E_PREEMPTED", 75

    def __init__(self, message: str, *, fix: str = "the same command resumes", kimg: float | None = None) -> None:
        super().__init__(message, fix=fix)
        self.kimg = kimg


class DivergedError(MedganError):
    """Training stopped itself: a loss or gradient is no longer finite."""

    code, exit_code = "E_DIVERGED", 76


class PrivacyError(MedganError):
    """The privacy gate refused to release the images."""

    code, exit_code = "E_PRIVACY", 77


class ResumeError(MedganError):
    """A saved state belongs to another dataset, seed or configuration."""

    code, exit_code = "E_RESUME", 78


def from_os_error(error: OSError) -> MedganError | None:
    """The user's problem behind an operating system error, or None where it is our bug.

    Paths are left out of the message: a path of a scan may name a patient.
    """
    import errno
    import os

    # The system's own words: a library may put a path into `strerror`.
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return DiskError(f"writing failed: {os.strerror(error.errno)}", fix="free space on the output and work disks, then rerun")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"a file could not be opened: {os.strerror(error.errno)}", fix="check owner and mode of the folders")
    return None


def redacted_trace(error: BaseException) -> list[str]:
    """Where an exception came from, without its message or any value: `medgan/data/scans.py:41 in read`.

    Messages of other libraries quote paths and header values, which may identify a patient.
    """
    frames = []
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        try:
            shown = path.resolve().relative_to(PACKAGE_ROOT)
        except ValueError:
            shown = Path(*path.parts[-2:])
        frames.append(f"{shown.as_posix()}:{frame.lineno} in {frame.name}")
    return [*frames, type(error).__name__]
