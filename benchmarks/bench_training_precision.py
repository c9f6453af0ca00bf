"""Does the FID curve of a training in bfloat16 stay with that of one in float32? JSON lines; a quarter of an hour where bfloat16 is emulated.

    python benchmarks/bench_training_precision.py [--size 32] [--preset demo] [--kimg 1] [--snapshots 2] [--images 256] [--precisions fp32 bf16] [--seeds 2]

Real trainings on made-up images (discs that wander, grow and fade), in each precision from the same seeds: the same weights, images and draws. Two trainings drift apart from any difference however small, so a single
pair says little. Prints a line for each precision with the FIDs of its runs; the value is the largest distance of its mean curve from that of the first precision, relative to it, the network of the first
step left out. In the first line it is the yardstick: the largest distance of one of its runs from their mean. --tiny is for tests.
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
from medgan.training.config import preset


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
    parser.add_argument("--kimg", type=float, default=1.0)
    parser.add_argument("--snapshots", type=int, default=2)
    parser.add_argument("--images", type=int, default=256, help="of the set, and generated for each FID")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--seeds", type=int, default=2, help="runs in each precision")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    if args.tiny:
        args.kimg, args.snapshots, args.images = 0.008, 1, 4
    base = preset(args.preset, size=args.size)
    base = replace(
        base, kimg=args.kimg, tick_kimg=args.kimg / args.snapshots, snapshot_ticks=1, metrics=("fid",), metric_images=args.images
    )
    curves: dict[str, list[list[float]]] = {}
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        data.mkdir()
        discs(data, args.images, args.size)
        for name in args.precisions:
            for seed in range(args.seeds):
                out = Path(place) / f"{name}-{seed}"
                run_training(replace(base, precision=name, seed=seed), open_dataset(data), out, resume="new")
                measured = [float(line["metrics"]["fid"]["value"]) for line in read_json_lines(out / EVALUATIONS)]
                curves.setdefault(name, []).append(measured[1:])
                seconds.setdefault(name, []).append(float(read_json_lines(out / STATS)[-1]["sec_per_kimg"]))
    means = {name: np.mean(found, axis=0) for name, found in curves.items()}
    reference = means[args.precisions[0]]
    for name, found in curves.items():
        # The first precision's own runs are the yardstick.
        compared = np.array(found) if name == args.precisions[0] else means[name]
        about = (
            f"FID curves of {args.kimg:g} kimg at {args.size} px, preset {args.preset}, {args.images} images: {len(found)} runs in {name}"
        )
        show(
            row(
                about,
                float(np.abs(compared / reference - 1).max()),
                f"of the mean FID in {args.precisions[0]}",
                fid=[[rounded(value) for value in curve] for curve in found],
                seconds_per_kimg=rounded(float(np.median(seconds[name]))),
            )
        )


if __name__ == "__main__":
    main()
