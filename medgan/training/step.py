"""One optimisation step: the phases Gmain, Greg, Dmain, Dreg, each with its own backward pass and Adam step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from medgan.training import losses
from medgan.training.augment import Augment
from medgan.training.config import TrainConfig
from medgan.training.diffaugment import DiffAugment
from medgan.training.state import State
from medgan.training.statistics import Collector

PL_DECAY = 0.01
PL_BATCH_SHRINK = 2

Latents = Callable[[str, int], Tensor]
"""`latents(phase, n)` gives z (n, z_dim) for a phase; the tests replay recorded ones."""


class Step:
    """The four phases over one batch.

    Args:
        state: What is trained.
        config: Its settings.
        augment: Applied to every image before D; its p, if it has one, is the state's.
        gamma: Weight of R1.
        collect: Takes the reported quantities, under the official names.
        labels: Gives labels (n, c_dim) of random images, or None.
    """

    def __init__(
        self,
        state: State,
        config: TrainConfig,
        augment: Augment | DiffAugment,
        *,
        gamma: float,
        collect: Collector,
        labels: Callable[[int], Tensor | None],
    ) -> None:
        self.state, self.config, self.augment, self.gamma, self.collect, self.labels = state, config, augment, gamma, collect, labels
        self.noise_mode = "random"

    def __call__(self, real: Tensor, real_c: Tensor | None, latents: Latents, *, pl_noise: Tensor | None = None) -> None:
        """Run the phases that are due.

        Args:
            real: (batch, C, H, W) in [-1, 1].
            real_c: (batch, c_dim) or None.
            latents: Source of z.
            pl_noise: Standard normal noise of the path length penalty; drawn when None.
        """
        state, config, n = self.state, self.config, self.config.round_size
        rounds = list(range(0, real.shape[0], n))
        self.augment.p = state.p

        state.G.requires_grad_(True)
        state.D.requires_grad_(False)
        for _ in rounds:
            self._generator_main(latents("Gmain", n))
        self._update(state.G_opt, state.G)
        if config.pl_weight and config.g_reg_interval and state.step % config.g_reg_interval == 0:
            for _ in rounds:
                self._generator_path_length(latents("Greg", n), pl_noise)
            self._update(state.G_opt, state.G)

        state.G.requires_grad_(False)
        state.D.requires_grad_(True)
        for start in rounds:
            part = slice(start, start + n)
            self._discriminator_main(latents("Dmain", n), real[part], None if real_c is None else real_c[part])
        self._update(state.D_opt, state.D)
        if self.gamma and config.d_reg_interval and state.step % config.d_reg_interval == 0:
            for start in rounds:
                part = slice(start, start + n)
                self._discriminator_r1(real[part], None if real_c is None else real_c[part])
            self._update(state.D_opt, state.D)

    def _share(self) -> float:
        """Weight of one round, so that gradients are averaged over the rounds of accumulation."""
        return self.config.round_size / self.config.batch

    def _images(self, z: Tensor, c: Tensor | None, *, update_w_avg: bool = False) -> Tensor:
        ws = losses.mixed_styles(self.state.G, z, c, probability=self.config.style_mixing, update_w_avg=update_w_avg)
        return self.state.G.synthesis(ws, noise_mode=self.noise_mode)  # type: ignore[operator]

    def _report_logits(self, kind: str, logits: Tensor) -> None:
        self.collect.add(f"Loss/scores/{kind}", logits)
        self.collect.add(f"Loss/signs/{kind}", logits.sign())
        if kind == "real":
            signs = logits.detach().sign().double()
            self.state.signs += torch.stack([signs.sum(), torch.full_like(signs.sum(), signs.numel())])

    def _report_loss(self, name: str, loss: Tensor) -> None:
        self.collect.add(name, loss)
        self.collect.add("Loss/nonfinite", ~loss.isfinite())

    def _generator_main(self, z: Tensor) -> None:
        c = self.labels(len(z))
        logits = self.state.D(self.augment(self._images(z, c)), c)
        self._report_logits("fake", logits)
        loss = losses.generator_loss(logits)
        self._report_loss("Loss/G/loss", loss)
        (loss.mean() * self._share()).backward()

    def _generator_path_length(self, z: Tensor, noise: Tensor | None) -> None:
        z = z[: max(len(z) // PL_BATCH_SHRINK, 1)]
        c = self.labels(len(z))
        ws = losses.mixed_styles(self.state.G, z, c, probability=self.config.style_mixing)
        penalty, self.state.pl_mean = losses.path_length_penalty(
            self.state.G, ws, self.state.pl_mean, decay=PL_DECAY, noise=noise, noise_mode=self.noise_mode
        )
        self.collect.add("Loss/pl_penalty", penalty)
        loss = penalty * self.config.pl_weight
        self._report_loss("Loss/G/reg", loss)
        (loss.mean() * self.config.g_reg_interval * self._share()).backward()

    def _discriminator_main(self, z: Tensor, real: Tensor, real_c: Tensor | None) -> None:
        c = self.labels(len(z))
        with torch.no_grad():
            fake = self._images(z, c, update_w_avg=True)
        logits = self.state.D(self.augment(fake), c)
        self._report_logits("fake", logits)
        fake_loss = losses.discriminator_fake_loss(logits)
        (fake_loss.mean() * self._share()).backward()
        logits = self.state.D(self.augment(real), real_c)
        self._report_logits("real", logits)
        real_loss = losses.discriminator_real_loss(logits)
        self._report_loss("Loss/D/loss", fake_loss.detach() + real_loss.detach())
        (real_loss.mean() * self._share()).backward()

    def _discriminator_r1(self, real: Tensor, real_c: Tensor | None) -> None:
        penalty, logits = losses.r1_penalty(self.state.D, self.augment, real, real_c)
        self._report_logits("real", logits)
        self.collect.add("Loss/r1_penalty", penalty)
        loss = penalty * (self.gamma / 2)
        self._report_loss("Loss/D/reg", loss)
        (loss.mean() * self.config.d_reg_interval * self._share()).backward()

    def _update(self, optimizer: torch.optim.Optimizer, network: nn.Module) -> None:
        """Adam step on gradients whose non-finite entries are counted, then sanitised as the official code does."""
        trained = [p for p in network.parameters() if p.grad is not None]
        if trained:
            flat = torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
            self.state.nonfinite += (~flat.isfinite()).sum()
            flat.nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)
            for p, part in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
                p.grad = part.view_as(p)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
