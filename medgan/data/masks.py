"""Label maps: told from scans, matched to them by where they lie in the patient, and brought onto their grid.

A match needs overlap in space, and one frame of reference where both name one; what a mask refers to, patients, names and folders only
choose between label maps (or scans) that all fit.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medgan.data.scans import Place, Scan, Volume
from medgan.errors import DataError

MOST_LABELS = 256
LEAST_OVERLAP = 0.5
SAME_GRID_MM = 0.05
WORDS = re.compile(
    r"(?:^|[_\-. ])(?:mask|masks|seg|segmentation|label|labels|gt|roi|liver|ct|image|img|volume|scan|fast|force|split)(?=$|[_\-. ])"
)


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """A label map on disk.

    Args:
        path: The file.
        place: Where it lies below the source or the masks folder.
        affine: (4, 4) to RAS mm.
        shape: Voxels along the three axes.
        labels: The values that occur, 0 left out, ascending; Segment Numbers of a SEG, ROI Numbers of an RT-STRUCT.
        kind: SEG or RTSTRUCT, "" for a label map in a volume file.
        names: What each label is called, in plain words; empty where the format has no names.
        space: FrameOfReferenceUID, "" where absent.
        references: SeriesInstanceUIDs of the scans it was drawn on.
        patient: Who it is of, where a recipe knows that from its name; "" leaves it to its place.
    """

    path: Path
    place: Place
    affine: np.ndarray
    shape: tuple[int, int, int]
    labels: tuple[int, ...]
    kind: str = ""
    names: tuple[tuple[str, ...], ...] = ()
    space: str = ""
    references: tuple[str, ...] = ()
    patient: str = ""

    def wanted(self, label: int, name: str = "") -> tuple[int, ...]:
        """Which of its labels are meant: those of a name where labels have names and one is asked for, else the number.

        Numbers of a SEG or RT-STRUCT follow the order in which organs were drawn, so a recipe asks for them by name.
        """
        if name and self.kind:
            return tuple(number for number, words in zip(self.labels, self.names, strict=True) if plain(name) in words)
        return (label,) if label in self.labels else ()


def plain(text: str) -> str:
    """A name for comparison: lower case, words of letters and digits parted by blanks (`Liver_1` -> `liver 1`)."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def _could_be_labels(values: np.ndarray) -> bool:
    if values.size == 0 or not np.all(np.isfinite(values)):
        return False
    return bool(values.min() >= 0 and values.max() < MOST_LABELS and np.array_equal(values, np.round(values)))


def labels_of(values: np.ndarray) -> tuple[int, ...] | None:
    """The labels of an array, or None where it is no label map.

    A label map holds whole numbers from 0 to 255, few of them, in connected areas: most labelled voxels have the
    neighbour's value, which tells an 8-bit scan apart. A single value other than 0 labels nothing.
    """
    if not _could_be_labels(values):
        return None
    whole = values.astype(np.uint8)
    found = np.flatnonzero(np.bincount(whole.ravel(), minlength=MOST_LABELS))
    if len(found) == 1 and found[0]:
        return None
    inside, beside = whole[:-1], whole[1:]
    labelled = np.count_nonzero(inside)
    if labelled and np.count_nonzero((inside == beside) & (inside > 0)) < 0.5 * labelled:
        return None
    return tuple(int(label) for label in found if label)


def label_map(volume: Volume) -> LabelMap | None:
    """The label map in a file, or None where the file holds a scan (or nothing readable).

    A middle slice is looked at before the whole, so that a scan is told after a part of it.

    Raises:
        DataError: A SEG or RT-STRUCT cannot be used.
    """
    from medgan.data.volumes import middle_slice, read_volume

    if volume.kind:
        return _outlines(volume)
    if len(volume.shape) != 3:
        return None
    try:
        middle = middle_slice(volume)
        if middle is not None and not _could_be_labels(middle):
            return None
        values, affine = read_volume(volume)
    except Exception:
        return None  # it is reported where it is read as a scan
    labels = labels_of(values)
    if labels is None:
        return None
    return LabelMap(path=volume.path, place=volume.place, affine=affine, shape=values.shape, labels=labels)


def _outlines(volume: Volume) -> LabelMap:
    from medgan.data.contours import contour_map
    from medgan.data.segmentations import segment_map

    try:
        return segment_map(volume) if volume.kind == "SEG" else contour_map(volume)
    except DataError:
        raise
    except Exception as error:  # whatever a broken value makes Python raise
        raise DataError(f"{volume.kind} unreadable ({type(error).__name__})") from None


