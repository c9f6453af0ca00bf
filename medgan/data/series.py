"""DICOM series: headers indexed, grouped and ordered, and a MONAI ImageReader that reads one series as one volume.

MONAI's own DICOM readers merge two series of a folder silently, order by InstanceNumber and drop slices without one; here
files belong together by series, size and orientation, and stand in the order of their position along the slice normal.
The decision is in docs/decisions/0003-series-reader.md.
"""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from monai.data.image_reader import ImageReader
from monai.utils import MetaKeys, SpaceKeys

from medgan.data import multiframe
from medgan.data.photometry import display, measured_values, stored_values
from medgan.data.quiet import quiet
from medgan.errors import DataError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SYNTHETIC_DATA = 0x0008001C
MOST_PIXELS_A_SIDE = 16384
# 2 ** 31 values as float32 are 8 GiB; a header that claims more is broken or hostile.
MOST_PIXELS = 2**31

TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "FrameOfReferenceUID", "ImageType", "Modality",
    "SeriesNumber", "SeriesDescription", "AcquisitionNumber", "InstanceNumber", "TemporalPositionIdentifier", "TriggerTime", "EchoTime",
    "BurnedInAnnotation", "ProtocolName", "ConvolutionKernel", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns",
    "NumberOfFrames", "SamplesPerPixel", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "DiffusionBValue", *multiframe.GROUPS,
]  # fmt: skip

DEFLATED = str(pydicom.uid.DeflatedExplicitVRLittleEndian).encode()
MOST_INFLATED = 2**30

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
BURNED_IN = "annotation burned into the pixels"
OUTLINES = ("SEG", "RTSTRUCT")
VOLUMES = ("CT", "MR", "PT")
NO_IMAGES = ("SR", "PR", "KO", "REG", "RTPLAN", "RTDOSE", "RTRECORD", "DOC", "AU", "ECG", "HD", "PLAN", "FID", "RWV")


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What is needed of one DICOM slice to place it; identities stay inside this process.

    Args:
        path: The file.
        frame: Which of its frames, counted from 0.
        modality: CT, MR, ...
        patient: PatientID, "" where absent.
        study: StudyInstanceUID, "" where absent.
        series: SeriesInstanceUID, "" where absent.
        instance: SOPInstanceUID and frame, "" where absent.
        space: FrameOfReferenceUID, "" where absent.
        shape: Columns and rows.
        group: Everything in which the files of one series agree.
        geometry: Position (3), row cosines (3), column cosines (3), in LPS mm; None where the header has none.
        spacing: Distance between columns and between rows in mm.
        spaced: Whether the header gives that distance.
        thickness: SliceThickness in mm, 0 where absent.
        order: What orders files at one position: time, echo, acquisition, instance.
        words: SeriesDescription and ProtocolName.
        kernel: ConvolutionKernel, its values joined by a blank.
        derived: Whether ImageType says that the image is no original or no primary one.
        fault: Why the file is left out, "" for an image that can be used.
        kind: SEG or RTSTRUCT for a file that outlines organs, "" for others.
    """

    path: Path
    frame: int = 0
    modality: str = ""
    patient: str = ""
    study: str = ""
    series: str = ""
    instance: str = ""
    space: str = ""
    shape: tuple[int, int] = (0, 0)
    group: tuple[Any, ...] = ()
    geometry: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]] | None = None
    spacing: tuple[float, float] = (1.0, 1.0)
    spaced: bool = True
    thickness: float = 0.0
    order: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    kernel: str = ""
    derived: bool = False
    fault: str = ""
    kind: str = ""

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice, LPS."""
        assert self.geometry
        return np.cross(self.geometry[1], self.geometry[2])

    @property
    def position(self) -> float:
        """Distance of the slice from the origin along its normal, in mm."""
        return float(np.dot(self.geometry[0], self.normal)) if self.geometry else 0.0


def _text(data: pydicom.Dataset, name: str) -> str:
    return str(data.get(name) or "").strip().strip("\0")


