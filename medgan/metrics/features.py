"""Features of a set of images, collected batch by batch, and the file that keeps them.

What a metric gets is `Features`: count, mean and covariance in float64, and the rows themselves, or evenly chosen ones of a very large set.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from medgan.errors import DataError
from medgan.ranks import Ranks
from medgan.runs import atomic

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

# Changes whenever the same images would give other features, so that older files in a cache are passed over.
VERSION = 2

MOST_ROWS = 50_000
"""Rows of a set that are kept for intervals and floors: 0.4 GB of Inception features. Of a larger set every second or third and so on."""


def stride(count: int) -> int:
    """Every how manyth row of a set is kept, so that at most `MOST_ROWS` are."""
    return max(-(-count // MOST_ROWS), 1)


class Images(Protocol):
    """A set of images of one size, read by index."""

    def __len__(self) -> int: ...

    def images(self, indices: Sequence[int] | slice) -> Array:
        """Images (N, C, H, W) uint8, C 1 or 3."""
        ...


class Extractor(Protocol):
    """Turns 8-bit images into feature rows. Its constructor takes `weights`, `resize` and `device` and loads what it needs."""

    name: str
    sha256: str
    resize: str
    dim: int

    def __call__(self, images: Array) -> torch.Tensor:
        """Features (N, dim) float32 of images (N, C, H, W) uint8."""
        ...


class Features:
    """Features of one set: moments in float64 always, rows where they were kept.

    Args:
        rows: (N, D) float32, or None where only moments were kept.
        count: N.
        total: Sum of the rows, (D,) float64.
        outer: Sum of the rows' outer products, (D, D) float64; None takes it from the rows when somebody asks.
        chosen: Where rows are not kept: row 0, k, 2k, ... of the set, (about N / k, D) float32, or None.
    """

    def __init__(self, rows: Array | None, count: int, total: Array, outer: Array | None, chosen: Array | None = None) -> None:
        self.rows = rows
        self.count = count
        self.total = total
        self.chosen = chosen
        self._outer = outer
        self.subjects: Sequence[str] | None = None
        """A key of the patient of each of the N images, where they are known: rows of one patient are not independent."""
        self.labels: Array | None = None
        """Class number of each of the N images, (N,), where the set has them."""
        self.kept: dict[Any, Any] = {}
        """What metrics have worked out of this set and others will ask for again."""

    @classmethod
    def of(cls, rows: Array, subjects: Sequence[str] | None = None) -> Features:
        """Features from rows (N, D) that are all at hand, and the patients they are of."""
        features = cls(np.asarray(rows), len(rows), np.asarray(rows).sum(0, dtype=np.float64), None)
        features.subjects = subjects
        return features

    @property
    def outer(self) -> Array:
        """Sum of the rows' outer products, (D, D) float64."""
        if self._outer is None:
            assert self.rows is not None
            exact = np.asarray(self.rows, dtype=np.float64)
            self._outer = exact.T @ exact
        return self._outer

    def sample(self) -> tuple[Array, Array]:
        """The rows there are, (M, D), and their numbers in the set, (M,)."""
        rows = self.chosen if self.rows is None else self.rows
        assert rows is not None, "neither rows nor a sample were kept"
        every = 1 if self.rows is not None else stride(self.count)
        return rows, np.arange(0, self.count, every)

    @property
    def dim(self) -> int:
        """D, the width of a row."""
        return len(self.total)

    @cached_property
    def mean(self) -> Array:
        """Mean row, (D,) float64."""
        return self.total / self.count

    def covariance(self, *, ddof: int) -> Array:
        """Covariance (D, D) float64, sums divided by N - ddof."""
        return self._scatter / (self.count - ddof)

    def centred(self) -> Array:
        """Rows less their mean, (N, D) float64."""
        assert self.rows is not None
        return np.asarray(self.rows, dtype=np.float64) - self.mean

    @cached_property
    def _scatter(self) -> Array:
        if self.rows is not None and self.count <= 4 * self.dim:
            # Two passes lose nothing to cancellation; for more rows the float64 sums are good to about 1e-13 anyway.
            centred = self.centred()
            return centred.T @ centred
        return self.outer - self.count * np.outer(self.mean, self.mean)

    @cached_property
    def triangle(self) -> Array | None:
        """L (D, D), lower triangular with L L' = the scatter matrix; None where that is singular, or so nearly that L would hold noise.

        A small part of the work of `root`.
        """
        from scipy.linalg import LinAlgError, cholesky

        try:
            lower: Array = cholesky(self._scatter, lower=True)
        except LinAlgError:
            return None
        # A squared pivot below this is rounding: it would add a direction that the features do not have.
        noise = self.dim * np.finfo(np.float64).eps * float(np.trace(self._scatter))
        return lower if float(lower.diagonal().min()) ** 2 > noise else None

    @cached_property
    def root(self) -> Array:
        """A (D, r) with A A' = the scatter matrix, r its rank in float64; needed where there is no `triangle`."""
        from scipy.linalg import eigh

        values, vectors = eigh(self._scatter, driver="evd")
        # Directions without variance give rounding noise of either sign; they add nothing to the distance.
        kept = values > values[-1] * self.dim * np.finfo(np.float64).eps
        return vectors[:, kept] * np.sqrt(values[kept])


