"""JPEG Lossless and 12-bit JPEG for pydicom, decoded by the GDCM inside SimpleITK, which is here for MetaImage anyway.

pydicom's own plugins for them are pylibjpeg-libjpeg (GPL) and python-gdcm (39 MB with an end-of-life OpenSSL in it);
docs/decisions/0013-reader-libraries.md. Importing this file adds the plugin.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, SecondaryCaptureImageStorage

NAME = "simpleitk"
DECODER_DEPENDENCIES = dict.fromkeys((JPEGLossless, JPEGLosslessSV1, JPEGExtended12Bit), ("SimpleITK>=2.4",))


def is_available(uid: str) -> bool:
    """Whether this plugin decodes a transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def decode(source: bytes, runner: DecodeRunner) -> bytearray:
    """One frame: its codestream as the only one of a bare file, so that nothing but the JPEG decides the values.

    Args:
        source: The codestream.
        runner: What pydicom knows of the pixels.

    Returns:
        The pixels, little endian, colour by pixel.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    meta.TransferSyntaxUID = runner.transfer_syntax
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = runner.rows, runner.columns
    data.SamplesPerPixel = runner.samples_per_pixel
    data.PhotometricInterpretation = "RGB" if runner.samples_per_pixel > 1 else "MONOCHROME2"
    if runner.samples_per_pixel > 1:
        data.PlanarConfiguration = 0
    bits = 8 if runner.bits_stored <= 8 else 16
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, runner.bits_stored, runner.bits_stored - 1
    # As unsigned: `photometry.stored_values` puts the sign back.
    data.PixelRepresentation = 0
    data.PixelData = pydicom.encaps.encapsulate([source])
    data["PixelData"].is_undefined_length = True
    with tempfile.TemporaryDirectory(prefix="medgan-frame-") as folder:
        path = Path(folder) / "frame.dcm"
        data.save_as(path, enforce_file_format=True)
        # It reads all three bytes of a colour JPEG as they are coded, so YBR stays YBR, as pydicom wants it.
        pixels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO"))
    runner.set_option("bits_allocated", bits)
    runner.set_option("planar_configuration", 0)
    return bytearray(np.ascontiguousarray(pixels).astype("<u1" if bits == 8 else "<u2").tobytes())


for _syntax in DECODER_DEPENDENCIES:
    _decoder = pydicom.pixels.get_decoder(_syntax)
    if NAME not in _decoder.available_plugins:
        _decoder.add_plugin(NAME, (__name__, "decode"))
SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