def _words(data: pydicom.Dataset, name: str) -> list[str]:
    value = data.get(name) or []
    return [str(word).strip() for word in ([value] if isinstance(value, str) else value)]


def _number(data: pydicom.Dataset, name: str) -> float:
    try:
        return float(data.get(name) or 0)
    except (TypeError, ValueError):
        return 0.0


def _numbers(data: pydicom.Dataset, name: str, length: int) -> tuple[float, ...] | None:
    value = data.get(name)
    try:
        numbers = tuple(float(v) for v in value) if value is not None else ()
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == length and all(np.isfinite(numbers)) else None


def _fault(data: pydicom.Dataset, modality: str, *, allow_burned_in: bool) -> str:
    kinds = [str(word).upper() for word in (data.get("ImageType") or [])]
    rows, columns = int(_number(data, "Rows")), int(_number(data, "Columns"))
    synthetic = data.get(SYNTHETIC_DATA)
    if synthetic is not None and str(synthetic.value).strip().upper() == "YES":
        return "marked as synthetic data"
    if _text(data, "BurnedInAnnotation").upper() == "YES" and not allow_burned_in:
        return BURNED_IN
    if modality in OUTLINES:
        return ""
    if modality in NO_IMAGES:
        return f"no image series ({modality})"
    if rows <= 0 or columns <= 0:
        return "no image in the file"
    if max(rows, columns) > MOST_PIXELS_A_SIDE:
        return f"larger than {MOST_PIXELS_A_SIDE} pixels a side"
    if "LOCALIZER" in kinds or "SCOUT" in kinds:
        return "localiser"
    if _text(data, "SOPClassUID").startswith(SECONDARY_CAPTURE) or "SCREEN SAVE" in kinds or "DOSE_INFO" in kinds:
        return "screen capture"
    if "DERIVED" in kinds and {"MPR", "REFORMATTED", "PROJECTION IMAGE", "MIP"} & set(kinds):
        return "reformat"
    if _number(data, "SamplesPerPixel") > 1:
        return "colour where grey is expected"
    if rows * columns * multiframe.frame_count(data) > MOST_PIXELS:
        return "the header claims more than 2 billion pixels"
    if multiframe.frame_count(data) > 1 and not multiframe.is_enhanced(data):
        return "multi-frame file that does not say where its frames lie"
    return ""


def read_headers(path: Path, *, allow_burned_in: bool = False) -> list[Header]:
    """The slices of a DICOM file: one, or the frames of an enhanced multi-frame file; none where the file is no DICOM at all.

    A file that cannot be used comes back as one header with a `fault`. Pixels are not read.

    Args:
        path: The file.
        allow_burned_in: Take images that say that annotation is burned into them.
    """
    with path.open("rb") as file:
        start = file.read(1024)
    is_dicom = start[128:132] == b"DICM"
    if not is_dicom and path.suffix.lower() not in (".dcm", ".dicom", ".ima"):
        return []
    try:
        with quiet():
            if DEFLATED in start and _inflated(path) > MOST_INFLATED:
                return [Header(path=path, fault="inflates to more than 1 GiB")]
            data = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=[*TAGS, SYNTHETIC_DATA])
            modality = _text(data, "Modality").upper()
            if fault := _fault(data, modality, allow_burned_in=allow_burned_in):
                return [dataclasses.replace(_header(path, 0, data), fault=fault)]
            if modality in OUTLINES:
                return [dataclasses.replace(_header(path, 0, data), kind=modality)]
            return [_frame(path, frame, header, modality) for frame, header in enumerate(multiframe.frame_headers(data))]
    except Exception as error:  # pydicom raises whatever a broken value makes Python raise
        return [Header(path=path, fault=f"header unreadable ({type(error).__name__})")]


