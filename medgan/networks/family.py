"""What a GAN family is to the rest of the house."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Family:
    """A generator, its discriminator, and what they accept.

    Args:
        name: As in the table NETWORKS.
        generator: Class whose constructor takes plain arguments; `forward(z, c, ...)` gives (N, C, H, W) in about [-1, 1].
        discriminator: Class whose `forward(images, c)` gives logits (N, 1).
        sizes: Image sizes it accepts, in pixels.
        tiny: Arguments of a variant small enough for tests, for both networks.
    """

    name: str
    generator: Callable[..., nn.Module]
    discriminator: Callable[..., nn.Module]
    sizes: tuple[int, ...]
    tiny: Mapping[str, Any]
