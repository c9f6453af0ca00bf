"""The images of one scan: read, oriented, windowed, selected, made square, resized, written as PNG. Runs in a process of its own."""

from __future__ import annotations

import errno
import hashlib
import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from monai.transforms.io.array import LoadImage
from PIL import Image
from torch import Tensor

from medgan.data import geometry, quality
from medgan.data.masks import LabelMap, label_on_grid
from medgan.data.photometry import Display
from medgan.data.pictures import one_grey, read_picture
from medgan.data.quiet import quiet
from medgan.data.recipe import Recipe
from medgan.data.scans import Excluded, Scan, Volume, content_identity
from medgan.data.series import SeriesReader
from medgan.data.stacks import labels_of, pictures_of
from medgan.data.volumes import read_volume
from medgan.data.windowing import Window, to_grey, window_for
from medgan.errors import DataError

# Air is at -1000 HU, fat near -100: both are in every CT, also in one clipped to -200. Interpolated MR has a few such values too
# (one in two million in a BraTS scan), stored values without their intercept none.
AIR_OR_FAT = -100.0
LEAST_AIR_OR_FAT = 0.01

# Padded to a physical square and made square, such a picture takes so many times its memory.
MOST_OBLONG = 100

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
    """One kept image: where it lies in the spool, and what the manifest says of it; `label` is None where nothing names its class."""

    slice_index: int
    mask_pixels: int
    offset: int
    length: int
    sha256: str
    pixels: str
    label: str | None = None


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
    channels: int = 1
    spacing_mm: tuple[float, ...] = ()
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
        image = LoadImage()(list(scan.files), reader=SeriesReader(frames=scan.file_frames, skip_broken=True, allow_burned_in=True))
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
    with job.spool.open("wb") as spool:
        if job.scan.kind == "stack":
            _cut_stack(job, outcome, spool)
        elif job.scan.kind == "picture":
            _cut_picture(job, outcome, spool)
        else:
            _cut_volume(job, outcome, spool)


def _cut_volume(job: Job, outcome: Outcome, spool: BinaryIO) -> None:
    scan, recipe = job.scan, job.recipe
    loaded = load(scan)
    outcome.excluded += [Excluded(level="file", identity=content_identity(path), reason=reason) for path, reason in loaded.skipped]
    outcome.notes = [*loaded.notes, *geometry.notes_on_plane(loaded.affine, recipe.plane)]
    outcome.content = _content(loaded)
    outcome.orientation = geometry.orientation_name(loaded.affine)
    values = torch.where(torch.isfinite(loaded.values), loaded.values, torch.nan)
    _check(values, loaded, recipe)

    volume, affine = (values, loaded.affine) if recipe.plane == "stored" else geometry.towards_lps(values, loaded.affine)
    frames = geometry.pictures(volume, recipe.plane)
    spacing = geometry.picture_spacing(geometry.spacing_of(affine), recipe.plane)
    if max(spacing[1:]) > MOST_OBLONG * min(spacing[1:]):
        raise DataError(f"pixels more than {MOST_OBLONG} times as long as wide, which no scanner makes")
    selected = _label_frames(job, loaded)
    outcome.n_slices, outcome.rows, outcome.columns = frames.shape
    outcome.spacing_mm = spacing
    outcome.upsampling = geometry.upsampling((outcome.rows, outcome.columns), recipe.size, recipe.fit)
    window = window_for(recipe, volume, loaded.display)
    outcome.level, outcome.width = window.level, window.width
    if recipe.intensity == "display" and loaded.display and loaded.display.windows > 1:
        outcome.notes = [*outcome.notes, "several windows in the header, the first taken"]

    left_out: dict[str, list[int]] = defaultdict(list)
    for index, frame in enumerate(frames):
        mask_pixels = int(selected[index].count_nonzero()) if selected is not None else 0
        if selected is not None and mask_pixels < recipe.min_mask_pixels:
            left_out[quality.NO_LABEL].append(index)
        elif selected is not None and recipe.paper_compatible and "lose-last-slice" in recipe.paper_rules and index == len(frames) - 1:
            left_out[quality.LOST_BY_PAPER].append(index)
        else:
            grey = window(frame.contiguous()).numpy()
            if reason := _keep(grey, recipe, outcome, spool, index=index, label=scan.label, mask_pixels=mask_pixels, spacing=spacing[1:]):
                left_out[reason].append(index)
    _leave_out(outcome, left_out)
    if outcome.pictures:
        kept = volume if selected is None else frames[[picture.slice_index for picture in outcome.pictures]]
        outcome.percentiles = _percentiles(kept)


def _cut_picture(job: Job, outcome: Outcome, spool: BinaryIO) -> None:
    """A picture in a file: no place in space, no unit."""
    scan, recipe = job.scan, job.recipe
    outcome.n_slices, outcome.columns, outcome.rows = 1, *scan.shape[:2]
    outcome.upsampling = geometry.upsampling((outcome.rows, outcome.columns), recipe.size, recipe.fit)
    picture = read_picture(scan.files[0], recipe.colour)
    outcome.content = hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()
    outcome.channels = 3 if picture.ndim == 3 else 1
    # What the header says of a camera's orientation turns rows and columns.
    outcome.rows, outcome.columns = picture.shape[:2]
    values = torch.from_numpy(picture)
    window = window_for(recipe, values)
    outcome.level, outcome.width = window.level, window.width
    if reason := _keep(window(values).numpy(), recipe, outcome, spool, index=0, label=scan.label):
        _leave_out(outcome, {reason: [0]})
    else:
        outcome.percentiles = _percentiles(values)


