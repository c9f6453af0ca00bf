"""KID between FIDs: logged at its ticks, on any number of ranks, and without a say in anything."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from medgan import runs
from medgan.cli import main
from medgan.errors import ConfigError, Preempted
from medgan.training.config import TrainConfig
from medgan.training.disk import bytes_needed
from medgan.training.loop import train
from tests.metrics.pretrained import inception
from tests.test_launch import _command, _run
from tests.toy import discs, tiny


def measures(values=None):
    calls = []

    def kid(G: torch.nn.Module) -> dict[str, float]:
        assert not G.training
        calls.append(1)
        return {"value": values[len(calls) - 1] if values else -0.5, "seconds": 0.25}

    return kid, calls


def test_it_stands_in_the_rows_of_its_ticks(tmp_path):
    kid, calls = measures([0.5, 0.25, 0.125])
    told = []
    train(tiny(kid_every=2), discs(tmp_path / "data"), tmp_path / "run", on_kid=kid, on_tick=told.append)
    rows = runs.read_json_lines(tmp_path / "run" / runs.STATS)
    # Ticks 0 ... 4.
    assert [row.get("KID/value") for row in rows] == [0.5, None, 0.25, None, 0.125]
    assert [row.get("KID/seconds") for row in rows] == [0.25, None] * 2 + [0.25]
    assert len(calls) == 3
    assert [fields["kid"] for fields in told] == ["0.5@0.004", "0.5@0.004", "0.25@0.02", "0.25@0.02", "0.125@0.032"]
    assert json.loads((tmp_path / "run" / runs.STATUS).read_text())["kid"] == "0.125@0.032"
    assert runs.read_json_lines(tmp_path / "run" / runs.EVALUATIONS) == []


def test_it_is_off_unless_asked_for(tmp_path):
    kid, calls = measures()
    train(tiny(), discs(tmp_path / "data"), tmp_path / "run", on_kid=kid)
    assert calls == []


def test_it_never_chooses_the_best_snapshot(tmp_path):
    """KID falls while FID rises: the snapshot with the lowest FID stays."""
    fids = iter([9.0, 1.0, 2.0, 3.0])
    kid, _ = measures([4.0, 3.0, 2.0, 1.0, -1.0])
    done = train(
        tiny(kid_every=1),
        discs(tmp_path / "data"),
        tmp_path / "run",
        on_snapshot=lambda G: {"metrics": {"fid": {"value": next(fids)}}},
        on_kid=kid,
    )
    assert (done.best["metric"], done.best["value"], done.best["kimg"]) == ("fid", 1.0, 0.02)


def test_a_training_with_it_is_bit_for_bit_one_without(tmp_path):
    data = discs(tmp_path / "data")

    def kid(G: torch.nn.Module) -> dict[str, float]:
        with torch.inference_mode():
            return {"value": float(G(torch.zeros(2, 8), None, noise_mode="const").mean()), "seconds": 0.0}

    train(tiny(kid_every=1, ada_target=-0.99), data, tmp_path / "with", on_kid=kid)
    train(tiny(ada_target=-0.99), data, tmp_path / "without")
    states = [torch.load(tmp_path / run / runs.STATE, weights_only=True) for run in ("with", "without")]
    for network in ("G", "D", "G_ema"):
        assert all(torch.equal(states[0][network][name], tensor) for name, tensor in states[1][network].items())


def test_a_stop_in_the_middle_of_it_is_a_stop_of_the_training(tmp_path):
    asked = []

    def kid(G: torch.nn.Module) -> dict[str, float]:
        asked.append(1)
        raise Preempted("stopped while measuring")

    data = discs(tmp_path / "data")
    with pytest.raises(Preempted, match="the state is saved"):
        train(tiny(kid_every=1), data, tmp_path / "run", on_kid=kid, stop=lambda: bool(asked))
    assert torch.load(tmp_path / "run" / runs.STATE, weights_only=True)["counters"]["nimg"] == 4
    # It may be switched on or off on the way.
    assert train(tiny(), data, tmp_path / "run").status == "complete"


def test_settings_that_cannot_be():
    for wrong in ({"kid_every": -1}, {"kid_images": 1}):
        with pytest.raises(ConfigError, match="--kid-"):
            TrainConfig(**wrong)


def test_its_features_are_counted_among_the_files():
    shape = {"size": 32, "channels": 1, "images": 300}
    assert bytes_needed(TrainConfig(metrics=(), kid_every=2, kid_images=100), 1, 1, **shape).features == 100 * 2048 * 4
    assert bytes_needed(TrainConfig(metrics=("fid",), kid_every=2), 1, 1, **shape).features == 600 * 2048 * 4


def test_two_ranks_measure_what_one_does(tmp_path, monkeypatch):
    inception()
    monkeypatch.setenv("MEDGAN_DEVICE", "cpu")
    words = ("--kimg", "0.008", "--kid-every", "1", "--kid-images", "5")
    done = _run(_command(tmp_path, "two", "--gpus", "2", *words))
    assert done.returncode == 0, done.stderr
    alone = CliRunner().invoke(main, [*_command(tmp_path, "one", "--gpus", "1", *words)[3:]])
    assert alone.exit_code == 0, alone.stderr
    rows = [runs.read_json_lines(tmp_path / run / runs.STATS)[0] for run in ("one", "two")]
    assert rows[0]["KID/value"] == pytest.approx(rows[1]["KID/value"], rel=1e-3)
    assert rows[0]["KID/seconds"] > 0
    assert "kid=" in alone.stderr
    assert [path.name[:9] for path in (tmp_path / "one" / "cache").iterdir()] == ["features-"]
