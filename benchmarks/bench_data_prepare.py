"""How fast does `medgan prepare` cut scans, against only reading the same files? JSON lines, about two minutes.

    python benchmarks/bench_data_prepare.py [--scans 8] [--size 512] [--slices 64] [--workers 1 2] [--repeats 3]

The scans are compressed NIfTI CTs made of smooth tissue and noise. The floor reads and decompresses every file in one process and does nothing with it. Sides are measured
in turn within one run, since times on a shared machine are not steady; the first run of each side is a warm-up. --tiny is for tests.
"""

import argparse
import gzip
import os
import resource
import tempfile
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import nibabel  # noqa: E402
import numpy as np  # noqa: E402
from rows import in_turn, rounded, row, show  # noqa: E402

from medgan.data.prepare import PrepareConfig, prepare  # noqa: E402


def write_scans(folder: Path, count: int, side: int, slices: int) -> int:
    """CTs of count patients; returns their bytes on disk."""
    x, y = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
    for i in range(count):
        rng = np.random.default_rng(i)
        volume = np.full((side, side, slices), -1000.0, np.float32)
        body = x**2 + (y * 1.3) ** 2 < 0.8
        volume[body] = (40 + 60 * np.sin(7 * x + i) * np.cos(5 * y))[body, None] + rng.normal(0, 12, (int(body.sum()), slices))
        nibabel.save(nibabel.Nifti1Image(volume.astype(np.int16), np.diag([0.8, 0.8, 2.5, 1])), folder / f"{i:04d}.nii.gz")
    return sum(file.stat().st_size for file in folder.iterdir())


def read_only(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        with gzip.open(file) as stream:
            while stream.read(2**22):
                pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scans", type=int, default=8)
    parser.add_argument("--side", type=int, default=512, help="pixels of a scan's slice")
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--size", type=int, default=512, help="pixels of an image")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    if args.tiny:
        args.scans, args.side, args.slices, args.size, args.workers, args.repeats = 2, 64, 4, 32, [1], 1
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "in"
        folder.mkdir()
        size = write_scans(folder, args.scans, args.side, args.slices)

        def cut(workers: int) -> None:
            prepare(PrepareConfig(mask_label=-1, size=args.size, workers=workers), folder, Path(place) / "out.zip")

        sides = in_turn(
            {"only read": lambda: read_only(folder)}
            | {f"workers {workers}": (lambda workers=workers: cut(workers)) for workers in dict.fromkeys(args.workers)},
            repeats=args.repeats,
        )
    about = f"prepare {args.scans} CTs of {args.side} x {args.side} x {args.slices} to {args.size} px"
    # Of the largest process that prepare has started.
    worker = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    for name, side in sides.items():
        answer = row(
            f"{about}: {name}",
            args.scans / side.median,
            "scans/s",
            mb_per_second=rounded(size / 1e6 / side.median),
            slices_per_second=rounded(args.scans * args.slices / side.median),
            times_the_floor=rounded(side.median / sides["only read"].median),
            all_seconds=[rounded(value) for value in side.seconds],
            largest_worker_mb=round(worker / 1e6),
            peak_bytes=side.peak_bytes,
        )
        show(answer)


if __name__ == "__main__":
    main()
