"""The loop: exact resume, what it leaves in the run folder, and how it refuses and stops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medgan import runs
from medgan.data.dataset import open_dataset
from medgan.errors import ConfigError, DataError, DivergedError, Preempted, ResumeError
from medgan.networks.bundle import read_bundle
from medgan.training.config import PRESETS, TrainConfig, preset, seconds
from medgan.training.loop import train
from tests.golden import Golden
from tests.toy import discs, tiny


def _tensors(value, prefix=""):
    if isinstance(value, torch.Tensor):
        yield prefix, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, f"{prefix}/{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _tensors(item, f"{prefix}/{i}")


def _state(run: Path) -> dict:
    return torch.load(run / runs.STATE, weights_only=True)


def test_two_and_two_ticks_equal_four(tmp_path):
    """Every tensor of the saved state, bit for bit: networks, both Adam states, EMA, pl_mean, the sampler."""
    data = discs(tmp_path / "data")
    # A target no discriminator can miss, so that p moves and the augmentation draws.
    train(tiny(ada_target=-0.99), data, tmp_path / "whole")
    train(tiny(ada_target=-0.99, kimg=0.02), data, tmp_path / "parts")
    train(tiny(ada_target=-0.99), data, tmp_path / "parts")
    whole, parts = _state(tmp_path / "whole"), _state(tmp_path / "parts")
    names = [name for name, _ in _tensors(whole)]
    assert len(names) > 200
    for (name, a), (_, b) in zip(_tensors(whole), _tensors(parts), strict=True):
        assert torch.equal(a, b), name
    assert whole["counters"]["p"] == parts["counters"]["p"] > 0
    rows = [runs.read_json_lines(tmp_path / run / runs.STATS) for run in ("whole", "parts")]
    losses = [[row["Loss/G/loss"]["mean"] for row in stats] for stats in rows]
    assert losses[0] == losses[1]


def test_a_training_in_bfloat16_stays_near_one_in_float32_and_goes_on_exactly(tmp_path):
    """Everything saved is float32 all the same. Losses differ by what bfloat16 rounds (2 %, and Adam's sign steps on top), far less than they move."""
    data = discs(tmp_path / "data")
    train(tiny(), data, tmp_path / "exact")
    train(tiny(precision="bf16"), data, tmp_path / "whole")
    train(tiny(precision="bf16", kimg=0.02), data, tmp_path / "parts")
    train(tiny(precision="bf16"), data, tmp_path / "parts")
    exact, whole, parts = (dict(_tensors(_state(tmp_path / run))) for run in ("exact", "whole", "parts"))
    assert {name: tensor.dtype for name, tensor in whole.items()} == {name: tensor.dtype for name, tensor in exact.items()}
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not all(torch.equal(whole[name], exact[name]) for name in whole)
    for name in ("Loss/G/loss", "Loss/D/loss"):
        near, true = ([row[name]["mean"] for row in runs.read_json_lines(tmp_path / run / runs.STATS)] for run in ("whole", "exact"))
        assert near == pytest.approx(true, rel=0.05), name
    with pytest.raises(ResumeError, match="precision bf16 -> fp32"):
        train(tiny(), data, tmp_path / "whole")


def test_another_seed_trains_otherwise(tmp_path):
    data = discs(tmp_path / "data")
    train(tiny(kimg=0.008), data, tmp_path / "a")
    train(tiny(kimg=0.008, seed=1), data, tmp_path / "b")
    assert not torch.equal(_state(tmp_path / "a")["G"]["synthesis.b4.const"], _state(tmp_path / "b")["G"]["synthesis.b4.const"])


def test_a_stop_saves_the_state_and_the_same_call_goes_on(tmp_path):
    data = discs(tmp_path / "data")
    train(tiny(), data, tmp_path / "whole")
    asked = iter([False, False, False, True])
    with pytest.raises(Preempted):
        train(tiny(), data, tmp_path / "run", stop=lambda: next(asked))
    assert _state(tmp_path / "run")["counters"]["nimg"] == 12
    train(tiny(), data, tmp_path / "run")
    for (name, a), (_, b) in zip(_tensors(_state(tmp_path / "whole")), _tensors(_state(tmp_path / "run")), strict=True):
        assert torch.equal(a, b), name


def test_resume_names_every_difference(tmp_path):
    train(tiny(kimg=0.004), discs(tmp_path / "data"), tmp_path / "run")
    with pytest.raises(ResumeError, match=r"gamma 1.0 -> 2.0; seed 0 -> 3; dataset \w{12} -> \w{12}"):
        train(tiny(gamma=2.0, seed=3), discs(tmp_path / "other", n=9), tmp_path / "run")
    train(tiny(kimg=0.004, gamma=2.0), discs(tmp_path / "data"), tmp_path / "run", resume="new")


def test_starting_over_clears_a_run_and_nothing_else(tmp_path):
    foreign = tmp_path / "folder" / runs.SYNTHETIC / "mine.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("not yours")
    data = discs(tmp_path / "data")
    train(tiny(kimg=0.004), data, tmp_path / "folder", resume="new")
    assert foreign.read_text() == "not yours"
    train(tiny(kimg=0.008), data, tmp_path / "folder", resume="new")
    assert [row["tick"] for row in runs.read_json_lines(tmp_path / "folder" / runs.STATS)] == [0, 1]


def test_labels_make_the_networks_conditional(tmp_path):
    discs(tmp_path / "data", n=4)
    pairs = [[f"img{i:08d}.png", i % 2] for i in range(4)]
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": pairs}))
    train(tiny(kimg=0.004), open_dataset(tmp_path / "data"), tmp_path / "run")
    G, metadata = read_bundle(tmp_path / "run" / runs.BUNDLE)
    assert metadata["medgan"]["arguments"]["c_dim"] == 2
    z, c = torch.randn(2, 8), torch.eye(2)
    assert not torch.equal(G(z, c, noise_mode="none"), G(z, c.flip(0), noise_mode="none"))


def test_a_damaged_state_is_no_traceback(tmp_path):
    data = discs(tmp_path / "data")
    train(tiny(kimg=0.004), data, tmp_path / "run")
    (tmp_path / "run" / runs.STATE).write_bytes(b"not a state")
    with pytest.raises(ResumeError, match="cannot be read"):
        train(tiny(), data, tmp_path / "run")
    with pytest.raises(ConfigError, match="names no saved state"):
        train(tiny(), data, tmp_path / "run", resume=str(tmp_path / "nowhere"))


def test_the_same_command_with_another_run_s_state_goes_on_where_it_stopped(tmp_path):
    data = discs(tmp_path / "data")
    train(tiny(kimg=0.008), data, tmp_path / "first")
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Preempted):
        train(tiny(kimg=0.032), data, tmp_path / "second", resume=str(tmp_path / "first"), stop=stop)
    told: list[dict[str, str]] = []
    train(tiny(kimg=0.032), data, tmp_path / "second", resume=str(tmp_path / "first"), on_tick=told.append)
    assert told[0]["kimg"] == "0.024/0.032"
    train(tiny(kimg=0.032), data, tmp_path / "whole")
    states = [torch.load(tmp_path / name / runs.STATE, weights_only=True) for name in ("second", "whole")]
    assert all(torch.equal(states[0]["G_ema"][name], tensor) for name, tensor in states[1]["G_ema"].items())


