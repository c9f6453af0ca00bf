"""Milliseconds of the augmentations, forward and backward, and of one look of the watch at a snapshot.

    python benchmarks/bench_training_augment.py [--size 256] [--batch 4] [--channels 1] [--repeats 10] [--device cpu]

Prints a JSON line for each pipeline and probability, and one for the watch. The sides run in turn, so that a busy machine is busy for all of them. --tiny is for tests.
"""

from __future__ import annotations

import argparse

import torch
from rows import in_turn, rounded, row, show

from medgan.training import alarms
from medgan.training.augment import Augment
from medgan.training.config import DIFFAUGMENT, PIPES
from medgan.training.diffaugment import DiffAugment


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    if args.tiny:
        args.size, args.batch, args.repeats = 32, 2, 1
    images = torch.rand(args.batch, args.channels, args.size, args.size, device=args.device).requires_grad_()
    samples = torch.rand(64, args.channels, args.size, args.size, device=args.device)
    pipes: dict[str, torch.nn.Module] = {f"bgc, p {p:g}": Augment(PIPES["bgc"], p=p) for p in (0.0, 0.2, 0.6, 1.0)}
    pipes |= {"anatomy, p 0.6": Augment(PIPES["anatomy"], p=0.6), "diffaugment": DiffAugment(DIFFAUGMENT)}

    def augment(name: str) -> None:
        torch.manual_seed(0)
        pipes[name](images).square().sum().backward()
        images.grad = None

    def look() -> None:
        pairs = alarms.distances(alarms.thumbnails(samples))
        alarms.mean_distance(pairs), alarms.nearest_distance(pairs)

    sides = in_turn(
        {name: (lambda name=name: augment(name)) for name in pipes} | {"watch, diversity of 64 samples": look},
        repeats=args.repeats,
        device=args.device,
    )
    for name, side in sides.items():
        about = f"{args.batch} x {args.channels} x {args.size} px, forward and backward: " if name in pipes else ""
        answer = row(
            f"augmentation, {about}{name}" if name in pipes else f"{name}, {args.size} px",
            1000 * side.median,
            "ms",
            all=[rounded(1000 * value) for value in side.seconds],
            gpu_memory_mb=round(side.device_bytes / 1e6),
            peak_bytes=side.peak_bytes,
            device=args.device,
        )
        show(answer)


if __name__ == "__main__":
    main()
