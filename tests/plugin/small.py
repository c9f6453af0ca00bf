"""A job of a few lines on the container's real command line: `python -m tests.plugin.small HOW train ...`.

The shell around a job (folders, log, exit codes) is tested here in tenths of a second; the true job behind the same shell is in test_job.py.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgan.cli import run_and_exit
from medgan.config import setting, to_json
from medgan.errors import ConfigError, DataError
from plugin.container import program
from plugin.surroundings import refuse_left_over_keys

PLANTED = "DOE^JANE 1.2.840.99.7"


@dataclass(frozen=True, kw_only=True)
class Settings:
    recipe: str = setting("ct-liver", "how scans become images", choices=("ct-liver", "stored"), label="Recipe")
    window: tuple[float, ...] = setting((), "window level and width in HU; blank = the recipe's", nargs=2)
    kimg: float = setting(10.0, "thousands of images shown")
    mirror: bool = setting(True, "also show mirrored images")
    seed: int = setting(0, "seed of everything")
    metrics: tuple[str, ...] = setting(("fid",), "what is measured")

    def __post_init__(self) -> None:
        if self.kimg < 0:
            raise ConfigError("--kimg is below 0", fix="--kimg 1")


@dataclass(frozen=True)
class Result:
    values: dict[str, str]

    def fields(self) -> dict[str, str]:
        return self.values


def run(
    config: Settings, *, input: Path, output: Path, work: Path, weights: Path | None, run_name: str, check_only: bool, earlier: Path | None
) -> Result:
    how = os.environ["HOW"]
    if how == "environment":
        (output / "report" / run_name).mkdir(parents=True, exist_ok=True)
        names = (
            "HOME",
            "USER",
            "MPLCONFIGDIR",
            "XDG_CACHE_HOME",
            "TORCHINDUCTOR_CACHE_DIR",
            "TRITON_CACHE_DIR",
            "MEDGAN_CACHE",
            "CUDA_VISIBLE_DEVICES",
        )
        seen = {name: os.environ.get(name, "") for name in names} | {"settings": to_json(config), "weights": str(weights)}
        (output / "report" / run_name / "seen.json").write_text(json.dumps(seen))
    if how == "read":
        # What the job was given to read and to go on from, and what a process that it starts would inherit.
        files = sorted(path.relative_to(input).as_posix() for path in input.rglob("*") if path.is_file())
        state = (earlier / "checkpoint" / "state.pt").read_text() if earlier else ""
        shown = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
        words = {"argv": sys.argv, "title": Path("/proc/self/cmdline").read_bytes().decode(), "environment": shown}
        (output / "report" / run_name).mkdir(parents=True, exist_ok=True)
        (output / "report" / run_name / "seen.json").write_text(json.dumps({"files": files, "earlier": state, **words}))
    if how == "data":
        raise DataError("0 of 812 slices kept", fix="--mask-label 1")
    if how == "bug":
        raise ValueError(PLANTED)
    if how == "full":
        raise OSError(28, "No space left on device", f"/data/{PLANTED}")
    if how == "noise":
        print(PLANTED)
        warnings.warn(PLANTED, stacklevel=1)
        logging.getLogger("pydicom").warning(PLANTED)
        ctypes.CDLL(None).perror(PLANTED.encode())
        subprocess.run(["sh", "-c", f"echo '{PLANTED}'; echo '{PLANTED}' >&2"], check=True)
        logging.getLogger("medgan.data").warning("one scan left out")
        print("2026-01-31T12:00:00Z PROGRESS kimg=1/10", file=sys.stderr, flush=True)
    return Result({"status": "checked" if check_only else "complete", "kimg": f"{config.kimg:g}"})


if __name__ == "__main__":
    os.environ["HOW"] = sys.argv.pop(1)

    def body() -> Any:
        refuse_left_over_keys(os.environ)
        return program(Settings, run).main(prog_name="python -m plugin", standalone_mode=False)

    run_and_exit(body)
