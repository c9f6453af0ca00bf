"""What the benchmarks share: sides timed in turn, peak memory beside each time, and a JSON line for each answer."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medgan.runs import commit

VERSIONS = ("torch", "numpy", "scipy", "monai", "pydicom", "nibabel")


@dataclass
class Side:
    """One of the things compared: its times, and the most memory that the process held while it ran.

    Attributes:
        seconds: One for each turn; those of the warm-up are left out.
        peak_bytes: Resident memory of the process at its highest during the first turns; 0 where the system does not say.
        device_bytes: The same of a GPU's allocations.
        results: What each turn gave.
    """

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    device_bytes: int = 0
    results: list[Any] = field(default_factory=list)

    @property
    def result(self) -> Any:
        """What the last turn gave."""
        return self.results[-1]

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds)


def in_turn(
    sides: Mapping[str, Callable[[], Any]],
    *,
    repeats: int,
    warm_ups: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    device: str = "cpu",
) -> dict[str, Side]:
    """Run every side once, then every side again: what else a machine does then falls on all of them.

    Args:
        sides: Name -> what is measured.
        repeats: Turns that count.
        warm_ups: Turns before them.
        clock: `time.process_time` counts the CPU's seconds, which other work on the machine disturbs less.
        device: Of the work; a GPU is waited for.
    """
    measured = {name: Side() for name in sides}
    for turn in range(warm_ups + repeats):
        for name, run in sides.items():
            side = measured[name]
            # Asking for the peak empties the allocator, which the timed turns must not pay for.
            if turn < max(warm_ups, 1):
                reset_peak(device)
            started = clock()
            result = run()
            wait(device)
            seconds = clock() - started
            if turn < max(warm_ups, 1):
                side.peak_bytes, side.device_bytes = map(max, zip((side.peak_bytes, side.device_bytes), peak(device), strict=True))
            if turn >= warm_ups:
                side.seconds.append(seconds)
                side.results.append(result)
    return measured


def wait(device: str) -> None:
    """Until a GPU has done all it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def reset_peak(device: str = "cpu") -> None:
    """Forget the highest memory so far (proc(5), clear_refs: 5), after glibc has given back what is free."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak(device: str = "cpu") -> tuple[int, int]:
    """Bytes of resident memory, and of a GPU's allocations, at their highest since `reset_peak`."""
    host = 0
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        host = 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    if device.startswith("cuda"):
        import torch

        return host, torch.cuda.max_memory_allocated()
    return host, 0


def row(question: str, value: float, unit: str, *, peak_bytes: int | None = None, device: str = "cpu", **more: Any) -> dict[str, Any]:
    """An answer as JSON values.

    Args:
        question: What was asked, with the sizes that it depends on.
        value: The answer.
        unit: Of the value.
        peak_bytes: The most memory held; None is that of the whole process so far.
        device: cpu or cuda.
        more: Whatever else stands beside it: the other side, the ratio, all times.
    """
    memory = peak(device)[0] if peak_bytes is None else peak_bytes
    return {
        "question": question,
        "value": rounded(value),
        "unit": unit,
        **more,
        "peak_memory_mb": round(memory / 1e6),
        "device": described(device),
        "versions": {"python": platform.python_version()}
        | {name: str(sys.modules[name].__version__) for name in VERSIONS if hasattr(sys.modules.get(name), "__version__")},
        "commit": commit()[:9],
        "date": time.strftime("%Y-%m-%d"),
    }


def show(answer: Mapping[str, Any]) -> None:
    """Print an answer, as one line, at once."""
    print(json.dumps(answer, ensure_ascii=False), flush=True)


def rounded(value: float, digits: int = 4) -> float:
    """So many significant digits: a measured time has no more."""
    return float(f"{value:.{digits}g}")


def described(device: str) -> str:
    """The device's name, of a CPU with the number of cores and threads that this process may use."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    model = ""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS", "") if "torch" not in sys.modules else sys.modules["torch"].get_num_threads()
    return f"cpu: {model or platform.machine()}, {cores} cores" + (f", {threads} threads" if threads else "")
