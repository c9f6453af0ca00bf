"""The constructor arguments of StyleGAN2 networks, read from the shapes of their tensors.

What a file says of itself is believed only where its tensors say the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from medgan.errors import WeightsError
from medgan.networks.stylegan2 import Discriminator, Generator, channels_at

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
MOST_LAYERS = 64
MOST_FEATURES = 65536


def generator_arguments(shapes: Shapes, said: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of a generator.

    Args:
        shapes: Name -> shape of every parameter and buffer.
        said: What the file says, under the names of `Generator`'s arguments; may be empty. Used where shapes tell nothing.

    Raises:
        WeightsError: These are not the tensors of a StyleGAN2 generator, or what is said contradicts them.
    """
    channels = _channels(shapes, "synthesis.b{}.conv1.weight", r"synthesis\.b(\d{1,5})\.conv1\.weight", lowest=4)
    size = max(channels)
    layers = _layers(shapes)
    _, w_dim = _dims(shapes, f"mapping.fc{layers - 1}.weight", 2)[::-1] if layers else _wrong("it has no mapping network")
    c_dim = _dims(shapes, "mapping.embed.weight", 2)[1] if "mapping.embed.weight" in shapes else 0
    architecture = "skip" if "synthesis.b4.torgb.weight" in shapes else "resnet" if "synthesis.b8.skip.weight" in shapes else "orig"
    arguments = {
        "z_dim": _dims(shapes, "mapping.fc0.weight", 2)[1] - (w_dim if c_dim else 0),
        "c_dim": c_dim,
        "w_dim": w_dim,
        "img_resolution": size,
        "img_channels": _dims(shapes, f"synthesis.b{size}.torgb.weight", 4)[0],
        **_plan(channels, said),
        "mapping_layers": layers,
        "architecture": architecture,
        "use_noise": "synthesis.b4.conv1.noise_const" in shapes,
        "conv_clamp": said.get("conv_clamp"),
        "w_avg_beta": said.get("w_avg_beta", 0.998),
    }
    return _checked(Generator, arguments, shapes, said)


def discriminator_arguments(shapes: Shapes, said: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of a discriminator; arguments and errors as for `generator_arguments`."""
    channels = _channels(shapes, "b{}.conv0.weight", r"b(\d{1,5})\.conv0\.weight", lowest=8)
    channels[4] = _dims(shapes, "b4.conv.weight", 4)[0]
    size = max(channels)
    c_dim = _dims(shapes, "mapping.embed.weight", 2)[1] if "mapping.embed.weight" in shapes else 0
    architecture = "resnet" if f"b{size}.skip.weight" in shapes else "skip" if "b4.fromrgb.weight" in shapes else "orig"
    arguments = {
        "c_dim": c_dim,
        "img_resolution": size,
        "img_channels": _dims(shapes, f"b{size}.fromrgb.weight", 4)[1],
        **_plan(channels, said),
        "architecture": architecture,
        "mbstd_group_size": said.get("mbstd_group_size", 4),
        "mbstd_num_channels": _dims(shapes, "b4.conv.weight", 4)[1] - channels[4],
        "mapping_layers": _layers(shapes) if c_dim else said.get("mapping_layers", 8),
        "conv_clamp": said.get("conv_clamp"),
    }
    return _checked(Discriminator, arguments, shapes, said)


def channel_list(arguments: Mapping[str, Any]) -> dict[int, int]:
    """Resolution -> feature channels of a network with these arguments."""
    size = arguments["img_resolution"]
    return {r: channels_at(r, arguments["channel_base"], arguments["channel_max"]) for r in (4, *SIZES) if r <= size}


def expected_shapes(network: type[torch.nn.Module], arguments: Mapping[str, Any]) -> dict[str, Shape]:
    """Name -> shape of every parameter and buffer of a network with these arguments; takes no memory."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in network(**arguments).state_dict().items()}


def _wrong(reason: str) -> Any:
    raise WeightsError(f"the file holds no StyleGAN2 network: {reason}", fix="give a network of the official stylegan2 configuration")


def _dims(shapes: Shapes, name: str, rank: int) -> Shape:
    shape = shapes.get(name, ())
    if len(shape) != rank or not all(1 <= n <= MOST_FEATURES for n in shape):
        _wrong(f"{name} is missing or has an impossible shape")
    return shape


def _channels(shapes: Shapes, name: str, pattern: str, *, lowest: int) -> dict[int, int]:
    found = sorted(int(match[1]) for key in shapes if (match := re.fullmatch(pattern, key)))
    known = [r for r in (4, *SIZES) if r >= lowest]
    if not found or found != known[: len(found)]:
        _wrong(f"its blocks are not those of {lowest} px and up")
    return {r: _dims(shapes, name.format(r), 4)[0] for r in found}


def _layers(shapes: Shapes) -> int:
    count = sum(re.fullmatch(r"mapping\.fc\d{1,3}\.weight", key) is not None for key in shapes)
    if count > MOST_LAYERS:
        _wrong(f"a mapping network of more than {MOST_LAYERS} layers")
    return count


def _plan(channels: Mapping[int, int], said: Mapping[str, Any]) -> dict[str, int]:
    """channel_base and channel_max that give these channels: those said if they do, else the smallest."""
    most = max(channels.values())
    rising = [r * n for r, n in channels.items() if n < most]
    guess = (rising[0] if rising else most * max(channels), most)
    for base, limit in ((said.get("channel_base", 32768), said.get("channel_max", 512)), guess):
        if all(channels_at(r, base, limit) == n for r, n in channels.items()):
            if "channel_base" in said and base != said["channel_base"]:
                break
            return {"channel_base": base, "channel_max": limit}
    shown = ", ".join(f"{r}: {n}" for r, n in sorted(channels.items()))
    return _wrong(f"its channels ({shown}) are not those of the channel base and maximum it names")


def _checked(network: type[torch.nn.Module], arguments: dict[str, Any], shapes: Shapes, said: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in said.items():
        if name in arguments and arguments[name] != value:
            _wrong(f"it says {name} {value}, its tensors say {arguments[name]}")
    expected = expected_shapes(network, arguments)
    if differing := [name for name in expected if tuple(shapes.get(name, (-1,))) != expected[name]]:
        name = differing[0]
        found = " x ".join(map(str, shapes[name])) if name in shapes else "missing"
        _wrong(f"{name} is {found or 'a single number'} instead of {' x '.join(map(str, expected[name])) or 'a single number'}")
    if unknown := sorted(set(shapes) - set(expected)):
        _wrong(f"it has {len(unknown)} tensors that a StyleGAN2 network has not")
    return arguments
