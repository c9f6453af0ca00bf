"""Broken and hostile files: each ends in a reason or an ERROR, in bounded memory, never in a traceback or a wrong picture."""

import gzip
import struct
import subprocess
import sys
import zlib

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from medgan.data import series
from medgan.data.dataset import open_dataset
from medgan.data.masks import label_map
from medgan.data.prepare import PrepareConfig, prepare
from medgan.data.scans import find_scans, volume_scan, walk
from medgan.data.series import read_headers
from medgan.data.slices import load
from medgan.data.volumes import read_geometry, read_volume
from medgan.errors import DataError
from tests.phantoms import affine_for, body, ct_nifti, ct_series, dicom_slice, enhanced, read_dicom, save, turned, write_nifti


def small(**values):
    return PrepareConfig(**{"size": 32, "workers": 1, "mask_label": -1, **values})


def reasons(source, out):
    """Why nothing of a source is left."""
    with pytest.raises(DataError) as caught:
        prepare(small(), source, out)
    return caught.value.message


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97])
def test_a_truncated_volume_is_listed(tmp_path, suffix, share):
    ct_nifti(tmp_path / "in" / "good", mask="")
    image = SimpleITK.ReadImage(str(ct_nifti(tmp_path / "x", shift=3, mask="")))
    bad = tmp_path / "in" / f"bad{suffix}"
    SimpleITK.WriteImage(image, str(bad))
    torn = bad.with_suffix(".raw") if suffix == ".mhd" else bad
    torn.write_bytes(torn.read_bytes()[: int(share * torn.stat().st_size)])
    summary = prepare(small(), tmp_path / "in", tmp_path / "out.zip")
    assert summary["kept"] == 12
    assert sum(summary["dropped"].values()) in (1, 12), summary["dropped"]


def claim(path, shape):
    """A NIfTI header that claims a shape, over a few bytes."""
    write_nifti(path, np.zeros((4, 4, 4)), np.eye(4))
    raw = bytearray(path.read_bytes())
    struct.pack_into("<8h", raw, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    path.write_bytes(raw)


@pytest.mark.parametrize("shape", [(30000, 30000, 30000), (2000, 2000, 400), (4, 4, 4, 30000, 30000)])
def test_a_nifti_header_may_claim_anything(tmp_path, shape):
    claim(tmp_path / "a.nii", shape)
    with pytest.raises(DataError, match=r"shorter than its header|2 billion"):
        read_geometry(tmp_path / "a.nii")
    with gzip.open(tmp_path / "a.nii.gz", "wb") as file:
        file.write((tmp_path / "a.nii").read_bytes())
    with pytest.raises(DataError, match=r"shorter than its header|2 billion"):
        read_geometry(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.mhd", "NDims = 3\nDimSize = 60000 60000 60000\nElementType = MET_SHORT\nElementDataFile = a.raw\n", "shorter than its header"),
        ("a.mhd", "NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = /etc/passwd\n", "outside its folder"),
        ("a.mhd", "NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = ../a.raw\n", "outside its folder"),
        ("a.mhd", "NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = LIST\na.raw\n", "several files"),
        ("a.nhdr", "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: ../../x\n", "outside its folder"),
        ("a.nhdr", "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: missing.raw\n", "data file is missing"),
    ],
)  # fmt: skip
def test_headers_that_point_elsewhere_or_claim_too_much(tmp_path, name, text, reason):
    (tmp_path / "a.raw").write_bytes(b"\0" * 128)
    (tmp_path / name).write_text("ObjectType = Image\n" + text if name.endswith("mhd") else text)
    with pytest.raises(DataError, match=reason):
        read_geometry(tmp_path / name)


