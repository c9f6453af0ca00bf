"""What a training will take before anything runs: every derived setting with its reason, time, memory and disk.

Pure arithmetic on the settings: nothing is built, no device is touched. The model and its error: docs/explanation/plan.md.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from medgan.data.dataset import MOST_CACHE_BYTES
from medgan.errors import ConfigError, DataError
from medgan.networks import NETWORKS
from medgan.training import cost
from medgan.training.config import TrainConfig, seconds
from medgan.training.devices import CUDA_HOST_BASE, FITS, Device, combine, memory_features, time_features

if TYPE_CHECKING:
    from medgan.training.calibrate import Calibration

# One image of 299 px through Inception-v3, 2 per multiply-add.
INCEPTION_FLOPS = 11.4e9
# Images at a time when samples are drawn: medgan.sampling's groups.
SAMPLE_BATCH = {"cpu": 4, "cuda": 16}
# Part of an accelerator's memory that a plan may fill; the rest is for its context, libraries and fragments.
USABLE = 0.9
# Moments of both sets, factor, product and what the solver copies: ten matrices of 2048 x 2048 float64.
MATRICES = 10 * 8 * 2048**2


@dataclass(frozen=True)
class Derived:
    """A setting that follows from others: its name, value and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training as predicted. All values are JSON values (`to_json`).

    Attributes:
        device: Class of machine.
        source: What the prediction rests on.
        size: Side of the images in pixels.
        channels: 1 or 3.
        images: Images of the dataset; 0 where unknown.
        parameters_G: Trained values of the generator.
        parameters_D: Of the discriminator.
        gflop_per_image: Arithmetic of training per real image.
        steps: Optimisation steps.
        ticks: Lines of statistics.
        snapshots: Times that samples, state and metrics are made.
        seconds_per_kimg: Per thousand real images, over all devices, without measurements.
        training_hours: Without measurements.
        metric_seconds: One measurement, e.g. FID.
        metric_hours: All of them, and the KIDs between them.
        hours: Everything.
        error: Relative error of the time: median and largest of leave-one-out; both 0 where it was measured here.
        device_bytes: Memory of one accelerator; 0 on a CPU.
        device_memory: What it has; 0 on a CPU.
        host_bytes: Memory of the host, all processes of the training together; on a GPU mostly an estimate.
        disk_bytes: What the run leaves and has at its fullest moment, by kind, with `total`, and `least` without the decoded images.
        largest_batch_gpu: Largest --batch-gpu that fits the accelerator; 0 on a CPU or where none fits.
        derived: Settings that follow from others.
        warnings: What the user should know before starting.
    """

    device: str
    source: str
    size: int
    channels: int
    images: int
    parameters_G: int  # noqa: N815
    parameters_D: int  # noqa: N815
    gflop_per_image: float
    steps: int
    ticks: int
    snapshots: int
    seconds_per_kimg: float
    training_hours: float
    metric_seconds: float
    metric_hours: float
    hours: float
    error: tuple[float, float]
    device_bytes: int
    device_memory: int
    host_bytes: int
    disk_bytes: dict[str, int]
    largest_batch_gpu: int
    derived: tuple[Derived, ...]
    warnings: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the accelerator's memory holds it; on a CPU, which has the host's, always."""
        return not self.device_memory or self.device_bytes <= USABLE * self.device_memory

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "fits": self.fits}


def schedule(config: TrainConfig) -> tuple[int, int, int]:
    """Steps, ticks and snapshots of a whole run.

    A tick comes after the first step, then whenever its length in images is full, and at the end; a snapshot at every so many
    ticks, the first tick and the end included.
    """
    steps = math.ceil(round(config.kimg * 1000) / config.batch)
    each = max(math.ceil(config.tick_kimg * 1000 / config.batch), 1)
    ticks = 1 + math.ceil((steps - 1) / each)
    last = ticks - 1
    return steps, ticks, last // config.snapshot_ticks + 1 + (last % config.snapshot_ticks > 0)


