"""A training that starts from other networks: read, compared, filled, measured, resumed, and written down."""

from __future__ import annotations

import copy
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from medgan import runs, weights
from medgan.cli import main
from medgan.commands.import_network import import_network
from medgan.commands.job import JobConfig
from medgan.commands.training_run import run_training
from medgan.commands.transfer import starting_point
from medgan.errors import Preempted, ResumeError, WeightsError
from medgan.metrics.evaluate import Evaluator
from medgan.networks.bundle import read_bundle, read_discriminator
from medgan.networks.sources import identity, read_pretrained
from medgan.networks.stylegan2 import Discriminator, Generator
from medgan.reports.build import build_report
from medgan.training.config import TrainConfig
from medgan.training.loop import train
from tests.networks.official import dumps, keywords, snapshot
from tests.toy import TINY, discs, tiny

ARGUMENTS = {"img_resolution": 32, "img_channels": 3, "channel_base": 128, "channel_max": 8}
OF_G = {"z_dim": 16, "w_dim": 16, "mapping_layers": 3}
LICENCE = "NVIDIA Source Code Licence: research and evaluation only"


@pytest.fixture(scope="module")
def pickle_file(tmp_path_factory) -> Path:
    torch.manual_seed(3)
    G, D = Generator(**ARGUMENTS, **OF_G), Discriminator(**ARGUMENTS)
    ema = copy.deepcopy(G)
    with torch.no_grad():
        ema.synthesis.b4.const.add_(0.5)
    path = tmp_path_factory.mktemp("nvidia") / "ffhq-256.pkl"
    path.write_bytes(dumps(snapshot(G, D, ema, keywords({**ARGUMENTS, **OF_G}, ARGUMENTS, ada=True))))
    return path


def start(pickle_file: Path, tmp_path: Path, config: TrainConfig = TINY, **settings):
    data = discs(tmp_path / "data")
    config = TrainConfig(**{**config.__dict__, "pretrained": str(pickle_file), **settings.pop("changes", {})})
    return starting_point(config, data, tmp_path / "run", folder=None, resume="auto", explicit=settings.pop("explicit", ()))


def test_the_networks_shape_and_the_official_transfer_settings_yield_only_to_the_user(pickle_file, tmp_path):
    config, found = start(pickle_file, tmp_path, TrainConfig(batch=4, metrics=()))
    assert (config.channel_base, config.channel_max, config.map_layers, config.latent) == (128, 8, 3, 16)
    assert (config.ada_kimg, config.ema_rampup) == (100, 0)
    assert config.pretrained == runs.sha256(pickle_file) == found.sha256
    config, _ = start(pickle_file, tmp_path, TrainConfig(batch=4, ada_kimg=300), explicit={"ada_kimg"})
    assert (config.ada_kimg, config.ema_rampup) == (300, 0)
    with pytest.raises(WeightsError, match="--pretrained is 3 mapping layers; the run is 2 mapping layers"):
        start(pickle_file, tmp_path, TrainConfig(batch=4, map_layers=2), explicit={"map_layers"})


def test_another_size_is_refused_before_anything_is_written(pickle_file, tmp_path):
    data = discs(tmp_path / "data", size=64)
    with pytest.raises(WeightsError, match=r"--pretrained is 32 px.*; the run is 64 px"):
        run_training(tiny(pretrained=str(pickle_file)), data, tmp_path / "run")
    assert not (tmp_path / "run" / runs.CONFIG).exists()


def test_a_transferred_run_starts_at_the_file_s_weights_and_says_so_everywhere(pickle_file, tmp_path):
    data = discs(tmp_path / "data")
    run_training(tiny(kimg=0.004, lr_g=1e-9, lr_d=1e-9, pretrained=str(pickle_file), ema_kimg=1000), data, tmp_path / "run")
    digest = runs.sha256(pickle_file)
    state = torch.load(tmp_path / "run" / runs.STATE, weights_only=True)
    read = read_pretrained(pickle_file)
    name = "synthesis.b32.conv1.weight"
    torch.testing.assert_close(state["G"][name], read.G.weights[name], atol=1e-5, rtol=0)
    torch.testing.assert_close(state["G_ema"]["synthesis.b4.const"], read.G_ema.weights["synthesis.b4.const"], atol=1e-2, rtol=0)
    torch.testing.assert_close(state["D"]["b32.conv0.weight"], read.D.weights["b32.conv0.weight"], atol=1e-5, rtol=0)
    assert json.loads((tmp_path / "run" / runs.PROVENANCE).read_text())["inputs"]["pretrained"] == digest
    assert str(tmp_path) not in (tmp_path / "run" / runs.CONFIG).read_text()
    _, metadata = read_bundle(tmp_path / "run" / runs.BUNDLE)
    assert metadata["medgan"]["source"] == {"kind": "stylegan2-ada-pytorch", "sha256": digest, "licence": LICENCE}
    card = (tmp_path / "run" / runs.BUNDLE / "docs/README.md").read_text()
    assert f"| Licence of those weights | {LICENCE} |" in card
    build_report(tmp_path / "run", tmp_path / "report.html")
    assert digest in (tmp_path / "report.html").read_text()
    assert "--pretrained NETWORK" in (tmp_path / "report.html").read_text()


