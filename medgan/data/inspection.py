"""What one should know of a dataset before days of a GPU are spent on it: counts, greys, geometry, copies, and what they advise. Torch-free.

Patients appear under their keys, pictures of other makers by number and checksum.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medgan import machine
from medgan.data.alike import ALIKE, SIDE, alike, small_version
from medgan.data.archive import OUR_NAME
from medgan.data.dataset import Dataset
from medgan.data.recipe import SIZES
from medgan.errors import MedganError
from medgan.progress import Step, nothing

FEWEST_IMAGES = 1000
FEWEST_PATIENTS = 30
FEWEST_OF_A_CLASS = 100
# An image is called clipped when so much of what is not black is white; prepare leaves out those above 0.6.
CLIPPED_PART = 0.2
MANY_CLIPPED = 0.05
WIDE_SPREAD = 1.5
ONE_PATIENT = 0.2
PERCENTILES = (0.5, 5, 25, 50, 75, 95, 99.5)
SPAN = 64
FEWEST_PIXELS_FOR_WORKERS = 2**29
EXAMPLES = 5


@dataclass
class Measured:
    """What one pass over images gives.

    Args:
        histogram: Pixels of each grey, (256,).
        white: Part of what is not black that is white, of each image (N,).
        small: Small versions (N, SIDE, SIDE) uint8.
    """

    histogram: np.ndarray
    white: np.ndarray
    small: np.ndarray


def inspect(dataset: Dataset, held_out: Dataset | None = None, *, step: Step = nothing) -> dict[str, Any]:
    """Facts about a dataset as JSON values, and advice.

    Args:
        dataset: Opened, of any size.
        held_out: The images of its held-out patients, if there are such.
        step: Progress, in images.

    Raises:
        DataError: Images are broken; they are listed.
    """
    dataset.check()
    total = len(dataset) + (len(held_out) if held_out else 0)
    measured = _measure(dataset, lambda done, _: step(done, total))
    rows, held_rows = dataset.table(), held_out.table() if held_out else []
    small, sides = measured.small, [dataset]
    if held_out:
        held_out.check()
        small = np.concatenate([small, _measure(held_out, lambda done, _: step(len(dataset) + done, total)).small])
        sides.append(held_out)
    facts: dict[str, Any] = {
        "made_by": "medgan prepare" if rows else "another tool",
        "images": len(dataset),
        "held_out_images": len(held_out) if held_out else 0,
        "size": f"{dataset.width}x{dataset.resolution}",
        "channels": dataset.channels,
        "bits": dataset.bits,
        "identity": dataset.identity,
        "recipe": _recipe(dataset),
        "labels": _labels(dataset),
        "patients": _patients(rows, held_rows),
        "dropped": _dropped(dataset),
        "intensity": _intensity(measured),
        "spacing_mm": _counted(rows, "spacing_mm"),
        "scan_size": {f"{columns}x{rows_}": n for (columns, rows_), n in _pairs(rows, "columns", "rows").items()},
        "orientation": _counted(rows, "orientation"),
        "copies": _copies(sides),
        "near_duplicates": _near(sides, small, [row.get("subject_key", "") for row in [*rows, *held_rows]]),
    }
    facts["advice"] = advice(facts)
    return facts


def _measure(dataset: Dataset, step: Step) -> Measured:
    n = len(dataset)
    spans = [range(start, min(start + SPAN, n)) for start in range(0, n, SPAN)]
    whole = Measured(np.zeros(256, np.int64), np.zeros(n), np.zeros((n, SIDE, SIDE), np.uint8))
    workers = min(machine.cores(), len(spans)) if n * dataset.resolution * dataset.width >= FEWEST_PIXELS_FOR_WORKERS else 1
    done = 0
    for index, part in _parts(functools.partial(_measure_span, dataset), spans, workers):
        place = slice(spans[index].start, spans[index].stop)
        whole.histogram += part.histogram
        whole.white[place], whole.small[place] = part.white, part.small
        done += len(spans[index])
        step(done, n)
    return whole


def _parts(job: functools.partial[Measured], spans: list[range], workers: int) -> Iterator[tuple[int, Measured]]:
    if workers == 1:
        yield from enumerate(map(job, spans))
        return
    from medgan.data.crew import Died, in_processes

    for index, part in in_processes(job, spans, workers):
        if isinstance(part, Died):
            raise MedganError("a process that reads images was killed, most likely for its memory", fix="more memory, or fewer other jobs")
        yield index, part


def _measure_span(dataset: Dataset, span: range) -> Measured:
    images = dataset.images(slice(span.start, span.stop))
    histogram = np.bincount(images.reshape(-1), minlength=256)
    flat = images.reshape(len(images), -1)
    shown = np.count_nonzero(flat, axis=1)
    white = np.count_nonzero(flat == 255, axis=1) / np.maximum(shown, 1)
    return Measured(histogram, white, np.stack([small_version(image) for image in images]))


def _recipe(dataset: Dataset) -> dict[str, Any] | None:
    if not dataset.recipe:
        return None
    names = ("name", "modality", "intensity", "preset", "level", "width", "plane", "mask_label", "size")
    return {name: dataset.recipe[name] for name in names if name in dataset.recipe}


def _labels(dataset: Dataset) -> dict[str, Any] | None:
    if dataset.labels is None:
        return None
    if dataset.labels.ndim == 2:
        return {"kind": "vectors", "length": int(dataset.labels.shape[1])}
    counts = np.bincount(dataset.labels, minlength=dataset.classes)
    return {"kind": "classes", "images": {str(number): int(count) for number, count in enumerate(counts)}}


def _patients(rows: list[dict[str, str]], held_rows: list[dict[str, str]]) -> dict[str, Any] | None:
    counts = Counter(row.get("subject_key", "") for row in rows)
    counts.pop("", None)
    if not counts:
        return None
    held = {row.get("subject_key", "") for row in held_rows} - {""}
    images = sorted(counts.values())
    key, most = counts.most_common(1)[0]
    return {
        "training": len(counts),
        "held_out": len(held),
        "on_both_sides": sorted(held & set(counts)),
        "sessions": len({row.get("session_key") for row in rows}),
        "series": len({row.get("series_key") for row in rows}),
        "images_each": {"least": images[0], "median": int(np.median(images)), "most": images[-1]},
        "largest": {"key": key, "part": round(most / len(rows), 4)},
    }


def _dropped(dataset: Dataset) -> dict[str, int]:
    """Reasons and counts from the folder beside the set."""
    try:
        found = json.loads((dataset.info / "fingerprint.json").read_text(encoding="utf-8"))["dropped"] if dataset.info else {}
        return {str(reason): int(count) for reason, count in found.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}


def _intensity(measured: Measured) -> dict[str, Any]:
    histogram = measured.histogram
    total = int(histogram.sum())
    share = np.cumsum(histogram) / total
    return {
        "histogram": histogram.tolist(),
        "percentiles": {f"{p:g}": int(np.searchsorted(share, p / 100)) for p in PERCENTILES},
        "black": round(int(histogram[0]) / total, 4),
        "white": round(int(histogram[255]) / total, 4),
        "greys_used": int(np.count_nonzero(histogram)),
        "clipped_images": int(np.count_nonzero(measured.white > CLIPPED_PART)),
    }


def _counted(rows: list[dict[str, str]], column: str) -> dict[str, int]:
    return dict(Counter(row[column] for row in rows if row.get(column)).most_common())


def _pairs(rows: list[dict[str, str]], one: str, other: str) -> dict[tuple[str, str], int]:
    return dict(Counter((row[one], row[other]) for row in rows if row.get(one) and row.get(other)).most_common())


def _copies(sides: Sequence[Dataset]) -> dict[str, int]:
    """Images with the same pixels as an earlier one, and held-out images whose pixels are in the training set."""
    digests = [[row.tobytes() for row in side.digests()] for side in sides]
    training = set(digests[0])
    return {
        "in_training": len(digests[0]) - len(training),
        "held_out_in_training": sum(digest in training for digest in digests[1]) if len(sides) > 1 else 0,
    }


def _near(sides: Sequence[Dataset], small: np.ndarray, patients: list[str]) -> dict[str, Any]:
    """Images that have one nearly like them: of the same patient, of another patient, on the other side of the split."""
    known = len(patients) == len(small)
    _, patient = np.unique(patients if known else np.arange(len(small)).astype(str), return_inverse=True)
    held = np.arange(len(small)) >= len(sides[0])
    has = {name: np.zeros(len(small), bool) for name in ("same_patient", "other_patient", "across_the_split")}
    examples: list[dict[str, Any]] = []
    for pairs in alike(small):
        across = held[pairs.first] != held[pairs.second]
        same = (patient[pairs.first] == patient[pairs.second]) & known
        for name, chosen in (("same_patient", same), ("other_patient", ~same), ("across_the_split", across)):
            has[name][pairs.first[chosen]] = has[name][pairs.second[chosen]] = True
        for i in np.flatnonzero(~same)[: EXAMPLES - len(examples)]:
            images = [_called(sides, int(number)) for number in (pairs.first[i], pairs.second[i])]
            examples.append({"images": images, "correlation": round(float(pairs.correlation[i]), 5)})
    return {
        "correlation_from": ALIKE,
        "patients_known": known,
        **{name: int(np.count_nonzero(found)) for name, found in has.items()},
        "examples": examples,
    }


def _called(sides: Sequence[Dataset], number: int) -> str:
    side, where = (sides[0], "") if number < len(sides[0]) else (sides[1], "held-out ")
    number -= 0 if side is sides[0] else len(sides[0])
    name = side.names[number]
    if OUR_NAME.fullmatch(name):
        return where + name
    return f"{where}picture {number + 1} of {len(side)} (pixels sha256 {side.digests()[number].tobytes().hex()[:12]})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def advice(facts: dict[str, Any]) -> list[str]:
    """What the facts of a set advise, most serious first."""
    said = []
    patients, near, copies, light = facts["patients"], facts["near_duplicates"], facts["copies"], facts["intensity"]
    images = facts["images"]
    if patients and patients["on_both_sides"]:
        said.append(f"{len(patients['on_both_sides'])} patients are in the training and in the held-out images: prepare the set again")
    if copies["held_out_in_training"]:
        said.append(f"{copies['held_out_in_training']} held-out images are training images too: audits and real-real figures would flatter")
    if near["across_the_split"] > copies["held_out_in_training"]:
        said.append(
            f"{near['across_the_split']} images are nearly the same on both sides of the split: is one patient there under two IDs?"
        )
    if copies["in_training"]:
        said.append(f"{copies['in_training']} of {images} images are exact copies of others: the network sees them more often")
    if near["patients_known"] and near["other_patient"] > near["across_the_split"]:
        said.append(f"{near['other_patient']} images are nearly the same as one of another patient: is one patient there under two IDs?")
    alike_images = near["same_patient"] if near["patients_known"] else near["other_patient"]
    if alike_images > images / 4:
        whose = "of the same patient" if near["patients_known"] else "of the set"
        said.append(f"{alike_images} images are nearly the same as another {whose}: they count as fewer than they are")
    if patients and patients["training"] < FEWEST_PATIENTS:
        said.append(f"{_count(patients['training'], 'patient')}: below {FEWEST_PATIENTS} the images vary little between patients")
    if images < FEWEST_IMAGES:
        said.append(
            f"{_count(images, 'image')}: below {FEWEST_IMAGES} a network tends to learn them by heart; audit the result before it is shared"
        )
    if patients and not facts["held_out_images"]:
        said.append("no patient is held out: the privacy audit will have nothing to compare with")
    if patients and patients["training"] >= 10 and patients["largest"]["part"] > ONE_PATIENT:
        said.append(f"one patient gives {patients['largest']['part']:.0%} of the images")
    if light["clipped_images"] > MANY_CLIPPED * images:
        said.append(f"{light['clipped_images']} images are white in more than {CLIPPED_PART:.0%} of what is not black: a wider --window")
    if light["percentiles"]["99.5"] < 128:
        said.append(f"99.5 % of all pixels are below grey {light['percentiles']['99.5'] + 1} of 255: a narrower window would show more")
    return said + _geometry(facts) + _classes(facts)


def _geometry(facts: dict[str, Any]) -> list[str]:
    said = []
    width, height = map(int, facts["size"].split("x"))
    if width != height or height not in SIZES:
        said.append(f"{facts['size']} px: no network takes it; medgan prepare makes square images of {', '.join(map(str, SIZES[2:]))} px")
    # Across, down, right: the last two lie in the picture.
    pixels = [float(spacing.split("x")[-1]) for spacing in facts["spacing_mm"]]
    if pixels and min(pixels) > 0 and max(pixels) > WIDE_SPREAD * min(pixels):
        said.append(f"a pixel of the scans is {min(pixels):g} to {max(pixels):g} mm wide: organs come in different sizes")
    enlarged = sum(n for size, n in facts["scan_size"].items() if max(map(int, size.split("x"))) * WIDE_SPREAD < height)
    if enlarged:
        said.append(f"{enlarged} images are enlarged by more than {WIDE_SPREAD}: a smaller --size loses nothing")
    if facts["bits"] == 16:
        said.append("16 bits: medgan trains on them, the official tools read 8 only")
    return said


def _classes(facts: dict[str, Any]) -> list[str]:
    if not facts["labels"] or facts["labels"]["kind"] != "classes":
        return []
    few = [name for name, count in facts["labels"]["images"].items() if count < FEWEST_OF_A_CLASS]
    return [f"classes with fewer than {FEWEST_OF_A_CLASS} images: {', '.join(few[:10])}{' ...' if len(few) > 10 else ''}"] if few else []
