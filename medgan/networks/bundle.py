"""A trained generator on disk: a MONAI bundle that `monai.bundle.load` opens and this package reads safely.

Our reader trusts `configs/metadata.json` and `models/model.pt` (tensors only); `configs/inference.json` is for MONAI. SHA256SUMS covers every
file and is checked when a bundle is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import medgan
from medgan.errors import ConfigError, DataError, InputError
from medgan.networks import NETWORKS
from medgan.networks.card import RENEW, model_card
from medgan.runs import BUNDLE_FORMAT, save_tensors, sha256, write_json, write_text

METADATA = "configs/metadata.json"
INFERENCE = "configs/inference.json"
LICENCE = "LICENSE"
CARD = "docs/README.md"
SUMS = "SHA256SUMS"
MODEL = "models/model.pt"
DISCRIMINATOR = "models/discriminator.pt"
FORMAT = BUNDLE_FORMAT
MOST_BYTES = 2 * 2**30
COMMAND = ("GenerateConfig", "generate")
AGAIN = "take the bundle from its run again"
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
    """Write a generator as a MONAI bundle; each file is replaced atomically, the checksums last.

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
    about = {
        "format": FORMAT,
        "family": family,
        "arguments": dict(arguments),
        "model_sha256": sha256(folder / MODEL),
        **discriminator,
        **details,
        "window": window_of(details.get("recipe")),
        "checksums": SUMS,
    }
    metadata = _metadata(about, made_by)
    write_json(folder / INFERENCE, _inference(about))
    write_text(folder / LICENCE, _licence())
    write_text(folder / CARD, model_card(metadata, disclaimer=DISCLAIMER))
    write_json(folder / METADATA, metadata)
    write_sums(folder, [LICENCE, INFERENCE, METADATA, CARD, *([DISCRIMINATOR] if D else []), MODEL])


def _metadata(about: dict[str, Any], made_by: str) -> dict[str, Any]:
    """configs/metadata.json, under the names of MONAI's bundle specification and its schema; `medgan` is our part."""
    arguments, family = about["arguments"], about["family"]
    size, channels, classes = arguments["img_resolution"], arguments["img_channels"], arguments.get("c_dim", 0)
    vector = {"spatial_shape": [], "dtype": "float32"}
    latent = {"type": "noise", "format": "latent", "num_channels": arguments["z_dim"], **vector, "value_range": []}
    label = {"type": "image", "format": "classification", "num_channels": classes, **vector, "value_range": [0, 1]}
    image = {"type": "image", "format": "magnitude", "num_channels": channels, "spatial_shape": [size, size], "dtype": "float32"}
    colours = ["grey"] if channels == 1 else ["red", "green", "blue"]
    image |= {"value_range": [-1, 1], "is_patch_data": False, "channel_def": {str(i): name for i, name in enumerate(colours)}}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": medgan.__version__,
        "changelog": {medgan.__version__: f"written by {made_by}"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"medgan": medgan.__version__},
        "name": "medgan generator",
        "task": f"{'conditional' if classes else 'unconditional'} generation of 2-D medical images",
        "description": f"A {family} generator of {size} x {size} pixel images, written by {made_by}.",
        "authors": "TODO: who trained it",
        "copyright": (about.get("source") or {}).get("licence") or "TODO: the trainer of this model",
        "data_source": "TODO: the scans it was trained on",
        "data_type": "PNG with 8 bits a channel",
        "intended_use": DISCLAIMER,
        "references": ["Karras et al. 2020, arXiv 1912.04958"] if family == "stylegan2" else [],
        "network_data_format": {"inputs": {"latent": latent} | ({"label": label} if classes else {}), "outputs": {"image": image}},
        "medgan": about,
    }


