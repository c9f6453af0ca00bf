"""RT-STRUCT: outlines of organs in the patient's space, filled on the grid of a scan (PS3.3 C.8.8.5 and C.8.8.6).

A voxel is inside where a ray to it crosses an odd number of outlines of its plane: holes, islands in holes and keyholes come out right,
and CLOSED_PLANAR_XOR is the same rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from medgan.data.masks import LabelMap, plain, resample_labels
from medgan.data.quiet import quiet
from medgan.data.scans import Volume
from medgan.errors import DataError

CLOSED = ("CLOSED_PLANAR", "CLOSED_PLANAR_XOR", "CLOSEDPLANAR_XOR")
# A patient is no longer than this; outlines that reach farther are broken.
MOST_MM = 4000.0
# Where outlines were drawn on every second or third slice, the ones between take the nearest.
MOST_SLICES_APART = 3.0
MOST_EDGES_AT_ONCE = 2000
MOST_VOXELS = 2**29


@dataclass(frozen=True)
class Structures:
    """What an RT-STRUCT file holds: outlines, each (points, 3) in RAS mm, and names by ROI Number."""

    outlines: dict[int, list[np.ndarray]]
    names: dict[int, tuple[str, ...]]
    space: str
    references: tuple[str, ...]


def read_structures(path: Path) -> Structures:
    """The closed outlines of a file; points and open lines are left out.

    Raises:
        DataError: An outline is broken.
    """
    with quiet():
        data = pydicom.dcmread(path, force=True)
        names: dict[int, list[str]] = defaultdict(list)
        spaces = set()
        for item in data.get("StructureSetROISequence") or []:
            names[int(item.ROINumber)].append(str(item.get("ROIName", "")))
            spaces.add(str(item.get("ReferencedFrameOfReferenceUID", "")))
        for item in data.get("RTROIObservationsSequence") or []:
            number = int(item.get("ReferencedROINumber", -1))
            names[number] += [str(item.get("ROIObservationLabel", ""))]
            names[number] += [str(code.get("CodeMeaning", "")) for code in item.get("RTROIIdentificationCodeSequence") or []]
        outlines: dict[int, list[np.ndarray]] = {}
        for item in data.get("ROIContourSequence") or []:
            found = [_points(contour) for contour in item.get("ContourSequence") or [] if contour.get("ContourGeometricType") in CLOSED]
            if found:
                outlines.setdefault(int(item.ReferencedROINumber), []).extend(found)
        references = tuple(sorted(_references(data)))
    spoken = {number: tuple(dict.fromkeys(word for text in texts if (word := plain(text)))) for number, texts in names.items()}
    return Structures(outlines, spoken, spaces.pop() if len(spaces) == 1 else "", references)


def _points(contour: pydicom.Dataset) -> np.ndarray:
    values = np.asarray(contour.get("ContourData") or [], np.float64)
    if len(values) % 3 or len(values) < 9 or not np.all(np.isfinite(values)) or np.abs(values).max() > 1e6:
        raise DataError("an outline of the RT-STRUCT is broken")
    return values.reshape(-1, 3) * [-1, -1, 1]


def _references(data: pydicom.Dataset) -> Iterator[str]:
    for space in data.get("ReferencedFrameOfReferenceSequence") or []:
        for study in space.get("RTReferencedStudySequence") or []:
            for series in study.get("RTReferencedSeriesSequence") or []:
                yield str(series.get("SeriesInstanceUID", ""))


def contour_map(volume: Volume) -> LabelMap:
    """The outlined organs of an RT-STRUCT file, in the box around them.

    Raises:
        DataError: It has no closed outline, or they reach farther than a patient.
    """
    found = read_structures(volume.path)
    if not found.outlines:
        raise DataError("the RT-STRUCT has no closed outline")
    points = np.concatenate([outline for outlines in found.outlines.values() for outline in outlines])
    low, high = points.min(axis=0), points.max(axis=0)
    if (high - low).max() > MOST_MM:
        raise DataError("the outlines of the RT-STRUCT reach farther than a patient")
    affine = np.eye(4)
    affine[:3, 3] = low
    x, y, z = (int(n) for n in np.ceil(high - low) + 1)
    labels = tuple(sorted(found.outlines))
    return LabelMap(
        path=volume.path,
        place=volume.place,
        affine=affine,
        shape=(x, y, z),
        labels=labels,
        kind="RTSTRUCT",
        names=tuple(found.names.get(number, ()) for number in labels),
        space=found.space,
        references=found.references,
    )


def fill(path: Path, numbers: Collection[int], shape: tuple[int, int, int], affine: np.ndarray, origins: np.ndarray | None) -> np.ndarray:
    """Where one of some organs lies, on the grid of a scan.

    Outlines parallel to the scan's slices are filled on them exactly: a voxel counts where its centre is inside. Others are filled in
    their own planes and the nearest voxel is taken.

    Args:
        path: The file.
        numbers: ROI Numbers.
        shape: Voxels of the scan.
        affine: (4, 4) of the scan to RAS mm.
        origins: (Z, 3) RAS position of each slice's first voxel; None takes the affine's.

    Returns:
        Array of `shape`, uint8, 1 inside.
    """
    if origins is None:
        origins = affine[:3, 3] + np.arange(shape[2])[:, None] * affine[:3, 2]
    structures = read_structures(path)
    result = np.zeros(shape, np.uint8)
    for number in numbers:
        outlines = structures.outlines.get(number, [])
        if outlines:
            result |= _fill_one(outlines, shape, affine, origins)
    return result


def _fill_one(outlines: list[np.ndarray], shape: tuple[int, int, int], affine: np.ndarray, origins: np.ndarray) -> np.ndarray:
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    normal /= np.linalg.norm(normal)
    step = abs(float(affine[:3, 2] @ normal))
    if max(float(np.ptp(outline @ normal)) for outline in outlines) <= 0.25 * step:
        return _fill_parallel(outlines, shape, affine, origins, normal, step)
    return _fill_across(outlines, shape, affine, origins)


def _fill_parallel(
    outlines: list[np.ndarray], shape: tuple[int, int, int], affine: np.ndarray, origins: np.ndarray, normal: np.ndarray, step: float
) -> np.ndarray:
    planes: dict[float, list[np.ndarray]] = defaultdict(list)
    for outline in outlines:
        # 0.01 mm: positions are written with two or more decimals.
        planes[round(float(np.mean(outline @ normal)), 2)].append(outline)
    heights = np.array(sorted(planes))
    reach = _reach(heights, step)
    # From RAS mm to columns and rows; what stands out of the plane by rounding is dropped.
    inward = np.linalg.pinv(affine[:3, :2])
    result = np.zeros(shape, np.uint8)
    for z, origin in enumerate(origins):
        distance = np.abs(heights - origin @ normal)
        nearest = int(np.argmin(distance))
        if distance[nearest] <= reach:
            result[:, :, z] = _inside([(outline - origin) @ inward.T for outline in planes[heights[nearest]]], shape[:2])
    return result


def _reach(heights: np.ndarray, step: float) -> float:
    """How far from its plane an outline counts: half the distance between outlines, or half a slice where they lie farther apart."""
    usual = float(np.median(np.diff(heights))) if len(heights) > 1 else step
    return (usual if usual <= MOST_SLICES_APART * step else step) / 2 + 0.01


def _inside(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Grid points inside an odd number of polygons.

    Args:
        polygons: Each (points, 2): column and row as fractions, closed by its first point.
        shape: Columns and rows.

    Returns:
        (columns, rows) uint8.
    """
    toggles = np.zeros((shape[0] + 1, shape[1]), np.int32)
    rows = np.arange(shape[1])
    for polygon in polygons:
        ahead = np.roll(polygon, -1, axis=0)
        for at in range(0, len(polygon), MOST_EDGES_AT_ONCE):
            (x1, y1), (x2, y2) = polygon[at : at + MOST_EDGES_AT_ONCE].T, ahead[at : at + MOST_EDGES_AT_ONCE].T
            # Half-open, so that a corner on a row counts once.
            edge, row = np.nonzero((y1[:, None] <= rows) != (y2[:, None] <= rows))
            x = x1[edge] + (row - y1[edge]) * (x2[edge] - x1[edge]) / (y2[edge] - y1[edge])
            np.add.at(toggles, (np.clip(np.ceil(x), 0, shape[0]).astype(int), row), 1)
    return (np.cumsum(toggles, axis=0)[:-1] % 2).astype(np.uint8)


