"""Settings: defaults < preset < file < environment < flags, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from medgan.config import options_from, parse_settings, resolve, setting, to_json, words_of
from medgan.errors import ConfigError
from medgan.training.config import PRESETS, TrainConfig, preset


@dataclass(frozen=True, kw_only=True)
class Example:
    kimg: float = setting(25.0, "length")
    batch: int = setting(32, "images per step")
    mirror: bool = setting(False, "flips")
    augment: str = setting("ada", "augmentation", choices=("none", "ada"))
    window: tuple[float, ...] = setting((), "level and width", nargs=2, metavar="L W")
    metrics: tuple[str, ...] = setting(("fid",), "names")


def run(*args: str, env: dict[str, str] | None = None, base: Example | None = None, config: Path | None = None) -> Example:
    seen: list[Example] = []

    @click.command()
    @options_from(Example)
    def command(**flags: object) -> None:
        seen.append(resolve(base or Example(), flags, config_file=config))

    result = CliRunner().invoke(command, list(args), env=env or {}, catch_exceptions=False, standalone_mode=False)
    assert result.exception is None
    return seen[0]


def test_defaults():
    assert run() == Example()


def test_flags_beat_the_environment_beats_the_file_beats_the_preset(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"batch": 3, "kimg": 3, "augment": "none"}))
    config = run("--kimg", "5", env={"MEDGAN_KIMG": "4", "MEDGAN_BATCH": "4"}, base=Example(batch=2, mirror=True), config=path)
    assert config == Example(kimg=5.0, batch=4, augment="none", mirror=True)


def test_a_blank_variable_means_the_default():
    assert run(env={"MEDGAN_KIMG": "", "MEDGAN_WINDOW": "", "MEDGAN_MIRROR": "", "MEDGAN_METRICS": ""}) == Example()


def test_a_variable_of_blanks_means_the_default():
    assert run(env={"MEDGAN_METRICS": "  "}) == Example()


def test_a_flag_can_take_back_what_a_preset_switched_on():
    assert run("--no-mirror", base=Example(mirror=True)).mirror is False


@pytest.mark.parametrize(("args", "env"), [(["--window", "50", "350"], {}), ([], {"MEDGAN_WINDOW": "50 350"})])
def test_two_values(args, env):
    assert run(*args, env=env).window == (50.0, 350.0)


@pytest.mark.parametrize("text", ["fid,kid", "fid kid", "fid, kid"])
def test_lists_in_one_word(text):
    assert run("--metrics", text).metrics == ("fid", "kid")


def test_an_empty_list_on_the_command_line_is_empty():
    assert run("--metrics", "").metrics == ()


def test_wrong_choices_are_usage_errors():
    with pytest.raises(click.UsageError, match="not one of 'none', 'ada'"):
        run("--augment", "much")


def test_a_file_with_unknown_settings_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"kimgs": 1, "btach": 2}')
    with pytest.raises(ConfigError, match="btach, kimgs"):
        resolve(Example(), {}, config_file=path)
    path.write_text("no json")
    with pytest.raises(ConfigError, match="not a readable JSON file"):
        resolve(Example(), {}, config_file=path)


@pytest.mark.parametrize(
    "values", [{"augment": "adaa"}, {"kimg": "10"}, {"batch": 2.5}, {"mirror": 1}, {"metrics": "fid"}, {"window": ["a", 1]}]
)
def test_a_file_is_held_to_choices_and_types(values, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=next(iter(values))):
        resolve(Example(), {}, config_file=path)


def test_saved_settings_read_back_equal(tmp_path):
    config = Example(kimg=7, window=(40.0, 80.0), metrics=("kid", "fid"), mirror=True)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_json(config)))
    assert resolve(Example(), {}, config_file=path) == config


@pytest.mark.parametrize("name", list(PRESETS))
def test_settings_written_as_words_are_read_as_the_same_settings(name):
    """Of every preset: what the launcher puts into a command line, `train` takes out again."""
    found: list[TrainConfig] = []

    @click.command()
    @options_from(TrainConfig)
    def command(**flags):
        found.append(resolve(TrainConfig(), flags))

    config = preset(name, size=256, gpus=1)
    CliRunner().invoke(command, words_of(to_json(config), TrainConfig), env={}, catch_exceptions=False, standalone_mode=False)
    assert found == [config]


def test_settings_from_words_have_the_types_of_their_fields_and_unknown_ones_are_all_listed():
    words = ["kimg=5", "--batch-gpu=4", "mirror=yes", "metrics=fid,kid", "augment=none"]
    assert parse_settings(words, TrainConfig) == {
        "kimg": 5.0,
        "batch_gpu": 4,
        "mirror": True,
        "metrics": ("fid", "kid"),
        "augment": "none",
    }
    with pytest.raises(ConfigError, match="unknown settings: gama, mirorr"):
        parse_settings(["mirorr=1", "kimg=3", "gama=2"], TrainConfig)
    for word in ("kimg=many", "augment=some", "kimg"):
        with pytest.raises(ConfigError, match="--set"):
            parse_settings([word], TrainConfig)
