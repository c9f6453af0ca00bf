"""How long a step takes and what it holds, on classes of machines: a model of three terms, fitted to measured runs.

Seconds per image = a x arithmetic + b x memory traffic + c x calls (docs/explanation/plan.md). The coefficients below are
written by `benchmarks/fit_plan.py`. Torch-free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medgan.training import cost
from medgan.training.config import TrainConfig

# Values that one augmented image makes, per pixel: two-fold resolution along x and y, then the grid, then back.
AUGMENT_ELEMENTS = 12
# The official code's mixed precision: this many of the highest resolutions in float16.
HALF_RESOLUTIONS = 4
# Resident memory of a process before networks and images: `medgan plan --size 32 --preset demo --calibrate` peaks at 0.38 GB.
HOST_BASE = 0.35e9
# The same of a process that uses a GPU: CUDA's context, torch's CUDA libraries, what cuDNN and cuBLAS load, and the networks on their way to the GPU.
# An estimate on the safe side: it differs between drivers and was not measured with this code.
CUDA_HOST_BASE = 4e9


@dataclass(frozen=True, kw_only=True)
class Device:
    """A class of machines.

    Attributes:
        name: As `--device` takes it.
        kind: cpu or cuda.
        tflops: Peak arithmetic by precision (fp32, tf32, fp16, bf16), from the data sheet; for a CPU 1, the coefficient says all.
            GPUs without bfloat16 compute it in float32.
        tb_per_s: Peak memory bandwidth, TB/s; for a CPU 1.
        memory_gb: Memory of the accelerator, 10^9 bytes; 0 for a CPU, which has the host's.
    """

    name: str
    kind: str
    tflops: dict[str, float]
    tb_per_s: float
    memory_gb: float


_CPU = {"fp32": 1.0, "tf32": 1.0, "fp16": 1.0, "bf16": 1.0}
# Peaks without sparsity, from the makers' data sheets.
# fmt: off
DEVICES: dict[str, Device] = {
    "cpu":       Device(name="cpu",       kind="cpu",  tflops=_CPU,                                                       tb_per_s=1.0,   memory_gb=0),
    "t4":        Device(name="t4",        kind="cuda", tflops={"fp32": 8.1,  "tf32": 8.1,   "fp16": 65,    "bf16": 8.1},  tb_per_s=0.32,  memory_gb=16),
    "v100":      Device(name="v100",      kind="cuda", tflops={"fp32": 15.7, "tf32": 15.7,  "fp16": 125,   "bf16": 15.7}, tb_per_s=0.90,  memory_gb=32),
    "rtx-3090":  Device(name="rtx-3090",  kind="cuda", tflops={"fp32": 35.6, "tf32": 35.6,  "fp16": 71,    "bf16": 71},   tb_per_s=0.936, memory_gb=24),
    "rtx-4090":  Device(name="rtx-4090",  kind="cuda", tflops={"fp32": 82.6, "tf32": 82.6,  "fp16": 165,   "bf16": 165},  tb_per_s=1.008, memory_gb=24),
    "a100":      Device(name="a100",      kind="cuda", tflops={"fp32": 19.5, "tf32": 156,   "fp16": 312,   "bf16": 312},  tb_per_s=1.555, memory_gb=40),
    "a100-80gb": Device(name="a100-80gb", kind="cuda", tflops={"fp32": 19.5, "tf32": 156,   "fp16": 312,   "bf16": 312},  tb_per_s=2.039, memory_gb=80),
    "h100":      Device(name="h100",      kind="cuda", tflops={"fp32": 67,   "tf32": 494.7, "fp16": 989.4, "bf16": 989.4}, tb_per_s=3.35,  memory_gb=80),
    "h200":      Device(name="h200",      kind="cuda", tflops={"fp32": 67,   "tf32": 494.7, "fp16": 989.4, "bf16": 989.4}, tb_per_s=4.8,   memory_gb=141),
}
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Coefficients for one kind of device, and what they rest on.

    Attributes:
        time: Seconds per image for each feature of `time_features`.
        memory: Bytes for each feature of `memory_features`.
        time_error: Median and largest relative error of leave-one-out.
        memory_error: The same of the memory.
        source: What was measured, when, on what, by which command.
    """

    time: tuple[float, float, float]
    memory: tuple[float, float]
    time_error: tuple[float, float]
    memory_error: tuple[float, float]
    source: str


FITS: dict[str, Fit] = {
    "cpu": Fit(
        time=(21.547, 444.25, 0.00074063),
        memory=(1.4317, 8.0388e7),
        time_error=(0.163, 0.597),
        memory_error=(0.033, 0.117),
        source="twenty trainings on one and two threads of a quiet AVX2 machine, 32 to 256 px"
        " (benchmarks/fit_plan.py fit benchmarks/plan_cpu.jsonl, 2026-11-22)",
    ),
    "cuda": Fit(
        time=(2.59, 1.4845, 0.000332),
        memory=(0.806, 1.152e9),
        time_error=(0.09, 0.30),
        memory_error=(0.0453, 0.3451),
        source="not measured with this code: published figures of the official code on V100 and A100 in mixed precision, carried over by"
        " peak arithmetic and bandwidth (benchmarks/fit_plan.py fit --published, 2026-11-22)",
    ),
}