def test_a_huge_dicom_is_refused_by_its_header_and_costs_no_memory(tmp_path):
    data = dicom_slice(np.zeros((4, 4), np.int16), (0, 0, 0), Rows=60000, Columns=60000)
    save(data, tmp_path / "in" / "a")
    few = dicom_slice(np.zeros((4, 4), np.int16), (0, 0, 0), Rows=16000, Columns=16000, SOPInstanceUID="1.7")
    save(few, tmp_path / "in" / "b")
    message = reasons(tmp_path / "in", tmp_path / "out.zip")
    assert "larger than 16384 pixels a side" in message
    assert "no slice of the series can be decoded" in message


def test_a_deflated_bomb_is_not_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "MOST_INFLATED", 2**24)
    data = dicom_slice(np.zeros((4, 4), np.int16), (0, 0, 0))
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    path = save(data, tmp_path / "in" / "a")
    assert read_headers(path)[0].fault == ""
    head = path.read_bytes()[: 144 + read_dicom(path).file_meta.FileMetaInformationGroupLength]
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    with path.open("wb") as file:
        file.write(head)
        for _ in range(4):
            file.write(pack.compress(b"\0" * 2**23))
        file.write(pack.flush())
    assert path.stat().st_size < 2**16
    assert read_headers(path)[0].fault == "inflates to more than 1 GiB"


LIMITED = """
import resource, sys
limit = int(sys.argv[1])
import medgan.data.slices, medgan.data.prepare, medgan.data.choose, medgan.data.results, medgan.data.contours, SimpleITK, highdicom
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + limit, now + limit))
from pathlib import Path
from medgan.data.prepare import PrepareConfig, prepare
from medgan.errors import MedganError
try:
    print(prepare(PrepareConfig(size=32, workers=1, mask_label=-1), Path(sys.argv[2]), Path(sys.argv[3]))["kept"])
except MedganError as error:
    print(error.line)
"""


