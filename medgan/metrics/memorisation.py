"""The privacy audit: are synthetic images copies of training images? Calibrated on patients of whom nothing was copied.

What the rules mean, how often they are wrong and what they cannot see: docs/explanation/privacy.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medgan.errors import DataError
from medgan.metrics import verdict
from medgan.metrics.authenticity import authenticity, c_t
from medgan.metrics.copies import SHIFT, SIDE, Closest, ClosestFeatures, Neighbours, Thumbnails, feature_rows
from medgan.metrics.features import Array, Extractor, Images
from medgan.metrics.gate import ALPHA, ENOUGH_PATIENTS, FEWEST_PATIENTS, FIXED_NCC, LEVEL, NEAR, Decision, Normal, again, decide, usable
from medgan.metrics.planted import Planted
from medgan.progress import Step, nothing
from medgan.statistics import wilson

MOST_HELD_OUT = 3000
PLANTED = 100
SHARES = (0.001, 0.01, 0.02, 0.05)
PAIRS = 20
EXTREMES = 8
"""Images of either kind that the report shows."""


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Args:
        result: The content of audit.json; nothing in it shows or names a training image.
        pairs: The nearest pairs, most suspicious first: numbers of the images and how near they are. Local only.
    """

    result: dict[str, Any]
    pairs: list[dict[str, Any]]

    @property
    def refused(self) -> bool:
        """Whether the images must not be released."""
        return bool(self.result["verdict"] == "refused")

    @property
    def problem(self) -> str:
        """The refusal in one line."""
        return str(self.result["problem"])


def audit(
    *,
    train: Images,
    fake: Images,
    held_out: Images | None = None,
    train_patients: Sequence[str] = (),
    held_out_patients: Sequence[str] = (),
    extractor: Extractor | None = None,
    reason: str = "",
    batch: int = 32,
    pairs: int = PAIRS,
    seed: int = 0,
    step: Step = nothing,
) -> Audit:
    """Look for copies of training images among synthetic ones.

    Args:
        train: All images that were trained on.
        fake: Synthetic images, all of which are looked at.
        held_out: Images of other patients, for calibration, or None.
        train_patients: Patient of each training image; empty makes each image its own patient.
        held_out_patients: The same of the held-out images.
        extractor: Features to look at beside grey values; thumbnails when None.
        reason: Why these features, for the result.
        batch: Images per forward pass of the extractor.
        pairs: How many of the nearest pairs to return.
        seed: Of planted copies, halves and cells.
        step: Told of progress, in images.

    Raises:
        DataError: The sets differ in size or channels, or one is empty.
    """
    held_out = held_out if held_out is not None and len(held_out) else None
    _check_kinds(train=train, fake=fake, **({"held-out": held_out} if held_out else {}))
    rng = np.random.default_rng(seed)
    people, known = codes(train_patients, len(train))
    guests, guests_known = codes(held_out_patients, len(held_out) if held_out else 0)
    numbers = np.sort(rng.permutation(len(guests))[:MOST_HELD_OUT])
    guests = guests[numbers]
    planted = Planted(train, np.sort(np.resize(rng.permutation(len(train)), PLANTED)), rng)

    progress = _Progress(step, 2 * (len(train) + len(fake) + len(numbers)) + len(planted))
    search = _Search(train, people, extractor or Thumbnails(), batch, progress)
    synthetic = search(fake, np.arange(len(fake)))
    guest = search(held_out or fake, numbers)
    copies = search.closest(planted, np.arange(len(planted)), step=progress.part(len(planted)))

    kept = usable(guest.grey, guests)
    normal, reason_why_not = _normal(search, Normal(guest.grey, guest.features, guests, kept), known, rng)
    decision = decide(synthetic.grey, synthetic.features, normal)
    result: dict[str, Any] = {
        "verdict": "refused" if decision.refused_for else "passed" if normal else "not calibrated",
        "refused_for": decision.refused_for,
        "problem": "",
        "statement": "",
        "calibrated": normal is not None,
        "calibrated_on": "" if normal is None else "held-out patients" if normal.halves == 1 else "halves of the training patients",
        "calibration_patients": normal.count if normal else 0,
        "why_not_calibrated": reason_why_not,
        "patients_known": known and (guests_known or not len(guests)),
        "n_fake": len(fake),
        "n_train": len(train),
        "n_held_out": len(numbers),
        "train_patients": len(np.unique(people)),
        "held_out_patients": len(np.unique(guests)),
        "flat": {"fake": int(synthetic.grey.flat.sum()), "held_out": int(guest.grey.flat.sum())},
        "held_out_duplicates": int(again(guest.grey).sum()),
        "false_alarm": {"at_most": decision.false_alarm, "level": LEVEL},
        **_rules(decision, synthetic),
        "features": {"name": search.features.name, "sha256": search.features.sha256, "resize": search.features.resize, "reason": reason},
        **_averages(search, synthetic, guest, kept, seed),
        "membership": None,
        "power": _power(copies, decision, synthetic),
        "seed": seed,
    }
    result["extremes"] = _extremes(synthetic, decision)
    result["problem"] = verdict.problem(result)
    result["statement"] = verdict.statement(result)
    result["limits"] = verdict.limits(result)
    return Audit(result, _nearest_pairs(synthetic, decision, pairs))


