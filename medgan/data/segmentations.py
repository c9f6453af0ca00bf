"""DICOM SEG: segments on their own grid, read by highdicom, which knows sparse frames and per-frame positions (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from medgan.data.masks import LabelMap, plain
from medgan.data.quiet import quiet
from medgan.data.scans import Volume
from medgan.data.series import LPS_TO_RAS, MOST_PIXELS
from medgan.errors import DataError

# A voxel belongs to a fractional segment from this probability or occupancy on.
LEAST_FRACTION = 0.5


def segment_map(volume: Volume) -> LabelMap:
    """The segments of a SEG file; pixels are not looked at.

    Raises:
        DataError: Its frames are no volume with even steps, or one larger than can be read.
    """
    import highdicom

    with quiet():
        seg = highdicom.seg.segread(volume.path, lazy_frame_retrieval=True)
        geometry = seg.get_volume_geometry()
        if geometry is None:
            raise DataError("the frames of the SEG are no volume with even steps")
        shape, affine = _ours(geometry.spatial_shape, geometry.affine)
        descriptions = {number: seg.get_segment_description(number) for number in seg.segment_numbers if number > 0}
        references = {str(item.SeriesInstanceUID) for item in seg.get("ReferencedSeriesSequence", [])}
    return LabelMap(
        path=volume.path,
        place=volume.place,
        affine=affine,
        shape=shape,
        labels=tuple(descriptions),
        kind="SEG",
        names=tuple(
            tuple(dict.fromkeys(plain(word) for word in (item.segment_label, item.segmented_property_type.meaning) if plain(word)))
            for item in descriptions.values()
        ),
        space=str(seg.get("FrameOfReferenceUID", "")),
        references=tuple(sorted(references)),
    )


def read_segments(path: Path, numbers: Collection[int]) -> tuple[np.ndarray, np.ndarray]:
    """Where one of some segments lies.

    Args:
        path: The file.
        numbers: Segment Numbers.

    Returns:
        (columns, rows, slices) uint8, 1 inside, on the SEG's own grid with missing frames empty; and the grid's affine to RAS mm.
    """
    import highdicom

    with quiet():
        seg = highdicom.seg.segread(path)
        result: np.ndarray | None = None
        for number in numbers:
            found = seg.get_volume(segment_numbers=[number], rescale_fractional=True)
            inside = np.asarray(found.array)[..., 0] >= LEAST_FRACTION
            result = inside if result is None else result | inside
    if result is None:
        raise DataError("no segment is asked for")
    _, affine = _ours(result.shape, found.affine)
    return np.ascontiguousarray(result.transpose(2, 1, 0)).astype(np.uint8), affine


def _ours(shape: tuple[int, ...], affine: np.ndarray) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine as (columns, rows, slices) in RAS, of highdicom's (slices, rows, columns) in LPS."""
    slices, rows, columns = (int(n) for n in shape[:3])
    if slices * rows * columns > MOST_PIXELS:
        raise DataError("the SEG claims more than 2 billion voxels")
    return (columns, rows, slices), LPS_TO_RAS @ np.asarray(affine, np.float64)[:, [2, 1, 0, 3]]
