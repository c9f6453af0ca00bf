"""Pictures in files: every kind that is met as one grey, or a reason."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from medgan.data.pictures import find_pictures, picture_size, read_picture
from medgan.data.recipe import Recipe
from medgan.data.scans import walk
from medgan.errors import DataError
from tests.data.layouts import xray

GREY = xray(0, (12, 10))
COLOUR = np.stack([GREY, 255 - GREY, GREY // 3], axis=-1)


def stored(path, pixels, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("grey.png", lambda: Image.fromarray(GREY)),
        ("grey.tif", lambda: Image.fromarray(GREY)),
        ("rgb.png", lambda: Image.fromarray(GREY).convert("RGB")),
        ("rgba.png", lambda: Image.fromarray(GREY).convert("RGBA")),
        ("palette.png", lambda: Image.fromarray(GREY).convert("P")),
        ("la.png", lambda: Image.fromarray(GREY).convert("LA")),
    ],
)
def test_grey_in_any_mode_is_that_grey(tmp_path, name, make):
    path = stored(tmp_path / name, make())
    np.testing.assert_array_equal(read_picture(path), GREY.astype(np.float32))
    assert picture_size(path) == (10, 12)


def test_one_bit_is_black_and_white(tmp_path):
    assert sorted(np.unique(read_picture(stored(tmp_path / "a.png", Image.fromarray(GREY > 150))))) == [0.0, 255.0]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_divided_by_65535(tmp_path, suffix):
    values = np.array([[0, 1, 256, 32768, 65535]], np.uint16)
    read = read_picture(stored(tmp_path / f"a.{suffix}", values))
    np.testing.assert_allclose(read, values * (255 / 65535), rtol=1e-6)


def test_colour_is_refused_turned_grey_or_kept(tmp_path):
    path = stored(tmp_path / "a.png", COLOUR)
    with pytest.raises(DataError, match="colour where grey is expected"):
        read_picture(path)
    # Rec. 601: 0.299 R + 0.587 G + 0.114 B.
    np.testing.assert_allclose(read_picture(path, "grey"), COLOUR @ [0.299, 0.587, 0.114], atol=1)
    np.testing.assert_array_equal(read_picture(path, "keep"), COLOUR)


def sixteen_bit_colour(path):
    """A 2 x 1 RGB PNG of 16 bits, which Pillow cannot write: chunks by hand."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"\0" + struct.pack(">6H", 1, 256, 65535, 2, 3, 4)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def transparent(path):
    image = Image.fromarray(GREY).convert("RGBA")
    image.putpixel((0, 0), (9, 9, 9, 0))
    image.save(path)


def pages(path):
    Image.fromarray(GREY).save(path, format="TIFF", save_all=True, append_images=[Image.fromarray(GREY)])


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("a.png", sixteen_bit_colour, "16 bits in colour"),
        ("a.png", transparent, "transparent pixels"),
        ("a.tif", pages, "several pages"),
        ("a.png", lambda path: path.write_bytes(b""), "picture unreadable"),
        ("a.png", lambda path: path.write_bytes(stored(path, GREY).read_bytes()[:-60]), "picture unreadable"),
        ("a.tif", lambda path: stored(path, Image.fromarray(GREY.astype(np.float32))), "more than 16 bits"),
    ],
)
def test_what_cannot_be_shown_right_is_a_reason(tmp_path, name, make, reason):
    make(tmp_path / name)

    def read():
        picture_size(tmp_path / name)
        read_picture(tmp_path / name)

    with pytest.raises(DataError, match=reason):
        read()


def test_a_picture_that_claims_too_many_pixels_is_not_decoded(tmp_path):
    path = stored(tmp_path / "a.png", GREY)
    content = bytearray(path.read_bytes())
    content[16:24] = (60000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(DataError, match="pixels"):
        picture_size(path)


def test_a_camera_held_upright_turns_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right of the stored picture
    path = stored(tmp_path / "a.png", GREY, exif=exif.tobytes())
    np.testing.assert_array_equal(read_picture(path), np.rot90(GREY, -1).astype(np.float32))


def test_sheets_and_snapshots_are_no_pictures(tmp_path):
    for name in ("a.png", "qc_sheet.png", "contact_sheet.png", ".hidden.png"):
        stored(tmp_path / name, GREY)
    (tmp_path / "SNAPSHOTS").mkdir()
    stored(tmp_path / "SNAPSHOTS" / "b.png", GREY)
    recipe = Recipe(name="png", title="", source="", intensity="stored")
    assert [scan.place.name for scan in find_pictures(walk(tmp_path), recipe, [])] == ["a.png"]
