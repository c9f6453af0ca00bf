"""The privacy audit: are synthetic images copies of training images? Calibrated on patients that were held out of training.

What the rules mean, how often they are wrong and what they cannot see: docs/explanation/privacy.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from medgan.errors import DataError
from medgan.metrics.authenticity import authenticity, c_t
from medgan.metrics.copies import SHIFT, SIDE, Closest, ClosestFeatures, Neighbours, Thumbnails, feature_rows
from medgan.metrics.features import Array, Extractor, Images
from medgan.progress import Step, nothing

CALIBRATION = 0.01
"""The threshold of the count test is this quantile of the held-out images' distances."""
NEAR = 0.5
"""A near copy is closer than this share of that threshold. Leaving the noise out of an image, as a smooth generator does, brings it no nearer than 0.71
of what held-out images reach (two noisy images differ by twice the noise of one), so smoothness alone is no copy."""
ALPHA = 0.001
"""The count test refuses below this probability."""
FIXED_NCC = 0.995
"""Without calibration, a near copy is an image that correlates with a training image at least so highly (docs/explanation/privacy.md has the measurements)."""
FEWEST_IMAGES, FEWEST_PATIENTS = 20, 3
"""Fewer held-out images or patients calibrate nothing."""
DUPLICATE = 0.02
"""A held-out image nearer than this (NCC 0.9998) to a training image is the same image again, and is no calibration."""
MOST_HELD_OUT = 3000
PLANTED = 100
SHARES = (0.001, 0.01, 0.02, 0.05)
PAIRS = 20


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
        seed: Of planted copies and cells.
        step: Told of progress, in images.

    Raises:
        DataError: The sets differ in size or channels, or one is empty.
    """
    _check_kinds(train=train, fake=fake, **({"held-out": held_out} if held_out is not None and len(held_out) else {}))
    patients = _codes(train_patients, len(train))
    rng = np.random.default_rng(seed)
    numbers = np.arange(len(held_out)) if held_out is not None else np.zeros(0, np.int64)
    if len(numbers) > MOST_HELD_OUT:
        numbers = np.sort(rng.permutation(numbers)[:MOST_HELD_OUT])
    guests = _codes(held_out_patients, len(held_out) if held_out is not None else 0)[numbers]
    planted = Planted(train, np.sort(rng.permutation(len(train))[:PLANTED]), rng)
    total = 2 * len(train) + 2 * len(fake) + 2 * len(numbers) + len(planted)
    progress = _Progress(step, total)

    closest = Closest(train, patients, step=progress.part(len(train)))
    found = closest(fake, np.arange(len(fake)), step=progress.part(len(fake)))
    ours = closest(held_out, numbers, step=progress.part(len(numbers))) if held_out is not None and len(numbers) else None
    copies = closest(planted, np.arange(len(planted)), step=progress.part(len(planted)))

    features = extractor or Thumbnails()
    rows = feature_rows(features, train, np.arange(len(train)), batch=batch, step=progress.part(len(train)))
    space = ClosestFeatures(rows, patients)
    fake_rows = feature_rows(features, fake, np.arange(len(fake)), batch=batch, step=progress.part(len(fake)))
    found_features = space(fake_rows)
    held_rows = None
    if held_out is not None and len(numbers):
        held_rows = feature_rows(features, held_out, numbers, batch=batch, step=progress.part(len(numbers)))

    seen = ~found.flat
    uncalibrated, kept, duplicates = _calibration(ours, guests)
    scale = Scale.of(ours, guests, kept) if ours is not None and not uncalibrated else Scale.fixed()
    near = seen & (found.distance < scale.near)
    distance_part, ratio_part = _part(found, seen, scale, "distance"), _part(found, seen, scale, "ratio")
    suspects = seen & (found.distance < scale.distance) & (found.ratio < scale.ratio)
    count_p = scale.p_of(int(suspects.sum()), int(seen.sum())) if not uncalibrated else None

    feature_part: dict[str, Any] = {"name": features.name, "sha256": features.sha256, "resize": features.resize, "reason": reason}
    feature_near = np.zeros(len(fake), bool)
    gap = space.of_training(found_features.nearest)
    authentic: dict[str, Any]
    statistic: dict[str, Any] = {"value": None, "reason": "no held-out images"}
    if held_rows is not None and ours is not None:
        guest_features = space(held_rows)
        keep = kept & ~ours.flat
        if not uncalibrated:
            feature_scale = Scale.of(guest_features, guests, keep)
            feature_near = seen & (found_features.distance < feature_scale.near)
            feature_part |= {"distance": _part(found_features, seen, feature_scale, "distance"), "near_copies": int(feature_near.sum())}
        guest_gap = space.of_training(guest_features.nearest)
        authentic = authenticity(
            fake=found_features.distance[seen], fake_gap=gap[seen], held_out=guest_features.distance[keep], held_out_gap=guest_gap[keep]
        ) if seen.any() and keep.any() else {"share": None, "reason": "nothing to compare"}  # fmt: skip
        statistic = c_t(
            train=rows, held_out=held_rows[keep], fake=fake_rows[seen], held_out_distance=guest_features.distance[keep],
            fake_distance=found_features.distance[seen], seed=seed,
        )  # fmt: skip
    elif seen.any():
        authentic = authenticity(fake=found_features.distance[seen], fake_gap=gap[seen], held_out=None, held_out_gap=None)
    else:
        authentic = {"share": None, "reason": "nothing to compare"}

    copy = near | feature_near
    n, n_copies = int(seen.sum()), int(copy.sum())
    refused_for = []
    if n_copies:
        refused_for.append("near copies")
    if count_p is not None and count_p < ALPHA:
        refused_for.append("count")
    detected = float((copies.distance < scale.near)[~copies.flat].mean()) if (~copies.flat).any() else 0.0
    result: dict[str, Any] = {
        "verdict": "refused" if refused_for else "not calibrated" if uncalibrated else "passed",
        "refused_for": refused_for,
        "problem": "",
        "statement": "",
        "calibrated": not uncalibrated,
        "why_not_calibrated": uncalibrated,
        "n_fake": len(fake),
        "n_train": len(train),
        "n_held_out": len(numbers),
        "train_patients": len(np.unique(patients)),
        "held_out_patients": len(np.unique(guests)),
        "flat": {"fake": int(found.flat.sum()), "held_out": int(ours.flat.sum()) if ours is not None else 0},
        "held_out_duplicates": duplicates,
        "near_copies": {
            "count": n_copies,
            "rate": n_copies / n if n else 0.0,
            "interval": _wilson(n_copies, n),
            "distance": scale.near,
            "ncc": _ncc(scale.near),
            "by_grey_values": int(near.sum()),
            "by_features": int(feature_near.sum()),
            "expected_by_chance": scale.chance(n) if not uncalibrated else None,
            "rule": f"distance below {NEAR:g} of the held-out threshold" if not uncalibrated else f"correlation of {FIXED_NCC:g} or more",
        },
        "count_test": {
            "count": int(suspects.sum()),
            "rate": int(suspects.sum()) / n if n else 0.0,
            "interval": _wilson(int(suspects.sum()), n),
            "expected_share": scale.share,
            "p": count_p,
            "level": ALPHA,
            "rule": "distance and ratio both below the held-out thresholds, more often than held-out images (beta-binomial, a held-out patient counts once)",
        }
        if not uncalibrated
        else None,
        "grey_values": {"compared_at": SIDE, "shift": SHIFT, "distance": distance_part, "ratio": ratio_part, "nearest": _summary(found, seen)},
        "features": feature_part,
        "authenticity": authentic,
        "c_t": statistic,
        "membership": None,
        "power": {
            "planted": len(planted),
            "recognised": detected,
            "against": {f"{share:.1%}": 1 - (1 - share * detected) ** n for share in SHARES},
        },
        "seed": seed,
    }  # fmt: skip
    if refused_for:
        result["problem"] = _problem(result)
    result["statement"] = statement(result)
    result["limits"] = limits(result)
    order = np.lexsort((np.where(seen, found.distance, np.inf), ~copy))[:pairs]
    listed = [
        {
            "fake": int(i),
            "train": int(found.nearest[i]),
            "distance": round(float(found.distance[i]), 5),
            "ncc": round(_ncc(float(found.distance[i])), 5),
            "ratio": round(float(found.ratio[i]), 5),
            "symmetry": int(found.symmetry[i]),
            "near_copy": bool(copy[i]),
        }
        for i in order
        if seen[i]
    ]
    return Audit(result, listed)


@dataclass(frozen=True)
class Scale:
    """What distances mean, as held-out patients show it.

    Args:
        distance: The held-out threshold of d1.
        ratio: That of d1/d2.
        near: A near copy is closer than this.
        share: Share of honest images expected below `distance`.
        weights: The two parameters of the beta distribution of that share: a held-out patient counts as one draw.
        dimension: How fast the share of honest images shrinks with the distance, d^k; None where too few tell.
    """

    distance: float
    ratio: float
    near: float
    share: float
    weights: tuple[float, float]
    dimension: float | None

    @classmethod
    def of(cls, held_out: Neighbours, patients: Array, kept: Array) -> Scale:
        """From held-out images, those in `kept`."""
        use = kept & ~held_out.flat
        distances, ratios, m = np.sort(held_out.distance[use]), np.sort(held_out.ratio[use]), int(use.sum())
        k = max(int(np.ceil(CALIBRATION * m)), 1)
        draws = len(np.unique(patients[use])) / m
        # The tail that tells the dimension: a tenth of the images, and at least ten of them.
        tail = min(max(m // 10, 10), m - 1)
        logs = np.log(distances[tail] / np.maximum(distances[:tail], 1e-9))
        dimension = 1 / float(logs.mean()) if logs.mean() > 0 else None
        return cls(
            float(distances[k - 1]), float(ratios[k - 1]), NEAR * float(distances[k - 1]), k / (m + 1), (k * draws, (m - k + 1) * draws), dimension
        )  # fmt: skip

    @classmethod
    def fixed(cls) -> Scale:
        """Where nothing can be calibrated: one correlation for all data."""
        near = float(np.sqrt(2 * (1 - FIXED_NCC)))
        return cls(near, 1.0, near, 0.0, (0.0, 0.0), None)

    def p_of(self, count: int, n: int) -> float:
        """Probability of so many of n honest images below the threshold, or more.

        The k-th smallest of m held-out distances is exceeded downwards by a Beta(k, m - k + 1) share of images that are as honest as they are,
        so the count is beta-binomial: the threshold's own uncertainty is in it.
        """
        return float(stats.betabinom.sf(count - 1, n, *self.weights)) if count else 1.0

    def chance(self, n: int) -> float | None:
        """Near copies expected among n honest images, by the tail's power law: n * share * NEAR^k; None where the tail is unknown."""
        return None if self.dimension is None else float(n * self.share * NEAR**self.dimension)


