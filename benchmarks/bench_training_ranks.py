"""How well do several ranks on one machine share a batch? JSON lines; some minutes.

    python benchmarks/bench_training_ranks.py [--size 64] [--preset quick] [--kimg 0.128] [--ranks 2] [--repeats 3]

Sides, each a `medgan train` of its own, in turn: one rank with one thread; N ranks with one thread each and the same batch; one rank with N threads. The efficiency is the time of one rank with one
thread, over N times that of the side. Times are those of the last tick (the first step is a tick of its own): no start, no metrics. Peak memory is that of the largest process. --tiny is for tests.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from rows import rounded, row, show

from medgan.runs import STATS, read_json_lines


def train(data: Path, out: Path, args: argparse.Namespace, *, ranks: int, threads: int) -> tuple[float, int]:
    """Seconds per thousand images of one training, and the peak memory of the largest of its processes, in bytes."""
    words = ["--data", str(data), "--out", str(out), "--resume", "new", "--preset", args.preset, "--gpus", str(ranks), "--metrics", ""]
    words += ["--kimg", str(args.kimg), "--tick-kimg", str(args.kimg), "--augment", "fixed", "--augment-p", "0.2"]
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "MEDGAN_DEVICE": "cpu"}
    process = subprocess.Popen(
        [sys.executable, "-m", "medgan", "train", *words], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(said.decode())
    return float(read_json_lines(out / STATS)[-1]["sec_per_kimg"]), 1024 * usage.ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--kimg", type=float, default=0.128)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    if args.tiny:
        args.size, args.preset, args.kimg, args.repeats = 32, "demo", 0.008, 1
    n = args.ranks
    sides = {"1 rank, 1 thread": (1, 1), f"{n} ranks, 1 thread each": (n, 1), f"1 rank, {n} threads": (1, n)}
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in sides}
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        data.mkdir()
        for i in range(16):
            Image.fromarray(random.integers(0, 256, (args.size, args.size), dtype=np.uint8)).save(data / f"{i}.png")
        for _ in range(args.repeats):
            for name, (ranks, threads) in sides.items():
                found[name].append(train(data, Path(place) / "run", args, ranks=ranks, threads=threads))
    medians = {name: statistics.median(seconds for seconds, _ in values) for name, values in found.items()}
    alone = next(iter(medians.values()))
    for name, values in found.items():
        used = max(sides[name])
        answer = row(
            f"training on several ranks, {args.size} px, preset {args.preset}: {name}",
            medians[name],
            "s/kimg",
            efficiency=rounded(alone / (used * medians[name]), 3),
            all=[rounded(seconds) for seconds, _ in values],
            peak_bytes=max(held for _, held in values),
        )
        show(answer)


if __name__ == "__main__":
    main()
