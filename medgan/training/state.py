"""Everything a run needs to go on exactly: networks, optimizers, averages, counters; saved as one file."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medgan.config import to_json
from medgan.errors import ConfigError, DataError, ResumeError
from medgan.networks import NETWORKS, transfer
from medgan.networks.family import compute_in
from medgan.networks.transfer import Pretrained
from medgan.runs import save_tensors
from medgan.training.config import TrainConfig

# What may differ between a run and its continuation: length, stops, what is looked at on the way, and how the machine shares a batch.
FREE = (
    "kimg",
    "epochs",
    "time_budget",
    "metrics",
    "metric_images",
    "kid_every",
    "kid_images",
    "tick_kimg",
    "snapshot_ticks",
    "keep_snapshots",
    "keep_most",
    "max_nonfinite",
    "check_transfer",
    "gpus",
    "batch_gpu",
    "compile",
    "recompute",
)
FORMAT = 1


@dataclass
class State:
    """Networks, optimizers and counters of a run.

    Attributes:
        G: Generator in training.
        D: Discriminator.
        G_ema: Its running average, which makes the images.
        G_opt: Adam of G, shared by its main and regularisation phases.
        D_opt: Adam of D.
        pl_mean: Running mean of path lengths, shape ().
        p: Augmentation probability.
        nimg: Real images shown so far.
        step: Optimisation steps so far.
        tick: Ticks so far.
        tick_start: nimg at the start of the running tick.
        signs: Sum and count of the signs of real logits since the last adjustment of p, shape (2,).
        best: Best snapshot so far: its kimg, the metric's name and value.
        pending: The snapshot at nimg is not measured yet.
        seconds: Training time so far, over all runs.
        nonfinite: Entries of gradients, and losses, so far that were not finite, shape ().
        watch: What the watch remembers between ticks.
        averaged: Whether G_ema is an average; else, with batch normalisation, a copy of G.
    """

    G: nn.Module
    D: nn.Module
    G_ema: nn.Module
    G_opt: torch.optim.Optimizer
    D_opt: torch.optim.Optimizer
    pl_mean: Tensor
    signs: Tensor
    p: float = 0.0
    nimg: int = 0
    step: int = 0
    tick: int = 0
    tick_start: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    pending: bool = False
    seconds: float = 0.0
    nonfinite: Tensor = field(default_factory=lambda: torch.zeros([], dtype=torch.int64))
    watch: dict[str, Any] = field(default_factory=dict)
    averaged: bool = True


COUNTERS = ("p", "nimg", "step", "tick", "tick_start", "best", "pending", "seconds", "watch")


def lazy_adam(parameters: Iterable[nn.Parameter], *, lr: float, beta1: float, beta2: float, interval: int) -> torch.optim.Adam:
    """Adam for a network whose regulariser runs every `interval` steps (arXiv 1912.04958, appendix B, lazy regularisation).

    Learning rate and betas are corrected by c = interval / (interval + 1): lr c, beta^c; interval 0 corrects nothing.
    """
    c = interval / (interval + 1) if interval else 1.0
    trained = [p for p in parameters if p.requires_grad]
    return torch.optim.Adam(trained, lr=lr * c, betas=(float(beta1**c), float(beta2**c)), eps=1e-8, fused=True)


def network_arguments(config: TrainConfig, *, size: int, channels: int, c_dim: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Constructor arguments of generator and discriminator for a run: those of the settings that the family's constructors name.

    Raises:
        ConfigError: There are classes, and the family knows none.
    """
    family = NETWORKS.get(config.family)
    shared = {
        "c_dim": c_dim,
        "img_resolution": size,
        "img_channels": channels,
        "channel_base": config.channel_base,
        "channel_max": config.channel_max,
    }
    generator = {
        **shared,
        "z_dim": config.latent,
        "w_dim": config.latent,
        "mapping_layers": config.map_layers,
        "w_avg_beta": config.w_avg_beta,
    }
    discriminator = {
        **shared,
        "mbstd_group_size": config.mbstd_group,
        "architecture": config.d_architecture,
        "freeze_layers": config.freeze_d,
    }
    if c_dim and "c_dim" not in _named(family.generator):
        raise ConfigError(
            f"the set has {c_dim} classes, and the family {config.family} knows none", fix="--no-labels, or a set of one class"
        )
    return _of(family.generator, generator), _of(family.discriminator, discriminator)


def _named(network: Callable[..., nn.Module]) -> Collection[str]:
    return inspect.signature(network).parameters


