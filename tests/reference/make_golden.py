"""Copy a part of the developers' reference numbers into tests/reference/golden, so that a user's machine proves the networks too.

    python tests/reference/make_golden.py SHARED/golden

Whole files where they are small; of the augmentation the grey cases; of the TensorFlow network one variable of each kind. Numbers only: outputs of the official code, none of its text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

WHOLE = ("ops", "schedule", "metrics", "g16_skipD_origG", "g16_resnetG_origD_clamp", "train_trace_b09")
GREY = ("c1/", "tape/c1_32x32/", "const/")
# One TensorFlow variable of each kind and layout, under its own name and under that of its converted tensor.
LEGACY = (
    "G/", "G.mapping/Label", "G.mapping/Dense1/", "G.synthesis/4x4/Const/", "G.synthesis/noise0", "G.synthesis/noise3", "G.synthesis/32x32/Conv0_up/",
    "G.synthesis/32x32/ToRGB/", "G.synthesis/32x32/Conv1/mod", "D/32x32/FromRGB/", "D/32x32/Conv0/", "D/32x32/Skip/", "D/Label", "D/Output/",
    "torch/G/mapping.w_avg/", "torch/G/mapping.embed.", "torch/G/mapping.fc1.", "torch/G/synthesis.b4.const/", "torch/G/synthesis.b4.conv1.noise_const/",
    "torch/G/synthesis.b16.conv0.noise_const/", "torch/G/synthesis.b32.conv0.", "torch/G/synthesis.b32.torgb.", "torch/G/synthesis.b32.conv1.affine.",
    "torch/D/b32.fromrgb.", "torch/D/b32.conv0.", "torch/D/b32.skip.", "torch/D/mapping.embed.", "torch/D/b4.out.",
)  # fmt: skip
PARTS = {"augment": GREY, "legacy_tf": LEGACY}


def main() -> None:
    source, target = Path(sys.argv[1]), Path(__file__).parent / "golden"
    target.mkdir(exist_ok=True)
    for name in (*WHOLE, *PARTS):
        manifest = json.loads((source / f"{name}.json").read_text())
        arrays = np.load(source / f"{name}.npz")
        chosen = [key for key in arrays.files if name in WHOLE or key.startswith(PARTS[name])]
        manifest["arrays"] = {key: manifest["arrays"][key] for key in chosen}
        manifest.pop("sha256", None)
        (target / f"{name}.json").write_text(json.dumps(manifest, separators=(",", ":")) + "\n")
        np.savez_compressed(target / f"{name}.npz", **{key: arrays[key] for key in chosen})


if __name__ == "__main__":
    main()
