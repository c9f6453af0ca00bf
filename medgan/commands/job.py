"""The whole way from scans to report: prepare, train, generate, evaluate, report, and the results in their folders.

`medgan demo` and the container (`python -m plugin`) call it; its settings are the fields of a platform's form.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgan.commands.generate import GenerateConfig
from medgan.commands.job_results import Folders, export, export_report, remove, take_over
from medgan.config import setting, to_json, words_of
from medgan.data import RECIPES
from medgan.data.prepare import PrepareConfig
from medgan.data.recipe import SPLITS
from medgan.errors import ConfigError, InputError, PrivacyError, ResumeError
from medgan.training.config import PRESETS, TrainConfig, preset
from medgan.weights import NETWORKS

if TYPE_CHECKING:
    from medgan.data.dataset import Dataset
    from medgan.metrics.evaluate import Evaluator

log = logging.getLogger(__name__)

# Seeds of the images whose figure is reported: not those that chose the snapshot, not those that are given out.
REPORT_SEED = 2_000_000_000
PRESET = "preset"
CHECKED = "checked"

WALKS = ("stylegan2",)
"""Families that have styles to walk through."""


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """What a user of the whole way may set; 0, empty or `preset` leaves a setting to the recipe or preset."""

    recipe: str = setting("ct-liver", "what is done to the scans", choices=RECIPES.names(), label="Recipe")
    mask_label: int = setting(0, "keep slices with this label of the masks (0: the recipe's own, -1: every slice)", label="Mask label")
    mask_name: str = setting("", "keep slices with the segment of this name in DICOM SEG and RT-STRUCT files", label="Mask name")
    window: tuple[float, ...] = setting(
        (),
        "window level and width in the scan's unit, e.g. 50 350 (empty: the recipe's own)",
        nargs=2,
        metavar="L W",
        label="Window (level width)",
    )
    window_preset: str = setting("", "a named window instead of the recipe's, e.g. ct-lung", label="Window preset")
    plane: str = setting("", "axial, coronal or sagittal (empty: the recipe's own)", label="Plane")
    size: int = setting(256, "side of the images in pixels: 32 to 1024, a power of two", label="Image size (px)")
    only_class: str = setting("", "only images of this class of the recipe, by name or number", metavar="NAME", flag="class", label="Class")
    split: str = setting(
        "", "part of a data set that comes in parts (empty: the recipe's own)", choices=("", *SPLITS), label="Part of the data set"
    )
    paper_compatible: bool = setting(
        False, "do as the recipe's paper did, errors included, to compare with its images", label="As in the paper"
    )
    held_out: float = setting(0.1, "share of the patients kept from training (from 10 patients on)", label="Held-out share")
    allow_burned_in: bool = setting(
        False, "take DICOM images that say that annotation is burned into them", label="Allow burned-in annotation"
    )
    pseudonym_key: str = setting("", "file with a secret that makes scan keys the same in every run", label="Pseudonym key", metavar="FILE")
    preset: str = setting("standard", "settings of the training", choices=tuple(PRESETS), label="Training preset")
    kimg: float = setting(0.0, "length of the training in thousands of images shown (0: the preset's own)", label="Training length (kimg)")
    batch: int = setting(0, "images per step (0: the preset's own)", label="Batch")
    gpus: int = setting(1, "GPUs that train together, in one process each", label="GPUs")
    batch_gpu: int = setting(0, "images per GPU at a time (0: all that the GPU has of the batch)", label="Batch per GPU")
    gamma: float = setting(0.0, "weight of the R1 penalty (0: the preset's own)", label="R1 gamma")
    pretrained: str = setting(
        "", "start from these networks: ffhq-256, ffhq-512, ffhq-1024 (in the weights folder) or a file", label="Start from"
    )
    check_transfer: bool = setting(True, "stop before the first step if those are no better than random weights", label="Check the start")
    mirror: str = setting(PRESET, "left-right flips", choices=(PRESET, "yes", "no"), label="Mirror (x-flip)")
    augment: str = setting(PRESET, "augmentation", choices=(PRESET, "none", "ada", "diffaugment"), label="Augmentation")
    metric_images: int = setting(0, "generated images per FID (0: the preset's own)", label="Images per FID")
    images: int = setting(1000, "synthetic images to give back", label="Synthetic images")
    psi: float = setting(1.0, "truncation of the synthetic images: 1 keeps the variety", label="Truncation psi")
    loose: bool = setting(False, "single PNG files instead of one zip", label="Single PNG files")
    include_real_examples: bool = setting(
        False, "show training images in report.html, the file most likely to be passed on", label="Real examples in the report"
    )
    privacy: str = setting(
        "gate",
        "release nothing if training images are copied (gate), only report it, or do not look",
        choices=("gate", "report", "off"),
        label="Privacy audit",
    )
    seed: int = setting(0, "seed of split, weights and all draws", label="Seed")
    resume: str = setting(
        "auto",
        "auto: go on from the state in the scratch folder, in /output/checkpoint or of an earlier run in XNAT, if there is one that fits;"
        " checkpoint: insist on an earlier run's; new: start over; or a checkpoint folder",
        label="Resume",
        metavar="auto|new|checkpoint|PATH",
    )
    time_budget: str = setting("", "stop after this long, e.g. 20h, keep the state and give back the best so far", label="Time budget")

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ConfigError("--images is less than 1")
        self.generating()
        if self.size < 0:
            raise ConfigError("--size is less than 0")
        self.preparing()
        self.training(self.resolution())

    def generating(self) -> GenerateConfig:
        """The settings of `generate`."""
        return GenerateConfig(seeds=f"0-{self.images - 1}", psi=self.psi, format="png" if self.loose else "zip")

    def preparing(self) -> PrepareConfig:
        """The settings of `prepare`: the fields that both have."""
        return PrepareConfig(**{f.name: getattr(self, f.name) for f in fields(PrepareConfig) if hasattr(self, f.name)})

    def resolution(self) -> int:
        """Side of the images that `prepare` will make."""
        return self.size or RECIPES.get(self.recipe).size or 256

    def training(self, size: int) -> TrainConfig:
        """The training's settings for images of `size` pixels."""
        changes: dict[str, Any] = {
            name: getattr(self, name) for name in ("kimg", "batch", "batch_gpu", "gamma", "metric_images") if getattr(self, name)
        }
        if self.kimg:
            changes["epochs"] = 0.0
        if self.mirror != PRESET:
            changes["mirror"] = self.mirror == "yes"
        if self.augment != PRESET:
            changes["augment"] = self.augment
        return replace(
            preset(self.preset, size=size, gpus=self.gpus),
            gpus=self.gpus,
            seed=self.seed,
            time_budget=self.time_budget,
            pretrained=self.pretrained,
            check_transfer=self.check_transfer,
            **changes,
        )


