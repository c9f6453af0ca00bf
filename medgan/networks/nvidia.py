"""Official network pickles: stylegan2-ada-pytorch, the stylegan2 configuration of stylegan3, and TensorFlow files.

A file is read as data (unpickle.py), its network's configuration from the shapes of its tensors and from what it says of
itself (shapes.py); only then are numbers copied. STYLEGAN2-ADA.md 9 names the records of these files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medgan.errors import WeightsError
from medgan.networks import tensorflow
from medgan.networks.records import Array, Record, Stored, TFNetwork, refuse, shown
from medgan.networks.shapes import discriminator_arguments, generator_arguments
from medgan.networks.transfer import Network, Pretrained
from medgan.networks.unpickle import MOST_BYTES, Reader, read_pickle

LICENCE = "NVIDIA Source Code Licence: research and evaluation only"

MOST_MODULES = 5000
MOST_DEPTH = 16

# Constructor keywords of both repositories that change no number here: half precision, memory layout, kernels, what is trained.
INERT = {"num_fp16_res", "fp16_channels_last", "fused_modconv_default", "class_name"}
# Keywords whose official default is the only value these networks have.
FIXED: dict[str, Any] = {
    "activation": "lrelu",
    "resample_filter": [1, 3, 3, 1],
    "embed_features": None,
    "layer_features": None,
    "cmap_dim": None,
}
NAMES_OF_G = {
    "z_dim",
    "c_dim",
    "w_dim",
    "img_resolution",
    "img_channels",
    "channel_base",
    "channel_max",
    "architecture",
    "use_noise",
    "conv_clamp",
}
NAMES_OF_D = {"c_dim", "img_resolution", "img_channels", "channel_base", "channel_max", "architecture", "conv_clamp"}


def read_official(path: Path) -> Pretrained:
    """The networks of an official pickle; nothing in the file is run.

    Raises:
        WeightsError: It cannot be read, is no such file, or holds anything that no such file does.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            refuse(f"it has {size:,} bytes, more than any official file")
        # Read once: what is checked, hashed and used are the same bytes.
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"the network file cannot be read ({error.strerror})", fix="check its owner and mode") from None
    value, reader = read_pickle(data)
    try:
        return _networks(value, reader, hashlib.sha256(data).hexdigest())
    except (ValueError, TypeError, OverflowError, LookupError, RuntimeError, MemoryError) as error:
        refuse(f"its networks are damaged ({type(error).__name__})")


def _networks(value: Any, reader: Reader, digest: str) -> Pretrained:
    if type(value) is tuple and len(value) == 3 and all(isinstance(part, TFNetwork) for part in value):
        G, D, Gs = value
        kind = "legacy TensorFlow"
        networks = [_from_tensorflow(G, reader, tensorflow.generator), _from_tensorflow(D, reader, tensorflow.discriminator)]
        networks.append(_from_tensorflow(Gs, reader, tensorflow.generator))
    elif isinstance(value, dict) and all(isinstance(value.get(name), Record) for name in ("G", "D", "G_ema")):
        ada = "synthesis_kwargs" in _keywords(value["G_ema"])
        kind = "stylegan2-ada-pytorch" if ada else "stylegan3 repository, stylegan2 configuration"
        networks = [_from_pytorch(value[name], reader, ada=ada) for name in ("G", "D", "G_ema")]
    else:
        refuse("it holds no generator, discriminator and averaged generator")
    G_net, D_net, ema = networks
    if G_net.arguments != ema.arguments:
        refuse("its generator and its averaged generator differ in configuration")
    return Pretrained(kind, digest, LICENCE, "stylegan2", G_net, D_net, ema)


def _keywords(module: Record) -> dict[str, Any]:
    keywords, positional = module.state.get("_init_kwargs"), module.state.get("_init_args")
    if not isinstance(keywords, dict) or type(positional) is not tuple or positional:
        refuse("a network whose constructor arguments are not named")
    return keywords


def _from_pytorch(module: Record, reader: Reader, *, ada: bool) -> Network:
    generator = module.class_name == "Generator"
    if not generator and module.class_name != "Discriminator":
        refuse(f"a network of the class {shown(module.class_name)}")
    stored = _tensors(module)
    if any(name.startswith(("synthesis.L", "synthesis.input")) for name in stored):
        refuse("a StyleGAN3 generator (stylegan3-t or -r), and only the stylegan2 configuration can be read")
    said = _said(_keywords(module), generator=generator, ada=ada)
    shapes = {name: tensor.size for name, tensor in stored.items()}
    arguments = (generator_arguments if generator else discriminator_arguments)(shapes, said)
    reader.spend(sum(tensor.nbytes for tensor in stored.values()))
    return Network(arguments, _finite({name: tensor.tensor() for name, tensor in stored.items()}))


def _tensors(root: Record) -> dict[str, Stored]:
    """Every parameter and buffer by its full name, not yet copied."""
    found: dict[str, Stored] = {}
    waiting = [("", root, 0)]
    modules = 0
    while waiting:
        prefix, module, depth = waiting.pop()
        modules += 1
        if modules > MOST_MODULES or depth > MOST_DEPTH:
            refuse("its modules are nested without end")
        for part in ("_parameters", "_buffers", "_modules"):
            entries = module.state.get(part)
            if not isinstance(entries, dict):
                refuse(f"a module without {part}")
            for name, entry in entries.items():
                full = f"{prefix}{name}"
                if entry is None:
                    continue
                if part == "_modules" and isinstance(entry, Record):
                    waiting.append((f"{full}.", entry, depth + 1))
                elif part != "_modules" and isinstance(entry, Stored) and full not in found:
                    found[full] = entry
                else:
                    refuse(f"a module whose {part} hold something else")
    return found