def coverage(shape: Sequence[int], affine: np.ndarray, other_shape: Sequence[int], other_affine: np.ndarray) -> float:
    """Which share of one box lies inside another, from 12 x 12 x 12 points; both in RAS mm.

    Args:
        shape: Voxels of the box that is asked about, and its affine.
        other_shape: Voxels of the other box, and its affine.
    """
    axes = [np.linspace(-0.5 + n / 24, n - 0.5 - n / 24, 12) for n in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    world = points @ affine[:3, :3].T + affine[:3, 3]
    inverse = np.linalg.inv(other_affine)
    there = world @ inverse[:3, :3].T + inverse[:3, 3]
    return float(np.mean(np.all((there >= -0.5) & (there <= np.array(other_shape) - 0.5), axis=1)))


def same_grid(scan: Scan, mask: LabelMap) -> bool:
    """Whether both have the same voxels in space, whichever way their axes run."""
    if sorted(scan.shape) != sorted(mask.shape):
        return False

    def corners(shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
        ends = np.stack(np.meshgrid(*[[0, n - 1] for n in shape], indexing="ij"), axis=-1).reshape(-1, 3)
        return ends @ affine[:3, :3].T + affine[:3, 3]

    ours, theirs = corners(scan.shape, scan.affine), corners(mask.shape, mask.affine)
    distance = np.linalg.norm(ours[:, None] - theirs[None], axis=2).min(axis=1)
    return bool(distance.max() < SAME_GRID_MM)


def _stem(name: str) -> str:
    stem = name.lower().split(".nii")[0].removesuffix(".mhd").removesuffix(".mha").removesuffix(".nrrd")
    return WORDS.sub("", stem).strip("_-. ")


def closeness(scan: Scan, mask: LabelMap) -> tuple[int, int, int, int, int]:
    """How much a label map seems to be drawn on a scan: it refers to it; its place suggests the same patient. Larger is closer."""
    drawn_on = int(any(f"/{uid}/" in scan.series for uid in mask.references if uid))
    whose = (mask.patient, scan.patient) if mask.patient else (mask.place.patient, scan.place.patient)
    same_patient = int(bool(whose[0]) and whose[0] == whose[1])
    ours, theirs = _stem(scan.place.name), _stem(mask.place.name)
    shared = 0
    for a, b in zip(scan.place.folders, mask.place.folders, strict=False):
        if a != b:
            break
        shared += 1
    # Word by word: `patient1` is no beginning of `patient10`.
    words = zip(re.split(r"[_\-. ]", ours), re.split(r"[_\-. ]", theirs), strict=False)
    prefix = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], words))
    return drawn_on, same_patient, int(bool(ours) and ours == theirs), shared, prefix


@dataclass(frozen=True)
class Match:
    """The label map that selects the slices of a scan.

    Args:
        mask: The label map, or None where none fits.
        reason: Why there is none.
        warning: What was ambiguous.
        labels_seen: Labels of all label maps that fit.
        names_seen: What those of SEG and RT-STRUCT files are called.
        labels: The labels of `mask` that are wanted.
    """

    mask: LabelMap | None
    reason: str = ""
    warning: str = ""
    labels_seen: tuple[int, ...] = ()
    names_seen: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()


def match(scans: Sequence[Scan], masks: Sequence[LabelMap], label: int, name: str = "") -> list[Match]:
    """The label map of each scan.

    Of those that fit in space, a label map stays with the scans closest to it by patient, name and folder (all of them on
    a tie within one patient). Of a scan's label maps the one with the wanted label is taken; of several the one on the
    scan's own grid, then the one with the fewest labels (a map of one organ rather than of all), then the first by name.
    """
    fits: list[list[LabelMap]] = [[] for _ in scans]
    contested = [False] * len(scans)
    for mask in sorted(masks, key=lambda m: m.place.parts):
        close = []
        for index, scan in enumerate(scans):
            if mask.space and scan.space and mask.space != scan.space:
                continue
            overlap = max(
                coverage(scan.shape, scan.affine, mask.shape, mask.affine), coverage(mask.shape, mask.affine, scan.shape, scan.affine)
            )
            if overlap >= LEAST_OVERLAP:
                close.append((closeness(scan, mask), index))
        best = [index for rank, index in close if rank == max(rank for rank, _ in close)]
        # A scan without any label of a patient may be of any patient.
        if len({scans[index].patient or f"scan {index}" for index in best}) > 1:
            for index in best:
                contested[index] = True
            continue
        for index in best:
            fits[index].append(mask)
    return [_choose(scan, fit, label, name, lost) for scan, fit, lost in zip(scans, fits, contested, strict=True)]


