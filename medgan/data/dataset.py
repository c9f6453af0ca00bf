"""The dataset on disk: the official StyleGAN2-ADA layout, a stored zip of 8-bit PNGs with dataset.json, plus manifest.csv and recipe.json.

Sets made elsewhere (an official zip, a folder of pictures) are read too, after every file was checked. Torch-free.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medgan.data.recipe import SIZES
from medgan.errors import DataError, InputError
from medgan.runs import atomic, write_json

MANIFEST = "manifest.csv"
RECIPE = "recipe.json"
LABELS = "dataset.json"
INFO_FILES = (MANIFEST, RECIPE, "fingerprint.json", "splits.json", "excluded.csv", "qc_sheet.png", "run.json")
COLUMNS = (
    "image", "sha256", "subject_key", "session_key", "series_key", "slice_index", "n_slices", "plane", "modality", "spacing_mm", "rows",
    "columns", "preset", "level", "width", "orientation", "mask_label", "mask_pixels", "split", "label",
)  # fmt: skip
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
# Pictures of many images, which `prepare` and `generate` write beside them.
SHEETS = ("contact_sheet.png", "qc_sheet.png")
OUR_NAME = re.compile(r"\d{5}/img\d{8}\.png")

# Bounds for files made elsewhere: an image of the largest size as uncompressed RGB is 3 MiB, a manifest line 300 bytes.
MOST_IMAGE_BYTES = 64 * 2**20
MOST_TEXT_BYTES = 512 * 2**20
MOST_ENTRIES = 2_000_000
MOST_RATIO = 200
MOST_CACHE_BYTES = 2 * 2**30
SHOWN = 10

# Fixed, so that equal content gives equal bytes; the earliest time a zip can say.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def image_name(index: int) -> str:
    """The official name of an image: `00000/img00000000.png`, a thousand to a folder."""
    return f"{index // 1000:05d}/img{index:08d}.png"


def is_image(name: str) -> bool:
    """Whether a file of a dataset is one of its images, by its name: a picture, and no sheet of pictures."""
    return name.lower().endswith(PICTURES) and not name.startswith("__MACOSX/") and name.lower().split("/")[-1] not in SHEETS


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header and newlines of one byte."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def identity_of(pixels: Iterable[str], shape: tuple[int, int], labels: np.ndarray | None, recipe: Mapping[str, Any] | None) -> str:
    """What a dataset is, as SHA-256: pixels, labels and recipe, in order; neither keys nor file names.

    Args:
        pixels: SHA-256 of each image's bytes, (C, H, W) in C order, as hexadecimal digits.
        shape: Channels and resolution.
        labels: As in `Dataset.labels`.
        recipe: As in recipe.json.
    """
    head = {"shape": list(shape), "labels": None if labels is None else labels.tolist(), "recipe": recipe}
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for one in pixels:
        digest.update(bytes.fromhex(one))
    return digest.hexdigest()


def write_dataset(path: Path, images: Iterable[bytes], labels: Sequence[Any] | None, manifest: str, recipe: Mapping[str, Any]) -> None:
    """Write the zip atomically; equal arguments give equal bytes.

    Args:
        path: Where to.
        images: PNG files, in order; read one at a time.
        labels: A class number or a vector per image, or None.
        manifest: The text of manifest.csv.
        recipe: recipe.json.
    """
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        count = 0
        for index, png in enumerate(images):
            archive.writestr(_entry(image_name(index)), png)
            count += 1
        pairs = None if labels is None else [[image_name(index), labels[index]] for index in range(count)]
        archive.writestr(_entry(LABELS), json.dumps({"labels": pairs}))
        archive.writestr(_entry(MANIFEST), manifest)
        archive.writestr(_entry(RECIPE), json.dumps(recipe, indent=2) + "\n")


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, ZIP_TIME)
    info.create_system = 3
    info.external_attr = 0o644 << 16
    return info


class _Files:
    """The files of a zip or of a folder, by name; reading is bounded. Safe to hand to other processes.

    Args:
        path: Zip or folder.
        show_names: Whether errors may show the names of images.
    """

    def __init__(self, path: Path, *, show_names: bool) -> None:
        self.path = path
        self.show_names = show_names
        self._archive: zipfile.ZipFile | None = None
        self._owner = 0
        self.is_zip = path.is_file()
        self.sizes = self._zip_sizes() if self.is_zip else self._folder_sizes()
        self.images = sorted(name for name in self.sizes if is_image(name))

    def _zip_sizes(self) -> dict[str, int]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                entries = [info for info in archive.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, OSError, NotImplementedError):
            raise DataError("the dataset is not a readable zip file", fix="prepare it again, or copy it again") from None
        if len(entries) > MOST_ENTRIES:
            raise DataError(f"the zip holds {len(entries)} files, more than {MOST_ENTRIES}")
        for info in entries:
            parts = info.filename.replace("\\", "/").split("/")
            if info.filename.startswith(("/", "\\")) or ".." in parts:
                raise DataError("the zip holds a name that leaves its folder", fix="zip the folder of images again")
            if info.file_size > 2**20 and info.file_size > MOST_RATIO * max(info.compress_size, 1):
                raise DataError("the zip holds a file that unpacks to more than 200 times its size", fix="zip the folder of images again")
        return {info.filename: info.file_size for info in entries}

    def _folder_sizes(self) -> dict[str, int]:
        sizes = {}
        for folder, subfolders, names in os.walk(self.path):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for name in names:
                file = Path(folder) / name
                if not name.startswith(".") and file.is_file():
                    sizes[file.relative_to(self.path).as_posix()] = file.stat().st_size
        return sizes

    def read(self, name: str, most: int) -> bytes:
        """A file's bytes.

        Raises:
            DataError: It is larger than `most`, or torn.
        """
        if self.sizes[name] > most:
            raise DataError(f"{self.called(name)} holds more than {most} bytes")
        content = self._content(name, most)
        if content is None:
            raise DataError(f"{self.called(name)} cannot be read from the dataset", fix="prepare it again, or copy it again")
        return content

    def _content(self, name: str, most: int) -> bytes | None:
        try:
            if not self.is_zip:
                return (self.path / name).read_bytes()
            with self._open().open(name) as file:
                return file.read(most + 1)
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError):
            return None

    def called(self, name: str) -> str:
        """What an error calls a file: its name, or where names may not be shown an image's number and SHA-256.

        The names that `prepare` gives and those of the lists beside the images say nothing and are always shown.
        """
        if self.show_names or OUR_NAME.fullmatch(name) or name in (LABELS, MANIFEST, RECIPE):
            return name
        content = self._content(name, MOST_IMAGE_BYTES) if self.sizes[name] <= MOST_IMAGE_BYTES else None
        digest = "too large or unreadable" if content is None else f"sha256 {hashlib.sha256(content).hexdigest()[:12]}"
        return f"picture {self.images.index(name) + 1} of {len(self.images)} ({digest})"

    def listed(self, names: Sequence[str]) -> str:
        """The first names of a list, and how many more there are."""
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return ", ".join(map(self.called, names[:SHOWN])) + more

    def head(self, name: str, count: int = 64) -> bytes:
        """A file's first bytes."""
        try:
            if not self.is_zip:
                with (self.path / name).open("rb") as file:
                    return file.read(count)
            with self._open().open(name) as file:
                return file.read(count)
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError):
            return b""

    def _open(self) -> zipfile.ZipFile:
        # A forked worker must not share its parent's file position.
        if self._archive is None or self._owner != os.getpid():
            self._archive, self._owner = zipfile.ZipFile(self.path), os.getpid()
        return self._archive

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archive": None, "_owner": 0}


