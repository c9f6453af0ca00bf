"""All images of a set decoded once: every one is checked, and where the disk has room they lie in one memory-mapped file.

A PNG of 512 px takes milliseconds to decode, a row of the file microseconds to copy; training reads each image hundreds of times. Torch-free.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from medgan import machine
from medgan.data.validation import Kind, decode
from medgan.errors import DataError, MedganError
from medgan.progress import Step, nothing
from medgan.runs import atomic

if TYPE_CHECKING:
    from medgan.data.archive import Files

# Images handed to a process at once; and what one core decodes while processes start.
SPAN = 256
FEWEST_PIXELS_FOR_WORKERS = 2**29
# Left free on the disk beside the file.
SPARE_BYTES = 2**30


class Facts(NamedTuple):
    """What is known of a set that was decoded before: kind, SHA-256 of each image (N, 32), and the file with its pixels if there is one."""

    kind: Kind
    digests: np.ndarray
    pixels: Path | None


def known(folder: Path, mark: str) -> Facts | None:
    """What a folder knows of the set with this mark."""
    facts, pixels = _paths(folder, mark)
    try:
        with np.load(facts, allow_pickle=False) as file:
            return Facts(Kind(*map(int, file["kind"])), file["digests"], pixels if pixels.exists() else None)
    except (OSError, KeyError, ValueError, TypeError):
        return None


def decode_all(files: Files, kind: Kind, *, folder: Path | None, most_bytes: int, step: Step = nothing) -> Facts:
    """Decode every image once.

    Args:
        files: Of the set.
        kind: Of its images, by their headers.
        folder: Where results are kept for the next time; None keeps nothing.
        most_bytes: Bound of the file with the pixels; it is also left out where the disk is short.
        step: Progress, in images.

    Raises:
        DataError: Images are broken; they are listed.
    """
    if folder is None:
        return _decoded(files, kind, None, step)
    folder.mkdir(parents=True, exist_ok=True)
    facts_path, pixels_path = _paths(folder, files.mark)
    with _locked(folder):
        if (found := known(folder, files.mark)) and (found.pixels or not _room(files, kind, folder, most_bytes)):
            return found
        # Of another set, or of this one before it was changed.
        for stale in folder.glob("decoded-*"):
            stale.unlink(missing_ok=True)
        facts = None
        if _room(files, kind, folder, most_bytes):
            with contextlib.suppress(_NoRoom), atomic(pixels_path, shared=True) as temporary:
                _reserve(temporary, kind, len(files.images))
                facts = _decoded(files, kind, temporary, step)
        facts = facts or _decoded(files, kind, None, step)
        with contextlib.suppress(OSError), atomic(facts_path) as temporary, temporary.open("wb") as file:
            np.savez(file, kind=np.array(kind), digests=facts.digests)
        return known(folder, files.mark) or facts


class _NoRoom(Exception):
    """The disk is shorter than it said: a quota, a limit of the process."""


def _paths(folder: Path, mark: str) -> tuple[Path, Path]:
    return folder / f"decoded-{mark[:32]}.npz", folder / f"decoded-{mark[:32]}.npy"


def _room(files: Files, kind: Kind, folder: Path, most_bytes: int) -> bool:
    needed = len(files.images) * kind.nbytes
    return needed <= most_bytes and needed + SPARE_BYTES <= shutil.disk_usage(folder).free


def _reserve(path: Path, kind: Kind, count: int) -> None:
    """Write the header of the array and claim its space: a write to a map on a full disk would kill the process."""
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(kind.dtype), "fortran_order": False, "shape": (count, *kind.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        try:
            os.posix_fallocate(file.fileno(), file.tell(), count * kind.nbytes)
        except OSError as error:
            raise _NoRoom from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process decodes, others of the same run wait for it."""
    with (folder / ".lock").open("w") as lock:
        # Some network disks know no locks; then each decodes for itself, with the same result.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _decoded(files: Files, kind: Kind, target: Path | None, step: Step) -> Facts:
    total = len(files.images)
    spans = [range(start, min(start + SPAN, total)) for start in range(0, total, SPAN)]
    digests = np.zeros((total, 32), np.uint8)
    faults: dict[str, list[str]] = {}
    job = functools.partial(_decode_span, files, kind, target)
    workers = min(machine.cores(), len(spans)) if total * kind.height * kind.width >= FEWEST_PIXELS_FOR_WORKERS else 1
    done = 0
    step(0, total)
    for index, (found, wrong) in _results(job, spans, workers):
        digests[spans[index].start : spans[index].stop] = found
        for number, fault in wrong:
            faults.setdefault(fault, []).append(files.images[number])
        done += len(spans[index])
        step(done, total)
    if faults:
        listed = "; ".join(f"{fault.removeprefix('is ')}: {files.listed(sorted(names))}" for fault, names in faults.items())
        raise DataError(
            f"{sum(map(len, faults.values()))} of {total} images cannot be used: {listed}",
            fix="prepare the dataset again, or copy it again",
        )
    return Facts(kind, digests, target)


Span = tuple[np.ndarray, list[tuple[int, str]]]


def _results(job: functools.partial[Span], spans: list[range], workers: int) -> Iterator[tuple[int, Span]]:
    if workers == 1:
        yield from enumerate(map(job, spans))
        return
    from medgan.data.crew import Died, in_processes

    for index, result in in_processes(job, spans, workers):
        if isinstance(result, Died):
            raise MedganError("a process that decodes images was killed, most likely for its memory", fix="the same command goes on")
        yield index, result


def _decode_span(files: Files, kind: Kind, target: Path | None, span: range) -> Span:
    """SHA-256 of each image of a span, and the numbers of those that cannot be used, each with its fault."""
    out = np.lib.format.open_memmap(target, mode="r+") if target else None
    digests, faults = np.zeros((len(span), 32), np.uint8), []
    for place, number in enumerate(span):
        pixels, fault = decode(files, files.images[number], kind)
        if pixels is None:
            faults.append((number, fault))
            continue
        digests[place] = np.frombuffer(hashlib.sha256(pixels.tobytes()).digest(), np.uint8)
        if out is not None:
            out[number] = pixels
    return digests, faults
