"""Reading the reference numbers: arrays with their manifest, and networks built as the manifest says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medgan.networks.stylegan2 import Discriminator, Generator

FORWARD, GRADIENT = 1e-4, 1e-3
"""Limits of STYLEGAN2-ADA.md appendix B, relative to the largest entry of the reference."""


class Golden:
    """One reference file: `g["name"]` is a tensor, `g.manifest` its description."""

    def __init__(self, folder: Path, name: str) -> None:
        if not (folder / f"{name}.json").exists():
            pytest.skip(f"reference numbers {name} are only in the developers' shared folder")
        self.manifest: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
        self.arrays = np.load(folder / f"{name}.npz")
        self.is_part = "reference" in folder.parts

    def __getitem__(self, name: str) -> Tensor:
        if self.is_part and name not in self.arrays.files:
            pytest.skip(f"the reference number {name} is only in the developers' shared folder")
        return torch.from_numpy(np.asarray(self.arrays[name]).copy())

    def names(self, prefix: str) -> list[str]:
        return [name for name in self.arrays.files if name.startswith(prefix)]

    def state(self, prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: self[name] for name in self.names(prefix)}

    def networks(self, G_prefix: str = "G/", D_prefix: str = "D/") -> tuple[Generator, Discriminator]:
        """The networks of the manifest with the file's weights, in eval mode; unknown or missing names are errors."""
        g = dict(self.manifest["G_kwargs"])
        mapping = g.pop("mapping_kwargs")
        d = dict(self.manifest["D_kwargs"])
        epilogue = d.pop("epilogue_kwargs")
        for ignored in ("num_fp16_res", "fused_modconv_default"):
            g.pop(ignored, None)
            d.pop(ignored, None)
        G = Generator(**g, mapping_layers=mapping["num_layers"])
        D = Discriminator(**d, **epilogue)
        G.load_state_dict(self.state(G_prefix))
        D.load_state_dict(self.state(D_prefix))
        return G.eval(), D.eval()


def assert_close(actual: Tensor, expected: Tensor, limit: float) -> None:
    """Largest difference at most `limit` times the largest reference entry (or `limit` itself for tiny references)."""
    assert actual.shape == expected.shape
    scale = max(float(expected.abs().max()), 1e-6) if expected.numel() else 1.0
    worst = float((actual.detach().double() - expected.double()).abs().max()) if expected.numel() else 0.0
    assert worst <= limit * scale, f"differs by {worst:.3g}, reference up to {scale:.3g}"
