"""Zips of scans, as archives hand them out: unpacked into the work folder member by member, with limits, before scans are looked for.

Names of members become places like those of files, so a folder in a zip tells patients apart as a folder on disk does. A zip is untrusted:
nothing is written outside the folder, no link is followed, and no more is written than the disk can hold.
"""

from __future__ import annotations

import contextlib
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from medgan.data.archive import is_result
from medgan.data.scans import SKIPPED_FOLDERS, Excluded, Place, content_identity
from medgan.errors import DataError

# A list of a million members is read into memory whole.
MOST_LIST_BYTES = 128 * 2**20
# Deflate reaches 1000; masks of mostly nothing reach that too, so small ones may.
MOST_SHRUNK = 200
ALWAYS_ALLOWED = 2**30
MOST_DEPTH = 2
MOST_NAME = 200
LEAST_FREE = 0.1
BLOCK = 2**20
RESULT = "a dataset that prepare wrote, no scans"


def is_zip(name: str) -> bool:
    """Whether a file is a zip by its name."""
    return name.lower().endswith(".zip")


@contextlib.contextmanager
def unpacked(files: Sequence[tuple[Path, Place]], folder: Path, excluded: list[Excluded]) -> Iterator[list[tuple[Path, Place]]]:
    """The files with each zip replaced by what is in it, as long as the block lasts: members keep their names, which may name a patient.

    Args:
        files: What `scans.walk` gives; a single zip counts as the source folder itself.
        folder: Where members are written; made anew.
        excluded: Takes zips and members that are left out, with the reason.

    Yields:
        The files in order, members in the place of their zip.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        alone = len(files) == 1 and len(files[0][1].parts) == 1
        yield _without_zips(files, folder, excluded, depth=0, alone=alone)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _without_zips(
    files: Sequence[tuple[Path, Place]], folder: Path, excluded: list[Excluded], *, depth: int, alone: bool = False
) -> list[tuple[Path, Place]]:
    result: list[tuple[Path, Place]] = []
    for number, (path, place) in enumerate(files):
        if not is_zip(place.name):
            result.append((path, place))
            continue
        above = place.folders if alone else (*place.folders, place.name[: -len(".zip")] or "zip")
        try:
            if depth >= MOST_DEPTH:
                raise DataError("a zip in a zip in a zip")
            members = _members(path, above, folder / f"{depth}-{number}", excluded)
        except DataError as error:
            excluded.append(Excluded(level="file", identity=content_identity(path), reason=error.message))
            continue
        result += _without_zips(members, folder / f"{depth}-{number}-inner", excluded, depth=depth + 1)
    return result


def _members(path: Path, above: tuple[str, ...], folder: Path, excluded: list[Excluded]) -> list[tuple[Path, Place]]:
    """Write the members of one zip below `folder`.

    Raises:
        DataError: It is no readable zip, a result of `prepare`, or its content would not fit or is a bomb.
    """
    _check_list(path)
    try:
        with zipfile.ZipFile(path) as archive:
            # Its images were cut already, and those held out from training would come back among the others.
            if is_result(archive):
                raise DataError(RESULT)
            wanted = []
            for info in archive.infolist():
                reason = _fault(info)
                if reason:
                    excluded.append(Excluded(level="file", identity=f"{content_identity(path)}/{info.filename}", reason=reason))
                elif not info.is_dir() and not _skipped(info.filename):
                    wanted.append(info)
            total = sum(info.file_size for info in wanted)
            if total > max(MOST_SHRUNK * path.stat().st_size, ALWAYS_ALLOWED):
                raise DataError(f"a zip whose content is more than {MOST_SHRUNK} times its size")
            folder.mkdir(parents=True, exist_ok=True)
            disk = shutil.disk_usage(folder)
            if total > disk.free - LEAST_FREE * disk.total:
                raise DataError("a zip whose content does not fit on the work disk")
            return [found for info in wanted if (found := _extract(archive, info, path, above, folder, excluded))]
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, UnicodeDecodeError, struct.error, EOFError):
        raise DataError("no readable zip") from None


def _check_list(path: Path) -> None:
    """Refuse a list of members that would not fit into memory, before it is read."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 66_000, 0))
        tail = file.read()
    at, at64 = tail.rfind(b"PK\5\6"), tail.rfind(b"PK\6\6")
    sizes = []
    if at >= 0 and len(tail) >= at + 16:
        sizes.append(struct.unpack_from("<L", tail, at + 12)[0])
    if at64 >= 0 and len(tail) >= at64 + 48:
        sizes = [struct.unpack_from("<Q", tail, at64 + 40)[0]]
    if not sizes:
        raise DataError("no readable zip")
    if max(sizes) > MOST_LIST_BYTES:
        raise DataError("a zip of too many members")


def _fault(info: zipfile.ZipInfo) -> str:
    name = info.filename
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link in a zip"
    # Backslashes part folders in zips of some Windows tools.
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        return "a name in a zip that leaves its folder"
    if any(len(part.encode("utf-8", "surrogateescape")) > MOST_NAME for part in parts):
        return "a name in a zip that is too long"
    if info.flag_bits & 1:
        return "encrypted in its zip"
    return ""


def _skipped(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(part.upper() in SKIPPED_FOLDERS or part.startswith(".") for part in parts) or name.endswith("_catalog.xml")


def _extract(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, above: tuple[str, ...], folder: Path, excluded: list[Excluded]
) -> tuple[Path, Place] | None:
    parts = PurePosixPath(info.filename.replace("\\", "/")).parts
    target = folder.joinpath(*parts)
    reason = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # "x": a name that is there twice would overwrite a file or write through it.
        with archive.open(info) as source, target.open("xb") as file:
            left = info.file_size
            while block := source.read(min(BLOCK, left + 1)):
                left -= len(block)
                if left < 0:
                    raise zipfile.BadZipFile
                file.write(block)
            if left:
                raise zipfile.BadZipFile
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        reason = "a name that is in its zip twice"
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError):
        target.unlink(missing_ok=True)
        reason = "broken in its zip"
    if reason:
        excluded.append(Excluded(level="file", identity=f"{content_identity(path)}/{info.filename}", reason=reason))
        return None
    return target, Place((*above, *parts))
