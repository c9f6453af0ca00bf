import json
import os

import pytest
from click.testing import CliRunner

from medgan.cli import main
from medgan.commands.prepare import command
from medgan.errors import ConfigError
from tests.phantoms import ct_nifti


def test_stdout_is_the_summary_as_json(tmp_path):
    ct_nifti(tmp_path / "in")
    result = CliRunner().invoke(command, [str(tmp_path / "in"), str(tmp_path / "out.zip"), "--size", "32"], catch_exceptions=False)
    assert json.loads(result.stdout)["kept"] == 8
    assert "PROGRESS stage=prepare done=1/1" in result.stderr
    assert (tmp_path / "out.info" / "qc_sheet.png").exists()


def test_dry_run_shows_the_settings_and_touches_nothing(tmp_path):
    arguments = ["nowhere", str(tmp_path / "out.zip"), "--dry-run", "--window", "40", "400", "--mask-label", "5", "--masks", "secret-place"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    shown = json.loads(result.stdout)
    assert (shown["recipe"]["level"], shown["recipe"]["width"], shown["recipe"]["mask_label"]) == (40, 400, 5)
    assert shown["settings"]["masks"] is True
    assert "secret-place" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_options_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDGAN_SIZE", "64")
    monkeypatch.setenv("MEDGAN_WINDOW_PRESET", "ct-lung")
    result = CliRunner().invoke(command, ["in", "out.zip", "--dry-run"], catch_exceptions=False)
    recipe = json.loads(result.stdout)["recipe"]
    assert (recipe["size"], recipe["level"]) == (64, -600)


@pytest.mark.parametrize(
    "words",
    [
        ["prepare", "SMITH^JOHN", "out.zip"],
        ["evaluate", "--real", "SMITH^JOHN", "--fake", "SMITH^JOHN"],
        ["evaluate", "--real", ".", "--bundle", "SMITH^JOHN", "--weights", "SMITH^JOHN"],
        ["weights", "verify", "inception-2015-12-05", "--weights", "SMITH^JOHN"],
    ],
)
def test_an_unreadable_path_is_not_shown(tmp_path, monkeypatch, words):
    # The superuser of a test machine may read everything, so the system is made to say no.
    (tmp_path / "SMITH^JOHN").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("os.access", lambda path, mode, **_: mode != os.R_OK)
    result = CliRunner().invoke(main, words)
    assert result.exit_code in (65, 66, 69)
    assert result.stderr.splitlines()[-1].startswith("ERROR E_")
    assert "SMITH" not in result.output


def test_out_must_be_a_zip(tmp_path):
    ct_nifti(tmp_path / "in")
    with pytest.raises(ConfigError, match=r"\.zip"):
        CliRunner().invoke(command, [str(tmp_path / "in"), str(tmp_path / "out")], catch_exceptions=False)


def test_help_shows_every_option_without_torch():
    import subprocess
    import sys

    code = "import sys; from medgan.commands.prepare import command; print(command.get_help(__import__('click').Context(command))); print('torch' in sys.modules or 'monai' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.rstrip().endswith("False")
    for option in ["--recipe", "--masks", "--mask-label", "--window", "--window-preset", "--pseudonym-key", "--size", "--plane", "--held-out", "--workers", "--seed"]:  # fmt: skip
        assert option in shown