class Planted:
    """Near copies of training images made on purpose: shifted by up to 0.7 px, up to 5 % brighter or darker, with noise of 2 %, half of them mirrored.

    They are the set `medgan audit` measures its own power on.
    """

    def __init__(self, train: Images, numbers: Array, rng: np.random.Generator) -> None:
        self.train, self.numbers, self.seeds = train, numbers, rng.integers(2**31, size=len(numbers))

    def __len__(self) -> int:
        return len(self.numbers)

    def images(self, indices: Sequence[int] | slice) -> Array:
        """Copies by number, (N, C, H, W) uint8."""
        wanted = np.arange(len(self))[indices]
        originals = self.train.images(self.numbers[wanted].tolist())
        return np.stack([near_copy(image, np.random.default_rng(self.seeds[i])) for i, image in zip(wanted, originals, strict=True)])


def near_copy(image: Array, rng: np.random.Generator) -> Array:
    """A near copy of an image (C, H, W) uint8."""
    from scipy.ndimage import shift

    moved = shift(image.astype(np.float32), (0, *rng.uniform(-0.7, 0.7, size=2)), order=1, mode="nearest")
    if rng.random() < 0.5:
        moved = moved[:, :, ::-1]
    moved = moved * rng.uniform(0.95, 1.05) + rng.normal(0, 0.02 * 255, size=moved.shape)
    return np.asarray(moved.round().clip(0, 255), np.uint8)


