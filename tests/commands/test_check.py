"""The data check of a job says what `medgan inspect` and `medgan plan` say, and trains nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from medgan import runs
from medgan.commands import inspect, plan
from medgan.commands.check import check
from medgan.commands.job import JobConfig, run_job
from medgan.data.dataset import open_dataset
from medgan.errors import DataError, WeightsError
from medgan.reports.results import read_results
from medgan.training.config import preset
from tests.toy import discs


@pytest.fixture
def data(tmp_path):
    discs(tmp_path / "data", n=12)
    return open_dataset(tmp_path / "data")


@pytest.fixture
def config():
    return preset("demo", size=32, gpus=1)


def test_its_facts_are_those_of_inspect(tmp_path, data, config):
    check(config, data, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / runs.DATASET / runs.INSPECTION).read_text())
    assert stored == json.loads(CliRunner().invoke(inspect.command, [str(tmp_path / "data"), "--json"]).stdout)


def test_its_hours_are_those_of_plan(tmp_path, data, config):
    found = check(config, data, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / runs.PLAN).read_text())
    words = ["--data", str(tmp_path / "data"), "--preset", "demo", "--device", "a100", "--json"]
    alone = json.loads(CliRunner().invoke(plan.command, words).stdout)
    alone.pop("disk_free")
    assert stored["settings"] == alone.pop("settings")
    assert stored["devices"]["a100"] == alone
    assert f"a100:{alone['hours']:g}" in found.fields()["gpu_hours"].split(",")
    assert "cpu" not in stored["devices"]


def test_a_training_too_large_for_a_card_says_what_fits(tmp_path, capsys):
    discs(tmp_path / "large", n=4, size=1024)
    config = replace(preset("paper1024", size=1024, gpus=1), batch=64)
    made = check(config, open_dataset(tmp_path / "large"), tmp_path / "run").plans["t4"]
    assert not made.fits
    assert 0 < made.largest_batch_gpu < 64
    assert f"too much; --batch-gpu {made.largest_batch_gpu} fits" in capsys.readouterr().err


def test_a_family_whose_cost_is_unknown_is_checked_without_hours(tmp_path, data, config, capsys):
    found = check(replace(config, family="r3gan"), data, tmp_path / "run")
    assert found.fields().keys() == {"advice"}
    assert "plan        none: the cost of the family r3gan is not known" in capsys.readouterr().err


def test_it_says_all_of_it_to_people_too(tmp_path, data, config, capsys):
    check(config, data, tmp_path / "run")
    said = capsys.readouterr()
    assert said.out == ""
    for words in ("images      12 of 32x32 px", "ADVICE      12 images: below 1000", "plan        h200: "):
        assert words in said.err


def test_networks_to_start_from_are_missed_now_rather_than_on_the_gpu(tmp_path, data, config):
    with pytest.raises(WeightsError):
        check(replace(config, pretrained=str(tmp_path / "DOE_JANE.pkl")), data, tmp_path / "run")


def test_images_no_network_takes_fail_as_a_training_would(tmp_path, config):
    discs(tmp_path / "odd", n=4, size=16)
    with pytest.raises(DataError, match="no networks for 16 px"):
        check(config, open_dataset(tmp_path / "odd"), tmp_path / "run")


def test_the_job_stops_after_it(tmp_path, data):
    config = JobConfig(recipe="medmnist", preset="demo", size=32)
    result = run_job(config, input=tmp_path / "data", output=tmp_path / "out", work=tmp_path / "work", check_only=True)
    assert result.status == "checked"
    results = read_results(tmp_path / "work" / "run")
    assert results.checked
    assert not results.stats
    assert not [line for line in results.missing if "training" in line or "generator" in line]
    assert result.fields()["advice"] == str(len(results.advice))
