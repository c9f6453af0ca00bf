"""Copy a part of the developers' reference numbers into tests/reference/golden, so that a user's machine proves the networks too.

    python tests/reference/make_golden.py SHARED/golden

Whole files where they are small; of the augmentation the grey cases. Numbers only: outputs of the official code, none of its text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

WHOLE = ("ops", "schedule", "metrics", "g16_skipD_origG", "g16_resnetG_origD_clamp", "train_trace_b09")
GREY = ("c1/", "tape/c1_32x32/", "const/")


def main() -> None:
    source, target = Path(sys.argv[1]), Path(__file__).parent / "golden"
    target.mkdir(exist_ok=True)
    for name in (*WHOLE, "augment"):
        manifest = json.loads((source / f"{name}.json").read_text())
        arrays = np.load(source / f"{name}.npz")
        chosen = [key for key in arrays.files if name in WHOLE or key.startswith(GREY)]
        manifest["arrays"] = {key: manifest["arrays"][key] for key in chosen}
        manifest.pop("sha256", None)
        (target / f"{name}.json").write_text(json.dumps(manifest, separators=(",", ":")) + "\n")
        np.savez_compressed(target / f"{name}.npz", **{key: arrays[key] for key in chosen})


if __name__ == "__main__":
    main()
