"""XNAT's own data model, as xnatpy's source package carries it for its tests: fetched once by pip, never kept in the repository."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "xnat-schemas"
PACKAGE = "xnat==0.8.1"
SHA256 = "da153e7d4bb4e7c1becff79c9dc4097750f56f77bef4aa5b9c2c446fe54f59ad"
INSIDE = {"xnat": "xnat-0.8.1/xnat/tests/xnat.xml", "xdat": "xnat-0.8.1/xnat/tests/xdat.xml"}
NAMES = (*sorted(INSIDE), "icr")


def schema(name: str) -> bytes:
    """One of NAMES as the server gives it; `icr`, for ROI collections, is eighteen lines of ours.

    Raises:
        FileNotFoundError: `fetch` was not called.
    """
    return (HERE / "icr.xsd" if name == "icr" else CACHE / f"{name}.xsd").read_bytes()


def fetch() -> bool:
    """Have the schemas in the cache, one process at a time; False where pip reaches no registry.

    Raises:
        ValueError: The package is not the one whose digest stands here.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock, tempfile.TemporaryDirectory() as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all((CACHE / f"{name}.xsd").exists() for name in INSIDE):
            return True
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "xnat", "-d", folder, PACKAGE]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return False
        archive = next(Path(folder).glob("*.tar.gz"))
        if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            raise ValueError(f"{PACKAGE} is not the package expected (sha256)")
        with tarfile.open(archive) as tar:
            for name, member in INSIDE.items():
                content = tar.extractfile(member)
                assert content is not None
                (CACHE / f"{name}.xsd").write_bytes(content.read())
    return True
