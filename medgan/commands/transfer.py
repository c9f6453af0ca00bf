"""Where a training begins: the networks of --pretrained, found, read and compared with the run before anything else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgan import runs, weights
from medgan.config import read_settings
from medgan.errors import MedganError, WeightsError
from medgan.training.config import FROM_THE_NETWORK, TrainConfig, for_transfer

if TYPE_CHECKING:
    from medgan.data.dataset import Dataset
    from medgan.networks.transfer import Pretrained


def given(flags: Mapping[str, Any], config_file: Path | None) -> set[str]:
    """Names of settings that the user gave, by flag, variable or file: what a network to start from does not replace."""
    named = {name for name, value in flags.items() if value is not None}
    return named | (set(read_settings(config_file, TrainConfig)) if config_file else set())


def starting_point(
    config: TrainConfig, data: Dataset, out: Path, *, folder: Path | None, resume: str, explicit: Collection[str]
) -> tuple[TrainConfig, Pretrained | None]:
    """The settings with `pretrained` as a SHA-256, and the networks to start from.

    A run that is resumed has its own weights: the file is compared by its SHA-256 where it still is, and never read.

    Args:
        config: Settings as the user gave them: `pretrained` is a path or a name.
        data: Opened dataset.
        out: Run folder.
        folder: Folder with pretrained files, or None.
        resume: `auto`, `new`, or the path of a run folder or state.
        explicit: Names of settings that the user gave, which the network's own do not replace.

    Returns:
        Settings, and None where nothing is to be filled.

    Raises:
        WeightsError: The networks are absent, damaged, or of another configuration than the run.
    """
    if not config.pretrained:
        return config, None
    if (before := _resumed(out, resume)) is not None:
        kept = {name: before[name] for name in FROM_THE_NETWORK if name in before and name not in explicit}
        if digest := _digest(config.pretrained, folder) or before.get("pretrained", ""):
            return replace(config, pretrained=digest, **kept), None
    from medgan.networks.transfer import check
    from medgan.training.batches import one_hot
    from medgan.training.state import network_arguments

    config, start = transferred(config, folder=folder, explicit=explicit)
    labels = one_hot(data) if config.labels else None
    c_dim = 0 if labels is None else labels.shape[1]
    G, D = network_arguments(config, size=data.resolution, channels=data.channels, c_dim=c_dim)
    check(start, family=config.family, G=G, D=D)
    return config, start


def transferred(config: TrainConfig, *, folder: Path | None, explicit: Collection[str]) -> tuple[TrainConfig, Pretrained]:
    """The networks of --pretrained, and the settings of a new training from them; arguments and errors as `starting_point`."""
    if re.fullmatch(r"[0-9a-f]{64}", config.pretrained):
        raise WeightsError(
            f"the settings name the networks to start from by their SHA-256 only ({config.pretrained[:12]}...)",
            fix="add --pretrained NETWORK",
        )
    from medgan.networks.sources import read_pretrained

    start = read_pretrained(weights.find_network(config.pretrained, folder))
    if start.family == config.family:
        config = for_transfer(config, G=start.G.arguments, D=start.D.arguments, explicit=explicit)
    return replace(config, pretrained=start.sha256), start


def carry_source(out: Path, resume: str) -> None:
    """Take over from another folder's run, which is resumed in `out`, where its first weights came from."""
    path = _folder_of(out, resume) / runs.PRETRAINED
    if resume != "new" and path.exists() and not (out / runs.PRETRAINED).exists():
        shutil.copyfile(path, out / runs.PRETRAINED)


def _folder_of(out: Path, resume: str) -> Path:
    path = out if resume in ("auto", "new") else Path(resume)
    return path if path.is_dir() or path == out else path.parent.parent


def _resumed(out: Path, resume: str) -> dict[str, Any] | None:
    """The settings of the run that is resumed; None where there is none, or none that can be read."""
    if resume == "new":
        return None
    path = _folder_of(out, resume)
    if not (path / runs.STATE).exists():
        return None
    try:
        before = json.loads((path / runs.CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return before if isinstance(before, dict) else None


def _digest(name: str, folder: Path | None) -> str:
    """SHA-256 of the networks that a user names; empty where they are no longer there."""
    if re.fullmatch(r"[0-9a-f]{64}", name):
        return name
    from medgan.networks.sources import identity

    try:
        return identity(weights.find_network(name, folder))
    except (MedganError, OSError):
        return ""
