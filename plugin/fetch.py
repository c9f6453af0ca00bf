"""The scans of a project, session or scan over REST, into a folder laid out as XNAT mounts it.

Resource by resource: as one zip, and what is missing or damaged of it file by file. What already lies there with the right size and digest
stays, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from medgan.errors import ConfigError, DiskError, InputError
from medgan.progress import bar
from medgan.runs import RESULTS
from plugin.rest import Connection, Stored, name_in, quoted
from plugin.target import Filters, Target, patterns

log = logging.getLogger("medgan.xnat")

LEFT_OUT = ("snapshots",)
"""Resources of scans that hold no scans but XNAT's pictures of them; results of earlier runs are left out too."""
OUTLINES = ("seg", "rtstruct")
"""Resources of a session's assessors that outline organs: the ROI collections of OHIF and of the ROI uploader."""

# Room left for what is made of the scans.
SPARE_BYTES = 256 * 2**20
BLOCK = 2**20


@dataclass(frozen=True)
class Session:
    """A session: its REST path, and the folder it has in a mount of what was launched on (empty: that folder itself)."""

    path: str
    folder: str


@dataclass(frozen=True)
class Resource:
    """Files that belong together: REST path, and folder below the input."""

    path: str
    folder: PurePosixPath


def sessions_of(connection: Connection, target: Target, filters: Filters) -> list[Session]:
    """The sessions of a project that are taken, or the one that was launched on.

    Raises:
        InputError: There is none.
    """
    if target.level != "project":
        if patterns(filters.sessions):
            raise ConfigError("--sessions chooses among the sessions of a project", fix="leave it out, or launch on the project")
        if target.level == "scan" and patterns(filters.scan_types):
            raise ConfigError("--scan-types chooses among the scans of a project or session", fix="leave it out, or launch on the session")
        return [Session(target.path.partition("/scans/")[0], "")]
    rows = connection.rows(f"{target.path}/experiments", columns="ID,label,xsiType")
    # Assessors are experiments too; every data type of an image session is called so.
    rows = [row for row in rows if str(row.get("xsiType", "")).endswith("SessionData")]
    taken = [row for row in rows if filters.takes_session(str(row.get("label", "")))]
    if not taken:
        raise InputError(
            f"none of the {len(rows)} sessions fits --sessions" if rows else "the project holds no session that the user may see",
            fix="other patterns, e.g. 'CT_*'" if rows else "check the project and the user's rights in it",
        )
    return [Session(f"/data/experiments/{quoted(str(row['ID']))}", _folder_name(row["label"])) for row in taken]


def scans_of(connection: Connection, session: Session, filters: Filters) -> list[str]:
    """The IDs of a session's scans that are taken."""
    rows = connection.rows(f"{session.path}/scans", columns="ID,type")
    return [str(row["ID"]) for row in rows if filters.takes_scan(str(row.get("type", "")))]


def _folder_name(name: Any) -> str:
    """A label as the name of a folder, if it can be one: a site's words never lead out of the input."""
    text = str(name)
    if not text or text in (".", "..") or any(character in text for character in "/\\\0") or len(text.encode()) > 255:
        raise InputError(
            "XNAT answers with a label or file name that no folder can have", fix="rename it in XNAT, or leave it out by a filter"
        )
    return text


def _resources(connection: Connection, owner: str, folder: PurePosixPath, only: tuple[str, ...] = ()) -> Iterator[Resource]:
    """The resources of a scan, session or assessor; `only` those of some labels (in lower case)."""
    for row in connection.rows(f"{owner}/resources"):
        label, number = str(row.get("label") or ""), str(row.get("xnat_abstractresource_id") or "")
        key = label.lower()
        if key in LEFT_OUT or label.startswith(RESULTS) or (only and key not in only) or str(row.get("file_count", "")) == "0":
            continue
        yield Resource(f"{owner}/resources/{quoted(number or label)}", folder / _folder_name(label) if label else folder)


def resources_of(connection: Connection, target: Target, filters: Filters, step: Callable[[int, int], None]) -> Iterator[Resource]:
    """Every resource with scans or outlines, in the folders that a mount would have."""
    sessions = sessions_of(connection, target, filters)
    for number, session in enumerate(sessions, start=1):
        top = PurePosixPath(session.folder)
        if target.level == "scan":
            yield from _resources(connection, target.path, top)
        else:
            for scan in scans_of(connection, session, filters):
                yield from _resources(connection, f"{session.path}/scans/{quoted(scan)}", top / "SCANS" / _folder_name(scan))
            yield from _resources(connection, session.path, top / "RESOURCES")
            for row in connection.rows(f"{session.path}/assessors", columns="ID,label,xsiType"):
                path, folder = (
                    f"{session.path}/assessors/{quoted(str(row['ID']))}",
                    top / "ASSESSORS" / _folder_name(row.get("label") or row["ID"]),
                )
                yield from _resources(connection, path, folder, OUTLINES)
        step(number, len(sessions))


