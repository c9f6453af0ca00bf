"""The machine a stage runs on: which device, how it computes, how it keeps memory."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def device() -> torch.device:
    """The first CUDA device, else the CPU; MEDGAN_DEVICE overrides.

    Raises:
        DeviceError: MEDGAN_DEVICE names a device that is not there.
    """
    import torch

    from medgan.errors import DeviceError

    name = os.environ.get("MEDGAN_DEVICE", "").strip()
    if not name:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError):
        raise DeviceError(f"MEDGAN_DEVICE={name} is not a device of this machine", fix="leave it unset, or cpu") from None
    return chosen


def set_precision(precision: str) -> None:
    """`tf32` lets CUDA matrix products and convolutions round their inputs to TF32; `fp32` forbids it, as the official code does."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def keep_freed_memory() -> None:
    """Let glibc keep freed activations instead of returning them to the system, which faults every page in again.

    Measured: 1.44 times as fast a CPU training at 256 px, no difference at 64 px (docs/decisions/0006-allocator.md). Process-wide, so commands call it, never an import;
    MEDGAN_MALLOC=system leaves the allocator alone.
    """
    if platform.system() != "Linux" or os.environ.get("MEDGAN_MALLOC") == "system":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
    except (OSError, AttributeError):
        return
