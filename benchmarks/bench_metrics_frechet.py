"""How much faster is our Fréchet distance than scipy's matrix root, and how far apart are they? A JSON line for each kind of sets, two minutes.

    python benchmarks/bench_metrics_frechet.py [--threads 1] [--images 4000]

Times are CPU seconds, which other work on the machine disturbs less than the clock. Both see the same float64 moments, made before, in the same process; the peer is the formula of
pytorch-fid, MONAI and the official code. Where a covariance is singular the matrix root itself is off by about 1e-6. --tiny is for tests.
"""

import argparse
import os
import time
import warnings

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--images", type=int, default=4000, help="feature rows of each full-rank set, more than 2048")
parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
options = parser.parse_args()
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(options.threads)

import numpy as np  # noqa: E402
from rows import in_turn, rounded, row, show  # noqa: E402
from scipy.linalg import sqrtm  # noqa: E402

from medgan.metrics.features import Features  # noqa: E402
from medgan.metrics.frechet import frechet_distance  # noqa: E402

DIM = 64 if options.tiny else 2048
FEW = DIM // 4


def rows(count: int, seed: int, scale: float, shift: float) -> np.ndarray:
    """Correlated rows whose standard deviations run over three and a half decades, about as those of Inception features."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))[0]
    return (rng.standard_normal((count, DIM)) * np.logspace(0, -3.5, DIM) * scale @ basis + 0.4 + shift).astype(np.float32)


def with_sqrtm(real: Features, fake: Features) -> float:
    a, b = real.covariance(ddof=1), fake.covariance(ddof=1)
    difference = real.mean - fake.mean
    return float(difference @ difference + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b).real))


def ours(real: Features, fake: Features) -> float:
    return frechet_distance(real=real, fake=fake, ddof=1)


def main() -> None:
    warnings.simplefilter("ignore")  # scipy says that singular matrices are singular
    n = 2 * DIM if options.tiny else options.images
    for name, n_real, n_fake in (("both of full rank", n, n), ("few synthetic images", n, FEW), ("few of both", FEW, FEW)):
        real, fake = Features.of(rows(n_real, 1, 1.0, 0.0)), Features.of(rows(n_fake, 2, 1.1, 0.01))
        for features in (real, fake):
            features.covariance(ddof=1)
        # The first call finds the reference's factor missing, the second finds it kept.
        tasks = {"first": lambda real=real, fake=fake: ours(real, fake), "kept": lambda real=real, fake=fake: ours(real, fake)}
        tasks["sqrtm"] = lambda real=real, fake=fake: with_sqrtm(real, fake)
        sides = in_turn(tasks, repeats=1, warm_ups=0, clock=time.process_time)
        value, peer = sides["first"].result, sides["sqrtm"].result
        answer = row(
            f"Fréchet distance, {DIM}-d, {n_real} / {n_fake} images, {name}",
            sides["first"].median,
            "CPU s",
            reference_kept=rounded(sides["kept"].median),
            sqrtm=rounded(sides["sqrtm"].median),
            ratio=rounded(sides["sqrtm"].median / sides["first"].median),
            ratio_reference_kept=rounded(sides["sqrtm"].median / sides["kept"].median),
            relative_difference=rounded(abs(value - peer) / peer, 2),
            threads=options.threads,
            peak_bytes=sides["first"].peak_bytes,
        )
        show(answer)


if __name__ == "__main__":
    main()
