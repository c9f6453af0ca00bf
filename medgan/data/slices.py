"""The images of one scan: read, oriented, windowed, selected, made square, resized, written as PNG. Runs in a process of its own."""

from __future__ import annotations

import errno
import hashlib
import io
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.transforms.io.array import LoadImage
from PIL import Image
from torch import Tensor

from medgan.data import geometry, quality
from medgan.data.masks import LabelMap, resample_labels
from medgan.data.photometry import Display
from medgan.data.quiet import quiet
from medgan.data.recipe import Recipe
from medgan.data.scans import Excluded, Scan, Volume, content_identity
from medgan.data.series import SeriesReader
from medgan.data.volumes import read_volume
from medgan.data.windowing import to_grey, window_for
from medgan.errors import DataError

# Air is at -1000 HU, fat near -100: both are in every CT, also in one clipped to -200. Interpolated MR has a few such values too
# (one in two million in a BraTS scan), stored values without their intercept none.
AIR_OR_FAT = -100.0
LEAST_AIR_OR_FAT = 0.01

# zlib level 1 costs 40 % of level 6 and makes files 19 % larger.
PNG_LEVEL = 1

PERCENTILES = (0.5, 5.0, 50.0, 95.0, 99.5)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One scan to cut.

    Args:
        scan: The scan.
        mask: The label map that selects its slices; None keeps every slice.
        recipe: What is done.
        spool: File that takes the PNGs, one after another.
    """

    scan: Scan
    mask: LabelMap | None
    recipe: Recipe
    spool: Path


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One kept image: where it lies in the spool, and what the manifest says of it."""

    slice_index: int
    mask_pixels: int
    offset: int
    length: int
    sha256: str
    pixels: str


@dataclass(kw_only=True)
class Outcome:
    """What became of one scan.

    Args:
        fault: Why nothing came of it, "" otherwise.
        content: SHA-256 of its voxels as measured and of its place in space; independent of names and of the recipe.
        pictures: The kept images, in slice order.
        excluded: Files and slices left out; an empty identity means the scan's own.
    """

    fault: str = ""
    content: str = ""
    pictures: list[Picture] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_slices: int = 0
    rows: int = 0
    columns: int = 0
    spacing_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    orientation: str = ""
    level: float = 0.0
    width: float = 0.0
    upsampling: float = 0.0
    percentiles: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A scan in memory.

    (X, Y, Z) float32 with NaN where nothing was measured, affine to RAS mm, each slice's own position, and what a DICOM header says of
    how it is shown.
    """

    values: Tensor
    affine: np.ndarray
    origins: np.ndarray | None
    skipped: list[tuple[Path, str]]
    notes: list[str]
    display: Display | None = None


def load(scan: Scan) -> Loaded:
    """Read a scan through MONAI's LoadImage, with the one reader that fits it."""
    if not scan.dicom:
        volume = Volume(path=scan.files[0], place=scan.place, shape=scan.shape, affine=scan.affine)
        values, affine = read_volume(volume, scan.frame)
        return Loaded(
            values=torch.from_numpy(np.array(values, np.float32)), affine=affine, origins=None, skipped=[], notes=list(scan.notes)
        )
    with quiet():
        image = LoadImage()(list(scan.files), reader=SeriesReader(frames=scan.file_frames, skip_broken=True))
    meta = image.meta
    return Loaded(
        values=image.as_tensor(),
        affine=np.asarray(image.affine, np.float64),
        origins=np.asarray(meta["slice_origins"]),
        skipped=[(Path(path), reason) for path, reason in meta["skipped"]],
        notes=list(meta["notes"]),
        display=Display(**meta["display"]),
    )


def cut_scan(job: Job) -> Outcome:
    """All images of one scan. A fault of the scan is an answer, never an exception: the other scans go on.

    Messages of libraries are dropped, because they quote paths and header values.
    """
    outcome = Outcome()
    # One thread: scans are cut side by side in processes, and sums come out the same on every machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _cut(job, outcome)
    except DataError as error:
        outcome.fault = error.message
    except MemoryError:
        outcome.fault = "too large for the memory"
    except OSError as error:
        # A full disk is no fault of the scan: it stops the whole run.
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        outcome.fault = f"unreadable ({type(error).__name__})"
    except Exception as error:
        outcome.fault = f"unreadable ({type(error).__name__})"
    finally:
        # A job trains in this same process afterwards.
        torch.set_num_threads(threads)
    if outcome.fault:
        outcome.pictures = []
    return outcome


