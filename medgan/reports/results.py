"""What a run folder holds, read into plain values; whatever is absent or damaged is named, never guessed.

Every stage leaves files, a run may have stopped anywhere, and a report is most wanted when it did: no reader here fails
because a file is missing.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medgan import runs
from medgan.errors import InputError

FID_NAMES = ("fid50k_full", "fid")
"""Names under which a Frechet Inception Distance is stored, the official definition first."""


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What the network learned from, counted from the manifest without the held-out patients.

    `excluded` counts slices by reason; it is None where nobody wrote down what was left out.
    """

    images: int
    held_out: int
    patients: int
    series: int
    windows: list[str]
    planes: list[str]
    modalities: list[str]
    spacings: list[str]
    excluded: dict[str, int] | None
    recipe: dict[str, Any]
    warnings: list[str]


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything the report shows, before any sentence is made of it.

    `source` is where the first weights came from: empty for a network that began with random ones.
    """

    config: dict[str, Any]
    provenance: dict[str, dict[str, Any]]
    status: dict[str, Any]
    stats: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    metrics: dict[str, Any]
    audit: dict[str, Any]
    inspection: dict[str, Any]
    plan: dict[str, Any]
    dataset: DatasetFacts | None
    model: dict[str, Any]
    samples: list[dict[str, str]]
    source: dict[str, Any]
    dataset_sheet: Path | None
    synthetic_sheet: Path | None
    synthetic_images: Path | None
    walk_strip: Path | None
    missing: list[str] = field(default_factory=list)

    @property
    def checked(self) -> bool:
        """Whether only the data was looked at: nothing of a training is missing then."""
        return self.status.get("status") == "checked"

    @property
    def plans(self) -> dict[str, dict[str, Any]]:
        """The predicted training on each class of GPU, by its name."""
        devices = self.plan.get("devices")
        return {str(name): row for name, row in devices.items() if isinstance(row, dict)} if isinstance(devices, Mapping) else {}

    @property
    def advice(self) -> list[str]:
        """What the data check advises, most serious first."""
        return [str(text) for text in _as_list(self.inspection.get("advice") or [])]

    @property
    def kimg(self) -> float | None:
        """Thousands of images shown so far, or None when nothing was trained."""
        return number(self.stats[-1].get("kimg")) if self.stats else None

    @property
    def kimg_wanted(self) -> float | None:
        """Thousands of images asked for."""
        return number(self.config.get("kimg"))

    @property
    def chosen_kimg(self) -> float | None:
        """The snapshot in the bundle; without a bundle the one with the lowest FID so far."""
        chosen = number(self.model.get("kimg"))
        if chosen is not None:
            return chosen
        curve = self.curve(self.fid_name)
        return min(curve, key=lambda point: point[1])[0] if curve else None

    @property
    def fid_name(self) -> str:
        """The FID that was followed during training: the official one if it was measured."""
        for name in FID_NAMES:
            if self.curve(name):
                return name
        return FID_NAMES[0]

    def curve(self, metric: str) -> list[tuple[float, float]]:
        """(kimg, value) of a metric over the evaluations made during training."""
        points = ((number(row.get("kimg")), metric_value(row, metric)) for row in self.evaluations)
        return [(kimg, value) for kimg, value in points if kimg is not None and value is not None]

    def trace(self, key: str) -> list[tuple[float, float]]:
        """(kimg, mean) of a training statistic over the ticks in which it was measured."""
        points = ((number(row.get("kimg")), number(_mean(row.get(key)))) for row in self.stats)
        return [(kimg, value) for kimg, value in points if kimg is not None and value is not None]

    @property
    def not_finite(self) -> int:
        """Entries of gradients, and losses, that were not finite. A row counts from the start of its process, so a resumed run starts at 0 again."""
        return int(max((number(row.get("nonfinite")) or 0 for row in self.stats), default=0))

    @property
    def alarms(self) -> list[tuple[float, str, str]]:
        """(kimg, code, text) of each alarm of the training's watch, where it began."""
        return [
            (row["kimg"], str(alarm.get("code", "")), str(alarm.get("text", "")))
            for row in self.stats
            for alarm in _as_list(row.get("alarms") or [])
            if isinstance(alarm, Mapping)
        ]


