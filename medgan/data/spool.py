"""What a scan gave, in a file of the work folder beside OUT: a killed `prepare` finds there what it had done.

A file is named by the content of the scan's files, the recipe and this code, so that nothing stale is taken up; it ends with a checksum,
so that nothing torn is. The folder is private and vanishes with success.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import functools
import glob
import hashlib
import json
import os
import shutil
import struct
import typing
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medgan.errors import DiskError, MedganError, OutputError, Preempted

if TYPE_CHECKING:
    from medgan.data.slices import Job, Outcome

# What does not change the images of a scan: where it lies and whose it is.
NOT_CONTENT = ("place", "patient", "session", "series", "spool")
# Packages whose version may change a pixel or the bytes of a PNG.
PACKAGES = ("numpy", "pillow", "monai", "torch", "pydicom", "nibabel", "SimpleITK", "highdicom", "pyjpegls", "pylibjpeg-openjpeg")
# Headers whose voxels lie in a second file.
DATA_BESIDE = {".mhd": b"elementdatafile", ".nhdr": b"data file", ".hdr": b""}

TRAILER = struct.Struct("<Q32s8s")
MAGIC = b"medgan01"


@contextlib.contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """The folder for results of single scans, beside OUT; kept when the block is stopped or the disk is full, so that the same command goes on.

    Raises:
        OutputError: Another `prepare` is writing the same dataset.
    """
    folder = out.with_name(f".{out.name}.work")
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError("another prepare is writing this dataset", fix="wait for it, or another OUT") from None
        except OSError as error:
            # Some network disks know no locks.
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
                raise
        for stale in out.parent.glob(f".{glob.escape(out.stem)}*.zip.*.part"):
            stale.unlink(missing_ok=True)
        _sweep(folder)
        try:
            yield folder
        except MedganError as error:
            if not isinstance(error, DiskError | Preempted):
                shutil.rmtree(folder, ignore_errors=True)
            _sweep(folder)
            raise
        except BaseException:
            _sweep(folder)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed had begun."""
    for stale in folder.glob("??/*.part"):
        stale.unlink(missing_ok=True)


@functools.cache
def versions() -> dict[str, str]:
    """Of this code (SHA-256 of the room's files) and of the packages that images depend on."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return {"medgan": digest.hexdigest(), **{name: version(name) for name in PACKAGES}}


def key_of(job: Job) -> str:
    """What the images of a scan follow from, as SHA-256: the bytes of its files, how they are to be read, the recipe, the code."""
    digest = hashlib.sha256(json.dumps(versions(), sort_keys=True).encode())
    _add(job, lambda part: digest.update(part + b"\0"))
    return digest.hexdigest()


def _add(value: Any, add: Callable[[bytes], None]) -> None:
    if isinstance(value, Path):
        status = value.stat() if value.exists() else None
        add(_file_digest(value, (status.st_size, status.st_mtime_ns) if status else None).encode())
    elif isinstance(value, np.ndarray):
        add(repr((value.shape, value.dtype.str)).encode() + value.tobytes())
    elif dataclasses.is_dataclass(value):
        add(type(value).__name__.encode())
        for field in dataclasses.fields(value):
            if field.name not in NOT_CONTENT:
                add(field.name.encode())
                _add(getattr(value, field.name), add)
    elif isinstance(value, list | tuple):
        add(str(len(value)).encode())
        for item in value:
            _add(item, add)
    elif isinstance(value, dict):
        _add(sorted(value.items()), add)
    else:
        add(repr(value).encode())


# One file may hold many scans.
@functools.lru_cache(maxsize=64)
def _file_digest(path: Path, _status: tuple[int, int] | None) -> str:
    """SHA-256 of a file, and of the data beside a header."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        word = DATA_BESIDE.get(path.suffix.lower())
        if word is None:
            return digest
        named = [line for line in path.read_bytes()[:65536].splitlines() if word and line.lower().startswith(word)]
        values = [line.replace(b":", b"=").partition(b"=")[2].strip() for line in named]
        names = [path.parent / value.decode("utf-8", "surrogateescape") for value in values] or [path.with_suffix(".img")]
        return digest + "".join(_file_digest(name, None) for name in names if name.is_file() and name != path)
    except OSError:
        return "unreadable"


def cut_into(folder: Path, job: Job) -> tuple[str, Outcome]:
    """Cut a scan, unless it was cut before: the key of its file below `folder`, and what became of it. A fault leaves no file."""
    from medgan.data.slices import cut_scan

    key = key_of(job)
    path = place(folder, key)
    if outcome := read(path):
        return key, outcome
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f"{key}.{os.getpid()}.part")
    try:
        outcome = cut_scan(dataclasses.replace(job, spool=part))
        if not outcome.fault:
            _finish(part, outcome)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return key, outcome


def place(folder: Path, key: str) -> Path:
    """Where the file of a key lies."""
    return folder / key[:2] / key


def _finish(part: Path, outcome: Outcome) -> None:
    """Append what is known of the images, its length and a checksum of everything."""
    text = json.dumps(dataclasses.asdict(outcome)).encode()
    with part.open("ab+") as file:
        file.write(text)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").digest()
        file.write(TRAILER.pack(len(text), digest, MAGIC))


def read(path: Path) -> Outcome | None:
    """What a file of the work folder says of its scan; None where there is none or it is damaged."""
    from medgan.data.slices import Outcome

    try:
        with path.open("rb") as file:
            size = path.stat().st_size - TRAILER.size
            if size < 0:
                return None
            file.seek(size)
            length, digest, magic = TRAILER.unpack(file.read())
            file.seek(0)
            found = hashlib.sha256()
            left = size
            while block := file.read(min(2**20, left)):
                found.update(block)
                left -= len(block)
            if magic != MAGIC or found.digest() != digest:
                return None
            file.seek(size - length)
            return _made(Outcome, json.loads(file.read(length)))
    except OSError:
        return None


def _made(kind: Any, value: Any) -> Any:
    """A value of JSON in the type it had: dataclasses, lists, tuples and plain values."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _made(hints[name], item) for name, item in value.items()})
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is list:
        return [_made(arguments[0], item) for item in value]
    if typing.get_origin(kind) is tuple:
        return tuple(_made(arguments[0], item) for item in value)
    return value