class _Progress:
    """One count of images over the parts of an audit."""

    def __init__(self, step: Step, total: int) -> None:
        self.step, self.total, self.done = step, total, 0

    def part(self, size: int) -> Step:
        before = self.done
        self.done += size
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


def _codes(patients: Sequence[str], count: int) -> Array:
    """Patients as whole numbers; images of no known patient are one each."""
    if len(patients) != count or not all(patients):
        return np.arange(count)
    return np.unique(np.asarray(patients), return_inverse=True)[1]


def _calibration(ours: Neighbours | None, patients: Array) -> tuple[str, Array, int]:
    """Why held-out images cannot calibrate ("" where they can), which of them do, and how many are training images again."""
    if ours is None:
        return "there are no held-out images", np.zeros(0, bool), 0
    again = ~ours.flat & (ours.distance < DUPLICATE)
    kept = ~ours.flat & ~again
    few = len(np.unique(patients[kept]))
    if few < FEWEST_PATIENTS:
        return (
            f"{few} held-out patient{'' if few == 1 else 's'} with usable images, and at least {FEWEST_PATIENTS} are needed",
            kept,
            int(again.sum()),
        )
    if kept.sum() < FEWEST_IMAGES:
        return f"{int(kept.sum())} usable held-out images, and at least {FEWEST_IMAGES} are needed", kept, int(again.sum())
    return "", kept, int(again.sum())


