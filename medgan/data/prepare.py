"""Scans to a dataset, as a recipe says: find, match, cut, split, write.

Order and split of the images follow from the scans' content, not from pseudonyms, folder names or the number of workers.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgan.config import setting, to_json
from medgan.data import RECIPES
from medgan.data.pseudonyms import pseudonyms_from, shown_names
from medgan.data.recipe import FITS, OTHER_PRESETS, PLANES, SIZES, SPLITS, WINDOW_PRESETS, Recipe, preset_changes
from medgan.data.spool import work_folder
from medgan.errors import ConfigError, DataError, InputError, OutputError
from medgan.progress import Step, nothing
from medgan.runs import check_writable, utc_now
from medgan.signals import preemptible

if TYPE_CHECKING:
    from medgan.data.masks import LabelMap, Match
    from medgan.data.results import Piece
    from medgan.data.scans import Excluded, Found, Scan


# By how the reason begins that left everything out.
FIXES = {
    "modality": "the --recipe for that modality; `medgan info` lists them",
    "not ORIGINAL": "--derived",
    "less than 1 % of the values": "scans in HU, or --recipe mr --window L W for values in another unit",
    "clipped": "a wider --window L W",
    "4-D": "--frames all, or the number of a volume from 0",
}


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Settings of `medgan prepare`."""

    recipe: str = setting("ct-liver", "what is done to the scans; `medgan info` lists the recipes")
    masks: str = setting("", "label maps: a file or a folder (else label maps among the scans are found)", metavar="PATH")
    mask_label: int = setting(0, "keep slices with this label (0: the recipe's own, -1: every slice, no label map needed)")
    mask_name: str = setting("", "keep slices with the segment of this name in DICOM SEG and RT-STRUCT files", metavar="NAME")
    window: tuple[float, ...] = setting((), "window level and width in the scan's unit, instead of the recipe's", nargs=2, metavar="L W")
    window_preset: str = setting("", "a named window instead of the recipe's", choices=("", *WINDOW_PRESETS, *OTHER_PRESETS))
    size: int = setting(0, f"side of the images in pixels: {', '.join(map(str, SIZES))} (0: the recipe's own)")
    bits: int = setting(0, "bits of a stored value: 8, or 16 for grey images (0: the recipe's own)")
    plane: str = setting("", "axial, coronal, sagittal, or as stored, instead of the recipe's", choices=("", *PLANES))
    min_mask_pixels: int = setting(0, "a kept slice has at least so many pixels of the label (0: the recipe's own)")
    series: str = setting("", "DICOM series whose description or protocol fits this pattern, e.g. '*portal*'", metavar="PATTERN")
    kernel: str = setting("", "DICOM series whose convolution kernel fits this pattern, e.g. 'B30*'", metavar="PATTERN")
    thickness: tuple[float, ...] = setting((), "DICOM series whose slice thickness in mm lies between", nargs=2, metavar="MIN MAX")
    derived: bool = setting(False, "take DICOM series too that are not ORIGINAL and PRIMARY")
    frames: str = setting("", "volumes of a 4-D file: all, ed-es (by Info.cfg), or a number from 0, instead of the recipe's")
    fit: str = setting("", "resize the padded square, or only pad it, instead of the recipe's", choices=("", *FITS))
    only_class: str = setting("", "only images of this class, by name or number", metavar="NAME", flag="class")
    labels: bool = setting(False, "write the classes into dataset.json, for a conditional network")
    split: str = setting("", "part of a data set that comes in parts, instead of the recipe's", choices=("", *SPLITS))
    paper_compatible: bool = setting(False, "do as the recipe's paper did, errors included, to compare with its images")
    held_out: float = setting(0.1, "share of the patients kept from training, for the privacy audit (from 10 patients on)")
    allow_burned_in: bool = setting(False, "take DICOM images that say that annotation is burned into them")
    pseudonym_key: str = setting("", "file with a secret that makes scan keys the same in every run", metavar="FILE")
    workers: int = setting(0, "processes that read scans at once (0: one per core, as far as the memory reaches)")
    scheduler: str = setting("", "cut the scans on a Dask cluster: address of its scheduler, or its file", metavar="ADDRESS")
    overwrite: bool = setting(False, "replace an OUT of another recipe")
    seed: int = setting(0, "seed of the split")

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"--held-out {self.held_out:g} is no share from 0 to below 1")
        if self.window and len(self.window) != 2:
            raise ConfigError("--window takes two numbers", fix="--window 50 350")
        if self.window and self.window_preset:
            raise ConfigError("--window and --window-preset exclude each other")
        if self.workers < 0 or self.min_mask_pixels < 0 or self.mask_label < -1:
            raise ConfigError("--workers and --min-mask-pixels are 0 or more, --mask-label is -1 or more")
        if not self.resolved().by_mask and self.masks:
            raise ConfigError(
                f"--masks, but the recipe {self.recipe} keeps every slice", fix="--mask-label N or --mask-name NAME beside it"
            )

    def resolved(self) -> Recipe:
        """The recipe with these settings on top.

        Raises:
            ConfigError: No such recipe, or a setting it cannot take.
        """
        recipe: Recipe = RECIPES.get(self.recipe)
        changes: dict[str, Any] = {}
        if self.window_preset:
            changes |= preset_changes(self.window_preset)
        if self.window:
            changes |= {"intensity": "window", "preset": "", "level": float(self.window[0]), "width": float(self.window[1])}
        if self.mask_label:
            changes |= {"mask_label": max(self.mask_label, 0), "mask_name": ""}
        if self.mask_name:
            # A number given beside it is meant for files without names.
            changes |= {"mask_name": self.mask_name, "mask_label": max(self.mask_label, 0)}
        if self.thickness:
            changes["thickness_mm"] = self.thickness
        if self.derived:
            changes["original"] = False
        for name in (
            "size",
            "bits",
            "plane",
            "min_mask_pixels",
            "series",
            "kernel",
            "frames",
            "fit",
            "only_class",
            "labels",
            "split",
            "paper_compatible",
        ):
            if value := getattr(self, name):
                changes[name] = value
        return dataclasses.replace(recipe, **changes)

    def shown(self) -> dict[str, Any]:
        """The settings as JSON values; paths, which may name a patient, only as whether they are given."""
        return {**to_json(self), "masks": bool(self.masks), "pseudonym_key": bool(self.pseudonym_key), "scheduler": bool(self.scheduler)}


