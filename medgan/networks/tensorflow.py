"""Variables of the TensorFlow StyleGAN2 networks (stylegan2, stylegan2-ada) under the names and layouts of PyTorch.

STYLEGAN2-ADA.md 9.3: dense weights are transposed; convolutions go from (k, k, I, O) to (O, I, k, k), those that upsample with both
axes flipped; a style's bias gains 1; the constant loses its leading axis.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from medgan.networks import ops
from medgan.networks.records import Array, TFNetwork, refuse, shown
from medgan.networks.shapes import discriminator_arguments, generator_arguments

Variables = dict[str, Any]
Renamed = dict[str, tuple[str, Any]]
Make = Callable[[dict[str, tuple[int, ...]], dict[str, Any]], dict[str, Any]]
Convert = Callable[[TFNetwork], tuple[Renamed, dict[str, Any], Make]]

FILTER = ops.setup_filter((1, 3, 3, 1))

# Arguments of the build functions that change no weight and no image at psi 1.
IGNORED = {"truncation_psi", "truncation_cutoff", "style_mixing_prob", "structure", "conditioning", "fused_modconv", "num_fp16_res"}
# Ours -> (theirs, their default). channel_base is twice their fmap_base.
SHARED = {"c_dim": ("label_size", 0), "img_resolution": ("resolution", 1024), "img_channels": ("num_channels", 3), "channel_max": ("fmap_max", 512), "conv_clamp": ("conv_clamp", None)}  # fmt: skip
OF_G = {"z_dim": ("latent_size", 512), "w_dim": ("dlatent_size", 512), "architecture": ("architecture", "skip"), "use_noise": ("use_noise", True), "mapping_layers": ("mapping_layers", 8), "w_avg_beta": ("w_avg_beta", 0.995)}  # fmt: skip
OF_D = {"architecture": ("architecture", "resnet"), "mbstd_group_size": ("mbstd_group_size", None), "mbstd_num_channels": ("mbstd_num_features", 1), "mapping_layers": ("mapping_layers", 0)}  # fmt: skip

PARTS = {
    "weight": "weight",
    "bias": "bias",
    "noise_strength": "noise_strength",
    "mod_weight": "affine.weight",
    "mod_bias": "affine.bias",
}
LAYERS_OF_G = {"Conv0_up": "conv0", "Conv1": "conv1", "ToRGB": "torgb", "Skip": "skip"}
LAYERS_OF_D = {"FromRGB": "fromrgb", "Conv0": "conv0", "Conv1_down": "conv1", "Skip": "skip"}


def generator(network: TFNetwork) -> tuple[Renamed, dict[str, Any], Make]:
    """A generator's variables under our names, what it says of itself, and what reads its shapes."""
    variables, said = _opened(network, OF_G, mapping_rate=0.01)
    return _renamed(variables, generator_name, said["img_resolution"]), said, generator_arguments


def discriminator(network: TFNetwork) -> tuple[Renamed, dict[str, Any], Make]:
    """A discriminator's, likewise."""
    variables, said = _opened(network, OF_D, mapping_rate=0.1)
    return _renamed(variables, discriminator_name, said["img_resolution"]), said, discriminator_arguments


def _opened(network: TFNetwork, names: dict[str, tuple[str, Any]], *, mapping_rate: float) -> tuple[Variables, dict[str, Any]]:
    state = network.state or {}
    version, given = state.get("version"), state.get("static_kwargs")
    if type(version) is not int or not 4 <= version <= 5:
        refuse("a TensorFlow network of a version other than 4 and 5")
    if not isinstance(given, dict):
        refuse("a TensorFlow network without its settings")
    left = {name: value for name, value in given.items() if name not in IGNORED}
    said = {ours: left.pop(theirs, default) for ours, (theirs, default) in (SHARED | names).items()}
    base = left.pop("fmap_base", 16384)
    said["channel_base"] = 2 * base if type(base) is int else base
    _only(left, "nonlinearity", "lrelu")
    _only(left, "activation", "lrelu")
    kernel = left.pop("resample_kernel", [1, 3, 3, 1])
    if type(kernel) not in (list, tuple) or list(kernel) != [1, 3, 3, 1]:
        refuse("another resampling filter than the official one")
    # With no layers (the discriminator's default) the rate multiplies nothing.
    rate = left.pop("mapping_lrmul", mapping_rate)
    if said["mapping_layers"] and rate != 0.01:
        refuse("a mapping network with another learning rate multiplier than 0.01")
    for name in ("label_fmaps", "mapping_fmaps"):
        left.pop(name, None)  # their tensors' shapes tell, and are checked
    if left:
        refuse(f"the setting {shown(min(left))}, which no TensorFlow StyleGAN2 has")
    return _variables(network), said


def _only(left: dict[str, Any], name: str, value: str) -> None:
    found = left.pop(name, value)
    if type(found) is not str or found != value:
        refuse(f"another {name} than the official one")