def _cut_stack(job: Job, outcome: Outcome, spool: BinaryIO) -> None:
    """The pictures of a stack one after another; each is an image of its own, of nobody in particular."""
    scan, recipe = job.scan, job.recipe
    labels = [name_of_class(label, recipe) for label in labels_of(scan)]
    outcome.columns, outcome.rows, outcome.n_slices = scan.shape
    outcome.upsampling = geometry.upsampling((outcome.rows, outcome.columns), recipe.size, recipe.fit)
    left_out: dict[str, list[int]] = defaultdict(list)
    digest = hashlib.sha256(repr(scan.shape).encode())
    window = Window(127.5, 255)
    outcome.level, outcome.width = window.level, window.width
    sample = []
    for index, (pixels, label) in enumerate(zip(pictures_of(scan), labels, strict=True)):
        digest.update(pixels.tobytes())
        if not recipe.wants(label):
            left_out[quality.OTHER_CLASS].append(index)
            continue
        picture = one_grey(pixels, recipe.colour) if pixels.ndim == 3 else pixels.astype(np.float32)
        outcome.channels = max(outcome.channels, 3 if picture.ndim == 3 else 1)
        if reason := _keep(window(torch.from_numpy(picture)).numpy(), recipe, outcome, spool, index=index, label=label):
            left_out[reason].append(index)
        else:
            sample.append(pixels.reshape(-1)[:: max(1, pixels.size // 64)])
    outcome.content = digest.hexdigest()
    _leave_out(outcome, left_out)
    if sample:
        outcome.percentiles = _percentiles(torch.from_numpy(np.concatenate(sample)).float())


def _keep(
    grey: np.ndarray,
    recipe: Recipe,
    outcome: Outcome,
    spool: BinaryIO,
    *,
    index: int,
    label: str | None,
    mask_pixels: int = 0,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> str:
    """Write one image in [0, 1], (rows, columns) or (rows, columns, 3), into the spool, or give the reason to leave it out."""
    if reason := quality.fault(to_grey(torch.from_numpy(grey)).numpy(), recipe.min_foreground, constant_only=recipe.paper_compatible):
        return reason
    image = geometry.fit(grey, spacing, recipe.size, recipe.fit)
    pixels = to_grey(torch.from_numpy(np.ascontiguousarray(image)), recipe.bits).numpy()
    png = encode(pixels)
    # (C, H, W), as `identity_of` has it.
    channels_first = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    outcome.pictures.append(
        Picture(
            slice_index=index,
            mask_pixels=mask_pixels,
            offset=spool.tell(),
            length=len(png),
            sha256=hashlib.sha256(png).hexdigest(),
            pixels=hashlib.sha256(channels_first.tobytes()).hexdigest(),
            label=label,
        )
    )
    spool.write(png)
    return ""


def _leave_out(outcome: Outcome, left_out: Mapping[str, list[int]]) -> None:
    for reason, indices in left_out.items():
        outcome.excluded.append(Excluded(level="slice", identity="", reason=reason, count=len(indices), slices=ranges(indices)))


def name_of_class(label: str | None, recipe: Recipe) -> str | None:
    """Class numbers, `0|3`, as the recipe's names."""
    if not label or not recipe.classes:
        return label
    numbers = [int(number) for number in label.split("|")]
    if max(numbers) >= len(recipe.classes):
        raise DataError(f"a label of {max(numbers)}, the recipe has {len(recipe.classes)} classes")
    return "|".join(recipe.classes[number] for number in numbers)


def _check(values: Tensor, loaded: Loaded, recipe: Recipe) -> None:
    # Reductions that pass over NaN: picking out the finite voxels takes longer than all else that is done with a volume.
    voxels = values.numpy()
    least, most = np.fmin.reduce(voxels, axis=None), np.fmax.reduce(voxels, axis=None)
    if np.isnan(least) or least == most:
        raise DataError("the volume is constant")
    if recipe.modality == "CT" and np.count_nonzero(voxels <= AIR_OR_FAT) < LEAST_AIR_OR_FAT * np.count_nonzero(voxels == voxels):
        raise DataError("less than 1 % of the values are at -100 or below, so they are not HU")
    # Missing slices do not matter to pictures in the plane they were acquired in; across it the anatomy would be squeezed.
    if geometry.across_acquired(loaded.affine, recipe.plane) and any(note.startswith(("gaps", "uneven")) for note in loaded.notes):
        raise DataError(f"slices are missing or uneven, so there is no {recipe.plane} plane")


def _label_frames(job: Job, loaded: Loaded) -> Tensor | None:
    if job.mask is None:
        return None
    labels = job.mask.wanted(job.recipe.mask_label, job.recipe.mask_name)
    x, y, z = loaded.values.shape
    on_grid = label_on_grid(job.mask, labels, (x, y, z), loaded.affine, loaded.origins)
    grid = torch.from_numpy(on_grid)
    turned = grid if job.recipe.plane == "stored" else geometry.towards_lps(grid, loaded.affine)[0]
    return geometry.pictures(turned, job.recipe.plane)


def _content(loaded: Loaded) -> str:
    digest = hashlib.sha256()
    digest.update(repr((tuple(loaded.values.shape), np.round(loaded.affine, 4).tolist())).encode())
    digest.update(loaded.values.contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _percentiles(values: Tensor) -> tuple[float, ...]:
    finite = torch.isfinite(values)
    sample = values.flatten() if finite.all() else values[finite]
    sample = sample[:: -(-len(sample) // 1_000_000)]
    found = np.percentile(sample.numpy().astype(np.float64), PERCENTILES)
    return tuple(round(float(v), 2) for v in found)


def encode(pixels: np.ndarray) -> bytes:
    """An (H, W) or (H, W, 3) uint8 image, or an (H, W) uint16 one, as a PNG of that depth without metadata."""
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
