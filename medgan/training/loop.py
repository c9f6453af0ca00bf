"""The training loop: build, resume, then step, average, count; at ticks statistics, at snapshots samples and metrics."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medgan import machine, runs, tensorboard
from medgan.config import to_json
from medgan.data.dataset import Dataset
from medgan.data.sheet import contact_sheet
from medgan.errors import ConfigError, DivergedError, Preempted
from medgan.networks.bundle import write_bundle
from medgan.networks.transfer import Pretrained
from medgan.progress import duration
from medgan.ranks import Ranks
from medgan.training import disk
from medgan.training import state as states
from medgan.training.augment import Augment, Controller
from medgan.training.batches import Batches
from medgan.training.config import PIPES, TrainConfig, seconds
from medgan.training.diffaugment import DiffAugment
from medgan.training.disk import SHEET_IMAGES
from medgan.training.start import compare_with_random
from medgan.training.start import source as first_weights
from medgan.training.state import State
from medgan.training.statistics import Collector
from medgan.training.step import PHASES, Step
from medgan.training.watch import Watch

Snapshot = Callable[[nn.Module], Mapping[str, Any] | None]
"""`on_snapshot(G_ema)` measures a snapshot, on all ranks together: on rank 0 the object of one line of metrics.jsonl, else None.

The first of its `metrics` chooses the best snapshot: the lowest value, or the highest where its entry says `higher_is_better`."""
Kid = Callable[[nn.Module], Mapping[str, Any] | None]
"""`on_kid(G_ema)` measures a small sample between snapshots, on all ranks together: on rank 0 `value` and `seconds`, else None."""
Tick = Callable[[dict[str, str]], None]
"""Told at every tick what a progress line shows."""


@dataclass(frozen=True)
class Trained:
    """How a run ended: `complete` or `partial` (time budget), images shown, and the best snapshot's kimg, metric and value."""

    status: str
    kimg: float
    best: dict[str, Any]


def train(
    config: TrainConfig,
    data: Dataset,
    out: Path,
    *,
    resume: str = "auto",
    device: torch.device | None = None,
    held_out: Dataset | None = None,
    start: Pretrained | None = None,
    on_snapshot: Snapshot | None = None,
    on_kid: Kid | None = None,
    on_tick: Tick | None = None,
    stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
) -> Trained:
    """Train a generator into a run folder; the same call again goes on where it stopped.

    Several ranks share each batch (`config.gpus` of them): all call this with the same arguments but their own device. The state
    is that of one process, so that any number of ranks goes on with it.

    Args:
        config: Settings.
        data: Opened dataset.
        out: Run folder: config.json, stats.jsonl, metrics.jsonl, events.out.tfevents.medgan, snapshots/, checkpoint/state.pt, bundle/, dataset/.
        resume: `auto` goes on from the folder's state if there is one, `new` starts over, a path names a state, from which
            the folder's own goes on where it is further.
        device: Where to train; the CPU when None.
        held_out: Images of patients that are not trained on: D is compared on them at snapshots; None leaves that out.
        start: Networks to begin from, checked to fit; a resumed run needs them no more.
        on_snapshot: Measures a snapshot.
        on_kid: Measures a small sample every `kid_every` ticks; it goes into stats.jsonl and chooses nothing.
        on_tick: Told of progress.
        stop: Asked before every step; when true on any rank the state is saved and Preempted is raised on all.
        ranks: The processes that train together.

    Returns:
        How the run ended.

    Raises:
        DiskError: The disk has less room than the run will need.
        ResumeError: The state belongs to another dataset, seed or configuration.
        DivergedError: Losses or gradients are no longer finite.
        WeightsError: The networks to begin from are no better than random ones.
        Preempted: `stop` said so.
    """
    device = device or torch.device("cpu")
    runs.check_writable(out, "--out")
    disk.check_room(disk.need_of(config, data), out)
    batches = Batches(data, mirror=config.mirror, seed=config.seed, device=device, labels=config.labels, ranks=ranks)
    saved = _saved_state(out, resume)
    state = states.build(
        config, size=data.resolution, channels=data.channels, c_dim=batches.c_dim, device=device, start=None if saved else start
    )
    if saved:
        batches.sampler.load(states.load(state, saved, config=config, dataset_identity=data.identity, device=device))
    # No rank may remove or write what another has not read yet.
    ranks.wait()
    if ranks.speaks:
        _trim_records(out, state) if saved else _start_over(out)
        if start and not saved:
            runs.write_json(out / runs.PRETRAINED, start.source)
        runs.write_json(out / runs.CONFIG, to_json(config))
        data.write_info(out / runs.DATASET)
    if start and not saved and config.check_transfer:
        shape = {"size": data.resolution, "channels": data.channels, "c_dim": batches.c_dim}
        shown = (
            compare_with_random(state.G_ema, config, out, on_snapshot=on_snapshot, **shape) if on_snapshot else {"transfer": "not-measured"}
        )
        if on_tick:
            on_tick({"kimg": f"0/{config.kimg:g}", "pct": "0", **shown})

    run = _Run(config, data, out, state, batches, held_out, on_snapshot, on_kid, on_tick, ranks)
    return run.loop(stop)