def prepare(config: PrepareConfig, source: Path, out: Path, *, step: Step = nothing) -> dict[str, Any]:
    """Turn scans into a dataset: OUT.zip, OUT.held-out.zip where patients are held out, and the folder OUT.info.

    Stopped at any moment, the same call goes on with the scans that are not cut yet.

    Args:
        config: Settings.
        source: Folder with scans, or one file; only read.
        out: Where the dataset goes; ends with `.zip`.
        step: Progress, in scans.

    Returns:
        JSON values: kept (images of both zips), dropped {reason: n}, patients, scans, held_out (images), identity, size, channels, warnings.

    Raises:
        ConfigError: A setting cannot be.
        InputError: The source is missing or empty.
        DataError: No image is left; the message says why.
        OutputError: OUT cannot be written, holds something else, or another process is writing it.
        DiskError: The disk is full.
        Preempted: SIGTERM or SIGUSR1 came.
    """
    started = utc_now()
    if out.suffix != ".zip":
        raise ConfigError("OUT must end with .zip")
    recipe = config.resolved()
    keys = pseudonyms_from(config.pseudonym_key)
    if config.masks and not Path(config.masks).exists():
        raise InputError("--masks names nothing that exists")

    from medgan.data.choose import choose, sized
    from medgan.data.dataset import HELD_OUT
    from medgan.data.results import Results
    from medgan.data.scans import Excluded, content_identity, find_scans, walk
    from medgan.data.schedule import cut_all
    from medgan.data.zips import unpacked

    info, held_out_zip = out.with_suffix(".info"), out.with_suffix(HELD_OUT)
    left_out: list[Excluded] = []
    files = walk(source, [out, info, held_out_zip], left_out)
    check_writable(out.parent, "OUT's folder")
    with preemptible(), work_folder(out) as folder, unpacked(files, folder / "unpacked", left_out) as files:
        found = find_scans(files, allow_burned_in=config.allow_burned_in)
        found.excluded += left_out
        scans, masks = choose(files, found, recipe, config.masks, held_out=config.held_out > 0)
        recipe = sized(recipe, scans)
        if not config.overwrite:
            _keep_other(out, recipe)
        if not scans and not any(item.level == "scan" for item in found.excluded):
            raise DataError(_no_scans(found, len(masks)), fix=_no_scans_fix(found, recipe))
        if not recipe.by_mask:
            unused = (content_identity(mask.path) for mask in masks)
            found.excluded += [
                Excluded(level="file", identity=identity, reason="label map, and no label is asked for") for identity in unused
            ]
        matches, warnings = _match(scans, masks, recipe, found.excluded)
        chosen = [(scan, match.mask) for scan, match in matches if match.mask or not recipe.by_mask]
        pieces = cut_all(chosen, recipe, folder, workers=config.workers, scheduler=config.scheduler, step=step)
        pieces = _ordered(pieces, found.excluded)
        kept = _without_duplicates(pieces, found.excluded)
        if not any(piece.outcome.pictures for piece in kept):
            raise _nothing_left(found, matches, recipe)
        return Results(config, recipe, keys, found.excluded, kept, warnings, started).write(out, held_out_zip, info)


