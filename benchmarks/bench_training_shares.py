"""Where does the time of a training step go? The share of each phase that PyTorch spends in convolutions, and its five longest operations; JSON lines, some minutes.

    python benchmarks/bench_training_shares.py [--sizes 64 256] [--batch 4] [--channel-base 16384] [--p 0.2]

By torch's own profiler on a CPU, the second run of each phase. What is left beside the convolutions bounds what any further change around them can gain: nine tenths in them
leave a ninth. The batch is halved with each size after the first. --tiny is for tests.
"""

from __future__ import annotations

import argparse

from phases import Phases
from rows import rounded, row, show
from sides import PHASES
from torch.profiler import ProfilerActivity, profile

from medgan import machine


def measure(size: int, batch: int, args: argparse.Namespace) -> None:
    """The rows of one image size."""
    phases = Phases(size=size, batch=batch, channel_base=args.channel_base, device="cpu", p=args.p, precision="fp32")
    for phase in PHASES:
        phases.run(phase)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            phases.run(phase)
        seconds = {event.key: event.self_cpu_time_total / 1e6 for event in seen.key_averages()}
        longest = sorted(seconds, key=seconds.__getitem__, reverse=True)[:5]
        total = sum(seconds.values())
        answer = row(
            f"share of convolutions, {size} px, batch {batch}, channel base {args.channel_base}, ADA p {args.p:g}: {phase}",
            sum(value for name, value in seconds.items() if "conv" in name.lower()) / total,
            "of the time",
            seconds=rounded(total),
            longest={name: rounded(seconds[name] / total, 2) for name in longest},
        )
        show(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--channel-base", type=int, default=16384)
    parser.add_argument("--p", type=float, default=0.2, help="of ADA")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    if args.tiny:
        args.sizes, args.batch, args.channel_base = [32], 2, 512
    machine.keep_freed_memory()
    for i, size in enumerate(args.sizes):
        measure(size, max(args.batch // 2**i, 1), args)


if __name__ == "__main__":
    main()