def _saved_state(out: Path, resume: str) -> Path | None:
    if resume == "new":
        return None
    path = out / runs.STATE if resume == "auto" else Path(resume)
    if path.is_dir():
        path = path / runs.STATE
    own = out / runs.STATE
    if path.exists():
        # Of two states of one configuration, set and seed the further one is what the other becomes: the same command goes on in `out`.
        return own if own.exists() and own != path and states.images_shown(own) >= states.images_shown(path) else path
    if resume != "auto":
        raise ConfigError("--resume names no saved state", fix="--resume auto, new, or the path of a run folder or its state.pt")
    return None


def _start_over(out: Path) -> None:
    """Remove what an earlier run left, so that its numbers do not mix with the new ones; a folder that is no run keeps all it has."""
    if not (out / runs.CONFIG).exists():
        return
    for name in (runs.STATS, runs.EVALUATIONS, tensorboard.EVENTS, runs.STATUS, runs.METRICS, runs.REPORT, runs.PRETRAINED):
        (out / name).unlink(missing_ok=True)
    for name in (runs.SNAPSHOTS, runs.BUNDLE, "checkpoint", runs.SYNTHETIC):
        shutil.rmtree(out / name, ignore_errors=True)


def _trim_records(out: Path, state: State) -> None:
    """Drop lines written after the state that is resumed: those ticks are run again, and a pending snapshot is measured again."""
    for path, last in ((out / runs.STATS, state.nimg), (out / runs.EVALUATIONS, state.nimg - state.pending)):
        if path.exists():
            runs.write_json_lines(path, [row for row in runs.read_json_lines(path) if round(row["kimg"] * 1000) <= last])
    tensorboard.rewrite(out)


