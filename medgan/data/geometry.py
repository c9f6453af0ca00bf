"""Volumes to pictures: orientation as radiologists look at them, planes, squares, sizes.

Affines map voxel indices to RAS millimetres (x to the patient's Right, y Anterior, z Superior), as in NIfTI and MONAI.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.spatial.array import Orientation
from PIL import Image
from torch import Tensor

from medgan.data.recipe import SIZES

MOST_UPSAMPLING = 1.5
# Slices so many times farther apart than pixels give visibly blurred pictures across them.
MOST_COARSE = 2.0


def orientation_name(affine: np.ndarray) -> str:
    """Where the voxel axes point, by their closest anatomical direction: `LAS`, `RAS`, ..."""
    return "".join(nibabel.aff2axcodes(affine))


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Distances between voxel centres along the three axes in mm."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def towards_lps(volume: Tensor, affine: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """A volume with its axes turned and flipped so that indices rise to the Left, Posterior and Superior; no resampling.

    An oblique volume keeps its own planes: each axis goes to the anatomical direction closest to it.

    Args:
        volume: (X, Y, Z), any dtype.
        affine: (4, 4) to RAS mm.

    Returns:
        The volume and its affine.
    """
    # labels=None: by default Orientation takes the axis letters of whatever space the metadata claims.
    turned = Orientation(axcodes="LPS", labels=None)(MetaTensor(volume[None], affine=torch.as_tensor(affine, dtype=torch.float64)))
    return turned.as_tensor()[0], np.asarray(turned.affine, dtype=np.float64)


@dataclass(frozen=True)
class Cut:
    """How one plane is taken out of a volume in LPS order.

    Args:
        across: Axis of the volume along which pictures follow one another.
        down: Axis that runs down a picture, `right`: the one that runs to the right.
        flip_down: Whether the picture's rows run against the axis.
    """

    across: int
    down: int
    right: int
    flip_down: bool


# Axial: nose up, patient's right on the left. Coronal: head up, right on the left. Sagittal: head up, nose on the left.
CUTS = {
    "axial": Cut(across=2, down=1, right=0, flip_down=False),
    "coronal": Cut(across=1, down=2, right=0, flip_down=True),
    "sagittal": Cut(across=0, down=2, right=1, flip_down=True),
    # As it lies in the file, without `towards_lps`: columns, rows, slices.
    "stored": Cut(across=2, down=1, right=0, flip_down=False),
}


def pictures(volume: Tensor, plane: str) -> Tensor:
    """All pictures of a plane as a radiologist sees them.

    Args:
        volume: (L, P, S), see `towards_lps`; for `stored` as it was read.
        plane: axial, coronal, sagittal or stored.

    Returns:
        (N, rows, columns): axial from the feet up, coronal from front to back, sagittal from right to left.
    """
    cut = CUTS[plane]
    turned = volume.permute(cut.across, cut.down, cut.right)
    return turned.flip(1) if cut.flip_down else turned


def picture_spacing(spacing_mm: tuple[float, float, float], plane: str) -> tuple[float, float, float]:
    """Distances in mm: between pictures, down a picture, to the right."""
    cut = CUTS[plane]
    return spacing_mm[cut.across], spacing_mm[cut.down], spacing_mm[cut.right]


def across_acquired(affine: np.ndarray, plane: str) -> bool:
    """Whether pictures of a plane cut through the slices as they were acquired (the third axis of the file)."""
    return plane != "stored" and CUTS[plane].across != int(nibabel.io_orientation(affine)[2][0])


def notes_on_plane(affine: np.ndarray, plane: str) -> list[str]:
    """What is odd about taking a plane of a volume: slices acquired in another one, and far apart."""
    x, y, z = spacing_of(affine)
    if not across_acquired(affine, plane) or z <= MOST_COARSE * min(x, y):
        return []
    return [f"cut across slices that were acquired in another plane (--plane stored shows them as acquired): {z:.3g} mm apart"]


def square(picture: np.ndarray, spacing_mm: tuple[float, float], black: float = 0.0) -> np.ndarray:
    """A picture padded with black to a physical square, itself in the middle.

    Where the pixels are no squares the numbers of rows and columns differ, and resizing to a square makes the pixels so:
    the anatomy is never stretched (the side is met to half a pixel).

    Args:
        picture: (rows, columns).
        spacing_mm: Distance between rows and between columns.
        black: The value to pad with.
    """
    rows, columns = picture.shape[:2]
    side_mm = max(rows * spacing_mm[0], columns * spacing_mm[1])
    return _padded(picture, max(rows, round(side_mm / spacing_mm[0])), max(columns, round(side_mm / spacing_mm[1])), black)


def _padded(picture: np.ndarray, rows: int, columns: int, black: float = 0.0) -> np.ndarray:
    missing = [(have - picture.shape[axis]) for axis, have in enumerate((rows, columns))]
    sides = [(m // 2, m - m // 2) for m in missing] + [(0, 0)] * (picture.ndim - 2)
    return np.pad(picture, sides, constant_values=black)


def resize(picture: np.ndarray, size: int) -> np.ndarray:
    """A float picture in [0, 1] at (size, size), antialiased (Lanczos, as the official dataset tool), clipped to [0, 1] again."""
    return _resized(picture, size, size)


def _resized(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    if picture.shape[:2] == (rows, columns):
        return picture
    if picture.ndim == 3:
        return np.stack([_resized(picture[..., c], rows, columns) for c in range(picture.shape[2])], axis=-1)
    resized = Image.fromarray(np.ascontiguousarray(picture, np.float32)).resize((columns, rows), Image.Resampling.LANCZOS)
    return np.clip(np.asarray(resized), 0.0, 1.0)


def fit(picture: np.ndarray, spacing_mm: tuple[float, float], size: int, how: str) -> np.ndarray:
    """A picture at (size, size), black around it, never stretched.

    Args:
        picture: (rows, columns) or (rows, columns, channels) float in [0, 1].
        spacing_mm: Distance between rows and between columns.
        size: Side in pixels.
        how: `resize` scales the padded square to `size`. `pad` keeps the pixels and only adds black; a picture larger than `size`
            is scaled all the same, and pixels that are no squares are made so at their smaller side first.
    """
    if how == "pad":
        smaller = min(spacing_mm)
        rows, columns = (round(n * mm / smaller) for n, mm in zip(picture.shape[:2], spacing_mm, strict=True))
        if max(rows, columns) <= size:
            return _padded(_resized(picture, rows, columns), size, size)
    return resize(square(picture, spacing_mm), size)


def next_size(pixels: int) -> int:
    """The smallest size that a network takes and that holds so many pixels, else the largest there is."""
    return next((size for size in SIZES if size >= pixels), SIZES[-1])


def upsampling(shape: tuple[int, int], size: int, how: str = "resize") -> float:
    """By how much a picture grows when its longer side becomes `size`; 1 where it is only padded."""
    return 1.0 if how == "pad" and max(shape) <= size else size / max(shape)
