"""How fast does `medgan prepare` cut scans, against only reading the same files? One JSON line.

    python benchmarks/bench_data_prepare.py [--scans 16] [--size 512] [--slices 64] [--workers 1 2] [--repeats 3]

The scans are compressed NIfTI CTs made of smooth tissue and noise. The floor reads and decompresses every file in one process and does nothing with it. Sides are measured
in turn within one run, since times on a shared machine are not steady; the first run of each side is a warm-up. --tiny is for tests.
"""

import argparse
import gzip
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import nibabel  # noqa: E402
import numpy as np  # noqa: E402

from medgan.data.prepare import PrepareConfig, prepare  # noqa: E402
from medgan.runs import commit  # noqa: E402


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
    parser.add_argument("--scans", type=int, default=16)
    parser.add_argument("--side", type=int, default=512, help="pixels of a scan's slice")
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--size", type=int, default=512, help="pixels of an image")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    if args.tiny:
        args.scans, args.side, args.slices, args.size, args.workers, args.repeats = 2, 64, 4, 32, [1], 1
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "in"
        folder.mkdir()
        size = write_scans(folder, args.scans, args.side, args.slices)

        def timed(name: str, action) -> None:
            started = time.perf_counter()
            action()
            seconds.setdefault(name, []).append(time.perf_counter() - started)

        for _ in range(args.repeats + 1):
            timed("read", lambda: read_only(folder))
            for workers in dict.fromkeys(args.workers):
                config = PrepareConfig(mask_label=-1, size=args.size, workers=workers)
                timed(f"workers {workers}", lambda config=config: prepare(config, folder, Path(place) / "out.zip"))
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    print(
        json.dumps(
            {
                "question": f"prepare {args.scans} CTs of {args.side} x {args.side} x {args.slices} to {args.size} px",
                "unit": "scans/s",
                "scans_per_second": {name: round(args.scans / value, 3) for name, value in medians.items()},
                "mb_per_second": {name: round(size / 1e6 / value, 1) for name, value in medians.items()},
                "slices_per_second": {name: round(args.scans * args.slices / value, 1) for name, value in medians.items()},
                "times_the_floor": {name: round(value / medians["read"], 1) for name, value in medians.items() if name != "read"},
                "all_seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
                "device": f"cpu, {os.cpu_count()} cores",
                "commit": commit()[:9],
                "date": time.strftime("%Y-%m-%d"),
            }
        )
    )


if __name__ == "__main__":
    main()
