"""Stacks of pictures in one file: the .npz of MedMNIST and the idx files of Fashion-MNIST, read one picture at a time.

Pictures are streamed, so memory does not grow with their number (OCTMNIST at 224 px has 4.9 GB); nothing is unpickled.
"""

from __future__ import annotations

import ast
import gzip
import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from medgan.data.recipe import Recipe
from medgan.data.scans import Excluded, Place, Scan, content_identity, name_matches
from medgan.errors import DataError

# https://medmnist.com: {split}_images (N, H, W) or (N, H, W, 3), {split}_labels (N, 1) or (N, L) for several findings.
NPZ_MEMBER = re.compile(r"(?:(train|val|test)_)?images\.npy")
# http://yann.lecun.com/exdb/mnist: big-endian, two zeros, type 8 (unsigned byte), number of axes, their lengths.
IDX_NAME = re.compile(r"(train|t10k|test)-images[-.]idx3-ubyte(\.gz)?", re.IGNORECASE)
MOST_PICTURES = 10_000_000
MOST_SIDE = 4096
MOST_LABEL_BYTES = 2**30
CUT_OFF = "the stack of pictures is cut off"


@dataclass(frozen=True)
class _Array:
    """An array in a file: its shape, and where its bytes come from."""

    shape: tuple[int, ...]
    dtype: np.dtype


def find_stacks(files: Sequence[tuple[Path, Place]], recipe: Recipe, excluded: list[Excluded], *, held_out: bool) -> list[Scan]:
    """The stacks of a source that give training images, and the data set's own test part, which is held out.

    Args:
        files: All files of the source.
        recipe: `split` says which part gives the training images.
        excluded: Takes what cannot be read.
        held_out: Whether the test part is wanted.
    """
    names = {path.name.lower(): path for path, _ in files}
    scans = []
    for path, place in files:
        # One file that is named on the command line is meant, whatever it is called.
        if len(files) > 1 and not name_matches(path.name, recipe.files):
            continue
        try:
            for member, part in _members(path):
                split = _split(part, recipe.split, held_out)
                array = _array(path, member)
                if split and _is_pictures(array):
                    labels = _labels_beside(path, names)
                    shape = (array.shape[2], array.shape[1], array.shape[0])
                    scans.append(_scan(path, place, labels, member, shape, split))
        except Exception as error:
            reason = error.message if isinstance(error, DataError) else f"unreadable ({type(error).__name__})"
            excluded.append(Excluded(level="file", identity=content_identity(path), reason=reason))
    if sizes := sorted({scan.shape[:2] for scan in scans})[1:]:
        several = ", ".join(f"{columns} x {rows}" for columns, rows in sorted({scan.shape[:2] for scan in scans}))
        raise DataError(f"the stacks hold pictures of {len(sizes) + 1} sizes ({several})", fix="give the one file that is meant")
    return scans


def is_stack(name: str) -> bool:
    """Whether a file is an .npz or one of Fashion-MNIST's, pictures or labels, by its name."""
    return bool(re.search(r"\.npz$|-(images|labels)[-.]idx[13]-ubyte(\.gz)?$", name.lower()))


def pictures_of(scan: Scan) -> Iterator[np.ndarray]:
    """The pictures of a stack, one after another: (rows, columns) or (rows, columns, 3) uint8.

    Raises:
        DataError: The file ends too early.
    """
    path = scan.files[0]
    with _opened(path, scan.member) as (file, array):
        count, *shape = array.shape
        for _ in range(count):
            picture = np.frombuffer(_exactly(file, math.prod(shape)), np.uint8).reshape(shape)
            yield picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture


def labels_of(scan: Scan) -> list[str | None]:
    """The class number of each picture as text, several findings as `0|3`; None where the file has no labels.

    Raises:
        DataError: Labels and pictures differ in number, or labels are no whole numbers.
    """
    count = scan.shape[2]
    path, member = scan.files[-1], scan.member.replace("images", "labels")
    if not member and len(scan.files) == 1:
        return [None] * count
    try:
        with _opened(path, member) as (file, array):
            if array.dtype.kind not in "iub" or not array.shape or array.shape[0] != count:
                raise DataError("labels and pictures of the stack differ in number, or labels are no whole numbers")
            values = np.frombuffer(_exactly(file, math.prod(array.shape) * array.dtype.itemsize), array.dtype).reshape(count, -1)
            if values.min(initial=0) < 0:
                raise DataError("a negative label, where classes count from 0")
    except KeyError:
        return [None] * count
    if values.shape[1] == 1:
        return [str(int(value)) for value in values[:, 0]]
    return ["|".join(str(i) for i in np.flatnonzero(row)) for row in values]