def test_run_folder_and_best_snapshot(tmp_path):
    """The best of 9, 4 and 6 is the second snapshot, and its weights are the bundle."""
    values = iter([9.0, 4.0, 6.0])
    seen = []

    def measure(G_ema):
        seen.append({name: tensor.clone() for name, tensor in G_ema.state_dict().items()})
        return {"metrics": {"fid": {"value": next(values)}}, "n_real": 12, "n_fake": 8}

    trained = train(tiny(), discs(tmp_path / "data"), tmp_path / "run", on_snapshot=measure)
    run = tmp_path / "run"
    assert trained.best == {"kimg": 0.02, "metric": "fid", "value": 4.0, "rests_on": ["fid", 12, 8]}
    G, metadata = read_bundle(run / runs.BUNDLE)
    assert metadata["medgan"]["kimg"] == 0.02
    for name, tensor in G.state_dict().items():
        assert torch.equal(tensor, seen[1][name])
    assert [row["kimg"] for row in runs.read_json_lines(run / runs.EVALUATIONS)] == [0.004, 0.02, 0.032]
    assert [row["tick"] for row in runs.read_json_lines(run / runs.STATS)] == [0, 1, 2, 3, 4]
    assert len(list((run / runs.SNAPSHOTS).glob("*.png"))) == 3
    assert json.loads((run / runs.CONFIG).read_text())["batch"] == 4
    assert json.loads((run / runs.STATUS).read_text())["pct"] == "100"
    assert not list(run.rglob("*.part"))


