"""Training DCGAN by the one loop: exact resume, what its layers remember, lengths in epochs, and what it has not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from medgan import runs
from medgan.cli import main
from medgan.data.dataset import open_dataset
from medgan.errors import ConfigError
from medgan.networks.bundle import read_bundle
from medgan.training.config import TrainConfig, for_set, preset
from medgan.training.loop import train
from medgan.training.state import update_average
from tests.toy import discs

PAPER = preset("paper-2308.02505", size=28)
SMALL = replace(PAPER, epochs=0.0, kimg=0.032, batch=4, latent=8, channel_base=112, channel_max=8, tick_kimg=0.008, snapshot_ticks=2)


def state_of(run: Path) -> dict:
    return torch.load(run / runs.STATE, weights_only=True)


def tensors(value, prefix=""):
    if isinstance(value, torch.Tensor):
        yield prefix, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(item, f"{prefix}/{key}")


def test_the_paper_preset_is_the_paper():
    """28 px, latent of 100, 500 epochs, batch of 128; from DCGAN's paper, section 4: Adam 0.0002 and 0.5."""
    assert (PAPER.family, PAPER.latent, PAPER.epochs, PAPER.batch) == ("dcgan", 100, 500, 128)
    assert (PAPER.lr_g, PAPER.lr_d, PAPER.beta1, PAPER.augment, PAPER.mirror, PAPER.labels) == (0.0002, 0.0002, 0.5, "none", False, False)
    assert preset("", size=28, family="dcgan") == PAPER


@pytest.mark.parametrize("held_out", [False, True])
def test_two_and_two_ticks_equal_four_bit_for_bit(tmp_path, held_out):
    """Also where D looks at real and held-out images at snapshots, of which an unbroken run has one less."""
    data = discs(tmp_path / "data", size=28)
    others = discs(tmp_path / "others", n=6, size=28) if held_out else None
    train(SMALL, data, tmp_path / "whole", held_out=others)
    train(replace(SMALL, kimg=0.016), data, tmp_path / "parts", held_out=others)
    train(SMALL, data, tmp_path / "parts", held_out=others)
    whole, parts = state_of(tmp_path / "whole"), state_of(tmp_path / "parts")
    assert sum("running_mean" in name for name, _ in tensors(whole)) > 0
    for (name, a), (_, b) in zip(tensors(whole), tensors(parts), strict=True):
        assert torch.equal(a, b), name
    assert whole["counters"]["nimg"] == 32


def test_the_generator_itself_makes_the_images(tmp_path):
    train(replace(SMALL, kimg=0.012), discs(tmp_path / "data", size=28), tmp_path / "run")
    saved = state_of(tmp_path / "run")
    assert all(torch.equal(saved["G"][name], saved["G_ema"][name]) for name in saved["G"])
    G, metadata = read_bundle(tmp_path / "run" / runs.BUNDLE)
    assert torch.equal(G.state_dict()["layers.0.weight"], saved["G"]["layers.0.weight"])
    assert metadata["medgan"]["chosen_by"] == "the last snapshot"
    assert metadata["medgan"]["arguments"]["z_dim"] == 8


def test_only_networks_with_batch_normalisation_are_not_averaged(tmp_path):
    from medgan.training.state import build
    from tests.toy import tiny

    for config, averaged in ((tiny(), True), (SMALL, False)):
        assert build(config, size=32, channels=1, c_dim=0, device=torch.device("cpu")).averaged is averaged
    state = build(tiny(ema_kimg=1.0), size=32, channels=1, c_dim=0, device=torch.device("cpu"))
    with torch.no_grad():
        next(state.G.parameters()).add_(1)
    state.nimg = 10**6
    update_average(state, tiny(ema_kimg=1.0), images=4)
    assert not torch.equal(next(state.G.parameters()), next(state.G_ema.parameters()))


