"""Does the privacy gate refuse what it should, and only that? False alarms and power on made-up patients, and images per second.

    python benchmarks/bench_metrics_audit.py [--repeats 5]

Each repeat makes training, held-out and synthetic patients anew. Prints a JSON line for each kind of set, the share of audits that refused it: honest images, smooth honest
images, and sets of which 1, 2 and 5 % are near copies; and one with the speed of the search. --tiny is for tests.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from rows import row, show

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from medgan.metrics.memorisation import audit, near_copy
from tests.metrics.patients import patients
from tests.metrics.phantoms import ImageSet

SHARES = (0.01, 0.02, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--patients", type=int, default=50, help="patients on each side, three slices each")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    asked = parser.parse_args()
    if asked.tiny:
        asked.repeats, asked.patients, asked.size = 1, 12, 32
    n = asked.patients
    refused = {"honest": 0, "smooth": 0, **{f"{share:.0%} copies": 0 for share in SHARES}}
    seconds, looked_at = 0.0, 0
    for repeat in range(asked.repeats):
        first, rng = 100_000 * (repeat + 1), np.random.default_rng(repeat)
        (train, train_keys), (held_out, held_keys) = patients(first, n, 3, asked.size), patients(first + 10_000, n, 3, asked.size)
        honest = patients(first + 20_000, 3 * n, 1, asked.size)[0]
        sets = {"honest": honest, "smooth": patients(first + 30_000, 3 * n, 1, asked.size, noise=0.0)[0]}
        for share in SHARES:
            copied = honest.copy()
            count = max(round(share * len(honest)), 1)
            copied[:count] = [near_copy(train[i], rng) for i in rng.permutation(len(train))[:count]]
            sets[f"{share:.0%} copies"] = copied
        for name, fake in sets.items():
            started = time.perf_counter()
            found = audit(
                train=ImageSet(train),
                fake=ImageSet(fake),
                held_out=ImageSet(held_out),
                train_patients=train_keys,
                held_out_patients=held_keys,
            )
            seconds += time.perf_counter() - started
            looked_at += len(fake) + len(held_out) + found.result["power"]["planted"]
            refused[name] += found.refused
    about = f"{asked.repeats} audits of {3 * n} images of {asked.size} px"
    for name, count in refused.items():
        show(row(f"privacy gate, {about}: refused of {name}", count / asked.repeats, "share"))
    show(row(f"privacy gate, {about}: speed of the search", looked_at / seconds, "images/s"))


if __name__ == "__main__":
    main()
