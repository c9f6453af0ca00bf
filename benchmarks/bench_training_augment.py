"""Milliseconds of the augmentations, forward and with backward, as medgan computes them and with the operations as defined; and of one look of the watch at a snapshot.

    python benchmarks/bench_training_augment.py [--sizes 64 128 256] [--batch 8] [--channels 1] [--repeats 10] [--device cpu] [--clock cpu]

Prints a JSON line for each size, pipeline, probability and direction, with the plain side and the ratio beside it, and one for the watch. The batch is halved with each size after
the first. All sides draw the same transformations, and their results are compared before anything is timed. They run in turn, so that a busy machine is busy for all of them. --tiny is for
tests.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable

import torch
from plain import plain_operations
from rows import in_turn, rounded, row, show

from medgan import machine
from medgan.training import alarms
from medgan.training.augment import Augment
from medgan.training.config import DIFFAUGMENT, PIPES
from medgan.training.diffaugment import DiffAugment

WAYS = {"": contextlib.nullcontext, "plain ": plain_operations}


def measure(size: int, batch: int, args: argparse.Namespace) -> None:
    """The rows of one image size."""
    images = torch.rand(batch, args.channels, size, size, device=args.device)
    pipes: dict[str, Augment | DiffAugment] = {f"bgc, p {p:g}": Augment(PIPES["bgc"], p=p) for p in (0.0, 0.2, 0.6, 1.0)}
    pipes |= {"anatomy, p 0.6": Augment(PIPES["anatomy"], p=0.6), "diffaugment": DiffAugment(DIFFAUGMENT)}

    def augment(name: str, *, backward: bool) -> torch.Tensor:
        torch.manual_seed(0)
        if not backward:
            with torch.no_grad():
                return pipes[name](images)
        x = images.requires_grad_()
        (gradient,) = torch.autograd.grad(pipes[name](x).square().sum(), x)
        images.requires_grad_(False)
        return gradient

    def side(name: str, way: str, backward: bool) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            with WAYS[way]():
                return augment(name, backward=backward)

        return run

    for backward in (False, True):
        sides = {f"{way}{name}": side(name, way, backward) for name in pipes for way in WAYS}
        clock = time.process_time if args.clock == "cpu" else time.perf_counter
        measured = in_turn(sides, repeats=args.repeats, clock=clock, device=args.device)
        for name in pipes:
            fast, plain = measured[name], measured[f"plain {name}"]
            answer = row(
                f"augmentation, {batch} x {args.channels} x {size} px, forward{' and backward' if backward else ''}: {name}",
                1000 * fast.median,
                "ms",
                plain=rounded(1000 * plain.median),
                ratio=rounded(plain.median / fast.median, 3),
                apart=rounded(float((fast.result - plain.result).abs().max() / plain.result.abs().max()), 2),
                clock=args.clock,
                all=[rounded(1000 * value, 3) for value in fast.seconds],
                plain_peak_memory_mb=round(plain.peak_bytes / 1e6),
                gpu_memory_mb=round(fast.device_bytes / 1e6),
                peak_bytes=fast.peak_bytes,
                device=args.device,
            )
            show(answer)


def watch(size: int, args: argparse.Namespace) -> None:
    """The row of the watch."""
    samples = torch.rand(64, args.channels, size, size, device=args.device)

    def look() -> None:
        pairs = alarms.distances(alarms.thumbnails(samples))
        alarms.mean_distance(pairs), alarms.nearest_distance(pairs)

    side = in_turn({"look": look}, repeats=args.repeats, device=args.device)["look"]
    show(row(f"watch, diversity of 64 samples, {size} px", 1000 * side.median, "ms", peak_bytes=side.peak_bytes, device=args.device))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu counts the process's own seconds: for a busy machine")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    if args.tiny:
        args.sizes, args.batch, args.repeats = [32], 2, 1
    machine.keep_freed_memory()
    for i, size in enumerate(args.sizes):
        measure(size, max(args.batch // 2**i, 1), args)
    watch(args.sizes[-1], args)


if __name__ == "__main__":
    main()