def test_the_best_of_a_share_is_the_highest(tmp_path):
    values = iter([0.1, 0.7, 0.4])
    measure = lambda G: {"metrics": {"precision_inception": {"value": next(values), "higher_is_better": True}}}  # noqa: E731
    trained = train(tiny(), discs(tmp_path / "data"), tmp_path / "run", on_snapshot=measure)
    assert trained.best == {"kimg": 0.02, "metric": "precision_inception", "value": 0.7, "rests_on": ["precision_inception", None, None]}


def test_random_weights_are_never_the_best(tmp_path):
    """The first snapshot has the lowest figure of all and still gives way to the first trained one."""
    values = iter([1.0, 9.0, 7.0])
    measured = {"n_real": 12, "n_fake": 8}
    trained = train(
        tiny(), discs(tmp_path / "data"), tmp_path / "run", on_snapshot=lambda G: {"metrics": {"fid": {"value": next(values)}}, **measured}
    )
    assert trained.best == {"kimg": 0.032, "metric": "fid", "value": 7.0, "rests_on": ["fid", 12, 8]}


def test_a_continuation_on_other_counts_starts_its_own_contest(tmp_path):
    """An FID of more images is lower by its bias alone, and of fewer ones higher: neither beats the other."""

    def measure(value, n_fake):
        return lambda G: {"metrics": {"fid": {"value": value}}, "n_real": 12, "n_fake": n_fake}

    data, run = discs(tmp_path / "data"), tmp_path / "run"
    first = train(tiny(kimg=0.02), data, run, on_snapshot=measure(5.0, 50))
    assert first.best["value"] == 5.0
    longer = train(tiny(), data, run, on_snapshot=measure(9.0, 8))
    assert (longer.best["value"], longer.best["rests_on"]) == (9.0, ["fid", 12, 8])


def test_the_official_schedule_of_ticks_and_snapshots(golden):
    """The loop's own conditions, run over the 2,000 kimg of the reference without training."""
    config = TrainConfig(batch=32, kimg=2000)
    rows, tick, start, nimg = [], 0, 0, 0
    while nimg < config.kimg * 1000:
        nimg += config.batch
        done = nimg >= config.kimg * 1000
        if done or tick == 0 or nimg >= start + config.tick_kimg * 1000:
            rows.append([tick, nimg, int(done or tick % config.snapshot_ticks == 0)])
            tick, start = tick + 1, nimg
    np.testing.assert_array_equal(rows, Golden(golden, "schedule")["ticks/batch32_total2000kimg"].numpy())


def test_a_time_budget_ends_the_run_as_partial(tmp_path):
    trained = train(tiny(kimg=100, time_budget="0.01s"), discs(tmp_path / "data"), tmp_path / "run")
    assert trained.status == "partial"
    assert (tmp_path / "run" / runs.STATE).exists()
    assert (tmp_path / "run" / runs.BUNDLE).exists()


def test_a_diverged_run_stops_itself(tmp_path):
    with pytest.raises(DivergedError, match="not finite"):
        train(tiny(lr_g=1e30, lr_d=1e30, augment="none"), discs(tmp_path / "data"), tmp_path / "run")
    assert runs.read_json_lines(tmp_path / "run" / runs.STATS)[-1]["nonfinite"] > 100


def test_a_size_without_networks_is_refused_with_the_nearest(tmp_path):
    from medgan.training.state import build

    with pytest.raises(DataError) as error:
        build(tiny(), size=48, channels=1, c_dim=0, device=torch.device("cpu"))
    assert "--size 32" in error.value.line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 5, "batch_gpu": 4}, "fix: --batch 4"),
        ({"batch": 3, "batch_gpu": 4}, "fix: --batch 4"),
        ({"augment": "fixed"}, "--augment-p 0.2"),
        ({"batch": 6, "mbstd_group": 4}, "--mbstd-group 3"),
        ({"kimg": 0}, "--kimg"),
        ({"style_mixing": 1.5}, "--style-mixing"),
        ({"time_budget": "soon"}, "--time-budget"),
        ({"batch": 1}, "--batch-gpu 2"),
    ],
)
def test_impossible_settings_name_the_flag(changes, message):
    with pytest.raises(ConfigError) as error:
        TrainConfig(**changes)
    assert message in error.value.line


@pytest.mark.parametrize(
    ("text", "expected"), [("", 0), ("90", 90), ("90s", 90), ("30m", 1800), ("20h", 72000), ("1h30m", 5400), ("2d", 172800), ("0.5h", 1800)]
)
def test_lengths_of_time(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [32, 256, 1024])
def test_presets_are_valid_at_every_size(name, size):
    assert preset(name, size=size).kimg > 0
