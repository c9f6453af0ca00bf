"""One training with what measures it: `run_training`, for `medgan train`, jobs and the ranks of several processes."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medgan.commands.transfer import carry_source, starting_point
from medgan.config import to_json
from medgan.errors import DataError, Preempted
from medgan.ranks import Ranks, started
from medgan.training.config import TrainConfig, for_set

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from medgan.data.dataset import Dataset
    from medgan.metrics.evaluate import Evaluator
    from medgan.progress import Step
    from medgan.training.loop import Kid, Snapshot, Trained

log = logging.getLogger(__name__)

# Seeds of the images that choose the best snapshot; the reported figure comes from others (job.py), so that the choice does not flatter it.
SELECTION_SEED = 1_000_000_000

KID_SEED = 1_500_000_000
"""Of the images of KIDs between snapshots: the same at every tick, and neither those that choose nor those that are reported."""

WORK = "work.json"
"""What ranks are told, beside config.json: which `stage` they share, and where its things are."""


def evaluator_for(
    config: TrainConfig,
    weights: Path | None,
    *,
    cache: Path,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
) -> Evaluator | None:
    """The measurements of a training, ready, or None where it wants none; absent weights fail here.

    Args:
        config: Settings of the training.
        weights: Folder with pretrained files, or None.
        cache: Folder for features of the training images; they derive from patients, so it lies with the run.
        ranks: The processes that measure together.
    """
    if not config.metrics:
        return None
    from medgan import machine
    from medgan.metrics.evaluate import Evaluator

    return Evaluator(config.metrics, weights=weights, device=str(machine.device()), cache=cache, ranks=ranks)


def kid_for(
    config: TrainConfig,
    weights: Path | None,
    *,
    cache: Path,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
) -> Evaluator | None:
    """The cheap measurement between snapshots, ready, or None where nobody asked for it: one KID of all images of two small samples."""
    if not config.kid_every:
        return None
    from medgan import machine
    from medgan.metrics.evaluate import Evaluator

    settings = {"subset_size": config.kid_images}
    return Evaluator(("kid",), weights=weights, device=str(machine.device()), cache=cache, settings=settings, ranks=ranks)


def held_out_beside(data: Dataset) -> Dataset | None:
    """The held-out images that `prepare` wrote beside a dataset: DATA.held-out.zip for DATA.zip; None where there are none."""
    from medgan.data.dataset import held_out_of, open_dataset

    beside = held_out_of(data.path)
    if beside is None:
        return None
    try:
        return open_dataset(beside, show_names=False)
    except DataError as error:
        raise DataError(
            f"in the held-out set beside the dataset: {error.message}", fix="prepare both again, or move the .held-out.zip away"
        ) from None


def labels_for(G: nn.Module, data: Dataset) -> Tensor | None:
    """The labels of a dataset as a conditional generator takes them; None where either has none, or they are of another length."""
    from medgan.training.batches import one_hot

    labels = one_hot(data, int(G.c_dim)) if G.c_dim else None  # type: ignore[arg-type]
    return labels if labels is not None and labels.shape[1] == G.c_dim else None


def run_training(
    config: TrainConfig,
    data: Dataset,
    out: Path,
    *,
    weights: Path | None = None,
    resume: str = "auto",
    evaluator: Evaluator | None = None,
    explicit: Collection[str] = (),
    features: Path | None = None,
    mlflow: str = "",
) -> Trained:
    """Train with measurements and progress, and leave run.json; on several GPUs in as many processes.

    Args:
        config: Settings.
        data: Opened dataset.
        out: Run folder.
        weights: Folder with pretrained files, or None.
        resume: See `medgan.training.loop.train`.
        evaluator: Made before, or None to make it here.
        explicit: Names of settings that the user gave, which those of a network to start from do not replace.
        features: Folder for features of the training images; in the run folder when None.
        mlflow: MLflow server or folder to send settings and curves to; empty for none.

    Raises:
        Preempted: SIGTERM or SIGUSR1 came; the state is saved.
    """
    from medgan import runs
    from medgan.ranks import joined
    from medgan.signals import stop_asked

    asked_batch, config = config.batch, for_set(config, len(data))
    if config.batch != asked_batch:
        log.warning("the batch is the %d images of the set, not %d", config.batch, asked_batch)
    runs.check_writable(out, "--out")
    if config.gpus > 1 and started() == 1:
        return _on_processes(config, data, out, weights=weights, resume=resume, evaluator=evaluator, explicit=explicit, mlflow=mlflow)
    cache = features or out / "cache"
    # The question first: to join may take seconds.
    with stop_asked() as asked, joined() as ranks:
        evaluator = evaluator or evaluator_for(config, weights, cache=cache, ranks=ranks)
        measures = evaluator, kid_for(config, weights, cache=cache, ranks=ranks)
        return _train(
            config, data, out, weights=weights, resume=resume, measures=measures, explicit=explicit, ranks=ranks, asked=asked, mlflow=mlflow
        )


def _on_processes(
    config: TrainConfig,
    data: Dataset,
    out: Path,
    *,
    weights: Path | None,
    resume: str,
    evaluator: Evaluator | None,
    explicit: Collection[str],
    mlflow: str,
) -> Trained:
    """The same in `config.gpus` processes of this machine, each of which calls `run_training` (medgan/worker.py)."""
    import tempfile

    from medgan import machine, runs
    from medgan.launch import launch
    from medgan.training.loop import Trained

    machine.check_devices(config.gpus)
    work = {
        "stage": "train",
        "data": str(data.path.absolute()),
        "show_names": data.show_names,
        "out": str(out.absolute()),
        "weights": str(weights.absolute()) if weights else None,
        "resume": resume if resume in ("auto", "new") else str(Path(resume).absolute()),
        "explicit": sorted(explicit),
        "features": str(evaluator.cache.absolute()) if evaluator and evaluator.cache else None,
        "mlflow": mlflow,
    }
    # Not in the run folder, which people pass on: it names places of the data.
    with tempfile.TemporaryDirectory(prefix="medgan-ranks-") as folder:
        runs.write_json(Path(folder) / runs.CONFIG, to_json(config))
        runs.write_json(Path(folder) / WORK, work)
        launch("medgan.worker", [folder], processes=config.gpus)
    status = json.loads((out / runs.STATUS).read_text(encoding="utf-8"))
    if evaluator:
        # From the cache that the ranks filled.
        data = data.limited(config.max_images, seed=config.seed)
        evaluator.reference(data, subjects=data.subjects())
    return Trained(status["status"], float(status["kimg"]), status["best"])


def _train(
    config: TrainConfig,
    data: Dataset,
    out: Path,
    *,
    weights: Path | None,
    resume: str,
    measures: tuple[Evaluator | None, Evaluator | None],
    explicit: Collection[str],
    ranks: Ranks,
    asked: Callable[[], bool],
    mlflow: str,
) -> Trained:
    """One rank's training, measured at snapshots and between them; `asked` says whether this process was told to stop."""
    from medgan import machine, runs
    from medgan.progress import hushed, watch
    from medgan.training.disk import check_room, need_of
    from medgan.training.loop import train

    started_at = runs.utc_now()
    data = data.limited(config.max_images, seed=config.seed)
    config, start = starting_point(config, data, out, folder=weights, resume=resume, explicit=explicit)
    if config.pretrained and ranks.speaks:
        carry_source(out, resume)
    # Before the features of the real images, which may take minutes: the networks fit the images, and the disk the run.
    need = need_of(config, data)
    check_room(need, out)
    _decode(config, data, out, least=need.least, ranks=ranks, asked=asked)
    held_out = held_out_beside(data)
    machine.keep_freed_memory()
    machine.set_precision(config.precision)
    device = machine.device()
    if config.precision == "bf16" and ranks.speaks and not machine.computes_bf16(device):
        click.echo("note: this device has no arithmetic in bfloat16; --precision fp32 is faster here", err=True)

    if device.type == "cuda":
        config = _fitted(config, data, speaks=ranks.speaks)
    on_snapshot, on_kid = _measures(config, data, *measures, device=device, ranks=ranks, asked=asked)
    shown_by = watch("training", out / runs.LOG) if ranks.speaks else hushed("training")
    with shown_by as on_tick, tracked(mlflow if ranks.speaks else "", config, data, out, resume=resume) as follow, memory_of(config):

        def tick(fields: dict[str, str]) -> None:
            on_tick(fields)  # type: ignore[call-arg, arg-type]
            follow()

        trained = train(
            config,
            data,
            out,
            resume=resume,
            device=device,
            held_out=held_out,
            start=start,
            on_snapshot=on_snapshot,
            on_kid=on_kid,
            on_tick=tick if ranks.speaks else None,
            stop=asked,
            ranks=ranks,
        )
    if ranks.speaks:
        status = {"time": runs.utc_now(), "status": trained.status, "kimg": f"{trained.kimg:g}", "best": trained.best}
        runs.write_json(out / runs.STATUS, status)
        inputs = {"dataset": data.identity} | ({"pretrained": config.pretrained} if config.pretrained else {})
        runs.write_json(out / runs.PROVENANCE, runs.provenance("train", to_json(config), inputs, started=started_at))
    return trained