def test_a_resumed_run_needs_the_file_no_more_and_refuses_another(pickle_file, tmp_path):
    data = discs(tmp_path / "data")
    brought = tmp_path / "brought.pkl"
    brought.write_bytes(pickle_file.read_bytes())
    run_training(tiny(kimg=0.004, pretrained=str(brought)), data, tmp_path / "run")
    brought.unlink()
    again = run_training(tiny(kimg=0.008, pretrained=str(brought)), data, tmp_path / "run")
    assert again.kimg == 0.008
    _, metadata = read_bundle(tmp_path / "run" / runs.BUNDLE)
    assert metadata["medgan"]["source"]["licence"] == LICENCE
    run_training(tiny(kimg=0.012, pretrained=str(brought)), data, tmp_path / "elsewhere", resume=str(tmp_path / "run"))
    assert read_bundle(tmp_path / "elsewhere" / runs.BUNDLE)[1]["medgan"]["source"] == metadata["medgan"]["source"]
    brought.write_bytes(pickle_file.read_bytes() + b" ")
    with pytest.raises(ResumeError, match=r"pretrained \w{64} -> \w{64}"):
        run_training(tiny(kimg=0.012, pretrained=str(brought)), data, tmp_path / "run")


def test_a_run_from_scratch_does_not_become_a_transfer_by_resuming(pickle_file, tmp_path):
    data = discs(tmp_path / "data")
    run_training(tiny(kimg=0.004), data, tmp_path / "run")
    with pytest.raises(ResumeError, match="pretrained"):
        run_training(tiny(kimg=0.008, pretrained=str(pickle_file)), data, tmp_path / "run")
    with pytest.raises(WeightsError, match="names nothing"):
        run_training(tiny(kimg=0.008, pretrained=str(tmp_path / "absent.pkl")), data, tmp_path / "run")


