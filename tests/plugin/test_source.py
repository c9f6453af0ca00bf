"""Where a job's scans, its earlier state and its results go, through the container's command line, and secrets nowhere."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from medgan.errors import ConfigError, InputError, MedganError
from plugin.source import Remote, earlier_state, find_input
from plugin.surroundings import Folders
from plugin.target import SourceConfig
from plugin.xnat import ROOT, group
from tests.plugin.sites import LABEL, liver
from tests.xnat_server import XnatServer
from tests.xnat_server.archive import Node

SECRET = "planted-secret-of-erika"


class Job:
    """The container's command line around a job that says what it was given, beside a fake XNAT."""

    def __init__(self, xnat: XnatServer, root: Path) -> None:
        self.xnat, self.root = xnat, root
        self.input, self.output, self.work = root / "input", root / "output", root / "work"
        self.input.mkdir()
        xnat.accounts.add("erika", SECRET)
        xnat.project("LIVER").members["erika"] = "member"

    def __call__(self, how: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        base = {name: value for name, value in os.environ.items() if not name.startswith(("MEDGAN_", "XNAT_"))}
        site = {"XNAT_HOST": self.xnat.url, "XNAT_USER": "erika", "XNAT_PASS": SECRET, "HOME": str(self.root), "MEDGAN_DEVICE": "cpu"}
        places = ["--input", str(self.input), "--output", str(self.output), "--work", str(self.work)]
        return subprocess.run(
            [sys.executable, "-m", "tests.plugin.small", how, "train", *places, *words],
            capture_output=True, text=True, cwd=ROOT, timeout=60, env=base | site | env,
        )  # fmt: skip

    def seen(self) -> dict[str, list[str] | str]:
        return json.loads((self.output / "report" / "seen.json").read_text())

    def all_text(self) -> str:
        """Every file that the job left, results and scratch, but the scans themselves."""
        files = [path for folder in (self.output, self.work) for path in folder.rglob("*") if path.is_file() and "scans" not in path.parts]
        return "".join(path.read_text(errors="replace") for path in files)


@pytest.fixture
def project(xnat: XnatServer) -> Node:
    return liver(xnat)


@pytest.fixture
def job(xnat: XnatServer, project: Node, tmp_path: Path) -> Job:
    return Job(xnat, tmp_path)


def test_scans_are_read_over_rest_and_results_sent_there(job: Job, project: Node):
    done = job("read", "--source", "rest", "--target", "projects/LIVER", "--scan-types", "T1*", "--upload")
    assert done.returncode == 0, done.stderr
    seen = job.seen()
    assert f"{LABEL}/SCANS/2/DICOM/1.dcm" in seen["files"]
    assert not [name for name in seen["files"] if "3-MR1" in name]
    assert project.find("resources", "MEDGAN_REPORT").read("seen.json") == (job.output / "report/seen.json").read_bytes()
    assert project.find("resources", "MEDGAN_MODEL").read("README.txt")
    assert done.stdout == "RESULT status=complete kimg=10\n"
    # The password is in nothing that is kept, shown or handed on; neither are the names of sessions.
    told = done.stdout + done.stderr
    assert SECRET not in told + job.all_text() + json.dumps(seen)
    assert LABEL not in told + (job.output / "report/run.log").read_text()


def test_auto_takes_the_mount_if_there_is_one_and_asks_nobody(job: Job, xnat: XnatServer):
    (job.input / "scan.dcm").write_bytes(b"x")
    done = job("read", MEDGAN_TARGET="/archive/projects/LIVER")
    assert done.returncode == 0, done.stderr
    assert job.seen()["files"] == ["scan.dcm"]
    assert not xnat.requests


@pytest.mark.parametrize("level", ["project", "session", "scan"])
def test_auto_falls_back_to_rest_where_a_mount_is_empty(job: Job, project: Node, level: str):
    session = project.find("experiments", LABEL)
    node = {"project": project, "session": session, "scan": session.find("scans", "2")}[level]
    # What earlier runs left there is no scan.
    (job.input / "RESOURCES" / "MEDGAN_SYNTHETIC" / "run-1").mkdir(parents=True)
    (job.input / "RESOURCES" / "MEDGAN_SYNTHETIC" / "run-1" / "seed0.png").write_bytes(b"x")
    done = job("read", MEDGAN_SOURCE="auto", MEDGAN_TARGET=node.archive_uri, MEDGAN_PROJECT_ID="LIVER", MEDGAN_SESSIONS="")
    assert done.returncode == 0, done.stderr
    assert "--input holds no scans: they are read from XNAT over REST" in done.stderr
    prefix = {"project": f"{LABEL}/SCANS/2/", "session": "SCANS/2/", "scan": ""}[level]
    assert f"{prefix}DICOM/1.dcm" in job.seen()["files"]


def test_a_stopped_fetch_goes_on(job: Job, xnat: XnatServer):
    xnat.faults.add("login_page", "*/scans/3-MR1/resources/*/files*", times=-1)
    first = job("read", "--source", "rest", "--target", "projects/LIVER")
    assert first.returncode == 66
    assert first.stderr.splitlines()[-1].startswith("ERROR E_XNAT XNAT no longer knows the login, while reading (2 attempts)")
    assert json.loads((job.output / "report/error.json").read_text())["exit_code"] == 66
    xnat.faults.clear()
    assert job("read", "--source", "rest", "--target", "projects/LIVER").returncode == 0


@pytest.mark.parametrize(
    ("words", "env", "code", "line"),
    [
        (("--source", "rest"), {}, 2, "ERROR E_CONFIG no project, session or scan is named"),
        (("--source", "rest", "--target", "projects/LIVER"), {"XNAT_HOST": ""}, 2, "ERROR E_CONFIG no XNAT site is named"),
        (("--source", "rest", "--target", "projects/LIVER"), {"XNAT_PASS": ""}, 2, "ERROR E_CONFIG no user and password for the XNAT site"),
        (("--upload",), {}, 2, "ERROR E_CONFIG no project, session or scan is named"),
        (("--live", "-1"), {}, 2, "ERROR E_CONFIG --live is not a number of minutes"),
        (("--target", "LIVER"), {}, 2, "ERROR E_CONFIG --target is no address"),
        (("--source", "mount"), {}, 66, "ERROR E_INPUT --input is empty"),
        ((), {"XNAT_HOST": ""}, 66, "ERROR E_INPUT --input is empty"),
        (
            ("--target", "projects/LIVER"),
            {"XNAT_PASS": "wrong-secret"},
            66,
            "ERROR E_INPUT --input is empty, and XNAT refuses user and password",
        ),
        (("--source", "rest", "--target", "projects/NONE"), {}, 66, "ERROR E_XNAT XNAT has no such thing (404)"),
        (
            ("--source", "rest", "--target", "projects/LIVER"),
            {"XNAT_PASS": "wrong-secret"},
            66,
            "ERROR E_XNAT XNAT refuses user and password",
        ),
    ],
)
def test_what_is_missing_is_named(job: Job, words: tuple[str, ...], env: Mapping[str, str], code: int, line: str):
    done = job("read", *words, **env)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines()[-1].startswith(line)
    for secret in (SECRET, "wrong-secret", LABEL):
        assert secret not in done.stderr + job.all_text()
    if code == 2:
        assert not job.output.exists()


def test_results_that_do_not_arrive_are_kept_and_can_be_sent_later(job: Job, xnat: XnatServer, project: Node):
    (job.input / "scan.dcm").write_bytes(b"x")
    xnat.faults.add("no_edit_right", "*/files/*", method="PUT", times=-1)
    done = job("read", "--upload", "--target", "projects/LIVER")
    assert done.returncode == 73
    assert done.stderr.splitlines()[-1].startswith("ERROR E_XNAT XNAT took 1 of 1 files but does not list them as sent: README.txt")
    assert (job.output / "model/README.txt").exists()
    xnat.faults.clear()
    env = {"XNAT_HOST": xnat.url, "XNAT_USER": "erika", "XNAT_PASS": SECRET}
    sent = CliRunner().invoke(group, ["upload", str(job.output), "projects/LIVER"], env=env)
    assert sent.exception is None, sent.exception
    assert json.loads(sent.stdout)["resources"] == [f"MEDGAN_{name}" for name in ("REPORT", "SYNTHETIC", "METRICS", "MODEL", "CHECKPOINT")]
    assert project.find("resources", "MEDGAN_MODEL").read("README.txt")


def test_xnat_s_own_launches_are_not_stored_twice(job: Job, xnat: XnatServer):
    (job.input / "scan.dcm").write_bytes(b"x")
    done = job("read", "--upload", "--target", "projects/LIVER", XNAT_WORKFLOW_ID="12")
    assert done.returncode == 0, done.stderr
    assert "--upload has nothing to do" in done.stderr
    assert not xnat.asked("PUT", "*/resources/*")


# -- filters on a mount ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(project: Node, tmp_path: Path) -> Folders:
    """The mount of a project launch, from the fake's own archive."""
    (tmp_path / "work").mkdir()
    return Folders(input=project.folder, output=tmp_path / "output", work=tmp_path / "work")


def remote(config: SourceConfig, xnat: XnatServer, monkeypatch: pytest.MonkeyPatch) -> Remote:
    for name, value in (("XNAT_HOST", xnat.url), ("XNAT_USER", xnat.user), ("XNAT_PASS", xnat.password)):
        monkeypatch.setenv(name, value)
    return Remote(config, needed=False)


def chosen(config: SourceConfig, folders: Folders, site: Remote) -> set[str]:
    found = find_input(config, folders, site, "/input")
    return {path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file() and not path.name.endswith("_catalog.xml")}


def test_sessions_of_a_mount_are_chosen_without_asking_anybody(xnat: XnatServer, folders: Folders, monkeypatch: pytest.MonkeyPatch):
    config = SourceConfig(sessions="hans*", target="projects/LIVER")
    assert chosen(config, folders, remote(config, xnat, monkeypatch)) == {"Hans_MR_2020/SCANS/1/NIFTI/t1.nii.gz"}
    assert not xnat.requests


def test_scan_types_of_a_mount_are_asked_for(xnat: XnatServer, folders: Folders, monkeypatch: pytest.MonkeyPatch):
    config = SourceConfig(scan_types="Scout", target="projects/LIVER")
    found = chosen(config, folders, remote(config, xnat, monkeypatch))
    assert {name for name in found if "/SCANS/" in name} == {f"{LABEL}/SCANS/3-MR1/DICOM/s.dcm", f"{LABEL}/SCANS/3-MR1/secondary/c.dcm"}
    assert f"{LABEL}/ASSESSORS/ROI_2/SEG/seg.dcm" in found
    assert not xnat.asked("GET", "*/files*")


def test_a_mounted_session_takes_scan_types_too(
    xnat: XnatServer, project: Node, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    session = project.find("experiments", LABEL)
    config = SourceConfig(scan_types="Scout", target=session.archive_uri)
    mount = Folders(input=session.folder, output=folders.output, work=folders.work)
    found = chosen(config, mount, remote(config, xnat, monkeypatch))
    assert {name.split("/")[1] for name in found if name.startswith("SCANS/")} == {"3-MR1"}


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (SourceConfig(sessions="X*"), InputError, "no session of the mounted project fits --sessions"),
        (SourceConfig(scan_types="X*", target="projects/LIVER"), InputError, "no scan fits --scan-types"),
        (SourceConfig(scan_types="T1*"), InputError, "a mount does not show the types of scans"),
    ],
)
def test_filters_that_nothing_fits(
    xnat: XnatServer, folders: Folders, monkeypatch: pytest.MonkeyPatch, config: SourceConfig, error: type[MedganError], message: str
):
    with pytest.raises(error, match=message):
        chosen(config, folders, remote(config, xnat, monkeypatch))