def _inference(about: dict[str, Any]) -> dict[str, Any]:
    """configs/inference.json: `python -m monai.bundle run` draws images by it as `medgan generate` does, `monai.bundle.load` finds the network."""
    network = NETWORKS.get(about["family"]).generator
    settings = ("seeds", "psi", "noise", "format")
    chosen = ", ".join(["seeds=str(@seeds)", "psi=@psi", "noise=@noise", "class_index=str(@class)", "format=@format"])
    return {
        # MONAI takes one name of each import.
        "imports": ["$import torch", "$from pathlib import Path", *(f"$from medgan.commands.generate import {name}" for name in COMMAND)],
        "bundle_root": ".",
        "output_dir": "images",
        **dict(zip(settings, ("0-15", 1.0, "random", "png"), strict=True)),
        "class": "all",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": f"{network.__module__}.{network.__qualname__}", **about["arguments"]},
        "weights": "$torch.load(@bundle_root + '/models/model.pt', map_location=@device, weights_only=True)",
        # Reads the bundle by itself, with its checksums. `load` fills `network_def` from models/model.pt.
        "run": [f"$generate(GenerateConfig({chosen}), Path(@bundle_root), Path(@output_dir))"],
    }


def window_of(recipe: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a pixel means in the unit of the scan, where one linear mapping held for all images.

    A window of level L and width W maps a value v to the image x = 2 (v - L) / W in [-1, 1], so v = L + W x / 2, or L - W / 2 + W p / 255 of
    the 8-bit pixel p (LINEAR_EXACT, PS3.3 C.11.2.1.3.2). What was clipped comes back as the window's edge.

    Args:
        recipe: Of the dataset, as in recipe.json; None or empty where there was none.

    Returns:
        `intensity` of the recipe; with it `function`, `level`, `width`, `unit`, `inverse` (words) and `slope`, `intercept` of the 8-bit
        pixel, or the `reason` why there is no way back.
    """
    recipe = recipe or {}
    intensity = recipe.get("intensity", "unknown")
    if intensity != "window":
        reasons = {
            "percentile": "each volume was scaled to its own percentiles: a pixel has no unit",
            "minmax": "each volume was scaled to its own range: a pixel has no unit",
            "display": "each picture was shown as its own header says: a pixel has no unit",
            "stored": "pictures were taken as they are: a pixel has no unit",
        }
        return {"intensity": intensity, "reason": reasons.get(intensity, "the recipe is not known: a pixel has no unit")}
    if recipe.get("paper_compatible") and "slice-range" in recipe.get("paper_rules", ()):
        return {"intensity": intensity, "reason": "each slice was scaled to its own range, as the paper's code does: a pixel has no unit"}
    if recipe.get("modality") not in ("CT", "MR"):
        return {
            "intensity": intensity,
            "reason": "black and white may be exchanged in some of the pictures (MONOCHROME1): a pixel has no unit",
        }
    level, width = float(recipe["level"]), float(recipe["width"])
    return {
        "intensity": intensity,
        "function": "LINEAR_EXACT",
        "level": level,
        "width": width,
        "unit": "HU" if recipe["modality"] == "CT" else "of the scan",
        "inverse": f"value = {level:g} + {width / 2:g} x of the output x in [-1, 1]",
        "slope": width / 255,
        "intercept": level - width / 2,
    }


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """SHA256SUMS of files in a folder, as `sha256sum -c` reads it."""
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in sorted(names)))


def _licence() -> str:
    """The licence of the code that runs the bundle: the checkout's file, or the installed package's."""
    beside = Path(medgan.__file__).resolve().parent.parent / "LICENSE"
    if beside.exists():
        return beside.read_text(encoding="utf-8")
    try:
        return next(f for f in files("medgan") or [] if f.name == "LICENSE").read_text(encoding="utf-8")
    except (PackageNotFoundError, StopIteration):
        return "Apache License 2.0\n"


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
    if not {"family", "arguments", "model_sha256"} <= about.keys() or not isinstance(about.get("format", 0), int):
        raise DataError("the bundle's metadata is not complete", fix=AGAIN)
    if about.get("format", 0) > FORMAT:
        raise DataError(f"the bundle has format {about['format']}, this version reads up to {FORMAT}", fix="upgrade medgan")
    return metadata


def read_file(bundle: Path, name: str) -> bytes:
    """One file of a bundle, folder or zip.

    Raises:
        DataError: It is not there.
    """
    try:
        return _read(bundle, name)
    except (OSError, KeyError, zipfile.BadZipFile):
        raise DataError(f"the bundle lacks {name}", fix=AGAIN) from None


def _check_sums(bundle: Path, about: Mapping[str, Any]) -> None:
    """Compare the files of a bundle with its SHA256SUMS, the weights by their digests in the metadata: their bytes are hashed when they are loaded.

    Raises:
        DataError: One differs or is missing.
    """
    # The first bundles had none.
    if "checksums" not in about:
        return
    known = {MODEL: about["model_sha256"]} | ({DISCRIMINATOR: about["discriminator"]["sha256"]} if "discriminator" in about else {})
    lines = [line.partition("  ") for line in read_file(bundle, SUMS).decode(errors="replace").splitlines()]
    sums = {name.removeprefix("./"): digest for digest, _, name in lines}
    for name in (LICENCE, INFERENCE, METADATA, CARD, *known):
        digest = known.get(name) or hashlib.sha256(read_file(bundle, name)).hexdigest()
        if sums.get(name) != digest:
            raise DataError(
                f"{name} in the bundle is not the file that SHA256SUMS names",
                fix=f"{AGAIN}; or, if you changed it yourself, inside it: {RENEW}",
            )


def _read(bundle: Path, name: str) -> bytes:
    if bundle.is_dir():
        return (bundle / name).read_bytes()
    with zipfile.ZipFile(bundle) as archive:
        # zipfile reads no more than the directory declares.
        if archive.getinfo(name).file_size > MOST_BYTES:
            raise DataError(f"{name} in the bundle is larger than any network", fix=AGAIN)
        return archive.read(name)


def read_bundle(bundle: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The generator of a bundle, in eval mode on the CPU, and the bundle's metadata.

    Raises:
        InputError: There is no bundle.
        DataError: The weights do not fit what the metadata says.
    """
    metadata = read_metadata(bundle)
    about = metadata["medgan"]
    _check_sums(bundle, about)
    G = _network("generator", about["arguments"], metadata)
    _load(bundle, MODEL, about["model_sha256"], G)
    return G.eval().requires_grad_(False), metadata


def read_discriminator(bundle: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The discriminator of a bundle, in eval mode on the CPU, and its constructor arguments.

    Raises:
        InputError: There is no bundle, or it holds no discriminator.
        DataError: The weights do not fit what the metadata says.
    """
    metadata = read_metadata(bundle)
    about = metadata["medgan"]
    if "discriminator" not in about:
        raise InputError("the bundle holds no discriminator", fix="give the run folder it came from, or a bundle of `medgan import`")
    _check_sums(bundle, about)
    arguments = about["discriminator"]["arguments"]
    D = _network("discriminator", arguments, metadata)
    _load(bundle, DISCRIMINATOR, about["discriminator"]["sha256"], D)
    return D.eval().requires_grad_(False), arguments


def _network(kind: str, arguments: Mapping[str, Any], metadata: Mapping[str, Any]) -> nn.Module:
    """A network of the family that a bundle names, with its arguments; a newer version may have others of both."""
    try:
        network: nn.Module = getattr(NETWORKS.get(metadata["medgan"]["family"]), kind)(**arguments)
    except (ConfigError, TypeError, ValueError):
        raise DataError(
            f"the bundle's {kind}, written by medgan {metadata.get('version', '?')}, is none that medgan {medgan.__version__} knows",
            fix="upgrade medgan",
        ) from None
    return network


def _load(bundle: Path, name: str, digest: str, network: nn.Module) -> None:
    """Fill a network with a bundle's weights, once they are known to be those that the metadata names."""
    content = read_file(bundle, name)
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError("the bundle's weights are not those its metadata names (sha256)", fix=AGAIN)
    try:
        network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except Exception as error:
        raise DataError(f"the bundle's weights cannot be read or do not fit its metadata ({type(error).__name__})", fix=AGAIN) from None