def _inflated(path: Path) -> int:
    """Bytes of a deflated dataset, counted in blocks and no further than `MOST_INFLATED`: pydicom inflates all of it at once."""
    meta = pydicom.filereader.read_file_meta_info(path)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    count = 0
    with path.open("rb") as file:
        # Preamble and prefix, then the group length element itself (PS3.10 7.1).
        file.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
        while count <= MOST_INFLATED and (block := inflate.unconsumed_tail or file.read(2**16)):
            count += len(inflate.decompress(block, 2**20))
    return count


def _frame(path: Path, frame: int, data: pydicom.Dataset, modality: str) -> Header:
    header = _header(path, frame, data)
    # In enhanced files both may stand in each frame's own groups.
    if modality == "CT" and "RescaleSlope" not in data and "ModalityLUTSequence" not in data:
        return dataclasses.replace(header, fault="no RescaleSlope, so the values are not HU")
    if "LOCALIZER" in [str(word).upper() for word in (data.get("ImageType") or [])]:
        return dataclasses.replace(header, fault="localiser")
    return header


def _header(path: Path, frame: int, data: pydicom.Dataset) -> Header:
    modality = _text(data, "Modality").upper()
    position = _numbers(data, "ImagePositionPatient", 3)
    cosines = _numbers(data, "ImageOrientationPatient", 6)
    geometry = None
    if position and cosines and np.linalg.norm(np.cross(cosines[:3], cosines[3:])) > 0.9:
        geometry = (position, cosines[:3], cosines[3:])
    spacing = _numbers(data, "PixelSpacing", 2) or (0.0, 0.0)
    spaced = min(spacing) > 0
    if not spaced:
        spacing = (1.0, 1.0)
    series, study = _text(data, "SeriesInstanceUID"), _text(data, "StudyInstanceUID")
    # An emptied series UID (some anonymisers do that) groups all series of a folder: what else tells them apart stands in for it.
    stand_in = (
        ()
        if series
        else (str(path.parent), _text(data, "FrameOfReferenceUID"), _text(data, "SeriesDescription"), _number(data, "SeriesNumber"))
    )
    shape = (int(_number(data, "Columns")), int(_number(data, "Rows")))
    # Cosines are written with few digits by some scanners: 1e-3 is 0.06 degrees.
    orientation = tuple(round(v, 3) + 0.0 for v in cosines) if geometry and cosines else (str(path), frame)
    grid = (shape, orientation, tuple(round(v, 4) for v in spacing))
    # Numbers that part a series into volumes: echo, diffusion weighting, and the stack of an enhanced file.
    kind = (round(_number(data, "EchoTime"), 3), round(_number(data, "DiffusionBValue"), 1), _text(data, "StackID"))
    instance = _text(data, "SOPInstanceUID")
    return Header(
        path=path,
        frame=frame,
        modality=modality,
        patient=_text(data, "PatientID"),
        study=study,
        series=series,
        instance=f"{instance}/{frame}" if instance else "",
        space=_text(data, "FrameOfReferenceUID"),
        shape=shape,
        group=(modality, study, series, stand_in, grid, kind),
        geometry=geometry,
        spacing=(spacing[1], spacing[0]),
        spaced=spaced,
        thickness=_number(data, "SliceThickness"),
        order=(
            *(_number(data, name) for name in ("TemporalPositionIdentifier", "TriggerTime", "AcquisitionNumber", "InstanceNumber")),
            frame,
        ),
        words=(_text(data, "SeriesDescription"), _text(data, "ProtocolName")),
        kernel=" ".join(_words(data, "ConvolutionKernel")),
        derived=bool({"DERIVED", "SECONDARY"} & {word.upper() for word in _words(data, "ImageType")[:2]}),
    )


