"""Write requirements.lock: what the image installs, each version with the digests of its files, so that an index cannot give another file.

    python scripts/write_lock.py

uv (in a virtual environment of its own, thrown away) solves the dependencies of pyproject.toml under the versions of constraints.txt, for the
image's Python on Linux. torch is left out, and so is what only its CUDA build brings: its wheel differs by machine, and it names those itself.
A test fails while the lock says something else than pyproject.toml and constraints.txt.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

UV = "uv==0.13.9"
PYTHON = "3.11"
ROOT = Path(__file__).resolve().parent.parent
HEAD = "# Written by scripts/write_lock.py for `pip install --require-hashes --no-deps`; torch is installed apart (Dockerfile).\n"
WITH_CUDA = re.compile(r"(nvidia|cuda)-|triton$")


def solved(root: Path) -> str:
    """The lock's text: a block `name==version` per package, with a `--hash` line for each of its files."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        bin = Path(folder) / "bin"
        subprocess.run([bin / "python", "-m", "pip", "install", "--quiet", UV], check=True)
        command = [bin / "uv", "pip", "compile", "pyproject.toml", "--constraints", "constraints.txt", "--no-emit-package", "torch"]
        command += ["--generate-hashes", "--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_28"]
        command += ["--no-header", "--no-annotate", "--quiet"]
        text = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    return HEAD + "".join(block for block in blocks if not WITH_CUDA.match(block.partition("==")[0]))


if __name__ == "__main__":
    (ROOT / "requirements.lock").write_text(solved(ROOT), encoding="utf-8")
    print(f"requirements.lock written with {UV} on Python {sys.version_info.major}.{sys.version_info.minor}")