def _choose(scan: Scan, fits: list[LabelMap], label: int, name: str, contested: bool) -> Match:
    seen = tuple(sorted({value for mask in fits if not (name and mask.kind) for value in mask.labels}))
    names = tuple(sorted({word for mask in fits for words in mask.names for word in words}))
    if not fits:
        reason = "its label map fits scans of several patients equally" if contested else "no label map lies where the scan lies"
        return Match(None, reason=reason)
    holding = [mask for mask in fits if mask.wanted(label, name)]
    if not holding:
        return Match(None, reason="no label map has the label", labels_seen=seen, names_seen=names)
    ranked = sorted(holding, key=lambda m: (not same_grid(scan, m), len(m.labels), m.place.parts))
    warning = ""
    if len(ranked) > 1:
        count = len(ranked[0].labels)
        asked = f"label {label}" if not any(mask.kind for mask in ranked) else "the label"
        warning = f"{len(ranked)} label maps hold {asked}: took the one with {count} label{'s' if count > 1 else ''}"
    return Match(ranked[0], warning=warning, labels_seen=seen, names_seen=names, labels=ranked[0].wanted(label, name))


def label_on_grid(
    mask: LabelMap, labels: Sequence[int], shape: tuple[int, int, int], affine: np.ndarray, origins: np.ndarray | None
) -> np.ndarray:
    """Where the wanted labels of a label map lie, on the grid of a scan; uint8, 1 inside.

    Args:
        mask: The label map.
        labels: Its labels that are wanted.
        shape: Voxels of the scan.
        affine: (4, 4) of the scan to RAS mm.
        origins: (Z, 3) RAS position of each slice's first voxel; None takes the affine's.
    """
    from medgan.data.contours import fill
    from medgan.data.segmentations import read_segments
    from medgan.data.volumes import read_volume

    if mask.kind == "RTSTRUCT":
        return fill(mask.path, labels, shape, affine, origins)
    if mask.kind == "SEG":
        wanted, own = read_segments(mask.path, labels)
    else:
        values, own = read_volume(Volume(path=mask.path, place=mask.place, shape=mask.shape, affine=mask.affine))
        wanted = np.isin(values, labels).astype(np.uint8)
    return resample_labels(wanted, own, shape, affine, origins)


def resample_labels(
    labels: np.ndarray, labels_affine: np.ndarray, shape: tuple[int, int, int], affine: np.ndarray, origins: np.ndarray | None
) -> np.ndarray:
    """A label map on the grid of a scan: the nearest label for each voxel, 0 outside the label map.

    Args:
        labels: (X, Y, Z) whole numbers.
        labels_affine: (4, 4) to RAS mm.
        shape: Voxels of the scan.
        affine: (4, 4) of the scan to RAS mm.
        origins: (Z, 3) RAS position of each slice's first voxel, for scans with missing or uneven slices; None takes the affine's.

    Returns:
        Array of `shape`, dtype of `labels`.
    """
    if origins is None:
        origins = affine[:3, 3] + np.arange(shape[2])[:, None] * affine[:3, 2]
    inverse = np.linalg.inv(labels_affine)
    step = inverse[:3, :3] @ affine[:3, :2]
    # A label axis that does not change along a picture axis keeps length 1 there: parallel grids need no index per pixel.
    columns, rows = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    tiny = 1e-9
    in_plane = [(columns * s[0] if abs(s[0]) > tiny else 0) + (rows * s[1] if abs(s[1]) > tiny else 0) for s in step]
    result = np.zeros(shape, labels.dtype)
    for z in range(shape[2]):
        start = inverse[:3, :3] @ origins[z] + inverse[:3, 3]
        # Rounded half up after a nudge: grids that differ by half a voxel exactly would fall either way by the last bit of a float.
        index = [np.floor(along + at + 0.5 + 1e-6).astype(np.int64) for along, at in zip(in_plane, start, strict=True)]
        inside = [(i >= 0) & (i < n) for i, n in zip(index, labels.shape, strict=True)]
        clipped = [np.clip(i, 0, n - 1) for i, n in zip(index, labels.shape, strict=True)]
        result[:, :, z] = labels[tuple(clipped)] * (inside[0] & inside[1] & inside[2])
    return result