def stacks(headers: Iterable[Header]) -> tuple[list[list[Header]], list[tuple[Header, str]]]:
    """Files of one group as volumes, each ordered by position along the normal, and the files left out.

    Where every position is there k times, as in a cine or a perfusion series, k volumes come back, ordered by time.
    The same instance twice is a copy; other files at a position that is already taken are left out.
    """
    left_out: list[tuple[Header, str]] = []
    seen: set[str] = set()
    once = []
    for header in sorted(headers, key=lambda h: (h.position, h.order, str(h.path))):
        if header.instance and header.instance in seen:
            left_out.append((header, "copy of another file of the series"))
            continue
        seen.add(header.instance)
        once.append(header)
    # 0.01 mm: positions are written with two or more decimals.
    places = [list(same) for _, same in itertools.groupby(once, key=lambda h: round(h.position, 2))]
    depth = min((len(place) for place in places), default=0)
    if depth > 1 and all(len(place) == depth for place in places):
        return [[place[k] for place in places] for k in range(depth)], left_out
    for place in places:
        left_out.extend((header, "another file at the same position") for header in place[1:])
    return [[place[0] for place in places]] if places else [], left_out


def geometry_of(stack: Sequence[Header]) -> tuple[np.ndarray, np.ndarray]:
    """Affine and slice origins of an ordered stack.

    Returns:
        (4, 4) affine from (column, row, slice) to RAS mm, its third axis the mean step from first to last slice (so a gantry
        tilt shows as shear), and the (N, 3) RAS positions of the first pixel of each slice.
    """
    first = stack[0]
    if first.geometry is None:
        return LPS_TO_RAS @ np.diag([*first.spacing, first.thickness or 1.0, 1.0]), np.zeros((len(stack), 3))
    origins = np.array([header.geometry[0] for header in stack if header.geometry])
    step = (origins[-1] - origins[0]) / (len(stack) - 1) if len(stack) > 1 else first.normal * (first.thickness or 1.0)
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.geometry[1]) * first.spacing[0]
    affine[:3, 1] = np.array(first.geometry[2]) * first.spacing[1]
    affine[:3, 2] = step
    affine[:3, 3] = origins[0]
    return LPS_TO_RAS @ affine, origins * [-1, -1, 1]


def notes_on(stack: Sequence[Header]) -> list[str]:
    """What is odd about the slices of a stack: gaps, uneven steps, a tilted gantry."""
    notes = []
    # X-rays have neither by rights.
    if stack[0].modality in VOLUMES and stack[0].geometry is None:
        notes.append("the header does not say how the scan lies: orientation assumed")
    if stack[0].modality in VOLUMES and not stack[0].spaced:
        notes.append("the header gives no distance between pixels: squares of 1 mm assumed")
    if len(stack) < 2 or stack[0].geometry is None:
        return notes
    steps = np.diff([header.position for header in stack])
    usual = float(np.median(steps))
    if gaps := int(np.sum(np.round(steps / usual) - 1)):
        notes.append(f"gaps: {gaps} slices missing at {usual:g} mm steps")
    elif np.ptp(steps) > 0.1 * usual:
        notes.append(f"uneven steps: {steps.min():.2f} to {steps.max():.2f} mm")
    origins = np.array([header.geometry[0] for header in stack if header.geometry])
    path = origins[-1] - origins[0]
    cosine = abs(float(np.dot(path, stack[0].normal))) / float(np.linalg.norm(path))
    if (tilt := float(np.degrees(np.arccos(min(cosine, 1.0))))) > 1.0:
        notes.append(f"tilted: slices shift by {tilt:.1f} degrees against their normal")
    return notes