def plan(
    config: TrainConfig,
    *,
    size: int,
    channels: int,
    images: int,
    c_dim: int = 0,
    bits: int = 8,
    device: Device,
    threads: int = 1,
    device_memory: int = 0,
    calibration: Calibration | None = None,
) -> Plan:
    """Predict a training.

    Args:
        config: Settings.
        size: Side of the images in pixels.
        channels: 1 or 3.
        images: Images of the dataset; 0 where unknown.
        c_dim: Classes; 0 for an unconditional training.
        bits: Of a stored value: 8 or 16.
        device: Class of machine.
        threads: Threads of a CPU.
        device_memory: Memory of the accelerator in bytes; 0 is the class's.
        calibration: Real steps measured on this machine, instead of the model.

    Raises:
        DataError: The family has no networks for this size.
        ConfigError: The family's cost is not known.
    """
    if config.family not in cost.FAMILIES:
        raise ConfigError(f"the cost of the family {config.family} is not known", fix="a short run of train")
    sizes = NETWORKS.get(config.family).sizes
    if size not in sizes:
        raise DataError(f"the family {config.family} has no networks for {size} px", fix=f"--size {', '.join(map(str, sizes))}")
    shape: dict[str, Any] = {"size": size, "channels": channels, "c_dim": c_dim}
    G, D = cost.generator(config, **shape), cost.discriminator(config, **shape)
    passes_G, passes_D = cost.passes(config)
    steps, ticks, snapshots = schedule(config)
    batch_gpu = config.round_size
    fit = FITS[device.kind]
    per_image = combine(time_features(config, device, **shape, batch_gpu=batch_gpu, precision=config.precision, threads=threads), fit.time)
    held = int(combine(memory_features(config, device, **shape, batch_gpu=batch_gpu, precision=config.precision), (1, *fit.memory)))
    if calibration:
        per_image, held = calibration.seconds_per_image, calibration.peak_bytes
    per_kimg = 1000 * per_image / config.gpus
    training = per_kimg * steps * config.batch / 1000
    per_drawn = _drawn_and_measured(config, G, device, threads) / config.gpus
    metric = config.metric_images * per_drawn if config.metrics else 0.0
    kids = (ticks - 1) // config.kid_every + 1 if config.kid_every else 0
    measuring = metric * snapshots + config.kid_images * per_drawn * kids
    memory = (device_memory or int(device.memory_gb * 1e9)) if device.kind == "cuda" else 0
    one = channels * size * size * bits // 8
    disk = _disk(config, G, D, size=size, channels=channels, images=images, image_bytes=one)
    largest = _largest_batch_gpu(config, device, shape, fit.memory, memory) if memory else 0
    total = training + measuring
    result = Plan(
        device=device.name,
        source="real steps on this machine" if calibration else fit.source,
        size=size,
        channels=channels,
        images=images,
        parameters_G=G.parameters,
        parameters_D=D.parameters,
        gflop_per_image=round((passes_G * G.flops + passes_D * D.flops) / 1e9, 2),
        steps=steps,
        ticks=ticks,
        snapshots=snapshots,
        seconds_per_kimg=_rounded(per_kimg),
        training_hours=_rounded(training / 3600),
        metric_seconds=_rounded(metric),
        metric_hours=_rounded(measuring / 3600),
        hours=_rounded(total / 3600),
        error=(0.0, 0.0) if calibration else fit.time_error,
        device_bytes=held if memory else 0,
        device_memory=memory,
        host_bytes=int(
            config.gpus * (CUDA_HOST_BASE + _pinned(config, one) if memory else held)
            + _beside(config, size=size, channels=channels, images=images)
            # Without the decoded file, a set that is small enough stays in memory.
            + (images * one if not disk["decoded"] and images * one <= MOST_CACHE_BYTES else 0)
        ),
        disk_bytes=disk,
        largest_batch_gpu=largest,
        derived=tuple(_derived(config, size=size, images=images, c_dim=c_dim)),
        warnings=(),
    )
    return replace(result, warnings=tuple(_warnings(config, result, batch_gpu)))


def _rounded(value: float) -> float:
    """Three significant digits: a prediction has no more."""
    return float(f"{value:.3g}")


