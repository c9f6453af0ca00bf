"""A trained generator on disk: a MONAI bundle that `monai.bundle.load` opens and this package reads safely.

Our reader trusts `configs/metadata.json` and `models/model.pt` (tensors only); `configs/inference.json` is for MONAI.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import medgan
from medgan.errors import DataError, InputError
from medgan.networks import NETWORKS
from medgan.runs import save_tensors, sha256, write_json, write_text

METADATA = "configs/metadata.json"
MODEL = "models/model.pt"
DISCRIMINATOR = "models/discriminator.pt"
FORMAT = 1
MOST_BYTES = 2 * 2**30
DISCLAIMER = "Synthetic images are for research; they are not for diagnostic use."


def write_bundle(
    folder: Path,
    G: nn.Module,
    *,
    family: str,
    arguments: Mapping[str, Any],
    details: Mapping[str, Any],
    D: tuple[nn.Module, Mapping[str, Any]] | None = None,
    made_by: str = "medgan train",
) -> None:
    """Write a generator as a MONAI bundle; each file is replaced atomically, the metadata last.

    Args:
        folder: The bundle; made when missing.
        G: The generator whose weights are kept (the running average of a training).
        family: Its family's name in NETWORKS.
        arguments: Its constructor arguments.
        details: What else to remember: recipe, kimg, metric, dataset identity, source of the weights.
        D: The discriminator with its constructor arguments, for transfer learning; None leaves it out.
        made_by: The command that writes it.
    """
    save_tensors(folder / MODEL, {name: tensor.detach().cpu().clone() for name, tensor in G.state_dict().items()})
    discriminator = {}
    if D is not None:
        save_tensors(folder / DISCRIMINATOR, {name: tensor.detach().cpu().clone() for name, tensor in D[0].state_dict().items()})
        discriminator = {"discriminator": {"arguments": dict(D[1]), "sha256": sha256(folder / DISCRIMINATOR)}}
    size, channels = arguments["img_resolution"], arguments["img_channels"]
    metadata = {
        "version": medgan.__version__,
        "changelog": {medgan.__version__: f"written by {made_by}"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.split("+")[0],
        "name": "medgan generator",
        "task": "unconditional generation of 2-D medical images",
        "description": f"A {family} generator of {size} x {size} pixel images, written by {made_by}.",
        "intended_use": DISCLAIMER,
        "copyright": (details.get("source") or {}).get("licence", "the trainer of this model"),
        "network_data_format": {
            "inputs": {
                "latent": {
                    "type": "noise",
                    "format": "latent vector",
                    "num_channels": arguments["z_dim"],
                    "spatial_shape": [],
                    "dtype": "float32",
                    "value_range": [],
                }
            },
            "outputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "num_channels": channels,
                    "spatial_shape": [size, size],
                    "dtype": "float32",
                    "value_range": [-1, 1],
                }
            },
        },
        "medgan": {
            "format": FORMAT,
            "family": family,
            "arguments": dict(arguments),
            "model_sha256": sha256(folder / MODEL),
            **discriminator,
            **details,
        },
    }
    network = NETWORKS.get(family).generator
    inference = {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": f"{network.__module__}.{network.__qualname__}", **arguments},
        "network": "$@network_def.to(@device).eval()",
        "latent": f"$torch.randn(1, {arguments['z_dim']}, device=@device)",
        # `monai.bundle.load` copies the weights itself; `python -m monai.bundle run` is told where the bundle lies.
        "weights": "$torch.load(@bundle_root + '/models/model.pt', map_location=@device, weights_only=True)",
        "run": ["$@network.load_state_dict(@weights)", "$@network(@latent)"],
    }
    write_json(folder / "configs" / "inference.json", inference)
    write_text(folder / "LICENSE", _licence())
    write_text(folder / "docs" / "README.md", model_card(metadata))
    write_json(folder / METADATA, metadata)


def _licence() -> str:
    """The licence of the code that runs the bundle: the checkout's file, or the installed package's."""
    beside = Path(medgan.__file__).resolve().parent.parent / "LICENSE"
    if beside.exists():
        return beside.read_text(encoding="utf-8")
    try:
        return next(f for f in files("medgan") or [] if f.name == "LICENSE").read_text(encoding="utf-8")
    except (PackageNotFoundError, StopIteration):
        return "Apache License 2.0\n"


def model_card(metadata: Mapping[str, Any]) -> str:
    """What a stranger should know of a model, as Markdown."""
    about = metadata["medgan"]
    arguments = about["arguments"]
    recipe = about.get("recipe") or {}
    facts = [
        ("Family", about["family"]),
        ("Image size", f"{arguments['img_resolution']} x {arguments['img_resolution']} pixels, {arguments['img_channels']} channel(s)"),
        ("Trained on", f"{about.get('images', '?')} images, dataset identity `{about.get('dataset', '?')}`"),
        ("Recipe", recipe.get("name", "not recorded")),
        ("Images shown", f"{about.get('kimg', '?')} thousand"),
        ("Chosen by", about.get("chosen_by", "the last snapshot")),
        ("Weights SHA-256", f"`{about['model_sha256']}`"),
    ]
    if source := about.get("source"):
        facts += [
            (
                "Started from" if "dataset" in about else "Imported from",
                f"{source.get('kind', 'a network file')}, sha256 `{source['sha256']}`",
            )
        ]
        facts += [("Licence of those weights", source["licence"])] if source.get("licence") else []
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts)
    return f"""# {metadata["name"]}

