"""Synthetic images as DICOM: Secondary Capture (PS3.3 A.8.1) that nobody can take for a patient's.

The same image gets the same bytes and UIDs: a study is a model, a series one way of drawing from it, an instance a seed. There are no dates,
which would differ from run to run, and no patient: Type 2 attributes that would describe one are empty.
"""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from medgan.networks.bundle import window_of

NOT_DIAGNOSTIC = "SYNTHETIC, not for diagnostic use"
# IS holds signed 32-bit numbers (PS3.5 table 6.2-1); seeds go to 2^32 - 1.
MOST_INSTANCE = 2**31 - 1


def uid(*facts: object) -> str:
    """A UID of these facts alone: a name-based UUID under 2.25 (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, '|'.join(map(str, ('medgan', *facts)))).int}"


def dicom_bytes(image: np.ndarray, said: Mapping[str, str], metadata: Mapping[str, Any]) -> bytes:
    """An image as a DICOM file.

    Args:
        image: uint8 (C, H, W), C 1 or 3.
        said: What the picture says of itself (`formats.marks`), with its seed.
        metadata: Of the generator's bundle: family and recipe, whose window, where it inverts, makes the modality values those of the scans.
    """
    about = metadata["medgan"]
    model, seed = said["model"], said["seed"]
    way = [f"{name} {value}" for name, value in said.items() if name in ("software", "psi", "psi_cutoff", "noise")]
    ds = Dataset()
    # SOP Common (C.12.1): Synthetic Data; UIDs of the picture, of whose pixels the same seed on another machine may have others.
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.SOPInstanceUID = uid("instance", *said.values(), hashlib.sha256(image.tobytes()).hexdigest())
    ds.SyntheticData = "YES"
    ds.InstanceNumber = seed if int(seed) <= MOST_INSTANCE else None
    ds.ContributingEquipmentSequence = [_synthesizer(said, about)]
    # Patient (C.7.1.1) and General Study (C.7.2.1): nobody.
    ds.PatientName, ds.PatientID = "Synthetic^Image", f"SYNTHETIC-{model[:16]}"
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.PatientComments = "No patient: drawn by a generative network."
    ds.StudyInstanceUID = uid("study", model)
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.StudyID, ds.StudyDescription = "SYNTHETIC", NOT_DIAGNOSTIC
    # General Series (C.7.3.1): not CT nor MR, by which archives send images on.
    ds.Modality, ds.SeriesNumber = "OT", "1"
    ds.SeriesInstanceUID = uid("series", model, *way)
    ds.Laterality = ""
    ds.SeriesDescription = f"{NOT_DIAGNOSTIC}: {about['family']}"
    # General Equipment (C.7.5.1) and SC Equipment (C.8.6.1): Conversion Type SYN, synthetic image.
    ds.Manufacturer, ds.ManufacturerModelName = "medgan", about["family"]
    ds.SoftwareVersions, ds.DeviceSerialNumber = said["software"], model
    ds.ConversionType = "SYN"
    # General Image (C.7.6.1)
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.PatientOrientation = ""
    ds.DerivationDescription = (
        f"Drawn by a generative network from random numbers, seed {seed}; no patient was imaged. Not for diagnostic use."
    )
    ds.ImageComments = "; ".join([NOT_DIAGNOSTIC, *(f"{name} {value}" for name, value in said.items())])
    ds.BurnedInAnnotation = ds.RecognizableVisualFeatures = "NO"
    ds.LossyImageCompression = "00"
    _put_pixels(ds, image)
    window = window_of(about.get("recipe"))
    if image.shape[0] == 1 and "slope" in window:
        _put_window(ds, window)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def _synthesizer(said: Mapping[str, str], about: Mapping[str, Any]) -> Dataset:
    """What made the image, for the Contributing Equipment Sequence: purpose of PS3.16 CID 7005."""
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109100", "DCM", "Synthesizing Equipment"
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    equipment.Manufacturer, equipment.ManufacturerModelName = "medgan", about["family"]
    equipment.SoftwareVersions, equipment.DeviceSerialNumber = said["software"], said["model"]
    equipment.ContributionDescription = f"Generative network of sha256 {said['model']}. {said['disclaimer']}"
    return equipment


def _put_pixels(ds: Dataset, image: np.ndarray) -> None:
    """Image Pixel (C.7.6.3)."""
    channels, ds.Rows, ds.Columns = image.shape
    ds.SamplesPerPixel = channels
    ds.PhotometricInterpretation = "MONOCHROME2" if channels == 1 else "RGB"
    if channels == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    content = np.ascontiguousarray(image.transpose(1, 2, 0)).tobytes()
    # Of even length (PS3.5 8.1.1).
    ds.PixelData = content + b"\0" * (len(content) % 2)


def _put_window(ds: Dataset, window: Mapping[str, Any]) -> None:
    """Modality LUT (C.11.1): "Output units = m*SV + b", in HU for CT (C.11.1.1.2); VOI LUT (C.11.2) that shows the image as it is."""
    ds.RescaleIntercept = format_number_as_ds(window["intercept"])
    ds.RescaleSlope = format_number_as_ds(window["slope"])
    ds.RescaleType = "HU" if window["unit"] == "HU" else "US"
    ds.WindowCenter = format_number_as_ds(window["level"])
    ds.WindowWidth = format_number_as_ds(window["width"])
    ds.VOILUTFunction = window["function"]