def test_a_transferred_run_resumes_exactly(pickle_file, tmp_path):
    data = discs(tmp_path / "data")
    run_training(tiny(kimg=0.008, pretrained=str(pickle_file)), data, tmp_path / "whole")
    run_training(tiny(kimg=0.004, pretrained=str(pickle_file)), data, tmp_path / "parts")
    run_training(tiny(kimg=0.008, pretrained=str(pickle_file)), data, tmp_path / "parts")
    whole, parts = (torch.load(tmp_path / name / runs.STATE, weights_only=True)["G_ema"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def values(*numbers: float):
    left = iter(numbers)
    return lambda G: {"metrics": {"fid": {"value": next(left)}}, "n_real": 12, "n_fake": 8}


def test_kimg_0_is_on_the_curve_and_random_weights_are_not(pickle_file, tmp_path):
    config, found = start(pickle_file, tmp_path, tiny(kimg=0.008))
    told = []
    data = discs(tmp_path / "data")
    trained = train(
        config, data, tmp_path / "run", start=found, on_snapshot=values(5.0, 9.0, 7.0, 6.0), on_tick=lambda f: told.append(dict(f))
    )
    rows = runs.read_json_lines(tmp_path / "run" / runs.EVALUATIONS)
    assert [(row["kimg"], row["metrics"]["fid"]["value"]) for row in rows] == [(0.0, 5.0), (0.004, 7.0), (0.008, 6.0)]
    assert rows[0]["random_weights"] == {"fid": 9.0}
    assert (told[0]["fid"], told[0]["fid_random"]) == ("5@0", "9")
    # The file's own network is never the run's best, though its figure is the lowest.
    assert trained.best["value"] == 6.0


@pytest.mark.parametrize("random", [4.0, 5.0])
def test_a_start_no_better_than_random_weights_stops_the_run(pickle_file, tmp_path, random):
    config, found = start(pickle_file, tmp_path)
    data = discs(tmp_path / "data")
    with pytest.raises(WeightsError, match="no start") as error:
        train(config, data, tmp_path / "run", start=found, on_snapshot=values(5.0, random))
    assert "--no-check-transfer" in error.value.fix
    assert not (tmp_path / "run" / runs.STATE).exists()


@pytest.mark.parametrize("other", [0.2, 0.5])
def test_a_share_that_is_higher_than_that_of_random_weights_is_a_start(pickle_file, tmp_path, other):
    config, found = start(pickle_file, tmp_path, tiny(kimg=0.004))
    left = iter([0.4, other, 0.6])
    measure = lambda G: {"metrics": {"recall_inception": {"value": next(left), "higher_is_better": True}}}  # noqa: E731
    if other < 0.4:
        assert train(config, discs(tmp_path / "data"), tmp_path / "run", start=found, on_snapshot=measure).best["value"] == 0.6
    else:
        with pytest.raises(WeightsError, match="no start"):
            train(config, discs(tmp_path / "data"), tmp_path / "run", start=found, on_snapshot=measure)


def test_the_check_can_be_left_out(pickle_file, tmp_path):
    config, found = start(pickle_file, tmp_path, tiny(kimg=0.004), changes={"check_transfer": False})
    train(config, discs(tmp_path / "data"), tmp_path / "run", start=found, on_snapshot=values(3.0))
    assert [row["kimg"] for row in runs.read_json_lines(tmp_path / "run" / runs.EVALUATIONS)] == [0.004]


class Interrupted(Evaluator):
    """An evaluator during whose n-th measurement SIGTERM comes: at its beginning, or when it is done."""

    def __init__(self, n: int, *, done: bool = False, **settings: Any) -> None:
        super().__init__(["ssim_nearest"], device="cpu", batch=4, settings={"pairs": 4}, **settings)
        self.left, self.done = n, done

    def evaluate(self, **arguments: Any) -> dict[str, Any]:
        self.left -= 1
        if not self.left and not self.done:
            os.kill(os.getpid(), signal.SIGTERM)
        result = super().evaluate(**arguments)
        if not self.left and self.done:
            os.kill(os.getpid(), signal.SIGTERM)
        return result


@pytest.mark.parametrize(("measurement", "done"), [(1, False), (2, False), (2, True)])
def test_a_stop_while_the_start_is_measured_leaves_what_the_same_command_goes_on_from(pickle_file, tmp_path, measurement, done):
    """The network's own figure, the random weights' figure, and the moment after them, before the first step."""
    data = discs(tmp_path / "data")
    # With this seed the toy network of the file passes the check.
    config = tiny(kimg=0.008, metrics=("ssim_nearest",), seed=1, pretrained=str(pickle_file))
    run_training(config, data, tmp_path / "whole", evaluator=Interrupted(0))
    with pytest.raises(Preempted) as stopped:
        run_training(config, data, tmp_path / "run", evaluator=Interrupted(measurement, done=done))
    assert stopped.value.exit_code == 75
    # Half a comparison is no line of the curve; a whole one stands there once.
    assert (tmp_path / "run" / runs.EVALUATIONS).exists() == done == (tmp_path / "run" / runs.STATE).exists()
    assert not (tmp_path / "run" / runs.BUNDLE).exists()
    run_training(config, data, tmp_path / "run", evaluator=Interrupted(0))
    whole, run = ([{**row, "seconds": 0} for row in runs.read_json_lines(tmp_path / name / runs.EVALUATIONS)] for name in ("whole", "run"))
    assert [row["kimg"] for row in whole] == [0, 0.004, 0.008]
    assert run == whole
    states = [torch.load(tmp_path / name / runs.STATE, weights_only=True)["G_ema"] for name in ("whole", "run")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_import_writes_a_bundle_with_both_networks(pickle_file, tmp_path):
    done = CliRunner().invoke(main, ["import", str(pickle_file), str(tmp_path / "grey"), "--channels", "1"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["licence"] == LICENCE
    read = read_pretrained(pickle_file)
    G, metadata = read_bundle(tmp_path / "grey")
    D, arguments = read_discriminator(tmp_path / "grey")
    RGB = Generator(**read.G_ema.arguments).eval()
    RGB.load_state_dict(read.G_ema.weights)
    z, x = torch.randn(2, 16), torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(G(z, noise_mode="const"), RGB(z, noise_mode="const").mean(1, keepdim=True), atol=1e-5, rtol=1e-5)
    rgb_D = Discriminator(**read.D.arguments).eval()
    rgb_D.load_state_dict(read.D.weights)
    torch.testing.assert_close(D(x), rgb_D(x.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-5)
    assert arguments["img_channels"] == metadata["medgan"]["arguments"]["img_channels"] == 1
    assert metadata["copyright"] == LICENCE
    done = CliRunner().invoke(main, ["generate", "--bundle", str(tmp_path / "grey"), "--out", str(tmp_path / "images"), "--seeds", "0-1"])
    assert done.exit_code == 0, done.stderr
    plain = import_network(pickle_file, tmp_path / "plain", ema=False)
    assert plain["arguments"]["img_channels"] == 3
    assert torch.equal(read_bundle(tmp_path / "plain")[0].synthesis.b4.const, read.G.weights["synthesis.b4.const"])


def test_a_bundle_its_zip_and_a_run_are_sources_too(pickle_file, tmp_path):
    import shutil

    import_network(pickle_file, tmp_path / "bundle")
    shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "bundle")
    run_training(tiny(kimg=0.004, pretrained=str(tmp_path / "bundle")), discs(tmp_path / "data"), tmp_path / "run")
    folder, zipped, run = (read_pretrained(tmp_path / name) for name in ("bundle", "zipped.zip", "run"))
    assert folder.sha256 == zipped.sha256 == identity(tmp_path / "zipped.zip") == identity(tmp_path / "bundle")
    assert run.sha256 == identity(tmp_path / "run")
    # The licence of the first weights goes on with every child.
    assert folder.licence == zipped.licence == run.licence == LICENCE
    assert run.G.arguments["img_channels"] == 1
    config, _ = start(tmp_path / "run", tmp_path / "second")
    assert config.pretrained == run.sha256
    with pytest.raises(WeightsError, match="holds no discriminator"):
        read_pretrained(tmp_path / "run" / runs.BUNDLE)


def test_names_are_looked_up_in_the_weights_folders(pickle_file, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDGAN_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "MOUNT", tmp_path / "mount")
    assert weights.find_network("ffhq-256", pickle_file.parent) == pickle_file
    rows = {row["name"]: row for row in weights.status(pickle_file.parent)}
    assert (rows["ffhq-256"]["state"], rows["ffhq-512"]["state"]) == ("present", "absent")
    with pytest.raises(WeightsError, match="ffhq-512 not found") as error:
        weights.find_network("ffhq-512", pickle_file.parent)
    assert "ffhq-res512-mirror-stylegan2-noaug.pkl" in error.value.fix
    assert error.value.exit_code == 69


def test_wrong_names_and_files_are_one_line(pickle_file, tmp_path):
    discs(tmp_path / "data")
    (tmp_path / "SMITH^JOHN.pkl").write_bytes(b"nothing")
    base = ["train", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--metrics", ""]
    for name, said in (
        (tmp_path / "absent.pkl", "names nothing that exists"),
        (tmp_path / "SMITH^JOHN.pkl", "is refused"),
        (tmp_path / "data", "not a medgan bundle"),
        ("0" * 64, "add --pretrained NETWORK"),
    ):
        done = CliRunner().invoke(main, [*base, "--pretrained", str(name)])
        line = done.stderr.splitlines()[-1]
        assert done.exit_code == 69, line
        assert line.startswith("ERROR E_WEIGHTS")
        assert said in line
        assert "SMITH" not in done.output
    done = CliRunner().invoke(main, ["import", str(tmp_path / "absent.pkl"), str(tmp_path / "b")])
    assert done.exit_code == 69
    assert not (tmp_path / "b").exists()


def test_a_settings_file_repeats_a_transfer_with_the_network(pickle_file, tmp_path):
    run_training(tiny(kimg=0.004, pretrained=str(pickle_file)), discs(tmp_path / "data"), tmp_path / "run")
    base = ["train", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "again"), "--config", str(tmp_path / "run" / runs.CONFIG)]
    done = CliRunner().invoke(main, [*base, "--pretrained", str(pickle_file)])
    assert done.exit_code == 0, done.stderr
    first, again = (torch.load(tmp_path / name / runs.STATE, weights_only=True)["G_ema"] for name in ("run", "again"))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_plan_is_that_of_the_network_and_shows_no_path(pickle_file):
    words = ["plan", "--size", "32", "--images", "12", "--device", "a100", "--metrics", "", "--pretrained", str(pickle_file), "--json"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.stderr
    settings = json.loads(done.stdout)["settings"]
    assert (settings["channel_base"], settings["map_layers"], settings["ada_kimg"]) == (128, 3, 100)
    assert str(pickle_file) not in done.output


def test_a_job_takes_the_names():
    assert JobConfig(pretrained="ffhq-256").training(256).pretrained == "ffhq-256"
