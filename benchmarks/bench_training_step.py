"""Seconds per thousand images of the demo's training, with the allocator keeping freed memory and without, in turn.

    python benchmarks/bench_training_step.py [--repeats 3] [--preset demo] [--size 64]

Prints a JSON line for each side. The allocator's setting belongs to a process, so each measurement runs in one of its own. --tiny is for tests.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rows import peak, rounded, row, show

WORKER = "--worker"


def measure(preset_name: str, size: int, kimg: float) -> float:
    """Seconds per kimg of a training on noise, without snapshots' metrics; the first tick is a warm-up."""
    from dataclasses import replace

    import numpy as np
    from PIL import Image

    from medgan import machine
    from medgan.data.dataset import open_dataset
    from medgan.runs import STATS, read_json_lines
    from medgan.training.config import preset
    from medgan.training.loop import train

    machine.keep_freed_memory()
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        for i in range(16):
            Image.fromarray(random.integers(0, 256, (size, size), dtype=np.uint8)).save(data / f"{i}.png")
        config = replace(preset(preset_name, size=size), kimg=kimg, tick_kimg=kimg / 2, metrics=(), augment="fixed", augment_p=0.2)
        train(config, open_dataset(data), Path(folder) / "run")
        rows = read_json_lines(Path(folder) / "run" / STATS)
    return float(rows[-1]["sec_per_kimg"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--kimg", type=float, default=0.256)
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    parser.add_argument(WORKER, action="store_true")
    args = parser.parse_args()
    if args.tiny:
        args.repeats, args.size, args.kimg = 1, 32, 0.016
    if args.worker:
        print(json.dumps([measure(args.preset, args.size, args.kimg), peak()[0]]))
        return
    found: dict[str, list[tuple[float, int]]] = {"kept": [], "system": []}
    for _ in range(args.repeats):
        for side, values in found.items():
            env = os.environ | ({"MEDGAN_MALLOC": "system"} if side == "system" else {})
            words = [sys.executable, __file__, WORKER, "--preset", args.preset, "--size", str(args.size), "--kimg", str(args.kimg)]
            values.append(tuple(json.loads(subprocess.run(words, env=env, check=True, capture_output=True, text=True).stdout)))
    medians = {side: statistics.median(seconds for seconds, _ in values) for side, values in found.items()}
    for side, values in found.items():
        answer = row(
            f"training at {args.size} px, preset {args.preset}: allocator {'keeps freed memory' if side == 'kept' else 'as the system has it'}",
            medians[side],
            "s/kimg",
            ratio=rounded(medians["system"] / medians[side]),
            all=[rounded(seconds) for seconds, _ in values],
            peak_bytes=max(held for _, held in values),
        )
        show(answer)


if __name__ == "__main__":
    main()
