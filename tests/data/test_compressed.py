"""Compressed transfer syntaxes: each file is encoded here or comes with pydicom, and is decoded as `prepare` does it."""

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medgan.data.photometry import measured_values, stored_values
from medgan.errors import DataError
from tests.phantoms import dicom_slice, read_dicom, save


def noise(kind, bits, shape=(64, 71)):
    low = -(1 << (bits - 1)) if np.issubdtype(kind, np.signedinteger) else 0
    return np.random.default_rng(bits).integers(low, low + (1 << bits), shape).astype(kind)


def huffman_lossless(pixels, bits):
    """A JPEG Lossless codestream (process 14, first-order prediction) written by hand from ITU-T T.81 annexes C, F and H."""
    lengths = [0, 0, 0, 0, 17] + [0] * 11  # 17 categories of 5 bits each
    codes = {category: category for category in range(17)}
    bits_out = []
    values = pixels.astype(np.int64)
    rows, columns = values.shape
    for y in range(rows):
        for x in range(columns):
            predicted = (1 << (bits - 1)) if x == y == 0 else values[y - 1, 0] if x == 0 else values[y, x - 1]
            difference = int((values[y, x] - predicted + 32768) % 65536 - 32768)
            category = 0 if difference == 0 else abs(difference).bit_length()
            bits_out.append(f"{codes[category]:05b}")
            if 0 < category < 16:
                bits_out.append(f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}")
    stream = "".join(bits_out)
    stream += "1" * (-len(stream) % 8)
    entropy = bytes(int(stream[i : i + 8], 2) for i in range(0, len(stream), 8)).replace(b"\xff", b"\xff\x00")

    def segment(marker, body):
        return marker + (len(body) + 2).to_bytes(2, "big") + body

    frame = bytes([bits]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + bytes([1, 1, 0x11, 0])
    table = b"\0" + bytes(lengths) + bytes(range(17))
    scan = bytes([1, 1, 0x00, 1, 0, 0])
    return b"\xff\xd8" + segment(b"\xff\xc3", frame) + segment(b"\xff\xc4", table) + segment(b"\xff\xda", scan) + entropy + b"\xff\xd9"


def encapsulated(pixels, streams, syntax, bits, **fields):
    data = dicom_slice(pixels, (0, 0, 0), BitsStored=bits, HighBit=bits - 1, BitsAllocated=8 * pixels.dtype.itemsize, **fields)
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = pydicom.encaps.encapsulate(streams)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    return data


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
@pytest.mark.parametrize(("kind", "bits"), [(np.uint16, 16), (np.uint16, 12), (np.uint8, 8), (np.int16, 12), (np.int16, 16)])
def test_jpeg_lossless_gives_the_very_pixels(tmp_path, syntax, kind, bits):
    pixels = noise(kind, bits)
    coded = pixels.astype(np.int64) & ((1 << bits) - 1)
    data = encapsulated(pixels, [huffman_lossless(coded, bits)], syntax, bits, RescaleSlope=3, RescaleIntercept=-7)
    path = save(data, tmp_path / "a.dcm")
    np.testing.assert_array_equal(stored_values(read_dicom(path)), pixels)
    # The rescale of the file is applied once, by us.
    np.testing.assert_array_equal(measured_values(read_dicom(path)), pixels.astype(np.float32) * 3 - 7)


def test_frames_of_a_jpeg_lossless_file_are_told_apart(tmp_path):
    frames = [noise(np.uint16, 12) // (k + 1) for k in range(3)]
    data = encapsulated(frames[0], [huffman_lossless(frame, 12) for frame in frames], JPEGLosslessSV1, 12, NumberOfFrames=3)
    data = read_dicom(save(data, tmp_path / "a"))
    for k in (2, 0, 1):
        np.testing.assert_array_equal(stored_values(data, k), frames[k])


def test_colour_jpeg_lossless_is_decoded_and_refused_where_grey_is_expected():
    coded = pydicom.dcmread(get_testdata_file("SC_rgb_jpeg_gdcm.dcm"))
    from medgan.data import jpeg

    assert jpeg.NAME in pydicom.pixels.get_decoder(JPEGLosslessSV1).available_plugins
    ours = pydicom.pixels.pixel_array(coded)
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(get_testdata_file("SC_rgb_jpeg_gdcm.dcm")))[0]
    np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(DataError, match="colour where grey is expected"):
        stored_values(coded)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize(("kind", "bits"), [(np.uint16, 16), (np.uint16, 12), (np.uint8, 8), (np.int16, 12), (np.int16, 16)])
def test_lossless_syntaxes_give_the_very_pixels(tmp_path, syntax, kind, bits):
    pixels = noise(kind, bits)
    data = dicom_slice(pixels, (0, 0, 0), BitsStored=bits, HighBit=bits - 1, BitsAllocated=8 * pixels.dtype.itemsize)
    data.compress(syntax)
    np.testing.assert_array_equal(stored_values(read_dicom(save(data, tmp_path / "a"))), pixels)


def test_deflated_and_big_endian_files(tmp_path):
    pixels = noise(np.int16, 16)
    data = dicom_slice(pixels, (0, 0, 0))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    np.testing.assert_array_equal(stored_values(read_dicom(save(data, tmp_path / "deflated"))), pixels)
    twins = [pydicom.dcmread(get_testdata_file(name)) for name in ("MR_small.dcm", "MR_small_bigendian.dcm")]
    assert twins[1].file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    np.testing.assert_array_equal(stored_values(twins[0]), stored_values(twins[1]))


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("JPEGLSNearLossless_16.dcm", JPEGLSNearLossless), ("JPEGLSNearLossless_08.dcm", JPEGLSNearLossless), ("MR_small_jpeg_ls_lossless.dcm", JPEGLSLossless),
        ("MR_small_RLE.dcm", RLELossless), ("MR_small_jp2klossless.dcm", JPEG2000Lossless), ("JPGExtended.dcm", JPEGExtended12Bit),
    ],
)  # fmt: skip
def test_real_files_of_other_makers_match_gdcm(name, syntax):
    data = pydicom.dcmread(get_testdata_file(name))
    assert data.file_meta.TransferSyntaxUID == syntax
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(get_testdata_file(name)))[0]
    np.testing.assert_array_equal(measured_values(data), theirs.astype(np.float32))


def test_a_grey_jpeg_baseline_file_matches_gdcm(tmp_path):
    import io

    from PIL import Image

    smooth = np.add.outer(np.arange(32), 3 * np.arange(40)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "JPEG", quality=95)
    path = save(encapsulated(smooth, [buffer.getvalue()], JPEGBaseline8Bit, 8), tmp_path / "a.dcm")
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))[0]
    # Decoders may round the inverse cosine transform differently by one.
    assert np.abs(stored_values(read_dicom(path)).astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_a_torn_codestream_is_no_picture(tmp_path, syntax):
    pixels = noise(np.uint16, 12)
    if syntax == JPEGLosslessSV1:
        stream = huffman_lossless(pixels, 12)
    else:
        data = dicom_slice(pixels, (0, 0, 0), BitsStored=12, HighBit=11)
        data.compress(syntax)
        stream = pydicom.encaps.get_frame(data.PixelData, 0, number_of_frames=1)
    torn = encapsulated(pixels, [stream[: len(stream) // 2]], syntax, 12)
    with pytest.raises(DataError, match="cut off"):
        stored_values(read_dicom(save(torn, tmp_path / "a")))