def test_the_losses_are_those_of_the_paper(tmp_path):
    """Binary cross-entropy of D, and of G with the labels turned round, over one step with no second draw in between."""
    from torch.nn import functional as F

    from medgan.training.augment import Augment
    from medgan.training.state import build
    from medgan.training.statistics import Collector
    from medgan.training.step import Step

    state = build(SMALL, size=28, channels=1, c_dim=0, device=torch.device("cpu"))
    twin = build(SMALL, size=28, channels=1, c_dim=0, device=torch.device("cpu"))
    collect, z, real = Collector(), torch.randn(4, 8), torch.rand(4, 1, 28, 28) * 2 - 1
    Step(state, SMALL, Augment([]), gamma=1.0, collect=collect, labels=lambda n: None)(real, None, lambda phase: z)
    logits = twin.D(twin.G(z))
    loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    assert collect.mean("Loss/G/loss") == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    torch.optim.Adam(twin.G.parameters(), lr=0.0002, betas=(0.5, 0.999)).step()
    fake = twin.D(twin.G(z).detach())
    true = twin.D(real)
    loss = F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake)) + F.binary_cross_entropy_with_logits(
        true, torch.ones_like(true)
    )
    assert collect.mean("Loss/D/loss") == pytest.approx(loss.item(), rel=1e-4)
    for a, b in zip(state.G.parameters(), twin.G.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_epochs_become_images_shown_and_a_small_class_cuts_the_batch():
    assert (for_set(PAPER, 3494).kimg, for_set(PAPER, 3494).batch) == (1747.0, 128)
    assert (for_set(PAPER, 90).kimg, for_set(PAPER, 90).batch) == (45.0, 90)
    assert for_set(replace(PAPER, mirror=True), 90).kimg == 90.0
    assert for_set(replace(PAPER, max_images=50), 90).kimg == 25.0
    # StyleGAN2 keeps its batch, as the official code does.
    assert for_set(TrainConfig(), 9) == TrainConfig()
    twice = for_set(for_set(PAPER, 90), 90)
    assert twice == for_set(PAPER, 90)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pl_weight": 2.0, "batch": 4}, "no styles"),
        ({"style_mixing": 0.9}, "--preset paper-2308.02505"),
        ({"gpus": 2}, "--gpus 1 --batch-gpu 0"),
        ({"batch_gpu": 64}, "cannot be divided"),
    ],
)
def test_what_it_has_not_is_refused(changes, message):
    with pytest.raises(ConfigError) as error:
        for_set(replace(PAPER, **changes), 1000)
    assert message in error.value.line


def test_classes_are_refused(tmp_path):
    pairs = [[name, i % 2] for i, name in enumerate(discs(tmp_path / "data", size=28).names)]
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": pairs}))
    data = open_dataset(tmp_path / "data")
    with pytest.raises(ConfigError, match="knows none") as error:
        train(replace(SMALL, labels=True), data, tmp_path / "run")
    assert error.value.exit_code == 2


def options(*words) -> list[str]:
    return [str(word) for word in words]


def test_the_command_says_what_the_class_made_of_the_batch(tmp_path, caplog):
    discs(tmp_path / "data", size=28)
    small = ("--latent", 8, "--channel-base", 112, "--channel-max", 8)
    words = options("train", "--data", tmp_path / "data", "--out", tmp_path / "run", "--family", "dcgan", "--epochs", 2, *small)
    shown = CliRunner().invoke(main, [*words, "--dry-run"])
    assert {"kimg": 0.024, "batch": 12, "epochs": 2.0, "beta1": 0.5}.items() <= json.loads(shown.output).items()
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "the batch is the 12 images of the set, not 128" in caplog.text
    assert json.loads((tmp_path / "run" / runs.CONFIG).read_text())["kimg"] == 0.024
    shorter = CliRunner().invoke(main, [*words[:-8], "--preset", "paper-2308.02505", "--kimg", "3", "--dry-run"])
    assert {"kimg": 3.0, "epochs": 0.0}.items() <= json.loads(shorter.output).items()
    both = CliRunner().invoke(main, [*words, "--kimg", "3"])
    assert both.exit_code == 2
