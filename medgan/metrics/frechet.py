"""The Fréchet distance of two Gaussians, exact also where covariances are singular.

d² = |mu1 - mu2|² + tr S1 + tr S2 - 2 tr sqrt(S1 S2)    (Dowson and Landau 1982, eq. 4)

`scipy.linalg.sqrtm(S1 @ S2)`, which the usual packages take, is slower and off by about 1e-6 where a covariance is singular
(n <= d), which is every FID of fewer than 2049 images. With any factors S1 = A A' and S2 = B B' the trace is the nuclear
norm of A' B, and its square the trace of sqrt(A' S2 A). Centred features are such factors where they are few, the Cholesky factor where S1 has full rank, the eigenvectors
else; so the cheapest exact way is taken.
"""

from __future__ import annotations

import math

import numpy as np

from medgan.errors import DataError
from medgan.metrics.features import Array, Features


def frechet_distance(*, real: Features, fake: Features, ddof: int) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features; 0 where they agree.

    The value is symmetric in the sets up to rounding; they are keywords because other metrics are not.

    Args:
        real: Features of real images.
        fake: Features of synthetic images.
        ddof: What is taken off N in the covariance: 0 (official StyleGAN code) or 1 (original TTUR code, pytorch-fid).

    Raises:
        DataError: The features differ in width, or a set is too small to have a covariance.
    """
    if real.dim != fake.dim:
        raise DataError(f"features of width {real.dim} and {fake.dim} cannot be compared")
    if min(real.count, fake.count) <= ddof:
        raise DataError(
            f"a covariance needs at least {ddof + 1} images, here are {real.count} real and {fake.count} fake",
            fix="more images (--n-fake), or --metrics without fid",
        )
    scale_real, scale_fake = real.count - ddof, fake.count - ddof
    spread = _variance(real) / scale_real + _variance(fake) / scale_fake
    overlap = trace_of_root(real, fake) / math.sqrt(scale_real) / math.sqrt(scale_fake)
    difference = real.mean - fake.mean
    # Rounding may leave -1e-13 for two equal sets.
    return max(float(difference @ difference + spread - 2 * overlap), 0.0)


def trace_of_root(a: Features, b: Features) -> float:
    """Tr sqrt(Sa Sb) for the scatter matrices (sums, not means, of products) of two sets."""
    from scipy.linalg import eigvalsh, svdvals
    from scipy.linalg.lapack import dsygst

    small_a, small_b = (f.rows is not None and f.count <= f.dim for f in (a, b))
    if small_a and small_b:
        # Few rows on both sides: no D x D matrix at all. Singular values keep what squaring them would lose.
        return float(svdvals(a.centred() @ b.centred().T).sum())
    if small_a or small_b:
        few, many = (a, b) if small_a else (b, a)
        rows = few.centred()
        return _roots(eigvalsh(rows @ many.covariance(ddof=0) @ rows.T)) * math.sqrt(many.count)
    # `a` is the reference whose factor is kept from one evaluation to the next.
    if a.triangle is None:
        return _roots(eigvalsh(a.root.T @ b.covariance(ddof=0) @ a.root)) * math.sqrt(b.count)
    # L' S L, of which only the lower half is made: half the work of two products.
    product, _ = dsygst(b.covariance(ddof=0), a.triangle, itype=2, lower=1)
    return _roots(eigvalsh(product, lower=True)) * math.sqrt(b.count)


def _roots(eigenvalues: Array) -> float:
    """Sum of square roots; rounding leaves zeros of either sign."""
    return float(np.sqrt(eigenvalues.clip(min=0)).sum())


def _variance(features: Features) -> float:
    """Trace of the scatter matrix; from rows where there are few, because it must cancel against the trace of the root."""
    if features.rows is not None and features.count <= features.dim:
        return float(np.square(features.centred()).sum())
    return float(np.trace(features.covariance(ddof=0))) * features.count