@dataclass(frozen=True)
class JobResult:
    """How a job ended, for the RESULT line: `complete`, `partial` (time budget) or `checked` (data check only)."""

    status: str
    numbers: dict[str, str] = field(default_factory=dict)

    def fields(self) -> dict[str, str]:
        """The words of the RESULT line, in order."""
        return {"status": self.status, **self.numbers}


def run_job(
    config: JobConfig,
    *,
    input: Path,
    output: Path,
    work: Path,
    weights: Path | None = None,
    run_name: str = "",
    check_only: bool = False,
    earlier: Path | None = None,
) -> JobResult:
    """Scans (or a dataset) in `input` to the result folders of `output`.

    Everything is made in `work` and copied at the end, file by file and atomically; a job killed in between leaves no
    half-written result, and the same call goes on from the last saved state in `work`.

    Args:
        config: Settings.
        input: Scans as they are, a dataset zip, or a folder of PNGs; only read.
        output: Gets report/, synthetic/, metrics/, model/, checkpoint/.
        work: Scratch.
        weights: Folder with pretrained files, or None.
        run_name: Sub-folder of this run in each result folder, or empty.
        check_only: Stop after the data check.
        earlier: Run folder with the state of an earlier run, from which this one goes on, or None.

    Raises:
        ResumeError: `--resume checkpoint`, and the earlier run had other data, seed or settings.
        MedganError: Any problem of the stages, with its exit code.
    """
    from medgan import runs
    from medgan.commands.training_run import evaluator_for, run_training
    from medgan.weights import find_network

    started = runs.utc_now()
    run = work / "run"
    folders = Folders(output, run_name)
    if config.resume == "checkpoint" and earlier is None and not check_only:
        raise InputError("there is no state of an earlier run", fix="--resume auto or new")
    # Cheap failures first: the settings were checked when they were made, now the weights, before hours of work.
    evaluator = None if check_only else evaluator_for(config.training(config.resolution()), weights, cache=work / "features")
    if config.pretrained and not check_only:
        find_network(config.pretrained, weights)
    runs.sweep(run)
    runs.write_json(run / runs.JOB, _as_launched(config, "check" if check_only else "train", started))
    taken = not check_only and take_over(config.resume if earlier is None else str(earlier), folders("checkpoint"), run)
    data = dataset_for(config, input, work / "dataset.zip", cache=run / runs.DECODED)
    if check_only:
        from medgan.commands.check import check

        data.write_info(run / runs.DATASET)
        found = check(config.training(data.resolution), data, run, weights=weights)
        numbers = {"images": str(len(data)), "size": str(data.resolution), "dataset": data.identity[:12], **found.fields()}
        runs.write_json(run / runs.STATUS, {"time": runs.utc_now(), "status": CHECKED, **numbers})
        runs.write_json(run / runs.PROVENANCE, runs.provenance("check", to_json(found.config), {"dataset": data.identity}, started=started))
        export_report(run, folders, include_real_examples=config.include_real_examples, pack=False)
        return JobResult(CHECKED, numbers)
    train_config = config.training(data.resolution)
    resume = "new" if config.resume == "new" else "auto"
    try:
        trained = run_training(train_config, data, run, weights=weights, resume=resume, evaluator=evaluator)
    except ResumeError as error:
        if earlier is None or not taken:
            raise
        for name in (runs.STATE, *runs.GOES_ON):
            remove(run / name)
        if config.resume != "auto":
            raise
        # Nobody asked for it: another training on the same scans is no continuation.
        log.warning("the state of an earlier run is not this one's, which begins anew: %s", error.message)
        trained = run_training(train_config, data, run, weights=weights, resume="new", evaluator=evaluator)
    _generate(config, run)
    audited = _audit(config, data, run, folders, weights)
    numbers = _evaluate(train_config, data, run, evaluator)
    runs.write_json(
        run / runs.STATUS, {"time": runs.utc_now(), "status": trained.status, "kimg": f"{trained.kimg:g}", "privacy": audited, **numbers}
    )
    export(run, folders, partial=trained.status == "partial", include_real_examples=config.include_real_examples)
    best = {"best_kimg": f"{trained.best['kimg']:g}"} if trained.best else {}
    return JobResult(trained.status, {"kimg": f"{trained.kimg:g}", **best, **numbers})


