"""Which of the scans that were found a recipe takes: by kind, name, series, modality; and which volumes are label maps.

Whatever is left out is listed with its reason; reasons quote no name, description or path.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from medgan.data.geometry import next_size
from medgan.data.masks import LabelMap, label_map
from medgan.data.pictures import find_pictures
from medgan.data.quality import OTHER_CLASS
from medgan.data.recipe import Recipe
from medgan.data.scans import NAMELESS, Excluded, Found, Place, Scan, Volume, content_identity, find_scans, name_matches, volume_scan, walk
from medgan.data.stacks import find_stacks, is_stack
from medgan.errors import DataError

NOT_OF_RECIPE = "no file of this recipe's data set"
STACK = "a stack of pictures (.npz or idx), which this recipe does not take"
UNKNOWN_FORMAT = "file of no known format"
DERIVED = "not ORIGINAL\\PRIMARY (--derived takes it)"
NO_FRAME = "4-D: a recipe for this data set, or --frames, must say which volume is meant"
FRAME_NAME = re.compile(r"_frame(\d+)", re.IGNORECASE)
INFO_CFG = "info.cfg"
MOST_CFG_BYTES = 65536


def choose(
    files: Sequence[tuple[Path, Place]], found: Found, recipe: Recipe, masks: str = "", *, held_out: bool = False
) -> tuple[list[Scan], list[LabelMap]]:
    """The scans that a recipe takes, and the label maps that may select their slices.

    Args:
        files: All files of the source.
        found: What they hold; what is left out here is added to its `excluded`.
        recipe: What is wanted.
        masks: A file or folder with label maps; "" takes those that lie among the scans.
        held_out: Whether a test part that the data set itself has is wanted too.
    """
    named = find_scans(walk(Path(masks))).volumes if masks else []
    named_paths = {volume.path.resolve() for volume in named}
    label_maps = [mask for volume in named if (mask := _label_map(volume, found.excluded))]
    volumes = [volume for volume in found.volumes if volume.path.resolve() not in named_paths]
    if not masks:
        label_maps += [mask for volume in volumes if volume.kind and (mask := _label_map(volume, found.excluded))]
    volumes = [volume for volume in volumes if not volume.kind]
    scans = [scan for scan in found.scans if _wanted_series(scan, recipe, found.excluded)] if "series" in recipe.sources else []
    if "volume" in recipe.sources:
        chosen, among = _volumes(volumes, files, found, recipe)
        scans += chosen
        # With --masks given, others among the scans are no scans either.
        label_maps += [] if masks else among
    if "picture" in recipe.sources:
        scans += find_pictures(files, recipe, found.excluded)
    scans += _stacks(files, found, recipe, held_out=held_out)
    scans = [replace(scan, patient=patient_of(scan.place, recipe.patient) or scan.patient) for scan in scans]
    label_maps = [replace(mask, patient=patient_of(mask.place, recipe.patient)) for mask in label_maps]
    return [scan for scan in scans if _of_class(scan, recipe, found.excluded)], label_maps


def _stacks(files: Sequence[tuple[Path, Place]], found: Found, recipe: Recipe, *, held_out: bool) -> list[Scan]:
    """The stacks of pictures that a recipe takes; those it does not take are listed."""
    stacks = [path for path, _ in files if is_stack(path.name)]
    # The search for DICOM knows no idx files.
    idx = {content_identity(path) for path in stacks if path.suffix.lower() != ".npz"}
    found.excluded[:] = [item for item in found.excluded if item.reason != UNKNOWN_FORMAT or item.identity not in idx]
    reason, left_out, scans = STACK, stacks, []
    if "stack" in recipe.sources:
        scans = find_stacks(files, recipe, found.excluded, held_out=held_out)
        # Labels lie beside their pictures; one file that is named on the command line is meant.
        strangers = [path for path in stacks if not name_matches(path.name, recipe.files) and "labels" not in path.name.lower()]
        reason, left_out = NOT_OF_RECIPE, strangers if len(files) > 1 else []
    found.excluded += [Excluded(level="file", identity=content_identity(path), reason=reason) for path in left_out]
    return scans


def _label_map(volume: Volume, excluded: list[Excluded]) -> LabelMap | None:
    try:
        return label_map(volume)
    except DataError as error:
        excluded.append(Excluded(level="file", identity=content_identity(volume.path), reason=error.message))
        return None


def sized(recipe: Recipe, scans: Sequence[Scan]) -> Recipe:
    """A recipe without a size of its own with that of the largest scan."""
    if recipe.size or not scans:
        return recipe
    return replace(recipe, size=next_size(max(max(scan.shape[:2]) for scan in scans)))


def patient_of(place: Place, pattern: str) -> str:
    """The patient that a recipe's pattern finds in a file's name or in its folders, the innermost first; "" where none."""
    for part in reversed(place.parts) if pattern else ():
        if hit := re.search(pattern, part, re.IGNORECASE):
            # `1` in a list and `00000001` in a file name are one patient.
            return hit[1].lstrip("0") or "0"
    return ""


def identity_of_scan(scan: Scan) -> str:
    """What the key of a scan that was not read is made of."""
    return scan.series or content_identity(scan.files[0])


def _wanted_series(scan: Scan, recipe: Recipe, excluded: list[Excluded]) -> bool:
    reason = ""
    if recipe.modality and scan.modality and scan.modality not in recipe.modality.split("|"):
        modality = scan.modality if scan.modality.isalpha() and len(scan.modality) <= 4 else "unknown"
        reason = f"modality {modality}, the recipe takes {recipe.modality.replace('|', ', ')}"
    elif recipe.original and scan.derived:
        reason = DERIVED
    elif recipe.series and not any(name_matches(word, [recipe.series]) for word in scan.words):
        reason = "series not called as --series asks"
    elif recipe.kernel and not name_matches(scan.kernel, [recipe.kernel]):
        reason = "kernel not as --kernel asks"
    elif recipe.thickness_mm and not recipe.thickness_mm[0] <= scan.thickness_mm <= recipe.thickness_mm[1]:
        reason = "slice thickness not as --thickness asks"
    if reason:
        excluded.append(Excluded(level="scan", identity=identity_of_scan(scan), reason=reason, count=scan.shape[2]))
    return not reason


def _of_class(scan: Scan, recipe: Recipe, excluded: list[Excluded]) -> bool:
    """Whether a scan is of the class asked for; the pictures of a stack are asked one by one where they are read."""
    if scan.kind == "stack" or recipe.wants(scan.label):
        return True
    excluded.append(Excluded(level="scan", identity=identity_of_scan(scan), reason=OTHER_CLASS, count=scan.shape[2]))
    return False


def _volumes(
    volumes: Sequence[Volume], files: Sequence[tuple[Path, Place]], found: Found, recipe: Recipe
) -> tuple[list[Scan], list[LabelMap]]:
    """Scans in files, and the label maps among them."""

    def leave_out(volume: Volume, reason: str) -> None:
        found.excluded.append(Excluded(level="file", identity=content_identity(volume.path), reason=reason))

    scans: list[Scan] = []
    label_maps: list[LabelMap] = []
    by_frame = []
    for volume in volumes:
        named = name_matches(volume.place.name, recipe.files)
        # A file is read whole to tell a label map, so a data set whose names say what is a scan is not asked twice.
        mask = None if recipe.files and not recipe.by_mask else label_map(volume)
        if mask:
            label_maps.append(mask)
        elif not named:
            leave_out(volume, NOT_OF_RECIPE)
        elif len(volume.shape) > 4:
            leave_out(volume, f"{len(volume.shape)}-D file")
        elif recipe.frames == "ed-es" or len(volume.shape) == 4:
            by_frame.append(volume)
        elif recipe.frames.isdecimal() and recipe.files:
            leave_out(volume, "no 4-D file, which this recipe's data set has")
        else:
            scans.append(volume_scan(volume, found.patients))
    if recipe.frames == "ed-es":
        return scans + _ed_es(by_frame, files, found, leave_out), label_maps
    for volume in by_frame:
        count = volume.shape[3]
        wanted = range(count) if recipe.frames == "all" else [int(recipe.frames)] if recipe.frames else []
        if not wanted or max(wanted) >= count:
            leave_out(volume, f"only {count} volumes, the recipe takes number {recipe.frames} from 0" if wanted else NO_FRAME)
        else:
            scans += [_frame(volume, found, number) for number in wanted]
    return scans, label_maps


def _frame(volume: Volume, found: Found, number: int, label: str = "") -> Scan:
    scan = volume_scan(volume, found.patients, frame=number)
    # The volumes of a file without any label are still of one patient.
    return replace(scan, patient=scan.patient or f"{NAMELESS}{content_identity(volume.path)}", label=label)


def _ed_es(
    volumes: Sequence[Volume], files: Sequence[tuple[Path, Place]], found: Found, leave_out: Callable[[Volume, str], None]
) -> list[Scan]:
    """End-diastole and end-systole as Info.cfg beside the files names them: from files of single frames, else out of the 4-D file."""
    phases = {place.folders: _phases(path) for path, place in files if path.name.lower() == INFO_CFG}
    folders: dict[tuple[str, ...], list[Volume]] = defaultdict(list)
    for volume in volumes:
        folders[volume.place.folders].append(volume)
    scans = []
    for folder, members in folders.items():
        wanted = phases.get(folder, {})
        single: dict[int, Volume] = {}
        for volume in members:
            hit = FRAME_NAME.search(volume.place.name)
            if hit and len(volume.shape) == 3:
                single[int(hit[1])] = volume
            elif len(volume.shape) == 3:
                leave_out(volume, NOT_OF_RECIPE)
        for number, volume in single.items():
            # Without Info.cfg, the data set's files of single frames are these two.
            if number in wanted or not wanted:
                scans.append(replace(volume_scan(volume, found.patients), label=wanted.get(number, "")))
        for volume in (v for v in members if len(v.shape) == 4):
            missing = {number: phase for number, phase in wanted.items() if number not in single}
            if not wanted and not single:
                leave_out(volume, "no Info.cfg beside it names its ED and ES frames")
            for number, phase in missing.items():
                if number > volume.shape[3]:
                    leave_out(volume, f"only {volume.shape[3]} volumes, Info.cfg names a later one")
                else:
                    scans.append(_frame(volume, found, number - 1, phase))
    return scans


def _phases(path: Path) -> dict[int, str]:
    """Frames of Info.cfg, counted from 1: {1: "ED", 12: "ES"}; lines are `ED: 1`."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_CFG_BYTES).decode("utf-8", "replace")
    except OSError:
        return {}
    found = re.findall(r"^\s*(ED|ES)\s*[:=]\s*(\d{1,6})\s*$", text, re.MULTILINE)
    return {int(number): phase for phase, number in found if int(number) > 0}
