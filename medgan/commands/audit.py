"""`medgan audit`: are synthetic images copies of training images? The privacy gate of a job as well."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from medgan.config import options_from, resolve, setting, to_json
from medgan.errors import ConfigError, InputError, MedganError, PrivacyError, WeightsError

if TYPE_CHECKING:
    from torch import nn

    from medgan.data.dataset import Dataset
    from medgan.metrics.features import Extractor, Images
    from medgan.metrics.memorisation import Audit

PATH = click.Path(path_type=Path, readable=False)

# Inception on a CPU passes some ten images a second and core; beyond this, grey thumbnails keep an audit at a minute or two.
MOST_ON_CPU = 1500
INCEPTION = "inception-2015-12-05"
# D looks at so many images of either side; a false positive rate of 0.1 % needs a thousand.
MOST_SCORES = {"cpu": 1000, "cuda": 10_000}
SCORE_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """Settings of an audit."""

    n_fake: int = setting(1000, "synthetic images to draw from --bundle; a set given as --fake is looked at whole")
    features: str = setting(
        "auto",
        "features beside grey values: Inception's, thumbnails, or Inception's where its weights are here and the time allows",
        choices=("auto", "inception-2015-12-05", "thumbnails"),
    )
    pairs: int = setting(20, "pictures of the nearest pairs for the local gallery; 0 writes none")
    batch: int = setting(32, "images per forward pass; does not change the result", label="Audit batch")
    seed: int = setting(0, "first seed of the generator's images, and of every draw")

    def __post_init__(self) -> None:
        if self.n_fake < 1:
            raise ConfigError(f"--n-fake {self.n_fake} is less than 1", fix="--n-fake 1000")
        if self.batch < 1:
            raise ConfigError(f"--batch {self.batch}: at least one image at a time", fix="--batch 32")
        if self.pairs < 0:
            raise ConfigError("--pairs is less than 0")


@click.command()
@click.option("--train", type=PATH, required=True, envvar="MEDGAN_TRAIN", help="the images that were trained on: dataset zip or folder")
@click.option(
    "--held-out", type=PATH, envvar="MEDGAN_HELD_OUT_SET", help="images of patients that were not  [default: TRAIN.held-out.zip beside]"
)
@click.option("--fake", type=PATH, envvar="MEDGAN_FAKE", help="synthetic images: zip or folder")
@click.option("--bundle", type=PATH, envvar="MEDGAN_BUNDLE", help="or the generator that makes them")
@click.option(
    "--run", type=PATH, envvar="MEDGAN_RUN", help="run folder, or bundle with a discriminator, to ask whether D knows its training images"
)
@click.option("--out", type=PATH, required=True, envvar="MEDGAN_OUT", help="folder for audit.json and the local gallery pairs/")
@click.option("--weights", type=PATH, envvar="MEDGAN_WEIGHTS", help="folder with pretrained files")
@click.option("--dry-run", is_flag=True, help="print the settings and stop")
@options_from(AuditConfig)
def command(
    train: Path,
    held_out: Path | None,
    fake: Path | None,
    bundle: Path | None,
    run: Path | None,
    out: Path,
    weights: Path | None,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Look for copies of training images among synthetic ones; exit 77 when there are any.

    The result goes to stdout as JSON and to OUT/audit.json. OUT/pairs shows images of patients: it stays where the scans may be.
    Example: medgan audit --train data.zip --fake run/synthetic/synthetic.zip --run run --out run/audit
    """
    config = resolve(AuditConfig(), flags)
    if (fake is None) == (bundle is None):
        raise ConfigError("give the synthetic images as --fake or the generator as --bundle", fix="one of the two")
    if dry_run:
        click.echo(json.dumps(to_json(config), indent=2))
        return
    for flag, path in (("--train", train), ("--held-out", held_out), ("--fake", fake), ("--bundle", bundle), ("--run", run)):
        if path is not None and not path.exists():
            raise InputError(f"{flag} names nothing that exists", fix="check the path")
    from medgan.data.dataset import held_out_of, open_dataset
    from medgan.runs import check_writable

    if out.is_file():
        raise ConfigError("--out is a file", fix="name a folder")
    check_writable(out, "--out")
    real = open_dataset(train, any_size=True)
    held_out = held_out or held_out_of(train)
    others = open_dataset(held_out, any_size=True) if held_out else None
    images = open_dataset(fake, any_size=True) if fake else drawn(bundle, config, real, out)  # type: ignore[arg-type]
    found = perform(config, train=real, fake=images, held_out=others, network=run, out=out, weights=weights)
    click.echo(json.dumps(found.result, indent=2, allow_nan=False))
    if found.refused:
        raise PrivacyError(found.problem, fix="look at OUT/pairs; more patients or a shorter training lead to fewer copies")