def time_features(
    config: TrainConfig, device: Device, *, size: int, channels: int, c_dim: int = 0, batch_gpu: int, precision: str, threads: int = 1
) -> tuple[float, float, float]:
    """What one image of a training step costs.

    Args:
        config: Settings.
        device: The device.
        size: Side of the images in pixels.
        channels: 1 or 3.
        c_dim: Classes.
        batch_gpu: Images at a time on one device.
        precision: fp32, tf32, bf16, or fp16 for the official code's mixed precision.
        threads: Threads of a CPU, over which arithmetic and traffic divide.

    Returns:
        Seconds of arithmetic at the device's peak, seconds of memory traffic at its peak (for a CPU TFLOP and TB per
        thread), and calls of layers.
    """
    arithmetic = traffic = calls = 0.0
    networks = (cost.generator, cost.discriminator)
    first_half = _first_half(size, precision)
    # What is not in two bytes: the official code's float32 is exact, medgan's beside bfloat16 is TF32.
    rest = {"fp16": "fp32", "bf16": "tf32"}.get(precision, precision)
    for formula, passes in zip(networks, cost.passes(config), strict=True):
        network = formula(config, size=size, channels=channels, c_dim=c_dim)
        for level in network.levels:
            half = level.resolution >= first_half
            peak = device.tflops[precision if half else rest]
            arithmetic += passes * level.flops / peak
            traffic += passes * level.elements * (2 if half else 4)
            calls += passes * level.layers / batch_gpu
    # Adam reads and writes four values per parameter, the average of G two.
    for formula, interval in zip(networks, (config.g_reg_interval, config.d_reg_interval), strict=True):
        updates = 1 + (1 / interval if interval else 0)
        traffic += 4 * 8 * updates * formula(config, size=size, channels=channels, c_dim=c_dim).parameters / config.batch
    if config.augment != "none":
        # Fakes twice and reals, with a backward pass in Gmain.
        traffic += 5 * 4 * AUGMENT_ELEMENTS * channels * size * size
    share = threads if device.kind == "cpu" else 1
    return arithmetic / 1e12 / share, traffic / 1e12 / device.tb_per_s / share, calls


def memory_features(
    config: TrainConfig, device: Device, *, size: int, channels: int, c_dim: int = 0, batch_gpu: int, precision: str = "fp32"
) -> tuple[float, float, float]:
    """What a training holds: bytes that are known (weights, gradients, moments; on a CPU the process itself), bytes of activations at the peak, and 1 (the rest).

    The peak is the largest of the phases: Gmain keeps both networks' activations, R1 those of D three times (its second
    derivative), the path length those of G three times on half the batch.
    """
    networks = [formula(config, size=size, channels=channels, c_dim=c_dim) for formula in (cost.generator, cost.discriminator)]
    first_half = _first_half(size, precision)
    in_G, in_D = (sum(level.elements * (2 if level.resolution >= first_half else 4) for level in network.levels) for network in networks)
    G, D = (network.values for network in networks)
    fixed = 4 * (5 * G + 4 * D + max(G, D)) + (HOST_BASE if device.kind == "cpu" else 0)
    phases = [in_G + in_D]
    if config.d_reg_interval:
        phases.append(3 * in_D)
    if config.pl_weight and config.g_reg_interval:
        phases.append(3 * in_G // 2)
    return float(fixed), float(batch_gpu * max(phases)), 1.0


def _first_half(size: int, precision: str) -> int:
    """The lowest resolution whose features take two bytes a value; beyond `size` where none do."""
    if precision == "fp16":
        return max(2 ** (size.bit_length() - HALF_RESOLUTIONS), 8)
    return 8 if precision == "bf16" else size + 1


def combine(features: Sequence[float], coefficients: Sequence[float]) -> float:
    """The sum of features times coefficients."""
    return sum(f * c for f, c in zip(features, coefficients, strict=True))


def nearest(name: str, memory_gb: float) -> tuple[Device, bool]:
    """The class of a GPU by its name, e.g. `NVIDIA A100-SXM4-80GB`, and whether it is known; else the class of the nearest memory."""
    words = name.lower().replace(" ", "-")
    if "a100" in words:
        return DEVICES["a100-80gb" if memory_gb > 60 else "a100"], True
    for known in ("h200", "h100", "v100", "rtx-4090", "rtx-3090"):
        if known in words:
            return DEVICES[known], True
    if words.endswith("-t4"):
        return DEVICES["t4"], True
    gpus = [device for device in DEVICES.values() if device.kind == "cuda"]
    return min(gpus, key=lambda device: abs(device.memory_gb - memory_gb)), False
