"""Pictures of every kind that datasets come in: greys from 0 to 255, or a reason."""

import numpy as np
import pytest
from PIL import Image

from medgan.data.pictures import picture_size, read_picture
from medgan.errors import DataError

GREY = np.add.outer(np.arange(24) * 5, np.arange(32) * 4).astype(np.uint8)
DEEP = np.add.outer(np.arange(24) * 1000, np.arange(32) * 1300).astype(np.uint16)


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp"])
def test_eight_bits_are_taken_as_they_are(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    np.testing.assert_array_equal(read_picture(saved(tmp_path / f"a.{suffix}", Image.fromarray(GREY), **options)), GREY)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_by_65535_and_not_cut(tmp_path, suffix):
    values = read_picture(saved(tmp_path / f"a.{suffix}", Image.fromarray(DEEP)))
    # 65535 / 257 = 255; the lower 8 bits stay as a fraction.
    np.testing.assert_allclose(values, DEEP / 257.0, rtol=1e-6)


def big_endian_tiff(path, pixels, photometric):
    """A TIFF of 16-bit greys written by hand: PhotometricInterpretation 0 is white at zero, 1 black."""
    rows, columns = pixels.shape
    tags = [
        (256, columns),
        (257, rows),
        (258, 16),
        (259, 1),
        (262, photometric),
        (273, 8 + 2 + 9 * 12 + 4),
        (277, 1),
        (278, rows),
        (279, 2 * rows * columns),
    ]
    entries = b"".join(tag.to_bytes(2, "big") + b"\0\4\0\0\0\1" + value.to_bytes(4, "big") for tag, value in tags)
    path.write_bytes(b"MM\0*\0\0\0\10" + len(tags).to_bytes(2, "big") + entries + b"\0" * 4 + pixels.astype(">u2").tobytes())
    return path


def test_a_big_endian_tiff_is_read_and_one_with_white_at_zero_never_becomes_a_negative(tmp_path):
    np.testing.assert_allclose(read_picture(big_endian_tiff(tmp_path / "b.tif", DEEP, 1)), DEEP / 257.0, rtol=1e-6)
    # Pillow does not read it; what must not happen is a picture with black and white exchanged.
    with pytest.raises(DataError, match="unreadable"):
        read_picture(big_endian_tiff(tmp_path / "w.tif", DEEP, 0))


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(GREY // 64).convert("P")
    image.putpalette([value for grey in (0, 90, 180, 255) for value in (grey,) * 3] + [0] * 756)
    image.putdata((GREY // 64).ravel().tolist())
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "a.png", image)), np.array([0, 90, 180, 255])[GREY // 64])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_equal_channels_are_grey(tmp_path, mode):
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "a.png", Image.fromarray(GREY).convert(mode))), GREY)


def test_cmyk_is_brought_to_grey_where_it_is_asked_for(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(GREY).convert("RGB").convert("CMYK"), quality=100)
    # JPEG and the change of colour space cost a few greys.
    assert np.abs(read_picture(path, "grey") - GREY).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_camera_is_followed(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", Image.fromarray(GREY), exif=exif)
    # By hand from the TIFF 6.0 table: which corner row 0, column 0 of the file is.
    expected = {
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: GREY[::-1].T,
        7: GREY[::-1, ::-1].T,
        8: GREY.T[::-1],
    }
    np.testing.assert_array_equal(read_picture(path), expected[orientation])


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("a.png", lambda path: Image.fromarray(np.dstack([GREY] * 3 + [GREY])).save(path), "transparent pixels"),
        ("a.tif", lambda path: Image.fromarray(GREY).save(path, save_all=True, append_images=[Image.fromarray(GREY)]), "several pages"),
        ("a.png", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\nbroken"), "unreadable"),
        ("a.tif", lambda path: Image.fromarray(GREY.astype(np.float32)).save(path), "more than 16 bits"),
    ],
)  # fmt: skip
def test_pictures_that_cannot_be_one_grey_image(tmp_path, name, make, reason):
    make(tmp_path / name)

    def read():
        picture_size(tmp_path / name)
        read_picture(tmp_path / name)

    with pytest.raises(DataError, match=reason):
        read()


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_truncated_picture_is_a_reason(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(DataError, match="unreadable"):
        read_picture(path)
