import json

import pytest
from click.testing import CliRunner

from medgan import weights
from medgan.cli import main
from medgan.runs import sha256


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A machine without any pretrained file."""
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDGAN_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "MOUNT", tmp_path / "mount")
    return tmp_path


def test_list_says_licence_source_and_how_to_get_it(empty):
    done = CliRunner().invoke(main, ["weights", "list", "--json"])
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    row = rows["inception-2015-12-05"]
    assert (done.exit_code, row["state"], row["path"]) == (0, "absent", "")
    assert row["licence"].startswith("Apache-2.0")
    assert row["fetch"] == "medgan weights fetch inception-2015-12-05"
    table = CliRunner().invoke(main, ["weights", "list"])
    assert table.stdout == ""
    assert "medgan weights fetch inception-2015-12-05" in table.stderr


def test_verify_refuses_what_is_absent_or_damaged(empty):
    absent = CliRunner().invoke(main, ["weights", "verify", "inception-2015-12-05"])
    assert absent.exit_code == 69
    assert absent.stderr.splitlines()[-1].startswith("ERROR E_WEIGHTS inception-2015-12-05 not found")
    assert CliRunner().invoke(main, ["weights", "verify"]).exit_code == 69
    (empty / "inception-2015-12-05.safetensors").write_bytes(b"half")
    damaged = CliRunner().invoke(main, ["weights", "verify", "--weights", str(empty), "--json"])
    assert damaged.exit_code == 69
    assert json.loads(damaged.stdout)[0]["state"] == "damaged"
    assert sha256(empty / "inception-2015-12-05.safetensors")[:12] in damaged.stderr


def test_a_file_as_folder_is_refused_without_its_path(empty):
    (empty / "SMITH^JOHN").write_text("")
    for command in ("list", "verify"):
        done = CliRunner().invoke(main, ["weights", command, "--weights", str(empty / "SMITH^JOHN")])
        assert done.exit_code == 66
        assert done.stderr.startswith("ERROR E_INPUT --weights is no folder")
        assert "SMITH" not in done.output


def test_unknown_names_are_refused_before_anything_is_fetched(empty):
    done = CliRunner().invoke(main, ["weights", "fetch", "inception-2015-12-05", "inceptoin"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "unknown weights 'inceptoin'" in done.stderr
    assert not (empty / "cache").exists()