def _drawn_and_measured(config: TrainConfig, G: cost.Network, device: Device, threads: int) -> float:
    """Seconds to draw one image and take its Inception features."""
    share = threads if device.kind == "cpu" else 1
    features = (
        (G.flops + INCEPTION_FLOPS) / 1e12 / device.tflops["tf32" if config.precision == "bf16" else config.precision] / share,
        4 * G.elements / 1e12 / device.tb_per_s / share,
        sum(level.layers for level in G.levels) / SAMPLE_BATCH[device.kind],
    )
    return combine(features, FITS[device.kind].time)


def batch_gpus(config: TrainConfig) -> list[int]:
    """Images at a time that divide a GPU's part of the batch and suit the minibatch groups, the largest first."""
    share = config.batch // config.gpus
    least = 2 if config.pl_weight and config.g_reg_interval else 1
    return [n for n in range(share, least - 1, -1) if share % n == 0 and n % min(config.mbstd_group, n) == 0]


def _largest_batch_gpu(config: TrainConfig, device: Device, shape: dict[str, Any], coefficients: tuple[float, float], memory: int) -> int:
    """The largest of `batch_gpus` that fits; 0 where none does."""
    for n in batch_gpus(config):
        held = combine(memory_features(config, device, **shape, batch_gpu=n, precision=config.precision), (1, *coefficients))
        if held <= USABLE * memory:
            return n
    return 0


def fitted(config: TrainConfig, *, size: int, channels: int, c_dim: int = 0, device: Device, memory: int) -> TrainConfig:
    """The settings with the largest `batch_gpu` that fits a GPU by the model, where nobody gave one.

    The result is the same but for rounding and draws: no group of the minibatch deviation gets smaller. Where that would be needed, the settings stay.

    Args:
        config: Settings.
        size: Side of the images in pixels.
        channels: 1 or 3.
        c_dim: Classes.
        device: Class of the GPU.
        memory: Bytes that are free on it.
    """
    if config.batch_gpu or config.family != "stylegan2":
        return config
    n = _largest_batch_gpu(config, device, {"size": size, "channels": channels, "c_dim": c_dim}, FITS[device.kind].memory, memory)
    return config if n in (0, config.round_size) or n < config.mbstd_group else replace(config, batch_gpu=n)


def _pinned(config: TrainConfig, image_bytes: int) -> int:
    """Batches of one process on their way to its GPU: one that is copied, others that are read ahead."""
    from medgan.training.prefetch import DEPTH

    return (DEPTH + 1) * config.batch // config.gpus * image_bytes


def _beside(config: TrainConfig, *, size: int, channels: int, images: int) -> int:
    """The sample sheet in float32 and 8 bits, feature rows of both sets, and the matrices of a Fréchet distance: once on the host."""
    from medgan.training.disk import FEATURES, SHEET_IMAGES

    sheet = 5 * SHEET_IMAGES * channels * size * size
    return sheet + ((images + config.metric_images) * FEATURES + MATRICES if config.metrics else 0)


def _disk(
    config: TrainConfig, G: cost.Network, D: cost.Network, *, size: int, channels: int, images: int, image_bytes: int
) -> dict[str, int]:
    from medgan.training.disk import bytes_needed, decoded_bytes

    decoded = decoded_bytes(config, images, image_bytes)
    need = bytes_needed(config, G.values, D.values, size=size, channels=channels, images=images, decoded=decoded)
    return {**asdict(need), "least": need.least, "total": need.total}