@dataclass(frozen=True)
class _Found:
    """The neighbours of a set by grey values and by features, and its features (n, D)."""

    grey: Neighbours
    features: Neighbours
    rows: Array


class _Search:
    """Both ways to look for the nearest training images."""

    def __init__(self, train: Images, people: Array, features: Extractor | Thumbnails, batch: int, progress: _Progress) -> None:
        self.train, self.people, self.features, self.batch, self.progress = train, people, features, batch, progress
        self.closest = Closest(train, people, step=progress.part(len(train)))
        self.rows = self._rows(train, np.arange(len(train)))
        self.space = ClosestFeatures(self.rows, people)

    def __call__(self, images: Images, numbers: Array) -> _Found:
        """The neighbours of the images with these numbers."""
        grey = self.closest(images, numbers, step=self.progress.part(len(numbers)))
        rows = self._rows(images, numbers)
        return _Found(grey, self.space(rows), rows)

    def halves(self, ours: Array, theirs: Array) -> tuple[Neighbours, Neighbours]:
        """The neighbours of some training images among others, by grey values and by features."""
        grey = self.closest.among(theirs)(self.train, ours, step=self.progress.part(len(ours)))
        return grey, ClosestFeatures(self.rows[theirs], self.people[theirs])(self.rows[ours])

    def _rows(self, images: Images, numbers: Array) -> Array:
        return feature_rows(self.features, images, numbers, batch=self.batch, step=self.progress.part(len(numbers)))


