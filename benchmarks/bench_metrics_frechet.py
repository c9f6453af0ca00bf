"""How much faster is our Fréchet distance than scipy's matrix root, and how far apart are they? One JSON line, one or two minutes.

    python benchmarks/bench_metrics_frechet.py [--threads 1] [--images 4000]

Times are CPU seconds, which other work on the machine disturbs less than the clock. Both see the same float64 moments in the same process; the peer is the formula of pytorch-fid, MONAI and the official code.
"""

import argparse
import json
import os
import time
import warnings

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--images", type=int, default=4000, help="feature rows of each full-rank set, more than 2048")
options = parser.parse_args()
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(options.threads)

import numpy as np  # noqa: E402
import scipy  # noqa: E402
from scipy.linalg import sqrtm  # noqa: E402

from medgan.metrics.features import Features  # noqa: E402
from medgan.metrics.frechet import frechet_distance  # noqa: E402
from medgan.runs import commit  # noqa: E402

DIM = 2048


def rows(count: int, seed: int, scale: float, shift: float) -> np.ndarray:
    """Correlated rows whose standard deviations run over three and a half decades, about as those of Inception features."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))[0]
    return (rng.standard_normal((count, DIM)) * np.logspace(0, -3.5, DIM) * scale @ basis + 0.4 + shift).astype(np.float32)


def with_sqrtm(real: Features, fake: Features) -> float:
    a, b = real.covariance(ddof=1), fake.covariance(ddof=1)
    difference = real.mean - fake.mean
    return float(difference @ difference + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b).real))


def timed(distance, real: Features, fake: Features) -> tuple[float, float]:
    started = time.process_time()
    return distance(real, fake), time.process_time() - started


def ours(real: Features, fake: Features) -> float:
    return frechet_distance(real=real, fake=fake, ddof=1)


def main() -> None:
    warnings.simplefilter("ignore")  # scipy says that singular matrices are singular
    n = options.images
    result = {"unit": "CPU s", "device": "cpu", "threads": options.threads, "scipy": scipy.__version__, "commit": commit()[:9]}
    for name, n_real, n_fake in (("full_rank", n, n), ("few_fakes", n, 500), ("few", 500, 500)):
        real, fake = Features.of(rows(n_real, 1, 1.0, 0.0)), Features.of(rows(n_fake, 2, 1.1, 0.01))
        value, first_seconds = timed(ours, real, fake)
        _, again_seconds = timed(ours, real, fake)
        peer, peer_seconds = timed(with_sqrtm, real, fake)
        result[name] = {
            "n": [n_real, n_fake],
            "ours": round(first_seconds, 3),
            "ours_with_reference_kept": round(again_seconds, 3),
            "sqrtm": round(peer_seconds, 3),
            "ratio": round(peer_seconds / first_seconds, 1),
            "ratio_with_reference_kept": round(peer_seconds / again_seconds, 1),
            "relative_difference": float(f"{abs(value - peer) / peer:.1e}"),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
