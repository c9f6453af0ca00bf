"""A plan measured instead of predicted: a few real steps of each kind on this machine, with synthetic images."""

from __future__ import annotations

import math
import resource
import time
from dataclasses import dataclass, replace

import torch

from medgan.training import state as states
from medgan.training.augment import Augment
from medgan.training.config import PIPES, TrainConfig
from medgan.training.diffaugment import DiffAugment
from medgan.training.statistics import Collector
from medgan.training.step import Step

# ADA's p moves; most of its cost is there as soon as p is not 0.
TYPICAL_P = 0.2


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What real steps took.

    Attributes:
        seconds_per_image: On one device, averaged over the steps with and without regularisers as a run has them.
        phases: Seconds of a step by kind: `main`, `main+path`, `main+r1`, `main+path+r1`.
        peak_bytes: Largest memory: of the GPU, or on a CPU of the whole process.
    """

    seconds_per_image: float
    phases: dict[str, float]
    peak_bytes: int


def kinds(config: TrainConfig) -> dict[str, tuple[int, float]]:
    """The kinds of steps of a run: name -> a step's number of that kind, and the kind's share of all steps."""
    path = config.g_reg_interval if config.pl_weight else 0
    r1 = config.d_reg_interval
    cycle = math.lcm(path or 1, r1 or 1)
    found: dict[str, list[int]] = {}
    for step in range(cycle):
        parts = ["main", *(["path"] if path and step % path == 0 else []), *(["r1"] if r1 and step % r1 == 0 else [])]
        found.setdefault("+".join(parts), []).append(step)
    return {name: (steps[0], len(steps) / cycle) for name, steps in found.items()}


def calibrate(
    config: TrainConfig, *, size: int, channels: int, c_dim: int = 0, device: torch.device, batch_gpu: int = 0, repeats: int = 2
) -> Calibration:
    """Time real steps and measure the peak of memory.

    One round of accumulation is run per step, so that a large batch costs no more than what is on the device at a time.

    Args:
        config: Settings.
        size: Side of the images in pixels.
        channels: 1 or 3.
        c_dim: Classes.
        device: Where to measure.
        batch_gpu: Images at a time; 0 is the config's.
        repeats: Steps of each kind that are timed, after one with every phase that is not.
    """
    n = batch_gpu or config.round_size
    gamma = config.r1_gamma(size)
    config = replace(config, batch=n, gpus=1, batch_gpu=0, mbstd_group=math.gcd(config.mbstd_group, n))
    state = states.build(config, size=size, channels=channels, c_dim=c_dim, device=device)
    augment: Augment | DiffAugment = Augment(PIPES[config.augment_pipe] if config.augment in ("ada", "fixed") else ())
    if config.augment == "diffaugment":
        augment = DiffAugment(config.diffaugment_policy)
    state.p = max(config.augment_p, TYPICAL_P) if config.augment == "ada" else config.augment_p

    def labels(count: int) -> torch.Tensor | None:
        return torch.eye(c_dim, device=device)[torch.randint(c_dim, (count,))] if c_dim else None

    step = Step(state, config, augment, gamma=gamma, collect=Collector(), labels=labels)
    real = torch.rand(n, channels, size, size).to(device) * 2 - 1

    def run(number: int) -> None:
        state.step = number
        step(real, labels(n), lambda phase: torch.randn(n, config.latent).to(device))
        states.update_average(state, config, images=n)

    phases = {}
    # Step 0 has every phase: what is made once (memory, kernels chosen) is made here.
    run(0)
    for name, (number, _) in kinds(config).items():
        _wait(device)
        started = time.perf_counter()
        for _ in range(repeats):
            run(number)
        _wait(device)
        phases[name] = (time.perf_counter() - started) / repeats
    seconds = sum(phases[name] * share for name, (_, share) in kinds(config).items())
    return Calibration(seconds_per_image=seconds / n, phases=phases, peak_bytes=_peak(device))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
