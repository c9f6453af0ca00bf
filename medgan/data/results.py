"""What `prepare` leaves on disk: the zips, and a folder of facts about them. Everything that leaves is under keys."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medgan.data.archive import MANIFEST, RECIPE
from medgan.data.dataset import COLUMNS, identity_of, image_name, open_dataset, save_sheet, write_dataset
from medgan.data.geometry import MOST_UPSAMPLING
from medgan.data.pseudonyms import Pseudonyms
from medgan.data.recipe import Recipe
from medgan.data.scans import NAMELESS, Excluded, Scan
from medgan.data.slices import PERCENTILES, Outcome
from medgan.data.splits import held_out_patients
from medgan.errors import DataError, DiskError
from medgan.runs import provenance, write_json, write_text
from medgan.tables import csv_text

if TYPE_CHECKING:
    from medgan.data.prepare import PrepareConfig

FEWEST_SLICES_ADVISED = 1000
FEWEST_PATIENTS_ADVISED = 30


@dataclass(kw_only=True)
class Piece:
    """A scan that was cut, and its place in the order."""

    scan: Scan
    outcome: Outcome
    spool: Path
    patient: str = ""

    @property
    def series(self) -> str:
        return self.scan.series or self.outcome.content


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _classes(recipe: Recipe, pieces: list[Piece]) -> list[str]:
    """All classes in the order of their numbers.

    Raises:
        DataError: An image's class is unknown.
    """
    labels = [picture.label for piece in pieces for picture in piece.outcome.pictures]
    if missing := sum(label is None for label in labels):
        raise DataError(
            f"--labels: {missing} of {len(labels)} images have no class", fix="the data set's own labels beside the images, or no --labels"
        )
    found = {name for label in labels if label for name in label.split("|")}
    if recipe.classes:
        if strangers := found - {*recipe.classes}:
            raise DataError(f"--labels: {len(strangers)} classes that the recipe does not know")
        return list(recipe.classes)
    return [str(number) for number in range(max((int(name) for name in found), default=0) + 1)]


def paper_note(recipe: Recipe) -> str:
    """What `--paper-compatible` does with a recipe."""
    if not recipe.paper_rules:
        return "--paper-compatible changes nothing: this recipe's paper did nothing else"
    said = {
        "slice-range": "each slice has its own range, so one tissue has another grey in every slice",
        "lose-last-slice": "a slice with the label at the volume's end is lost",
    }
    return f"--paper-compatible: {'; '.join(said[rule] for rule in recipe.paper_rules)}; slices are not checked for quality"


class Results:
    """Writes what was cut: the zips and the folder of facts about them."""

    def __init__(
        self,
        config: PrepareConfig,
        recipe: Recipe,
        keys: Pseudonyms,
        excluded: list[Excluded],
        pieces: list[Piece],
        warnings: Counter[str],
        started: str,
    ) -> None:
        self.config = config
        self.recipe = recipe
        self.keys = keys
        self.excluded = excluded
        self.pieces = [piece for piece in pieces if piece.outcome.pictures]
        self.contents = sorted(piece.outcome.content for piece in pieces)
        self.warnings = warnings
        self.started = started
        # The pictures of a stack name no patient: its own parts are all there is to split by.
        self.patients = list(dict.fromkeys(piece.patient for piece in self.pieces if piece.scan.kind != "stack"))
        self.held_out, self.note = (
            held_out_patients(self.patients, share=config.held_out, seed=config.seed) if self.patients else (set(), "")
        )
        self.channels = max(piece.outcome.channels for piece in self.pieces)
        self.classes = _classes(recipe, self.pieces) if recipe.labels else []

    def write(self, out: Path, held_out_zip: Path, info: Path) -> dict[str, Any]:
        """Write both zips and the folder of information; returns the summary that `prepare` gives."""
        sides: dict[str, list[Piece]] = {"train": [], "held-out": []}
        for piece in self.pieces:
            sides[piece.scan.split or ("held-out" if piece.patient in self.held_out else "train")].append(piece)
        if not sides["train"]:
            raise DataError("no image is left for training", fix="--split says which part of the data set gives the training images")
        rows = {split: self._rows(pieces, split) for split, pieces in sides.items()}
        recipe = self.recipe.to_dict()
        self._zip(out, sides["train"], csv_text(COLUMNS, rows["train"]))
        if sides["held-out"]:
            self._zip(held_out_zip, sides["held-out"], csv_text(COLUMNS, rows["held-out"]))
        else:
            held_out_zip.unlink(missing_ok=True)
        digests = [picture.pixels for piece in sides["train"] for picture in piece.outcome.pictures]
        warnings = self._warnings(len(digests), len(rows["held-out"]))
        dropped = self._dropped()
        write_text(info / MANIFEST, csv_text(COLUMNS, [*rows["train"], *rows["held-out"]]))
        write_json(info / RECIPE, recipe)
        write_json(info / "splits.json", self._splits())
        write_json(info / "fingerprint.json", self._fingerprint(rows, dropped, warnings))
        write_text(info / "excluded.csv", self._excluded_csv())
        save_sheet(open_dataset(out), info / "qc_sheet.png")
        scans = hashlib.sha256("".join(self.contents).encode()).hexdigest()
        write_json(info / "run.json", provenance("prepare", self.config.shown(), {"scans": scans}, started=self.started))
        return {
            "kept": len(digests) + len(rows["held-out"]),
            "dropped": dropped,
            "patients": len(self.patients),
            "scans": len(self.pieces),
            "held_out": len(rows["held-out"]),
            "identity": identity_of(digests, (self.channels, self.recipe.size), self._labels(sides["train"]), recipe),
            "size": self.recipe.size,
            "channels": self.channels,
            "warnings": warnings,
        }

    def _zip(self, path: Path, pieces: list[Piece], manifest: str) -> None:
        def images() -> Iterator[bytes]:
            for piece in pieces:
                with piece.spool.open("rb") as spool:
                    for picture in piece.outcome.pictures:
                        spool.seek(picture.offset)
                        yield spool.read(picture.length)

        needed = sum(picture.length for piece in pieces for picture in piece.outcome.pictures)
        if shutil.disk_usage(path.parent).free < needed:
            raise DiskError(
                f"the dataset needs {needed / 2**20:.0f} MiB more than the disk has free", fix="free space, or another place for OUT"
            )
        labels = self._labels(pieces)
        write_dataset(path, images(), None if labels is None else labels.tolist(), manifest, self.recipe.to_dict())

    def _labels(self, pieces: list[Piece]) -> np.ndarray | None:
        """Class numbers, or vectors of 0 and 1 where an image may be of several classes; None where labels are not asked for."""
        if not self.classes:
            return None
        numbers = {name: number for number, name in enumerate(self.classes)}
        labels = [picture.label or "" for piece in pieces for picture in piece.outcome.pictures]
        if not self._several():
            return np.array([numbers[label] for label in labels], np.int64)
        vectors = np.zeros((len(labels), len(self.classes)), np.float32)
        for row, label in enumerate(labels):
            for name in filter(None, label.split("|")):
                vectors[row, numbers[name]] = 1
        return vectors

    def _several(self) -> bool:
        found = (picture.label or "" for piece in self.pieces for picture in piece.outcome.pictures)
        return bool(self.recipe.table) or any("|" in label or not label for label in found)

    def _rows(self, pieces: list[Piece], split: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for piece in pieces:
            scan, cut = piece.scan, piece.outcome
            shared = {
                "subject_key": "" if scan.kind == "stack" else self.keys.key("subject", piece.patient),
                "session_key": self.keys.key("session", scan.session or piece.series),
                "series_key": self.keys.key("series", piece.series),
                "n_slices": cut.n_slices,
                "plane": self.recipe.plane,
                "modality": scan.modality or ("" if "|" in self.recipe.modality else self.recipe.modality),
                # Across, down, right.
                "spacing_mm": "x".join(f"{value:.4g}" for value in cut.spacing_mm),
                "rows": cut.rows,
                "columns": cut.columns,
                "preset": self.recipe.preset,
                # Where each slice has its own range there is no window.
                "level": f"{cut.level:g}" if cut.width else "",
                "width": f"{cut.width:g}" if cut.width else "",
                "orientation": cut.orientation,
                "mask_label": (self.recipe.mask_label or self.recipe.mask_name) if self.recipe.by_mask else "",
                "split": split,
            }
            for picture in cut.pictures:
                own = {"sha256": picture.sha256, "slice_index": picture.slice_index}
                mask_pixels = picture.mask_pixels if self.recipe.by_mask else ""
                rows.append({"image": image_name(len(rows)), **own, **shared, "mask_pixels": mask_pixels, "label": picture.label or ""})
        return rows

    def _dropped(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for item in self.excluded:
            counts[item.reason] += item.count
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def _warnings(self, images: int, held_out: int) -> list[str]:
        many = [f"{text} ({count} scans)" if count > 1 else text for text, count in sorted(self.warnings.items())]
        notes = Counter(note.split(":")[0] for piece in self.pieces for note in piece.outcome.notes)
        many += [f"{name} in {count} of {len(self.pieces)} scans" for name, count in sorted(notes.items())]
        if grown := sum(piece.outcome.upsampling > MOST_UPSAMPLING for piece in self.pieces):
            most = max(piece.outcome.upsampling for piece in self.pieces)
            many.append(f"{grown} of {len(self.pieces)} scans are enlarged, by up to {most:.1f}: a smaller --size loses nothing")
        if files := sum(item.level == "file" for item in self.excluded):
            many.append(f"{files} files skipped: excluded.csv lists them")
        if self.recipe.paper_compatible:
            many.append(paper_note(self.recipe))
        if self.recipe.paper_images and 2 * (images + held_out) >= self.recipe.paper_images and not self.recipe.only_class:
            many.append(f"{images + held_out:,} images kept, the paper has {self.recipe.paper_images:,}")
        # The volumes of one 4-D file are one file.
        nameless = len({piece.patient for piece in self.pieces if piece.patient.startswith(NAMELESS) and piece.scan.kind != "stack"})
        if nameless > 1:
            many.append(f"{nameless} files name no patient, each counts as one: put those of one patient into a folder of their own")
        if self.note:
            many.append(self.note)
        if images < FEWEST_SLICES_ADVISED:
            many.append(f"{_counted(images, 'image')}: below {FEWEST_SLICES_ADVISED} a network tends to learn them by heart")
        if len(self.patients) < len(self.pieces) and not self.patients:
            many.append("the files name no patients: images of one patient may be in several parts")
        elif len(self.patients) < FEWEST_PATIENTS_ADVISED:
            many.append(
                f"{_counted(len(self.patients), 'patient')}: below {FEWEST_PATIENTS_ADVISED} the images vary little between patients"
            )
        return many

    def _splits(self) -> dict[str, Any]:
        sides: dict[str, list[str]] = {"train": [], "held_out": []}
        for patient in self.patients:
            sides["held_out" if patient in self.held_out else "train"].append(self.keys.key("subject", patient))
        return {"by": "patient", "seed": self.config.seed, "share": self.config.held_out, "note": self.note, **sides}

    def _fingerprint(self, rows: dict[str, list[dict[str, Any]]], dropped: dict[str, int], warnings: list[str]) -> dict[str, Any]:
        every = [*rows["train"], *rows["held-out"]]
        histograms = {
            "spacing_mm": Counter("x".join(f"{value:.4g}" for value in piece.outcome.spacing_mm) for piece in self.pieces),
            "scan_size": Counter(f"{piece.outcome.columns}x{piece.outcome.rows}" for piece in self.pieces),
            "orientation": Counter(piece.outcome.orientation for piece in self.pieces),
            "slices_kept": Counter(str(len(piece.outcome.pictures)) for piece in self.pieces),
        }
        return {
            "recipe": self.recipe.name,
            "size": self.recipe.size,
            "channels": self.channels,
            "patients": len(self.patients),
            "sessions": len({row["session_key"] for row in every}),
            "series": len(self.pieces),
            "images": len(every),
            "held_out_images": len(rows["held-out"]),
            "dropped": dropped,
            "intensity": {
                "percentiles": list(PERCENTILES),
                "scans": [{"series_key": self.keys.key("series", p.series), "values": list(p.outcome.percentiles)} for p in self.pieces],
            },
            **{name: dict(sorted(counts.items())) for name, counts in histograms.items()},
            "advice": warnings,
        }

    def _excluded_csv(self) -> str:
        rows = [
            (item.level, item.reason, item.slices, item.count, self.keys.key("file" if item.level == "file" else "series", item.identity))
            for item in self.excluded
        ]
        # By reason and slices before the key, so that without a pseudonym key only the key column changes from run to run.
        rows.sort(key=lambda row: row[:4])
        names = ("level", "reason", "slices", "count", "key")
        return csv_text(names, [dict(zip(names, row, strict=True)) for row in rows])