def _cut(job: Job, outcome: Outcome) -> None:
    scan, recipe = job.scan, job.recipe
    loaded = load(scan)
    outcome.excluded += [Excluded(level="file", identity=content_identity(path), reason=reason) for path, reason in loaded.skipped]
    outcome.notes = loaded.notes
    outcome.content = _content(loaded)
    outcome.orientation = geometry.orientation_name(loaded.affine)
    values = torch.where(torch.isfinite(loaded.values), loaded.values, torch.nan)
    _check(values, loaded, recipe)

    volume, affine = geometry.towards_lps(values, loaded.affine)
    frames = geometry.pictures(volume, recipe.plane)
    spacing = geometry.picture_spacing(geometry.spacing_of(affine), recipe.plane)
    selected = _label_frames(job, loaded)
    outcome.n_slices, outcome.rows, outcome.columns = frames.shape
    outcome.spacing_mm = spacing
    outcome.upsampling = geometry.upsampling((outcome.rows, outcome.columns), recipe.size)
    window = window_for(recipe, volume, loaded.display)
    outcome.level, outcome.width = window.level, window.width
    if recipe.intensity == "display" and loaded.display and loaded.display.windows > 1:
        outcome.notes = [*outcome.notes, "several windows in the header, the first taken"]

    left_out: dict[str, list[int]] = defaultdict(list)
    with job.spool.open("wb") as spool:
        for index, frame in enumerate(frames):
            mask_pixels = int(selected[index].count_nonzero()) if selected is not None else 0
            if selected is not None and mask_pixels < recipe.min_mask_pixels:
                left_out[quality.NO_LABEL].append(index)
                continue
            grey = window(frame.contiguous())
            if reason := quality.fault(to_grey(grey).numpy()):
                left_out[reason].append(index)
                continue
            image = geometry.resize(geometry.square(grey.numpy(), spacing[1:]), recipe.size)
            pixels = to_grey(torch.from_numpy(np.ascontiguousarray(image))).numpy()
            png = encode(pixels)
            outcome.pictures.append(
                Picture(
                    slice_index=index,
                    mask_pixels=mask_pixels,
                    offset=spool.tell(),
                    length=len(png),
                    sha256=hashlib.sha256(png).hexdigest(),
                    pixels=hashlib.sha256(pixels.tobytes()).hexdigest(),
                )
            )
            spool.write(png)
    for reason, indices in left_out.items():
        outcome.excluded.append(Excluded(level="slice", identity="", reason=reason, count=len(indices), slices=ranges(indices)))
    if outcome.pictures:
        kept = volume if selected is None else frames[[picture.slice_index for picture in outcome.pictures]]
        outcome.percentiles = _percentiles(kept)


def _check(values: Tensor, loaded: Loaded, recipe: Recipe) -> None:
    finite = values[torch.isfinite(values)]
    if not len(finite) or finite.min() == finite.max():
        raise DataError("the volume is constant")
    if recipe.modality == "CT" and int((finite <= AIR_OR_FAT).sum()) < LEAST_AIR_OR_FAT * len(finite):
        raise DataError("less than 1 % of the values are at -100 or below, so they are not HU")
    # Missing slices do not matter to pictures in the plane they were acquired in; across it the anatomy would be squeezed.
    acquired = int(nibabel.io_orientation(loaded.affine)[2][0])
    if geometry.CUTS[recipe.plane].across != acquired and any(note.startswith(("gaps", "uneven")) for note in loaded.notes):
        raise DataError(f"slices are missing or uneven, so there is no {recipe.plane} plane")


def _label_frames(job: Job, loaded: Loaded) -> Tensor | None:
    if job.mask is None:
        return None
    mask = job.mask
    labels, labels_affine = read_volume(Volume(path=mask.path, place=mask.place, shape=mask.shape, affine=mask.affine))
    wanted = (labels == job.recipe.mask_label).astype(np.uint8)
    x, y, z = loaded.values.shape
    on_grid = resample_labels(wanted, labels_affine, (x, y, z), loaded.affine, loaded.origins)
    turned, _ = geometry.towards_lps(torch.from_numpy(on_grid), loaded.affine)
    return geometry.pictures(turned, job.recipe.plane)


def _content(loaded: Loaded) -> str:
    digest = hashlib.sha256()
    digest.update(repr((tuple(loaded.values.shape), np.round(loaded.affine, 4).tolist())).encode())
    digest.update(loaded.values.contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _percentiles(values: Tensor) -> tuple[float, ...]:
    sample = values[torch.isfinite(values)].flatten()
    sample = sample[:: -(-len(sample) // 1_000_000)]
    found = np.percentile(sample.numpy().astype(np.float64), PERCENTILES)
    return tuple(round(float(v), 2) for v in found)


def encode(pixels: np.ndarray) -> bytes:
    """An (H, W) uint8 image as an 8-bit grey PNG without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def ranges(indices: list[int]) -> str:
    """Ascending numbers as ranges: [0, 1, 2, 5] -> `0-2,5`."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