def number(value: Any) -> float | None:
    """A finite number, or None for anything else; True is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def metric_value(evaluation: Mapping[str, Any], name: str) -> float | None:
    """The value of a metric in one evaluation, or None where it was not measured."""
    metrics = evaluation.get("metrics")
    entry = metrics.get(name) if isinstance(metrics, Mapping) else None
    return number(entry.get("value")) if isinstance(entry, Mapping) else None


def read_results(run: Path) -> Results:
    """Read a run folder, complete or not.

    Args:
        run: The folder `train` wrote and `generate`, `evaluate` completed.

    Raises:
        InputError: Nothing in it was written by a run.
    """
    missing: list[str] = []

    def wanted(name: str, what: str) -> dict[str, Any]:
        return _read_json(run / name, name, what, missing)

    config = wanted(runs.CONFIG, "the settings of training")
    provenance = {"train": wanted(runs.PROVENANCE, "versions, seed and checksums of training")}
    for stage, name in (("prepare", f"{runs.DATASET}/run.json"), ("generate", f"{runs.SYNTHETIC}/run.json"), ("job", runs.JOB)):
        provenance[stage] = _read_json(run / name, name, "", [])
    stats = _last_branch(_read_lines(run / runs.STATS, runs.STATS, "training curves", missing))
    evaluations = _last_branch(_read_lines(run / runs.EVALUATIONS, runs.EVALUATIONS, "FID during training", missing))
    metrics = _of_this_age(wanted(runs.METRICS, "the final evaluation"), runs.METRICS_FORMAT, runs.METRICS, missing)
    metadata_name = f"{runs.BUNDLE}/configs/metadata.json"
    metadata = wanted(metadata_name, "the trained generator (MONAI bundle)")
    model = _of_this_age(metadata.get("medgan"), runs.BUNDLE_FORMAT, metadata_name, missing)
    source = model.get("source") or _read_json(run / runs.PRETRAINED, runs.PRETRAINED, "", [])
    samples_name = f"{runs.SYNTHETIC}/manifest.csv"
    samples = _read_csv(run / samples_name, samples_name, "the list of synthetic images", missing)
    dataset = _read_dataset(run / runs.DATASET, missing)
    results = Results(
        config=config,
        provenance={stage: values for stage, values in provenance.items() if values},
        status=_read_json(run / runs.STATUS, runs.STATUS, "", []),
        stats=stats,
        evaluations=evaluations,
        metrics=metrics,
        audit=_read_json(run / runs.AUDIT / "audit.json", f"{runs.AUDIT}/audit.json", "", []),
        inspection=_read_json(run / runs.DATASET / runs.INSPECTION, runs.INSPECTION, "", []),
        plan=_read_json(run / runs.PLAN, runs.PLAN, "", []),
        dataset=dataset,
        model=model,
        samples=samples,
        source=dict(source) if isinstance(source, Mapping) else {},
        dataset_sheet=_existing(run / runs.DATASET / "qc_sheet.png"),
        synthetic_sheet=_existing(run / runs.SYNTHETIC / "contact_sheet.png") or _last_snapshot(run),
        synthetic_images=_existing(run / runs.SYNTHETIC / "synthetic.zip") or _loose(run / runs.SYNTHETIC),
        walk_strip=_existing(run / runs.WALK / "walk_strip.png"),
        missing=missing,
    )
    if results.checked:
        missing[:] = [line for line in missing if line.startswith(f"{runs.DATASET}/")]
    parts = (config, results.provenance, stats, evaluations, metrics, metadata, samples, dataset, results.status, results.synthetic_sheet)
    if not any(parts):
        raise InputError("the folder holds no file of a run", fix="give the --out folder of medgan train")
    return results


def _read_json(path: Path, name: str, what: str, missing: list[str]) -> dict[str, Any]:
    """The object in a JSON file; {} and a line in `missing` when it is absent or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        missing.append(f"{name}: {what}")
        return {}
    except (OSError, ValueError):
        missing.append(f"{name} (cannot be read): {what}")
        return {}
    return value if isinstance(value, dict) else {}


def _of_this_age(found: Any, known: int, name: str, missing: list[str]) -> dict[str, Any]:
    """What a file says, unless a later medgan wrote it in a form this one does not know: a wrong reading would be worse than none."""
    if not isinstance(found, Mapping):
        return {}
    written = number(found.get("format")) or 0
    if written > known:
        missing.append(f"{name} (of a newer medgan: format {written:g}, this one reads up to {known}): upgrade medgan to read it")
        return {}
    return dict(found)