def _variables(network: TFNetwork, prefix: str = "", depth: int = 0) -> Variables:
    """Own variables and those of the components, each with its component before its name."""
    state = network.state or {}
    own, components = state.get("variables"), state.get("components")
    if type(own) is not list or not isinstance(components, dict) or depth > 4 or len(own) > 2000 or len(components) > 8:
        refuse("a TensorFlow network without its variables")
    found: Variables = {}
    for pair in own:
        if type(pair) not in (tuple, list) or len(pair) != 2 or type(pair[0]) is not str or type(pair[1]) not in (Array, float, int):
            refuse("a TensorFlow variable that is no named array")
        found[prefix + pair[0]] = pair[1]
    for name, part in components.items():
        if not isinstance(part, TFNetwork):
            refuse("a component that is no network")
        inner = _variables(part, f"{prefix}{name}/", depth + 1)
        if set(inner) & set(found):
            refuse("two variables of one name")
        found |= inner
    return found


def _renamed(variables: Variables, rename: Callable[[str, int], str], size: Any) -> Renamed:
    """Our name -> their name, which tells the layout, and value."""
    if type(size) is not int or not 8 <= size <= 2048:
        refuse("an impossible resolution")
    found: Renamed = {}
    for name, value in variables.items():
        ours = rename(name, size)
        if not ours or ours in found:
            refuse(f"the variable {shown(name)}, which no TensorFlow StyleGAN2 has")
        found[ours] = (name, value)
    return found


def generator_name(name: str, size: int) -> str:
    """Our name of a generator's variable; empty for an unknown one."""
    if name == "dlatent_avg":
        return "mapping.w_avg"
    if match := re.fullmatch(r"mapping/(LabelEmbed|Dense(\d{1,2}))/(weight|bias)", name):
        return f"mapping.{'embed' if match[2] is None else f'fc{int(match[2])}'}.{match[3]}"
    if name == "synthesis/4x4/Const/const":
        return "synthesis.b4.const"
    if match := re.fullmatch(r"synthesis/noise(\d{1,2})", name):
        # noise0 is 4x4's only layer; then two per resolution.
        number = int(match[1])
        return f"synthesis.b{2 ** ((number + 5) // 2)}.conv{(number + 1) % 2}.noise_const"
    if match := re.fullmatch(r"synthesis/ToRGB_lod(\d{1,2})/(\w+)", name):
        return f"synthesis.b{size >> int(match[1])}.torgb.{PARTS[match[2]]}" if match[2] in PARTS else ""
    if match := re.fullmatch(r"synthesis/(\d{1,4})x\1/(\w+)/(\w+)", name):
        layer = "conv1" if match[2] == "Conv" and match[1] == "4" else LAYERS_OF_G.get(match[2])
        return f"synthesis.b{match[1]}.{layer}.{PARTS[match[3]]}" if layer and match[3] in PARTS else ""
    return ""


def discriminator_name(name: str, size: int) -> str:
    """Our name of a discriminator's variable; empty for an unknown one."""
    if match := re.fullmatch(r"(LabelEmbed|Mapping(\d{1,2}))/(weight|bias)", name):
        return f"mapping.{'embed' if match[2] is None else f'fc{int(match[2])}'}.{match[3]}"
    if match := re.fullmatch(r"(4x4/Conv|4x4/Dense0|Output)/(weight|bias)", name):
        return f"b4.{ {'4x4/Conv': 'conv', '4x4/Dense0': 'fc', 'Output': 'out'}[match[1]] }.{match[2]}"
    if match := re.fullmatch(r"FromRGB_lod(\d{1,2})/(weight|bias)", name):
        return f"b{size >> int(match[1])}.fromrgb.{match[2]}"
    if match := re.fullmatch(r"(\d{1,4})x\1/(\w+)/(weight|bias)", name):
        layer = LAYERS_OF_D.get(match[2])
        return f"b{match[1]}.{layer}.{match[3]}" if layer else ""
    return ""


def weights(variables: Renamed) -> dict[str, Tensor]:
    """Our tensors of renamed variables, with the resampling filters that TensorFlow does not store."""
    found = {ours: tensor(theirs, value) for ours, (theirs, value) in variables.items()}
    return found | {name: FILTER.clone() for name in filters(found)}


def tensor(name: str, value: Array | float) -> Tensor:
    """A variable in our layout, by its TensorFlow name."""
    x = torch.from_numpy(value.numpy()) if isinstance(value, Array) else torch.tensor(float(value))
    last = name.rsplit("/", 1)[-1]
    if re.fullmatch(r"noise\d+", last):
        return x[0, 0].clone()
    if last == "const":
        return x[0].clone()
    if last == "mod_bias":
        return x + 1
    if last in ("weight", "mod_weight") and x.ndim == 2:
        return x.t().contiguous()
    if last == "weight" and x.ndim == 4:
        # In a discriminator Skip downsamples and stays as it is.
        flipped = name.startswith("synthesis/") and name.split("/")[-2] in ("Conv0_up", "Skip")
        x = x.flip(0, 1) if flipped else x
        return x.permute(3, 2, 0, 1).contiguous()
    return x


def filters(found: dict[str, Tensor]) -> list[str]:
    """Names of the resampling filters that a network of these tensors has: one per block and per resampling layer."""
    layers = {name.rpartition(".")[0] for name in found if re.search(r"\.(conv\d?|skip|fromrgb)\.weight$", name)}
    blocks = {match[0] for name in found if (match := re.match(r"(synthesis\.)?b\d+(?=\.)", name))}
    # A discriminator's last block resamples nothing.
    return sorted(f"{name}.resample_filter" for name in layers | {b for b in blocks if b != "b4"})