{metadata["description"]}

**{DISCLAIMER}**

| | |
|---|---|
{rows}

## Use

    medgan generate --bundle . --out images --seeds 0-99

or `monai.bundle.load("<name>", bundle_dir="<folder above>", workflow_type="inference")` with medgan installed.

## Limits

- It knows the scans it was trained on: their scanner, protocol, patients and window. It shows nothing else.
- A low FID does not exclude copies of training images, and says nothing of single images.
- No identifying data is in this bundle; whether training images can be drawn from it was not part of making it.
"""


def read_metadata(bundle: Path) -> dict[str, Any]:
    """The metadata of a bundle (folder or zip).

    Raises:
        InputError: There is no bundle.
        DataError: The bundle is not ours, or from a newer version.
    """
    try:
        text = _read(bundle, METADATA)
    except (OSError, KeyError, zipfile.BadZipFile):
        raise InputError(
            "--bundle is not a medgan bundle: it has no configs/metadata.json", fix="give the bundle folder or zip of a training run"
        ) from None
    try:
        metadata = json.loads(text)
        about = metadata["medgan"]
    except (ValueError, KeyError, TypeError):
        raise DataError("the bundle's metadata has no medgan part: it was not written by medgan") from None
    if about.get("format", 0) > FORMAT:
        raise DataError(f"the bundle has format {about['format']}, this version reads up to {FORMAT}", fix="upgrade medgan")
    return metadata


def _read(bundle: Path, name: str) -> bytes:
    if bundle.is_dir():
        return (bundle / name).read_bytes()
    with zipfile.ZipFile(bundle) as archive:
        # zipfile reads no more than the directory declares.
        if archive.getinfo(name).file_size > MOST_BYTES:
            raise DataError(f"{name} in the bundle is larger than any network", fix="take the bundle from its run again")
        return archive.read(name)


def read_bundle(bundle: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The generator of a bundle, in eval mode on the CPU, and the bundle's metadata.

    Raises:
        InputError: There is no bundle.
        DataError: The weights do not fit what the metadata says.
    """
    metadata = read_metadata(bundle)
    about = metadata["medgan"]
    G = NETWORKS.get(about["family"]).generator(**about["arguments"])
    _load(bundle, MODEL, about["model_sha256"], G)
    return G.eval().requires_grad_(False), metadata


def read_discriminator(bundle: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The discriminator of a bundle, in eval mode on the CPU, and its constructor arguments.

    Raises:
        InputError: There is no bundle, or it holds no discriminator.
        DataError: The weights do not fit what the metadata says.
    """
    about = read_metadata(bundle)["medgan"]
    if "discriminator" not in about:
        raise InputError("the bundle holds no discriminator", fix="give the run folder it came from, or a bundle of `medgan import`")
    arguments = about["discriminator"]["arguments"]
    D = NETWORKS.get(about["family"]).discriminator(**arguments)
    _load(bundle, DISCRIMINATOR, about["discriminator"]["sha256"], D)
    return D.eval().requires_grad_(False), arguments


def _load(bundle: Path, name: str, digest: str, network: nn.Module) -> None:
    """Fill a network with a bundle's weights, once they are known to be those that the metadata names."""
    again = "take the bundle from its run again"
    try:
        content = _read(bundle, name)
    except (OSError, KeyError, zipfile.BadZipFile):
        raise DataError(f"the bundle lacks {name}", fix=again) from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError("the bundle's weights are not those its metadata names (sha256)", fix=again)
    try:
        network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except Exception as error:
        raise DataError(f"the bundle's weights cannot be read or do not fit its metadata ({type(error).__name__})", fix=again) from None
