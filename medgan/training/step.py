"""One optimisation step: the phases Gmain, Greg, Dmain, Dreg, each with its own backward pass and Adam step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from medgan import machine
from medgan.ranks import Ranks
from medgan.training import losses
from medgan.training.augment import Augment
from medgan.training.config import TrainConfig
from medgan.training.diffaugment import DiffAugment
from medgan.training.state import State, draw_seed
from medgan.training.statistics import Collector

PL_DECAY = 0.01
PL_BATCH_SHRINK = 2

PHASES = ("Gmain", "Greg", "Dmain", "Dreg")

Latents = Callable[[str], Tensor]
"""`latents(phase)` gives this rank's z (n, z_dim) for a phase; the tests replay recorded ones."""


class Step:
    """The four phases over one batch, which ranks and rounds of accumulation share.

    A batch is a sequence of rounds of `round_size` images. Which rank runs a round changes nothing but rounding: each round draws
    from its own seed, gradients are averaged over all rounds, and w_avg and pl_mean move once per step by the mean over all rounds.
    (The official code sums gradients over rounds, and moves w_avg and pl_mean by every round, on every rank by its own.)

    Args:
        state: What is trained.
        config: Its settings.
        augment: Applied to every image before D; its p, if it has one, is the state's.
        gamma: Weight of R1.
        collect: Takes the reported quantities, under the official names.
        labels: Gives labels (n, c_dim) of random images, or None.
        ranks: The processes that share the batch.
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
        ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    ) -> None:
        self.ranks = ranks
        self.state, self.config, self.augment, self.gamma, self.collect, self.labels = state, config, augment, gamma, collect, labels
        self.noise_mode = "random"
        self.styled = hasattr(state.G, "mapping")
        self.options = {"recompute": True} if config.recompute else {}
        # The regularisers differentiate twice: a compiled network cannot, and what they keep would not get less. They call the networks themselves.
        device = state.pl_mean.device
        self.synthesis = machine.compiled(state.G.synthesis if self.styled else state.G, config.compile, device)  # type: ignore[type-var]
        self.critic = machine.compiled(state.D, config.compile, device)

    def __call__(self, real: Tensor, real_c: Tensor | None, latents: Latents, *, pl_noise: Tensor | None = None) -> None:
        """Run the phases that are due.

        Args:
            real: This rank's part of the batch, (batch / ranks, C, H, W) in [-1, 1].
            real_c: Its labels (batch / ranks, c_dim), or None.
            latents: Source of z.
            pl_noise: Standard normal noise of the path length penalty; drawn when None.
        """
        state, config = self.state, self.config
        self.augment.p = state.p
        # Rows of this rank's part, and the place of each round in the whole batch.
        n = config.round_size
        rounds = [(slice(start, start + n), self.ranks.rank * len(real) + start) for start in range(0, len(real), n)]

        state.G.requires_grad_(True)
        state.D.requires_grad_(False)
        z = latents("Gmain")
        for rows, place in rounds:
            self._seed("Gmain", place)
            self._generator_main(z[rows])
        self._update(state.G_opt, state.G)
        if config.pl_weight and config.g_reg_interval and state.step % config.g_reg_interval == 0:
            z = latents("Greg")
            pl_mean = torch.zeros_like(state.pl_mean)
            for rows, place in rounds:
                self._seed("Greg", place)
                pl_mean += self._generator_path_length(z[rows], pl_noise) * self._share()
            self._update(state.G_opt, state.G, pl_mean)
            state.pl_mean = pl_mean

        state.G.requires_grad_(False)
        state.D.requires_grad_(True)
        z = latents("Dmain")
        signs = torch.zeros_like(state.signs)
        w_mean = torch.zeros_like(state.G.mapping.w_avg) if self.styled else torch.zeros(0)  # type: ignore[union-attr, arg-type]
        for rows, place in rounds:
            self._seed("Dmain", place)
            w, logits = self._discriminator_main(z[rows], real[rows], None if real_c is None else real_c[rows])
            if w is not None:
                w_mean += w * self._share()
            signs += _signs(logits)
        self._update(state.D_opt, state.D, w_mean, signs)
        state.signs += signs
        if self.styled:
            state.G.mapping.move_average(w_mean)  # type: ignore[union-attr, operator]
        if self.gamma and config.d_reg_interval and state.step % config.d_reg_interval == 0:
            signs = torch.zeros_like(state.signs)
            for rows, place in rounds:
                self._seed("Dreg", place)
                signs += _signs(self._discriminator_r1(real[rows], None if real_c is None else real_c[rows]))
            self._update(state.D_opt, state.D, signs)
            state.signs += signs

    def _seed(self, phase: str, place: int) -> None:
        """Reseed all draws of one round, so that they depend on its place in the run and on nothing before it."""
        torch.manual_seed(draw_seed(self.config.seed, self.state.nimg + place, PHASES.index(phase)))

    def _share(self) -> float:
        """Weight of one round, so that what rounds add up to is their mean over all ranks."""
        return self.config.round_size / self.config.batch

    def _styles(self, z: Tensor, c: Tensor | None) -> Tensor:
        return losses.mixed_styles(self.state.G, z, c, probability=self.config.style_mixing)

    def _images(self, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Images of latents, and the styles they were made of, where the family has some."""
        if not self.styled:
            return self.synthesis(z, c), None  # type: ignore[operator]
        ws = self._styles(z, c)
        return self.synthesis(ws, noise_mode=self.noise_mode, **self.options), ws  # type: ignore[operator]

    def _report_logits(self, kind: str, logits: Tensor) -> None:
        self.collect.add(f"Loss/scores/{kind}", logits)
        self.collect.add(f"Loss/signs/{kind}", logits.sign())

    def _report_loss(self, name: str, loss: Tensor) -> None:
        self.collect.add(name, loss)
        self.collect.add("Loss/nonfinite", ~loss.isfinite())

    def _generator_main(self, z: Tensor) -> None:
        c = self.labels(len(z))
        logits = self.critic(self.augment(self._images(z, c)[0]), c, **self.options)
        self._report_logits("fake", logits)
        loss = losses.generator_loss(logits)
        self._report_loss("Loss/G/loss", loss)
        (loss.mean() * self._share()).backward()

    def _generator_path_length(self, z: Tensor, noise: Tensor | None) -> Tensor:
        """Backward of one round; returns its new pl_mean."""
        z = z[: max(len(z) // PL_BATCH_SHRINK, 1)]
        c = self.labels(len(z))
        penalty, pl_mean = losses.path_length_penalty(
            self.state.G, self._styles(z, c), self.state.pl_mean, decay=PL_DECAY, noise=noise, noise_mode=self.noise_mode
        )
        self.collect.add("Loss/pl_penalty", penalty)
        loss = penalty * self.config.pl_weight
        self._report_loss("Loss/G/reg", loss)
        (loss.mean() * self.config.g_reg_interval * self._share()).backward()
        return pl_mean

    def _discriminator_main(self, z: Tensor, real: Tensor, real_c: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """Backward of one round; returns its mean w, where there are styles, and the logits of the real images."""
        c = self.labels(len(z))
        with torch.no_grad():
            fake, ws = self._images(z, c)
        logits = self.critic(self.augment(fake), c, **self.options)
        self._report_logits("fake", logits)
        fake_loss = losses.discriminator_fake_loss(logits)
        (fake_loss.mean() * self._share()).backward()
        logits = self.critic(self.augment(real), real_c, **self.options)
        self._report_logits("real", logits)
        real_loss = losses.discriminator_real_loss(logits)
        self._report_loss("Loss/D/loss", fake_loss.detach() + real_loss.detach())
        (real_loss.mean() * self._share()).backward()
        # Style mixing replaces rows from the second on: the first is of z itself.
        return None if ws is None else ws[:, 0].mean(dim=0), logits

    def _discriminator_r1(self, real: Tensor, real_c: Tensor | None) -> Tensor:
        """Backward of one round; returns the logits of the real images."""
        penalty, logits = losses.r1_penalty(self.state.D, self.augment, real, real_c)
        self._report_logits("real", logits)
        self.collect.add("Loss/r1_penalty", penalty)
        loss = penalty * (self.gamma / 2)
        self._report_loss("Loss/D/reg", loss)
        (loss.mean() * self.config.d_reg_interval * self._share()).backward()
        return logits

    def _update(self, optimizer: torch.optim.Optimizer, network: nn.Module, *also: Tensor) -> None:
        """Adam step on gradients summed over ranks, whose non-finite entries are counted, then sanitised as the official code does.

        Args:
            optimizer: Of `network`.
            network: Whose gradients are used, and cleared.
            also: Tensors that are summed over ranks on the way, in place: one message instead of several.
        """
        trained = [p for p in network.parameters() if p.grad is not None]
        flat = torch.cat([p.grad.flatten() for p in trained if p.grad is not None] + [tensor.flatten().float() for tensor in also])
        self.ranks.sum_(flat)
        *gradients, rest = flat.split([*(p.numel() for p in trained), sum(tensor.numel() for tensor in also)])
        for tensor, part in zip(also, rest.split([tensor.numel() for tensor in also]), strict=True):
            tensor.copy_(part.view_as(tensor))
        if trained:
            flat = flat[: len(flat) - len(rest)]
            self.state.nonfinite += (~flat.isfinite()).sum()
            flat.nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)
            for p, part in zip(trained, gradients, strict=True):
                p.grad = part.view_as(p)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _signs(logits: Tensor) -> Tensor:
    """Sum and count of the signs of real logits, which steer ADA: (2,)."""
    signs = logits.detach().sign().double()
    return torch.stack([signs.sum(), torch.full_like(signs.sum(), signs.numel())])
