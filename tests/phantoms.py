"""Scans made of known numbers: CT as DICOM series and NIfTI, an MR, label maps, in any orientation, with traps on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

AIR, FAT, LIVER, BONE = -1000.0, -100.0, 60.0, 700.0


def body(shape: tuple[int, int, int] = (32, 28, 12), *, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An abdomen in LPS order, (x to the Left, y Posterior, z Superior): HU, and a liver mask.

    An ellipse of fat in air, liver on the patient's right (low x), spine at the back (high y). The liver is in the slices
    from a third of the height to the very last. `shift` makes another patient of it.
    """
    x, y, z = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    nx, ny, nz = shape
    hu = np.full(shape, AIR)
    hu[((x - nx / 2) / (0.45 * nx)) ** 2 + ((y - ny / 2) / (0.45 * ny)) ** 2 < 1] = FAT
    liver = (np.abs(x - 0.3 * nx) < 0.14 * nx) & (np.abs(y - 0.45 * ny) < 0.2 * ny) & (z >= nz // 3)
    hu[liver] = LIVER
    hu[(np.abs(x - nx / 2) < 0.1 * nx) & (np.abs(y - 0.8 * ny) < 0.08 * ny)] = BONE
    # Each slice and each patient (up to 60) differs a little, or they would be duplicates.
    hu[(np.abs(x - 0.7 * nx) < 2) & (np.abs(y - 0.35 * ny) < 2)] = 0.0
    hu += np.where(hu == 0.0, 5.0 * z, 0.0)
    hu[(np.abs(x - 0.7 * nx) < 2) & (np.abs(y - 0.65 * ny) < 2)] = -95.0 + 5 * shift
    return hu, liver.astype(np.uint8)


def affine_for(codes: str, shape: tuple[int, ...], spacing: tuple[float, float, float] = (1.0, 1.0, 2.0)) -> np.ndarray:
    """The affine of a volume whose axes point as `codes` say, to RAS mm, with its middle at (10, -20, 30)."""
    affine = np.zeros((4, 4))
    for axis, code in enumerate(codes):
        row = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}[code]
        affine[row, axis] = spacing[axis] * (1 if code in "RAS" else -1)
    affine[:3, 3] = np.array([10.0, -20.0, 30.0]) - affine[:3, :3] @ ((np.array(shape[:3]) - 1) / 2)
    affine[3, 3] = 1
    return affine


def turned(volume_lps: np.ndarray, codes: str) -> np.ndarray:
    """A volume in LPS order with its axes turned so that they point as `codes` say; by hand, without any library."""
    order = [{"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}[code] for code in codes]
    result = np.transpose(volume_lps, order)
    for axis, code in enumerate(codes):
        if code in "RAI":
            result = np.flip(result, axis)
    return np.ascontiguousarray(result)


def write_nifti(path: Path, volume: np.ndarray, affine: np.ndarray, *, dtype: Any = np.int16, description: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(volume.astype(dtype), affine)
    image.header["descrip"] = description.encode()
    nibabel.save(image, path)
    return path


def ct_nifti(
    folder: Path, name: str = "ct.nii.gz", *, codes: str = "RAS", shift: int = 0, mask: str = "mask.nii.gz", label: int = 1
) -> Path:
    """A CT and, where `mask` is a name, its label map beside it."""
    hu, liver = body(shift=shift)
    volume = turned(hu, codes)
    affine = affine_for(codes, volume.shape)
    if mask:
        write_nifti(folder / mask, turned(liver, codes) * label, affine, dtype=np.uint8)
    return write_nifti(folder / name, volume, affine)


def dicom_slice(pixels: np.ndarray, position: tuple[float, float, float], **fields: Any) -> FileDataset:
    """One CT slice of stored integers, (rows, columns); keywords replace or add header fields, None removes one."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage if fields.get("Modality") == "MR" else CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    values: dict[str, Any] = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": "1.2.3.1",
        "SeriesInstanceUID": "1.2.3.1.1",
        "FrameOfReferenceUID": "1.2.3.9",
        "PatientID": "P1",
        "PatientName": "Doe^Jane",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "InstanceNumber": 1,
        "ImagePositionPatient": list(position),
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1.0, 1.0],
        "SliceThickness": 2.0,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(np.issubdtype(pixels.dtype, np.signedinteger)),
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
    }
    values.update(fields)
    for name, value in values.items():
        if value is not None:
            setattr(data, name, value)
    data.PixelData = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<")).tobytes()
    data["PixelData"].VR = "OW"
    return data


def save(data: FileDataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def ct_series(
    folder: Path, hu: np.ndarray, *, spacing: tuple[float, float, float] = (1.0, 1.0, 2.0), intercept: int = -1024, **fields: Any
) -> list[Path]:
    """A CT in LPS order as a DICOM series, axes along LPS, voxel (0, 0, 0) at the place that `affine_for("LPS", ...)` gives it.

    Files are named against their order in space, without an extension, and InstanceNumber runs backwards.
    """
    origin_ras = affine_for("LPS", hu.shape, spacing)[:3, 3]
    origin = origin_ras * [-1, -1, 1]
    paths = []
    for z in range(hu.shape[2]):
        stored = np.round(hu[:, :, z].T - intercept).astype(np.int16)
        data = dicom_slice(
            stored,
            (origin[0], origin[1], origin[2] + z * spacing[2]),
            **{
                "InstanceNumber": hu.shape[2] - z,
                "PixelSpacing": [spacing[1], spacing[0]],
                "RescaleIntercept": intercept,
                "SliceThickness": spacing[2],
                **fields,
            },
        )
        paths.append(save(data, folder / f"IM{hu.shape[2] - z:04d}"))
    return paths


def oblique(affine: np.ndarray, degrees: float) -> np.ndarray:
    """An affine rotated about the patient's z axis and then x axis by the same angle."""
    a = np.radians(degrees)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    result = affine.copy()
    result[:3, :] = about_x @ about_z @ affine[:3, :]
    return result


def read_dicom(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path)


def enhanced(frames: list[tuple[np.ndarray, tuple[float, float, float], dict[str, Any]]], **fields: Any) -> FileDataset:
    """An enhanced MR (or CT) multi-frame file of stored integers, each frame with its position and its own macros.

    A frame's dictionary maps a macro of the Functional Groups to its attributes, e.g. {"FrameContentSequence": {"TemporalPositionIndex": 2}};
    those of the key "shared" in `fields` hold for all frames.
    """
    shared = {"PixelMeasuresSequence": {"PixelSpacing": [1.0, 1.0], "SliceThickness": 2.0}, **fields.pop("shared", {})}
    shared.setdefault("PlaneOrientationSequence", {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]})
    data = dicom_slice(frames[0][0], (0, 0, 0), **{"Modality": "MR", "RescaleSlope": None, "RescaleIntercept": None, **fields})
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(data, name)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    data.NumberOfFrames = len(frames)

    def group(macros: dict[str, dict[str, Any]]) -> pydicom.Dataset:
        result = pydicom.Dataset()
        for macro, attributes in macros.items():
            item = pydicom.Dataset()
            for name, value in attributes.items():
                setattr(item, name, value)
            setattr(result, macro, [item])
        return result

    data.SharedFunctionalGroupsSequence = [group(shared)]
    data.PerFrameFunctionalGroupsSequence = [
        group({"PlanePositionSequence": {"ImagePositionPatient": list(position)}, **macros}) for _, position, macros in frames
    ]
    data.PixelData = b"".join(np.ascontiguousarray(pixels).tobytes() for pixels, _, _ in frames)
    data["PixelData"].VR = "OW"
    return data
