"""What do intervals cost beside the figures themselves, in time and memory? A JSON line for each metric, half a minute to two by default.

    python benchmarks/bench_metrics_intervals.py [--images 1500] [--dim 2048] [--patients 60] [--metrics fid,kid,...]

The case that matters is --images 50000 (an hour or more on two cores: precision alone looks at 2.5 thousand million distances, twice). Rows are made up, and both sets have as many. Each metric is
computed alone, first without and then with its interval; an FID's includes the real-real floor and FID-infinity. --tiny is for tests.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from rows import in_turn, rounded, row, show

from medgan.metrics import METRICS
from medgan.metrics.features import Features
from medgan.metrics.values import compare
from medgan.progress import nothing

NAMES = ("fid", "kid", "precision_inception", "density_inception", "cosine_inception")


def rows(count: int, dim: int, seed: int) -> np.ndarray:
    """Rows whose standard deviations run over three decades."""
    return (
        np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32) * np.logspace(0, -3, dim, dtype=np.float32) + 0.4
    ).astype(np.float32)


def measured(name: str, real: np.ndarray, fake: np.ndarray, subjects: list[str], *, intervals: bool) -> Callable[[], dict[str, Any]]:
    """One metric of two sets that nobody has looked at before."""
    settings = {"intervals": intervals} if name.startswith("cosine") else {}

    def run() -> dict[str, Any]:
        sets = {"real": Features.of(real, subjects), "fake": Features.of(fake)}
        return compare({name: METRICS.get(name)(**settings)}, **sets, seed=0, uncertainty=nothing if intervals else None)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1500, help="rows of each set")
    parser.add_argument("--dim", type=int, default=2048, help="width of a row")
    parser.add_argument("--patients", type=int, default=60, help="of the real set; 0 knows none")
    parser.add_argument("--metrics", default=",".join(NAMES), help="metrics of features, separated by commas")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    args = parser.parse_args()
    if args.tiny:
        args.images, args.dim, args.patients = 120, 16, 20
    real, fake = (rows(args.images, args.dim, seed) for seed in (1, 2))
    subjects = [f"p{i * args.patients // args.images}" for i in range(args.images)]
    for name in args.metrics.split(","):
        sides = in_turn(
            {words: measured(name, real, fake, subjects, intervals=words == "with") for words in ("without", "with")},
            repeats=1,
            warm_ups=0,
        )
        entry = sides["with"].result["metrics"][name]
        show(
            row(
                f"{name} of {args.images} vs {args.images} x {args.dim}, with interval",
                sides["with"].median,
                "s",
                peak_bytes=sides["with"].peak_bytes,
                without=rounded(sides["without"].median),
                without_peak_mb=round(sides["without"].peak_bytes / 1e6),
                ratio=rounded(sides["with"].median / max(sides["without"].median, 1e-9)),
                method=entry["interval_method"],
            )
        )


if __name__ == "__main__":
    main()