def _derived(config: TrainConfig, *, size: int, images: int, c_dim: int) -> list[Derived]:
    batch_gpu, gpus = config.round_size, config.gpus
    rounds = config.batch // gpus // batch_gpu
    half_life = "--ema-kimg" if config.ema_kimg else "batch x 10 / 32 thousand images"
    styled = config.family == "stylegan2"
    rows = [
        Derived(
            "gamma",
            f"{config.r1_gamma(size):.4g}",
            "--gamma" if config.gamma else f"0.0002 x size^2 / batch = 0.0002 x {size}^2 / {config.batch}, as the official auto preset",
        ),
        Derived(
            "ema half-life",
            f"{config.ema_half_life / 1000:g} kimg",
            half_life + (f", at first {config.ema_rampup:g} of the images shown" if config.ema_rampup else ", without ramp-up"),
        ),
        Derived("batch per device", str(batch_gpu), "--batch-gpu" if config.batch_gpu else f"batch / devices = {config.batch} / {gpus}"),
        Derived("rounds of accumulation", str(rounds), f"batch {config.batch} = {gpus} devices x {batch_gpu} images x {rounds} rounds"),
        Derived("minibatch deviation group", str(min(config.mbstd_group, batch_gpu)), "--mbstd-group, at most the batch per device"),
    ]
    for name, rate, interval, on in (
        ("G", config.lr_g, config.g_reg_interval, bool(config.pl_weight)),
        ("D", config.lr_d, config.d_reg_interval, True),
    ):
        c = interval / (interval + 1) if interval else 1.0
        betas = f"{config.beta1**c:.6g}, {config.beta2**c:.6g}"
        why = (
            f"lazy regularisation every {interval} steps: rate x c, betas^c with c = {interval}/{interval + 1}"
            if interval
            else "no regulariser"
        )
        rows.append(
            Derived(f"learning rate of {name}", f"{rate * c:.6g}, betas {betas}", why + ("" if on else "; the penalty itself is off"))
        )
    if config.epochs:
        rows.append(Derived("length", f"{config.kimg:g} kimg", f"--epochs {config.epochs:g} x the images of the set"))
    if styled:
        rows.append(Derived("style rows", str(2 * int(math.log2(size)) - 2), "2 log2(size) - 2"))
    else:
        # What this family has not, or leaves out.
        absent = {"ema half-life", "minibatch deviation group"} | (set() if config.d_reg_interval else {"gamma"})
        rows = [row for row in rows if row.name not in absent]
    if c_dim:
        rows.append(Derived("classes", str(c_dim), "labels of the dataset: conditional networks"))
    if config.augment == "ada":
        step = config.batch * config.ada_interval / (config.ada_kimg * 1000)
        bound = f"bound {config.ada_max:g}" if config.ada_max else "no bound"
        rows.append(
            Derived(
                "step of ADA's p",
                f"{step:.4g}",
                f"every {config.ada_interval} steps, so that p moves by 1 in {config.ada_kimg:g} kimg; {bound}",
            )
        )
    if images:
        shown = images * (2 if config.mirror else 1)
        rows.append(Derived("images of the set", str(shown), f"{images} images" + (" and their left-right flips" if config.mirror else "")))
        rows.append(Derived("times each is shown", f"{config.kimg * 1000 / shown:.3g}", f"{config.kimg:g} kimg / images of the set"))
    return rows


def _warnings(config: TrainConfig, made: Plan, batch_gpu: int) -> list[str]:
    found = []
    if not made.fits:
        need, there = made.device_bytes / 1e9, made.device_memory / 1e9
        fits = (
            f"--batch-gpu {made.largest_batch_gpu} fits"
            if made.largest_batch_gpu
            else "no --batch-gpu fits: smaller images or --channel-base"
        )
        found.append(f"{need:.1f} GB for --batch-gpu {batch_gpu} is too much for {there:.0f} GB of GPU memory; {fits}")
    budget = seconds(config.time_budget)
    if budget and made.hours * 3600 > budget:
        part = config.kimg * budget / (made.hours * 3600)
        found.append(f"--time-budget {config.time_budget} ends the run at about {part:.3g} of {config.kimg:g} kimg")
    if made.hours and made.metric_hours > 0.2 * made.hours:
        share = 100 * made.metric_hours / made.hours
        found.append(f"measurements take {share:.0f} % of the time: a larger --snapshot-ticks or --kid-every, or fewer --metric-images")
    if made.error[1] and config.family != "stylegan2":
        found.append("the time is a guess: it was fitted to StyleGAN2's layers, and never compared with this family; --calibrate measures")
    elif made.error[1]:
        found.append(
            f"the time is off by {100 * made.error[0]:.0f} % typically, {100 * made.error[1]:.0f} % at most, where it was checked: {made.source}"
        )
    return found
