"""From a site's scans to results in its archive: real scans, a fake XNAT, a real engine, and nothing else in between than the command file.

An administrator registers the command; a member of the project launches it on the project, on a session and on a scan, all at the same time,
as people do. The engine is that of `scripts/engine up && scripts/engine build`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from medgan import runs
from plugin.command import LEVELS, ROOT, TASKS
from tests.plugin.backend import Backend
from tests.plugin.containers import UID, half_written
from tests.xnat_server import XnatServer
from tests.xnat_server.archive import Node
from tests.xnat_server.launches import Launch

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]

SESSION, SUBJECT = "Erika_CT_2019", "Muster_Erika"
PASSWORD = "planted-password-4711"
NOTE = b"of the radiologist\n"

# Some seconds of work: 15 steps at 32 px, a state after the first.
FORM = {"size": "32", "preset": "demo", "kimg": "0.06", "images": "8"}
# 0.1 s are over after the first step.
PARTIAL = FORM | {"time_budget": "0.1s"}
# The filter by type of scan asks XNAT, and leaves an MR out that lies in the project too.
OF_PROJECT = {"scan_types": "Abdomen*"}


@dataclass
class Site:
    """A site with a project of real scans, and everything that was said to its users."""

    xnat: XnatServer
    project: Node
    backend: Backend
    said: list[str] = field(default_factory=list)
    launches: dict[str, Launch] = field(default_factory=dict)

    def ask(self, *words: str, user: str = "jane", password: str = PASSWORD) -> Any:
        """What `python -m plugin.xnat` answers a user."""
        env = os.environ | {"XNAT_HOST": self.xnat.url, "XNAT_USER": user, "XNAT_PASS": password}
        done = subprocess.run([sys.executable, "-m", "plugin.xnat", *words], capture_output=True, text=True, cwd=ROOT, env=env, timeout=60)
        self.said += [done.stdout, done.stderr]
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def launch(self, name: str, target: Node, form: dict[str, str]) -> Launch:
        """A launch on an object of the archive, to be found again under a name."""
        words = [word for pair in form.items() for word in ("--set", "=".join(pair))]
        answer = self.ask("launch", target.uri.removeprefix("/"), *words)
        [found] = [each for each in self.xnat.containers.launches if str(each.id) == answer["workflow"]]
        assert found.wrapper["name"] == answer["wrapper"]
        self.launches[name] = found
        return found

    def kill(self, launch: Launch) -> None:
        """Kill a container as soon as it runs, as the button in XNAT does."""
        while launch.status == "Created":
            time.sleep(0.05)
        requests.post(f"{self.xnat.url}/xapi/containers/{launch.id}/kill", auth=("jane", PASSWORD), timeout=10).raise_for_status()

    def files(self, node: Node) -> dict[str, set[str]]:
        """Label of each resource with results -> names of its files, as XNAT lists them."""
        return {each.label: set(each.files()) for each in node.of("resources") if each.label.startswith(runs.RESULTS)}


def run_name(launch: Launch) -> str:
    return f"run-{launch.id}"


def result(launch: Launch) -> str:
    """The only line of stdout."""
    assert launch.stdout.count("\n") == 1, (launch.stdout, launch.stderr)
    return launch.stdout


def ticks(launch: Launch) -> list[str]:
    return re.findall(r" PROGRESS kimg=(\S+)/", launch.stderr)


@pytest.fixture(scope="module")
def site(engine: Any, image: Any, scans: Path) -> Iterator[Site]:
    """The site after seven launches."""
    with tempfile.TemporaryDirectory(prefix="medgan-site-") as name, XnatServer(Path(name)) as xnat:
        backend = Backend(user=f"{UID}:{UID}", online=("project",))
        xnat.containers.runner = backend
        site = Site(xnat, seeded(xnat, scans), backend)
        try:
            happen(site)
            yield site
        finally:
            for launch in xnat.containers.launches:
                launch.killed.set()
                launch.done.wait(30)


def seeded(xnat: XnatServer, scans: Path) -> Node:
    """Three patients: a CT as DICOM with its liver mask, a CT as NIfTI, an MR; and a note where results will come."""
    xnat.accounts.add("jane", PASSWORD)
    project = xnat.project("LIVER", owner="jane")
    ct, nifti = scans / "ct_abdomen_dicom", scans / "ct_abdomen_nifti"
    session = project.session(SESSION, subject=SUBJECT, modality="CT")
    files = {"DICOM": ct / "series", "NIFTI": [ct / "liver_mask.nii.gz"], "SNAPSHOTS": {"t.gif": b"GIF89a"}}
    session.scan("2", type="Abdomen CE", series_description="Abd 3.0", files=files)
    session.resource("MEDGAN_REPORT", {"note.txt": NOTE})
    other = project.session("Hans_CT_2020", subject="Hans", modality="CT")
    other.scan("1", type="Abdomen", files={"NIFTI": [nifti / "ct.nii.gz", nifti / "liver_mask.nii.gz"]})
    mr = project.session("Hans_MR_2020", subject="Hans", modality="MR")
    mr.scan("1", type="T1", files={"NIFTI": [scans / "mr_abdomen_nifti" / "mr_abdomen.nii.gz"]})
    return project


def happen(site: Site) -> None:
    """Registered, launched at each level, launched again."""
    # Not fields of the form, but a site may set any option: FID of 8 images, for a measurement takes longer than all else here, and no GPU.
    command = json.loads((ROOT / "xnat-command.json").read_text())
    command["environment-variables"] |= {"MEDGAN_METRIC_IMAGES": "8", "MEDGAN_DEVICE": "cpu"}
    file = site.xnat.folder / "command.json"
    runs.write_json(file, command)
    site.ask("register", "--file", str(file), user=site.xnat.user, password=site.xnat.password)
    # What an owner may do: enable for the project what is enabled for the site.
    site.ask("register", "--file", str(file), "--project", "LIVER")

    [session] = [each for each in site.project.of("experiments") if each.label == SESSION]
    [scan] = session.of("scans")
    first = [
        site.launch("project, first", site.project, PARTIAL | OF_PROJECT),
        site.launch("session, first", session, PARTIAL),
        site.launch("scan", scan, FORM),
    ]
    assert [launch.wait(800) for launch in first] == ["Complete"] * 3, [launch.stderr for launch in first]
    second = [
        site.launch("project, second", site.project, FORM | OF_PROJECT),
        site.launch("session, second", session, FORM),
        site.launch("scan, failing", scan, FORM | {"mask_label": "7"}),
    ]
    killed = site.launch("scan, killed", scan, FORM | {"seed": "1"})
    site.kill(killed)
    assert [launch.wait(800) for launch in (*second, killed)] == ["Complete", "Complete", "Failed", "Killed"], [
        launch.stderr for launch in second
    ]


def test_a_launch_is_answered_by_what_became_of_it(site: Site):
    found = {name: site.ask("status", str(launch.id), "--project", "LIVER") for name, launch in site.launches.items()}
    assert [(name, row["status"], row["exit_code"]) for name, row in found.items()] == [
        ("project, first", "Complete", 0),
        ("session, first", "Complete", 0),
        ("scan", "Complete", 0),
        ("project, second", "Complete", 0),
        ("session, second", "Complete", 0),
        ("scan, failing", "Failed", 65),
        ("scan, killed", "Killed", 137),
    ]
    assert found["scan"]["result"] + "\n" == result(site.launches["scan"])
    assert found["scan, failing"]["result"].startswith("ERROR E_DATA ")
    assert "--mask-label 5" in found["scan, failing"]["result"] or "--mask-label 1" in found["scan, failing"]["result"]


@pytest.mark.parametrize("level", LEVELS)
def test_each_label_holds_what_the_documentation_lists(site: Site, level: str):
    name = level if level == "scan" else f"{level}, second"
    launch = site.launches[name]
    assert result(launch).startswith("RESULT status=complete kimg=0.06 ")
    listed = documented()
    assert set(listed) == {label for label, _ in TASKS["train"].outputs.values()}
    run = run_name(launch) + "/"
    there = {label: {file.removeprefix(run) for file in files if file.startswith(run)} for label, files in site.files(launch.root).items()}
    assert there == listed


def documented() -> dict[str, set[str]]:
    """Resource label -> files of a run, from the table of docs/how-to/xnat.md."""
    text = (ROOT / "docs" / "how-to" / "xnat.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(MEDGAN_\w+)` \| (.*?) \|", text, flags=re.MULTILINE)
    return {label: set(re.findall(r"`([^`]+)`", files)) for label, files in rows}


def test_whatever_is_stored_opens(site: Site):
    nodes = {launch.root for launch in site.launches.values()}
    stored = [resource for node in nodes for resource in node.of("resources") if resource.label in documented()]
    assert len(stored) == 15
    assert [file for resource in stored for file in half_written(resource.folder)] == []


@pytest.mark.parametrize("level", ["project", "session"])
def test_a_second_launch_goes_on_where_the_first_one_s_budget_ended(site: Site, level: str):
    first, second = site.launches[f"{level}, first"], site.launches[f"{level}, second"]
    assert result(first).startswith("RESULT status=partial kimg=0.004 ")
    assert result(second).startswith("RESULT status=complete kimg=0.06 ")
    assert (ticks(first), ticks(second)) == (["0.004"], ["0.06"])
    stored = second.root.find("resources", "MEDGAN_METRICS")
    rows = [json.loads(line)["kimg"] for line in stored.read(f"{run_name(second)}/stats.jsonl").splitlines()]
    assert rows == [0.004, 0.06]
    checkpoint = set(second.root.find("resources", "MEDGAN_CHECKPOINT").files())
    assert {f"{run_name(first)}/{name}" for name in ("state.pt", "config.json", "stats.jsonl", "bundle/models/model.pt")} <= checkpoint
    assert [name for name in checkpoint if name.startswith(run_name(second))] == [f"{run_name(second)}/README.txt"]


def test_a_project_s_state_comes_by_rest_and_a_session_s_lies_in_its_mount(site: Site):
    """Project resources are in no mount; the container of the session has no network at all."""
    asked = [request for request in site.xnat.asked("GET", "*/files/*state.pt") if request.status == 200]
    first = site.launches["project, first"]
    assert [request.path for request in asked] == [f"/data/projects/LIVER/resources/MEDGAN_CHECKPOINT/files/{run_name(first)}/state.pt"]
    # As the user who launched, by the token of the launch, which is void now.
    assert asked[0].user == "jane"
    assert not site.xnat.accounts.tokens
    assert "no state of an earlier run was looked for in XNAT" in site.launches["session, first"].stderr


def test_stopped_and_gone_on_at_the_session_equals_unbroken_at_its_scan(site: Site):
    """Two levels, two mounts, once in two parts: the same images and the same network, bit by bit."""
    there, here = site.launches["session, second"], site.launches["scan"]
    for label, name in (("MEDGAN_SYNTHETIC", "manifest.csv"), ("MEDGAN_MODEL", "SHA256SUMS")):
        one, other = (launch.root.find("resources", label).read(f"{run_name(launch)}/{name}") for launch in (there, here))
        assert one == other, name
    project = site.launches["project, second"]
    assert project.root.find("resources", "MEDGAN_SYNTHETIC").read(f"{run_name(project)}/manifest.csv") != one


def test_the_form_s_filter_chose_among_the_project_s_scans(site: Site):
    counts = {}
    for name in ("project, second", "session, second"):
        launch = site.launches[name]
        manifest = launch.root.find("resources", "MEDGAN_REPORT").read(f"{run_name(launch)}/dataset/manifest.csv").decode()
        counts[name] = len(manifest.splitlines()) - 1
    # 20 slices of the CT in DICOM; with the 43 slices of the other that show the liver 63, and none of the MR.
    assert counts == {"project, second": 63, "session, second": 20}


def test_what_was_there_stays(site: Site):
    session = site.launches["session, second"].root
    report = session.find("resources", "MEDGAN_REPORT")
    assert report.read("note.txt") == NOTE
    assert {name.partition("/")[0] for name in report.files()} == {
        "note.txt",
        run_name(site.launches["session, first"]),
        run_name(site.launches["session, second"]),
    }
    catalog = report.catalog_path.read_text()
    assert all(f'URI="{name}"' in catalog for name in report.files())


@pytest.mark.parametrize("name", ["scan, failing", "scan, killed"])
def test_nothing_is_stored_of_a_launch_that_failed_or_was_killed(site: Site, name: str):
    launch = site.launches[name]
    run = run_name(launch)
    assert not [file for files in site.files(launch.root).values() for file in files if file.startswith(run)]
    if name == "scan, failing":
        # Left in XNAT's build folder, where an administrator finds it.
        left = launch.mounts["output"] / "report" / run
        assert {path.name for path in left.iterdir()} == {"error.json", "run.log"}
        assert json.loads((left / "error.json").read_text())["exit_code"] == 65


def everything(site: Site) -> dict[str, bytes]:
    """All that was written or said: stored files with what is in zips, build folders, logs, answers to users, `docker inspect`."""
    texts = {"users": "".join(site.said).encode(), "inspect": "".join(site.backend.inspected).encode()}
    for name, launch in site.launches.items():
        texts |= {f"{name}, stdout": launch.stdout.encode(), f"{name}, stderr": launch.stderr.encode()}
        folders = [launch.build, *(each.folder for each in launch.root.of("resources") if each.label.startswith(runs.RESULTS))]
        for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
            texts[str(path)] = path.name.encode() + path.read_bytes()
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    texts[f"{path}, inside"] = b"".join(member.encode() + archive.read(member) for member in archive.namelist())
    return texts


def test_no_password_and_no_token_stands_anywhere(site: Site):
    secrets = [PASSWORD, site.xnat.password, *(launch.environment["XNAT_PASS"] for launch in site.launches.values())]
    assert len(set(secrets)) == 2 + len(site.launches)
    texts = everything(site)
    assert len(site.backend.inspected) == len(site.launches)
    assert {Path(name).name for name in texts} >= {"run.json", "error.json", "run.log", "report.html", "state.pt", "bundle.zip, inside"}
    assert [(name, number) for name, text in texts.items() for number, secret in enumerate(secrets) if secret.encode() in text] == []


def test_no_name_of_a_patient_a_session_or_a_file_of_theirs_leaves_the_archive(site: Site, scans: Path):
    # The slices are called after their UIDs.
    slices = [path.name.removeprefix("CT.") for path in (scans / "ct_abdomen_dicom" / "series").iterdir()]
    assert len(slices) == 20
    # The engine knows what it mounts, and from where.
    texts = {name: text for name, text in everything(site).items() if name != "inspect"}
    assert [
        (name, found) for name, text in texts.items() for found in (SESSION, SUBJECT, "Erika", "Hans", *slices) if found.encode() in text
    ] == []
