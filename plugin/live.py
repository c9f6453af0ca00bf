"""What a training is at, sent to XNAT while it runs: its status, and its newest state, from which another run can go on after a kill.

A thread of its own that nobody waits for. Whatever goes wrong in it is one line in the log: it neither stops nor slows a training.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from medgan import runs
from medgan.errors import MedganError, OutputError, PrivacyError
from plugin.credentials import Site
from plugin.rest import Connection, quoted
from plugin.results import CHECKPOINT, ON_THE_WAY, STATES, checkpoint_files, make_resource, resource_path
from plugin.source import Remote
from plugin.target import Target

log = logging.getLogger("medgan.xnat")

SECONDS_TO_END = 5.0
"""How long the end of a job waits for an upload that is being broken off."""


class _Stopped(Exception):
    """The job has ended, so the upload is broken off."""


class _Stream:
    """An open file that ends in an exception once the job has ended: the only way to break a request off from outside."""

    def __init__(self, file: BinaryIO, size: int, stop: threading.Event) -> None:
        self._file, self._size, self._stop = file, size, stop

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        if self._stop.is_set():
            raise _Stopped
        return self._file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()


class Live:
    """Sends status and newest state of a run folder at intervals, inside a `with` block.

    Args:
        site: Where, and with whose right.
        target: Project, session or scan whose resources get them.
        run: Run folder.
        run_name: Sub-folder of the run in each resource, or empty.
        seconds: Time between two uploads.
    """

    def __init__(self, site: Site, target: Target, run: Path, run_name: str, seconds: float) -> None:
        self._site, self._target, self._run, self._run_name, self._seconds = site, target, run, run_name, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="medgan-live", daemon=True)
        self._sent: dict[Path, int] = {}
        self._after: str | None = None
        self._said = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(SECONDS_TO_END)
        complete = error is None and runs.read_json(self._run / runs.STATUS).get("status") == "complete"
        if complete or isinstance(error, PrivacyError):
            self.withdraw()

    def withdraw(self) -> None:
        """Remove the states that were sent: the training is complete, or nothing of it may be released."""
        try:
            with self._connection() as connection:
                self._remove(connection, but="")
        except Exception as error:
            self._say(error, "the state that was sent while training could not be removed")

    def _connection(self) -> Connection:
        # The next interval is the next attempt.
        return Connection(self._site, OutputError, pauses=())

    def _watch(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._send()
            except Exception as error:
                # After the end the last line is the result's.
                if not self._stop.is_set():
                    self._say(error, "sending the status failed, the training goes on")

    def _say(self, error: Exception, what: str) -> None:
        reason = error.message if isinstance(error, MedganError) else type(error).__name__
        if reason != self._said:
            log.warning("XNAT: %s: %s", what, reason)
        self._said = reason

    def _send(self) -> None:
        new = [path for path in (self._run / runs.STATUS, self._run / runs.STATE) if self._changed(path)]
        if not new:
            return
        with self._connection() as connection:
            for path in new:
                if path.name == "state.pt":
                    self._send_state(connection, path)
                else:
                    self._put(connection, "report", path, path.name)
        self._said = ""

    def _changed(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            return self._sent.get(path) != path.stat().st_mtime_ns
        return False

    def _send_state(self, connection: Connection, path: Path) -> None:
        """A new name for each state, and the older ones removed after it is there: an upload that breaks off damages none."""
        if self._after is None:
            ended = next((file.md5 for file in checkpoint_files(connection, self._target) if file.name == self._name("state.pt")), "")
            self._after = f"-after-{ended[:8]}" if ended else ""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        for name in ON_THE_WAY:
            if (self._run / name).exists():
                self._put(connection, CHECKPOINT, self._run / name, name)
        name = self._put(connection, CHECKPOINT, path, f"state-{now}{self._after}.pt")
        self._remove(connection, but=name)

    def _put(self, connection: Connection, result: str, path: Path, name: str) -> str:
        """Send one file, and look whether it is there; gives its name within the resource."""
        resource = resource_path(self._target, result)
        name = self._name(name)
        make_resource(connection, resource)
        # The open file stays what it is when the training replaces it.
        with path.open("rb") as file:
            written = os.fstat(file.fileno()).st_mtime_ns
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            size = file.tell()
            file.seek(0)
            connection.upload(f"{resource}/files/{quoted(*name.split('/'))}", _Stream(file, size, self._stop))  # type: ignore[arg-type]
        if not any(there.name == name and there.equals(size, digest) for there in connection.files(resource)):
            raise OutputError("XNAT took a file but does not list it as sent")
        self._sent[path] = written
        return name

    def _remove(self, connection: Connection, *, but: str) -> None:
        """Remove the states of this run that were sent but one; without any, their settings too."""
        resource = resource_path(self._target, CHECKPOINT)
        for file in checkpoint_files(connection, self._target):
            match = STATES.fullmatch(file.name)
            ours = match and match["time"] and (match["run"] or "") == self._run_name
            if (ours and file.name != but) or (not but and file.name in map(self._name, ON_THE_WAY)):
                connection.send("delete", f"{resource}/files/{quoted(*file.name.split('/'))}")

    def _name(self, name: str) -> str:
        """A file's name within its resource."""
        return f"{self._run_name}/{name}" if self._run_name else name


@contextlib.contextmanager
def watching(minutes: float, remote: Remote, work: Path, run_name: str) -> Iterator[None]:
    """Send what the training below `work` is at every so many minutes; 0 for never."""
    with Live(remote.site, remote.target, work / "run", run_name, 60 * minutes) if minutes else contextlib.nullcontext():
        yield
