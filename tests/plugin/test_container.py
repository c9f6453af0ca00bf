"""The shell around a job: folders, banner, log, exit code and last line, in real processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from plugin.command import ROOT
from plugin.container import RESOURCES
from plugin.surroundings import BANNER_LINES
from tests.plugin.small import PLANTED

NOBODY = 65534


def as_user(uid: int) -> list[str]:
    """Words before a command that run it as another user; the interpreter may lie where only root reads, so reading (not writing) stays allowed."""
    if os.geteuid() != 0:
        pytest.skip("a child with another uid needs root")
    plain = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    # An interpreter that cannot see its own library takes another one's: that is not the one under test.
    probe = f"import sys, click; sys.exit(sys.base_prefix != {sys.base_prefix!r})"
    for words in (plain, [*plain, "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]):
        with contextlib.suppress(OSError):
            if subprocess.run([*words, sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0:
                return words
    pytest.skip("no other uid can run this Python")


class Place:
    """An input with one file, an output and a work folder, and the container's command line on them."""

    def __init__(self, root: Path) -> None:
        self.input, self.output, self.work = root / "input", root / "output", root / "work"
        self.input.mkdir()
        (self.input / "scan.dcm").write_bytes(b"\0")

    def __call__(
        self, how: str, *words: str, env: dict[str, str] | None = None, uid: int | None = None, command: str = "train", folders: bool = True
    ) -> subprocess.CompletedProcess[str]:
        base = {name: value for name, value in os.environ.items() if not name.startswith(("MEDGAN_", "XNAT_"))}
        places = ["--input", str(self.input), "--output", str(self.output), "--work", str(self.work)] if folders else []
        return subprocess.run(
            [*(as_user(uid) if uid else []), sys.executable, "-m", "tests.plugin.small", how, command, *places, *words],
            capture_output=True, text=True, cwd=ROOT, timeout=60, env=base | {"MEDGAN_DEVICE": "cpu"} | (env or {}),
        )  # fmt: skip

    def error(self, run_name: str = "") -> dict[str, object]:
        return json.loads((self.output / "report" / run_name / "error.json").read_text())

    def log(self) -> str:
        return (self.output / "report" / "run.log").read_text()

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.output)) for path in self.output.rglob("*") if path.is_file())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def open_place() -> Iterator[Place]:
    """A place that every user can reach; pytest's own folders are private."""
    with tempfile.TemporaryDirectory(prefix="medgan-test-") as root:
        Path(root).chmod(0o755)
        yield Place(Path(root))


def test_a_good_run_fills_five_folders_and_ends_with_result(place: Place):
    done = place("fine")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "RESULT status=complete kimg=10\n"
    assert all(any((place.output / name).iterdir()) for name in RESOURCES)
    assert not [path for path in place.output.rglob("*") if path.name.endswith(".part")]


def test_the_banner_has_at_most_twelve_lines_and_no_path(place: Place):
    banner = place("fine").stderr.splitlines()
    assert 6 <= len(banner) <= BANNER_LINES
    assert banner[0].startswith("medgan 0.")
    assert any(line.startswith("uid:gid ") for line in banner)
    assert [line.split()[1] for line in banner if line.startswith("input")] == ["rw"]
    assert str(place.input.parent) not in "\n".join(banner)


def test_quiet_silences_the_banner(place: Place):
    assert place("fine", "--quiet").stderr == ""
    assert place("fine", env={"MEDGAN_QUIET": "true"}).stderr == ""


def test_check_is_the_same_job_stopped_early(place: Place):
    done = place("fine", command="check")
    assert done.stdout == "RESULT status=checked kimg=10\n"
    assert "data check" in (place.output / "model" / "README.txt").read_text()


@pytest.mark.parametrize(
    ("how", "code", "line"),
    [
        ("data", 65, "ERROR E_DATA 0 of 812 slices kept; fix: --mask-label 1"),
        (
            "full",
            74,
            "ERROR E_DISK writing failed: No space left on device; fix: room for scratch (* free; mount a disk at /work, or --work DIR) or results (* free)",
        ),
    ],
)
@pytest.mark.parametrize("command", ["train", "check"])
def test_a_failure_ends_with_its_line_and_leaves_two_files(place: Place, how: str, code: int, line: str, command: str):
    done = place(how, command=command)
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (code, "")
    assert fnmatchcase(last, line), last
    assert place.files() == ["report/error.json", "report/run.log"]
    assert place.error()["exit_code"] == code
    assert place.log().splitlines()[-1] == last


