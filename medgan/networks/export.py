"""A bundle's networks in forms that need no medgan: safetensors with constructor arguments, TorchScript, ONNX.

TorchScript and ONNX hold the generator as one function of tensors: latent (N, z_dim), where it has classes label (N, c_dim), where it has
styles truncation_psi (), to image (N, C, R, R) in about [-1, 1], not clamped. N is free. Noise is the network's stored one.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

import medgan
from medgan.errors import ConfigError
from medgan.networks import NETWORKS
from medgan.networks.bundle import CARD, DISCLAIMER, LICENCE, SUMS, read_bundle, read_discriminator, read_file, window_of, write_sums
from medgan.networks.nvidia import official_discriminator, official_generator
from medgan.runs import atomic, check_writable

NAMES = {"torchscript": "generator.torchscript", "onnx": "generator.onnx"}
ARGUMENTS = "networks.json"
# Of 2022: the newest that the recorder writes and every runtime since then reads.
OPSET = 17

Facts = Mapping[str, str]


class _Recorded(nn.Module):
    """A generator as a function of tensors; a recording takes the names of its inputs from `forward`."""

    def __init__(self, G: nn.Module) -> None:
        super().__init__()
        self.G = G

    def styled(self, latent: Tensor, label: Tensor | None, psi: Tensor) -> Tensor:
        """With stored noise, and truncation by a tensor: it stays an input."""
        ws, middle = self.G.mapping(latent, label), self.G.mapping.w_avg  # type: ignore[operator,union-attr]
        images: Tensor = self.G.synthesis(middle + psi * (ws - middle), noise_mode="const")  # type: ignore[operator]
        return images


class _Plain(_Recorded):
    def forward(self, latent: Tensor) -> Tensor:
        images: Tensor = self.G(latent)
        return images


class _Styled(_Recorded):
    def forward(self, latent: Tensor, truncation_psi: Tensor) -> Tensor:
        return self.styled(latent, None, truncation_psi)


class _Labelled(_Recorded):
    def forward(self, latent: Tensor, label: Tensor, truncation_psi: Tensor) -> Tensor:
        return self.styled(latent, label, truncation_psi)


def recordable(G: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """A generator as a function of tensors, and inputs by name to record it with: two images, untruncated.

    Args:
        G: In eval mode on the CPU.
    """
    latent = torch.randn(2, int(G.z_dim), generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    if not hasattr(G, "num_ws"):
        return _Plain(G).eval(), {"latent": latent}
    psi = torch.tensor(1.0)
    if not G.c_dim:
        return _Styled(G).eval(), {"latent": latent, "truncation_psi": psi}
    label = torch.eye(int(G.c_dim))[[0, 0]]  # type: ignore[arg-type]
    return _Labelled(G).eval(), {"latent": latent, "label": label, "truncation_psi": psi}


@contextmanager
def _recording() -> Iterator[None]:
    """No gradients; no word on shapes that become numbers, which is meant, nor on the age of the recorder (docs/decisions/0039-export.md)."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def torchscript_bytes(G: nn.Module, facts: Facts) -> bytes:
    """The generator as a TorchScript file, with `facts` as JSON in its extra file `medgan.json`."""
    network, inputs = recordable(G)
    buffer = io.BytesIO()
    with _recording():
        recorded = torch.jit.trace(network, tuple(inputs.values()), check_trace=False)
        torch.jit.save(recorded, buffer, _extra_files={"medgan.json": json.dumps(facts)})
    return buffer.getvalue()


def onnx_bytes(G: nn.Module, facts: Facts) -> bytes:
    """The generator as an ONNX file that ONNX's checker accepts, with `facts` in its metadata properties."""
    import onnx

    network, inputs = recordable(G)
    buffer = io.BytesIO()
    axes = {name: {0: "batch"} for name, value in inputs.items() if value.ndim} | {"image": {0: "batch"}}
    with _recording():
        torch.onnx.export(
            network,
            tuple(inputs.values()),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            # Folded, the squares of all weights would lie beside the weights; a runtime folds them when it loads.
            do_constant_folding=False,
            opset_version=OPSET,
            input_names=[*inputs],
            output_names=["image"],
            dynamic_axes=axes,
        )
    model = onnx.load_from_string(buffer.getvalue())
    model.doc_string = DISCLAIMER
    onnx.helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def described(kind: str, family: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What builds a network again: its constructor arguments, all of them, and those of the official code where it has such a network.

    Args:
        kind: `generator` or `discriminator`.
        family: In NETWORKS.
        arguments: Of our constructor; what they leave out is the default.
    """
    network = getattr(NETWORKS.get(family), kind)
    defaults = {name: p.default for name, p in inspect.signature(network).parameters.items() if p.default is not p.empty}
    whole = defaults | dict(arguments)
    official = {"generator": official_generator, "discriminator": official_discriminator}[kind]
    return {
        "file": f"{kind}.safetensors",
        "class": f"{network.__module__}.{network.__qualname__}",
        "arguments": whole,
        **({"official": official(whole)} if family == "stylegan2" else {}),
    }


def export_bundle(bundle: Path, out: Path, formats: Sequence[str]) -> dict[str, Any]:
    """Write a bundle's networks into a folder in other forms; each file is replaced atomically, the checksums last.

    Args:
        bundle: The bundle, folder or zip.
        out: Folder; made when missing.
        formats: Of `safetensors`, `torchscript`, `onnx`.

    Returns:
        The files written, and the model they are of.

    Raises:
        ConfigError: ONNX without the package for it; nothing is written.
        InputError: There is no bundle.
        DataError: It is damaged, or from a newer version.
        OutputError: `out` cannot be written.
    """
    if "onnx" in formats:
        _need_onnx()
    G, metadata = read_bundle(bundle)
    about = metadata["medgan"]
    facts = {
        "synthetic": "true",
        "software": f"medgan {medgan.__version__}",
        "model": about["model_sha256"],
        "family": about["family"],
        "window": json.dumps(window_of(about.get("recipe"))),
        "licence": metadata.get("copyright", ""),
        "disclaimer": DISCLAIMER,
    }
    check_writable(out, "OUT")
    written = []

    def write(name: str, content: bytes) -> None:
        with atomic(out / name) as temporary:
            temporary.write_bytes(content)
        written.append(name)

    if "safetensors" in formats:
        networks = {"generator": (G, about["arguments"])}
        if "discriminator" in about:
            networks["discriminator"] = read_discriminator(bundle)
        for kind, (network, _) in networks.items():
            state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
            write(f"{kind}.safetensors", safetensors.torch.save(state, metadata=facts))
        shown = {kind: described(kind, about["family"], arguments) for kind, (_, arguments) in networks.items()}
        write(ARGUMENTS, (json.dumps({"about": facts, **shown}, indent=2) + "\n").encode())
    if "torchscript" in formats:
        write(NAMES["torchscript"], torchscript_bytes(G, facts))
    if "onnx" in formats:
        write(NAMES["onnx"], onnx_bytes(G, facts))
    write(LICENCE, read_file(bundle, LICENCE))
    write("MODEL_CARD.md", read_file(bundle, CARD))
    write_sums(out, written)
    return {"files": [*written, SUMS], "model_sha256": about["model_sha256"]}


def _need_onnx() -> None:
    try:
        importlib.import_module("onnx")
    except ImportError:
        fix = 'pip install "medgan[export]", or --formats safetensors,torchscript'
        raise ConfigError("--formats onnx needs the package onnx, which is not installed", fix=fix) from None