def _no_scans(found: Found, masks: int) -> str:
    reasons = Counter(item.reason for item in found.excluded)
    listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(5))
    pictures = f"; {found.pictures} pictures" if found.pictures else ""
    pictures += f"; {masks} label map{'s' if masks > 1 else ''}" if masks else ""
    return f"no scan in the input ({listed or 'no file of a known format'}{pictures})"


def _usual_fix(reasons: Counter[str]) -> str:
    """What helps against the reason that left out most."""
    usual = next((reason for reason, _ in reasons.most_common(1)), "")
    return next((fix for start, fix in FIXES.items() if usual.startswith(start)), "")


def _no_scans_fix(found: Found, recipe: Recipe) -> str:
    if fix := _usual_fix(Counter(item.reason for item in found.excluded)):
        return fix
    from medgan.data.choose import STACK
    from medgan.data.zips import RESULT

    formats = {
        "series": "DICOM",
        "volume": "NIfTI (.nii, .nii.gz), MetaImage (.mhd, .mha) or NRRD",
        "picture": "PNG, JPEG or TIFF",
        "stack": ".npz or idx files",
    }
    takes = f"the recipe {recipe.name} takes {', '.join(formats[source] for source in recipe.sources)}"
    takes += f" called {', '.join(recipe.files)}" if recipe.files else ""
    reasons = {item.reason for item in found.excluded}
    if found.pictures and "picture" not in recipe.sources:
        return f"{takes}; --recipe png or xray takes pictures"
    if STACK in reasons:
        return f"{takes}; --recipe medmnist takes .npz files"
    if RESULT in reasons:
        return f"{takes}; medgan train takes the dataset as it is"
    return takes


def _match(
    scans: list[Scan], masks: list[LabelMap], recipe: Recipe, excluded: list[Excluded]
) -> tuple[list[tuple[Scan, Match]], Counter[str]]:
    """Each scan with its label map; scans that need one and have none are excluded."""
    from medgan.data.choose import identity_of_scan
    from medgan.data.masks import Match, match
    from medgan.data.scans import Excluded

    warnings: Counter[str] = Counter()
    if not recipe.by_mask:
        return [(scan, Match(None)) for scan in scans], warnings
    pairs = []
    for scan, found in zip(scans, match(scans, masks, recipe.mask_label, recipe.mask_name), strict=True):
        if found.warning:
            warnings[found.warning] += 1
        if found.mask is None:
            excluded.append(Excluded(level="scan", identity=identity_of_scan(scan), reason=found.reason, count=scan.shape[2]))
        pairs.append((scan, found))
    return pairs, warnings


