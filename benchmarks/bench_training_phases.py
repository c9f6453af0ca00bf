"""Each phase of a training step, and a step on average, with the fast operations and with the plain ones, in turn.

    python benchmarks/bench_training_phases.py [--size 64] [--batch 8] [--channel-base 16384] [--repeats 3] [--device cpu] [--p 0.2]

Prints one JSON line for each phase and one for the amortised step (Gmain + Greg / 4 + Dmain + Dreg / 16). Both sides start from the same
weights, images and draws; the losses' gradients are compared before anything is timed. The allocator's setting is the same on both sides
(for that see bench_training_step.py).
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import rows
import torch
from plain import plain_operations
from torch import Tensor

from medgan import machine
from medgan.training.augment import Augment
from medgan.training.config import PIPES, TrainConfig
from medgan.training.state import State, build
from medgan.training.statistics import Collector
from medgan.training.step import PHASES, Step

SIDES: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {"plain": plain_operations, "fast": contextlib.nullcontext}


class Phases:
    """The phases of one step, each to be run alone, as often as one likes.

    Args:
        size: Image side in pixels.
        batch: Images.
        channel_base: Of both networks.
        p: Of the augmentation.
        device: Where.
    """

    def __init__(self, *, size: int, batch: int, channel_base: int, p: float, device: str) -> None:
        self.config = TrainConfig(batch=batch, channel_base=channel_base, augment="ada" if p else "none")
        self.state: State = build(self.config, size=size, channels=1, c_dim=0, device=torch.device(device))
        augment = Augment(PIPES["bgc"], p)
        self.step = Step(self.state, self.config, augment, gamma=10.0, collect=Collector(), labels=lambda n: None)
        self.z = torch.randn(batch, self.config.latent).to(device)
        self.real = torch.rand(batch, 1, size, size).to(device) * 2 - 1

    def backward(self, phase: str) -> None:
        """Gradients of one phase, with the same draws every time."""
        torch.manual_seed(0)
        generator = phase.startswith("G")
        self.state.G.requires_grad_(generator)
        self.state.D.requires_grad_(not generator)
        if phase == "Gmain":
            self.step._generator_main(self.z)
        elif phase == "Greg":
            self.step._generator_path_length(self.z, None)
        elif phase == "Dmain":
            self.step._discriminator_main(self.z, self.real, None)
        else:
            self.step._discriminator_r1(self.real, None)

    def gradients(self, phase: str) -> Tensor:
        """All gradients of a phase as one vector; they are forgotten after."""
        self.backward(phase)
        network = self.state.G if phase.startswith("G") else self.state.D
        found = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        network.zero_grad(set_to_none=True)
        return found

    def run(self, phase: str) -> None:
        """A phase with its Adam step."""
        self.backward(phase)
        if phase.startswith("G"):
            self.step._update(self.state.G_opt, self.state.G)
        else:
            self.step._update(self.state.D_opt, self.state.D)


def compared(phases: Phases) -> Iterator[float]:
    """How far apart the gradients of both sides are, relative to their norm, phase by phase."""
    for phase in PHASES:
        with plain_operations():
            plain = phases.gradients(phase)
        yield float((phases.gradients(phase) - plain).norm() / plain.norm())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channel-base", type=int, default=16384)
    parser.add_argument("--p", type=float, default=0.2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu counts the process's own seconds: for a busy machine")
    parser.add_argument("--tiny", action="store_true", help="only see that it runs")
    args = parser.parse_args()
    if args.tiny:
        args.size, args.batch, args.channel_base, args.repeats = 32, 2, 256, 1
    machine.keep_freed_memory()
    machine.set_precision("fp32")
    phases = Phases(size=args.size, batch=args.batch, channel_base=args.channel_base, p=args.p, device=args.device)
    differences = dict(zip(PHASES, compared(phases), strict=True))
    question = f"{{}}, {args.size} px, batch {args.batch}, channel base {args.channel_base}, ADA p {args.p:g}"
    clock = time.process_time if args.clock == "cpu" else time.perf_counter

    def side(name: str, phase: str) -> Callable[[], None]:
        def run() -> None:
            with SIDES[name]():
                phases.run(phase)

        return run

    medians = {name: dict.fromkeys(PHASES, 0.0) for name in SIDES}
    most = dict.fromkeys(SIDES, 0)
    for phase in PHASES:
        measured = rows.in_turn({name: side(name, phase) for name in SIDES}, repeats=args.repeats, clock=clock, device=args.device)
        for name, result in measured.items():
            medians[name][phase] = result.median
            most[name] = max(most[name], result.device_bytes or result.peak_bytes)
        fast, plain = measured["fast"], measured["plain"]
        rows.show(
            rows.row(
                question.format(phase),
                fast.median,
                "s",
                peak_bytes=fast.peak_bytes,
                device=args.device,
                plain=rows.rounded(plain.median),
                plain_peak_memory_mb=round(plain.peak_bytes / 1e6),
                ratio=rows.rounded(plain.median / fast.median, 3),
                gradients_apart=rows.rounded(differences[phase], 2),
                clock=args.clock,
                all={name: [rows.rounded(s, 3) for s in result.seconds] for name, result in measured.items()},
            )
        )
    config = phases.config
    weights = {"Gmain": 1.0, "Greg": 1 / config.g_reg_interval, "Dmain": 1.0, "Dreg": 1 / config.d_reg_interval}
    total = {name: sum(weights[phase] * seconds for phase, seconds in found.items()) for name, found in medians.items()}
    rows.show(
        rows.row(
            question.format("amortised step"),
            total["fast"] / args.batch * 1000,
            "s/kimg",
            peak_bytes=most["fast"],
            device=args.device,
            plain=rows.rounded(total["plain"] / args.batch * 1000),
            plain_peak_memory_mb=round(most["plain"] / 1e6),
            ratio=rows.rounded(total["plain"] / total["fast"], 3),
            clock=args.clock,
        )
    )


if __name__ == "__main__":
    main()
