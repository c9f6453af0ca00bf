"""Finds scans below a folder: DICOM series by their headers, volumes in one file, XNAT archive trees; tells whose each one is.

Folder and file names are labels of patients in many archives: they choose nothing but the patient, and leave this room
only as keys.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medgan import runs
from medgan.errors import InputError

if TYPE_CHECKING:
    from medgan.data.series import Header

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mhd", ".mha", ".nrrd", ".nhdr")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
OTHER_SUFFIXES = (
    *PICTURE_SUFFIXES, ".gif", ".xml", ".json", ".txt", ".csv", ".tsv", ".md", ".pdf", ".html", ".htm", ".log", ".raw", ".zraw", ".img",
    ".zip", ".gz", ".tar", ".tgz", ".npz", ".npy", ".py", ".sh", ".yaml", ".yml", ".xlsx", ".docx", ".bval", ".bvec", ".cfg", ".mat", ".part",
)  # fmt: skip

# What XNAT puts beside scans: pictures of them, and its own lists.
SKIPPED_FOLDERS = ("SNAPSHOTS", "__MACOSX")
XNAT_LEVELS = ("SCANS", "RESOURCES", "ASSESSORS")
XNAT_RESOURCES = ("DICOM", "NIFTI", "NIFTI_RAW", "NII", "NRRD", "MHD", "SECONDARY", "SEG", "RTSTRUCT", "MASK", "MASKS")

CLOSED = "a file or folder that may not be opened"

# How a patient is called of whom neither header nor folder nor name says anything; the content follows.
NAMELESS = "content "


@dataclass(frozen=True)
class Place:
    """Where a file lies below the source: whose it is, as far as folders say.

    Args:
        parts: Folders and the file's name.
    """

    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.parts[-1]

    @property
    def folders(self) -> tuple[str, ...]:
        return self.parts[:-1]

    def _level(self) -> int | None:
        return next((i for i, part in enumerate(self.folders) if part.upper() in XNAT_LEVELS), None)

    def _entity(self, key: str, *, of_name: bool = True) -> str:
        """A BIDS entity, `sub-01`: of a folder, else of the file's name (`sub-01_ses-2_T1w.nii.gz`), as flat copies of a BIDS set have it."""
        folder = next((part for part in self.folders if part.startswith(f"{key}-")), "")
        hit = re.search(rf"(?:^|_)({key}-[A-Za-z0-9]+)_", self.name) if of_name and not folder else None
        return hit[1] if hit else folder

    @property
    def patient(self) -> str:
        """BIDS `sub-`, else XNAT's session or the top folder; "" for other files of the top level, or below a resource of one scan."""
        level = self._level()
        # Names of files may be a site's own in XNAT; a session's name holds for all that lies in it.
        if subject := self._entity("sub", of_name=level is None):
            return subject
        if level is not None:
            return self.folders[level - 1] if level else "(session)"
        if not self.folders:
            return ""
        return "(scan)" if self.folders[0].upper() in XNAT_RESOURCES else self.folders[0]

    @property
    def session(self) -> str:
        """Patient and, where folders tell, session: BIDS `ses-`, else XNAT's session."""
        ses = self._entity("ses")
        return f"{self.patient}/{ses}" if ses else self.patient


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A file that holds a volume.

    Args:
        path: The file.
        place: Where it lies.
        shape: Voxels along each axis.
        affine: (4, 4) to RAS mm.
        placed: Whether the file says how it lies in space.
        kind: SEG or RTSTRUCT for DICOM files that outline organs, "" for others.
    """

    path: Path
    place: Place
    shape: tuple[int, ...]
    affine: np.ndarray
    placed: bool = True
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One volume as acquired.

    Args:
        files: Its files; for a DICOM series one for each slice, in the order of their position.
        dicom: Whether it is a DICOM series.
        file_frames: Which frame of each file, counted from 0; empty for other formats than DICOM.
        place: Where its first file lies.
        modality: DICOM modality, "" for formats that have none.
        patient: Who it is of; "" until the content can stand in (a file without any label).
        session: Study or session it belongs to.
        series: Series UID (and phase); "" where only the content identifies it.
        shape: Voxels along the three axes.
        affine: (4, 4) to RAS mm.
        space: FrameOfReferenceUID, "" where the format has none.
        notes: What is odd about it: gaps, tilt.
        words: SeriesDescription and ProtocolName of a DICOM series; matched, never shown.
        kernel: Its ConvolutionKernel.
        thickness_mm: Its SliceThickness, 0 where absent.
        derived: Whether its ImageType is not original and primary.
        frame: Which volume of a 4-D file, from 0; -1 for a file that holds one.
        kind: `series` (DICOM), `volume`, `picture` or `stack` (of pictures, one after another).
        member: Which array of a stack.
        label: Its class, or several as `a|b`; None where nothing says.
        split: `train` or `held-out` where the data set comes in parts of its own, else "".
    """

    files: tuple[Path, ...]
    dicom: bool
    place: Place
    modality: str
    patient: str
    session: str
    series: str
    shape: tuple[int, int, int]
    affine: np.ndarray
    space: str = ""
    file_frames: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    kernel: str = ""
    thickness_mm: float = 0.0
    derived: bool = False
    frame: int = -1
    kind: str = "series"
    member: str = ""
    label: str | None = None
    split: str = ""


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """Something left out, and why.

    Args:
        level: `file`, `scan` or `slice`.
        identity: What its key is made of; never written itself.
        reason: Why.
        count: Slices or files concerned.
        slices: Which slices, as ranges: `0-68,111`.
    """

    level: str
    identity: str
    reason: str
    count: int = 1
    slices: str = ""


