"""Scans in one file: NIfTI through nibabel, MetaImage and NRRD through SimpleITK; all with affines to RAS mm.

A 4-D file is a row of volumes (time points of a cine, channels of one examination), each read alone.
"""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from monai.data.image_reader import ImageReader
from monai.transforms.io.array import LoadImage
from monai.utils import MetaKeys, SpaceKeys

from medgan.data.quiet import quiet
from medgan.data.scans import Volume
from medgan.errors import DataError

# 2 ** 31 voxels as float32 are 8 GiB; a header that claims more is broken or hostile.
MOST_VOXELS = 2**31
MOST_VOLUMES = 100_000

# gzip and zlib shrink at most 1032 times (all zeros), so a file cannot hold more than that.
MOST_SHRUNK = 1032

DAMAGED = "the compressed file is damaged"
BLOCK = 2**20

ITK_HEADERS = (".mhd", ".mha", ".nrrd", ".nhdr")

# ITK's C++ writes file names to stderr.
SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)


def _meta(affine: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    return {
        str(MetaKeys.AFFINE): affine,
        str(MetaKeys.ORIGINAL_AFFINE): affine.copy(),
        str(MetaKeys.SPACE): SpaceKeys.RAS,
        str(MetaKeys.SPATIAL_SHAPE): np.array(values.shape),
        str(MetaKeys.ORIGINAL_CHANNEL_DIM): float("nan"),
    }


class VolumeReader(ImageReader):
    """One volume of a NIfTI, MetaImage or NRRD file for `monai.transforms.LoadImage` (MONAI's ITKReader needs itk: 1.5 GB).

    Args:
        frame: Which volume of a 4-D file, counted from 0; -1 for a file that holds one. Axes beyond the fourth are counted on, the fourth fastest.
    """

    def __init__(self, frame: int = -1) -> None:
        super().__init__()
        self.frame = frame

    def verify_suffix(self, filename: Any) -> bool:
        names = [filename] if isinstance(filename, str | Path) else filename
        return all(_is_nifti(Path(name)) or str(name).lower().endswith(ITK_HEADERS) for name in names)

    def read(self, data: Any, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
        path = Path(data if isinstance(data, str | Path) else data[0])
        shape, affine, _ = read_geometry(path)
        if len(shape) > 3 and self.frame < 0:
            raise DataError(f"{len(shape)}-D: a recipe for this data set must say which volume is meant")
        if self.frame >= np.prod(shape[3:]):
            raise DataError(f"the file holds {int(np.prod(shape[3:]))} volumes, number {self.frame} from 0 is none")
        values = _nifti_values(path, self.frame) if _is_nifti(path) else _itk_values(path, self.frame)
        return values, affine

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """The volume as (x, y, z) float32 and its affine to RAS mm."""
        values, affine = img
        return values, _meta(affine, values)


def _three_axes(values: np.ndarray) -> np.ndarray:
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return values.reshape(*values.shape, *[1] * (3 - values.ndim))


def _nifti_values(path: Path, frame: int) -> np.ndarray:
    image = nibabel.load(path)
    if not path.name.lower().endswith(".gz"):
        return _nifti_frame(image, frame)
    # The checksum stands after the voxels, where nibabel does not read: without it a damaged file gives pictures of noise.
    try:
        with gzip.open(path) as file:
            values = _nifti_frame(type(image).from_stream(file), frame)
            while file.read(BLOCK):
                pass
    except (gzip.BadGzipFile, zlib.error):
        raise DataError(DAMAGED) from None
    return values


def _nifti_frame(image: Any, frame: int) -> np.ndarray:
    values = image.dataobj if frame < 0 or len(image.shape) < 4 else _frame_of(image.dataobj, frame)
    return _three_axes(np.asarray(values, np.float32))


def _frame_of(data: Any, frame: int) -> Any:
    # Slicing the proxy reads this part of the file only; axes beyond the fourth are counted on, as Fortran order has them.
    index = np.unravel_index(frame, data.shape[3:], order="F")
    return data[(slice(None), slice(None), slice(None), *(int(i) for i in index))]


def _itk_values(path: Path, frame: int) -> np.ndarray:
    _check_packed(path)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size = list(reader.GetSize())
    if frame < 0 or len(size) < 4:
        image = SimpleITK.ReadImage(str(path))
    else:
        reader.SetExtractIndex([0, 0, 0, frame])
        reader.SetExtractSize([*size[:3], 0])
        image = reader.Execute()
    return _three_axes(np.asarray(SimpleITK.GetArrayFromImage(image).T, np.float32))


def _check_packed(path: Path) -> None:
    """Refuse a packed MetaImage or NRRD whose stream is damaged: ITK reads no checksum, and of a broken MetaImage gives what it has.

    Raises:
        DataError: It is damaged, or ends too early.
    """
    head = path.open("rb").read(1 << 16)
    if not _GZIPPED.search(head):
        return
    is_nrrd = head.startswith(b"NRRD")
    header = re.split(rb"\r?\n\r?\n", head)[0] if is_nrrd else head
    found = _DETACHED.search(header)
    if found and found.group(1).upper() != b"LOCAL":
        data, start = path.parent / found.group(1).decode("utf-8", "replace"), 0
    else:
        data, start = path, len(header) if is_nrrd or not found else head.index(b"\n", found.end()) + 1
    # zlib or gzip, as ITK takes them.
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    with data.open("rb") as file:
        file.seek(start)
        # A NRRD's header ends with an empty line.
        block = file.read(BLOCK).lstrip(b"\r\n") if is_nrrd and data == path else file.read(BLOCK)
        try:
            while block and not unpack.eof:
                unpack.decompress(block, BLOCK)
                block = unpack.unconsumed_tail or file.read(BLOCK)
        except zlib.error:
            raise DataError(DAMAGED) from None
    if not unpack.eof:
        raise DataError(DAMAGED)


def itk_affine(img: Any) -> np.ndarray:
    """Affine to RAS mm of a SimpleITK image or of an ImageFileReader that has read its header (both speak LPS).

    Of a 4-D image the first three axes count.
    """
    n = img.GetDimension()
    m = min(n, 3)
    affine = np.eye(4)
    affine[:m, :m] = (np.array(img.GetDirection()).reshape(n, n) * np.array(img.GetSpacing()))[:m, :m]
    affine[:m, 3] = img.GetOrigin()[:m]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_geometry(path: Path) -> tuple[tuple[int, ...], np.ndarray, bool]:
    """Shape (trailing axes of 1 left out), affine to RAS mm, and whether the file says how it lies in space.

    Raises:
        DataError: The header claims more voxels than can be read or than the file can hold, or colour, or another file elsewhere.
    """
    with quiet():
        if _is_nifti(path):
            image = nibabel.load(path)
            shape, affine = image.shape, np.asarray(image.affine, np.float64)
            if image.get_data_dtype().fields is not None or np.issubdtype(image.get_data_dtype(), np.complexfloating):
                raise DataError("colour or complex numbers where grey is expected")
            # Without sform and qform the affine is a guess from the voxel sizes.
            placed = int(image.header["sform_code"]) > 0 or int(image.header["qform_code"]) > 0
            claimed = np.prod(shape, dtype=np.float64) * image.get_data_dtype().itemsize
            _check_claim(claimed, path.stat().st_size, path.name.lower().endswith(".gz"))
        else:
            size, packed = _itk_data(path)
            reader = SimpleITK.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            if reader.GetNumberOfComponents() != 1:
                raise DataError("colour where grey is expected")
            shape, placed, affine = tuple(reader.GetSize()), True, itk_affine(reader)
            _check_claim(np.prod(shape, dtype=np.float64) * _ITEM_SIZES.get(reader.GetPixelID(), 1), size, packed)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) < 2 or min(shape) < 1:
        raise DataError("the header claims no voxels")
    if np.prod(shape[:3], dtype=np.float64) > MOST_VOXELS or np.prod(shape[3:], dtype=np.float64) > MOST_VOLUMES:
        raise DataError("the header claims more than 2 billion voxels")
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError("the header's affine cannot be inverted")
    return shape, affine, placed


def _check_claim(claimed: float, size: int, packed: bool) -> None:
    """Refuse before anything is allocated what the bytes on disk cannot be."""
    if claimed > size * (MOST_SHRUNK if packed else 1):
        raise DataError("the file is shorter than its header says")


_ITEM_SIZES = {
    **dict.fromkeys((SimpleITK.sitkUInt8, SimpleITK.sitkInt8), 1),
    **dict.fromkeys((SimpleITK.sitkUInt16, SimpleITK.sitkInt16), 2),
    **dict.fromkeys((SimpleITK.sitkUInt32, SimpleITK.sitkInt32, SimpleITK.sitkFloat32), 4),
    **dict.fromkeys((SimpleITK.sitkUInt64, SimpleITK.sitkInt64, SimpleITK.sitkFloat64), 8),
}

# NRRD also writes text and bzip2; text takes at least two characters a voxel of any type.
_DETACHED = re.compile(rb"^[ \t]*(?:ElementDataFile|data ?file)[ \t]*[=:][ \t]*(.*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_RAW = re.compile(rb"^[ \t]*(?:CompressedData[ \t]*=[ \t]*False|encoding[ \t]*:[ \t]*raw)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_GZIPPED = re.compile(
    rb"^[ \t]*(?:CompressedData[ \t]*=[ \t]*True|encoding[ \t]*:[ \t]*(?:gzip|gz))[ \t]*\r?$", re.IGNORECASE | re.MULTILINE
)
_META = re.compile(rb"^[ \t]*CompressedData[ \t]*=[ \t]*True[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


def _itk_data(path: Path) -> tuple[int, bool]:
    """Bytes on disk that hold a file's voxels, and whether they may be packed.

    A header may name any file of this machine as its data: one outside its own folder is refused.
    """
    head = path.open("rb").read(1 << 16)
    is_nrrd = head.startswith(b"NRRD")
    packed = not _RAW.search(head) if is_nrrd else bool(_META.search(head))
    found = _DETACHED.search(head.split(b"\n\n")[0] if is_nrrd else head)
    name = found.group(1).decode("utf-8", "replace") if found else "LOCAL"
    if name.upper() == "LOCAL" or (is_nrrd and not found):
        return path.stat().st_size, packed
    if name.split()[0:1] == ["LIST"] or "%" in name:
        raise DataError("its voxels are spread over several files")
    if Path(name).name != name or name in (".", ".."):
        raise DataError("its header names a data file outside its folder")
    data = path.parent / name
    if not data.is_file():
        raise DataError("its data file is missing")
    return data.stat().st_size, packed


def read_volume(volume: Volume, frame: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """Values, (X, Y, Z) float32, and affine to RAS mm.

    Args:
        volume: The file.
        frame: Which volume of a 4-D file, from 0; the others are not kept in memory. -1 for a file that holds one.

    Raises:
        DataError: The file holds several volumes and `frame` names none, or its header cannot be.
    """
    with quiet():
        image = LoadImage(image_only=True)(volume.path, reader=VolumeReader(frame))
    return image.as_tensor().numpy(), np.asarray(image.affine, np.float64)


def middle_slice(volume: Volume) -> np.ndarray | None:
    """The middle slice of a NIfTI file without reading the rest into memory; None for other formats and 4-D files."""
    if not _is_nifti(volume.path):
        return None
    with quiet():
        image = nibabel.load(volume.path)
        if len(image.shape) != 3:
            return None
        values: np.ndarray = np.asarray(image.dataobj[:, :, image.shape[2] // 2])
    return values
