"""The beginning of a training that starts from other networks: where they came from, and whether they help."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medgan import runs
from medgan.errors import WeightsError
from medgan.training import state as states
from medgan.training.config import TrainConfig


def source(out: Path) -> dict[str, Any]:
    """Where the first weights of a run came from, for its bundles: `source` with kind, sha256 and licence; nothing for a run from scratch."""
    path = out / runs.PRETRAINED
    return {"source": json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}


def compare_with_random(
    G_ema: nn.Module,
    config: TrainConfig,
    out: Path,
    *,
    size: int,
    channels: int,
    c_dim: int,
    on_snapshot: Callable[[nn.Module], Mapping[str, Any] | None],
) -> dict[str, str]:
    """Measure the generator before the first step, and random weights of the same configuration and seed.

    Both are measured alike, on as many images as any snapshot: the transferred generator's line is the curve's first point at kimg 0,
    and the random weights' figures stand in the same line under `random_weights`.

    Returns:
        What a progress line shows.

    Raises:
        WeightsError: The first metric is no better than that of random weights.
    """
    measured = on_snapshot(G_ema)
    device = next(G_ema.parameters()).device
    torch.manual_seed(config.seed)
    random, _ = states.networks(config, size=size, channels=channels, c_dim=c_dim)
    other = on_snapshot(random.eval().requires_grad_(False).to(device))
    # Other ranks than the first only help to measure.
    if not measured or not other:
        return {"transfer": "not-measured"}
    values = {name: entry["value"] for name, entry in other["metrics"].items() if "value" in entry}
    runs.append_json(out / runs.EVALUATIONS, {"kimg": 0.0, **measured, "random_weights": values})
    name, entry = next(iter(measured["metrics"].items()))
    sign = -1 if entry.get("higher_is_better") else 1
    if not sign * entry["value"] < sign * values[name]:
        raise WeightsError(
            f"at kimg 0 the networks of --pretrained have {name} {entry['value']:.4g}, random weights {values[name]:.4g}: they are no start",
            fix="no --pretrained, another one, or --no-check-transfer",
        )
    return {name: f"{entry['value']:.4g}@0", f"{name}_random": f"{values[name]:.4g}"}