def _read_lines(path: Path, name: str, what: str, missing: list[str]) -> list[dict[str, Any]]:
    try:
        rows = [row for row in runs.read_json_lines(path) if isinstance(row, dict)]
    except (OSError, ValueError):
        missing.append(f"{name} (cannot be read): {what}")
        return []
    if not rows:
        missing.append(f"{name}: {what}")
    return rows


def _read_csv(path: Path, name: str, what: str, missing: list[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{key: value or "" for key, value in row.items() if isinstance(key, str)} for row in csv.DictReader(file)]
    except (FileNotFoundError, NotADirectoryError):
        missing.append(f"{name}: {what}")
    except (OSError, ValueError, csv.Error):
        missing.append(f"{name} (cannot be read): {what}")
    return []


def _last_branch(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of images shown, where a resumed run replaces what a killed one wrote after its last save.

    The file is only ever appended to, so ticks after the saved state stand in it twice: first as the killed run saw
    them, then as the resumed run did.
    """
    kept: list[dict[str, Any]] = []
    for row in rows:
        kimg = number(row.get("kimg"))
        if kimg is None:
            continue
        while kept and kept[-1]["kimg"] >= kimg:
            kept.pop()
        kept.append(row)
    return kept


def _read_dataset(folder: Path, missing: list[str]) -> DatasetFacts | None:
    name = f"{runs.DATASET}/manifest.csv"
    rows = _read_csv(folder / "manifest.csv", name, "counts of images and patients", missing)
    recipe = _read_json(folder / "recipe.json", f"{runs.DATASET}/recipe.json", "what was done to the scans", missing)
    fingerprint = _read_json(folder / "fingerprint.json", f"{runs.DATASET}/fingerprint.json", "", [])
    absent = len(missing)
    excluded = _read_csv(folder / "excluded.csv", f"{runs.DATASET}/excluded.csv", "what was left out and why", missing)
    known = len(missing) == absent
    if not rows and not recipe and not fingerprint:
        return None
    held_out = [row for row in rows if row.get("split", "").replace("_", "-") == "held-out"]
    rows = [row for row in rows if row.get("split", "").replace("_", "-") != "held-out"]
    advice = fingerprint.get("advice") or []
    return DatasetFacts(
        # A set made elsewhere has no manifest, only its counts.
        images=len(rows) or int(number(fingerprint.get("images")) or 0),
        held_out=len(held_out),
        patients=len({row["subject_key"] for row in rows if row.get("subject_key")}),
        series=len({row["series_key"] for row in rows if row.get("series_key")}),
        windows=_common(f"{_plain(row['level'])} / {_plain(row['width'])}" for row in rows if row.get("level") and row.get("width")),
        planes=_common(row.get("plane", "") for row in rows),
        modalities=_common(row.get("modality", "") for row in rows),
        spacings=_common(row.get("spacing_mm", "") for row in rows),
        excluded=_left_out(excluded) if known else None,
        recipe=recipe,
        warnings=[str(item.get("text", item.get("code", ""))) if isinstance(item, Mapping) else str(item) for item in _as_list(advice)],
    )


def _left_out(rows: list[dict[str, str]]) -> dict[str, int]:
    """Slices by reason, the most frequent first; a row stands for `count` of them (a range of slices, a whole scan)."""
    counts: Counter[str] = Counter()
    for row in rows:
        count = row.get("count", "")
        counts[row.get("reason") or "no reason given"] += int(count) if count.isascii() and count.isdigit() else 1
    return dict(counts.most_common())


def _common(values: Any) -> list[str]:
    """Distinct non-empty words, the most frequent first."""
    return [value for value, _ in Counter(value for value in values if value).most_common()]


def _plain(text: str) -> str:
    """`50.0` as `50`; text that is no number stays."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _mean(value: Any) -> Any:
    return value.get("mean") if isinstance(value, Mapping) else value


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _loose(folder: Path) -> Path | None:
    """A folder of single images, where there is no zip of them."""
    return folder if any(folder.glob("seed*.png")) else None


def _last_snapshot(run: Path) -> Path | None:
    """The newest contact sheet of training, for a run that never came to `generate`."""

    def kimg(path: Path) -> float:
        try:
            return float(path.stem.removeprefix("fakes"))
        except ValueError:
            return -1

    return max((run / runs.SNAPSHOTS).glob("fakes*.png"), key=kimg, default=None)
