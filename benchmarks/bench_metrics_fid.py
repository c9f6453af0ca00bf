"""How long does an FID take from cached features, and how much memory? JSON lines, about two minutes on two cores.

    python benchmarks/bench_metrics_fid.py [--images 10000] [--repeats 3] [--no-peer] [--intervals]

Two feature files are written as an evaluation writes them (rows, sums, products), then read and compared: with the reference new to the process, and with its matrix factor kept, as
every later snapshot of a training finds it. The peer reads the same rows and does what pytorch-fid does: mean, np.cov, scipy's matrix root; it runs once. --intervals adds what
`medgan evaluate` does by default: the interval, the real-real floor and FID-infinity (about fifty distances). --tiny is for tests.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from rows import in_turn, rounded, row, show
from scipy.linalg import sqrtm

from medgan.metrics.features import Features, load, save
from medgan.metrics.fid import FID
from medgan.metrics.values import compare
from medgan.progress import nothing

DIM = 2048


def write_features(path: Path, count: int, dim: int, seed: int, shift: float) -> Path:
    """Correlated rows, all at least 0 like pooled activations, in the cache's own form."""
    mixing = np.random.default_rng(0).standard_normal((dim, dim)).astype(np.float32) * np.logspace(0, -3, dim, dtype=np.float32)[:, None]
    rows = np.abs(np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32) @ mixing * (0.02 + shift) + 0.3)
    save(path, Features.of(rows))
    return path


def read(path: Path, dim: int) -> Features:
    features = load(path, dim=dim, keep=True)
    assert features is not None
    return features


def distance(real: Features, fake: Features) -> float:
    return float(FID()(real=real, fake=fake)["value"])


def peer(real: Path, fake: Path) -> float:
    """FID as pytorch-fid computes it from rows."""
    moments = []
    for path in (real, fake):
        with np.load(path) as file:
            rows = file["rows"].astype(np.float64)
        moments.append((rows.mean(0), np.cov(rows, rowvar=False)))
    (mu, a), (nu, b) = moments
    return float((mu - nu) @ (mu - nu) + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b).real))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="rows of each set")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-peer", action="store_true", help="leave out the matrix root")
    parser.add_argument("--intervals", action="store_true", help="also with interval, floor and FID-infinity: minutes")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # scipy says that singular matrices are singular
    dim = 64 if args.tiny else DIM
    if args.tiny:
        args.images, args.repeats, args.intervals = 400, 1, True
    with tempfile.TemporaryDirectory() as folder:
        paths = [write_features(Path(folder) / f"{i}.npz", args.images, dim, i, 0.002 * i) for i in (1, 2)]
        kept = read(paths[0], dim)
        distance(kept, read(paths[1], dim))
        sides = in_turn(
            {
                "new reference": lambda: distance(read(paths[0], dim), read(paths[1], dim)),
                "reference kept": lambda: distance(kept, read(paths[1], dim)),
            },
            repeats=args.repeats,
            warm_ups=0,
        )
        if not args.no_peer:
            sides |= in_turn({"pytorch-fid's way": lambda: peer(*paths)}, repeats=1, warm_ups=0)
        if args.intervals:
            real, fake = (read(path, dim) for path in paths)
            started = time.perf_counter()
            compare({"fid": FID()}, real=real, fake=fake, seed=0, uncertainty=nothing)
            print_with(args, "with interval, floor and FID-infinity", time.perf_counter() - started)
    value = sides["new reference"].result
    for name, side in sides.items():
        print_with(
            args,
            name,
            side.median,
            fid=rounded(side.result, 9),
            difference=rounded(abs(side.result - value) / value, 2),
            ratio=rounded(sides["pytorch-fid's way"].median / side.median) if not args.no_peer else None,
            all=[rounded(seconds) for seconds in side.seconds],
            peak_bytes=side.peak_bytes,
        )


def print_with(args: argparse.Namespace, name: str, seconds: float, **more: object) -> None:
    show(row(f"FID of {args.images} vs {args.images} from cached features, {name}", seconds, "s", **more))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