def _describe(files: _Files, name: str) -> tuple[tuple[int, int, int], str]:
    """Channels, height and width from an image's header, and what is wrong with it ("" where nothing is)."""
    from PIL import Image

    head = files.head(name)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 26:
        width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        depth, colour = head[24], head[25]
        if colour == 3:
            return (0, height, width), "palette"
        if colour in (4, 6):
            return (0, height, width), "transparency (RGBA or LA)"
        if depth != 8:
            return (0, height, width), f"{depth} bit"
        return (1 if colour == 0 else 3, height, width), ""
    try:
        with Image.open(io.BytesIO(files.read(name, MOST_IMAGE_BYTES))) as image:
            (width, height), mode = image.size, image.mode
    except Exception:
        return (0, 0, 0), "no readable image"
    channels = {"L": 1, "RGB": 3}.get(mode, 0)
    return (channels, height, width), "" if channels else f"mode {mode}"


def _check_all(files: _Files, *, any_size: bool) -> tuple[int, int, int]:
    """Channels, height and width that all images share.

    Raises:
        DataError: They do not: the offending files are listed by kind of fault.
    """
    faults: dict[str, list[str]] = {}
    shapes: dict[tuple[int, int, int], list[str]] = {}
    for name in files.images:
        shape, fault = _describe(files, name)
        if fault:
            faults.setdefault(fault, []).append(name)
        else:
            shapes.setdefault(shape, []).append(name)
    problems = [f"{fault}: {files.listed(found)}" for fault, found in faults.items()]
    usual = max(shapes, key=lambda shape: len(shapes[shape]), default=None)
    for shape, found in shapes.items():
        c, h, w = shape
        if shape != usual:
            problems.append(f"{w} x {h} with {c} channel{'s' if c > 1 else ''}, unlike the others: {files.listed(found)}")
    if usual and not any_size and usual[1] != usual[2]:
        problems.append(f"not square ({usual[2]} x {usual[1]}): {files.listed(shapes[usual])}")
    elif usual and not any_size and usual[1] not in SIZES:
        problems.append(f"{usual[1]} px, which no network family takes: {files.listed(shapes[usual])}")
    if (problems or usual is None) and any_size:
        raise DataError(f"the images cannot be compared: {'; '.join(problems)}", fix="all images 8-bit grey or RGB, of one size")
    if problems or usual is None:
        raise DataError(
            f"the dataset cannot be trained on: {'; '.join(problems)}",
            fix=f"all images 8-bit grey or RGB, square, one of {', '.join(map(str, SIZES))} px; or medgan prepare on the scans",
        )
    return usual