def _of(network: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that the network's constructor names."""
    return {name: value for name, value in arguments.items() if name in _named(network)}


def networks(config: TrainConfig, *, size: int, channels: int, c_dim: int) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator of a run, new, in train mode.

    Raises:
        DataError: The family does not accept images of this size.
        ConfigError: More layers are to be frozen than there are.
    """
    family = NETWORKS.get(config.family)
    if size not in family.sizes:
        raise DataError(
            f"the family {config.family} has no networks for {size} px",
            fix=f"prepare with --size {max((s for s in family.sizes if s <= size), default=family.sizes[0])}",
        )
    G_arguments, D_arguments = network_arguments(config, size=size, channels=channels, c_dim=c_dim)
    G = family.generator(**G_arguments).train()
    D = family.discriminator(**D_arguments).train()
    if config.freeze_d > D.num_layers:
        raise ConfigError(
            f"--freeze-d {config.freeze_d} is more than the {D.num_layers} layers that the discriminator of {size} px has before its last block",
            fix=f"--freeze-d {D.num_layers} or less",
        )
    return G, D


def build(config: TrainConfig, *, size: int, channels: int, c_dim: int, device: torch.device, start: Pretrained | None = None) -> State:
    """A new run: weights drawn from the seed on the CPU, so that every device starts alike, or those of `start`.

    Raises:
        DataError, ConfigError: See `networks`.
    """
    torch.manual_seed(config.seed)
    G, D = (compute_in(network, config.precision) for network in networks(config, size=size, channels=channels, c_dim=c_dim))
    G_ema = copy.deepcopy(G).eval().requires_grad_(False)
    if start:
        transfer.fill(start, G=G, D=D, G_ema=G_ema)
    G, D, G_ema = G.to(device), D.to(device), G_ema.to(device)
    return State(
        G=G,
        D=D,
        G_ema=G_ema,
        G_opt=lazy_adam(G.parameters(), lr=config.lr_g, beta1=config.beta1, beta2=config.beta2, interval=config.g_reg_interval),
        D_opt=lazy_adam(D.parameters(), lr=config.lr_d, beta1=config.beta1, beta2=config.beta2, interval=config.d_reg_interval),
        pl_mean=torch.zeros([], device=device),
        signs=torch.zeros(2, dtype=torch.float64, device=device),
        nonfinite=torch.zeros([], dtype=torch.int64, device=device),
        p=config.augment_p,
        averaged=not NETWORKS.get(config.family).batch_norm,
    )


def save(state: State, path: Path, *, config: TrainConfig, dataset_identity: str, sampler: dict[str, Any]) -> None:
    """Write the state atomically; `load` continues from it exactly."""
    content = {
        "format": FORMAT,
        "config": to_json(config),
        "dataset": dataset_identity,
        "G": state.G.state_dict(),
        "D": state.D.state_dict(),
        "G_ema": state.G_ema.state_dict(),
        "G_opt": state.G_opt.state_dict(),
        "D_opt": state.D_opt.state_dict(),
        "pl_mean": state.pl_mean,
        "signs": state.signs,
        "nonfinite": state.nonfinite,
        "counters": {name: getattr(state, name) for name in COUNTERS},
        "sampler": sampler,
    }
    save_tensors(path, content)


def load(state: State, path: Path, *, config: TrainConfig, dataset_identity: str, device: torch.device) -> dict[str, Any]:
    """Continue from a saved state; returns the sampler's part.

    Raises:
        ResumeError: The file cannot be read, or belongs to another dataset, seed or configuration (each field is named).
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        saved, other = content["config"], content["dataset"]
    except Exception as error:
        raise ResumeError(f"the saved state cannot be read ({type(error).__name__})", fix="--resume new") from None
    if content["format"] != FORMAT:
        raise ResumeError(
            f"the saved state has format {content['format']}, this version reads {FORMAT}",
            fix="use the medgan version that wrote it, or --resume new",
        )
    now = to_json(config)
    # A setting that is younger than the state stood at its default then.
    saved = to_json(TrainConfig()) | saved
    differing = [f"{name} {saved[name]} -> {now[name]}" for name in now if name not in FREE and saved[name] != now[name]]
    if other != dataset_identity:
        differing.append(f"dataset {other[:12]} -> {dataset_identity[:12]}")
    if differing:
        raise ResumeError("; ".join(differing), fix="--resume new, or the settings and data of the saved run")
    for name in ("G", "D", "G_ema", "G_opt", "D_opt"):
        getattr(state, name).load_state_dict(content[name])
    for name in ("pl_mean", "signs", "nonfinite"):
        setattr(state, name, content[name])
    for name in COUNTERS:
        # One that is younger than the state begins anew.
        setattr(state, name, content["counters"].get(name, getattr(state, name)))
    return content["sampler"]


def images_shown(path: Path) -> int:
    """How far a saved state is, in images; -1 where it cannot be read."""
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["counters"]["nimg"])
    except Exception:
        return -1


def draw_seed(seed: int, image: int, phase: int) -> int:
    """One 63-bit number per (seed, images shown before, phase): reseeding with it replaces saved generator states."""
    digest = hashlib.sha256(f"{seed} {image} {phase}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def update_average(state: State, config: TrainConfig, *, images: int) -> None:
    """Move G_ema towards G before `images` are counted (arXiv 1710.10196, section 4); buffers are copied."""
    half_life = config.ema_half_life
    if config.ema_rampup:
        half_life = min(half_life, state.nimg * config.ema_rampup)
    beta = 0.5 ** (images / max(half_life, 1e-8)) if state.averaged else 0.0
    with torch.no_grad():
        torch._foreach_lerp_(list(state.G_ema.parameters()), list(state.G.parameters()), 1 - beta)
        for average, buffer in zip(state.G_ema.buffers(), state.G.buffers(), strict=True):
            average.copy_(buffer)