@dataclass
class Found:
    """What lies below a source.

    Args:
        scans: DICOM series.
        volumes: Files that hold a scan or a label map.
        excluded: What was left out.
        pictures: How many pictures lie there.
        patients: PatientID by `Place.patient`, where all DICOM files of that place agree on one.
    """

    scans: list[Scan] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)
    pictures: int = 0
    patients: dict[str, str] = field(default_factory=dict)


def walk(source: Path, leave_out: Sequence[Path] = (), excluded: list[Excluded] | None = None) -> list[tuple[Path, Place]]:
    """All files below a folder (or the one file), sorted, without hidden ones and what XNAT adds; links are followed, loops are not.

    Args:
        source: Folder or file.
        leave_out: Files and folders that are results of ours and may lie below the source.
        excluded: Takes folders and files that may not be opened.

    Raises:
        InputError: There is no such source, or not one file in it, or it may not be opened.
    """
    closed: list[OSError] = []
    if source.is_file():
        return [(source, Place((source.name,)))]
    if not source.is_dir():
        raise InputError("the input does not exist", fix="give the folder with the scans")
    ours = {os.path.realpath(path) for path in leave_out}
    files = []
    any_file = False
    entered = _Entered(source)
    for folder, subfolders, names in os.walk(source, followlinks=True, onerror=closed.append):
        here = Path(folder)
        shown = (name for name in sorted(subfolders) if name.upper() not in SKIPPED_FOLDERS and not name.startswith((".", runs.RESULTS)))
        subfolders[:] = [name for name in shown if os.path.realpath(here / name) not in ours and entered.leads_on(here / name)]
        for name in sorted(names):
            any_file = True
            path = here / name
            if name.startswith(".") or name.upper() == "DICOMDIR" or name.endswith("_catalog.xml") or os.path.realpath(path) in ours:
                continue
            try:
                if path.is_file():
                    files.append((path, Place(path.relative_to(source).parts)))
            except OSError as error:  # a folder that may be listed but not entered
                closed.append(error)
    if closed and not files:
        raise InputError(f"{CLOSED} in the input, and no file that may", fix="read permission for the user who runs this")
    if not any_file:
        raise InputError("the input folder is empty", fix="check the path, or what the platform mounts there (XNAT: path translation)")
    if closed and excluded is not None:
        excluded += [Excluded(level="file", identity=str(error.filename), reason=CLOSED) for error in closed]
    return files


class _Entered:
    """Folders that links have led to, so that none is entered twice: archives are often farms of links, and a link to a folder above has no end.

    Args:
        source: Where the walk begins.
    """

    def __init__(self, source: Path) -> None:
        self._roots: set[str] = set()
        self._above: set[str] = set()
        self._add(os.path.realpath(source))

    def _add(self, folder: str) -> None:
        self._roots.add(folder)
        self._above.update(map(str, Path(folder).parents))

    def leads_on(self, folder: Path) -> bool:
        """Whether a folder is to be entered: one that is no link, or a link to what lies neither in nor around those entered."""
        if not folder.is_symlink():
            return True
        target = os.path.realpath(folder)
        if target in self._above or not self._roots.isdisjoint([target, *map(str, Path(target).parents)]):
            return False
        self._add(target)
        return True


def name_matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a file name fits one of the patterns, or there are none; case does not matter."""
    return not patterns or any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


def content_identity(path: Path) -> str:
    """What identifies a file that says nothing about itself: the SHA-256 of its bytes, so not its name."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"