class Collector:
    """Gathers feature rows batch by batch, moments in float64 on the device where the rows are.

    Args:
        dim: D, the width of a row.
        keep: Keep all rows. Otherwise rows are kept only while there are at most D, where a distance needs them.
        every: And row 0, `every`, 2 `every`, ... of the whole set, by the numbers given to `add`; 0 keeps none.
    """

    # Products of 512 rows at a time run near the peak of the machine; smaller batches are gathered first.
    CHUNK = 512

    def __init__(self, dim: int, *, keep: bool, every: int = 0) -> None:
        self.dim = dim
        self.keep = keep or every == 1
        self.every = 0 if self.keep else every
        self.count = 0
        self._rows: list[Array] = []
        self._chosen: list[Array] = []
        self._pending: list[torch.Tensor] = []
        self._total: torch.Tensor | None = None
        self._outer: torch.Tensor | None = None

    def add(self, rows: torch.Tensor, numbers: range | None = None) -> None:
        """Count in rows (N, D), which are `numbers` of the whole set (those that follow, if not said).

        Raises:
            DataError: A feature is not a finite number.
        """
        if self.every:
            start = self.count if numbers is None else numbers.start
            if len(chosen := rows[-start % self.every :: self.every]):
                self._chosen.append(chosen.cpu().numpy())
        self.count += len(rows)
        self._pending.append(rows)
        if sum(map(len, self._pending)) >= self.CHUNK:
            self._flush()

    def _flush(self) -> None:
        import torch

        if not self._pending:
            return
        rows = torch.cat(self._pending)
        self._pending.clear()
        exact = rows.double()
        if not bool(torch.isfinite(exact).all()):
            raise DataError("the extractor gave features that are not finite numbers")
        if self._total is None or self._outer is None:
            self._total = exact.new_zeros(self.dim)
            self._outer = exact.new_zeros(self.dim, self.dim)
        self._total += exact.sum(0)
        self._outer.addmm_(exact.T, exact)
        if self.keep or self.count <= self.dim:
            self._rows.append(rows.cpu().numpy())
        else:
            self._rows.clear()

    def finish(self, ranks: Ranks = Ranks(), numbers: Sequence[int] = ()) -> Features:  # noqa: B008 (frozen)
        """Everything counted in so far, on all ranks together.

        Args:
            ranks: The processes that share the set; all call this. Rows come to rank 0 only.
            numbers: The numbers in the set of the rows counted in here, in which order rank 0 lays all rows.

        Raises:
            DataError: Nothing was counted in.
        """
        import torch

        self._flush()
        moments = torch.zeros(self.dim + 1, self.dim, dtype=torch.float64)
        if self._total is not None and self._outer is not None:
            moments[0], moments[1:] = self._total.cpu(), self._outer.cpu()
        self.count = int(ranks.sum_(torch.tensor(self.count)))
        if not self.count:
            raise DataError("a set without images has no features", fix="give a set that holds images")
        ranks.sum_(moments)
        rows = np.concatenate(self._rows) if self._rows else None
        if ranks.count > 1:
            rows = self._gathered(rows, ranks, numbers) if self.keep or self.count <= self.dim else None
        chosen = np.concatenate(self._chosen) if self._chosen else None
        if ranks.count > 1 and self.every:
            chosen = self._gathered(chosen, ranks, [number for number in numbers if number % self.every == 0])
        return Features(rows, self.count, moments[0].numpy(), moments[1:].numpy(), chosen if rows is None else None)

    def _gathered(self, rows: Array | None, ranks: Ranks, numbers: Sequence[int]) -> Array | None:
        import torch

        parts = ranks.gather(torch.from_numpy(rows) if rows is not None else torch.zeros(0, self.dim))
        order = ranks.gather(torch.tensor(list(numbers), dtype=torch.int64))
        return torch.cat(parts)[torch.cat(order).argsort()].numpy() if ranks.speaks else None


def identity(images: Images, batch: int = 256) -> str:
    """What a set of images is, whatever it is called and wherever it lies: its own `identity`, else SHA-256 over shape and pixels."""
    if own := getattr(images, "identity", None):
        return str(own)
    digest = hashlib.sha256()
    for start in range(0, len(images), batch):
        block = images.images(range(start, min(start + batch, len(images))))
        if start == 0:
            digest.update(repr((block.shape[1:], str(block.dtype))).encode())
        digest.update(np.ascontiguousarray(block).tobytes())
    return digest.hexdigest()


def cache_path(folder: Path, images: Images, extractor: Extractor, known: str = "") -> Path:
    """The file of one set's features: its name comes from the images, the extractor's weights and the resize rule, never from a path.

    Args:
        folder: Of the cache.
        images: The set.
        extractor: What gives the features.
        known: The set's identity, where it has been worked out.
    """
    key = [VERSION, extractor.name, extractor.sha256, extractor.resize, len(images), known or identity(images)]
    return folder / f"features-{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.npz"


def load(path: Path, *, dim: int, keep: bool, sample: bool = False) -> Features | None:
    """Features from a cache file; None where it is missing, damaged, or lacks rows, or a sample of them, that are needed."""
    if not path.is_file():
        return None
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(path, allow_pickle=False) as file:
        count, total, outer = int(file["count"]), file["total"], file["outer"]
        if str(file["key"]) != path.stem:
            log.warning("a file of features belongs to another set or extractor; features are made anew")
            return None
        rows, chosen = file.get("rows"), file.get("chosen")
        if total.shape != (dim,) or outer.shape != (dim, dim) or (rows is not None and rows.shape != (count, dim)):
            return None
        if rows is None and (keep or count <= dim):
            return None
        if rows is None and sample and (chosen is None or chosen.shape != (len(range(0, count, stride(count))), dim)):
            return None
        return Features(rows, count, total, outer, chosen)
    return None


def save(path: Path, features: Features) -> None:
    """Write features into a cache file."""
    # The name says of what the features are; a file that was renamed must not say otherwise.
    arrays = {"key": np.array(path.stem), "count": np.array(features.count), "total": features.total, "outer": features.outer}
    if features.rows is not None:
        arrays["rows"] = features.rows
    elif features.chosen is not None:
        arrays["chosen"] = features.chosen
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
