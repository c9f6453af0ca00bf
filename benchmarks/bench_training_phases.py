"""Each phase of a training step, and a step on average: with the operations as defined and the allocator as it comes, with the allocator set, as medgan does it, and in bfloat16.

    python benchmarks/bench_training_phases.py [--sizes 64 128 256] [--batch 8] [--repeats 3] [--p 0.2] [--official PATH] [--bf16] [--device cpu] [--clock cpu]

Sides, their processes and --official are those of bench_sampling_images.py; the batch is halved with each size after the first. Weights, images and latents are the same; images, logits and the
gradients of all four phases are compared before anything is timed. Phases take turns side by side. A JSON line for each side, with the amortised step (Gmain + Greg / 4 + Dmain + Dreg / 16), the
phases, and two ratios: to the first side (as shipped), and to the same with medgan's allocator setting. Losses are medgan's on all sides, and so is the augmentation. --tiny is for tests.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

from bench_sampling_images import arguments, sides_of
from rows import rounded, row, show
from sides import PHASES, Worker, apart, in_turn

WEIGHTS = {"Gmain": 1.0, "Greg": 1 / 4, "Dmain": 1.0, "Dreg": 1 / 16}


def measure(size: int, batch: int, args: argparse.Namespace) -> None:
    """The rows of one image size."""
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(what)) for name, what in sides_of(args, size, batch, p=args.p).items()}
        differences = apart(workers, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        measured = {phase: in_turn(workers, phase, repeats=args.repeats) for phase in PHASES}
    steps = {name: sum(WEIGHTS[phase] * measured[phase][name].median for phase in PHASES) for name in workers}
    peer = "official" if args.official else "plain"
    for name, step in steps.items():
        sides = {phase: measured[phase][name] for phase in PHASES}
        answer = row(
            f"amortised training step, {size} px, batch {batch}, channel base {args.channel_base}, ADA p {args.p:g}: {name}",
            step / batch * 1000,
            "s/kimg",
            ratio=rounded(steps[f"{peer} as shipped"] / step, 3),
            ratio_allocator_equal=rounded(steps[f"{peer}, allocator equal"] / step, 3),
            phases={phase: rounded(side.median) for phase, side in sides.items()},
            apart=differences[name],
            all={phase: [rounded(seconds, 3) for seconds in side.seconds] for phase, side in sides.items()},
            clock=args.clock,
            gpu_memory_mb=round(max(side.device_bytes for side in sides.values()) / 1e6),
            peak_bytes=max(side.peak_bytes for side in sides.values()),
            device=args.device,
        )
        show(answer)


def main() -> None:
    parser = arguments(__doc__, batch=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--p", type=float, default=0.2, help="of ADA")
    args = parser.parse_args()
    if args.tiny:
        args.sizes, args.batch, args.channel_base, args.repeats = [32], 4, 256, 1
    for i, size in enumerate(args.sizes):
        measure(size, max(args.batch // 2**i, 2), args)


if __name__ == "__main__":
    main()
