"""Networks to start from, wherever they lie: an official pickle, a medgan bundle, or the folder of a training."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medgan import runs
from medgan.errors import MedganError, WeightsError
from medgan.networks import bundle
from medgan.networks.nvidia import read_official
from medgan.networks.shapes import discriminator_arguments, generator_arguments
from medgan.networks.transfer import Network, Pretrained


def read_pretrained(path: Path) -> Pretrained:
    """The networks at `path`, on the CPU.

    Args:
        path: An official network pickle; a medgan bundle with a discriminator (folder or zip); or a run folder, whose last state is taken.

    Raises:
        WeightsError: There is nothing of the kind, or it is damaged.
    """
    if not path.exists():
        raise WeightsError("--pretrained names nothing that exists", fix="an official network pickle, a bundle, a run folder, or ffhq-256")
    try:
        if path.is_dir() and (path / runs.STATE).is_file():
            return _from_run(path)
        if path.is_dir() or _is_bundle(path):
            return _from_bundle(path)
    except WeightsError:
        raise
    except MedganError as error:
        raise WeightsError(f"--pretrained: {error.message}", fix=error.fix) from None
    return read_official(path)


def identity(path: Path) -> str:
    """The `sha256` that `read_pretrained` gives, without reading the networks."""
    if path.is_dir() and (path / runs.STATE).is_file():
        return runs.sha256(path / runs.STATE)
    if path.is_dir() or _is_bundle(path):
        return _bundle_identity(bundle.read_metadata(path)["medgan"])
    return runs.sha256(path)


def _is_bundle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return bundle.METADATA in archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _from_run(folder: Path) -> Pretrained:
    path = folder / runs.STATE
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        family = str(content["config"]["family"])
        states = {name: dict(content[name]) for name in ("G", "D", "G_ema")}
    except Exception as error:
        raise WeightsError(
            f"--pretrained: the run's saved state cannot be read ({type(error).__name__})", fix="another run folder"
        ) from None
    if family != "stylegan2":
        raise WeightsError(f"--pretrained is a run of the family {family}; only stylegan2 can be read", fix="a run of stylegan2")
    networks = {name: network(state) for name, state in states.items()}
    licence = ""
    if (folder / runs.PRETRAINED).is_file():
        licence = str(json.loads((folder / runs.PRETRAINED).read_text(encoding="utf-8")).get("licence", ""))
    return Pretrained("medgan run", runs.sha256(path), licence, family, networks["G"], networks["D"], networks["G_ema"])


def network(weights: dict[str, Tensor]) -> Network:
    """A StyleGAN2 network of which only the weights are known.

    Raises:
        WeightsError: They are no such network's.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    arguments = (generator_arguments if "synthesis.b4.const" in shapes else discriminator_arguments)(shapes, {})
    return Network(arguments, weights)


def _from_bundle(path: Path) -> Pretrained:
    G, metadata = bundle.read_bundle(path)
    about = metadata["medgan"]
    D, arguments = bundle.read_discriminator(path)
    licence = str((about.get("source") or {}).get("licence", ""))
    generator = Network(about["arguments"], dict(G.state_dict()))
    discriminator = Network(arguments, dict(D.state_dict()))
    return Pretrained("medgan bundle", _bundle_identity(about), licence, about["family"], generator, discriminator, generator)


def _bundle_identity(about: dict[str, Any]) -> str:
    """One digest for both networks, the same for the folder and its zip."""
    parts = [about["model_sha256"], (about.get("discriminator") or {}).get("sha256", "")]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()
