"""`medgan plan` as a user types it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from medgan.commands.plan import command
from medgan.errors import ConfigError, InputError
from tests.toy import discs


def run(*words: object):
    return CliRunner().invoke(command, [str(word) for word in words])


def test_without_a_dataset():
    done = run("--size", 512, "--images", 3000, "--preset", "paper-2210.03786", "--device", "a100", "--gpus", 8, "--json")
    made = json.loads(done.stdout)
    assert (made["device"], made["ticks"], made["snapshots"]) == ("a100", 6251, 126)
    assert made["settings"]["beta1"] == 0.9
    assert made["disk_bytes"]["total"] > 2 * made["disk_bytes"]["state"]
    assert "published figures of the official code" in made["source"]


def test_a_dataset_says_its_own_size(tmp_path):
    discs(tmp_path / "data", n=12)
    done = run("--data", tmp_path / "data", "--preset", "demo", "--device", "cpu", "--threads", 2, "--out", tmp_path / "run", "--json")
    made = json.loads(done.stdout)
    assert (made["size"], made["images"], made["device_memory"]) == (32, 12, 0)
    assert made["disk_free"] > 0
    assert not (tmp_path / "run").exists()


def test_for_people_everything_goes_to_stderr():
    done = run("--size", 64, "--preset", "demo", "--device", "cpu", "--threads", 2)
    assert done.stdout == ""
    for word in (
        "s per thousand images",
        "1,500 steps, 25 ticks, 5 snapshots",
        "learning rate of G",
        "lazy regularisation",
        "note: the time is off by",
    ):
        assert word in done.stderr


def test_calibration_measures():
    words = ("--size", 32, "--batch", 4, "--channel-base", 256, "--channel-max", 8, "--latent", 8, "--map-layers", 2, "--json")
    made = json.loads(run(*words, "--calibrate").stdout)
    assert made["source"] == "real steps on this machine"
    assert made["seconds_per_kimg"] > 0


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (("--calibrate", "--device", "a100"), ConfigError, "leave one of them out"),
        (("--batch", 20, "--gpus", 3), ConfigError, "--gpus 3"),
        (("--calibrate", "--size", 1024, "--batch", 64, "--metrics", ""), ConfigError, "a smaller --batch-gpu"),
        (("--data", "nothing-here"), InputError, "nothing that exists"),
    ],
)
def test_what_cannot_be_planned(words, error, says):
    problem = run(*words).exception
    assert isinstance(problem, error)
    assert says in problem.line
