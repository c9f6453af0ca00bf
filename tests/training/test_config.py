"""The settings: the paper's and the official rows value by value, and what cannot be asked for."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from medgan.errors import ConfigError
from medgan.training.config import PIPES, TrainConfig, preset


def test_the_paper_preset_is_the_paper():
    """STYLEGAN2-ADA.md 6.5, the paper's runs expressed; whatever is not listed has no counterpart there."""
    expected = {
        "kimg": 25000, "tick_kimg": 4, "snapshot_ticks": 50, "batch": 32, "batch_gpu": 0, "gamma": 8.2, "lr_g": 0.002, "lr_d": 0.002, "beta1": 0.9,
        "beta2": 0.99, "precision": "fp32", "mirror": True, "labels": False, "augment": "ada", "augment_pipe": "bgc", "augment_p": 0,
        "ada_target": 0.6, "ada_interval": 4, "ada_kimg": 500, "ada_max": 0, "channel_base": 32768, "channel_max": 512, "map_layers": 8,
        "latent": 512, "mbstd_group": 4, "d_architecture": "resnet", "freeze_d": 0, "ema_rampup": 0.05, "w_avg_beta": 0.998, "style_mixing": 0.9,
        "pl_weight": 2, "g_reg_interval": 4, "d_reg_interval": 16, "metrics": ("fid50k_full",), "metric_images": 50000, "seed": 0,
    }  # fmt: skip
    config = preset("paper-2210.03786", size=512, gpus=8)
    assert {name: asdict(config)[name] for name in expected} == expected
    assert config.ema_half_life == 10_000
    assert config.kimg / config.tick_kimg == 6250


def test_fp32_means_without_tf32():
    import torch

    from medgan.machine import set_precision

    set_precision("tf32")
    set_precision(preset("paper-2210.03786", size=512).precision)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


# batch, mbstd, fmaps x 32768, lr, gamma, ema kimg, ramp, map layers (STYLEGAN2-ADA.md 6.5, on the reference's number of GPUs).
OFFICIAL = {
    ("auto", 256, 8): (64, 4, 0.5, 0.0025, 0.0002 * 256**2 / 64, 20, 0.05, 2),
    ("auto", 1024, 8): (32, 4, 1, 0.002, 0.0002 * 1024**2 / 32, 10, 0.05, 2),
    ("auto", 512, 1): (8, 4, 1, 0.0025, 0.0002 * 512**2 / 8, 2.5, 0.05, 2),
    ("paper256", 256, 8): (64, 8, 0.5, 0.0025, 1, 20, 0, 8),
    ("paper512", 512, 8): (64, 8, 1, 0.0025, 0.5, 20, 0, 8),
    ("paper1024", 1024, 8): (32, 4, 1, 0.002, 2, 10, 0, 8),
    ("cifar", 32, 2): (64, 32, 1, 0.0025, 0.01, 500, 0.05, 2),
    # The column of the StyleGAN3 repository, which the preset of this name follows: with ramp-up.
    ("stylegan2", 1024, 8): (32, 4, 1, 0.002, 10, 10, 0.05, 8),
}


@pytest.mark.parametrize("row", OFFICIAL)
def test_the_official_rows(row):
    name, size, gpus = row
    c = preset(name, size=size, gpus=gpus)
    ours = (c.batch, c.mbstd_group, c.channel_base / 32768, c.lr_g, c.gamma, c.ema_half_life / 1000, c.ema_rampup, c.map_layers)
    assert ours == pytest.approx(OFFICIAL[row])
    assert (c.lr_d, c.beta1, c.beta2, c.tick_kimg, c.snapshot_ticks) == (c.lr_g, 0, 0.99, 4, 50)
    assert c.kimg == (100_000 if name == "cifar" else 25_000)


def test_cifar_has_no_path_lengths_no_mixing_and_a_plain_discriminator():
    c = preset("cifar", size=32, gpus=2)
    assert (c.pl_weight, c.style_mixing, c.d_architecture) == (0, 0, "orig")


def test_p_is_bounded_but_in_the_paper():
    from medgan.training.config import PRESETS

    assert {name: preset(name, size=256).ada_max for name in PRESETS if preset(name, size=256).ada_max != 0.8} == {"paper-2210.03786": 0.0}


def test_anatomy_is_bgc_without_quarter_turns_and_hue():
    assert set(PIPES["bgc"]) - set(PIPES["anatomy"]) == {"rotate90", "hue"}
    assert set(PIPES["anatomy"]) < set(PIPES["bgc"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": "diffaugment", "augment_p": 0.2}, "--augment diffaugment has no p; fix: --augment-p 0"),
        ({"augment": "none", "augment_p": 0.2}, "--augment none has no p"),
        ({"augment_p": 0.9}, "--augment-p 0.9 is above its bound 0.8"),
        ({"diffaugment_policy": ("color", "flip")}, "--diffaugment-policy color,flip is no list of different parts"),
        ({"diffaugment_policy": ("color", "color")}, "fix: some of color,translation,cutout"),
        ({"augment": "diffaugment", "diffaugment_policy": ()}, "augments nothing; fix: --augment none"),
        ({"ada_interval": 0}, "--ada-interval 0 is less than 1"),
        ({"freeze_d": -1}, "--freeze-d -1 is less than 0"),
        ({"keep_snapshots": -1}, "--keep-snapshots"),
        ({"keep_most": 0}, "--keep-most"),
        ({"max_nonfinite": -1}, "--max-nonfinite"),
    ],
)
def test_impossible_settings_name_the_flag_and_the_way_out(changes, message):
    with pytest.raises(ConfigError) as error:
        TrainConfig(**changes)
    assert message in error.value.line
