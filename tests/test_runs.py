"""Writes that leave nothing half-written, and what a run says of itself."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from medgan import runs
from medgan.errors import DiskError, OutputError


@pytest.fixture(params=["nameless", "named"])
def way(request, monkeypatch):
    """Both ways to an atomic write: files without a name until they are whole, and (as on NFS) hidden names."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return request.param


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, way):
    path = tmp_path / "a.txt"
    runs.write_text(path, "old")

    def fail() -> None:
        with runs.atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_write_takes_the_place_of_the_old_file_and_leaves_no_other(tmp_path, way):
    path = tmp_path / "folder" / "a.txt"
    runs.write_text(path, "old and longer")
    runs.write_text(path, "new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


KILLED = """
import os, signal, sys
from pathlib import Path
from medgan import runs
if sys.argv[2] == "named":
    del os.O_TMPFILE
with runs.atomic(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_the_old_file_and_at_most_what_sweep_removes(tmp_path, way):
    path = tmp_path / "a.txt"
    runs.write_text(path, "old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(path), way], check=False).returncode == -9
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == (1 if way == "nameless" else 2)
    runs.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_test_leaves_nothing(tmp_path):
    runs.check_writable(tmp_path / "out", "--out")
    assert list((tmp_path / "out").iterdir()) == []


def test_results_are_readable_by_others(tmp_path, way):
    old = os.umask(0o022)
    try:
        runs.write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        runs.write_json(tmp_path / "a.json", {"fid": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "stats.jsonl"
    runs.append_json(path, {"kimg": 1})
    with path.open("a") as file:
        file.write('{"kimg": 2, "Loss')
    assert runs.read_json_lines(path) == [{"kimg": 1}]
    assert runs.read_json_lines(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("text", [None, "", '{"kimg": 1', "[1]", "\xff"])
def test_a_file_without_an_object_holds_nothing(tmp_path, text):
    if text is not None:
        (tmp_path / "status.json").write_text(text, encoding="latin-1")
    assert runs.read_json(tmp_path / "status.json") == {}
    runs.write_json(tmp_path / "status.json", {"kimg": 1})
    assert runs.read_json(tmp_path / "status.json") == {"kimg": 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_an_unwritable_folder_names_both_users():
    # Not pytest's own folder, which other users cannot even enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        code = "import os, sys, errno; from pathlib import Path; from medgan import runs; os.setuid(12345); runs.check_writable(Path(sys.argv[1]) / 'out', '/output')"
        result = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert "uid 12345 cannot write /output (owner 0, mode 0755" in result.stderr


def test_a_read_only_place_asks_for_another_one_not_for_another_user(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputError, match="Read-only file system") as caught:
        runs.check_writable(tmp_path, "/output")
    assert caught.value.fix == "mount or name a folder that can be written"


def test_a_file_in_the_way_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="--out"):
        runs.check_writable(tmp_path / "file" / "folder", "--out")


def test_provenance_is_json_and_names_what_made_the_result():
    made = runs.provenance("train", {"seed": 3}, {"dataset": "ab"}, started=runs.utc_now())
    assert json.loads(json.dumps(made)) == made
    assert made["settings"] == {"seed": 3}
    assert made["inputs"] == {"dataset": "ab"}
    assert made["versions"]["medgan"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_weights_on_a_full_disk_are_a_disk_error(tmp_path, monkeypatch):
    import contextlib

    import torch

    @contextlib.contextmanager
    def full(path):
        yield Path("/dev/full")

    monkeypatch.setattr(runs, "atomic", full)
    with pytest.raises(DiskError) as error:
        runs.save_tensors(tmp_path / "a.pt", {"w": torch.zeros(1 << 20)})
    assert error.value.exit_code == 74


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert runs.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