def test_filters_mean_nothing_in_a_plain_folder(xnat: XnatServer, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "scan.dcm").write_bytes(b"x")
    config = SourceConfig(sessions="CT*")
    with pytest.raises(ConfigError, match="choose in a project as XNAT mounts it"):
        chosen(config, Folders(input=tmp_path / "plain", output=folders.output, work=folders.work), remote(config, xnat, monkeypatch))


# -- the state of an earlier run -------------------------------------------------------------------------------------------


def state(config: SourceConfig, folders: Folders, site: Remote, resume: str = "auto", run_name: str = "run-9") -> str:
    run = earlier_state(config, folders, site, run_name=run_name, resume=resume)
    return next(run.rglob("state.pt")).read_text() if run else ""


def test_a_state_is_looked_for_in_the_output_the_mount_and_xnat(
    xnat: XnatServer, project: Node, folders: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", logger="medgan.xnat")
    session = project.find("experiments", LABEL)
    config = SourceConfig(target=session.archive_uri)
    site = remote(config, xnat, monkeypatch)
    assert state(config, folders, site) == ""
    with pytest.raises(InputError, match="no state of an earlier run was found"):
        state(config, folders, site, resume="checkpoint")
    session.resource("MEDGAN_CHECKPOINT", {"run-7/state.pt": b"of 7", "run-8/state.pt": b"of 8", "run-8/config.json": b"{}"})
    assert not caplog.records
    assert state(config, folders, site) == "of 8"
    assert "earlier run is there (run-8/state.pt)" in caplog.text
    assert (folders.work / "earlier/config.json").read_text() == "{}"
    named = SourceConfig(target=session.archive_uri, earlier_run="run-7")
    assert state(named, folders, site) == "of 7"
    # The mount of a session has it too, and nobody is asked.
    xnat.requests.clear()
    mount = Folders(input=session.folder, output=folders.output, work=folders.work)
    caplog.clear()
    assert (state(config, mount, site), state(named, mount, site)) == ("of 8", "of 7")
    assert re.findall(r"earlier run is there \((.*?)\)", caplog.text) == ["run-8/state.pt", "run-7/state.pt"]
    assert not xnat.requests
    # The same run's own output comes first, and the job finds it by itself.
    (folders.output / "checkpoint/run-9").mkdir(parents=True)
    (folders.output / "checkpoint/run-9/state.pt").write_text("of 9")
    assert state(config, mount, site) == ""
    assert state(config, mount, site, resume="checkpoint") == "of 9"
    assert [state(config, mount, site, resume=given) for given in ("new", "elsewhere/state.pt")] == ["", ""]
    # What the scratch folder has is further, if it is the same run's: the training finds out.
    (folders.work / "run/checkpoint").mkdir(parents=True)
    (folders.work / "run/checkpoint/state.pt").write_text("own")
    assert state(config, mount, site) == ""
    assert state(config, mount, site, resume="checkpoint") == "of 9"


@pytest.mark.parametrize("mounted", [True, False])
def test_a_run_that_ended_and_was_launched_again_is_gone_on_with_from_its_second_launch(
    xnat: XnatServer, project: Node, folders: Folders, monkeypatch: pytest.MonkeyPatch, mounted: bool
):
    session = project.find("experiments", LABEL)
    first, second = (hashlib.md5(data).hexdigest()[:8] for data in (b"first end", b"second end"))
    left = {
        "run-7/state.pt": b"first end",
        "run-7/state-20260131T120000Z.pt": b"before the first end",
        f"run-7/state-20260131T110000Z-after-{first}.pt": b"launched again",
        "run-7/bundle/models/model.pt": b"best by the first end",
        "run-7/stats.jsonl": b"curve to the first end",
        "run-7/config.json": b"{}",
    }
    resource = session.resource("MEDGAN_CHECKPOINT", left)
    site = remote(config := SourceConfig(target=session.archive_uri), xnat, monkeypatch)
    place = Folders(input=session.folder, output=folders.output, work=folders.work) if mounted else folders

    def taken() -> set[str]:
        return {path.relative_to(folders.work / "earlier").parts[0] for path in (folders.work / "earlier").rglob("*") if path.is_file()}

    assert state(config, place, site) == "launched again"
    # The best network and the curve are not of this state.
    assert taken() == {"checkpoint", "config.json"}
    resource.store("run-7/state.pt", b"second end", overwrite=True)
    assert state(config, place, site) == "second end"
    resource.store(f"run-7/state-20260131T100000Z-after-{second}.pt", b"launched a third time", overwrite=True)
    assert state(config, place, site) == "launched a third time"
    assert bool(xnat.requests) is not mounted


def test_a_site_that_does_not_answer_stops_only_those_who_insist(
    xnat: XnatServer, folders: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    config = SourceConfig(target="projects/LIVER")
    site = remote(config, xnat, monkeypatch)
    xnat.faults.add("login_page", "*/resources", times=-1)
    assert state(config, folders, site) == ""
    assert "no state of an earlier run was looked for in XNAT: XNAT no longer knows the login" in caplog.text
    with pytest.raises(InputError, match="no longer knows the login"):
        state(config, folders, site, resume="checkpoint")