def _decode(config: TrainConfig, data: Dataset, out: Path, *, least: int, ranks: Ranks, asked: Callable[[], bool]) -> None:
    """Check all images, and keep them decoded where the disk has room beside the `least` bytes that the run needs.

    Rank 0 decodes, the others open what it left; they wait, and leave when it does.
    """
    from medgan import runs
    from medgan.progress import bar, nothing
    from medgan.signals import stoppable

    def decode(step: Step) -> None:
        look = stoppable(step, asked, Preempted("stopped while checking images"))
        room = shutil.disk_usage(out).free - least
        data.check(out / runs.DECODED, most_bytes=max(min(int(config.cache_gib * 2**30), room), 0), step=look)

    if ranks.speaks:
        with bar("checking images") as step:
            decode(step)
    ranks.wait()
    if not ranks.speaks:
        decode(nothing)


def _measures(
    config: TrainConfig,
    data: Dataset,
    evaluator: Evaluator | None,
    kid: Evaluator | None,
    *,
    device: torch.device,
    ranks: Ranks,
    asked: Callable[[], bool],
) -> tuple[Snapshot | None, Kid | None]:
    """What measures a generator at snapshots, and what between them; the features of the real images are there afterwards."""
    from medgan.progress import bar, hushed, nothing
    from medgan.sampling.generate import numbered
    from medgan.sampling.steps import stepped
    from medgan.signals import stoppable

    shown = bar if ranks.speaks else hushed

    def measuring(step: Step = nothing) -> Step:
        return stoppable(step, lambda: ranks.any(asked()), Preempted("stopped while measuring"))

    if evaluator:
        with shown("real features") as step:
            evaluator.reference(data, subjects=data.subjects(), step=measuring(step))

    if kid:
        with shown("real features for KID") as step:
            kid.reference(data.limited(config.kid_images, seed=config.seed), step=measuring(step))

    def measure_kid(G_ema: nn.Module) -> Mapping[str, Any] | None:
        assert kid
        draw = numbered(G_ema, KID_SEED, device=device, labels=labels_for(G_ema, data))
        measured = kid.evaluate(sample=draw, n_fake=config.kid_images, step=measuring())
        return {"value": measured["metrics"]["kid"]["value"], "seconds": measured["seconds"]} if measured else None

    def measure(G_ema: nn.Module) -> Mapping[str, Any] | None:
        assert evaluator
        labels = labels_for(G_ema, data)
        draw = numbered(G_ema, SELECTION_SEED, device=device, labels=labels)
        walk = stepped(G_ema, SELECTION_SEED, device=device, labels=labels)
        measured = evaluator.evaluate(sample=draw, walk=walk, n_fake=config.metric_images, step=measuring())
        return {**measured, "seed": SELECTION_SEED} if measured else None

    return measure if evaluator else None, measure_kid if kid else None