def _keep_other(out: Path, recipe: Recipe) -> None:
    """Stop before something else than a dataset of this recipe is overwritten."""
    if not out.exists():
        return
    try:
        with zipfile.ZipFile(out) as archive:
            there = json.loads(archive.read("recipe.json"))
        differing = [name for name, value in recipe.to_dict().items() if there.get(name) != value]
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, AttributeError):
        raise OutputError("OUT exists and is no dataset that prepare wrote", fix="another name for OUT, or --overwrite") from None
    if differing:
        raise OutputError(f"OUT holds a dataset of another recipe ({', '.join(differing)})", fix="another name for OUT, or --overwrite")


def _ordered(pieces: list[Piece], excluded: list[Excluded]) -> list[Piece]:
    """Scans in the order of the dataset: patient by patient, both by content; those that failed are excluded."""
    from medgan.data.choose import identity_of_scan
    from medgan.data.scans import NAMELESS, Excluded

    good = []
    for piece in pieces:
        identity = piece.series if piece.outcome.content else identity_of_scan(piece.scan)
        excluded += [dataclasses.replace(item, identity=item.identity or identity) for item in piece.outcome.excluded]
        if piece.outcome.fault:
            excluded.append(Excluded(level="scan", identity=identity, reason=piece.outcome.fault, count=piece.scan.shape[2]))
            continue
        piece.patient = piece.scan.patient or f"{NAMELESS}{piece.outcome.content}"
        good.append(piece)
    contents: dict[str, list[str]] = defaultdict(list)
    for piece in good:
        contents[piece.patient].append(piece.outcome.content)
    rank = {patient: sorted(found) for patient, found in contents.items()}
    return sorted(good, key=lambda p: (rank[p.patient], p.patient, p.outcome.content, p.scan.place.parts))


def _without_duplicates(pieces: list[Piece], excluded: list[Excluded]) -> list[Piece]:
    """The first of equal images in different scans stays."""
    from medgan.data.quality import DUPLICATE
    from medgan.data.scans import Excluded
    from medgan.data.slices import ranges

    first: dict[str, tuple[int, int]] = {}
    for number, piece in enumerate(pieces):
        # Each picture of a stack is a scan of its own.
        owners = [(number, picture.slice_index if piece.scan.kind == "stack" else 0) for picture in piece.outcome.pictures]
        pairs = zip(piece.outcome.pictures, owners, strict=True)
        twice = [picture for picture, owner in pairs if first.setdefault(picture.pixels, owner) != owner]
        if twice:
            indices = [picture.slice_index for picture in twice]
            excluded.append(Excluded(level="slice", identity=piece.series, reason=DUPLICATE, count=len(indices), slices=ranges(indices)))
            gone = {id(picture) for picture in twice}
            piece.outcome.pictures = [picture for picture in piece.outcome.pictures if id(picture) not in gone]
    return pieces


def _nothing_left(found: Found, matches: Sequence[tuple[Scan, Match]], recipe: Recipe) -> DataError:
    total = sum(scan.shape[2] for scan, _ in matches) or sum(item.count for item in found.excluded if item.level == "scan")
    reasons: Counter[str] = Counter()
    for item in found.excluded:
        reasons[item.reason] += item.count
    if recipe.by_mask and matches and not any(match.mask for _, match in matches):
        labels = sorted({label for _, match in matches for label in match.labels_seen})
        names = shown_names(name for _, match in matches for name in match.names_seen)
        if labels or names:
            seen = [str(label) for label in labels[:20]] + (["..."] if len(labels) > 20 else []) + names
            wanted = " or ".join(
                [f"label {recipe.mask_label}"] * bool(recipe.mask_label) + [f'"{recipe.mask_name}"'] * bool(recipe.mask_name)
            )
            fix = f"--mask-label {labels[0]}" if labels else f'--mask-name "{names[0]}"'
            return DataError(f"0 of {total} slices kept: no voxel of {wanted}; labels seen: {', '.join(seen)}", fix=fix)
    listed = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(5))
    fix = _usual_fix(reasons)
    if recipe.by_mask and matches and not any(match.mask for _, match in matches):
        fix = "--masks PATH with label maps of these scans, or --mask-label -1 to keep every slice"
    return DataError(f"0 of {total} slices kept: {listed}", fix=fix)