def _said(keywords: Mapping[str, Any], *, generator: bool, ada: bool) -> dict[str, Any]:
    """What a PyTorch file says of a network, under the names of our constructors, with the defaults of its repository."""
    known = NAMES_OF_G if generator else NAMES_OF_D
    flat = dict(keywords)
    nested = {name: flat.pop(name, {}) for name in ("synthesis_kwargs", "block_kwargs", "epilogue_kwargs", "mapping_kwargs")}
    if not all(isinstance(part, dict) for part in nested.values()):
        refuse("constructor arguments that are no dictionary")
    mapping, block, epilogue = nested["mapping_kwargs"], nested["block_kwargs"], nested["epilogue_kwargs"]
    # sg3's classes clamp at 256 by themselves, sg2ada's do not.
    said: dict[str, Any] = {"conv_clamp": None if ada else 256}
    for name, value in (flat | nested["synthesis_kwargs"]).items():
        if name in known:
            said[name] = value
        elif name in FIXED:
            _is_fixed(name, value)
        elif name not in INERT:
            refuse(f"the constructor argument {shown(name)}, which no stylegan2 configuration has")
    for name, value in block.items():
        if name != "freeze_layers" and name not in INERT:
            _is_fixed(name, value)
    for name, value in epilogue.items():
        if name in ("mbstd_group_size", "mbstd_num_channels"):
            said[name] = value
        else:
            _is_fixed(name, value)
    if generator:
        said["w_avg_beta"] = 0.995 if ada else 0.998
    for name, value in mapping.items():
        if name == "num_layers":
            said["mapping_layers"] = value
        elif name == "w_avg_beta":
            if generator:
                said[name] = value
        elif name != "lr_multiplier":
            _is_fixed(name, value)
    # Files converted from TensorFlow say 0.1 for a discriminator that has no mapping layers, where it multiplies nothing.
    used = generator or (said.get("c_dim") and said.get("mapping_layers", 8))
    if used and mapping.get("lr_multiplier", 0.01) != 0.01:
        refuse("a mapping network with another learning rate multiplier than 0.01")
    return checked_values(said)


def _is_fixed(name: str, value: Any) -> None:
    if name not in FIXED:
        refuse(f"the constructor argument {shown(name)}, which no stylegan2 configuration has")
    found = list(value) if type(value) is tuple else value
    if found != FIXED[name]:
        refuse(f"another {name} than the official one")


def checked_values(said: dict[str, Any]) -> dict[str, Any]:
    """What a file says, each value of the type and range that the constructors take.

    Raises:
        WeightsError: One is not.
    """
    for name, value in said.items():
        number = type(value) in (int, float) and math.isfinite(value)
        if name == "architecture":
            right = type(value) is str and value in ("skip", "resnet", "orig")
        elif name == "use_noise":
            right = type(value) is bool
        elif name == "conv_clamp":
            right = value is None or (number and value > 0)
        elif name == "w_avg_beta":
            right = number and 0 <= value <= 1
        elif name == "mbstd_group_size":
            right = value is None or (type(value) is int and 1 <= value <= 4096)
        else:
            right = type(value) is int and 0 <= value <= 2**24
        if not right:
            refuse(f"an impossible {name}")
    return said


def _from_tensorflow(network: TFNetwork, reader: Reader, convert: tensorflow.Convert) -> Network:
    variables, said, make = convert(network)
    reader.spend(sum(len(v.data) for _, v in variables.values() if isinstance(v, Array)))
    weights = tensorflow.weights(variables)
    arguments = make({name: tuple(tensor.shape) for name, tensor in weights.items()}, checked_values(said))
    return Network(arguments, _finite(weights))


def _finite(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            refuse(f"{name} has numbers that are not finite")
        if name.endswith("resample_filter") and not torch.allclose(tensor, tensorflow.FILTER, atol=1e-6):
            refuse("another resampling filter than the official one")
    return weights


def official_generator(arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The constructor keywords of a generator in either official repository, in single precision.

    Args:
        arguments: Of our `Generator`, all of them.

    Returns:
        Repository -> keywords. The state names are the same there as here (STYLEGAN2-ADA.md 4).
    """
    plain = {name: arguments[name] for name in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")}
    mapping = {"mapping_kwargs": {"num_layers": arguments["mapping_layers"], "w_avg_beta": arguments["w_avg_beta"]}}
    names = ("channel_base", "channel_max", "architecture", "use_noise", "conv_clamp")
    # Both are said because sg3's classes go by half precision and a clamp of 256 where they are not.
    synthesis = {name: arguments[name] for name in names} | {"num_fp16_res": 0}
    return {"stylegan3": plain | mapping | synthesis, "stylegan2-ada-pytorch": plain | mapping | {"synthesis_kwargs": synthesis}}


def official_discriminator(arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The constructor keywords of a discriminator, likewise; nothing is frozen in it."""
    names = ("c_dim", "img_resolution", "img_channels", "channel_base", "channel_max", "architecture", "conv_clamp")
    epilogue = {name: arguments[name] for name in ("mbstd_group_size", "mbstd_num_channels")}
    keywords = {name: arguments[name] for name in names} | {
        "num_fp16_res": 0,
        "mapping_kwargs": {"num_layers": arguments["mapping_layers"]},
        "epilogue_kwargs": epilogue,
    }
    return {"stylegan3": keywords, "stylegan2-ada-pytorch": keywords}
