"""Enhanced multi-frame files: each frame as if it were a classic file of its own (PS3.3 C.7.6.16).

What holds for all frames stands in the Shared Functional Groups, the rest in one item per frame. Both are laid over the
file's header under the names classic files use, so that grouping, ordering and photometry are written once.
"""

from __future__ import annotations

from collections.abc import Iterator

import pydicom

# Macro -> its attributes -> the names in classic files.
MACROS: dict[str, dict[str, str]] = {
    "PixelMeasuresSequence": {"PixelSpacing": "", "SliceThickness": ""},
    "PlanePositionSequence": {"ImagePositionPatient": ""},
    "PlaneOrientationSequence": {"ImageOrientationPatient": ""},
    "PixelValueTransformationSequence": {"RescaleSlope": "", "RescaleIntercept": ""},
    "FrameVOILUTSequence": {"WindowCenter": "", "WindowWidth": "", "VOILUTFunction": ""},
    "FrameContentSequence": {"StackID": "", "TemporalPositionIndex": "TemporalPositionIdentifier", "FrameAcquisitionNumber": "AcquisitionNumber"},
    "TemporalPositionSequence": {"TemporalPositionTimeOffset": "TriggerTime"},
    "CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": "TriggerTime"},
    "MREchoSequence": {"EffectiveEchoTime": "EchoTime"},
    "MRDiffusionSequence": {"DiffusionBValue": ""},
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "MRImageFrameTypeSequence": {"FrameType": "ImageType"},
    "PETFrameTypeSequence": {"FrameType": "ImageType"},
}  # fmt: skip

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def frame_count(data: pydicom.Dataset) -> int:
    """How many frames a file holds; 1 for a classic file and for a number that is none."""
    try:
        return max(int(data.get("NumberOfFrames") or 1), 1)
    except (TypeError, ValueError):
        return 1


def is_enhanced(data: pydicom.Dataset) -> bool:
    """Whether each frame says where it lies, so that frames can be put in order."""
    return len(data.get(GROUPS[1]) or ()) == frame_count(data)


def frame_headers(data: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """The header of each frame in turn; see `frame_header`."""
    for frame in range(frame_count(data)):
        yield frame_header(data, frame)


def frame_header(data: pydicom.Dataset, frame: int) -> pydicom.Dataset:
    """The header of one frame, without pixels; a classic file is returned as it is.

    Args:
        data: The file.
        frame: Which frame, counted from 0.
    """
    if GROUPS[1] not in data:
        return data
    result = pydicom.Dataset()
    for element in data:
        if element.keyword not in (*GROUPS, "PixelData"):
            result[element.tag] = element
    shared = data.get(GROUPS[0]) or [pydicom.Dataset()]
    for group in (shared[0], data[GROUPS[1]].value[frame]):
        for macro, names in MACROS.items():
            for item in (group.get(macro) or ())[:1]:
                for name, classic in names.items():
                    if name in item:
                        setattr(result, classic or name, item[name].value)
    return result
