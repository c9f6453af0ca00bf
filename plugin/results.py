"""Results of a run to XNAT's resources over REST, and the state of an earlier run back: what the Container Service does where it launches.

Sent is what a listing afterwards shows with the right size and digest. An answer alone proves nothing: XNAT says 200 and keeps the older
file, or says nothing at all to a user who may not write.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medgan.errors import OutputError
from medgan.progress import bar
from medgan.runs import CONFIG, GOES_ON, PART, PRETRAINED, STATE, STATUS, read_json
from plugin.command import TASKS
from plugin.fetch import inside
from plugin.rest import Connection, Stored, quoted
from plugin.target import Target

log = logging.getLogger("medgan.xnat")

# Beyond this number XNAT is slow at single files; a zip it unpacks itself. Proxies refuse bodies of more than about 1 GB.
MOST_SINGLE_FILES = 50
ZIP_BYTES = 500 * 2**20

NO_RIGHT = "the user needs the right to edit in the project (member or owner)"
CHECKPOINT = "checkpoint"
CHECKPOINT_LABEL = TASKS["train"].outputs[CHECKPOINT][0]
STATES = re.compile(r"((?P<run>[^/]+)/)?state(-(?P<time>\d{8}T\d{6}Z)(-after-(?P<after>[0-9a-f]{8}))?)?\.pt")
"""A state within the checkpoint resource: `run-7/state.pt` of a run that ended, `run-7/state-20260131T120000Z.pt` of one that is watched, and
`run-7/state-20260131T120000Z-after-1a2b3c4d.pt` where that run had ended before, with the `state.pt` whose MD5 begins so, and was launched again."""
ON_THE_WAY = (CONFIG, PRETRAINED)
"""What stands beside a state that was sent while training: curves and best network there are those of an earlier end."""


def resource_path(target: Target, result: str) -> str:
    """The REST path of the resource of a training's result folder."""
    return f"{target.path}/resources/{TASKS['train'].outputs[result][0]}"


def labels(output: Path, run_name: str) -> dict[str, str]:
    """Result folder -> label of its resource, as the site's command of the same task has them."""
    checked = read_json(output / "report" / run_name / STATUS).get("status") == "checked"
    return {name: label for name, (label, _) in TASKS["check" if checked else "train"].outputs.items()}


@dataclass(frozen=True)
class Local:
    """A file to be sent: where it is, its name within the resource, and what a listing must show of it."""

    path: Path
    name: str
    size: int
    md5: str


def make_resource(connection: Connection, resource: str) -> None:
    """Make a resource; one that exists stays as it is.

    Raises:
        OutputError: The user may not.
    """
    status, _ = connection.answer("put", resource)
    if status in (401, 403):
        raise OutputError(f"XNAT does not let the user make a resource ({status})", fix=NO_RIGHT, code="E_XNAT")
    if status == 404:
        raise OutputError("XNAT has no such project, session or scan (404)", fix="check --target", code="E_XNAT")
    if status not in (200, 201, 409):
        raise OutputError(f"XNAT answers {status} to a new resource", code="E_XNAT")


def send_results(connection: Connection, target: Target, output: Path, wanted: Mapping[str, str], run_name: str) -> int:
    """Send result folders to their resources, and prove by a listing of each that all is there.

    Args:
        connection: Open connection that raises OutputError.
        target: Project, session or scan that gets them.
        output: Folder with the result folders.
        wanted: Which of them, with the labels of their resources.
        run_name: Sub-folder of the run in each, kept as the folder's name in the resource; or empty.

    Returns:
        Number of files sent.

    Raises:
        OutputError: Something did not arrive.
    """
    total = 0
    # The report last: it says that all is there.
    for name in sorted(wanted, key=lambda name: name == "report"):
        folder = output / name / run_name
        files = [_local(path, path.relative_to(output / name).as_posix()) for path in sorted(folder.rglob("*")) if path.is_file()]
        if not files:
            raise OutputError(
                f"there is nothing in {name} to send", fix="give the output folder of a run that ended well, and its --run-name"
            )
        send_files(connection, f"{target.path}/resources/{wanted[name]}", files)
        log.info("XNAT: %s holds %d files of this run, compared by size and digest", wanted[name], len(files))
        total += len(files)
    return total