def test_a_bug_shows_where_it_is_but_no_value(place: Place):
    done = place("bug")
    assert done.returncode == 70
    assert (
        done.stderr.splitlines()[-1].startswith("ERROR E_INTERNAL ValueError at small.py")
        or "ValueError at tests/plugin/small.py" in done.stderr
    )
    assert done.stderr.splitlines()[-1].endswith("; see report/error.json")
    assert place.error()["trace"][-1] == "ValueError"  # type: ignore[index]
    assert PLANTED not in done.stderr + done.stdout + (place.output / "report/error.json").read_text() + place.log()


def test_what_other_libraries_say_reaches_no_log(place: Place):
    done = place("noise")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "RESULT status=complete kimg=10\n"
    assert "DOE" not in done.stderr + place.log()
    assert "one scan left out" in done.stderr
    assert place.log().splitlines()[-1] == "2026-01-31T12:00:00Z PROGRESS kimg=1/10"
    assert (place.work / "native.log").read_text().count(PLANTED) >= 4


def test_an_empty_input(place: Place):
    (place.input / "scan.dcm").unlink()
    (place.input / "DICOM").mkdir()
    (place.input / "DICOM" / "DICOM_catalog.xml").write_text("<cat/>")  # XNAT's own file is no scan
    done = place("fine")
    assert done.returncode == 66
    assert done.stderr.splitlines()[-1].startswith(
        "ERROR E_INPUT --input is empty; fix: check the folder mounted there; in XNAT, the path translation"
    )
    assert place.files() == ["report/error.json", "report/run.log"]


def test_a_missing_input(place: Place):
    shutil.rmtree(place.input)
    done = place("fine")
    assert (done.returncode, done.stderr.splitlines()[-1].split("; ")[0]) == (66, "ERROR E_INPUT --input does not exist")


def test_an_unwritable_output_is_found_first_and_names_both_owners(open_place: Place):
    shutil.rmtree(open_place.input)
    open_place.output.mkdir(mode=0o755)
    done = open_place("fine", uid=NOBODY)
    assert done.returncode == 73
    assert done.stderr == (
        "ERROR E_OUTPUT uid 65534 cannot write --output (owner 0, mode 0755, Permission denied); fix: --user 0:0, or make the folder writable\n"
    )


def test_any_uid_without_a_home_works(open_place: Place):
    uid = 54321
    for folder in (open_place.output, open_place.work):
        folder.mkdir()
        os.chown(folder, uid, uid)
    done = open_place("environment", env={"HOME": "/", "TMPDIR": str(open_place.work)}, uid=uid)
    assert done.returncode == 0, done.stderr
    seen = json.loads((open_place.output / "report/seen.json").read_text())
    assert seen["HOME"] == str(open_place.work / "home")
    assert seen["USER"] == os.environ.get("USER", "medgan")
    assert "no passwd entry" in done.stderr
    assert (open_place.output / "report/run.log").stat().st_mode & 0o777 == 0o644


def test_caches_point_under_work(place: Place):
    place("environment", env={"XDG_CACHE_HOME": "/nonexistent"})
    seen = json.loads((place.output / "report/seen.json").read_text())
    for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert Path(seen[name]).is_relative_to(place.work)
        assert Path(seen[name]).is_dir()