def _part(found: Neighbours, seen: Array, scale: Scale, which: str) -> dict[str, Any] | None:
    """One of the two measures against its held-out threshold; None without calibration."""
    if not scale.share:
        return None
    values, threshold = (found.distance, scale.distance) if which == "distance" else (found.ratio, scale.ratio)
    n, count = int(seen.sum()), int((values[seen] < threshold).sum())
    binomial = float(stats.binomtest(count, n, scale.share, alternative="greater").pvalue) if n else 1.0
    return {
        "threshold": threshold,
        "below": count,
        "rate": count / n if n else 0.0,
        "interval": _wilson(count, n),
        "expected_share": scale.share,
        "p_binomial": binomial,
        "p": scale.p_of(count, n),
    }


def _summary(found: Neighbours, seen: Array) -> dict[str, float] | None:
    """How near the nearest training images are, as correlations."""
    if not seen.any():
        return None
    ncc = 1 - found.distance[seen] ** 2 / 2
    return {"largest_ncc": float(ncc.max()), "p99_ncc": float(np.quantile(ncc, 0.99)), "median_ncc": float(np.median(ncc))}


def _wilson(count: int, n: int) -> list[float]:
    if not n:
        return [0.0, 1.0]
    interval = stats.binomtest(count, n).proportion_ci(0.95, method="wilson")
    return [float(interval.low), float(interval.high)]


def _ncc(distance: float) -> float:
    return 1 - distance**2 / 2


def _problem(result: dict[str, Any]) -> str:
    n, count = result["n_fake"], result["near_copies"]["count"]
    if count:
        return f"{count} of {n} images {'is a near copy of a training slice' if count == 1 else 'are near copies of training slices'}"
    test = result["count_test"]
    return (
        f"{test['count']} of {n} images lie nearer to training slices than held-out patients' images do, "
        f"{n * test['expected_share']:.0f} are expected (p = {test['p']:.1g})"
    )


def statement(result: dict[str, Any]) -> str:
    """The verdict in sentences that claim no more than was measured."""
    n, copies, power = result["n_fake"], result["near_copies"], result["power"]
    if result["problem"]:
        return f"Refused: {result['problem']}. The nearest pairs lie in the local gallery."
    if n == result["flat"]["fake"]:
        return f"All {n} synthetic images are flat: there was nothing to audit."
    against = ", ".join(f"{100 * value:.0f} % against {share}" for share, value in power["against"].items())
    text = f"No near copy was found among {n - result['flat']['fake']} synthetic images at a correlation of {copies['ncc']:.3f} or more with a training image. "
    if not result["calibrated"]:
        text += f"That threshold is fixed and not calibrated: {result['why_not_calibrated']}. "
    recognised = f"{100 * power['recognised']:.0f} % of {power['planted']} planted near copies are recognised at this threshold"
    return (
        text
        + f"{recognised}; so the power to find any, if a share of all images were such copies, is {against}. This does not show that the images are private."
    )


def limits(result: dict[str, Any]) -> list[str]:
    """What the audit could not have seen."""
    said = [
        f"Only these {result['n_fake']} images were looked at. Another image of the same generator may be a copy; with none found, up to "
        f"{100 * result['near_copies']['interval'][1]:.2g} % of its images may be recognisable near copies (95 % Wilson interval).",
        f"Copies that are moved by more than {SHIFT} px at {SIDE} px, turned by other than quarters, scaled or bent are not recognised, nor is a part of an image "
        "(a lesion, an implant, burned-in text) copied into another.",
        "Nothing was tried on the generator itself: whoever has it can search for training images with more effort than looking at its samples.",
    ]
    if result["power"]["recognised"] < 0.8:
        why = "different patients' images are so alike, or noise is so strong, that a near copy hardly stands out in this data"
        if not result["calibrated"]:
            why = (
                "the fixed threshold is strict, so that it refuses no honest generator; held-out patients would set one that fits this data"
            )
        said.append(f"Of the planted near copies only {100 * result['power']['recognised']:.0f} % were recognised: {why}.")
    if not result["calibrated"]:
        said.append(f"Nothing was calibrated, because {result['why_not_calibrated']}: what is normal between patients is unknown here.")
    elif result["held_out_patients"] < 20:
        said.append(
            f"The thresholds rest on {result['held_out_patients']} held-out patients; the count test, in which a patient counts once, has little power with so few."
        )
    if result["held_out_duplicates"]:
        said.append(f"{result['held_out_duplicates']} held-out images are training images too; they were left out of the calibration.")
    if result["flat"]["fake"]:
        said.append(f"{result['flat']['fake']} synthetic images are flat and were not judged.")
    if result["features"]["name"].startswith("thumbnails"):
        said.append(
            "Features are grey thumbnails, not those of a network: a copy that differs in grey values but not in content is not recognised."
        )
    return said
