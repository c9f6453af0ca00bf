"""The images of a reader study: real ones of held-out patients, synthetic ones, and no near-copies among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medgan.errors import DataError, InputError

if TYPE_CHECKING:
    from medgan.data.dataset import Dataset
    from medgan.progress import Step

MOST_NORMAL = 500
"""Held-out images that show how near an image comes to the training set by chance."""


@dataclass(frozen=True)
class Sets:
    """Sets of images of one size.

    Attributes:
        real: Of patients that were not trained on.
        train: That were trained on.
        fakes: Name -> synthetic ones.
        notes: What could not be checked.
    """

    real: Dataset
    train: Dataset
    fakes: dict[str, Dataset]
    notes: list[str] = field(default_factory=list)


def open_sets(real: Path, train: Path | None, fakes: Mapping[str, Path]) -> Sets:
    """Open all sets, and prove that they fit together.

    Args:
        real: The dataset that was trained on, with its held-out patients beside it; or, with `train` or that beside it, a set of other patients.
        train: The dataset that was trained on, where it is not `real`.
        fakes: Name -> zip or folder.

    Raises:
        InputError: A set does not exist.
        DataError: There are no held-out images, patients are in both sets, or sets differ in size or colours.
    """
    from medgan.data.dataset import open_dataset

    for flag, path in (("--real", real), ("--train", train), *((f"--fake {name}", path) for name, path in fakes.items())):
        if path is not None and not path.exists():
            raise InputError(f"{flag} names nothing that exists", fix="check the path")
    if train is None:
        real, train = _sides(real)
    sets = Sets(
        open_dataset(real, any_size=True), open_dataset(train, any_size=True), {n: open_dataset(p, any_size=True) for n, p in fakes.items()}
    )
    _check_kinds({"real": sets.real, "training": sets.train, **sets.fakes})
    ours, theirs = sets.real.subjects(), sets.train.subjects()
    if ours is None or theirs is None:
        sets.notes.append("The patients of the real or of the training images are not known: that none is in both could not be checked.")
    elif both := set(ours) & set(theirs):
        raise DataError(
            f"{len(both)} patients of the real images were trained on: a network may know them",
            fix="give the .held-out.zip of the same medgan prepare",
        )
    return sets


def _sides(real: Path) -> tuple[Path, Path]:
    """The held-out and the training images of a dataset, of which either was given."""
    from medgan.data.dataset import HELD_OUT, held_out_of

    if real.name.endswith(HELD_OUT):
        train = real.with_name(real.name.removesuffix(HELD_OUT) + ".zip")
        if not train.is_file():
            raise InputError("the dataset that was trained on does not lie beside --real", fix="--train DATA.zip")
        return real, train
    held_out = held_out_of(real)
    if held_out is None:
        raise DataError(
            "there are no held-out images beside --real, and readers must not be shown images that were trained on",
            fix="medgan prepare --held-out 0.1, or --real with images of other patients and --train DATA",
        )
    return held_out, real


def _check_kinds(sets: Mapping[str, Dataset]) -> None:
    kinds = {name: (one.width, one.resolution, one.channels) for name, one in sets.items()}
    if len(set(kinds.values())) > 1:
        told = ", ".join(
            f"{name} {width} x {height} {'grey' if channels == 1 else 'colour'}" for name, (width, height, channels) in kinds.items()
        )
        raise DataError(f"the sets differ: {told}", fix="prepare and generate all with the same size and channels")


@dataclass(frozen=True)
class Chosen:
    """Images that a study shows.

    Attributes:
        real: Their numbers, in the order of the draw.
        fakes: The same of each model.
        left_out: Set -> reason -> how many candidates were passed over.
        rule: What a near-copy is.
    """

    real: list[int]
    fakes: dict[str, list[int]]
    left_out: dict[str, dict[str, int]]
    rule: str


def choose(sets: Sets, real: int, fakes: Mapping[str, int], rng: np.random.Generator, step: Step) -> Chosen:
    """Draw images, and pass over those that would tell readers something else than what they show.

    A synthetic image that is nearly a training image would be called real with good reason. It is one where it lies nearer to the training set than honest
    images do, by the rule of the privacy gate for near-copies by grey values. Real images are passed over that are training images again, or nearly
    another chosen one of the same patient (correlation of 0.995): neighbouring slices tell that both are real. So are images without content.

    Args:
        sets: Where from.
        real: How many real images are needed.
        fakes: How many of each model.
        rng: Draws the order.
        step: Told of progress, in images.

    Raises:
        DataError: Too few are left.
    """
    from medgan.metrics.copies import Closest
    from medgan.metrics.gate import DUPLICATE, FEWEST_PATIENTS, FIXED_DISTANCE, Normal, Scale, again, usable
    from medgan.metrics.memorisation import codes
    from medgan.readers.design import spread

    for name, have, want in [("held-out real", len(sets.real), real), *((name, len(one), fakes[name]) for name, one in sets.fakes.items())]:
        if have < want:
            raise DataError(
                f"the design needs {want} {name} images, and there are {have}", fix="a larger set, or a smaller design (--design FILE)"
            )
    trained, _ = codes(sets.train.subjects() or (), len(sets.train))
    people, known = codes(sets.real.subjects() or (), len(sets.real))
    closest = Closest(sets.train, trained, step=step)
    order = np.array(spread([str(one) for one in people.tolist()], rng))
    left_out: dict[str, Counter[str]] = {name: Counter() for name in ("real", *sets.fakes)}

    some = order[: max(MOST_NORMAL, real)]
    guests = closest(sets.real, some)
    normal = Normal(guests, guests, np.unique(people[some], return_inverse=True)[1], usable(guests, people[some]))
    calibrated = known and normal.count >= FEWEST_PATIENTS
    near = Scale.of(guests, normal, sum(fakes.values()), floor=DUPLICATE).near if calibrated else FIXED_DISTANCE
    rule = f"grey values correlate with a training image by {1 - near**2 / 2:.4f} or more" + (
        f" ({normal.count} held-out patients show what is normal)" if calibrated else " (fixed: too few held-out patients to calibrate)"
    )

    def real_fault(numbers: np.ndarray) -> list[str]:
        found = closest(sets.real, numbers)
        return _words(found.flat, "without content", again(found), "a training image again")

    def fake_fault(name: str) -> Callable[[np.ndarray], list[str]]:
        def faults(numbers: np.ndarray) -> list[str]:
            found = closest(sets.fakes[name], numbers)
            return _words(found.flat, "without content", found.distance < near, "nearly a training image")

        return faults

    alike = _Alike(sets.real, people if known else np.zeros(len(sets.real), np.int64), FIXED_DISTANCE)
    chosen = _taken(order, real, real_fault, alike, left_out["real"], "held-out real")
    made = {}
    for name, one in sets.fakes.items():
        made[name] = _taken(rng.permutation(len(one)), fakes[name], fake_fault(name), _Same(one), left_out[name], name)
    return Chosen(chosen, made, {name: dict(counts) for name, counts in left_out.items() if counts}, rule)


def _words(first: np.ndarray, reason: str, second: np.ndarray, other: str) -> list[str]:
    """A reason for each image, empty for none."""
    return [reason if a else other if b else "" for a, b in zip(first, second, strict=True)]


def _taken(
    order: np.ndarray,
    want: int,
    faults: Callable[[np.ndarray], list[str]],
    repeated: Callable[[int], str],
    left_out: Counter[str],
    name: str,
) -> list[int]:
    """The first images of an order that have no fault and repeat none taken before."""
    taken: list[int] = []
    for start in range(0, len(order), max(want, 1)):
        block = order[start : start + want]
        for number, fault in zip(block.tolist(), faults(block), strict=True):
            reason = fault or (repeated(number) if len(taken) < want else "")
            if len(taken) == want:
                return taken
            if reason:
                left_out[reason] += 1
            else:
                taken.append(number)
    if len(taken) < want:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise DataError(
            f"the design needs {want} {name} images, and {len(taken)} are left of {len(order)} ({why})",
            fix="a larger set, or a smaller design",
        )
    return taken


class _Alike:
    """Tells an image that is nearly one before it, of the same patient."""

    def __init__(self, images: Any, people: np.ndarray, near: float) -> None:
        self.images, self.people, self.near = images, people, near
        self.seen: dict[int, list[Any]] = {}

    def __call__(self, number: int) -> str:
        import torch

        from medgan.metrics.copies import SIDE, correlation, grey, smoothed

        image = smoothed(grey(self.images.images([number]), SIDE))
        others = self.seen.setdefault(int(self.people[number]), [])
        if others and correlation(image.expand(len(others), -1, -1), torch.cat(others)).max() > 1 - self.near**2 / 2:
            return "nearly another of the same patient"
        others.append(image)
        return ""


class _Same:
    """Tells an image whose pixels were there before."""

    def __init__(self, images: Any) -> None:
        self.images = images
        self.seen: set[bytes] = set()

    def __call__(self, number: int) -> str:
        pixels = self.images.images([number]).tobytes()
        if pixels in self.seen:
            return "the same as another"
        self.seen.add(pixels)
        return ""
