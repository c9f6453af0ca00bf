"""The files of a dataset, zip or folder, by name: reading is bounded, and what is hostile or torn is refused. Torch-free."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medgan.errors import DataError
from medgan.runs import RESULTS

MANIFEST = "manifest.csv"
RECIPE = "recipe.json"
LABELS = "dataset.json"
MANIFEST_START = b"image,sha256,subject_key,"
# What the official reader takes is any suffix that PIL knows; these are the ones with pixels.
PICTURES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".pbm", ".pgm", ".ppm", ".pnm",
    ".tga", ".pcx",
)  # fmt: skip
# Pictures of many images, which `prepare` and `generate` write beside them.
SHEETS = ("contact_sheet.png", "qc_sheet.png")
OUR_NAME = re.compile(r"\d{5}/img\d{8}\.png")

# Bounds for files made elsewhere: an image of the largest size as uncompressed RGB is 3 MiB, a manifest line 300 bytes.
MOST_IMAGE_BYTES = 64 * 2**20
MOST_TEXT_BYTES = 512 * 2**20
MOST_ENTRIES = 2_000_000
MOST_RATIO = 200
SHOWN = 10


def is_image(name: str) -> bool:
    """Whether a file of a dataset is one of its images, by its name: a picture, and no sheet of pictures."""
    return name.lower().endswith(PICTURES) and not name.startswith("__MACOSX/") and name.lower().split("/")[-1] not in SHEETS


def is_result(archive: zipfile.ZipFile) -> bool:
    """Whether a zip is a dataset that `prepare` wrote: its own files and images under their names, and nothing else."""
    own = {MANIFEST, RECIPE, LABELS}
    names = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    if not own <= names.keys() or not all(OUR_NAME.fullmatch(name) for name in names.keys() - own) or names[MANIFEST].flag_bits & 1:
        return False
    with archive.open(MANIFEST) as file:
        return file.read(len(MANIFEST_START)) == MANIFEST_START


class Files:
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
        self._marks: list[list[Any]] = []
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
        twice = [name for name, count in Counter(info.filename for info in entries).items() if count > 1]
        if twice:
            shown = twice[0] if self.show_names or OUR_NAME.fullmatch(twice[0]) else "a name"
            raise DataError(f"the zip holds {shown} twice", fix="zip the folder of images again")
        self._marks = sorted([info.filename, info.file_size, info.CRC] for info in entries)
        return {info.filename: info.file_size for info in entries}

    def _folder_sizes(self) -> dict[str, int]:
        sizes = {}
        for folder, subfolders, names in os.walk(self.path):
            subfolders[:] = [name for name in subfolders if not name.startswith((".", RESULTS))]
            for name in names:
                file = Path(folder) / name
                if not name.startswith(".") and file.is_file():
                    status = file.stat()
                    sizes[file.relative_to(self.path).as_posix()] = status.st_size
                    self._marks.append([file.relative_to(self.path).as_posix(), status.st_size, status.st_mtime_ns])
        self._marks.sort()
        return sizes

    @property
    def mark(self) -> str:
        """SHA-256 of names, sizes and checksums (in a folder: times): it changes when a file does, and reads none of them."""
        return hashlib.sha256(json.dumps(self._marks).encode()).hexdigest()

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