@contextmanager
def tracked(uri: str, config: TrainConfig, data: Dataset, out: Path, *, resume: str) -> Iterator[Callable[[], None]]:
    """A training in MLflow, where a server or folder is named: yields what sends the new lines of the run folder.

    Raises:
        ConfigError, OutputError: The server or folder cannot be used; nothing has been trained yet.
    """
    if not uri:
        yield lambda: None
        return
    from medgan import __version__, runs
    from medgan.mlflow import Tracker

    tags = {"medgan": __version__, "commit": runs.commit(), "dataset": data.identity}
    tracker = Tracker(uri, out, params=to_json(config), tags=tags, goes_on=resume == "auto" and (out / runs.STATE).exists())
    try:
        yield tracker.follow
    except BaseException:
        tracker.end(complete=False)
        raise
    tracker.end(complete=json.loads((out / runs.STATUS).read_text(encoding="utf-8"))["pct"] == "100")


def _fitted(config: TrainConfig, data: Dataset, *, speaks: bool) -> TrainConfig:
    """The settings with as many images at a time as fit into what the GPU has free; says so where that is fewer."""
    import torch

    from medgan.commands.plan import shape_of
    from medgan.training.devices import nearest
    from medgan.training.plan import fitted

    free, total = torch.cuda.mem_get_info()
    device, _ = nearest(torch.cuda.get_device_name(), total / 1e9)
    shape = {name: value for name, value in shape_of(data, config).items() if name in ("size", "channels", "c_dim")}
    chosen = fitted(config, **shape, device=device, memory=free)
    if chosen is not config and speaks:
        click.echo(f"note: --batch-gpu {chosen.batch_gpu}, the largest that fits into {free / 1e9:.0f} GB of free GPU memory", err=True)
    return chosen


@contextmanager
def memory_of(config: TrainConfig) -> Iterator[None]:
    """Too little GPU memory inside becomes a problem that names what to try next.

    Raises:
        DeviceError: It was too little.
    """
    import torch

    from medgan.errors import DeviceError
    from medgan.training.plan import batch_gpus

    try:
        yield
    except torch.OutOfMemoryError:
        whole = next((n for n in batch_gpus(config) if config.mbstd_group <= n < config.round_size), 0)
        fix = (
            "--recompute (same result)"
            if not config.recompute
            else "a smaller --mbstd-group and --batch-gpu, smaller images or --channel-base"
        )
        raise DeviceError(
            f"the GPU has too little free memory for --batch-gpu {config.round_size}",
            fix=f"--batch-gpu {whole} (same result)" if whole else fix,
            code="E_GPU_MEMORY",
        ) from None
