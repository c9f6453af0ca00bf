"""Scans in one file: NIfTI through MONAI's NibabelReader, MetaImage and NRRD through SimpleITK; all with affines to RAS mm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from monai.data.image_reader import ImageReader, NibabelReader
from monai.transforms.io.array import LoadImage
from monai.utils import MetaKeys, SpaceKeys

from medgan.data.quiet import quiet
from medgan.data.scans import Volume
from medgan.errors import DataError

# 2 ** 31 voxels as float32 are 8 GiB; a header that claims more is broken or hostile.
MOST_VOXELS = 2**31

# ITK's C++ writes file names to stderr.
SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)


class SimpleItkReader(ImageReader):
    """MetaImage and NRRD for `monai.transforms.LoadImage` (MONAI's ITKReader needs itk: 1.5 GB)."""

    def verify_suffix(self, filename: Any) -> bool:
        names = [filename] if isinstance(filename, str | Path) else filename
        return all(str(name).lower().endswith((".mhd", ".mha", ".nrrd", ".nhdr")) for name in names)

    def read(self, data: Any, **kwargs: Any) -> Any:
        names = [data] if isinstance(data, str | Path) else data
        return SimpleITK.ReadImage(str(names[0]))

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """The volume as (x, y, z) and its affine to RAS mm."""
        if img.GetNumberOfComponentsPerPixel() != 1:
            raise DataError("colour where grey is expected")
        values = SimpleITK.GetArrayFromImage(img).T
        affine = itk_affine(img)
        meta = {
            str(MetaKeys.AFFINE): affine,
            str(MetaKeys.ORIGINAL_AFFINE): affine.copy(),
            str(MetaKeys.SPACE): SpaceKeys.RAS,
            str(MetaKeys.SPATIAL_SHAPE): np.array(values.shape),
            str(MetaKeys.ORIGINAL_CHANNEL_DIM): float("nan"),
        }
        return values, meta


def itk_affine(img: Any) -> np.ndarray:
    """Affine to RAS mm of a SimpleITK image or of an ImageFileReader that has read its header (both speak LPS)."""
    n = img.GetDimension()
    affine = np.eye(4)
    affine[:n, :n] = np.array(img.GetDirection()).reshape(n, n) * np.array(img.GetSpacing())
    affine[:n, 3] = img.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_geometry(path: Path) -> tuple[tuple[int, ...], np.ndarray, bool]:
    """Shape (trailing axes of 1 left out), affine to RAS mm, and whether the file says how it lies in space.

    Raises:
        DataError: The header claims more voxels than can be read.
    """
    with quiet():
        if _is_nifti(path):
            image = nibabel.load(path)
            shape, affine = image.shape, np.asarray(image.affine, np.float64)
            # Without sform and qform the affine is a guess from the voxel sizes.
            placed = int(image.header["sform_code"]) > 0 or int(image.header["qform_code"]) > 0
        else:
            reader = SimpleITK.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            shape, placed = tuple(reader.GetSize()), True
            affine = itk_affine(reader) if len(shape) <= 3 else np.eye(4)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if np.prod(shape, dtype=np.float64) > MOST_VOXELS:
        raise DataError("the header claims more than 2 billion voxels")
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError("the header's affine cannot be inverted")
    return shape, affine, placed


def read_volume(volume: Volume, frame: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """Values, (X, Y, Z) float32, and affine to RAS mm.

    Args:
        volume: The file.
        frame: Which volume of a 4-D NIfTI file, from 0; the others are not kept in memory. -1 for a file that holds one.
    """
    if frame >= 0 and _is_nifti(volume.path):
        with quiet():
            return np.asarray(nibabel.load(volume.path).dataobj[..., frame], np.float32), volume.affine
    reader = NibabelReader() if _is_nifti(volume.path) else SimpleItkReader()
    with quiet():
        image = LoadImage(image_only=True)(volume.path, reader=reader)
    values = image.as_tensor().numpy()
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3:
        raise DataError(f"{values.ndim}-D: a recipe for this data set must say which volume is meant")
    return values, np.asarray(image.affine, np.float64)


def middle_slice(volume: Volume) -> np.ndarray | None:
    """The middle slice of a NIfTI file without reading the rest into memory; None for other formats."""
    if not _is_nifti(volume.path):
        return None
    with quiet():
        image = nibabel.load(volume.path)
        values: np.ndarray = np.asarray(image.dataobj[:, :, image.shape[2] // 2])
    return values
