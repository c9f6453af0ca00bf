"""What a figure is worth: its confidence interval, the real-real floor of an FID, and its value at infinitely many images.

All from feature rows that are there anyway; no image is looked at again. Where the patient of each real image is known, real images are
divided by patient: slices of one patient resemble one another, and as independent images they would promise too much.
Background: docs/explanation/fid.md and docs/decisions/0018-uncertainty.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from medgan.errors import DataError
from medgan.metrics.features import Array, Features
from medgan.metrics.fid import FID
from medgan.metrics.frechet import frechet_distance
from medgan.metrics.means import FEWEST_PATIENTS, interval, units_of
from medgan.metrics.metric import Metric
from medgan.progress import Step, nothing

GROUPS = 12
"""Groups that an interval rests on; 12 divides into 2, 3 and 4 parts for FID-infinity."""
HALVINGS = 4
"""Random halvings of the real images behind a floor."""
PARTS = (1, 2, 3, 4)
"""Into how many parts the sets are cut for FID-infinity."""

Entry = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """The rows of one set that uncertainty is computed from, and whose they are.

    Attributes:
        rows: (M, D) float32, all of the set or evenly chosen ones.
        subjects: The patient of each row as codes (M,), or None where they are unknown or fewer than `FEWEST_PATIENTS`.
        patients: Patients that are known, of these rows; 0 where they are not.
    """

    rows: Array
    subjects: Array | None
    patients: int

    @classmethod
    def of(cls, features: Features) -> Sample:
        """The kept rows of a set, with rows or a sample of them."""
        rows, numbers = features.sample()
        subjects = features.subjects
        known = subjects is not None and len(subjects) == features.count
        codes, patients = units_of(len(rows), np.asarray(subjects)[numbers] if known else None)
        return cls(rows, codes if patients >= FEWEST_PATIENTS else None, patients)

    @property
    def by(self) -> str:
        """What is never divided: `patient` or `image`."""
        return "image" if self.subjects is None else "patient"

    def deal(self, count: int, rng: np.random.Generator) -> list[Array]:
        """Row numbers in groups of about equal size, whole patients each; fewer groups where there are fewer patients."""
        if self.subjects is None:
            return [np.sort(part) for part in np.array_split(rng.permutation(len(self.rows)), count)]
        count = min(count, self.patients)
        sizes = np.bincount(self.subjects)
        group_of, filled = np.zeros(len(sizes), dtype=np.int64), np.zeros(count, dtype=np.int64)
        order = rng.permutation(len(sizes))
        # An empty group first, then the smallest one: none stays empty, and a large patient is balanced by several small ones.
        for patient in order:
            group_of[patient] = filled.argmin()
            filled[group_of[patient]] += sizes[patient]
        return [np.flatnonzero(group_of[self.subjects] == group) for group in range(count)]


class Groups:
    """A set in disjoint groups, any union of which is a set again: from sums of moments where it has more rows than columns."""

    def __init__(self, rows: Array, members: list[Array]) -> None:
        self.rows = rows
        self.members = members

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def _moments(self) -> list[tuple[Array, Array]]:
        parts = (np.asarray(self.rows[index], dtype=np.float64) for index in self.members)
        return [(part.sum(0), part.T @ part) for part in parts]

    def union(self, groups: Sequence[int] | Array) -> Features:
        """The features of some groups together."""
        count = sum(len(self.members[group]) for group in groups)
        if count <= self.rows.shape[1]:
            return Features.of(self.rows[np.concatenate([self.members[group] for group in groups])])
        total = np.add.reduce([self._moments[group][0] for group in groups])
        outer = self._moments[groups[0]][1].copy()
        for group in groups[1:]:
            outer += self._moments[group][1]
        return Features(None, count, total, outer)

    def without(self, group: int) -> Features:
        """All but one group."""
        return self.union([other for other in range(len(self)) if other != group])


def add_uncertainty(
    values: dict[str, Entry],
    metrics: dict[str, Metric],
    *,
    real: Features,
    fake: Features,
    seed: int,
    step: Step = nothing,
) -> list[dict[str, str]]:
    """Write `interval` and, for FIDs, `floor` and `infinity` into the entries of measured metrics.

    Args:
        values: Entry by name; changed.
        metrics: Metric by the same names.
        real: Features of the real images, with rows or a sample.
        fake: Of the synthetic ones, or of another set of patients.
        seed: Of the divisions.
        step: Progress, in computations.

    Returns:
        Warnings, as `code` and `text`.
    """
    # Means over images or pairs bring theirs along.
    metrics = {
        name: metric for name, metric in metrics.items() if metric.needs in ("moments", "features") and "interval" not in values[name]
    }
    reals, fakes = Sample.of(real), Sample.of(fake)
    if min(len(reals.rows), len(fakes.rows)) < 2 * GROUPS:
        for name, metric in metrics.items():
            why = f"fewer than {2 * GROUPS} images of a set"
            values[name] |= {"interval": None, "interval_method": f"none: {why}"}
            if isinstance(metric, FID):
                values[name] |= {"floor": {"value": None, "why": why}, "infinity": {"value": None, "why": why}}
        return []
    rng = np.random.default_rng(seed)
    grouped = Groups(reals.rows, reals.deal(GROUPS, rng)), Groups(fakes.rows, fakes.deal(GROUPS, rng))
    work = sum(_computations(metric, *grouped) for metric in metrics.values())
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        step(done, work)

    step(0, work)
    for name, metric in metrics.items():
        if isinstance(metric, FID):
            fid = _Distances(metric.ddof, real, fake, *grouped, tick)
            error, free = fid.jackknife()
            values[name] |= interval(
                values[name]["value"],
                error,
                free,
                f"jackknife over {len(grouped[0])} groups of {_units(reals)} and {len(grouped[1])} of {_units(fakes, 'synthetic')}",
            )
            # No distance is negative; an unbiased estimate of one, below, may be.
            values[name]["interval"][0] = max(values[name]["interval"][0], 0.0)
            values[name] |= {"floor": floor(metric.ddof, reals, fakes, rng, tick), "infinity": fid.infinity(error, free)}
        else:
            values[name] |= _from_parts(metric, values[name]["value"], (reals, fakes), grouped, tick)
    return _warnings(reals, any(isinstance(metric, FID) for metric in metrics.values()))


@dataclass
class _Distances:
    """Fréchet distances between unions of groups of two sets."""

    ddof: int
    real: Features
    fake: Features
    reals: Groups
    fakes: Groups
    tick: Callable[[], None]

    def between(self, real: Features, fake: Features) -> float:
        """The distance; the set given first keeps its matrix factor, so the one that stays the same goes there."""
        self.tick()
        return frechet_distance(real=real, fake=fake, ddof=self.ddof)

    def jackknife(self) -> tuple[float, int]:
        """Standard error by leaving out one group at a time of either set, and its degrees of freedom (Efron and Tibshirani 1993, ch. 11)."""
        without_fakes = [self.between(self.real, self.fakes.without(group)) for group in range(len(self.fakes))]
        # The distance is symmetric; here the synthetic set stays the same.
        without_reals = [self.between(self.fake, self.reals.without(group)) for group in range(len(self.reals))]
        variance = jackknife_variance(without_fakes) + jackknife_variance(without_reals)
        return math.sqrt(variance), min(len(self.fakes), len(self.reals)) - 1

    def infinity(self, error: float, free: int) -> Entry:
        """The distance at infinitely many images of both kinds, and with the real ones as they are."""
        both = self._line(lambda part, parts: self.reals.union(np.array_split(np.arange(len(self.reals)), parts)[part]))
        fixed = self._line(lambda part, parts: self.real)
        value, slope_error, smallest = both
        return {
            "value": value,
            **interval(value, math.hypot(error, slope_error), free, "as of the value, and the slope's own error"),
            "real_fixed": fixed[0],
            "smallest_part": smallest,
            "method": f"linear in 1/N over 1 to {max(PARTS)} parts of both sets; real_fixed as Chong and Forsyth 2020, all real images",
            "linear": smallest > self.real.dim,
        }

    def _line(self, real_part: Callable[[int, int], Features]) -> tuple[float, float, int]:
        """Value at 1/N = 0, the standard error of what was taken off at N, and the smallest set on the way."""
        at, found, weight, smallest = [], [], [], self.fake.count
        for parts in PARTS:
            for part, groups in enumerate(np.array_split(np.arange(len(self.fakes)), parts)):
                real, fake = real_part(part, parts), self.fakes.union(groups)
                smallest = min(smallest, real.count, fake.count)
                # 1/N of this part against 1/N of the whole: 1 for the whole, so that the slope is the bias of the value itself.
                moving = [(fake.count, self.fake.count)] + ([(real.count, self.real.count)] if real is not self.real else [])
                at.append(sum(1 / part_count for part_count, _ in moving) / sum(1 / whole for _, whole in moving))
                found.append(self.between(real, fake))
                weight.append(1 / math.sqrt(parts))
        (_, value), covariance = np.polyfit(at, found, 1, w=weight, cov=True)
        return float(value), math.sqrt(max(float(covariance[0, 0]), 0.0)), smallest


def jackknife_variance(values: Sequence[float]) -> float:
    """Variance of an estimate from its values without each of g groups: (g - 1)/g · Σ (value - mean)²."""
    g = len(values)
    return (g - 1) / g * float(np.square(np.asarray(values) - np.mean(values)).sum())


def floor(ddof: int, reals: Sample, fakes: Sample, rng: np.random.Generator, tick: Callable[[], None] = lambda: None) -> Entry:
    """What an FID of real images against other real images is: no generator can be expected below it at this N.

    Real images are halved, by patient where patients are known; `synthetic` is the FID of synthetic images against one of the halves at the
    same number N on both sides, so that the two compare.

    Returns:
        `value` and `range` over the halvings, `n` on each side, `by` patient or image, `halvings`, `synthetic`.
    """
    between_reals: list[float] = []
    synthetic: list[float] = []
    n = 0
    for _ in range(HALVINGS):
        halves = reals.deal(2, rng)
        n = min(len(halves[0]), len(halves[1]), len(fakes.rows))
        if n < 2:
            return {"value": None, "why": "a half with fewer than 2 images"}
        first, second = (Features.of(reals.rows[np.sort(rng.choice(half, n, replace=False))]) for half in halves)
        others = Features.of(fakes.rows[np.sort(rng.choice(len(fakes.rows), n, replace=False))])
        for found, other in ((between_reals, second), (synthetic, others)):
            found.append(frechet_distance(real=first, fake=other, ddof=ddof))
            tick()
    return {
        "value": float(np.mean(between_reals)),
        "range": [min(between_reals), max(between_reals)],
        "synthetic": float(np.mean(synthetic)),
        "n": n,
        "by": reals.by,
        "halvings": HALVINGS,
    }


def _from_parts(
    metric: Metric, value: float, samples: tuple[Sample, Sample], groups: tuple[Groups, Groups], tick: Callable[[], None]
) -> Entry:
    """The interval of any other metric, from its values on disjoint parts of both sets."""
    count = min(map(len, groups))
    # Together as many random subsets as the value itself had.
    if dataclasses.is_dataclass(metric) and (subsets := getattr(metric, "subsets", 0)):
        metric = dataclasses.replace(metric, subsets=max(subsets // count, 1))
    found = []
    try:
        for i in range(count):
            parts = [Features.of(group.rows[group.members[i]]) for group in groups]
            found.append(float(metric(real=parts[0], fake=parts[1])["value"]))
            tick()
    except DataError:
        return {"interval": None, "interval_method": f"none: too few images for {count} parts"}
    error = float(np.std(found, ddof=1)) / math.sqrt(count)
    if error == 0:
        return {"interval": None, "interval_method": f"none: {count} parts all gave {found[0]:.4g}"}
    parts_of = f"{_units(samples[0])} and of {_units(samples[1], 'synthetic')}"
    return interval(value, error, count - 1, f"standard error from {count} disjoint parts of {parts_of}")


def _computations(metric: Metric, reals: Groups, fakes: Groups) -> int:
    if not isinstance(metric, FID):
        return min(len(reals), len(fakes))
    return len(reals) + len(fakes) + 2 * sum(PARTS) + 2 * HALVINGS


def _units(sample: Sample, kind: str = "real") -> str:
    return f"{kind} images" if sample.subjects is None else f"{sample.patients} patients{' of the second set' if kind != 'real' else ''}"


def _warnings(reals: Sample, has_floor: bool) -> list[dict[str, str]]:
    if reals.subjects is not None or not has_floor:
        return []
    known = f"only {reals.patients} patients are known" if reals.patients else "the set does not say whose they are"
    text = (
        f"Real images were divided at random, not by patient: {known}. Where several are of one patient, the real-real floor is too low and intervals "
        "are too narrow."
    )
    return [{"code": "W_NO_PATIENTS", "text": text}]
