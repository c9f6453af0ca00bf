"""Outlines of organs as platforms store them: DICOM SEG written by highdicom, RT-STRUCT written by hand."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from tests.phantoms import ct_series, read_dicom, save

COMPLETE = {
    "PatientBirthDate": "", "PatientSex": "", "AccessionNumber": "", "StudyID": "", "StudyDate": "", "StudyTime": "", "ReferringPhysicianName": "",
    "SeriesNumber": 1, "PositionReferenceIndicator": "",
}  # fmt: skip


def ct_to_outline(folder: Path, hu: np.ndarray, **fields: Any) -> list[Path]:
    """A CT series with every field that a SEG copies from it."""
    return ct_series(folder, hu, **COMPLETE, **fields)


def write_seg(
    path: Path, series: Sequence[Path], masks: dict[str, np.ndarray], *, kind: str = "BINARY", omit_empty: bool = True, **fields: Any
) -> Path:
    """A SEG of masks in LPS order, (columns, rows, slices), on the grid of a series; keywords replace header fields."""
    sources = sorted((read_dicom(file) for file in series), key=lambda data: data.ImagePositionPatient[2])
    organ = CodedConcept("T-D0050", "SRT", "Tissue")
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=CodedConcept("T-D0050", "SRT", "Tissue"),
            segmented_property_type=organ,
            algorithm_type="MANUAL",
        )
        for number, name in enumerate(masks, 1)
    ]
    pixels = np.stack([mask.transpose(2, 1, 0) for mask in masks.values()], axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seg = highdicom.seg.Segmentation(
            sources,
            pixels.astype(np.float32 if kind == "FRACTIONAL" else np.uint8),
            kind,
            descriptions,
            generate_uid(),
            9,
            generate_uid(),
            1,
            "maker",
            "model",
            "1",
            "1",
            omit_empty_frames=omit_empty,
        )
    for name, value in fields.items():
        setattr(seg, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return path


def write_rtstruct(
    path: Path,
    organs: dict[str, list[np.ndarray]],
    *,
    space: str = "1.2.3.9",
    series: str = "1.2.3.1.1",
    kind: str = "CLOSED_PLANAR",
    first: int = 1,
    **fields: Any,
) -> Path:
    """An RT-STRUCT of outlines, each (points, 3) in LPS mm; ROI Numbers count from `first`."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID, data.Modality, data.PatientID = (
        RTStructureSetStorage,
        meta.MediaStorageSOPInstanceUID,
        "RTSTRUCT",
        "P1",
    )

    def item(**values: Any) -> pydicom.Dataset:
        result = pydicom.Dataset()
        for name, value in values.items():
            setattr(result, name, value)
        return result

    study = item(ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", RTReferencedSeriesSequence=[item(SeriesInstanceUID=series)])
    data.ReferencedFrameOfReferenceSequence = [item(FrameOfReferenceUID=space, RTReferencedStudySequence=[study])]
    data.StructureSetROISequence = [
        item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=space) for number, name in enumerate(organs, first)
    ]
    data.ROIContourSequence = [
        item(
            ReferencedROINumber=number,
            ContourSequence=[
                item(
                    ContourGeometricType=kind,
                    NumberOfContourPoints=len(outline),
                    ContourData=[round(float(v), 4) for v in np.ravel(outline)],
                )
                for outline in outlines
            ],
        )
        for number, outlines in enumerate(organs.values(), first)
    ]
    for name, value in fields.items():
        setattr(data, name, value)
    return save(data, path)


def outline_of(points: Sequence[tuple[float, float]], affine_ras: np.ndarray, z: float) -> np.ndarray:
    """A polygon in columns and rows of a slice, as (points, 3) in LPS mm."""
    index = np.array([[x, y, z, 1.0] for x, y in points])
    return (index @ affine_ras.T)[:, :3] * [-1, -1, 1]


def box(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    """A rectangle, counter-clockwise on the picture."""
    return [(left, top), (left, bottom), (right, bottom), (right, top)]
