"""The phases of a training step, each to be run alone: what benchmarks time and compare."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medgan.training.augment import Augment
from medgan.training.config import PIPES, TrainConfig
from medgan.training.state import State, build
from medgan.training.statistics import Collector
from medgan.training.step import Step


class Phases:
    """The phases of one step, each to be run alone, as often as one likes.

    Args:
        size: Image side in pixels.
        batch: Images.
        channel_base: Of both networks.
        p: Of the augmentation.
        device: Where.
        precision: fp32, tf32 or bf16.
    """

    def __init__(self, *, size: int, batch: int, channel_base: int, p: float, device: str, precision: str = "fp32") -> None:
        self.config = TrainConfig(batch=batch, channel_base=channel_base, augment="ada" if p else "none", precision=precision)
        self.state: State = build(self.config, size=size, channels=1, c_dim=0, device=torch.device(device))
        self.augment = Augment(PIPES["bgc"], p)
        self.step = self.steps()
        self.z = torch.randn(batch, self.config.latent).to(device)
        self.real = torch.rand(batch, 1, size, size).to(device) * 2 - 1

    def steps(self) -> Step:
        """The phases of the networks as they are now."""
        return Step(self.state, self.config, self.augment, gamma=10.0, collect=Collector(), labels=lambda n: None)

    def take(self, G: nn.Module, D: nn.Module) -> None:
        """Go on with these networks, and Adam as PyTorch makes it by default: another repository's side of a comparison."""
        config, state = self.config, self.state
        state.G, state.D = G, D
        state.G_opt, state.D_opt = (
            torch.optim.Adam(network.parameters(), lr=config.lr_g, betas=(0.0, 0.99), eps=1e-8) for network in (G, D)
        )
        self.step = self.steps()

    def backward(self, phase: str) -> None:
        """Gradients of one phase, with the same draws every time."""
        torch.manual_seed(0)
        generator = phase.startswith("G")
        self.state.G.requires_grad_(generator)
        self.state.D.requires_grad_(not generator)
        if phase == "Gmain":
            self.step._generator_main(self.z)
        elif phase == "Greg":
            self.step._generator_path_length(self.z, None)
        elif phase == "Dmain":
            self.step._discriminator_main(self.z, self.real, None)
        else:
            self.step._discriminator_r1(self.real, None)

    def gradients(self, phase: str) -> Tensor:
        """All gradients of a phase as one vector, in the order of their names; they are forgotten after."""
        self.backward(phase)
        network = self.state.G if phase.startswith("G") else self.state.D
        found = torch.cat([p.grad.flatten() for _, p in sorted(network.named_parameters()) if p.grad is not None])
        network.zero_grad(set_to_none=True)
        return found

    def run(self, phase: str) -> None:
        """A phase with its Adam step."""
        self.backward(phase)
        if phase.startswith("G"):
            self.step._update(self.state.G_opt, self.state.G)
        else:
            self.step._update(self.state.D_opt, self.state.D)
