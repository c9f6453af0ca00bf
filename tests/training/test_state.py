"""The state: which settings a continuation may change, and Freeze-D."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from medgan import runs
from medgan.errors import ConfigError, ResumeError
from medgan.networks.stylegan2 import Discriminator
from medgan.training import state as states
from medgan.training.config import TrainConfig
from medgan.training.loop import train
from medgan.training.sampler import Sampler
from tests.conftest import ROOT
from tests.toy import discs, tiny

CPU = torch.device("cpu")
CONTINUABLE = {
    "kimg", "epochs", "time_budget", "metrics", "metric_images", "tick_kimg", "snapshot_ticks", "keep_snapshots", "keep_most", "max_nonfinite", "check_transfer",
    "gpus", "batch_gpu", "kid_every", "kid_images", "compile", "recompute",
}  # fmt: skip


def _built(config: TrainConfig) -> states.State:
    return states.build(config, size=32, channels=1, c_dim=0, device=CPU)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "state.pt"
    states.save(_built(tiny()), path, config=tiny(), dataset_identity="ab" * 32, sampler=Sampler(4).state())
    return path


def _with_another(config: TrainConfig, field: dataclasses.Field) -> TrainConfig:
    """The settings with another value of one field; past the checks, because states compare values of any origin."""
    old = getattr(config, field.name)
    if isinstance(old, bool):
        new = not old
    elif isinstance(old, int | float):
        new = old + 1
    elif isinstance(old, tuple):
        new = (*old, "another")
    else:
        new = f"{old}-another"
    other = dataclasses.replace(config)
    object.__setattr__(other, field.name, new)
    return other


@pytest.mark.parametrize("field", dataclasses.fields(TrainConfig), ids=lambda field: field.name)
def test_every_other_setting_is_refused_by_name_or_may_change(saved, field):
    """Length, stops and what is looked at on the way may change; everything else makes another run."""
    other = _with_another(tiny(), field)

    def resume() -> None:
        states.load(_built(tiny()), saved, config=other, dataset_identity="ab" * 32, device=CPU)

    if field.name in CONTINUABLE:
        resume()
        return
    with pytest.raises(ResumeError) as error:
        resume()
    assert error.value.exit_code == 78
    old, new = getattr(tiny(), field.name), getattr(other, field.name)
    if isinstance(old, tuple):
        old, new = list(old), list(new)
    assert error.value.message == f"{field.name} {old} -> {new}"


def test_every_difference_is_named_at_once(saved):
    with pytest.raises(ResumeError) as error:
        states.load(_built(tiny()), saved, config=tiny(gamma=2.0, seed=3, labels=False), dataset_identity="cd" * 32, device=CPU)
    assert error.value.message == f"gamma 1.0 -> 2.0; labels True -> False; seed 0 -> 3; dataset {'ab' * 6} -> {'cd' * 6}"


def test_a_setting_younger_than_the_state_stood_at_its_default(saved, tmp_path):
    content = torch.load(saved, weights_only=True)
    del content["config"]["freeze_d"]
    runs.save_tensors(tmp_path / "old.pt", content)
    states.load(_built(tiny()), tmp_path / "old.pt", config=tiny(), dataset_identity="ab" * 32, device=CPU)
    with pytest.raises(ResumeError, match="freeze_d 0 -> 3"):
        states.load(_built(tiny()), tmp_path / "old.pt", config=tiny(freeze_d=3), dataset_identity="ab" * 32, device=CPU)


def test_frozen_layers_are_counted_from_the_image():
    """Five layers of 32 px: fromrgb, conv0, conv1 and skip of the first block, conv0 of the second (STYLEGAN2-ADA.md 3)."""
    D = Discriminator(img_resolution=32, channel_base=256, channel_max=8, freeze_layers=5)
    whole = Discriminator(img_resolution=32, channel_base=256, channel_max=8)
    frozen = dict(whole.named_parameters()).keys() - dict(D.named_parameters()).keys()
    layers = ("b32.fromrgb", "b32.conv0", "b32.conv1", "b16.conv0")
    assert frozen == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")} | {"b32.skip.weight"}
    assert D.state_dict().keys() == whole.state_dict().keys()


def test_frozen_layers_never_change_and_all_others_do(tmp_path):
    config = tiny(freeze_d=5)
    before = _built(config).D.state_dict()
    train(config, discs(tmp_path / "data"), tmp_path / "run")
    after = torch.load(tmp_path / "run" / runs.STATE, weights_only=True)["D"]
    assert after.keys() == before.keys()
    still = {name for name in before if torch.equal(before[name], after[name])}
    layers = ("b32.fromrgb", "b32.conv0", "b32.conv1", "b16.conv0")
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")} | {"b32.skip.weight"}
    assert {name for name in still if not name.endswith("resample_filter")} == expected


@pytest.mark.parametrize(("architecture", "layers"), [("resnet", 10), ("orig", 7), ("skip", 9)])
def test_more_layers_than_there_are_cannot_be_frozen(architecture, layers):
    """Three blocks of 32, 16 and 8 px: 4 + 3 + 3 with residuals, 3 + 2 + 2 without, 3 each where every block reads the image."""
    all_of_them = _built(tiny(d_architecture=architecture, freeze_d=layers)).D
    assert {name.split(".")[0] for name, _ in all_of_them.named_parameters()} == {"b4"}
    with pytest.raises(ConfigError) as error:
        _built(tiny(d_architecture=architecture, freeze_d=layers + 1))
    assert f"fix: --freeze-d {layers} or less" in error.value.line


def test_the_how_to_lists_what_may_change():
    text = (ROOT / "docs/how-to/training.md").read_text(encoding="utf-8").split("change on the way: ")[1]
    assert set(re.findall(r"--([a-z-]+)", text)) == {name.replace("_", "-") for name in states.FREE}
    assert set(states.FREE) == CONTINUABLE
