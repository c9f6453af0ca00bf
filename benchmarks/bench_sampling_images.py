"""Seconds per generated image: with the operations as defined and the allocator as it comes, with the allocator set, as medgan does it, and in bfloat16.

    python benchmarks/bench_sampling_images.py [--size 256] [--batch 4] [--channel-base 16384] [--repeats 5] [--official PATH] [--bf16] [--device cpu] [--clock cpu]

Each side is a process of its own; they take turns. A JSON line for each, with its ratio to the first side, and how far its images are from that side's. --official adds a
checkout of the StyleGAN3 repository that you bring, as shipped and with medgan's allocator setting, in place of the plain sides. bfloat16 is left out where the device does not compute it, unless --bf16. --tiny
is for tests.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

from rows import rounded, row, show
from sides import What, Worker, apart, check_official, in_turn


def sides_of(args: argparse.Namespace, size: int, batch: int, *, p: float = 0.0) -> dict[str, What]:
    """The sides that take turns; the first is what the others are compared with."""
    import torch

    from medgan import machine

    what = What(size=size, batch=batch, channel_base=args.channel_base, device=args.device, clock=args.clock, p=p)
    if args.official:
        check_official(args.official)
        peer, name = replace(what, official=args.official), "official"
    else:
        peer, name = replace(what, operations="plain"), "plain"
    found = {f"{name} as shipped": replace(peer, allocator="system"), f"{name}, allocator equal": peer, "medgan fp32": what}
    if args.device != "cpu":
        found["medgan tf32"] = replace(what, precision="tf32")
    if args.bf16 or machine.computes_bf16(torch.device(args.device)):
        found["medgan bf16"] = replace(what, precision="bf16")
    return found


def arguments(description: str | None, *, batch: int) -> argparse.ArgumentParser:
    """The options that comparisons of sides share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--channel-base", type=int, default=16384)
    parser.add_argument("--official", default="", metavar="PATH", help="a checkout of the StyleGAN3 repository")
    parser.add_argument("--bf16", action="store_true", help="measure bfloat16 even where it is emulated")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu counts the process's own seconds: for a busy machine")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    return parser


def main() -> None:
    parser = arguments(__doc__, batch=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.tiny:
        args.size, args.batch, args.channel_base, args.repeats = 32, 2, 256, 1
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(what)) for name, what in sides_of(args, args.size, args.batch).items()}
        differences = apart(workers, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        measured = in_turn(workers, "sample", repeats=args.repeats)
    first = next(iter(measured.values())).median
    for name, side in measured.items():
        answer = row(
            f"sampling, {args.size} px, groups of {args.batch}, channel base {args.channel_base}: {name}",
            side.median / args.batch,
            "s/image",
            ratio=rounded(first / side.median, 3),
            images_apart=differences[name]["images"],
            all=[rounded(seconds / args.batch, 3) for seconds in side.seconds],
            clock=args.clock,
            gpu_memory_mb=round(side.device_bytes / 1e6),
            peak_bytes=side.peak_bytes,
            device=args.device,
        )
        show(answer)


if __name__ == "__main__":
    main()
