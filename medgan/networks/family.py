"""What a GAN family is to the rest of the house."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from medgan.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Family:
    """A generator, its discriminator, and what they accept.

    Args:
        name: As in the table NETWORKS.
        generator: Class whose constructor takes plain arguments; `forward(z, c, ...)` gives (N, C, H, W) in about [-1, 1]. A training hands it
            those of its settings that the constructor names.
        discriminator: Class whose `forward(images, c)` gives logits (N, 1); arguments as of the generator.
        sizes: Image sizes it accepts, in pixels.
        tiny: Arguments of a variant small enough for tests, for both networks.
        styles: Whether z becomes styles first (`mapping`, `synthesis`), which can be mixed, truncated, and have path lengths.
        batch_norm: Whether layers normalise over the batch. Such networks are trained in whole batches, by one process, and the
            generator itself makes the images: an average of its weights would not have their statistics.
    """

    name: str
    generator: Callable[..., nn.Module]
    discriminator: Callable[..., nn.Module]
    sizes: tuple[int, ...]
    tiny: Mapping[str, Any]
    styles: bool = True
    batch_norm: bool = False


def compute_in(network: nn.Module, precision: str) -> nn.Module:
    """Let a network make its features in bfloat16 (`bf16`), or, for any other precision, in the type of its weights.

    Weights, styles, what is 4 x 4, the sum of the images of all resolutions, logits and losses stay in float32.

    Args:
        network: Generator or discriminator; its parts say by an attribute `features_dtype` that they can.
        precision: fp32, tf32 or bf16.

    Returns:
        The same network.

    Raises:
        ConfigError: bf16 of a network that cannot.
    """
    parts = [part for part in network.modules() if hasattr(part, "features_dtype")]
    if precision == "bf16" and not parts:
        raise ConfigError("this network does not compute in bfloat16", fix="--precision fp32")
    for part in parts:
        part.features_dtype = torch.bfloat16 if precision == "bf16" else None  # type: ignore[assignment]
    return network
