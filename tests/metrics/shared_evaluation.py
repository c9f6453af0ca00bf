"""Measure two small sets on as many ranks as this was started on: `python -m tests.metrics.shared_evaluation FILE` (test_launch.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from medgan.metrics.evaluate import Evaluator
from medgan.ranks import joined
from tests.metrics.phantoms import ImageSet, waves
from tests.metrics.test_path_length import walk


def main(out: Path) -> None:
    with joined() as ranks:
        real, fake = ImageSet(waves(7)), waves(11, first=20)
        values = {}
        for metrics, name in (
            (("fid", "kid", "recall_inception", "ms_ssim"), ""),
            (("cosine_pixels", "ppl2_wend"), ""),
            (("fid",), "fid from a cache"),
        ):
            # Three images at a time: the last turn leaves one rank without work.
            evaluator = Evaluator(metrics, cache=out.with_suffix(".cache"), batch=3, ranks=ranks)
            evaluator.reference(real)
            result = evaluator.evaluate(sample=lambda start, count: fake[start : start + count], walk=walk, n_fake=len(fake))
            if ranks.speaks:
                values |= {name or key: entry["value"] for key, entry in result["metrics"].items()}
            else:
                assert result == {}
        if ranks.speaks:
            out.write_text(json.dumps(values))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
