"""Containers for the docker tests: folders, the create-body that XNAT sends, a run with its answer, and what must hold of every result."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from medgan.runs import read_json_lines
from tests.phantoms import ct_nifti

UID = 12345
"""A user that neither the image nor the host knows."""

# What an administrator may take away without breaking anything.
HARDENED: dict[str, Any] = {
    "ReadonlyRootfs": True,
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges"],
    "NetworkMode": "none",
    "Tmpfs": {"/tmp": "size=2g"},
}

# Some seconds of work: 25 steps at 32 px, with a state after the first and at the end. One thread: beside other containers more only wait.
SMALL = {
    "MEDGAN_SIZE": "32", "MEDGAN_PRESET": "demo", "MEDGAN_KIMG": "0.1", "MEDGAN_METRIC_IMAGES": "4", "MEDGAN_IMAGES": "8", "MEDGAN_PRIVACY": "off",
    "OMP_NUM_THREADS": "1",
}  # fmt: skip


def missing(reason: str) -> None:
    """Skip on a person's machine, fail in CI, where the engine and the image were asked for."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Unbroken(NamedTuple):
    """What a job gives that nobody disturbs (see `Place.results`), and the seconds it takes."""

    results: tuple[str, str]
    seconds: float


@dataclass(frozen=True)
class Answer:
    """How a container ended: exit code, lines of stdout and of stderr, the engine's State."""

    code: int
    out: list[str]
    err: list[str]
    state: dict[str, Any]

    @property
    def last(self) -> str:
        """The line of the contract: RESULT on stdout or ERROR on stderr."""
        return (self.out or self.err or [""])[-1]

    def said(self, name: str) -> list[str]:
        """The values of a field in all PROGRESS lines."""
        words = [word.split("=", 1) for line in self.err if " PROGRESS " in line for word in line.split() if "=" in word]
        return [value for key, value in words if key == name]


class Running:
    """A started container."""

    def __init__(self, api: Any, body: dict[str, Any]) -> None:
        self.api = api
        self.id = api.create_container_from_config(body)["Id"]
        api.start(self.id)

    def runs(self) -> bool:
        return bool(self.api.inspect_container(self.id)["State"]["Running"])

    def kill(self, signal: str) -> None:
        """Send a signal to the first process; one that has ended by now needs none."""
        import docker

        try:
            self.api.kill(self.id, signal)
        except docker.errors.APIError:
            assert not self.runs()

    def wait_for(self, path: Path, *, after: float = 0.0, seconds: float = 120.0) -> bool:
        """Wait until a file or folder is there and changed after a time; False when the container ended before."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if path.stat().st_mtime >= after:
                    return True
            except OSError:
                pass
            if not self.runs():
                return False
            assert time.monotonic() < deadline, f"{path.name} did not come"
            time.sleep(0.02)

    def end(self) -> Answer:
        """Wait for the end; what a platform keeps of every run stays below a megabyte."""
        code = self.api.wait(self.id, timeout=600)["StatusCode"]
        out, err = (self.api.logs(self.id, stdout=first, stderr=not first).decode() for first in (True, False))
        assert len(out) + len(err) < 1e6
        return Answer(code, out.splitlines(), err.splitlines(), self.api.inspect_container(self.id)["State"])

    def remove(self) -> None:
        self.api.remove_container(self.id, force=True, v=True)


class Place:
    """Folders for containers of one job. /work is mounted when a test wants scratch that outlives the container."""

    def __init__(self, root: Path, api: Any, image: Any) -> None:
        self.api, self.image = api, image
        self.input, self.output, self.work = root / "input", root / "output", root / "work"
        for folder in (self.input, self.output, self.work):
            folder.mkdir()
            folder.chmod(0o755)
        # Host folder or volume of each.
        self.sources = {"/input": str(self.input), "/output": str(self.output), "/work": str(self.work)}

    def give_to(self, uid: int) -> None:
        for folder in (self.output, self.work):
            os.chown(folder, uid, uid)

    def fill(self, below: str = "") -> None:
        """Four small CTs with liver masks."""
        for patient in range(4):
            ct_nifti(self.input / below / f"scan-{patient}", shift=patient)

    def body(
        self,
        words: list[str],
        *,
        env: dict[str, str] | None = None,
        user: str = "",
        work: bool = False,
        entry: str | None = None,
        **host: Any,
    ) -> dict[str, Any]:
        """The request of Container Service 3.7.3's Docker backend, which `host` adds to.

        `words` go to the image's entry point (`override-entrypoint: false`). With `entry` blank they are a line for a shell, as
        `override-entrypoint: true` sends it; with another it stands in the place of the image's.
        """
        places = ["/input", "/output", *(["/work"] if work else [])]
        binds = [f"{self.sources[place]}:{place}" + (":ro" if place == "/input" else "") for place in places]
        return {
            "Image": self.image.id,
            "Cmd": words if entry != "" else ["/bin/sh", "-c", *words],
            "Env": [f"{name}={value}" for name, value in (env or {}).items()],
            "WorkingDir": "",
            "User": user,
            "Labels": {},
            "HostConfig": {"AutoRemove": False, "Runtime": "", "IpcMode": "", "Binds": binds} | host,
        } | ({} if entry is None else {"Entrypoint": [entry]})

    @contextmanager
    def started(self, words: list[str], **request: Any) -> Iterator[Running]:
        container = Running(self.api, self.body(words, **request))
        try:
            yield container
        finally:
            container.remove()

    def __call__(self, words: list[str], **request: Any) -> Answer:
        with self.started(words, **request) as container:
            return container.end()

    @property
    def state(self) -> Path:
        """The saved state in the mounted scratch folder, once it is there."""
        return next(self.work.glob("medgan-*/run/checkpoint/state.pt"), self.work / "none yet")

    def wait_for_state(self, container: Running) -> None:
        deadline = time.monotonic() + 120
        while not self.state.exists():
            assert container.runs(), container.end()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def results(self) -> tuple[str, str]:
        """What two equal runs have in common: digests of every synthetic image, and of the model's files."""
        return (self.output / "synthetic/manifest.csv").read_text(), (self.output / "model/SHA256SUMS").read_text()

    def text(self, *folders: Path) -> bytes:
        """All that stands in files, their names too."""
        files = [path for folder in folders or (self.output,) for path in folder.rglob("*") if path.is_file()]
        return b"\n".join(path.name.encode() + path.read_bytes() for path in files)


def half_written(output: Path) -> list[str]:
    """The files under /output that somebody who opens them would find broken."""
    return [str(path.relative_to(output)) for path in sorted(output.rglob("*")) if path.is_file() and not _opens(path)]


def _opens(path: Path) -> bool:
    if path.name.startswith(".") or not path.stat().st_size:
        return False
    try:
        match path.suffix:
            case ".json":
                json.loads(path.read_text())
            case ".jsonl":
                return len(read_json_lines(path)) == len(path.read_text().splitlines())
            case ".zip" | ".pt" | ".npz":
                with zipfile.ZipFile(path) as archive:
                    return archive.testzip() is None
            case ".png":
                with Image.open(path) as picture:
                    picture.load()
            case ".html":
                return path.read_text().rstrip().endswith("</html>")
            case ".csv" | ".md" | ".txt" | ".log":
                return path.read_text().endswith("\n")
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return True
