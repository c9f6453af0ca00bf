"""The machine a stage runs on: which device, how it computes, how it keeps memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    import torch

C = TypeVar("C", bound=Callable[..., Any])

PRECISIONS = ("fp32", "tf32", "bf16")
PRECISION_HELP = "arithmetic: exact; TF32 on a GPU; or features in bfloat16, on a GPU or a CPU that has it"


def seconds_alive() -> float:
    """Seconds since this process was started, its interpreter and imports included (proc(5): starttime, the 22nd field of stat)."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


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


def carried(tensor: torch.Tensor, *, to: torch.Tensor | torch.device) -> torch.Tensor:
    """What was drawn on the host, where it is needed; with a tensor in its type too. A GPU goes on computing while it comes.

    A copy from pageable memory waits until the GPU has done all it was given, and then leaves it idle until it is given more.
    """
    import torch

    if isinstance(to, torch.Tensor):
        tensor, to = tensor.to(to.dtype), to.device
    return tensor.pin_memory().to(to, non_blocking=True) if to.type == "cuda" and tensor.device.type == "cpu" else tensor.to(to)


def check_devices(count: int) -> None:
    """Prove that this machine has a GPU for each of `count` processes; on one without GPUs they share its cores.

    Raises:
        DeviceError: It has fewer.
    """
    import torch

    from medgan.errors import DeviceError

    if device().type == "cuda" and torch.cuda.device_count() < count:
        found = torch.cuda.device_count()
        raise DeviceError(f"--gpus {count}: this machine shows {found}", fix=f"--gpus {found}, or MEDGAN_DEVICE=cpu")


def set_precision(precision: str) -> None:
    """One of PRECISIONS: `tf32` lets CUDA matrix products and convolutions round their inputs to TF32; `fp32` forbids it, as the official code does.

    With `bf16` TF32 holds for what networks keep in float32 (medgan.networks.family.compute_in).
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.allow_tf32 = precision != "fp32"


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has convolutions in bfloat16; elsewhere they are right but many times slower than in float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def compiled(function: C, choice: str, on: torch.device, *, backend: str = "inductor") -> C:
    """A network or function that `torch.compile` fuses kernels of, at its first calls, which then take minutes.

    Random numbers are drawn as without it, so that results differ by rounding only. First derivatives only: PyTorch refuses a second one.

    Args:
        function: What is called with tensors of the same few shapes.
        choice: `on`; `auto`, on a GPU alone, and without it where it fails; or `off`.
        on: Where the tensors are.
        backend: Of torch.compile.
    """
    if choice == "off" or (choice == "auto" and on.type != "cuda"):
        return function
    import torch
    import torch._dynamo
    import torch._inductor.config

    torch._inductor.config.fallback_random = True
    torch._dynamo.config.suppress_errors = choice == "auto"
    return cast("C", torch.compile(function, backend=backend, dynamic=False))


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


def cores(root: Path = Path("/")) -> int:
    """CPU cores this process may use: those it is bound to, and no more than its container's quota (cgroup v2 or v1).

    Args:
        root: Where /sys is, for tests.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    group = root / "sys/fs/cgroup"
    quota, _, period = _first_line(group / "cpu.max").partition(" ")
    if not quota:
        quota, period = _first_line(group / "cpu/cpu.cfs_quota_us"), _first_line(group / "cpu/cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit() and int(period):
        bound = min(bound, -(-int(quota) // int(period)))
    return max(bound, 1)


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that can be had: what the system has free, and no more than the container's limit leaves (cgroup v2 or v1).

    Args:
        root: Where /proc and /sys are, for tests.
    """
    free = 2**33
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    group = root / "sys/fs/cgroup"
    for most, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        limit, now = _first_line(group / most), _first_line(group / used)
        if limit.isdigit() and now.isdigit():
            free = min(free, max(int(limit) - int(now), 0))
    return free


def _first_line(path: Path) -> str:
    try:
        return path.read_text().split("\n", 1)[0]
    except OSError:
        return ""