def dataset_for(config: JobConfig, source: Path, out: Path, *, cache: Path | None = None) -> Dataset:
    """The dataset of a job: the ready one in `source`, or one prepared from its scans."""
    from medgan.data.dataset import find_dataset, open_dataset
    from medgan.data.prepare import prepare
    from medgan.progress import bar

    ready = find_dataset(source)
    # A folder of pictures is raw data to a recipe that takes pictures; a zip of them is a dataset to all.
    if ready and not (ready.is_dir() and "picture" in RECIPES.get(config.recipe).sources):
        # Whatever a user called a picture may name a patient; the messages of a job are stored with its results.
        return open_dataset(ready, show_names=False, cache=cache)
    with bar("preparing") as step:
        # The scratch folder is the job's own, so a dataset of other settings there is replaced.
        summary = prepare(replace(config.preparing(), overwrite=True), source, out, step=step)
    dropped = ", ".join(f"{count} x {reason}" for reason, count in summary["dropped"].items()) or "nothing"
    log.info("%d images of %d patients kept; left out: %s", summary["kept"], summary["patients"], dropped)
    for warning in summary["warnings"]:
        log.warning("%s", warning)
    return open_dataset(out, cache=cache)


def _as_launched(config: JobConfig, task: str, started: str) -> dict[str, Any]:
    """What the report needs to say how to launch the same job again: the main settings and those that differ from the defaults, without any path."""
    from medgan import runs

    # When to stop and what to go on from make no other images; a file's name may name a patient.
    always, never = ("recipe", "size", "preset", "seed"), ("resume", "time_budget")
    changed = {
        f.name: getattr(config, f.name)
        for f in fields(config)
        if f.name in always or (f.name not in never and getattr(config, f.name) != f.default)
    }
    if config.pseudonym_key:
        changed["pseudonym_key"] = "FILE"
    if config.pretrained and config.pretrained not in NETWORKS:
        changed["pretrained"] = "NETWORK"
    return runs.provenance("job", {"task": task, "words": words_of(changed, JobConfig)}, runs.locked(), started=started)


