"""The GPUs around a job: which there are, whether PyTorch can use one, and which of them a training takes.

Nothing here imports torch but `check`, and that only where the answer needs it.
"""

from __future__ import annotations

import logging
import os
import runpy
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from medgan.errors import DeviceError

log = logging.getLogger("medgan.plugin")

TOOL = "nvidia-smi"
DEVICE = "MEDGAN_DEVICE"
"""Variable that names the device to train on; medgan/machine.py reads it."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


def pytorch() -> tuple[str, str]:
    """Version and CUDA version of the installed torch without importing it (which takes seconds)."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return "not installed", ""
    values = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return str(values["__version__"]), str(values.get("cuda") or "")


def kinds() -> list[str]:
    """One line per kind of GPU the driver shows, at most three."""
    if shutil.which(TOOL) is None:
        return ["GPU none"]
    rows = _ask("name,memory.total,driver_version")
    if rows is None:
        return ["GPU none (nvidia-smi fails)"]
    counted: dict[str, int] = {}
    for row in rows:
        counted[row] = counted.get(row, 0) + 1
    return [f"GPU {number} x {kind}" for kind, number in counted.items()][:3] or ["GPU none"]


def _ask(fields: str) -> list[str] | None:
    """What nvidia-smi says of each GPU; None where it does not answer."""
    query = [TOOL, f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return list(filter(None, map(str.strip, lines)))


def check() -> None:
    """Stop a training that would go on for months on the processor because nobody gave the container a GPU.

    Only a CUDA build of PyTorch asks for one: who installs a CPU build, or sets MEDGAN_DEVICE, has chosen.

    Raises:
        DeviceError: PyTorch finds no GPU, or none that it can use.
    """
    _, cuda = pytorch()
    if not cuda or os.environ.get(DEVICE, "").strip():
        return
    import torch

    if torch.cuda.is_available():
        return
    shown = kinds()[0]
    if not shown.startswith("GPU none"):
        raise DeviceError(
            f"PyTorch for CUDA {cuda} cannot use what the driver shows ({shown.removeprefix('GPU ')})",
            fix=f"a driver for CUDA {cuda}, an image whose PyTorch is for the driver's CUDA (TORCH_OPTIONS), or {DEVICE}=cpu",
        )
    raise DeviceError(
        f"there is no GPU for PyTorch for CUDA {cuda}",
        fix=f"docker run --gpus all, srun --gpus 1, apptainer --nv, in XNAT the command of your kind of backend; or {DEVICE}=cpu",
    )


def choose(count: int) -> None:
    """Leave a training the GPUs with the most free memory, before anything looks for one.

    XNAT's Docker backend gives each container all GPUs of the server: two launches would meet on the first while the others idle.
    Nothing is chosen where somebody has (CUDA_VISIBLE_DEVICES, MEDGAN_DEVICE, torchrun), or where GPUs are cut into slices (MIG),
    which have names of their own.

    Args:
        count: GPUs that the training takes.
    """
    if os.environ.get(VISIBLE) or os.environ.get(DEVICE, "").strip() or "RANK" in os.environ or shutil.which(TOOL) is None:
        return
    rows = [row.split(", ") for row in _ask("uuid,memory.free,mig.mode.current") or []]
    if len(rows) <= count or any(len(row) != 3 or row[2] == "Enabled" or not row[1].split()[0].isdigit() for row in rows):
        return
    # Sorting keeps the driver's order among equals.
    rows.sort(key=lambda row: -int(row[1].split()[0]))
    os.environ[VISIBLE] = ",".join(row[0] for row in rows[:count])
    log.info("takes %d of %d GPUs, by free memory: %s", count, len(rows), ", ".join(row[1] for row in rows[:count]))
