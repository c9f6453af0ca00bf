"""The output folder of a stage: file names, provenance (run.json) and writes that leave nothing half-written.

Every write goes to a temporary file beside its target, is synced, and is renamed: a kill at any moment leaves the old
file or the new one.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import medgan
from medgan.errors import DiskError, OutputError

CONFIG = "config.json"
PROVENANCE = "run.json"
LOG = "log.txt"
STATS = "stats.jsonl"
STATUS = "status.json"
EVALUATIONS = "metrics.jsonl"
METRICS = "metrics.json"
STATE = "checkpoint/state.pt"
BUNDLE = "bundle"
DATASET = "dataset"
INSPECTION = "inspection.json"
PLAN = "plan.json"
PRETRAINED = "pretrained.json"
TRACKED = "mlflow.json"
DECODED = "decoded"
SYNTHETIC = "synthetic"
SNAPSHOTS = "snapshots"
WALK = "walk"
AUDIT = "audit"
JOB = "job.json"
REPORT = "report.html"

METRICS_FORMAT = 1
BUNDLE_FORMAT = 1
"""Of metrics.json and of a bundle's metadata: raised when an older medgan would read them wrongly."""

GOES_ON = (CONFIG, STATS, EVALUATIONS, PRETRAINED, BUNDLE)
"""What a run that goes on from a state takes with it: its settings, its curves and the best network so far."""

RESULTS = "MEDGAN_"
"""How XNAT's resources with results of ours begin. They lie beside the scans of a session: synthetic images must never become scans."""


PART = ".part"


@contextlib.contextmanager
def atomic(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends well, and vanishes when it does not.

    Where the file system can, the file has no name until it is complete, so that even a SIGKILL leaves nothing; the path is then one of
    /proc/self/fd. Elsewhere (NFS) it is a hidden name beside `path`, for `sweep` to remove.

    Args:
        path: What is to be written.
        shared: Other processes write too: then it has a hidden name, for theirs is another /proc/self.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    named = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    nameless = None if shared else _nameless(path.parent)
    handle = os.open(named, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666) if nameless is None else nameless
    try:
        yield named if nameless is None else Path(f"/proc/self/fd/{handle}")
        os.fsync(handle)
        if nameless is not None:
            _give_name(handle, named)
        named.replace(path)
    finally:
        os.close(handle)
        named.unlink(missing_ok=True)


def _nameless(folder: Path) -> int | None:
    """A new file in `folder` that has no name, opened (open(2), O_TMPFILE); None where the system or the file system has no such thing."""
    with contextlib.suppress(AttributeError, OSError):
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    return None


def _give_name(handle: int, path: Path) -> None:
    """The file gets its name whole: linkat(2) with AT_SYMLINK_FOLLOW, which Python uses when a folder is given to start from."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.link(f"/proc/self/fd/{handle}", path, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left under `folder`. Nobody else may be writing there."""
    for left in [*folder.rglob(f".*{PART}")]:
        left.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically: indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file, or it holds none: for what may be gone, or be written again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def save_tensors(path: Path, value: Any) -> None:
    """Write what `torch.load(weights_only=True)` reads, atomically.

    Raises:
        DiskError: It could not be written whole; the old file is intact.
    """
    import torch

    with atomic(path) as temporary:
        try:
            # By its path, torch would write the temporary name into the file: equal weights must be equal bytes.
            with temporary.open("wb") as file:
                torch.save(value, file)
        except (RuntimeError, OSError) as error:
            # torch says a full disk as a RuntimeError of its own as well.
            raise DiskError("weights could not be written whole; the last ones are intact", fix="free space, then rerun") from error


def append_json(path: Path, value: Any) -> None:
    """Append one line to a JSON-lines file; a line torn by a kill is dropped by `read_json_lines`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(_json_line(value))


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Write a JSON-lines file anew, atomically, with lines as `append_json` writes them."""
    write_text(path, "".join(_json_line(value) for value in values))


def _json_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a missing file is empty, a torn last line is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def check_writable(folder: Path, name: str) -> None:
    """Make `folder` and prove that a file can be written in it.

    Args:
        folder: The folder; made when missing.
        name: What to call it in the message, e.g. `/output` or `--out`.

    Raises:
        OutputError: It cannot be written; the message names both owners.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, prefix=".medgan-write-test"):
            pass
    except OSError as error:
        # os.path.exists says no, not PermissionError, where a parent may not be entered.
        existing = next(p for p in [folder, *folder.parents] if os.path.exists(p))
        status = existing.stat()
        raise OutputError(
            f"uid {os.geteuid()} cannot write {name} (owner {status.st_uid}, mode {status.st_mode & 0o7777:04o}, {error.strerror})",
            # What nobody may write is no matter of owners: in a container, mostly a folder that was not mounted.
            fix="mount or name a folder that can be written"
            if error.errno == errno.EROFS
            else f"--user {status.st_uid}:{status.st_gid}, or make the folder writable",
        ) from None


def sha256(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def utc_now() -> str:
    """The time in ISO 8601, UTC, to the second: `2026-01-31T12:00:00Z`."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def locked() -> dict[str, str]:
    """The checksum of requirements.lock, which has the digest of every file that an image installs; empty where the file is not beside the code."""
    path = Path(medgan.__file__).resolve().parent.parent / "requirements.lock"
    return {"requirements.lock": sha256(path)} if path.is_file() else {}


def commit() -> str:
    """The commit this code is from: git in a checkout, MEDGAN_COMMIT in an image, else `unknown`."""
    if value := os.environ.get("MEDGAN_COMMIT"):
        return value
    root = Path(medgan.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "unknown"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return "unknown"


def provenance(stage: str, config: Mapping[str, Any], inputs: Mapping[str, str], *, started: str) -> dict[str, Any]:
    """What made a result: version, commit, settings, inputs with checksums, machine and times.

    Paths are absent, because a path of a scan may name a patient: the settings say what was asked, the checksums say of what.

    Args:
        stage: Name of the stage, e.g. `train`.
        config: Its settings as JSON values; values that look like paths must already be left out by the caller.
        inputs: Role -> checksum or identity of what went in.
        started: `utc_now()` at the stage's start.
    """
    versions = {"medgan": medgan.__version__, "python": platform.python_version()}
    for name in ("torch", "monai", "numpy", "scipy", "pydicom", "nibabel"):
        if module := sys.modules.get(name):
            versions[name] = str(getattr(module, "__version__", "?"))
    return {
        "stage": stage,
        "commit": commit(),
        "versions": versions,
        "settings": dict(config),
        "inputs": dict(inputs),
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        "started": started,
        "finished": utc_now(),
    }
