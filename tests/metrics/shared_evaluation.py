"""Measure two small sets on as many ranks as this was started on: `python -m tests.metrics.shared_evaluation FILE` (test_launch.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from medgan.metrics import METRICS, features
from medgan.metrics.evaluate import Evaluator
from medgan.metrics.features import Collector
from medgan.progress import nothing
from medgan.ranks import Ranks, joined
from tests.metrics.phantoms import ImageSet, gaussian, waves
from tests.metrics.test_path_length import walk


def main(out: Path) -> None:
    with joined() as ranks:
        real, fake = ImageSet(waves(7)), waves(11, first=20)
        values = {}
        for metrics, name in (
            # In one pass every metric there is, as far as eleven images have a right to its name; then some from their caches.
            (tuple(name for name in METRICS.names() if not METRICS.get(name).n_fake), ""),
            (("ms_ssim", "cosine_pixels"), " of images alone"),
            (("fid",), " from a cache"),
        ):
            # Three images at a time: the last turn leaves one rank without work.
            evaluator = Evaluator(metrics, cache=out.with_suffix(".cache"), batch=3, ranks=ranks)
            evaluator.reference(real)
            result = evaluator.evaluate(sample=lambda start, count: fake[start : start + count], walk=walk, n_fake=len(fake))
            if ranks.speaks:
                values |= {key + name: entry["value"] for key, entry in result["metrics"].items()}
            else:
                assert result == {}
        evaluator = Evaluator(("precision_pixels", "density_pixels", "ms_ssim"), batch=4, ranks=ranks)
        evaluator.reference(ImageSet(waves(30)), subjects=[f"p{i // 3}" for i in range(30)])
        result = evaluator.evaluate(ImageSet(waves(29, first=40)), uncertainty=nothing)
        values |= {f"interval of {key}": entry["interval"] for key, entry in result.get("metrics", {}).items() if entry["interval"]}
        values |= sampled(ranks)
        if ranks.speaks:
            out.write_text(json.dumps(values))


def sampled(ranks: Ranks) -> dict[str, list[list[float]]]:
    """Every third of 40 rows that the ranks counted in by turns of seven, and their mean."""
    features.MOST_ROWS = 14
    rows = torch.from_numpy(gaussian(40, 3, 1))
    collector, mine = Collector(3, keep=False, every=3), []
    for start in range(7 * ranks.rank, 40, 7 * ranks.count):
        numbers = range(start, min(start + 7, 40))
        collector.add(rows[numbers.start : numbers.stop], numbers)
        mine += numbers
    found = collector.finish(ranks, mine)
    return {"sampled rows": found.sample()[0].tolist(), "mean": found.mean.tolist()} if ranks.speaks else {}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