def _scan(path: Path, place: Place, labels: Path, member: str, shape: tuple[int, int, int], split: str) -> Scan:
    return Scan(
        files=(path, labels) if labels != path else (path,),
        dicom=False,
        place=place,
        modality="",
        patient=f"part {split}",
        session=f"part {split}",
        series="",
        shape=shape,
        affine=np.eye(4),
        kind="stack",
        member=member,
        split=split,
    )


def _split(part: str, wanted: str, held_out: bool) -> str:
    """Where a part goes: `train`, `held-out` or nowhere; a file without parts is for training."""
    if not part or wanted in (part, "all"):
        return "train"
    return "held-out" if held_out and part == "test" and wanted != "test" else ""


def _members(path: Path) -> list[tuple[str, str]]:
    """Arrays of pictures in a file and the part of the data set that each is; none for other files."""
    if hit := IDX_NAME.fullmatch(path.name):
        return [("", "train" if hit[1].lower() == "train" else "test")]
    if path.suffix.lower() != ".npz":
        return []
    with zipfile.ZipFile(path) as archive:
        hits = [hit for name in archive.namelist() if (hit := NPZ_MEMBER.fullmatch(name))]
    order = ("train", "val", "test", None)
    return [(hit[0], hit[1] or "") for hit in sorted(hits, key=lambda hit: order.index(hit[1]))]


def _labels_beside(path: Path, names: dict[str, Path]) -> Path:
    if path.suffix.lower() == ".npz":
        return path
    wanted = path.name.lower().replace("images", "labels").replace("idx3", "idx1")
    stem = wanted.removesuffix(".gz")
    found = names.get(wanted) or names.get(stem) or names.get(f"{stem}.gz")
    return found if found is not None and found.parent == path.parent else path


def _is_pictures(array: _Array) -> bool:
    if array.dtype != np.uint8:
        raise DataError("the stack holds no 8-bit pictures")
    if len(array.shape) == 4 and array.shape[3] not in (1, 3):
        raise DataError("the stack holds volumes, not pictures")
    if len(array.shape) not in (3, 4) or min(array.shape) < 1 or array.shape[0] > MOST_PICTURES or max(array.shape[1:]) > MOST_SIDE:
        raise DataError("the stack's header claims no pictures that can be read")
    return True


def _array(path: Path, member: str) -> _Array:
    with _opened(path, member) as (_, array):
        return array


@contextmanager
def _opened(path: Path, member: str) -> Iterator[tuple[IO[bytes], _Array]]:
    """An array's bytes after its header.

    Raises:
        KeyError: The file has no such array.
    """
    if member:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            yield file, _npy_header(file)
    else:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            yield file, _idx_header(file)  # type: ignore[arg-type, misc]


def _npy_header(file: IO[bytes]) -> _Array:
    """The header of NumPy's format 1 to 3 (numpy.lib.format); objects and Fortran order are refused."""
    start = _exactly(file, 8)
    if start[:6] != b"\x93NUMPY":
        raise DataError("the stack is no NumPy array")
    length = int.from_bytes(_exactly(file, 2 if start[6] == 1 else 4), "little")
    if length > 65536:
        raise DataError("the stack's header claims no pictures that can be read")
    try:
        header = ast.literal_eval(_exactly(file, length).decode("latin-1").strip())
        dtype, shape = np.dtype(header["descr"]), tuple(int(n) for n in header["shape"])
    except (ValueError, SyntaxError, KeyError, TypeError):
        raise DataError("the stack is no NumPy array") from None
    if dtype.hasobject or (header.get("fortran_order") and len(shape) > 1):
        raise DataError("the stack holds objects, or its pictures are not one after another")
    return _Array(shape, dtype)


def _idx_header(file: IO[bytes]) -> _Array:
    start = _exactly(file, 4)
    if start[:3] != b"\0\0\x08" or start[3] not in (1, 3):
        # A file of labels may be missing: then the pictures have none.
        raise DataError("the idx file holds no unsigned bytes")
    shape = tuple(int.from_bytes(_exactly(file, 4), "big") for _ in range(start[3]))
    return _Array(shape, np.dtype(np.uint8))


def _exactly(file: IO[bytes], count: int) -> bytes:
    if count > MOST_LABEL_BYTES:
        raise DataError("the stack's header claims no pictures that can be read")
    data = file.read(count)
    if len(data) != count:
        raise DataError(CUT_OFF)
    return data