class Dataset:
    """Images of one size with their labels, checked. Made by `open_dataset`.

    Args:
        path: Zip or folder.
        show_names: Whether errors may show the names of images.
        any_size: Take sizes that no network takes, and images that are not square: `resolution` is their height.
    """

    def __init__(self, path: Path, *, show_names: bool = True, any_size: bool = False) -> None:
        self.path = path
        self._files = _Files(path, show_names=show_names)
        self.names = self._files.images
        if not self.names:
            raise DataError("the dataset holds no image", fix="medgan prepare SCANS OUT.zip makes one")
        self._shape = _check_all(self._files, any_size=any_size)
        self.channels, self.resolution, _ = self._shape
        self.labels = self._read_labels()
        beside = path.with_suffix(".info")
        self.info: Path | None = beside if beside.is_dir() else None
        recipe = self._json(RECIPE)
        self.recipe: dict[str, Any] | None = recipe if isinstance(recipe, dict) else None
        self._cache: np.ndarray | None = None
        self._cached = np.zeros(len(self.names), bool)

    def __len__(self) -> int:
        return len(self.names)

    def images(self, indices: Sequence[int] | np.ndarray | slice) -> np.ndarray:
        """Images by number: (N, C, H, W) uint8. Decoded images stay in memory while the whole set would fit into 2 GiB.

        Raises:
            DataError: An image's data is broken.
        """
        wanted = np.arange(len(self))[indices] if isinstance(indices, slice) else np.asarray(indices, np.int64)
        shape = self._shape
        if len(self) * int(np.prod(shape)) > MOST_CACHE_BYTES:
            return np.stack([self._decode(int(i)) for i in wanted]) if len(wanted) else np.zeros((0, *shape), np.uint8)
        if self._cache is None:
            self._cache = np.zeros((len(self), *shape), np.uint8)
        for i in wanted:
            if not self._cached[i]:
                self._cache[i] = self._decode(int(i))
                self._cached[i] = True
        result: np.ndarray = self._cache[wanted]
        return result

    @cached_property
    def identity(self) -> str:
        """SHA-256 over pixels, labels and recipe; decodes every image once."""
        digests = (hashlib.sha256(self.images([i]).tobytes()).hexdigest() for i in range(len(self)))
        return identity_of(digests, (self.channels, self.resolution), self.labels, self.recipe)

    def write_info(self, folder: Path) -> None:
        """Copy what is known of the set into a folder: manifest, recipe, fingerprint, splits, exclusions, sheet.

        For a set made elsewhere, the count, size and a sheet are written instead.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name in INFO_FILES:
            if self.info and (self.info / name).is_file():
                with atomic(folder / name) as temporary:
                    shutil.copyfile(self.info / name, temporary)
            elif name in (MANIFEST, RECIPE) and name in self._files.sizes:
                with atomic(folder / name) as temporary:
                    temporary.write_bytes(self._files.read(name, MOST_TEXT_BYTES))
        if not (folder / "fingerprint.json").exists():
            write_json(folder / "fingerprint.json", {"images": len(self), "size": self.resolution, "channels": self.channels, "advice": []})
        if not (folder / "qc_sheet.png").exists():
            save_sheet(self, folder / "qc_sheet.png")

    def _decode(self, index: int) -> np.ndarray:
        from PIL import Image

        name = self.names[index]
        try:
            with Image.open(io.BytesIO(self._files.read(name, MOST_IMAGE_BYTES))) as image:
                pixels = np.asarray(image)
        except (OSError, ValueError, SyntaxError):
            raise DataError(f"{self._files.called(name)} is broken", fix="prepare the dataset again, or copy it again") from None
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        if pixels.shape != self._shape or pixels.dtype != np.uint8:
            raise DataError(f"{self._files.called(name)} is not what its header says", fix="prepare the dataset again, or copy it again")
        return pixels

    def _json(self, name: str) -> Any:
        if name not in self._files.sizes:
            return None
        try:
            return json.loads(self._files.read(name, MOST_TEXT_BYTES))
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
            raise DataError(f"{name} in the dataset is no JSON", fix="prepare the dataset again") from None

    def _read_labels(self) -> np.ndarray | None:
        content = self._json(LABELS)
        pairs = content.get("labels") if isinstance(content, dict) else None
        if pairs is None:
            return None
        try:
            table = {str(name).replace("\\", "/"): label for name, label in pairs}
        except (TypeError, ValueError):
            raise DataError("labels in dataset.json are no list of [name, label]") from None
        missing = [name for name in self.names if name not in table]
        if missing:
            raise DataError(
                f"dataset.json has no label for {self._files.listed(missing)}", fix='label every image, or write {"labels": null}'
            )
        try:
            labels = np.array([table[name] for name in self.names])
        except ValueError:
            labels = np.array("ragged")
        if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) and labels.min() >= 0:
            return labels.astype(np.int64)
        if labels.ndim == 2 and np.issubdtype(labels.dtype, np.number):
            return labels.astype(np.float32)
        raise DataError("labels in dataset.json are neither class numbers from 0 nor vectors of one length")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None, "_cached": np.zeros(len(self.names), bool)}


def open_dataset(path: Path, *, show_names: bool = True, any_size: bool = False) -> Dataset:
    """A dataset made by `prepare`, an official zip, or a folder of pictures; all files are checked first.

    Args:
        path: Zip or folder.
        show_names: Whether errors may show the names of images, which may name a patient. Where not, an image is called by its
            place in the sorted order and its SHA-256 (docs/decisions/0008-names-in-dataset-errors.md).
        any_size: Take any size that all images share, also where no network takes it.

    Raises:
        InputError: There is nothing at `path`.
        DataError: It is no dataset, or images differ in size, channels or bit depth: the offending ones are listed.
    """
    if not path.exists():
        raise InputError("the dataset does not exist", fix="medgan prepare SCANS OUT.zip makes one")
    return Dataset(path, show_names=show_names, any_size=any_size)


def find_dataset(source: Path) -> Path | None:
    """The dataset that a source already is: a zip of pictures, a folder with one such zip, or a folder of pictures; None for scans."""
    if source.is_file():
        return source if _is_dataset_zip(source) else None
    if not source.is_dir():
        return None
    files = [
        file
        for file in sorted(source.rglob("*"))
        if file.is_file() and not file.name.startswith(".") and not file.name.endswith("_catalog.xml")
    ]
    archives = [file for file in files if _is_dataset_zip(file) and not file.name.endswith(".held-out.zip")]
    if len(archives) == 1 and not any(is_image(file.name) for file in files if ".info" not in "/".join(file.parts)):
        return archives[0]
    known = (*PICTURES, ".json", ".csv", ".txt", ".md", ".xml")
    pictures = [file for file in files if is_image(file.name)]
    if pictures and not archives and all(file.suffix.lower() in known for file in files):
        return source
    return None


def _is_dataset_zip(path: Path) -> bool:
    if path.suffix.lower() != ".zip" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(is_image(name) for name in archive.namelist())


def save_sheet(dataset: Dataset, path: Path, count: int = 64) -> None:
    """A contact sheet of `count` images spread evenly over the dataset, as the network sees them."""
    from medgan.data.sheet import contact_sheet

    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int))
    sheet = contact_sheet(dataset.images(chosen), columns=8)
    with atomic(path) as temporary:
        sheet.save(temporary, format="PNG")