def _generate(config: JobConfig, run: Path) -> None:
    """The images that are given back, and a short walk between four of them for the report."""
    from medgan import runs
    from medgan.commands.generate import generate
    from medgan.networks.bundle import read_metadata

    for folder in (runs.SYNTHETIC, runs.WALK):
        shutil.rmtree(run / folder, ignore_errors=True)
    generate(config.generating(), run / runs.BUNDLE, run / runs.SYNTHETIC)
    if read_metadata(run / runs.BUNDLE)["medgan"]["family"] in WALKS:
        generate(replace(config.generating(), seeds="0-3", format="zip", walk=True, walk_frames=3), run / runs.BUNDLE, run / runs.WALK)


def _audit(config: JobConfig, data: Dataset, run: Path, folders: Folders, weights: Path | None) -> str:
    """The privacy gate: audits the very images that are given back; returns the verdict.

    Raises:
        PrivacyError: Training images are copied. Nothing of this run is left in the result folders; the gallery stays in the scratch folder.
    """
    from medgan import runs

    shutil.rmtree(run / runs.AUDIT, ignore_errors=True)
    if config.privacy == "off":
        return "not audited"
    from medgan.commands.audit import AuditConfig, perform
    from medgan.commands.training_run import held_out_beside
    from medgan.data.dataset import open_dataset

    synthetic = run / runs.SYNTHETIC
    fake = open_dataset(synthetic if config.loose else synthetic / "synthetic.zip", any_size=True)
    found = perform(
        AuditConfig(seed=config.seed),
        train=data,
        fake=fake,
        held_out=held_out_beside(data),
        network=run,
        out=run / runs.AUDIT,
        weights=weights,
    )
    log.info("privacy audit: %s", found.result["statement"])
    if found.refused and config.privacy == "gate":
        folders.withdraw()
        raise PrivacyError(
            found.problem, fix="look at run/audit/pairs in the scratch folder; more patients or a shorter training, then run anew"
        )
    return str(found.result["verdict"])


def _evaluate(config: TrainConfig, data: Dataset, run: Path, evaluator: Evaluator | None) -> dict[str, str]:
    """metrics.json of the chosen snapshot from fresh images; returns its first metric for the RESULT line."""
    if evaluator is None:
        return {}
    from medgan import machine, runs
    from medgan.commands.training_run import labels_for
    from medgan.networks.bundle import read_bundle
    from medgan.progress import bar
    from medgan.sampling.generate import numbered
    from medgan.sampling.steps import stepped

    device = machine.device()
    G, _ = read_bundle(run / runs.BUNDLE)
    labels = labels_for(G, data)
    draw = numbered(G.to(device), REPORT_SEED, device=device, labels=labels)
    walk = stepped(G, REPORT_SEED, device=device, labels=labels)
    with bar("measuring") as step:
        result = evaluator.evaluate(sample=draw, walk=walk, n_fake=config.metric_images, step=step, uncertainty=step)
        result["seed"] = REPORT_SEED
    runs.write_json(run / runs.METRICS, result)
    name, entry = next(iter(result["metrics"].items()))
    return {name: f"{entry['value']:.4g}", "n_fake": str(result["n_fake"])}
