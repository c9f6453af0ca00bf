"""Does the privacy gate refuse what it should, and only that? False alarms, power and time.

    python benchmarks/bench_metrics_audit.py [--repeats 5] [--held-out 0]
    python benchmarks/bench_metrics_audit.py --repeats 20 --images pneumoniamnist.npz --patients 500
    python benchmarks/bench_metrics_audit.py --speed --size 256 --patients 1000

Each repeat takes training, held-out and synthetic patients anew: made up, or real images of an .npz (`--images`), of which other ones stand for an honest
generator's. Prints a JSON line for each kind of set, the share of audits that refused it: honest images, smooth honest images (made up only), and sets of
which 1, 2 and 5 % are near copies; one with what the audits said of themselves; and one with the speed of the search. `--speed` instead times one audit of 1000 images and
says where the time goes. --tiny is for tests.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rows import row, show

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from medgan.metrics.memorisation import Audit, audit
from medgan.metrics.planted import near_copy
from tests.metrics.patients import patients
from tests.metrics.phantoms import ImageSet

SHARES = (0.01, 0.02, 0.05)


@dataclass(frozen=True)
class Sets:
    """Images (N, 1, H, W) and whose they are, and sets of synthetic ones by name."""

    train: np.ndarray
    train_keys: list[str]
    held_out: np.ndarray
    held_keys: list[str]
    fakes: dict[str, np.ndarray]

    def look(self, name: str) -> Audit:
        """The audit of one synthetic set."""
        return audit(
            train=ImageSet(self.train),
            fake=ImageSet(self.fakes[name]),
            held_out=ImageSet(self.held_out),
            train_patients=self.train_keys,
            held_out_patients=self.held_keys,
        )


def made_up(repeat: int, asked: argparse.Namespace) -> Sets:
    """Three slices of each patient; one of each synthetic one."""
    first, n, size = 1_000_000 * (repeat + 1), asked.patients, asked.size
    (train, train_keys), (held_out, held_keys) = patients(first, n, 3, size), patients(first + 100_000, max(asked.held_out, 1), 3, size)
    honest, smooth = (patients(first + 200_000 + i, 3 * n, 1, size, noise=noise)[0] for i, noise in ((0, 4.0), (100_000, 0.0)))
    few = slice(None) if asked.held_out else slice(0)
    return Sets(train, train_keys, held_out[few], held_keys[few], {"honest": honest, "smooth": smooth})


def real(repeat: int, asked: argparse.Namespace) -> Sets:
    """Images of a file, each a patient; images that it holds twice are taken once, as one of a pair in either set is a true copy."""
    with np.load(asked.images) as stored:
        name = next(name for name in ("train_images", "images") if name in stored)
        images = np.unique(stored[name], axis=0)[:, None]
    n, m = asked.patients, asked.held_out
    if len(images) < 2 * n + m:
        raise SystemExit(f"--patients {n} and --held-out {m} need {2 * n + m} images, there are {len(images)}")
    order = np.random.default_rng([repeat, 1]).permutation(len(images))
    train, held_out, honest = (images[part] for part in np.split(order[: 2 * n + m], [n, n + m]))
    return Sets(train, [f"t{i}" for i in range(n)], held_out, [f"h{i}" for i in range(m)], {"honest": honest})


def with_copies(sets: Sets, share: float, rng: np.random.Generator) -> np.ndarray:
    """The honest set with so many near copies among it."""
    copied = sets.fakes["honest"].copy()
    count = max(round(share * len(copied)), 1)
    copied[:count] = [near_copy(sets.train[i], rng) for i in rng.permutation(len(sets.train))[:count]]
    return copied


def how_often(asked: argparse.Namespace) -> None:
    """Shares of refused sets."""
    refused: dict[str, int] = {}
    found: list[dict[str, Any]] = []
    seconds, looked_at = 0.0, 0
    for repeat in range(asked.repeats):
        sets, rng = (real if asked.images else made_up)(repeat, asked), np.random.default_rng(repeat)
        sets.fakes.update({f"{share:.0%} copies": with_copies(sets, share, rng) for share in SHARES})
        for name, fake in sets.fakes.items():
            started = time.perf_counter()
            audited = sets.look(name)
            seconds += time.perf_counter() - started
            looked_at += len(fake) + len(sets.held_out) + audited.result["power"]["planted"]
            refused[name] = refused.get(name, 0) + audited.refused
            found += [audited.result] if name == "honest" else []
    shape = sets.train.shape
    about = f"{asked.repeats} audits of {found[0]['n_fake']} images of {shape[2]} px against {shape[0]}, {len(set(sets.held_keys))} held-out patients"
    for name, count in refused.items():
        show(row(f"privacy gate, {about}: refused of {name}", count / asked.repeats, "share"))
    nearest = [result["grey_values"]["nearest"] for result in found]
    said = {
        "calibrated_on": sorted({f"{result['calibration_patients']}, {result['calibrated_on'] or 'nobody'}" for result in found}),
        "near_copy_from_ncc": round(float(np.median([result["near_copies"]["ncc"] for result in found])), 4),
        "planted_recognised": round(float(np.mean([result["power"]["recognised"] for result in found])), 3),
        "planted_median_ncc": round(float(np.median([result["power"]["median_ncc"] for result in found])), 4),
        "honest_p99_ncc": round(float(np.median([near["p99_ncc"] for near in nearest])), 4),
        "honest_largest_ncc": round(float(max(near["largest_ncc"] for near in nearest)), 4),
    }
    bound = max(1.0 if result["false_alarm"]["at_most"] is None else result["false_alarm"]["at_most"] for result in found)
    show(row(f"privacy gate, {about}: largest stated bound on refused honest sets", bound, "share", **said))
    show(row(f"privacy gate, {about}: speed of the search", looked_at / seconds, "images/s"))


def how_fast(asked: argparse.Namespace) -> None:
    """Seconds of one audit of 1000 images, and the functions that take most of them. A few patients, moved about, stand for many: that changes no time."""

    def many(first: int, count: int) -> np.ndarray:
        pool = patients(first, 20, 3, asked.size)[0]
        moved = [np.roll(pool, (17 * i % asked.size, 29 * i % asked.size), (2, 3)) for i in range(-(-count // len(pool)))]
        return np.concatenate(moved)[:count]

    train, held_out, honest = many(0, 3 * asked.patients), many(10_000, 3 * asked.held_out), many(20_000, 1000)
    keys = [[f"{kind}{i // 3}" for i in range(len(images))] for kind, images in (("t", train), ("h", held_out))]
    sets = Sets(train, keys[0], held_out, keys[1], {"honest": honest})
    profile = cProfile.Profile()
    started = time.perf_counter()
    profile.runcall(sets.look, "honest")
    seconds = time.perf_counter() - started
    entries = pstats.Stats(profile).get_stats_profile().func_profiles.items()
    hot = sorted(entries, key=lambda entry: -entry[1].tottime)[:8]
    about = f"{len(honest)} images of {asked.size} px against {len(sets.train)}, {len(sets.held_out)} held-out images"
    show(row(f"privacy gate, {about}: one audit", seconds, "s", hot={name: round(entry.tottime, 1) for name, entry in hot}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--patients", type=int, default=50, help="training patients; made-up ones have three slices each")
    parser.add_argument("--held-out", type=int, default=-1, help="held-out patients; as many as training patients unless given")
    parser.add_argument("--size", type=int, default=64, help="side of made-up images in pixels")
    parser.add_argument("--images", type=Path, help="an .npz with train_images or images (N, H, W), instead of made-up patients")
    parser.add_argument("--speed", action="store_true", help="time one audit instead")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    asked = parser.parse_args()
    if asked.tiny:
        asked.repeats, asked.patients, asked.size = 1, 12, 32
    asked.held_out = asked.patients if asked.held_out < 0 else asked.held_out
    (how_fast if asked.speed else how_often)(asked)


if __name__ == "__main__":
    main()