def perform(
    config: AuditConfig, *, train: Dataset, fake: Images, held_out: Dataset | None, network: Path | None, out: Path, weights: Path | None
) -> Audit:
    """Audit, and leave audit.json and the gallery in `out`.

    Args:
        config: Settings.
        train: Images that were trained on.
        fake: Synthetic images.
        held_out: Images of patients that were not trained on, or None.
        network: Run folder or bundle whose discriminator is asked too, or None.
        out: Folder, on the side of the scans.
        weights: Folder with pretrained files, or None.

    Raises:
        DataError: The sets differ in size or channels.
        WeightsError: Features were asked for whose weights are absent.
    """
    from medgan.metrics.memorisation import audit
    from medgan.progress import bar
    from medgan.runs import write_json

    # The verdict on other images must not outlive an audit that fails.
    (out / "audit.json").unlink(missing_ok=True)
    shutil.rmtree(out / "pairs", ignore_errors=True)
    total = len(train) + len(fake) + (len(held_out) if held_out else 0)
    extractor, reason = _extractor(config.features, total, weights)
    subjects = train.subjects() or [], (held_out.subjects() or []) if held_out else []
    with bar("audit") as step:
        found = audit(
            train=train,
            fake=fake,
            held_out=held_out,
            train_patients=subjects[0],
            held_out_patients=subjects[1],
            extractor=extractor,
            reason=reason,
            batch=config.batch,
            pairs=config.pairs,
            seed=config.seed,
            step=step,
        )
    found.result["membership"] = _membership(network, train, held_out, subjects, config.seed)
    write_json(out / "audit.json", found.result)
    if found.pairs:
        _write_gallery(out / "pairs", found.pairs, train, fake)
    return found


def drawn(bundle: Path, config: AuditConfig, train: Dataset, scratch: Path) -> Images:
    """Images of a bundle's generator from seed `config.seed` on, with classes as frequent as in the training set, in a file without a name."""
    from medgan import machine
    from medgan.commands.training_run import labels_for
    from medgan.networks.bundle import read_bundle
    from medgan.progress import bar
    from medgan.sampling.generate import numbered

    device = machine.device()
    machine.set_precision("fp32")
    G = read_bundle(bundle)[0].to(device)
    draw = numbered(G, config.seed, device=device, labels=labels_for(G, train))
    first = draw(0, 1)
    kept = np.memmap(tempfile.TemporaryFile(dir=scratch), np.uint8, "w+", shape=(config.n_fake, *first.shape[1:]))  # noqa: SIM115
    with bar("images") as step:
        for start in range(0, config.n_fake, config.batch):
            some = draw(start, min(config.batch, config.n_fake - start))
            kept[start : start + len(some)] = some
            step(start + len(some), config.n_fake)
    return _Array(kept)


