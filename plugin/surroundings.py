"""What the container finds around it: user, caches, devices, mounts; and the banner that says so.

All but the last words for a full disk runs before torch is imported, so that a wrong mount fails in a second and the caches are set before anyone reads them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import medgan
from medgan.cli import as_problem
from medgan.errors import ConfigError, DiskError, InputError, OutputError
from medgan.runs import RESULTS, check_writable, commit
from plugin.gpus import kinds, pytorch

BANNER_LINES = 12
# A project mount can hold a million files on a network disk; beyond this the banner says "at least".
COUNTED_FILES = 10_000

CACHES = {
    "XDG_CACHE_HOME": "cache",
    "MPLCONFIGDIR": "cache/matplotlib",
    "TORCH_HOME": "cache/torch",
    "TORCHINDUCTOR_CACHE_DIR": "cache/inductor",
    "TORCH_EXTENSIONS_DIR": "cache/extensions",
    "TRITON_CACHE_DIR": "cache/triton",
    "CUDA_CACHE_PATH": "cache/cuda",
    "NUMBA_CACHE_DIR": "cache/numba",
}


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The four folders of a job. Messages use these names, never the paths: a path of a scan may name a patient."""

    input: Path
    output: Path
    work: Path
    weights: Path | None = None


def refuse_left_over_keys(environment: Mapping[str, str]) -> None:
    """Stop when the platform handed over a template instead of a value: `MEDGAN_KIMG=#kimg#`.

    XNAT leaves a replacement key it cannot fill literally in the text; a program that took it would train on nonsense or on a default
    nobody asked for.

    Raises:
        ConfigError: A MEDGAN_ variable still has the shape `#...#`.
    """
    left = sorted(name for name, value in environment.items() if name.startswith("MEDGAN_") and _is_key(value))
    if left:
        names = ", ".join(f"{name} is still {environment[name].strip()}" for name in left)
        raise ConfigError(
            f"{names}: the platform put no value in the place of the key",
            fix="give the command an input of that name (python -m plugin.xnat lint FILE finds such keys), or leave the variable blank",
        )


def checked_run_name(given: str | None) -> str:
    """The run's name: as given, in XNAT `run-<workflow id>`, else none.

    XNAT merges a second run into the same resource and overwrites equal names, so its runs always get a folder of their own.

    Raises:
        ConfigError: The name is not a plain folder name.
    """
    name = given or (f"run-{os.environ['XNAT_WORKFLOW_ID']}" if os.environ.get("XNAT_WORKFLOW_ID") else "")
    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        raise ConfigError("--run-name is not a plain folder name", fix="use letters, digits, dots, dashes and underscores")
    return name


def _is_key(value: str) -> bool:
    text = value.strip()
    return len(text) > 2 and text.startswith("#") and text.endswith("#")


def prepare_output(folder: Path, name: str) -> None:
    """Make the output folder and prove that it can be written: the first thing a job does.

    Raises:
        OutputError: It cannot.
    """
    os.umask(0o022)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{name} is a file, not a folder", fix="give a folder")
    check_writable(folder, name)


def redirect_caches(work: Path) -> None:
    """Point HOME and every cache of the libraries under the work folder, before any of them is imported.

    A container may run as a uid without a passwd entry, with HOME unset or unwritable and a read-only root.
    Weights that the user fetched earlier stay findable: MEDGAN_CACHE keeps pointing at their cache.
    """
    home = os.environ.get("HOME", "")
    earlier = Path(os.environ.get("XDG_CACHE_HOME") or Path(home or "/nonexistent") / ".cache") / "medgan"
    with contextlib.suppress(OSError):
        if (earlier / "weights").is_dir():
            os.environ.setdefault("MEDGAN_CACHE", str(earlier))
    if not home or not os.access(home, os.W_OK | os.X_OK):
        folder = work / "home"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["HOME"] = str(folder)
    for name, below in CACHES.items():
        folder = work / below
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder)
    # getpass.getuser() raises for a uid without a passwd entry; torch's inductor calls it.
    if not _user_name():
        os.environ.setdefault("USER", "medgan")
        os.environ.setdefault("LOGNAME", "medgan")


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def check_input(folder: Path, name: str) -> None:
    """Stop when there is nothing to read.

    XNAT makes a missing folder and mounts it empty, and writes `*_catalog.xml` beside files it holds: a catalog alone is no scan.

    Raises:
        InputError: The folder is missing, unreadable or without files.
    """
    fix = "check the folder mounted there; in XNAT, the path translation of the Container Service"
    if not folder.exists():
        raise InputError(f"{name} does not exist", fix=fix)
    if not os.access(folder, os.R_OK):
        raise InputError(f"{name} cannot be read by uid {os.geteuid()}", fix="--user of somebody who may read it")
    if not has_scans(folder):
        raise InputError(f"{name} is empty", fix=f"{fix}; or --source rest")