def find_scans(files: Iterable[tuple[Path, Place]], step: Callable[[], None] = lambda: None, *, allow_burned_in: bool = False) -> Found:
    """Sort files into DICOM series, volumes and the rest.

    Label maps are still among the volumes; `medgan.data.masks` tells them apart.

    Args:
        files: What `walk` gives.
        step: Called for each file.
        allow_burned_in: Take images that say that annotation is burned into them.
    """
    from medgan.data.series import Header, read_headers
    from medgan.data.volumes import read_geometry

    found = Found()
    headers: list[tuple[Header, Place]] = []
    seen: dict[str, set[str]] = defaultdict(set)
    for path, place in files:
        step()
        name = path.name.lower()
        if name.endswith(VOLUME_SUFFIXES):
            try:
                shape, affine, placed = read_geometry(path)
            except Exception as error:
                reason = getattr(error, "message", "") or f"header unreadable ({type(error).__name__})"
                found.excluded.append(Excluded(level="file", identity=content_identity(path), reason=reason))
                continue
            found.volumes.append(Volume(path=path, place=place, shape=shape, affine=affine, placed=placed))
        elif name.endswith(OTHER_SUFFIXES):
            found.pictures += name.endswith(PICTURE_SUFFIXES)
        else:
            try:
                slices = read_headers(path, allow_burned_in=allow_burned_in)
            except OSError as error:
                slices = [Header(path=path, fault=f"cannot be opened ({type(error).__name__})")]
            if not slices:
                if not path.suffix or path.stat().st_size == 0:
                    found.excluded.append(Excluded(level="file", identity=content_identity(path), reason="file of no known format"))
                continue
            if slices[0].patient and place.patient:
                seen[place.patient].add(slices[0].patient)
            if slices[0].kind:
                found.volumes.append(Volume(path=path, place=place, shape=(), affine=np.eye(4), kind=slices[0].kind))
                continue
            headers += [(header, place) for header in slices if not header.fault]
            for reason, count in Counter(header.fault for header in slices if header.fault).items():
                found.excluded.append(Excluded(level="file", identity=content_identity(path), reason=reason, count=count))
    found.patients = {place: patients.pop() for place, patients in seen.items() if len(patients) == 1}
    _series_scans(headers, found)
    return found


def _series_scans(headers: list[tuple[Header, Place]], found: Found) -> None:
    from medgan.data.series import geometry_of, notes_on, stacks

    places = {header.path: place for header, place in headers}
    groups = defaultdict(list)
    for header, place in headers:
        # The patient is part of the group: anonymisers give many patients one series UID.
        groups[(header.patient or found.patients.get(place.patient, place.patient), *header.group)].append(header)
    for (patient, *_), members in groups.items():
        stacked, left_out = stacks(members)
        for header, reason in left_out:
            found.excluded.append(Excluded(level="file", identity=header.instance or content_identity(header.path), reason=reason))
        for phase, stack in enumerate(stacked):
            first = stack[0]
            affine, _ = geometry_of(stack)
            series = f"{first.study}/{first.series}/{first.group[-2:]}/{phase}" if first.series else ""
            found.scans.append(
                Scan(
                    files=tuple(header.path for header in stack),
                    dicom=True,
                    file_frames=tuple(header.frame for header in stack),
                    space=first.space,
                    place=places[first.path],
                    modality=first.modality,
                    patient=patient,
                    session=first.study or places[first.path].session,
                    series=series,
                    shape=(first.shape[0], first.shape[1], len(stack)),
                    affine=affine,
                    notes=tuple(notes_on(stack)),
                    words=first.words,
                    kernel=first.kernel,
                    thickness_mm=first.thickness,
                    derived=first.derived,
                )
            )


def volume_scan(volume: Volume, patients: Mapping[str, str] | None = None, *, frame: int = -1) -> Scan:
    """The scan in a NIfTI, MetaImage or NRRD file.

    Args:
        volume: The file.
        frame: Which volume of a 4-D file, from 0.
        patients: `Found.patients`: a volume is of the patient whom the DICOM files beside it name, or one patient would
            count twice and could land on both sides of the split.
    """
    who = volume.place.patient
    top = volume.place.folders[0] if volume.place.folders else ""
    notes = () if volume.placed else ("the header does not say how the scan lies: orientation assumed",)
    x, y, z = (*volume.shape, 1, 1)[:3]
    return Scan(
        files=(volume.path,),
        dicom=False,
        place=volume.place,
        modality="",
        # Beside DICOM files the folder's patient holds, whatever the file is called.
        patient=(patients or {}).get(who, (patients or {}).get(top, who)),
        session=volume.place.session,
        series="",
        shape=(x, y, z),
        affine=volume.affine,
        notes=notes,
        frame=frame,
        kind="volume",
    )
