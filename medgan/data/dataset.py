"""The dataset on disk: the official StyleGAN2-ADA layout, a stored zip of grey PNGs with dataset.json, plus manifest.csv and recipe.json.

Sets made elsewhere (an official zip, a folder of pictures) are read too, after every file was checked. Torch-free.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medgan.data import decoded
from medgan.data.archive import LABELS, MANIFEST, MOST_TEXT_BYTES, RECIPE, Files, is_image
from medgan.data.validation import common_kind, decode, unfit
from medgan.errors import DataError, InputError
from medgan.progress import Step, nothing
from medgan.runs import RESULTS, atomic, write_json

HELD_OUT = ".held-out.zip"
INFO_FILES = (MANIFEST, RECIPE, "fingerprint.json", "splits.json", "excluded.csv", "qc_sheet.png", "run.json")
COLUMNS = (
    "image", "sha256", "subject_key", "session_key", "series_key", "slice_index", "n_slices", "plane", "modality", "spacing_mm", "rows",
    "columns", "preset", "level", "width", "orientation", "mask_label", "mask_pixels", "split", "label",
)  # fmt: skip
# A folder of these alone is taken for a dataset; TIFF and others hold scans as well.
PLAIN_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MOST_CACHE_BYTES = 2 * 2**30
# A class number is a place in a one-hot vector; a forgotten 999 among ten classes is no class.
MOST_CLASSES = 10_000

# Fixed, so that equal content gives equal bytes; the earliest time a zip can say.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def image_name(index: int) -> str:
    """The official name of an image: `00000/img00000000.png`, a thousand to a folder."""
    return f"{index // 1000:05d}/img{index:08d}.png"


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


class Dataset:
    """Images of one size with their labels, checked. Made by `open_dataset`.

    Attributes:
        names: Of the images, in order.
        channels: 1 or 3.
        resolution: Side of the images in pixels; with `any_size` their height.
        width: Their width.
        bits: Of a stored value: 8, or 16.
        labels: Class numbers (N,) int64, vectors (N, K) float32, or None.
        classes: How many classes there are in the whole set; 0 where labels are no class numbers.
    """

    def __init__(self, path: Path, *, show_names: bool = True, any_size: bool = False, cache: Path | None = None) -> None:
        self.path = path
        self.show_names = show_names
        self._files = Files(path, show_names=show_names)
        self.names = self._files.images
        if not self.names:
            raise DataError("the dataset holds no image", fix="medgan prepare SCANS OUT.zip makes one")
        self._facts = decoded.known(cache, self._files.mark) if cache else None
        # Headers were read when the set was decoded; only what this call asks of them is new.
        fits = self._facts and (any_size or not unfit(self._facts.kind))
        self._kind = self._facts.kind if self._facts and fits else common_kind(self._files, any_size=any_size)
        self.channels, self.resolution, self.width, self.bits = self._kind
        self.labels = self._read_labels()
        self.classes = int(self.labels.max()) + 1 if self.labels is not None and self.labels.ndim == 1 else 0
        beside = path.with_suffix(".info")
        self.info: Path | None = beside if beside.is_dir() else None
        recipe = self._json(RECIPE)
        self.recipe: dict[str, Any] | None = recipe if isinstance(recipe, dict) else None
        self._chosen = np.arange(len(self.names))
        self._memory: dict[int, np.ndarray] = {}
        self._map: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._chosen)

    def images(self, indices: Sequence[int] | np.ndarray | slice) -> np.ndarray:
        """Images by number: (N, C, H, W) uint8; those of 16 bits are rounded, 65535 to 255.

        Raises:
            DataError: An image's data is broken.
        """
        stored = self.stored(indices)
        return stored if self.bits == 8 else ((stored.astype(np.uint32) + 128) // 257).astype(np.uint8)

    def stored(self, indices: Sequence[int] | np.ndarray | slice) -> np.ndarray:
        """Images by number as they are stored: (N, C, H, W) uint8 or uint16.

        They come from the decoded file if `check` made one; else they are decoded, and kept in memory while the whole set would fit into 2 GiB.

        Raises:
            DataError: An image's data is broken.
        """
        wanted = self._chosen[indices if isinstance(indices, slice) else np.asarray(indices, np.int64)]
        if self._facts and self._facts.pixels:
            if self._map is None:
                self._map = np.load(self._facts.pixels, mmap_mode="r")
            return np.asarray(self._map[wanted])
        result = np.zeros((len(wanted), *self._kind.shape), self._kind.dtype)
        keep = len(self.names) * self._kind.nbytes <= MOST_CACHE_BYTES
        for place, i in enumerate(map(int, wanted)):
            pixels = self._memory.get(i)
            if pixels is None:
                pixels = self._decode(i)
                if keep:
                    self._memory[i] = pixels
            result[place] = pixels
        return result

    def check(self, folder: Path | None = None, *, most_bytes: int = 2**62, step: Step = nothing) -> None:
        """Decode every image of the set once, before hours are spent on it, and keep what that gave.

        Args:
            folder: Gets the decoded images as one memory-mapped file, where the disk has room, and what is known of them: opened with
                `cache=folder`, the set is not read again until a file of it changes. None keeps the facts in memory.
            most_bytes: Bound of that file; 0 makes none.
            step: Progress, in images.

        Raises:
            DataError: Images are broken; they are listed.
        """
        if self._facts and (folder is None or self._facts.pixels):
            return
        self._facts = decoded.decode_all(self._files, self._kind, folder=folder, most_bytes=most_bytes, step=step)
        self._map = None
        if self._facts.pixels:
            self._memory = {}

    @property
    def whole(self) -> int:
        """Images of the whole set, also where only a part of them was chosen."""
        return len(self._files.images)

    @property
    def decoded_in(self) -> Path | None:
        """The file of decoded images, where there is one."""
        return self._facts.pixels if self._facts else None

    def digests(self) -> np.ndarray:
        """SHA-256 of each image's stored bytes, (C, H, W) in C order: (N, 32) uint8; decodes every image once."""
        self.check()
        assert self._facts
        digests: np.ndarray = self._facts.digests[self._chosen]
        return digests

    @cached_property
    def identity(self) -> str:
        """SHA-256 over pixels, labels and recipe; decodes every image once."""
        return identity_of((row.tobytes().hex() for row in self.digests()), (self.channels, self.resolution), self.labels, self.recipe)

    def limited(self, most: int, *, seed: int = 0) -> Dataset:
        """A part of the set, as the official max_size draws it: shuffled by RandomState(seed), the first ones taken, in order again.

        Args:
            most: How many images; 0, or as many as there are, is the whole set.
            seed: Of the draw.
        """
        if not 0 < most < len(self):
            return self
        places = np.arange(len(self))
        np.random.RandomState(seed % 2**31).shuffle(places)
        places = np.sort(places[:most])
        part = copy.copy(self)
        part.__dict__.pop("identity", None)
        part._chosen = self._chosen[places]
        part.names = [self.names[i] for i in places]
        part.labels = None if self.labels is None else self.labels[places]
        return part

    def table(self) -> list[dict[str, str]]:
        """The rows of manifest.csv that belong to the images, in their order; empty where there is none, or it is of other images."""
        if MANIFEST not in self._files.sizes:
            return []
        try:
            text = self._files.read(MANIFEST, MOST_TEXT_BYTES).decode()
            rows = {row.get("image", ""): row for row in csv.DictReader(io.StringIO(text))}
        except (UnicodeDecodeError, csv.Error):
            return []
        return [rows[name] for name in self.names] if all(name in rows for name in self.names) else []

    def subjects(self) -> list[str] | None:
        """The key of each image's patient, as the manifest has it; None where it is not known of every image."""
        keys = [row.get("subject_key", "") for row in self.table()]
        return keys if keys and all(keys) else None

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
        name = self._files.images[index]
        pixels, fault = decode(self._files, name, self._kind)
        if pixels is None:
            raise DataError(f"{self._files.called(name)} {fault}", fix="prepare the dataset again, or copy it again")
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
        table: dict[str, Any] = {}
        try:
            for name, label in pairs.items() if isinstance(pairs, dict) else pairs:
                name = str(name).replace("\\", "/")
                if table.setdefault(name, label) != label:
                    raise DataError("dataset.json has two labels for one image", fix="one label per image")
        except (TypeError, ValueError):
            raise DataError("labels in dataset.json are no list of [name, label]") from None
        fix = 'label every image, or write {"labels": null}'
        missing = [name for name in self.names if name not in table]
        if missing:
            raise DataError(f"dataset.json has no label for {self._files.listed(missing)}", fix=fix)
        if len(table) > len(self.names):
            raise DataError(f"dataset.json labels {len(table)} images, the set has {len(self.names)}: is it a part of another?", fix=fix)
        try:
            labels = np.array([table[name] for name in self.names])
        except ValueError:
            labels = np.array("ragged")
        if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) and labels.min() >= 0:
            if labels.max() >= MOST_CLASSES:
                raise DataError(
                    f"a label in dataset.json is {labels.max()}, and classes are counted from 0", fix="number the classes without gaps"
                )
            return labels.astype(np.int64)
        if labels.ndim == 2 and np.issubdtype(labels.dtype, np.number) and np.isfinite(labels).all():
            return labels.astype(np.float32)
        raise DataError("labels in dataset.json are neither class numbers from 0 nor vectors of one length")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memory": {}, "_map": None}