class _Run:
    """The loop's own furniture: what the steps need beside the state."""

    def __init__(
        self,
        config: TrainConfig,
        data: Dataset,
        out: Path,
        state: State,
        batches: Batches,
        held_out: Dataset | None,
        on_snapshot: Snapshot | None,
        on_kid: Kid | None,
        on_tick: Tick | None,
        ranks: Ranks,
    ) -> None:
        self.ranks = ranks
        self.config, self.data, self.out, self.state, self.batches = config, data, out, state, batches
        self.on_snapshot, self.on_kid, self.on_tick = on_snapshot, on_kid, on_tick
        self.collect = Collector()
        augment: Augment | DiffAugment = Augment(PIPES[config.augment_pipe] if config.augment in ("ada", "fixed") else ())
        if config.augment == "diffaugment":
            augment = DiffAugment(config.diffaugment_policy)
        gamma = config.r1_gamma(data.resolution)
        self.step = Step(state, config, augment, gamma=gamma, collect=self.collect, labels=batches.random_labels, ranks=ranks)
        self.watch = Watch(config, batches, samples=SHEET_IMAGES, augment=augment, held_out=held_out)
        self.controller = Controller(target=config.ada_target, kimg=config.ada_kimg, upper=config.ada_max)
        self.total = round(config.kimg * 1000)
        self.budget = seconds(config.time_budget)
        self.started = time.monotonic()
        self.earlier = state.seconds
        self.tick_clock = (self.started, state.nimg)
        self.latest: dict[str, str] = {}
        self.latest_kid: dict[str, str] = {}
        self.once: dict[str, str] = {}
        self.grid = torch.from_numpy(np.random.RandomState(config.seed).randn(SHEET_IMAGES, config.latent)).float()

    def loop(self, stop: Callable[[], bool]) -> Trained:
        """Steps until the length, the budget or a stop is reached."""
        state, config = self.state, self.config
        first = state.nimg
        if state.pending:
            self.measure()
        while state.nimg < self.total:
            if self.ranks.any(stop()):
                self.save()
                self.ranks.wait()
                raise self.preempted()
            real, real_c = self.batches.next(config.batch)
            self.step(real, real_c, self.latents)
            if state.nimg == first:
                state.pl_mean.item()  # waits for the GPU
                self.once = {"first_step": duration(machine.seconds_alive())}
            states.update_average(state, config, images=config.batch)
            state.nimg += config.batch
            state.step += 1
            if config.augment == "ada" and state.step % config.ada_interval == 0:
                self.adjust_augmentation()
            done = state.nimg >= self.total
            # The first tick comes after the first step, as in the official schedule: a snapshot at the very start.
            if done or state.tick == 0 or state.nimg >= state.tick_start + config.tick_kimg * 1000:
                over_budget = self.ranks.any(bool(self.budget) and time.monotonic() - self.started >= self.budget)
                self.tick(snapshot=done or over_budget or state.tick % config.snapshot_ticks == 0)
                if over_budget and not done:
                    return Trained("partial", state.nimg / 1000, state.best)
        return Trained("complete", state.nimg / 1000, state.best)

    def preempted(self) -> Preempted:
        """What a run that was asked to stop ends with, once its state is saved."""
        kimg = self.state.nimg / 1000
        return Preempted(f"stopped at kimg {kimg:g}; the state is saved", kimg=kimg)

    def latents(self, phase: str) -> Tensor:
        """This rank's latents (batch / ranks, latent) of a phase; drawn for the whole batch on the host, so that neither rank nor device changes them."""
        config, share = self.config, self.config.batch // self.ranks.count
        draws = torch.Generator().manual_seed(states.draw_seed(config.seed, self.state.nimg, len(PHASES) + PHASES.index(phase)))
        z = torch.randn(config.batch, config.latent, generator=draws)
        return machine.carried(z[self.ranks.rank * share :][:share], to=self.state.pl_mean.device)

    def adjust_augmentation(self) -> None:
        """Move p by what the discriminator said of real images since the last time."""
        total, count = self.state.signs.tolist()
        if count:
            self.state.p = self.controller.adjusted(self.state.p, total / count, self.config.batch * self.config.ada_interval)
        self.state.signs = torch.zeros_like(self.state.signs)

    def tick(self, *, snapshot: bool) -> None:
        """Write statistics, and at a snapshot samples, metrics and the state."""
        state = self.state
        now = time.monotonic()
        before, nimg_before = self.tick_clock
        per_kimg = (now - before) / max((state.nimg - nimg_before) / 1000, 1e-9)
        self.collect.sum_over(self.ranks)
        state.nonfinite += round(self.collect.total("Loss/nonfinite"))
        state.seconds = self.earlier + now - self.started
        images = self.grid_images() if snapshot and self.ranks.speaks else None
        kid = self.kid()
        if self.ranks.speaks:
            self.write_row(per_kimg, images, kid)
        if int(state.nonfinite) > self.config.max_nonfinite:
            raise DivergedError(
                f"{int(state.nonfinite)} values of losses and gradients were not finite by kimg {state.nimg / 1000:g}",
                fix="a smaller --lr-g and --lr-d, a larger --gamma, or --precision fp32; the last state is kept",
            )
        self.collect.clear()
        state.tick += 1
        state.tick_start = state.nimg
        if snapshot:
            self.snapshot(images)
        if self.ranks.speaks:
            self.report(per_kimg)
        self.tick_clock = (time.monotonic(), state.nimg)

    def kid(self) -> dict[str, float]:
        """A KID of a small sample and its seconds at every `kid_every`-th tick; nothing at others, on other ranks, and where a stop came in between."""
        if not self.on_kid or not self.config.kid_every or self.state.tick % self.config.kid_every:
            return {}
        try:
            measured = self.on_kid(self.state.G_ema)
        except Preempted:
            # The loop stops before its next step; there is no half a KID.
            return {}
        if not measured:
            return {}
        self.latest_kid = {"kid": f"{measured['value']:.4g}@{self.state.nimg / 1000:g}"}
        return {"KID/value": measured["value"], "KID/seconds": measured["seconds"]}

    def write_row(self, per_kimg: float, images: Tensor | None, kid: Mapping[str, float]) -> None:
        """This tick's line of stats.jsonl; at a snapshot `images` are its fixed samples."""
        state = self.state
        if self.config.augment != "diffaugment":
            self.collect.add("Progress/augment", torch.tensor(state.p))
        row = {
            "tick": state.tick,
            "kimg": state.nimg / 1000,
            "nimg": state.nimg,
            "seconds": round(state.seconds, 3),
            "sec_per_kimg": round(per_kimg, 3),
            "nonfinite": int(state.nonfinite),
            **self.collect.summary(),
            **kid,
            **self.watch.look(state, images),
        }
        runs.append_json(self.out / runs.STATS, row)
        tensorboard.append(self.out, state.nimg, row)

    def grid_images(self) -> Tensor:
        """The fixed samples of G_ema, (64, C, H, W): the same latents, labels and noise at every snapshot."""
        state = self.state
        with torch.inference_mode():
            parts = [state.G_ema(z.to(state.pl_mean.device), self.grid_labels(len(z)), noise_mode="const") for z in self.grid.split(16)]
        return torch.cat(parts)

    def snapshot(self, images: Tensor | None) -> None:
        """Samples, then the measurement; the state is saved before it too, because it may take long and be stopped."""
        state = self.state
        sums = torch.stack([p.double().sum() for p in (*state.G.parameters(), *state.D.parameters())])
        self.ranks.check_alike(sums, "a network's weights")
        if images is not None:
            pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
            with runs.atomic(self.out / runs.SNAPSHOTS / f"fakes{self.stamp()}.png") as temporary:
                contact_sheet(pixels, columns=8).save(temporary, "PNG")
        if self.on_snapshot:
            state.pending = True
            self.save()
        self.measure()

    def measure(self) -> None:
        """The metrics of G_ema, the bundle if it is the best so far, and the state last."""
        state, kimg = self.state, self.state.nimg / 1000
        try:
            measured = self.on_snapshot(state.G_ema) if self.on_snapshot else None
        except Preempted:
            raise self.preempted() from None
        state.pending = False
        if not self.ranks.speaks:
            return
        name, value, sign = "", None, 1
        if measured:
            runs.append_json(self.out / runs.EVALUATIONS, {"kimg": kimg, **measured})
            tensorboard.append(self.out, state.nimg, measured)
            name, entry = next(iter(measured["metrics"].items()))
            value, sign = entry["value"], -1 if entry.get("higher_is_better") else 1
            self.latest = {name: f"{value:.4g}@{kimg:g}"}
        # A continuation may measure something else, or on other counts; an FID of more images would win by its smaller bias alone.
        rests_on = [name, *(measured.get(key) for key in ("n_real", "n_fake"))] if measured else []
        # The snapshot of the first step is of random weights; it stands only until there is a trained one, whatever its figure.
        old = state.best
        incomparable = old.get("value") is None or old.get("first") or old.get("rests_on", rests_on) != rests_on or old["metric"] != name
        beaten = value is None or incomparable or sign * value < sign * old["value"]
        if beaten or not (self.out / runs.BUNDLE).exists():
            state.best = {"kimg": kimg, "metric": name, "value": value, "rests_on": rests_on} | ({"first": True} if state.step == 1 else {})
            self.write_bundle(self.out / runs.BUNDLE, f"{name} {value:.4g}" if name else "the last snapshot")
        self.keep_snapshot()
        self.save()

    def keep_snapshot(self) -> None:
        """Every k-th regular snapshot's generator, at most so many: the oldest goes when the newest is complete."""
        config, state = self.config, self.state
        index, rest = divmod(state.tick - 1, config.snapshot_ticks)
        # The snapshot of the first step is of random weights; those at the end or at a stop are in the state.
        if not config.keep_snapshots or rest or index == 0 or index % config.keep_snapshots:
            return
        folder = self.out / runs.SNAPSHOTS
        self.write_bundle(folder / f"network{self.stamp()}", f"kept as every {config.keep_snapshots}. snapshot")
        for old in sorted(folder.glob("network*"))[: -config.keep_most]:
            shutil.rmtree(old)

    def stamp(self) -> str:
        """Images shown so far, as file names say it: thousands in six digits, a point, and the rest."""
        return f"{self.state.nimg // 1000:06d}.{self.state.nimg % 1000:03d}"

    def grid_labels(self, n: int) -> Tensor | None:
        """Labels of the sample sheet: the set's first images', in turn."""
        if self.batches.labels is None:
            return None
        return self.batches.labels[torch.arange(n) % len(self.batches.labels)].to(self.state.pl_mean.device)

    def write_bundle(self, folder: Path, chosen: str) -> None:
        """The running average as a bundle; `chosen` says why this one."""
        state, data = self.state, self.data
        arguments, _ = states.network_arguments(
            self.config,
            size=data.resolution,
            channels=data.channels,
            c_dim=self.batches.c_dim,
        )
        details = {
            "recipe": data.recipe,
            "dataset": data.identity,
            "images": len(data),
            "kimg": state.nimg / 1000,
            "chosen_by": chosen,
            "seed": self.config.seed,
            **first_weights(self.out),
        }
        write_bundle(folder, state.G_ema, family=self.config.family, arguments=arguments, details=details)

    def save(self) -> None:
        """The complete state, atomically."""
        if not self.ranks.speaks:
            return
        states.save(
            self.state, self.out / runs.STATE, config=self.config, dataset_identity=self.data.identity, sampler=self.batches.sampler.state()
        )

    def report(self, per_kimg: float) -> None:
        """status.json, and a line for whoever watches."""
        state = self.state
        remaining = (self.total - state.nimg) / 1000 * per_kimg
        best = state.best
        fields = {
            "kimg": f"{state.nimg / 1000:g}/{self.total / 1000:g}",
            "pct": str(min(100 * state.nimg // max(self.total, 1), 100)),
            "eta": duration(remaining),
            "sec_per_kimg": f"{per_kimg:.1f}",
            "gpu_gib": f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if state.pl_mean.is_cuda else "0",
        }
        # DiffAugment has no p.
        fields |= {"augment": "diffaugment"} if self.config.augment == "diffaugment" else {"ada_p": f"{state.p:.3f}"}
        fields |= self.latest_kid | self.latest
        if state.watch.get("on"):
            fields["alarms"] = ",".join(state.watch["on"])
        if best.get("metric"):
            fields["best"] = f"{best['value']:.4g}@{best['kimg']:g}"
        runs.write_json(self.out / runs.STATUS, {"time": runs.utc_now(), "status": "running", **fields})
        if self.on_tick:
            self.on_tick(fields | self.once)
        self.once = {}
