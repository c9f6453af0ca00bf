"""The training image nearest to each image of a set: by grey values up to small shifts and mirrorings, and by features.

Memory is bounded by blocks: all training images are held as thumbnails or feature rows only, and read again where they are looked at closely.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from medgan.metrics.features import Array, Extractor, Images
from medgan.progress import Step, nothing

# Fine enough to put a copy at the head of the short list, small enough for one matrix product against all training images.
THUMBNAIL = 24
# Grey values are compared at this side at most: a copy at 256 px is one at 128 px, and noise of single pixels matters less.
SIDE = 128
SHIFT = 2
"""Shifts up to so many pixels, at the side of the comparison, in either direction."""
NEAREST, PATIENTS = 5, 3
"""The short list: so many images of the best thumbnails, and the best image of each of so many patients."""
QUERIES = 32
FLAT = 1.0
"""An image whose grey values, at the side of the comparison, have a standard deviation below this shows nothing that could be copied."""


@dataclass(frozen=True)
class Neighbours:
    """What lies nearest to each of n images.

    Args:
        nearest: Number of the nearest training image, (n,).
        distance: To it, (n,) float64.
        other: To the nearest image of another patient than that one's, (n,); infinite where there is one patient only.
        symmetry: Which of `symmetries` turned the image onto it, (n,); 0 is none.
        flat: Images without content, (n,) bool; their other values mean nothing.
    """

    nearest: Array
    distance: Array
    other: Array
    symmetry: Array
    flat: Array

    @classmethod
    def of(cls, found: list[tuple[int, float, float, int, bool]]) -> Neighbours:
        """From the values of each image, in the order of the fields."""
        kinds = (np.int64, np.float64, np.float64, np.int64, np.bool_)
        return cls(*(np.array(column, kind) for column, kind in zip(zip(*found, strict=True) if found else [()] * 5, kinds, strict=True)))

    @property
    def ratio(self) -> Array:
        """d1/d2, (n,): near 0 for a copy of one patient's image, near 1 for an image like many patients'."""
        return np.where(np.isfinite(self.other), self.distance / np.maximum(self.other, 1e-12), 0.0)


class _Groups:
    """Training images by patient, for the best of each patient in one pass over a row."""

    def __init__(self, patients: Array) -> None:
        self.patients = patients
        self.order = np.argsort(patients, kind="stable")
        self.starts = np.flatnonzero(np.r_[True, np.diff(patients[self.order]) != 0])

    def candidates(self, row: Array) -> Array:
        """Numbers of the short list, best first by the similarities `row` (N,) at least in its first entry."""
        few = min(NEAREST, len(row))
        near = np.argpartition(-row, few - 1)[:few]
        best = np.maximum.reduceat(row[self.order], self.starts)
        leaders = np.argpartition(-best, min(PATIENTS, len(best)) - 1)[:PATIENTS]
        ends = np.r_[self.starts[1:], len(row)]
        firsts = [self.order[a:b][np.argmax(row[self.order[a:b]])] for a, b in zip(self.starts[leaders], ends[leaders], strict=True)]
        listed = np.unique(np.r_[near, firsts])
        return listed[np.argsort(-row[listed], kind="stable")]

    def two(self, listed: Array, distance: Array) -> tuple[int, float, float]:
        """The nearest of a short list, its distance, and the distance to the nearest of another patient."""
        best = int(np.argmin(distance))
        others = distance[self.patients[listed] != self.patients[listed[best]]]
        return best, float(distance[best]), float(others.min()) if len(others) else float("inf")


def grey(images: Array, most: int) -> torch.Tensor:
    """Images (N, C, H, W) uint8 as grey values (N, h, w) float32, averaged over colours and areas to at most `most` pixels a side."""
    x = torch.from_numpy(np.ascontiguousarray(images)).float()
    # The mean of one channel is a copy that took a tenth of an audit's time.
    x = x if x.shape[1] == 1 else x.mean(1, keepdim=True)
    height, width = x.shape[2:]
    return F.adaptive_avg_pool2d(x, (min(height, most), min(width, most)))[:, 0]


def smoothed(images: torch.Tensor) -> torch.Tensor:
    """Grey values (N, h, w) after a binomial filter of 3 x 3: half a pixel's shift and noise then cost a copy less of its likeness."""
    x = F.pad(images[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    x = (x[:, 2:] + x[:, :-2]) / 4 + x[:, 1:-1] / 2
    return (x[:, :, 2:] + x[:, :, :-2]) / 4 + x[:, :, 1:-1] / 2


def symmetries(images: torch.Tensor) -> torch.Tensor:
    """Images (N, h, w) as they are, mirrored and turned by half: (N, 4, h, w); square ones also by quarters: (N, 8, h, w)."""
    views = [images, images.flip(2), images.flip(1), images.flip(1, 2)]
    if images.shape[1] == images.shape[2]:
        views += [view.transpose(1, 2) for view in views]
    return torch.stack(views, 1)


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows (..., D) less their mean and divided by their length; rows without contrast become 0."""
    rows = rows - rows.mean(-1, keepdim=True)
    length = rows.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-3, rows / length.clamp(min=1e-3), torch.zeros_like(rows))


class Closest:
    """Finds the nearest training images by grey values.

    The similarity is the normalised cross-correlation (NCC) of the image's interior with the training image, the largest over shifts up to
    `SHIFT` pixels and over mirrorings and turns: brightness and contrast do not matter. The distance is sqrt(2 (1 - NCC)), that of the two
    images brought to mean 0 and length 1.

    Args:
        train: The training images.
        patients: Patient of each, (N,) whole numbers.
        step: Told of progress.
    """

    def __init__(self, train: Images, patients: Array, *, step: Step = nothing) -> None:
        self.train, self.patients = train, patients
        self.groups, self.numbers = _Groups(patients), np.arange(len(train))
        parts = []
        for start in range(0, len(train), 256):
            parts.append(unit(grey(train.images(range(start, min(start + 256, len(train)))), THUMBNAIL).flatten(1)))
            step(min(start + 256, len(train)), len(train))
        self.thumbnails = torch.cat(parts)

    def among(self, numbers: Array) -> Closest:
        """The same search among some of the training images."""
        part = copy.copy(self)
        part.groups, part.numbers, part.thumbnails = _Groups(self.patients[numbers]), numbers, self.thumbnails[numbers]
        return part

    @torch.inference_mode()
    def __call__(self, images: Images, numbers: Array, *, step: Step = nothing) -> Neighbours:
        """The nearest training image of the images with these numbers."""
        found: list[tuple[int, float, float, int, bool]] = []
        for start in range(0, len(numbers), QUERIES):
            found += self._block(images.images(numbers[start : start + QUERIES].tolist()))
            step(len(found), len(numbers))
        return Neighbours.of(found)

    def _block(self, images: Array) -> list[tuple[int, float, float, int, bool]]:
        large = smoothed(grey(images, SIDE))
        views = symmetries(grey(images, THUMBNAIL))
        # (queries, symmetries, N)
        alike = unit(views.flatten(2)) @ self.thumbnails.T
        rows = alike.amax(1).numpy()
        lists = [self.groups.candidates(row) for row in rows]
        wanted = np.unique(np.concatenate(lists))
        read = smoothed(grey(self.train.images(self.numbers[wanted].tolist()), SIDE))
        turned = symmetries(large)
        which = [alike[i][:, listed].argmax(0) for i, listed in enumerate(lists)]
        queries = torch.repeat_interleave(torch.arange(len(lists)), torch.tensor([len(listed) for listed in lists]))
        others = torch.from_numpy(np.searchsorted(wanted, np.concatenate(lists)))
        ncc = np.split(correlation(turned[queries, torch.cat(which)], read[others]), np.cumsum([len(listed) for listed in lists])[:-1])
        flat = (large.flatten(1).std(1, correction=0) < FLAT).tolist()
        result = []
        for i, listed in enumerate(lists):
            best, first, second = self.groups.two(listed, np.sqrt(2 * np.clip(1 - ncc[i], 0, 2)))
            result.append((int(self.numbers[listed[best]]), first, second, int(which[i][best]), flat[i]))
        return result


def correlation(images: torch.Tensor, others: torch.Tensor) -> Array:
    """Largest NCC of the interior of each image (P, h, w) with its partner in others (P, h, w) over small shifts, (P,) float64; 0 where either is flat."""
    height, width = images.shape[1:]
    s = min(SHIFT, height // 8, width // 8)
    inner = images[:, s : height - s, s : width - s]
    inner = inner - inner.mean((1, 2), keepdim=True)
    length = inner.flatten(1).norm(dim=1)
    others = others - others.mean((1, 2), keepdim=True)
    # The margin of zeros is as wide as the largest shift, so that the circular correlation never wraps.
    product = torch.fft.rfft2(F.pad(inner, (s, s, s, s))).conj() * torch.fft.rfft2(others)
    dots = torch.fft.irfft2(product, (height, width))
    sums, squares = (F.pad(x.double().cumsum(1).cumsum(2), (1, 0, 1, 0)) for x in (others, others.square()))
    count = inner[0].numel()
    best = torch.full((len(images),), -1.0, dtype=torch.float64)
    for dy in range(-s, s + 1):
        for dx in range(-s, s + 1):
            total, energy = (_box(x, s + dy, height - s + dy, s + dx, width - s + dx) for x in (sums, squares))
            spread = (energy - total.square() / count).clamp(min=0).sqrt()
            # Of less than a tenth of a grey level a correlation would be one of rounding errors.
            visible = spread.minimum(length.double()) > 0.1 * FLAT * count**0.5
            ncc = dots[:, dy % height, dx % width].double() / (spread * length).clamp(min=1e-6)
            best = best.maximum(torch.where(visible, ncc, 0.0))
    return best.clamp(-1, 1).numpy()


def _box(integral: torch.Tensor, top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    """Sums over a box, (P,), from integral images (P, h + 1, w + 1)."""
    return integral[:, bottom, right] - integral[:, top, right] - integral[:, bottom, left] + integral[:, top, left]


class ClosestFeatures:
    """Finds the nearest training images by Euclidean distance of features.

    Args:
        rows: Features of the training images, (N, D) float32.
        patients: Patient of each, (N,).
    """

    def __init__(self, rows: Array, patients: Array) -> None:
        self.rows, self.groups = torch.from_numpy(np.ascontiguousarray(rows, np.float32)), _Groups(patients)
        # Distances do not change with the origin; near it float32 keeps more digits.
        self.origin = self.rows.mean(0)
        self.rows = self.rows - self.origin
        self.squares = self.rows.square().sum(1)

    def __call__(self, rows: Array) -> Neighbours:
        """The nearest training rows of rows (n, D)."""
        found: list[tuple[int, float, float, int, bool]] = []
        for start in range(0, len(rows), QUERIES):
            block = torch.from_numpy(np.asarray(rows[start : start + QUERIES], np.float32)) - self.origin
            alike = (block @ self.rows.T - self.squares / 2).numpy()
            for query, row in zip(block, alike, strict=True):
                listed = self.groups.candidates(row)
                exact = (self.rows[listed].double() - query.double()).norm(dim=1).numpy()
                best, first, second = self.groups.two(listed, exact)
                found.append((int(listed[best]), first, second, 0, False))
        return Neighbours.of(found)

    def of_training(self, numbers: Array) -> Array:
        """Distance of training images to the nearest training image of another patient, (n,) float64."""
        result = np.full(len(numbers), np.inf)
        for start in range(0, len(numbers), QUERIES):
            some = numbers[start : start + QUERIES]
            alike = (self.rows[some] @ self.rows.T - self.squares / 2).numpy()
            alike[self.groups.patients[some][:, None] == self.groups.patients[None, :]] = -np.inf
            for i, (number, best) in enumerate(zip(some, alike.argmax(1), strict=True)):
                if np.isfinite(alike[i, best]):
                    result[start + i] = float((self.rows[number].double() - self.rows[best].double()).norm())
        return result


class Thumbnails:
    """Features without a network: grey thumbnails of `THUMBNAIL` pixels a side. Named so wherever they stand in for Inception's."""

    name = f"thumbnails-{THUMBNAIL}"
    sha256 = ""
    resize = "area"
    dim = THUMBNAIL**2

    def __call__(self, images: Array) -> torch.Tensor:
        """Grey values (N, up to THUMBNAIL^2) of images (N, C, H, W) uint8."""
        return grey(images, THUMBNAIL).flatten(1)


def feature_rows(extractor: Extractor | Thumbnails, images: Images, numbers: Array, *, batch: int = 32, step: Step = nothing) -> Array:
    """Features (n, D) float32 of the images with these numbers."""
    parts = []
    for start in range(0, len(numbers), batch):
        parts.append(extractor(images.images(numbers[start : start + batch].tolist())).cpu().numpy())
        step(min(start + batch, len(numbers)), len(numbers))
    return np.concatenate(parts) if parts else np.zeros((0, extractor.dim), np.float32)