def held_out_of(data: Path) -> Path | None:
    """The held-out images that `prepare` wrote beside a dataset: DATA.held-out.zip for DATA.zip; None where there are none."""
    beside = data.with_suffix(HELD_OUT)
    return beside if data.suffix.lower() == ".zip" and beside.is_file() else None


def open_dataset(path: Path, *, show_names: bool = True, any_size: bool = False, cache: Path | None = None) -> Dataset:
    """A dataset made by `prepare`, an official zip, or a folder of pictures; all files are checked first.

    Args:
        path: Zip or folder.
        show_names: Whether errors may show the names of images, which may name a patient. Where not, an image is called by its
            place in the sorted order and its SHA-256 (docs/decisions/0008-names-in-dataset-errors.md).
        any_size: Take any size that all images share, also where no network takes it.
        cache: Folder in which `Dataset.check` kept what it found: a set that has not changed since is not checked again.

    Raises:
        InputError: There is nothing at `path`.
        DataError: It is no dataset, or images differ in size, channels or bit depth: the offending ones are listed.
    """
    if not path.exists():
        raise InputError("the dataset does not exist", fix="medgan prepare SCANS OUT.zip makes one")
    return Dataset(path, show_names=show_names, any_size=any_size, cache=cache)


def find_dataset(source: Path) -> Path | None:
    """The dataset that a source already is: a zip of pictures, a folder with one such zip, or a folder of pictures; None for scans."""
    if source.is_file():
        return source if _is_dataset_zip(source) else None
    if not source.is_dir():
        return None
    files = [
        file
        for file in sorted(source.rglob("*"))
        if file.is_file()
        and not file.name.startswith(".")
        and not file.name.endswith("_catalog.xml")
        # What an earlier run made is no data set of the next.
        and not any(part.startswith(RESULTS) for part in file.relative_to(source).parts)
    ]
    archives = [file for file in files if _is_dataset_zip(file) and not file.name.endswith(HELD_OUT)]
    if len(archives) == 1 and not any(is_image(file.name) for file in files if ".info" not in "/".join(file.parts)):
        return archives[0]
    known = (*PLAIN_PICTURES, ".json", ".csv", ".txt", ".md", ".xml")
    pictures = [file for file in files if is_image(file.name) and file.suffix.lower() in PLAIN_PICTURES]
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
