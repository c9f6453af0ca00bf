"""From stored integers to measured values, and how a header wants them shown: the photometry of one DICOM slice.

The order is that of PS3.4 N.2: bits stored, modality LUT or rescale, then (for pictures only) VOI LUT or window, and last the
inversion of MONOCHROME1. docs/explanation/dicom.md lists each rule with its paragraph and its test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom

from medgan.data import jpeg  # noqa: F401  the decoder of JPEG Lossless and 12-bit JPEG registers itself with pydicom
from medgan.errors import DataError

ENDS_WITH_FFD9 = pydicom.uid.JPEG2000TransferSyntaxes + pydicom.uid.JPEGTransferSyntaxes + pydicom.uid.JPEGLSTransferSyntaxes


def stored_values(data: pydicom.Dataset, frame: int = 0) -> np.ndarray:
    """Pixels as stored, (rows, columns), in the integer type of BitsStored: bits above HighBit are not part of the value.

    Old scanners keep overlays in the unused high bits (PS3.5 8.1.1); compressed syntaxes code only the bits stored.

    Args:
        data: The dataset of the file.
        frame: Which frame, counted from 0.

    Raises:
        DataError: The pixel data is shorter than the header says, its last compressed fragment has no end, or nothing decodes it.
    """
    meta = getattr(data, "file_meta", pydicom.Dataset())
    syntax = meta.TransferSyntaxUID if "TransferSyntaxUID" in meta else pydicom.uid.ImplicitVRLittleEndian
    # OpenJPEG decodes a torn codestream into a picture with a grey lower half, without an error.
    if syntax in ENDS_WITH_FFD9 and b"\xff\xd9" not in bytes(data.PixelData[-64:]):
        raise DataError("the pixel data is cut off")
    if syntax.is_compressed and not _decodable(syntax):
        raise DataError(f"no decoder for its compression ({'private' if syntax.is_private else syntax.name})")
    # pydicom's own correction takes the lowest bits, whatever HighBit says.
    pixels = pydicom.pixels.pixel_array(data, index=frame, correct_unused_bits=False)
    if pixels.ndim != 2:
        raise DataError("colour where grey is expected")
    if not np.issubdtype(pixels.dtype, np.integer):
        return pixels
    width, stored = 8 * pixels.dtype.itemsize, int(data.BitsStored)
    high = stored - 1 if syntax.is_encapsulated else int(data.get("HighBit", stored - 1))
    if not 0 < stored <= high + 1 <= width:
        raise DataError("BitsStored and HighBit do not fit the pixels")
    # To the left and back: the sign bit, if any, comes to stand where the integer type has it.
    return (pixels << (width - 1 - high)) >> (width - stored)


def _decodable(syntax: pydicom.uid.UID) -> bool:
    try:
        return bool(pydicom.pixels.get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def measured_values(data: pydicom.Dataset, pixels: np.ndarray | None = None) -> np.ndarray:
    """Pixels in the unit of the modality, (rows, columns) float32; padding is NaN.

    Rescale Slope and Intercept of this very slice (PET changes them from slice to slice), or its Modality LUT (PS3.3 C.11.1).

    Args:
        data: The slice's header; of a multi-frame file, the frame's own (see `multiframe.frame_header`).
        pixels: `stored_values` of the frame; None reads the only one of `data`.
    """
    stored = stored_values(data) if pixels is None else pixels
    if data.get("ModalityLUTSequence"):
        values = np.asarray(pydicom.pixels.apply_modality_lut(stored, data), np.float32)
    else:
        slope, intercept = float(data.get("RescaleSlope", 1) or 1), float(data.get("RescaleIntercept", 0) or 0)
        values = (stored.astype(np.float64) * slope + intercept).astype(np.float32)
    if data.get("PixelPaddingValue") is not None:
        one = _padding(data, "PixelPaddingValue")
        other = _padding(data, "PixelPaddingRangeLimit") if data.get("PixelPaddingRangeLimit") is not None else one
        values[(stored >= min(one, other)) & (stored <= max(one, other))] = np.nan
    return values


def _padding(data: pydicom.Dataset, name: str) -> int:
    value = int(data.get(name))
    # The VR is US or SS after PixelRepresentation; files with the wrong one are common.
    if int(data.PixelRepresentation) == 1 and value >= 1 << (int(data.BitsAllocated) - 1):
        value -= 1 << int(data.BitsAllocated)
    return value


@dataclass(frozen=True, kw_only=True)
class Display:
    """How a header wants its measured values shown.

    Args:
        function: LINEAR, LINEAR_EXACT or SIGMOID with a window; TABLE with a VOI LUT; "" where the header says nothing.
        center: Window Center, of several the first.
        width: Window Width, of several the first.
        windows: How many windows or tables the header offers.
        table: VOI LUT entries scaled to [0, 1], the first one for measured values up to `first`; empty without a LUT.
        first: First Stored Pixel Value Mapped of the table, after the modality LUT.
        inverted: MONOCHROME1: the lowest value is white. Applied after everything else.
        fault: Why the header's window cannot be used, "" otherwise.
    """

    function: str = ""
    center: float = 0.0
    width: float = 0.0
    windows: int = 0
    table: tuple[float, ...] = ()
    first: int = 0
    inverted: bool = False
    fault: str = ""


FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def display(data: pydicom.Dataset) -> Display:
    """The display that a header asks for: VOI LUT before window (both may stand there, PS3.3 C.11.2.1), the first of several.

    PresentationLUTShape says in DX and MG what MONOCHROME1 says already (PS3.3 C.8.11.3.1.2), so it is not looked at.
    A window without a width is a `fault`: it matters only where the header's window is asked for.
    """
    inverted = str(data.get("PhotometricInterpretation", "")).strip() == "MONOCHROME1"
    tables = data.get("VOILUTSequence")
    if tables:
        entries, first, bits = (int(value) for value in tables[0].LUTDescriptor)
        # 0 stands for 65536 (PS3.3 C.11.2.1.1). The VR of the second value is often wrong for signed pixels.
        entries = entries or 65536
        first -= 65536 if first >= 32768 and int(data.get("PixelRepresentation", 0)) == 1 else 0
        table = _table(tables[0].LUTData, entries)
        if len(table) < entries or not 1 <= bits <= 16:
            return Display(inverted=inverted, fault="its VOI LUT is shorter than its descriptor says")
        scaled = tuple((table / (2**bits - 1)).clip(0, 1).tolist())
        return Display(function="TABLE", windows=len(tables), table=scaled, first=first, inverted=inverted)
    centers, widths = _several(data, "WindowCenter"), _several(data, "WindowWidth")
    if not centers or not widths:
        return Display(inverted=inverted)
    function = str(data.get("VOILUTFunction") or "LINEAR").strip()
    if function not in FUNCTIONS:
        return Display(inverted=inverted, fault="its VOI LUT Function is unknown")
    center, width = centers[0], widths[0]
    if not (np.isfinite(center) and np.isfinite(width)) or width < (1 if function == "LINEAR" else 1e-9):
        return Display(inverted=inverted, fault="its window has no width")
    return Display(function=function, center=center, width=width, windows=len(centers), inverted=inverted)


def _several(data: pydicom.Dataset, name: str) -> list[float]:
    value: Any = data.get(name)
    if value is None or value == "":
        return []
    return [float(v) for v in value] if isinstance(value, pydicom.multival.MultiValue | list | tuple) else [float(value)]


def _table(data: Any, entries: int) -> np.ndarray:
    if isinstance(data, bytes):
        # Tables of 8 bits may be packed two in a word (PS3.3 C.11.2.1.1).
        data = np.frombuffer(data, "<u1" if len(data) < 2 * entries else "<u2")
    return np.atleast_1d(np.asarray(data, np.float64))[:entries]