def _normal(search: _Search, held_out: Normal, known: bool, rng: np.random.Generator) -> tuple[Normal | None, str]:
    """Patients who show what is normal: those held out or, where they are few, one half of the training patients. Or why there are none."""
    if held_out.count >= ENOUGH_PATIENTS:
        return held_out, ""
    order = rng.permutation(len(np.unique(search.people)))
    inside = np.isin(search.people, order[: len(order) // 2]) if known else np.zeros(len(search.people), bool)
    ours = np.sort(rng.permutation(np.flatnonzero(inside))[:MOST_HELD_OUT])
    if len(np.unique(search.people[ours])) > max(held_out.count, FEWEST_PATIENTS - 1):
        grey, features = search.halves(ours, np.flatnonzero(~inside))
        half = Normal(grey, features, search.people[ours], usable(grey, search.people[ours]), halves=2)
        if half.count > max(held_out.count, FEWEST_PATIENTS - 1):
            return half, ""
    if held_out.count >= FEWEST_PATIENTS:
        return held_out, ""
    who = (
        f"{held_out.count} held-out patient{'' if held_out.count == 1 else 's'} with usable images"
        if len(held_out.patients)
        else "no held-out images"
    )
    training = f"{len(order)} training patient{'' if len(order) == 1 else 's'}" if known else "training images of unknown patients"
    return (
        None,
        f"there are {who} and {training}; at least {FEWEST_PATIENTS} held-out or {2 * FEWEST_PATIENTS} training patients are needed",
    )


def _rules(decision: Decision, synthetic: _Found) -> dict[str, Any]:
    """The rules that decide, and the distances that they saw."""
    seen = ~synthetic.grey.flat
    n = int(seen.sum())
    scale, calibrated = decision.grey, decision.features is not None
    by_features = {} if decision.features is None else {"feature_distance": decision.features.near}
    return {
        "near_copies": {
            **_count(decision.near, n),
            "distance": scale.near,
            "ncc": _ncc(scale.near),
            **by_features,
            "by_grey_values": int(decision.near_grey.sum()),
            "by_features": int(decision.near_features.sum()),
            "expected_by_chance": scale.chance + decision.features.chance if decision.features else None,
            "rule": f"distance below {NEAR:g} of the threshold of the count, and so small that at most {ALPHA:.2g} honest images are expected there"
            if calibrated
            else f"correlation of {FIXED_NCC:g} or more",
        },
        "count_test": {
            **_count(decision.suspects, n),
            "distance": scale.distance,
            "ratio": scale.ratio,
            "expected_share": scale.share,
            "p": decision.p,
            "level": ALPHA,
            "rule": "distance and ratio both below those of the nearest 1 % of patients, more often than honest images (beta-binomial, a patient counts once)",
        }
        if calibrated
        else None,
        "grey_values": {"compared_at": SIDE, "shift": SHIFT, "nearest": _summary(synthetic.grey, seen)},
    }


def _averages(search: _Search, synthetic: _Found, guest: _Found, kept: Array, seed: int) -> dict[str, Any]:
    """Authenticity and C_T: of whole sets, in feature space, against those held-out images that are kept. They decide nothing."""
    seen = ~synthetic.grey.flat
    if not seen.any():
        nothing_there = {"reason": "all synthetic images are flat"}
        return {"authenticity": {"share": None, **nothing_there}, "c_t": {"value": None, **nothing_there}}
    gap, guest_gap = (search.space.of_training(found.features.nearest) for found in (synthetic, guest))
    ours, theirs = synthetic.features.distance[seen], guest.features.distance[kept]
    if not kept.any():
        alone = authenticity(fake=ours, fake_gap=gap[seen], held_out=None, held_out_gap=None)
        return {"authenticity": alone, "c_t": {"value": None, "reason": "there are no usable held-out images"}}
    return {
        "authenticity": authenticity(fake=ours, fake_gap=gap[seen], held_out=theirs, held_out_gap=guest_gap[kept]),
        "c_t": c_t(
            train=search.rows, held_out=guest.rows[kept], fake=synthetic.rows[seen], held_out_distance=theirs, fake_distance=ours, seed=seed
        ),
    }


def _power(copies: Neighbours, decision: Decision, synthetic: _Found) -> dict[str, Any]:
    """How many planted copies fall below the threshold of near copies by grey values, and what that means for this many images."""
    visible, n = int((~copies.flat).sum()), int((~synthetic.grey.flat).sum())
    found = _count(~copies.flat & (copies.distance < decision.grey.near), visible)
    against = {f"{100 * share:g} %": 1 - (1 - share * found["rate"]) ** n for share in SHARES}
    middle = _ncc(float(np.median(copies.distance[~copies.flat]))) if visible else None
    return {"planted": visible, "median_ncc": middle, "recognised": found["rate"], "interval": found["interval"], "against": against}


def _count(which: Array, n: int) -> dict[str, Any]:
    """How many, their share of n and its 95 % interval."""
    count = int(which.sum())
    if not n:
        return {"count": count, "rate": 0.0, "interval": [0.0, 1.0]}
    interval = wilson(count, n)
    return {"count": count, "rate": count / n, "interval": [interval.low, interval.high]}


def _summary(found: Neighbours, seen: Array) -> dict[str, float] | None:
    """How near the nearest training images are, as correlations."""
    if not seen.any():
        return None
    ncc = 1 - found.distance[seen] ** 2 / 2
    return {"largest_ncc": float(ncc.max()), "p99_ncc": float(np.quantile(ncc, 0.99)), "median_ncc": float(np.median(ncc))}


def _ncc(distance: float) -> float:
    return 1 - distance**2 / 2


def _nearest_pairs(synthetic: _Found, decision: Decision, most: int) -> list[dict[str, Any]]:
    """The nearest pairs, near copies first, then those of the count; each with the training image that makes it one."""
    grey, pairs = synthetic.grey, []
    order = np.lexsort((grey.distance, ~decision.suspects, ~decision.near))
    for i in order[~grey.flat[order]][:most]:
        by_features = bool(decision.near_features[i] and not decision.near_grey[i])
        found = synthetic.features if by_features else grey
        pair = {"fake": int(i), "train": int(found.nearest[i]), "distance": round(float(found.distance[i]), 5)}
        if not by_features:
            pair["ncc"] = round(_ncc(float(found.distance[i])), 5)
        pair |= {"ratio": round(float(found.ratio[i]), 5), "symmetry": int(found.symmetry[i])}
        pairs.append(
            pair
            | {
                "by": "features" if by_features else "grey values",
                "near_copy": bool(decision.near[i]),
                "counted": bool(decision.suspects[i]),
            }
        )
    return pairs


def _extremes(synthetic: _Found, decision: Decision) -> dict[str, Any]:
    """Synthetic images to look at, by their numbers: those farthest from all training images by features, and those that resemble one most.

    What the rules hold for a copy is not among them, because they are shown where no patient may be.
    """
    grey, features = synthetic.grey, synthetic.features
    shown = ~grey.flat
    honest = shown & ~decision.near & ~decision.suspects
    far = [i for i in np.argsort(-features.distance, kind="stable") if shown[i] and not decision.near[i]][:EXTREMES]
    near = [i for i in np.argsort(grey.distance, kind="stable") if honest[i]][:EXTREMES]
    return {
        "farthest": [{"image": int(i), "distance": round(float(features.distance[i]), 5)} for i in far],
        "nearest": [{"image": int(i), "ncc": round(_ncc(float(grey.distance[i])), 5)} for i in near],
    }


class _Progress:
    """One count of images over the parts of an audit."""

    def __init__(self, step: Step, total: int) -> None:
        self.step, self.total, self.done = step, total, 0

    def part(self, size: int) -> Step:
        before = self.done
        self.done += size
        # The halves are not known to be needed at the start.
        self.total = max(self.total, self.done)
        return lambda done, _: self.step(before + done, self.total)


def _check_kinds(**sets: Images) -> None:
    shapes = {}
    for name, images in sets.items():
        if not len(images):
            raise DataError(f"the {name} set holds no images", fix="give a set with images")
        first = images.images(range(1))
        if first.dtype != np.uint8 or first.ndim != 4 or first.shape[1] not in (1, 3):
            raise DataError(f"images of the {name} set must be 8-bit grey or RGB (N, C, H, W), not {first.dtype} {first.shape}")
        shapes[name] = first.shape[1:]
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{name} {w} x {h} with {c} channel{'s' if c > 1 else ''}" for name, (c, h, w) in shapes.items())
        raise DataError(f"the sets differ: {told}", fix="prepare and generate all with the same size and channels")


def codes(patients: Sequence[str], count: int) -> tuple[Array, bool]:
    """Patients as whole numbers, and whether they are known: if not of every image, each image is one of its own."""
    if len(patients) != count or not all(patients):
        return np.arange(count), False
    return np.unique(np.asarray(patients), return_inverse=True)[1], True