class SeriesReader(ImageReader):
    """The files of one DICOM series as one volume, for `monai.transforms.LoadImage`.

    Hand an instance to the call, `LoadImage()(files, reader=SeriesReader())`: a reader given to the constructor is only the
    first of several that LoadImage tries, and the next ones get the series wrong without saying so.

    Args:
        frames: The frame of each file, counted from 0, where files hold several; empty takes all frames of all files.
        skip_broken: Leave out files whose pixels cannot be decoded, and say so in the metadata, rather than raise.
        allow_burned_in: Take images that say that annotation is burned into them.
    """

    def __init__(self, *, frames: Sequence[int] = (), skip_broken: bool = False, allow_burned_in: bool = False) -> None:
        super().__init__()
        self.frames = frames
        self.skip_broken = skip_broken
        self.allow_burned_in = allow_burned_in

    def verify_suffix(self, filename: Any) -> bool:
        """Whether all files are DICOM, by content: scanners and archives name them as they like."""
        names = [filename] if isinstance(filename, str | Path) else filename
        return all(Path(name).is_file() and bool(read_headers(Path(name))) for name in names)

    def _headers(self, names: Sequence[Any]) -> list[Header]:
        paths = [Path(name) for name in names]
        of_file = {
            path: read_headers(path, allow_burned_in=self.allow_burned_in) or [Header(path=path, fault="not DICOM")]
            for path in dict.fromkeys(paths)
        }
        if not self.frames:
            return [header for headers in of_file.values() for header in headers]
        return [of_file[path][frame if frame < len(of_file[path]) else 0] for path, frame in zip(paths, self.frames, strict=True)]

    def read(self, data: Any, **kwargs: Any) -> tuple[list[Header], np.ndarray, dict[str, Any]]:
        """Decode the files of one series.

        Raises:
            DataError: They are no single volume, or a file is broken and `skip_broken` is off.
        """
        headers = self._headers([data] if isinstance(data, str | Path) else data)
        if len({header.group for header in headers}) > 1:
            raise DataError(f"{len(headers)} files belong to {len({h.group for h in headers})} series", fix="read one series at a time")
        stacked, left_out = stacks(headers)
        if len(stacked) != 1:
            raise DataError(f"the series holds {len(stacked)} volumes", fix="read one phase at a time")
        skipped = [(str(header.path), why) for header, why in left_out]
        kept: list[Header] = []
        shown: dict[str, Any] = {}
        volume = np.empty((*stacked[0][0].shape, len(stacked[0])), np.float32)
        opened = _LastFile()
        for header in stacked[0]:
            try:
                if header.fault:
                    raise DataError(header.fault)
                with quiet():
                    file = opened.dataset(header.path)
                    frame = multiframe.frame_header(file, header.frame)
                    volume[:, :, len(kept)] = measured_values(frame, stored_values(file, header.frame)).T
                    # One display for the whole volume: that of its first slice.
                    shown = shown or dataclasses.asdict(display(frame))
                kept.append(header)
            except Exception as error:
                if not self.skip_broken:
                    raise
                why = error.message if isinstance(error, DataError) else f"pixels unreadable ({type(error).__name__})"
                skipped.append((str(header.path), why))
        if not kept:
            reasons = sorted({why for _, why in skipped})
            raise DataError(f"no slice of the series can be decoded ({'; '.join(reasons[:3])})")
        # Plain strings and numbers: LoadImage walks the metadata and knows no Path.
        return kept, volume[:, :, : len(kept)], {"skipped": skipped, "notes": notes_on(kept), "display": shown}

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """The volume, (columns, rows, slices) float32 with slices in ascending order along the normal, and its metadata.

        `affine` maps indices to RAS mm. `slice_origins` has each slice's own position, `skipped` the files left out with reasons, `notes` what is odd,
        `display` the fields of `photometry.Display`.
        """
        headers, volume, said = img
        affine, origins = geometry_of(headers)
        meta = {
            str(MetaKeys.AFFINE): affine,
            str(MetaKeys.ORIGINAL_AFFINE): affine.copy(),
            str(MetaKeys.SPACE): SpaceKeys.RAS,
            str(MetaKeys.SPATIAL_SHAPE): np.array(volume.shape),
            str(MetaKeys.ORIGINAL_CHANNEL_DIM): float("nan"),
            "slice_origins": origins,
            **said,
        }
        return volume, meta


class _LastFile:
    """The dataset of the file read last: frames of one file follow one another."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._data = pydicom.Dataset()

    def dataset(self, path: Path) -> pydicom.Dataset:
        if path != self._path:
            self._data, self._path = pydicom.dcmread(path, force=True), path
        return self._data