def md5(path: Path) -> str:
    """MD5 of a file as hexadecimal digits, as XNAT lists it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _local(path: Path, name: str) -> Local:
    return Local(path, name, path.stat().st_size, md5(path))


def send_files(connection: Connection, resource: str, files: Sequence[Local]) -> None:
    """Send files to a resource, those only that it lacks, and compare afterwards.

    Raises:
        OutputError: Some did not arrive as they are.
    """
    make_resource(connection, resource)
    # XNAT refuses a body without content.
    files = [file for file in files if file.size]
    missing = _missing(connection, resource, files)
    if len(missing) > MOST_SINGLE_FILES:
        _send_zips(connection, resource, missing)
        missing = _missing(connection, resource, missing)
    with bar("sending") as step:
        for number, file in enumerate(missing, start=1):
            with file.path.open("rb") as stream:
                connection.upload(f"{resource}/files/{quoted(*file.name.split('/'))}", stream)
            step(number, len(missing))
    lost = _missing(connection, resource, missing)
    if lost:
        shown = ", ".join(file.name for file in lost[:3])
        raise OutputError(
            f"XNAT took {len(lost)} of {len(files)} files but does not list them as sent: {shown}", fix=NO_RIGHT, code="E_XNAT"
        )


def _missing(connection: Connection, resource: str, files: Sequence[Local]) -> list[Local]:
    if not files:
        return []
    there = {file.name: file for file in connection.files(resource)}
    return [file for file in files if file.name not in there or not there[file.name].equals(file.size, file.md5)]


def _send_zips(connection: Connection, resource: str, files: Sequence[Local]) -> None:
    """Send many small files as zips that XNAT unpacks; what that leaves out is sent one by one afterwards."""
    parts: list[list[Local]] = [[]]
    for file in files:
        if parts[-1] and sum(other.size for other in parts[-1]) + file.size > ZIP_BYTES:
            parts.append([])
        parts[-1].append(file)
    for part in parts:
        with tempfile.TemporaryFile() as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
                for file in part:
                    archive.write(file.path, file.name)
            connection.upload(f"{resource}/files/part.zip", stream, extract="true")


def checkpoint_files(connection: Connection, target: Target) -> list[Stored]:
    """The files of the checkpoint resource of `target`, what an earlier run was launched on; none where there is no such resource."""
    if not any(row.get("label") == CHECKPOINT_LABEL for row in connection.rows(f"{target.path}/resources")):
        return []
    return connection.files(resource_path(target, CHECKPOINT))


def newest_state(names: Iterable[str], run_name: str, digest: Callable[[str], str]) -> str:
    """The name of the newest state among files of the checkpoint resource; empty where there is none.

    Newest is what was written last, not what has seen most images: a run may have begun anew on purpose.

    Args:
        names: Names of files.
        run_name: Of this run only; of any if empty, and then the one with the highest number in its name.
        digest: MD5 of a file by its name, as hexadecimal digits; empty where there is no such file or XNAT keeps none.
    """
    found = []
    for name in names:
        match = STATES.fullmatch(name)
        if match and run_name in ("", match["run"]):
            # The state of a run's end is later than those on its way, but for those of the same run launched again.
            again = bool(match["after"]) and digest(f"{match[1] or ''}state.pt").startswith(match["after"])
            found.append((natural(match["run"] or ""), again, match["time"] is None, match["time"] or "", name))
    return max(found)[-1] if found else ""


def beside(name: str) -> tuple[str, ...]:
    """What a run that goes on from the state called `name` takes from the same folder."""
    match = STATES.fullmatch(name)
    return ON_THE_WAY if match and match["time"] else GOES_ON


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts `run-9` before `run-10`."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", name)]


def fetch_state(connection: Connection, target: Target, files: Iterable[Stored], name: str, run: Path) -> None:
    """Bring the state called `name` of the checkpoint resource, with what `files` has `beside` it, as the run folder `run`."""
    resource = resource_path(target, CHECKPOINT)
    folder = name[: name.rfind("/") + 1]
    for file in files:
        its = file.name.removeprefix(folder) if file.name.startswith(folder) else ""
        if file.name == name or its.partition("/")[0] in beside(name):
            place = run / STATE if file.name == name else run / inside(its)
            part = place.with_name(place.name + PART)
            place.parent.mkdir(parents=True, exist_ok=True)
            connection.download(f"{resource}/files/{quoted(*file.name.split('/'))}", part, size=file.size, md5=file.md5)
            part.replace(place)