def limited(mebibytes, source, out):
    result = subprocess.run([sys.executable, "-c", LIMITED, str(mebibytes * 2**20), str(source), str(out)], capture_output=True, text=True, timeout=300)  # fmt: skip
    assert "Traceback" not in result.stderr
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_process_with_little_memory_names_what_was_too_large(tmp_path):
    ct_nifti(tmp_path / "in" / "good", mask="")
    # All zeros pack 1000 times: 268 million voxels in a megabyte, which is what gzip can hold.
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((2048, 2048, 128))
    header.set_sform(np.eye(4), 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(tmp_path / "in" / "huge.nii.gz", "wb", compresslevel=9) as file:
        file.write(header.binaryblock + b"\0" * 4)
        for _ in range(128):
            file.write(b"\0" * 2**23)
    assert limited(700, tmp_path / "in", tmp_path / "out.zip") == "12"
    listed = (tmp_path / "out.info" / "excluded.csv").read_text()
    assert "too large for the memory" in listed or "constant" in listed


@pytest.mark.slow
def test_a_hundred_thousand_tiny_files_take_bounded_memory(tmp_path):
    ct_nifti(tmp_path / "in" / "good", mask="")
    for folder in range(100):
        (tmp_path / "in" / f"{folder:03d}").mkdir()
    for i in range(100_000):
        (tmp_path / "in" / f"{i % 100:03d}" / f"f{i}").write_bytes(b"tiny")
    assert limited(700, tmp_path / "in", tmp_path / "out.zip") == "12"


def test_one_slice_is_a_volume(tmp_path):
    hu, _ = body()
    save(dicom_slice((hu[:, :, 5].T + 1024).astype(np.int16), (0, 0, 0), RescaleIntercept=-1024), tmp_path / "in" / "a")
    assert prepare(small(), tmp_path / "in", tmp_path / "out.zip")["kept"] == 1
    write_nifti(tmp_path / "flat" / "a.nii", turned(hu, "RAS")[:, :, 5], affine_for("RAS", hu.shape))
    assert prepare(small(), tmp_path / "flat", tmp_path / "flat.zip")["kept"] == 1


@pytest.mark.parametrize("value", [0, 7, np.nan, np.inf])
def test_a_volume_of_one_value_is_listed(tmp_path, value):
    write_nifti(tmp_path / "in" / "a.nii", np.full((8, 8, 4), value), affine_for("RAS", (8, 8, 4)), dtype=np.float32)
    # All zeros is an empty label map as well as an empty scan.
    expected = "1 label map" if value == 0 else "the volume is constant"
    assert expected in reasons(tmp_path / "in", tmp_path / "out.zip")


def test_infinite_voxels_are_black_and_do_not_move_the_window(tmp_path):
    values = np.linspace(0, 1000, 32 * 32 * 4).reshape(32, 32, 4)
    values[0, 0, 0], values[1, 0, 0], values[2, 0, 0] = np.inf, -np.inf, np.nan
    write_nifti(tmp_path / "in" / "a.nii", values, affine_for("LPS", values.shape), dtype=np.float32)
    prepare(small(window_preset="mr-minmax"), tmp_path / "in", tmp_path / "out.zip")
    image = open_dataset(tmp_path / "out.zip").images([0])[0, 0]
    assert image[0, :3].tolist() == [0, 0, 0]
    assert image[31, 31] == 255


def test_two_scans_with_one_name_stay_two(tmp_path):
    for patient in range(2):
        ct_nifti(tmp_path / "in" / f"p{patient}", "scan.nii.gz", shift=patient, mask="")
    summary = prepare(small(), tmp_path / "in", tmp_path / "out.zip")
    assert (summary["scans"], summary["patients"], summary["kept"]) == (2, 2, 24)


def read_all(folder):
    """Everything `prepare` reads of a folder; returns how many volumes came of it."""
    found = find_scans(walk(folder))
    count = 0
    for volume in found.volumes:
        try:
            label_map(volume)
            if not volume.kind:
                frame = -1 if len(volume.shape) <= 3 else 0
                values, affine = read_volume(volume, frame)
                assert values.ndim == 3
                assert np.isfinite(affine).all()
                volume_scan(volume)
        except AssertionError:
            raise
        except Exception:
            pass
        count += 1
    for scan in found.scans:
        try:
            loaded = load(scan)
            assert loaded.values.ndim == 3
            assert np.isfinite(loaded.affine).all()
        except AssertionError:
            raise
        except Exception:
            pass
        count += 1
    for item in found.excluded:
        assert item.reason
    return count


def seeds(folder):
    """A small file of each format."""
    hu, _ = body((8, 8, 3))
    image = SimpleITK.ReadImage(str(write_nifti(folder / "a.nii", hu, np.eye(4))))
    for name in ("a.nii.gz", "a.mha", "a.nrrd"):
        SimpleITK.WriteImage(image, str(folder / name))
    files = {name: (folder / name).read_bytes() for name in ("a.nii", "a.nii.gz", "a.mha", "a.nrrd")}
    pixels = (np.arange(64, dtype=np.int16) * 7).reshape(8, 8)
    for name, data in {
        "ct.dcm": dicom_slice(pixels, (0, 0, 0)),
        "mf.dcm": enhanced([(pixels, (0, 0, z), {}) for z in range(2)]),
    }.items():
        files[name] = save(data, folder / name).read_bytes()
    rle = dicom_slice(pixels, (0, 0, 0))
    rle.compress("1.2.840.10008.1.2.5")
    files["rle.dcm"] = save(rle, folder / "rle.dcm").read_bytes()
    return files


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return seeds(tmp_path_factory.mktemp("seeds"))


@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    name=st.sampled_from(["a.nii", "a.nii.gz", "a.mha", "a.nrrd", "ct.dcm", "mf.dcm", "rle.dcm"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
    repeat=st.booleans(),
)
@example(name="ct.dcm", changes=[(0.0, 0)], keep=1.0, repeat=False)
def test_a_mutated_file_is_read_or_has_a_reason(originals, tmp_path, name, changes, keep, repeat):
    raw = bytearray(originals[name])
    # Headers matter most: half of the changes fall into the first 400 bytes.
    for at, value in changes:
        reach = min(len(raw), 400) if repeat else len(raw)
        raw[int(at * reach)] = value
    path = tmp_path / name
    path.write_bytes(bytes(raw[: int(keep * len(raw))]))
    try:
        read_all(tmp_path)
    finally:
        path.unlink()


def test_the_seeds_of_the_mutations_are_read(originals, tmp_path):
    for name, content in originals.items():
        (tmp_path / name).write_bytes(content)
        assert read_all(tmp_path) == 1, name
        (tmp_path / name).unlink()


def test_a_truncated_dicom_of_each_length_is_a_reason(tmp_path, originals):
    for name in ("ct.dcm", "mf.dcm", "rle.dcm"):
        content = originals[name]
        for length in range(0, len(content), max(1, len(content) // 60)):
            (tmp_path / name).write_bytes(content[:length])
            found = find_scans(walk(tmp_path))
            for scan in found.scans:
                with pytest.raises(DataError):
                    load(scan)
        (tmp_path / name).unlink()


def test_a_series_with_files_of_another_is_two_scans(tmp_path):
    hu, _ = body()
    ct_series(tmp_path / "in", hu)
    for path in ct_series(tmp_path / "x", hu, SeriesInstanceUID="1.2.3.1.2"):
        path.rename(tmp_path / "in" / f"other{path.name}")
    assert len(find_scans(walk(tmp_path / "in")).scans) == 2


@pytest.mark.parametrize("name", ["bad.nii.gz", "bad.mha", "bad.mhd", "bad.nrrd"])
def test_a_compressed_volume_with_a_changed_byte_is_listed_and_gives_no_picture(tmp_path, name):
    """nibabel and ITK read no checksum: they give noise, or what they have."""
    image = SimpleITK.ReadImage(str(ct_nifti(tmp_path / "x", shift=3, mask="")))
    (tmp_path / "in").mkdir()
    SimpleITK.WriteImage(image, str(tmp_path / "in" / name), useCompression=True)
    assert prepare(small(), tmp_path / "in", tmp_path / "whole.zip")["kept"] == 12
    packed = next(path for path in (tmp_path / "in").iterdir() if path.suffix != ".mhd")
    raw = bytearray(packed.read_bytes())
    raw[-20] ^= 0xFF
    packed.write_bytes(raw)
    assert "0 of 12 slices kept" in reasons(tmp_path / "in", tmp_path / "out.zip")


def test_a_four_dimensional_gz_is_checked_to_its_end(tmp_path):
    volumes = np.random.default_rng(0).integers(-1000, 1000, (16, 16, 4, 3)).astype(np.int16)
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volumes, np.eye(4)), path)
    config = small(frames="0", window=(0.0, 4000.0))
    assert prepare(config, tmp_path / "in", tmp_path / "whole.zip")["kept"] == 4
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    with pytest.raises(DataError, match="damaged"):
        prepare(config, tmp_path / "in", tmp_path / "out.zip")


def test_pixels_that_cannot_be_squares_are_refused_before_they_take_memory(tmp_path):
    hu, _ = body()
    write_nifti(tmp_path / "in" / "a.nii", turned(hu, "RAS"), np.diag([1e6, 1.0, 1.0, 1.0]))
    assert "100 times as long as wide" in reasons(tmp_path / "in", tmp_path / "out.zip")


@pytest.mark.parametrize(
    ("field", "note"),
    [
        ("ImageOrientationPatient", "how the scan lies"),
        ("ImagePositionPatient", "how the scan lies"),
        ("PixelSpacing", "no distance between"),
    ],
)
def test_a_ct_without_its_geometry_is_told_of(tmp_path, field, note):
    hu, _ = body()
    save(dicom_slice(np.ascontiguousarray(hu[:, :, 5].T.astype(np.int16)), (0, 0, 0), **{field: None}), tmp_path / "in" / "a.dcm")
    summary = prepare(small(), tmp_path / "in", tmp_path / "out.zip")
    assert summary["kept"] == 1
    said = [text for text in summary["warnings"] if "header" in text]
    assert len(said) == 1
    assert note in said[0]