def has_scans(folder: Path) -> bool:
    """Whether there is anything to read: results of earlier runs, which XNAT mounts with a session, are no scans."""
    return folder.is_file() or next(_files(folder), None) is not None


def _files(folder: Path) -> Iterator[str]:
    for _, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(RESULTS)]
        yield from (name for name in names if not name.endswith("_catalog.xml"))


def banner(folders: Folders) -> list[str]:
    """What this process runs as and on, in at most 12 lines and without a path."""
    version, cuda = pytorch()
    lines = [
        f"medgan {medgan.__version__}  commit {commit()[:12]}",
        f"PyTorch {version}  CUDA {cuda or 'none (CPU build)'}",
        *kinds(),
        f"uid:gid {os.geteuid()}:{os.getegid()} ({_user_name() or 'no passwd entry'})  cores {len(os.sched_getaffinity(0))}",
        f"/dev/shm {_free(Path('/dev/shm'))}",  # noqa: S108 (measured, not written)
        f"input   {_mode(folders.input)}  {_count(folders.input)}",
        f"output  {_mode(folders.output)}  {_free(folders.output)}",
        f"work    {_mode(folders.work)}  {_free(folders.work)}",
        f"weights {_weights(folders.weights)}",
    ]
    return lines[:BANNER_LINES]


def _mode(folder: Path) -> str:
    if not folder.exists():
        return "missing"
    return "rw" if os.access(folder, os.W_OK) else "ro"


def _free(folder: Path) -> str:
    """Room where a folder is: `12.3 of 50.0 GiB free`, `60.1 of 64.0 MiB free`."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return "missing"
    size, unit = (2**30, "GiB") if usage.total >= 2**30 else (2**20, "MiB")
    return f"{usage.free / size:.1f} of {usage.total / size:.1f} {unit} free"


@contextlib.contextmanager
def room_of(folders: Folders) -> Iterator[None]:
    """Say where a job lacks room: the commands that it is made of name options of their own, which a container's command line has not."""
    try:
        yield
    except Exception as error:
        problem = as_problem(error)
        if not isinstance(problem, DiskError):
            raise
        scratch = f"scratch ({_free(folders.work)}; mount a disk at /work, or --work DIR)"
        fuller = DiskError(problem.message, fix=f"room for {scratch} or results ({_free(folders.output)})")
        raise fuller.with_traceback(error.__traceback__) from None


def _count(folder: Path) -> str:
    if folder.is_file():
        return "1 file"
    number = 0
    for number, _ in enumerate(_files(folder), start=1):
        if number == COUNTED_FILES:
            return f"at least {number} files"
    return f"{number} file{'' if number == 1 else 's'}"


def _weights(folder: Path | None) -> str:
    places = [folder] if folder else []
    places += [Path("/weights"), Path(os.environ["MEDGAN_CACHE"]) / "weights"] if "MEDGAN_CACHE" in os.environ else [Path("/weights")]
    found = sorted({p.stem for place in places if place.is_dir() for p in place.iterdir() if p.suffix in (".safetensors", ".pkl", ".pth")})
    return f"{len(found)} found" if found else "none found"


def default_work(*what: object) -> Path:
    """The scratch folder when none is given: under $TMPDIR, and one per command line.

    The same command finds its state again and goes on; another one never meets a state that is not its own.
    """
    key = hashlib.sha256(repr(what).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"medgan-{os.geteuid()}-{key}"
