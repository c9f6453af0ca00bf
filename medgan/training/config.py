"""Settings of a training run, and the presets people ask for by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from medgan.config import setting
from medgan.errors import ConfigError
from medgan.machine import PRECISION_HELP, PRECISIONS
from medgan.networks import NETWORKS

# Transformations of ADA and their groups (arXiv 2006.06676, appendix B).
BLIT = ("xflip", "rotate90", "xint")
GEOM = ("scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")

PIPES: dict[str, tuple[str, ...]] = {
    "blit": BLIT,
    "geom": GEOM,
    "color": COLOR,
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": BLIT + GEOM,
    "bgc": BLIT + GEOM + COLOR,
    "bgcf": BLIT + GEOM + COLOR + ("imgfilter",),
    "bgcfn": BLIT + GEOM + COLOR + ("imgfilter", "noise"),
    "bgcfnc": BLIT + GEOM + COLOR + ("imgfilter", "noise", "cutout"),
    # bgc for scans: no body lies on its head or side, and a hue means nothing (docs/decisions/0011-training-settings.md).
    "anatomy": tuple(name for name in BLIT + GEOM + COLOR if name not in ("rotate90", "hue")),
}
# Parts of DiffAugment (arXiv 2006.10738, section 4).
DIFFAUGMENT = ("color", "translation", "cutout")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of `medgan train`. Lengths are counted in thousands of real images shown (kimg)."""

    family: str = setting("stylegan2", "GAN family", choices=NETWORKS.names())
    kimg: float = setting(25000.0, "length of the training in thousands of images shown", label="Training length (kimg)")
    epochs: float = setting(0.0, "length in passes over the set (its flips included) instead of --kimg; 0 leaves it to --kimg")
    batch: int = setting(32, "images per step, over all GPUs")
    gpus: int = setting(1, "processes that share the batch, each with a GPU of its own (without GPUs, some cores)")
    batch_gpu: int = setting(0, "images per GPU at a time; 0 is batch / GPUs; less accumulates gradients")
    gamma: float = setting(0.0, "weight of the R1 penalty; 0 derives 0.0002 x size^2 / batch, as the official auto preset")
    max_images: int = setting(0, "train on so many images of the set, drawn by the seed as the official code does; 0 for all")
    cache_gib: float = setting(256.0, "disk for decoded images in the run folder, in GiB; 0 decodes images as they are needed")
    mirror: bool = setting(False, "double the set by left-right flips (x-flip)")
    augment: str = setting("ada", "augmentation of what the discriminator sees", choices=("none", "ada", "fixed", "diffaugment"))
    augment_p: float = setting(0.0, "start value of ADA's p, or the fixed p")
    augment_pipe: str = setting(
        "bgc", "transformations of ada and fixed; anatomy is bgc without quarter turns and hue", choices=tuple(PIPES)
    )
    diffaugment_policy: tuple[str, ...] = setting(DIFFAUGMENT, "parts of diffaugment: color, translation, cutout", metavar="A,B")
    ada_target: float = setting(0.6, "mean sign of D on real images that ADA aims at")
    ada_interval: int = setting(4, "steps between adjustments of ADA's p")
    ada_kimg: float = setting(500.0, "thousands of images in which ADA's p can move by one")
    ada_max: float = setting(0.8, "upper bound of ADA's p; 0 for none, as the official code")
    channel_base: int = setting(32768, "channels at resolution r are channel-base / r, at most channel-max")
    channel_max: int = setting(512, "most channels of a layer")
    map_layers: int = setting(8, "depth of the mapping network")
    latent: int = setting(512, "size of z and w")
    mbstd_group: int = setting(4, "group of the minibatch standard deviation")
    d_architecture: str = setting("resnet", "architecture of the discriminator", choices=("resnet", "skip", "orig"))
    freeze_d: int = setting(0, "first layers of the discriminator that are not trained (Freeze-D), for a transfer; 0 trains all")
    labels: bool = setting(True, "train on the classes of dataset.json where it has them (conditional networks)")
    lr_g: float = setting(0.002, "learning rate of the generator")
    lr_d: float = setting(0.002, "learning rate of the discriminator")
    beta1: float = setting(0.0, "first beta of Adam")
    beta2: float = setting(0.99, "second beta of Adam")
    ema_kimg: float = setting(0.0, "half-life of the generator's average in thousands of images; 0 is batch x 10 / 32")
    ema_rampup: float = setting(0.05, "share of the images shown that bounds the half-life; 0 for no bound")
    style_mixing: float = setting(0.9, "probability of style mixing; 0 is off")
    pl_weight: float = setting(2.0, "weight of the path length penalty; 0 is off")
    g_reg_interval: int = setting(4, "steps between path length penalties; 0 is off")
    d_reg_interval: int = setting(16, "steps between R1 penalties; 0 is off")
    w_avg_beta: float = setting(0.998, "decay of the running mean of w")
    precision: str = setting("fp32", PRECISION_HELP, choices=PRECISIONS)
    recompute: bool = setting(
        False, "make features again in the main phases' backward passes instead of keeping them: less memory, longer steps"
    )
    compile: str = setting(
        "off",
        "compile G and D for the main phases: on, auto (a GPU alone), off; minutes before the first step",
        choices=("off", "auto", "on"),
    )
    tick_kimg: float = setting(4.0, "thousands of images between lines of statistics")
    snapshot_ticks: int = setting(50, "ticks between snapshots (state, samples, metrics)")
    keep_snapshots: int = setting(0, "keep the generator of every so many snapshots, beside the best and the last; 0 keeps none")
    keep_most: int = setting(10, "most generators kept so; the oldest goes first")
    max_nonfinite: int = setting(100, "values of losses and gradients that may be not finite before the run stops itself (exit code 76)")
    metrics: tuple[str, ...] = setting(
        ("fid",), "what is measured at snapshots, the first one chooses the best; empty for none", metavar="A,B"
    )
    metric_images: int = setting(50000, "generated images per measurement during training")
    kid_every: int = setting(0, "ticks between KIDs of a small sample, a cheap curve that chooses nothing; 0 measures none")
    kid_images: int = setting(1000, "generated images of such a KID, and training images that it compares them with at most")
    pretrained: str = setting(
        "",
        "start from these networks: an official pickle, a bundle, a run folder, or ffhq-256, ffhq-512, ffhq-1024",
        metavar="NETWORK",
        label="Start from",
    )
    check_transfer: bool = setting(True, "with --pretrained, measure before the first step and stop if it is no better than random weights")
    seed: int = setting(0, "seed of weights, order and all draws")
    time_budget: str = setting("", "stop after this long, e.g. 20h or 30m; the state is saved", metavar="TIME")

    def __post_init__(self) -> None:
        for name, least in (
            ("batch", 1),
            ("gpus", 1),
            ("kimg", 0.001),
            ("tick_kimg", 0.001),
            ("snapshot_ticks", 1),
            ("latent", 1),
            ("map_layers", 1),
            ("channel_base", 1),
            ("channel_max", 1),
            ("mbstd_group", 1),
            ("metric_images", 2),
            ("kid_images", 2),
            ("ada_kimg", 1e-6),
            ("ada_interval", 1),
            ("keep_most", 1),
        ):
            _at_least(name, getattr(self, name), least)
        for name in (
            "epochs",
            "max_images",
            "cache_gib",
            "batch_gpu",
            "gamma",
            "augment_p",
            "ada_max",
            "ema_kimg",
            "ema_rampup",
            "pl_weight",
            "g_reg_interval",
            "d_reg_interval",
            "seed",
            "freeze_d",
            "keep_snapshots",
            "kid_every",
            "max_nonfinite",
        ):
            _at_least(name, getattr(self, name), 0)
        for name in ("beta1", "beta2", "style_mixing", "w_avg_beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)} is not between 0 and 1")
        if self.batch % self.gpus:
            raise ConfigError(
                f"--gpus {self.gpus}: batch {self.batch} is not divisible by {self.gpus}",
                fix=f"--gpus {_largest_divisor(self.batch, min(self.gpus, self.batch))}",
            )
        share = self.batch // self.gpus
        if self.batch_gpu and share % self.batch_gpu:
            nearest = max(share // self.batch_gpu, 1) * self.batch_gpu * self.gpus
            shown = f"--batch {self.batch}" if self.gpus == 1 else f"--batch {self.batch} / --gpus {self.gpus}"
            raise ConfigError(f"{shown} is not divisible by --batch-gpu {self.batch_gpu}", fix=f"--batch {nearest}")
        self._check_augmentation()
        group = min(self.mbstd_group, self.round_size)
        if self.round_size % group:
            raise ConfigError(
                f"--batch-gpu {self.round_size} is not divisible by --mbstd-group {group}",
                fix=f"--mbstd-group {_largest_divisor(self.round_size, group)}",
            )
        if self.g_reg_interval and self.pl_weight and self.round_size < 2:
            raise ConfigError("the path length penalty needs --batch-gpu 2 or more", fix="--batch-gpu 2, or --pl-weight 0")
        seconds(self.time_budget)

    def _check_augmentation(self) -> None:
        if self.augment == "fixed" and not self.augment_p:
            raise ConfigError("--augment fixed with --augment-p 0 augments nothing", fix="--augment-p 0.2, or --augment none")
        if self.augment in ("none", "diffaugment") and self.augment_p:
            raise ConfigError(f"--augment {self.augment} has no p", fix="--augment-p 0, or --augment ada")
        if self.augment == "ada" and self.ada_max and self.augment_p > self.ada_max:
            raise ConfigError(
                f"--augment-p {self.augment_p:g} is above its bound {self.ada_max:g}", fix="a larger --ada-max, or 0 for none"
            )
        unknown = [part for part in self.diffaugment_policy if part not in DIFFAUGMENT]
        if unknown or len(set(self.diffaugment_policy)) < len(self.diffaugment_policy):
            raise ConfigError(
                f"--diffaugment-policy {','.join(self.diffaugment_policy)} is no list of different parts",
                fix=f"some of {','.join(DIFFAUGMENT)}",
            )
        if self.augment == "diffaugment" and not self.diffaugment_policy:
            raise ConfigError("--augment diffaugment with an empty --diffaugment-policy augments nothing", fix="--augment none")

    @property
    def round_size(self) -> int:
        """Images of one round of accumulation, on one GPU."""
        return self.batch_gpu or self.batch // self.gpus

    def r1_gamma(self, size: int) -> float:
        """Weight of R1 for images of `size` pixels."""
        return self.gamma or 0.0002 * size**2 / self.batch

    @property
    def ema_half_life(self) -> float:
        """Half-life of G_ema in images."""
        return (self.ema_kimg or self.batch * 10 / 32) * 1000


def for_set(config: TrainConfig, images: int) -> TrainConfig:
    """The settings with what follows from the number of images: `kimg` from `epochs`, and a batch that a small set can fill.

    Only a family that normalises over the batch has its batch cut: there an image that is in it twice counts twice.

    Args:
        config: Settings.
        images: Of the set; of those `max_images` at most are trained on.

    Raises:
        ConfigError: The family has no such thing.
    """
    family = NETWORKS.get(config.family)
    if not family.styles and (config.pl_weight or config.style_mixing):
        raise ConfigError(
            f"the family {config.family} has no styles: no path lengths and nothing to mix",
            fix=f"--pl-weight 0 --style-mixing 0{f', or --preset {OWN_PRESET[config.family]}' if config.family in OWN_PRESET else ''}",
        )
    if family.batch_norm and (config.gpus > 1 or config.batch_gpu not in (0, config.batch)):
        raise ConfigError(
            f"the family {config.family} normalises over the whole batch, which cannot be divided", fix="--gpus 1 --batch-gpu 0"
        )
    if family.batch_norm and config.recompute:
        raise ConfigError(f"--recompute: layers of the family {config.family} would count each batch twice", fix="--no-recompute")
    shown = min(images, config.max_images or images) * (2 if config.mirror else 1)
    changes: dict[str, Any] = {"kimg": config.epochs * shown / 1000} if config.epochs else {}
    if family.batch_norm and shown < config.batch:
        changes |= {"batch": shown, "batch_gpu": 0}
    return replace(config, **changes)


def for_transfer(config: TrainConfig, *, G: Mapping[str, Any], D: Mapping[str, Any], explicit: Collection[str]) -> TrainConfig:
    """The settings of a training that starts from other networks.

    Their shape is theirs: another one cannot be filled. As the official code does with --resume, ADA's p may move by one in 100
    thousand images instead of 500, and the average has no ramp-up, because there is something to average from the start
    (STYLEGAN2-ADA.md 6.5). A preset yields to these, a setting that somebody gave does not.

    Args:
        config: Settings as they would be without.
        G: Constructor arguments of the generator to start from.
        D: And of its discriminator.
        explicit: Names of settings that the user gave.
    """
    theirs = {
        "channel_base": G["channel_base"],
        "channel_max": G["channel_max"],
        "map_layers": G["mapping_layers"],
        "latent": G["z_dim"],
        "d_architecture": D.get("architecture", "resnet"),
        "ada_kimg": min(config.ada_kimg, 100.0),
        "ema_rampup": 0.0,
    }
    return replace(config, **{name: value for name, value in theirs.items() if name not in explicit})


FROM_THE_NETWORK = ("channel_base", "channel_max", "map_layers", "latent", "d_architecture", "ada_kimg", "ema_rampup")
"""What `for_transfer` sets."""


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise ConfigError(f"--{name.replace('_', '-')} {value:g} is less than {least:g}")


def _largest_divisor(n: int, most: int) -> int:
    return next(d for d in range(most, 0, -1) if n % d == 0)


def seconds(text: str) -> float:
    """`20h`, `30m`, `90s`, `1h30m` or a plain number of seconds; empty is 0 (no limit).

    Raises:
        ConfigError: Anything else.
    """
    text = text.strip().lower()
    if not text:
        return 0.0
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text)
    total = sum(float(part or 0) * unit for part, unit in zip(match.groups(), (86400, 3600, 60, 1), strict=True)) if match else 0.0
    if total <= 0:
        raise ConfigError(f"--time-budget {text} is not a length of time", fix="--time-budget 20h")
    return total