class _Array:
    """Images in memory or in a mapped file."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def images(self, indices: Any) -> np.ndarray:
        return np.asarray(self.array[indices if isinstance(indices, slice) else np.asarray(indices, np.int64)])


def _extractor(wanted: str, images: int, weights: Path | None) -> tuple[Extractor | None, str]:
    """The features to compare, and why these; None for thumbnails."""
    from medgan import machine

    if wanted == "thumbnails":
        return None, "asked for"
    from medgan.metrics import EXTRACTORS

    device = machine.device()
    if wanted == "auto" and device.type == "cpu" and images > MOST_ON_CPU:
        return None, f"{images} images are many for Inception on a CPU; --features {INCEPTION} takes the time"
    try:
        extractor: Extractor = EXTRACTORS.get(INCEPTION)(weights=weights, device=str(device), resize="tf1")
        return extractor, "asked for" if wanted != "auto" else "its weights are here"
    except WeightsError:
        if wanted != "auto":
            raise
        return None, "the weights of Inception are not here"


def _membership(
    network: Path | None, train: Dataset, held_out: Dataset | None, subjects: tuple[list[str], list[str]], seed: int
) -> dict[str, Any]:
    """Whether D tells training patients from held-out ones, or why that is not known."""
    if network is None:
        return {"auc": None, "reason": "no discriminator was given (--run)"}
    if held_out is None or not len(held_out):
        return {"auc": None, "reason": "there are no held-out images"}
    from medgan import machine
    from medgan.metrics.membership import membership
    from medgan.networks import NETWORKS
    from medgan.networks.sources import read_pretrained

    try:
        start = read_pretrained(network)
        D = NETWORKS.get(start.family).discriminator(**start.D.arguments)
        D.load_state_dict(start.D.weights)
    except MedganError as error:
        return {"auc": None, "reason": f"no discriminator could be read: {error.message.replace('--pretrained', '--run')}"}
    device = machine.device()
    machine.set_precision("fp32")
    if D.c_dim and (train.labels is None or held_out.labels is None):
        return {"auc": None, "reason": "the discriminator takes classes, and a set has none"}
    rng = np.random.default_rng(seed)
    most = MOST_SCORES.get(device.type, 1000)
    ours, theirs = (np.sort(rng.permutation(len(part))[:most]) for part in (train, held_out))
    scores = discriminator_scores(D.eval().requires_grad_(False).to(device), [(train, ours), (held_out, theirs)], rng)
    if not all(np.isfinite(part).all() for part in scores):
        return {"auc": None, "reason": "the discriminator's scores are not finite numbers"}
    patients = [
        np.unique([keys[i] for i in numbers], return_inverse=True)[1] if keys else np.arange(len(numbers))
        for keys, numbers in zip(subjects, (ours, theirs), strict=True)
    ]
    return membership(train=scores[0], held_out=scores[1], train_patients=patients[0], held_out_patients=patients[1], seed=seed)


def discriminator_scores(D: nn.Module, parts: list[tuple[Dataset, np.ndarray]], rng: np.random.Generator) -> list[np.ndarray]:
    """D's logit of each image, without augmentation.

    D compares the images of a batch (minibatch standard deviation), so that batches mix all parts at random: none tells of its kind.

    Args:
        D: Discriminator, in eval mode.
        parts: Sets, and the numbers of the images wanted of each.
        rng: Draws the order.
    """
    import torch

    from medgan.training.batches import one_hot

    device = next(D.parameters()).device
    c_dim = int(D.c_dim)  # type: ignore[arg-type]
    labels = [one_hot(dataset, c_dim) if c_dim else None for dataset, _ in parts]
    listed = [(part, place) for part, (_, numbers) in enumerate(parts) for place in range(len(numbers))]
    scores = [np.zeros(len(numbers)) for _, numbers in parts]
    order = rng.permutation(len(listed))
    with torch.inference_mode():
        for start in range(0, len(order), SCORE_BATCH):
            some = [listed[i] for i in order[start : start + SCORE_BATCH]]
            # Whole groups only: the last batch is filled up with its first images.
            filled = some + [some[i % len(some)] for i in range(-len(some) % SCORE_BATCH)]
            images = np.concatenate([parts[part][0].images([parts[part][1][place]]) for part, place in filled])
            c = torch.stack([labels[part][parts[part][1][place]] for part, place in filled]).to(device) if c_dim else None
            logits = D(torch.from_numpy(images).to(device).float() / 127.5 - 1, c).flatten().cpu().numpy()
            for (part, place), logit in zip(some, logits, strict=False):
                scores[part][place] = logit
    return scores


def _write_gallery(folder: Path, pairs: list[dict[str, Any]], train: Dataset, fake: Images) -> None:
    """Pictures of the nearest pairs: the synthetic image turned alike, the training image, and four times their difference at equal mean and contrast."""
    import torch
    from PIL import Image

    from medgan.metrics.copies import symmetries
    from medgan.runs import atomic, write_json, write_text

    note = "Left: synthetic, turned as it fits best. Middle: the nearest training image, of a patient. Right: four times their difference, after brightness and contrast were made equal.\nThis folder shows patients: it stays where the scans may be, and is never part of a result.\n"
    write_text(folder / "README.txt", note)
    for place, pair in enumerate(pairs, 1):
        ours, theirs = fake.images([pair["fake"]])[0], train.images([pair["train"]])[0]
        turned = symmetries(torch.from_numpy(ours.copy()))[:, pair["symmetry"]].numpy()
        alike = (turned - turned.mean()) * (theirs.std() / max(turned.std(), 1e-6)) + theirs.mean()
        difference = np.clip(np.round(128 + 4 * (alike - theirs)), 0, 255).astype(np.uint8)
        row = np.concatenate([turned, theirs, difference], 2).transpose(1, 2, 0)
        picture = Image.fromarray(row[:, :, 0] if row.shape[2] == 1 else np.ascontiguousarray(row))
        scale = max(256 // theirs.shape[1], 1)
        with atomic(folder / f"{place:02d}.png") as temporary:
            picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(temporary, format="PNG")
    write_json(
        folder / "pairs.json",
        [{"picture": f"{place:02d}.png", **pair, "image": train.names[pair["train"]]} for place, pair in enumerate(pairs, 1)],
    )