def fetch(connection: Connection, target: Target, filters: Filters, into: Path) -> int:
    """Bring the scans of `target` into `into`, and remove from it what is not among them.

    Args:
        connection: Open connection that raises InputError.
        target: Project, session or scan.
        filters: Which of its sessions and scans.
        into: Folder of this function's own, laid out afterwards as XNAT mounts the target.

    Returns:
        Number of files there.

    Raises:
        InputError: Nothing to fetch, or XNAT does not give it.
        DiskError: It does not fit on the disk.
    """
    with bar("listing") as step:
        plan = [(resource, connection.files(resource.path)) for resource in resources_of(connection, target, filters, step)]
    plan = [(resource, [file for file in files if not file.name.endswith("_catalog.xml")]) for resource, files in plan]
    wanted = {into / resource.folder / inside(file.name): file for resource, files in plan for file in files}
    if not wanted:
        raise InputError(
            "XNAT holds no file of a scan there" + (" that fits the filters" if filters else ""),
            fix="check --scan-types and --sessions" if filters else "check what the session holds in XNAT",
        )
    keep_only(into, wanted)
    missing = {path for path, file in wanted.items() if not _is_whole(path, file)}
    _check_room(into, [wanted[path] for path in missing])
    with bar("fetching") as step:
        done = 0
        for resource, files in plan:
            _fetch_resource(connection, resource, [file for file in files if into / resource.folder / inside(file.name) in missing], into)
            done += len(files)
            step(done, len(wanted))
    size = sum(path.stat().st_size for path in wanted)
    log.info("XNAT: %d files (%.1f MiB) in %d resources, %d of them fetched now", len(wanted), size / 2**20, len(plan), len(missing))
    return len(wanted)


def inside(name: str) -> PurePosixPath:
    """A file's name within its resource as a path that stays in it."""
    return PurePosixPath(*(_folder_name(part) for part in name.split("/")))


def keep_only(into: Path, wanted: Container[Path]) -> None:
    """Remove files of an earlier command: other filters, or a session that is no longer there."""
    for folder, _, names in os.walk(into, topdown=False):
        for name in names:
            if (path := Path(folder) / name) not in wanted:
                path.unlink()
        if Path(folder) != into:
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


def _check_room(into: Path, missing: list[Stored]) -> None:
    into.mkdir(parents=True, exist_ok=True)
    need, free = sum(max(file.size, 0) for file in missing), shutil.disk_usage(into).free
    if need + SPARE_BYTES > free:
        raise DiskError(
            f"the scans need {need / 2**30:.1f} GiB in the scratch folder, {free / 2**30:.1f} are free",
            fix="--work on a larger disk, or filters",
        )


def _is_whole(path: Path, file: Stored) -> bool:
    """Whether a file is here as XNAT lists it. Without a size in the listing, what was renamed into place is whole."""
    if not path.is_file() or file.size not in (-1, path.stat().st_size):
        return False
    return not file.md5 or _md5(path) == file.md5


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _fetch_resource(connection: Connection, resource: Resource, files: list[Stored], into: Path) -> None:
    missing = {file.name: file for file in files}
    folder = into / resource.folder
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".fetching-") as scratch:
        if len(missing) > 1:
            _by_zip(connection, resource, missing, folder, Path(scratch) / "files.zip")
        for name, file in missing.items():
            part = Path(scratch) / "file"
            connection.download(f"{resource.path}/files/{quoted(*name.split('/'))}", part, size=file.size, md5=file.md5)
            _place(part, folder / inside(name))


def _by_zip(connection: Connection, resource: Resource, missing: dict[str, Stored], folder: Path, archive: Path) -> None:
    """Take what a zip of the whole resource holds undamaged out of `missing`: one request in place of hundreds.

    A zip has no digest of its own, and a proxy may cut it; whatever is wrong with it is left to the way file by file.
    """
    part = archive.with_name("file")
    with contextlib.suppress(connection.error, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        connection.download(f"{resource.path}/files", archive, format="zip", once=True)
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                name = name_in(member.filename)
                if member.is_dir() or (file := missing.get(name)) is None:
                    continue
                with content.open(member) as source, part.open("wb") as target:
                    size, md5 = _copy(source, target, at_most=member.file_size if file.size < 0 else file.size)
                if file.equals(size, md5):
                    _place(part, folder / inside(name))
                    del missing[name]


def _copy(source: Any, target: BinaryIO, *, at_most: int) -> tuple[int, str]:
    """Copy a little more than `at_most` bytes at the most, so that no zip fills the disk; gives size and digest of the copy."""
    digest, count = hashlib.md5(usedforsecurity=False), 0
    while count <= at_most and (block := source.read(BLOCK)):
        digest.update(block)
        count += target.write(block)
    return count, digest.hexdigest()


def _place(part: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)
