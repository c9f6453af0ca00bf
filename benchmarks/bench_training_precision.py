"""Does the FID curve of a training in bfloat16 stay with that of one in float32? JSON lines; a quarter of an hour where bfloat16 is emulated.

    python benchmarks/bench_training_precision.py [--size 32] [--preset demo] [--kimg 2] [--snapshots 4] [--images 512] [--precisions fp32 bf16]

Real trainings on made-up images (discs that wander, grow and fade), from the same weights, in the same order: in each precision with the same seed, and once more in the first with another seed, which
is the yardstick. Prints a line for each with its FIDs; the value is the largest distance of its curve from the first one's, relative to it, the network of the first step left out. --tiny is for tests.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from rows import rounded, row, show

from medgan.commands.training_run import run_training
from medgan.data.dataset import open_dataset
from medgan.runs import EVALUATIONS, STATS, read_json_lines
from medgan.training.config import TrainConfig, preset


def discs(folder: Path, count: int, size: int) -> None:
    """Bright discs of random place, radius and brightness, on noise."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    for i in range(count):
        cx, cy, r, light = random.uniform((0.3, 0.3, 0.1, 100), (0.7, 0.7, 0.3, 220))
        picture = 40 + light * ((x - cx) ** 2 + (y - cy) ** 2 < r**2) + random.normal(0, 6, (size, size))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{i:04d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--kimg", type=float, default=2.0)
    parser.add_argument("--snapshots", type=int, default=4)
    parser.add_argument("--images", type=int, default=512, help="of the set, and generated for each FID")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    if args.tiny:
        args.kimg, args.snapshots, args.images = 0.008, 1, 4
    base = preset(args.preset, size=args.size)
    base = replace(
        base, kimg=args.kimg, tick_kimg=args.kimg / args.snapshots, snapshot_ticks=1, metrics=("fid",), metric_images=args.images
    )
    first = replace(base, precision=args.precisions[0])
    runs: dict[str, TrainConfig] = {name: replace(base, precision=name) for name in args.precisions}
    runs[f"{args.precisions[0]}, another seed"] = replace(first, seed=1)
    curves: dict[str, list[float]] = {}
    seconds = {}
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        data.mkdir()
        discs(data, args.images, args.size)
        for name, config in runs.items():
            out = Path(place) / name
            run_training(config, open_dataset(data), out, resume="new")
            curves[name] = [float(line["metrics"]["fid"]["value"]) for line in read_json_lines(out / EVALUATIONS)][1:]
            seconds[name] = float(read_json_lines(out / STATS)[-1]["sec_per_kimg"])
    reference = np.array(next(iter(curves.values())))
    for name, curve in curves.items():
        far = float(np.abs(np.array(curve) / reference - 1).max())
        about = f"FID curve of {args.kimg:g} kimg at {args.size} px, preset {args.preset}, {args.images} images: {name}"
        show(
            row(about, far, f"of the FID in {args.precisions[0]}", fid=[rounded(value) for value in curve], seconds_per_kimg=seconds[name])
        )


if __name__ == "__main__":
    main()