def test_weights_fetched_earlier_stay_findable(place: Place, tmp_path: Path):
    (tmp_path / "cache/medgan/weights").mkdir(parents=True)
    place("environment", env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert json.loads((place.output / "report/seen.json").read_text())["MEDGAN_CACHE"] == str(tmp_path / "cache/medgan")


def test_options_come_from_the_environment_and_blank_means_default(place: Place):
    given = {
        "MEDGAN_RECIPE": "stored",
        "MEDGAN_KIMG": "",
        "MEDGAN_WINDOW": "50 350",
        "MEDGAN_MIRROR": "false",
        "MEDGAN_METRICS": " ",
        "MEDGAN_SEED": "",
    }
    done = place("environment", env=given)
    assert done.returncode == 0, done.stderr
    settings = json.loads((place.output / "report/seen.json").read_text())["settings"]
    assert settings == {"recipe": "stored", "window": [50, 350], "kimg": 10, "mirror": False, "seed": 0, "metrics": ["fid"]}


def test_every_option_may_be_blank(place: Place):
    names = ("RECIPE", "WINDOW", "KIMG", "MIRROR", "SEED", "METRICS", "RUN_NAME", "QUIET", "WEIGHTS", "INPUT", "OUTPUT", "WORK")
    done = place("environment", env={f"MEDGAN_{name}": "" for name in names})
    assert done.returncode == 0, done.stderr


def test_folders_come_from_the_environment(place: Place):
    env = {"MEDGAN_INPUT": str(place.input), "MEDGAN_OUTPUT": str(place.output), "MEDGAN_WORK": str(place.work)}
    assert place("fine", folders=False, env=env).stdout == "RESULT status=complete kimg=10\n"


@pytest.mark.parametrize(
    ("words", "env", "message"),
    [
        ((), {"MEDGAN_KIMG": "#kimg#"}, "MEDGAN_KIMG is still #kimg#: the platform put no value in the place of the key"),
        ((), {"MEDGAN_ANYTHING": " #any-thing# "}, "MEDGAN_ANYTHING is still #any-thing#"),
        (("--kimg", "-1"), {}, "--kimg is below 0; fix: --kimg 1"),
        (("--kimg", "many"), {}, "'many' is not a valid float"),
        (("--kimgs", "1"), {}, "No such option"),
        (("--run-name", "../up"), {}, "--run-name is not a plain folder name"),
        ((), {"MEDGAN_RECIPE": "ct-lung"}, "'ct-lung' is not one of"),
    ],
)
def test_a_bad_option_touches_nothing(place: Place, words: tuple[str, ...], env: dict[str, str], message: str):
    done = place("fine", *words, env=env)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("ERROR E_CONFIG")
    assert message in done.stderr
    assert not place.output.exists()
    assert not place.work.exists()


def test_runs_of_xnat_get_a_folder_each(place: Place):
    done = place("fine", env={"XNAT_WORKFLOW_ID": "1234"})
    assert done.returncode == 0, done.stderr
    assert all(any((place.output / name / "run-1234").iterdir()) for name in RESOURCES)
    assert {path.name for name in RESOURCES for path in (place.output / name).iterdir()} == {"run-1234"}
    place("data", "--run-name", "mine", env={"XNAT_WORKFLOW_ID": "1234"})
    assert place.error("mine")["code"] == "E_DATA"


def test_an_earlier_failure_is_gone_after_a_good_run(place: Place):
    place("data")
    place("fine")
    assert "report/error.json" not in place.files()


def test_the_scratch_folder_belongs_to_one_command(place: Place, tmp_path: Path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def run(how: str, *words: str) -> list[str]:
        place(how, "--input", str(place.input), "--output", str(place.output), *words, folders=False, env={"TMPDIR": str(scratch)})
        return sorted(path.name for path in scratch.iterdir())

    kept = run("data")
    assert len(kept) == 1  # a failed run leaves its state for the next try
    assert run("data") == kept  # which finds it
    assert len(run("data", "--seed", "1")) == 2  # another command has another folder
    assert kept[0] not in run("fine")  # and what is complete needs none


@pytest.mark.parametrize("words", [("--help",), ("--version",)])
def test_help_needs_no_folder(place: Place, words: tuple[str, ...]):
    done = place("fine", *words, folders=False)
    if words == ("--help",):
        assert done.returncode == 0
        assert "--run-name" in done.stdout
        assert "--kimg" in done.stdout


def test_the_banner_counts_gpus_of_a_kind(place: Place, tmp_path: Path):
    # What the driver's own tool prints on a DGX, one row per GPU.
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n" + "echo 'NVIDIA H200, 143771 MiB, 570.86.15'\n" * 8)
    tool.chmod(0o755)
    assert (
        "GPU 8 x NVIDIA H200, 143771 MiB, 570.86.15"
        in place("fine", env={"PATH": f"{tool.parent}:{os.environ['PATH']}"}).stderr.splitlines()
    )
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert "GPU none (nvidia-smi fails)" in place("fine", env={"PATH": f"{tool.parent}:{os.environ['PATH']}"}).stderr