def _stylegan2(size: int, gpus: int) -> TrainConfig:  # noqa: ARG001
    return TrainConfig(gamma=10.0)


def _auto(size: int, gpus: int) -> TrainConfig:
    """The official `auto`: batch, learning rate and R1 weight derived from size and GPUs."""
    batch = max(min(gpus * min(4096 // size, 32), 64), gpus)
    rate = 0.002 if size >= 1024 else 0.0025
    return TrainConfig(
        batch=batch,
        mbstd_group=max(min(batch // gpus, 4), 1),
        channel_base=32768 if size >= 512 else 16384,
        lr_g=rate,
        lr_d=rate,
        gamma=0.0002 * size**2 / batch,
        map_layers=2,
        w_avg_beta=0.995,
    )


# fmt: off
# Official tables of stylegan2-ada-pytorch (STYLEGAN2-ADA.md 6.5): no EMA ramp-up, w_avg 0.995, betas (0, 0.99).
_PAPER = TrainConfig(ema_rampup=0.0, w_avg_beta=0.995)
PRESETS: dict[str, Callable[[int, int], TrainConfig]] = {
    # arXiv 2210.03786, every setting said, so that no default can change it. gamma is assumed (not stated there; the same group's later study
    # uses it). Alone without a bound of ADA's p, as the official code, and without labels, as its default.
    "paper-2210.03786": lambda size, gpus: TrainConfig(
        kimg=25000, tick_kimg=4, snapshot_ticks=50, batch=32, gamma=8.2, lr_g=0.002, lr_d=0.002, beta1=0.9, beta2=0.99, precision="fp32",
        mirror=True, labels=False, augment="ada", augment_pipe="bgc", augment_p=0.0, ada_target=0.6, ada_interval=4, ada_kimg=500, ada_max=0.0,
        channel_base=32768, channel_max=512, map_layers=8, latent=512, mbstd_group=4, d_architecture="resnet", ema_kimg=10, ema_rampup=0.05,
        w_avg_beta=0.998, style_mixing=0.9, pl_weight=2.0, g_reg_interval=4, d_reg_interval=16, metrics=("fid50k_full",), metric_images=50000,
    ),
    # arXiv 2308.02505: DCGAN at 28 px, latent of 100, 500 epochs, batch 128, one network per class. Not stated there and taken from DCGAN's paper
    # (arXiv 1511.06434, section 4): Adam's rate and first beta. Widths: docs/decisions/0034-dcgan.md. It measures the last network only.
    "paper-2308.02505": lambda size, gpus: TrainConfig(
        family="dcgan", epochs=500, batch=128, latent=100, lr_g=0.0002, lr_d=0.0002, beta1=0.5, beta2=0.999, precision="fp32", mirror=False,
        labels=False, augment="none", channel_base=32 * size, channel_max=1024, mbstd_group=1, style_mixing=0.0, pl_weight=0.0,
        g_reg_interval=0, d_reg_interval=0, metrics=(), tick_kimg=4, snapshot_ticks=50,
    ),
    "stylegan2": _stylegan2,
    "paper256":  lambda size, gpus: replace(_PAPER, batch=64, mbstd_group=8, channel_base=16384, lr_g=0.0025, lr_d=0.0025, gamma=1.0, ema_kimg=20.0),
    "paper512":  lambda size, gpus: replace(_PAPER, batch=64, mbstd_group=8, channel_base=32768, lr_g=0.0025, lr_d=0.0025, gamma=0.5, ema_kimg=20.0),
    "paper1024": lambda size, gpus: replace(_PAPER, batch=32, mbstd_group=4, channel_base=32768, lr_g=0.0020, lr_d=0.0020, gamma=2.0, ema_kimg=10.0),
    # 32 px, on 2 GPUs there: no path lengths, no style mixing, a discriminator without residuals.
    "cifar":     lambda size, gpus: TrainConfig(kimg=100000, batch=64, mbstd_group=32, lr_g=0.0025, lr_d=0.0025, gamma=0.01, ema_kimg=500.0, w_avg_beta=0.995, map_layers=2, pl_weight=0.0, style_mixing=0.0, d_architecture="orig"),
    "auto": _auto,
    # The official auto, as long as one GPU makes in some hours: what an untouched form of a platform runs.
    "standard": lambda size, gpus: replace(_auto(size, gpus), kimg=1000),
    # A CPU or one small GPU: a few hours for a first impression.
    "quick": lambda size, gpus: TrainConfig(kimg=200, batch=16, channel_base=4096, channel_max=128, latent=128, map_layers=4, mirror=True, ada_kimg=50, ema_kimg=2, tick_kimg=2, snapshot_ticks=10, metric_images=2048),
    # Minutes on two cores: every part of the way runs, nothing is science.
    "demo": lambda size, gpus: TrainConfig(kimg=6, batch=4, channel_base=1024, channel_max=64, latent=64, map_layers=2, mirror=True, gamma=0.5, lr_g=0.005, lr_d=0.005, ada_kimg=10, ema_kimg=0.1, ema_rampup=0.0, tick_kimg=0.25, snapshot_ticks=6, metric_images=128, pl_weight=0.0),
}
# fmt: on


OWN_PRESET = {"dcgan": "paper-2308.02505"}
"""Where a family's settings come from when no preset is named: the defaults are StyleGAN2's."""


def preset(name: str, *, size: int, gpus: int = 1, family: str = "") -> TrainConfig:
    """The settings called `name` for images of `size` pixels on `gpus` devices; the defaults of the family for an empty name.

    Raises:
        ConfigError: No such preset.
    """
    name = name or OWN_PRESET.get(family, "")
    if not name:
        return TrainConfig()
    if name not in PRESETS:
        raise ConfigError(f"unknown preset '{name}'", fix=f"one of {', '.join(PRESETS)}")
    return PRESETS[name](size, gpus)
