"""Milliseconds of the augmentations, forward and backward, and of one look of the watch at a snapshot.

    python benchmarks/bench_training_augment.py [--size 256] [--batch 4] [--channels 1] [--repeats 10] [--device cpu]

Prints one JSON line. The sides run in turn, so that a busy machine is busy for all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from medgan.runs import commit
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
    parser.add_argument("--p", type=float, default=0.6)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    images = torch.rand(args.batch, args.channels, args.size, args.size, device=args.device).requires_grad_()
    samples = torch.rand(64, args.channels, args.size, args.size, device=args.device)
    sides = {
        "bgc": Augment(PIPES["bgc"], p=args.p),
        "anatomy": Augment(PIPES["anatomy"], p=args.p),
        "diffaugment": DiffAugment(DIFFAUGMENT),
    }

    def augment(name: str) -> None:
        sides[name](images).square().sum().backward()
        images.grad = None

    def look() -> None:
        pairs = alarms.distances(alarms.thumbnails(samples))
        alarms.mean_distance(pairs), alarms.nearest_distance(pairs)

    tasks = {name: (lambda name=name: augment(name)) for name in sides} | {"diversity_of_64": look}
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(args.repeats + 1):
        torch.manual_seed(turn)
        for name, task in tasks.items():
            _wait(args.device)
            start = time.perf_counter()
            task()
            _wait(args.device)
            # The first turn warms up.
            if turn:
                times[name].append(1000 * (time.perf_counter() - start))
    row = {
        "question": f"augmentation of {args.batch} x {args.channels} x {args.size} px at p {args.p:g}, forward and backward",
        "unit": "ms",
        **{name: round(statistics.median(values), 2) for name, values in times.items()},
        "device": args.device,
        "torch": torch.__version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(row))


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