def _fill_across(outlines: list[np.ndarray], shape: tuple[int, int, int], affine: np.ndarray, origins: np.ndarray) -> np.ndarray:
    spacing = float(np.linalg.norm(affine[:3, :2], axis=0).min())
    # The plane of the longest outline: the direction in which its points vary least.
    longest = max(outlines, key=len)
    across, _, normal = np.linalg.svd(longest - longest.mean(axis=0), full_matrices=False)[2]
    if max(float(np.ptp(outline @ normal)) for outline in outlines) > spacing:
        raise DataError("the outlines of the RT-STRUCT do not lie in parallel planes")
    down = np.cross(normal, across)
    axes = np.stack([across, down, normal])
    points = np.concatenate(outlines) @ axes.T
    low, high = points.min(axis=0), points.max(axis=0)
    heights = np.unique(np.round([float(np.mean(outline @ normal)) for outline in outlines], 2))
    step = float(np.median(np.diff(heights))) if len(heights) > 1 else spacing
    counts = np.ceil((high - low) / [spacing, spacing, step]).astype(int) + 1
    if np.prod(counts, dtype=np.float64) > MOST_VOXELS:
        raise DataError("the outlines of the RT-STRUCT reach farther than a patient")
    own = np.eye(4)
    own[:3, :3] = axes.T * [spacing, spacing, step]
    own[:3, 3] = axes.T @ [low[0], low[1], heights[0]]
    x, y, z = (int(n) for n in counts)
    own_origins = own[:3, 3] + np.arange(z)[:, None] * own[:3, 2]
    filled = _fill_parallel(outlines, (x, y, z), own, own_origins, normal, step)
    return resample_labels(filled, own, shape, affine, origins)
