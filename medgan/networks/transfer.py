"""Weights of one network fitted to another of the same shape: RGB or grey, with or without classes.

Each adaptation keeps the function: what the network gave before, it gives after, and training starts there
(STYLEGAN2-ADA.md 9.4). Anything else that differs is refused before a weight is copied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medgan.errors import WeightsError
from medgan.networks.shapes import channel_list

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Network:
    """A network on its way: its constructor arguments, and its parameters and buffers as float32 tensors."""

    arguments: dict[str, Any]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Pretrained:
    """Networks to start from.

    Args:
        kind: What kind of file they came from, for people.
        sha256: Of that file.
        licence: Of the numbers, where it is known.
        family: Their family's name in NETWORKS.
        G: The generator in training.
        D: Its discriminator.
        G_ema: The running average of G.
    """

    kind: str
    sha256: str
    licence: str
    family: str
    G: Network
    D: Network
    G_ema: Network

    @property
    def source(self) -> dict[str, str]:
        """Where the weights came from, for records: kind, sha256 and, where it is known, the licence."""
        return {"kind": self.kind, "sha256": self.sha256} | ({"licence": self.licence} if self.licence else {})


# Setting of a training -> the generator's argument that it becomes.
SETTINGS = {"channel_base": "channel_base", "channel_max": "channel_max", "latent": "z_dim", "map_layers": "mapping_layers"}


def check(source: Pretrained, *, family: str, G: Mapping[str, Any], D: Mapping[str, Any]) -> None:
    """Compare the configuration of networks to start from with that of a run, before any weight is copied.

    Args:
        source: Networks to start from.
        family: The run's.
        G: Constructor arguments of the run's generator.
        D: And of its discriminator; what they leave out is the default.

    Raises:
        WeightsError: They do not fit; the message names both sides of every difference.
    """
    if source.family != family:
        raise WeightsError(f"--pretrained is of the family {source.family}, the run of {family}", fix=f"--family {source.family}")
    theirs, ours = [], []
    fixes: dict[str, str] = {}
    was = source.G.arguments

    def differ(text: str, before: Any, now: Any, fix: str = "") -> None:
        theirs.append(text.format(before))
        ours.append(text.format(now))
        if fix:
            fixes[fix] = fix

    if was["img_resolution"] != G["img_resolution"]:
        differ("{} px", was["img_resolution"], G["img_resolution"], f"prepare with --size {was['img_resolution']}")
    shared = min(was["img_resolution"], G["img_resolution"])
    before, now = channel_list(was), channel_list(G)
    if any(before[r] != now[r] for r in before if r <= shared):
        for name in ("channel_base", "channel_max"):
            if was[name] != G[name]:
                differ(name.replace("_", " ") + " {}", was[name], G[name], f"--{name.replace('_', '-')} {was[name]}")
    if was["z_dim"] != G["z_dim"] or was["w_dim"] != G["w_dim"]:
        fix = f"--latent {was['z_dim']}" if was["z_dim"] == was["w_dim"] else ""
        differ("z and w of {}", f"{was['z_dim']} and {was['w_dim']}", f"{G['z_dim']} and {G['w_dim']}", fix)
    if was["mapping_layers"] != G["mapping_layers"]:
        differ("{} mapping layers", was["mapping_layers"], G["mapping_layers"], f"--map-layers {was['mapping_layers']}")
    for name, default in (("architecture", "skip"), ("use_noise", True)):
        if was.get(name, default) != G.get(name, default):
            differ(f"generator {name} {{}}", was.get(name, default), G.get(name, default))
    of_D = source.D.arguments
    for name, standard in (("architecture", "resnet"), ("mbstd_num_channels", 1)):
        if of_D.get(name, standard) != D.get(name, standard):
            differ(f"discriminator {name} {{}}", of_D.get(name, standard), D.get(name, standard))
    if was["c_dim"] and was["c_dim"] != G["c_dim"]:
        differ("{} classes", was["c_dim"], G["c_dim"], f"a dataset with labels of {was['c_dim']} classes")
    if of_D["c_dim"] and of_D.get("mapping_layers", 8) != D.get("mapping_layers", 8):
        differ("{} label layers in the discriminator", of_D.get("mapping_layers", 8), D.get("mapping_layers", 8))
    if theirs:
        raise WeightsError(
            f"--pretrained is {', '.join(theirs)}; the run is {', '.join(ours)}",
            fix=" and ".join(fixes.values()) or "another network, or no --pretrained",
        )


def fill(source: Pretrained, *, G: nn.Module, D: nn.Module, G_ema: nn.Module) -> None:
    """Copy the weights of checked networks into those of a run, adapted where image channels or classes differ.

    The run's networks are freshly drawn and on the CPU.
    """
    G.load_state_dict(adapt_generator(source.G.weights, G))
    D.load_state_dict(adapt_discriminator(source.D.weights, D))
    G_ema.load_state_dict(adapt_generator(source.G_ema.weights, G_ema))


def adapt_generator(weights: Mapping[str, Tensor], target: nn.Module) -> Weights:
    """A generator's weights for a generator that may differ in image channels, and may have classes where it had none.

    RGB to grey gives the mean of the three channels, grey to RGB three equal ones; with new classes every class gives what
    the generator gave without.

    Args:
        weights: Parameters and buffers by name, checked to fit otherwise.
        target: The generator to be filled, freshly drawn: what is new keeps its random weights where they cannot be seen.

    Returns:
        What `target.load_state_dict` takes.
    """
    wanted = target.state_dict()
    found = {name: tensor.clone() for name, tensor in weights.items()}
    for name in [n for n in found if ".torgb." in n and ".affine." not in n]:
        found[name] = _channels(found[name], wanted[name].shape[0], dim=0, gain=1)
    if "mapping.embed.weight" in wanted and "mapping.embed.weight" not in found:
        z = found["mapping.fc0.weight"]
        new = torch.zeros_like(wanted["mapping.fc0.weight"], device=z.device)
        # The run-time gain falls from 1/sqrt(z) to 1/sqrt(z + w); the label's part begins at zero and learns.
        new[:, : z.shape[1]] = z * math.sqrt(new.shape[1] / z.shape[1])
        found["mapping.fc0.weight"] = new
        found |= {name: wanted[name].detach().clone() for name in ("mapping.embed.weight", "mapping.embed.bias")}
    return found


def adapt_discriminator(weights: Mapping[str, Tensor], target: nn.Module) -> Weights:
    """A discriminator's weights, likewise.

    RGB to grey: D(grey) is what D(the grey repeated to RGB) was; grey to RGB the same backwards. With new classes every class
    gives the old logit: the mapped label begins as a constant, `b4.out` as its old row plus random rows of mean zero.
    """
    wanted = target.state_dict()
    found = {name: tensor.clone() for name, tensor in weights.items()}
    for name in [n for n in found if n.endswith("fromrgb.weight")]:
        before, now = found[name].shape[1], wanted[name].shape[1]
        # The sum over channels stays, the run-time gain 1/sqrt(channels) changes.
        found[name] = _channels(found[name], now, dim=1, gain=math.sqrt(before / now))
    if "mapping.embed.weight" in wanted and "mapping.embed.weight" not in found:
        found |= _label_head(found, {name: tensor.detach().clone() for name, tensor in wanted.items()})
    return found


def _label_head(found: Weights, fresh: Weights) -> Weights:
    """The conditional end of a discriminator that gives every class the logit it gave without classes.

    logit = sum_k out_k(h) cmap_k / sqrt(K). The last mapping layer's weights begin at zero and its bias at the value for which
    cmap_k = 1 / sqrt(K) for every label, so the logit is the mean of the K rows of `out`. Equal rows would stay equal for ever,
    because their gradients are; so the fresh random rows are kept, moved to the mean of the old row.
    """
    mapped = {name: tensor for name, tensor in fresh.items() if name.startswith("mapping.")}
    layers = sum(name.endswith(".weight") and ".fc" in name for name in mapped)
    rows = fresh["b4.out.weight"].shape[0]
    last = f"mapping.fc{layers - 1}"
    # Leaky ReLU with gain sqrt(2) of a bias that is multiplied by 0.01 at run time.
    bias = 1 / math.sqrt(rows) / math.sqrt(2) / 0.01
    mapped |= {f"{last}.weight": torch.zeros_like(fresh[f"{last}.weight"]), f"{last}.bias": torch.full_like(fresh[f"{last}.bias"], bias)}
    noise = fresh["b4.out.weight"]
    out = {"b4.out.weight": found["b4.out.weight"] + noise - noise.mean(dim=0), "b4.out.bias": found["b4.out.bias"].expand(rows).clone()}
    return mapped | out


def _channels(x: Tensor, count: int, *, dim: int, gain: float) -> Tensor:
    """The mean over image channels, or the one channel repeated, times a gain; `x` itself where the count is the same."""
    if x.shape[dim] == count:
        return x
    x = x.mean(dim=dim, keepdim=True) * gain
    return x.repeat_interleave(count, dim=dim)
