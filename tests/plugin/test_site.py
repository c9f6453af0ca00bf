"""A site's four steps, done once and looked at; launches and what became of them. By the command line, as an administrator would."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from medgan.commands.job import JobConfig
from medgan.errors import MedganError
from plugin.command import LEVELS, TASKS, command_definition, definitions
from plugin.xnat import group
from tests.plugin.sites import LABEL, liver
from tests.xnat_server import XnatServer
from tests.xnat_server.containers import Launch


def ask(xnat: XnatServer, *words: str, user: str = "", password: str = "") -> Result:
    who = {"XNAT_HOST": xnat.url, "XNAT_USER": user or xnat.user, "XNAT_PASS": password or xnat.password}
    return CliRunner().invoke(group, words, env=who, catch_exceptions=True)


def answer(xnat: XnatServer, *words: str, **who: str) -> Any:
    done = ask(xnat, *words, **who)
    assert done.exception is None, done.exception
    return json.loads(done.stdout)


def problem(xnat: XnatServer, *words: str, **who: str) -> MedganError:
    done = ask(xnat, *words, **who)
    assert isinstance(done.exception, MedganError), (done.exception, done.output)
    for secret in (xnat.password, LABEL):
        assert secret not in done.output + done.exception.line
    return done.exception


def changes(xnat: XnatServer) -> list[str]:
    return [f"{r.method} {r.path}" for r in xnat.requests if r.method in ("PUT", "POST") and r.path.startswith("/xapi/")]


def test_registering_adds_enables_twice_and_can_be_repeated(xnat: XnatServer):
    liver(xnat)
    done = ask(xnat, "register", "--project", "LIVER")
    assert done.exception is None
    first = json.loads(done.stdout)
    assert [row["command"] for row in first] == [f"medgan-{task}" for task in TASKS]
    assert all(row["added"] and row["site"] == list(LEVELS) and row["project"] == "LIVER" for row in first)
    assert [line.split()[:2] for line in done.stderr.splitlines()] == [["2", "command"], ["3", "site"], ["4", "project"]] * len(TASKS)
    wrappers = {wrapper["id"] for command in xnat.containers.commands.values() for wrapper in command["xnat"]}
    assert xnat.containers.site == wrappers
    assert xnat.containers.enabled == {("LIVER", wrapper) for wrapper in wrappers}
    assert len(changes(xnat)) == len(TASKS) * (1 + 2 * len(LEVELS))
    xnat.requests.clear()
    again = answer(xnat, "register", "--project", "LIVER")
    assert [row["id"] for row in again] == [row["id"] for row in first]
    assert not any(row["added"] for row in again)
    assert changes(xnat) == []


def test_another_project_later(xnat: XnatServer):
    liver(xnat)
    xnat.project("LUNG")
    answer(xnat, "register", "--variant", "cpu")
    assert not xnat.containers.enabled
    answer(xnat, "register", "--variant", "cpu", "--project", "LUNG")
    assert {project for project, _ in xnat.containers.enabled} == {"LUNG"}
    assert len(xnat.containers.commands) == len(TASKS)


def test_a_pulled_image_brings_its_commands(xnat: XnatServer):
    image = "registry.example.org/medgan:0.1.0"
    xnat.containers.images[image] = definitions(JobConfig)
    rows = answer(xnat, "register", "--image", image, "--pull")
    assert [row["added"] for row in rows] == [False] * len(TASKS)
    assert {command["image"] for command in xnat.containers.commands.values()} == {image}


def test_an_image_whose_older_command_is_there_gets_the_new_one_added(xnat: XnatServer):
    image = "registry.example.org/medgan:0.1.0"
    xnat.containers.images[image] = [{**command, "version": "older"} for command in definitions(JobConfig)]
    assert [row["added"] for row in answer(xnat, "register", "--image", image, "--pull")] == [True] * len(TASKS)


@pytest.mark.parametrize(
    ("words", "message", "fix"),
    [
        (("--pull",), "step 1 (pull the image) failed: the user may not pull images (403)", "Container Manager"),
        ((), "step 2 (add the command) failed: the user may not add commands (403)", "Container Manager"),
    ],
)
def test_a_step_without_the_right_is_named(xnat: XnatServer, words: tuple[str, ...], message: str, fix: str):
    xnat.accounts.add("owner", "owner-password")
    xnat.project("LIVER", owner="owner")
    found = problem(xnat, "register", "--project", "LIVER", *words, user="owner", password="owner-password")
    assert found.message == message
    assert fix in found.fix
    assert found.exit_code == 73


def test_the_site_and_the_project_have_rights_of_their_own(xnat: XnatServer):
    liver(xnat)
    answer(xnat, "register")
    for user, role in (("owner", "owner"), ("member", "member")):
        xnat.accounts.add(user, f"{user}-password")
        xnat.project("LIVER").members[user] = role
    assert (
        "step 4 (enable for the project) failed: the user may not (403)"
        in problem(xnat, "register", "--project", "LIVER", user="member", password="member-password").message
    )
    answer(xnat, "register", "--project", "LIVER", user="owner", password="owner-password")
    xnat.containers.site.clear()
    assert (
        "step 3 (enable for the site) failed"
        in problem(xnat, "register", "--project", "LIVER", user="owner", password="owner-password").message
    )
    assert "step 4 (enable for the project) failed: XNAT has no such project" in problem(xnat, "register", "--project", "NONE").message


def test_a_changed_command_of_the_same_version_is_told_to_get_another(xnat: XnatServer, tmp_path):
    command = command_definition(JobConfig)
    answer(xnat, "register")
    file = tmp_path / "command.json"
    file.write_text(json.dumps({**command, "shm-size": 2**20}))
    found = problem(xnat, "register", "--file", str(file))
    assert "with another shm-size" in found.message
    assert "another version" in found.fix
    # An XNAT that adds what it was not sent is no difference.
    stored = xnat.containers.commands[1]
    stored |= {"hash": "x", "visibility": "public", "ports": None}
    answer(xnat, "register")


def test_a_faulty_file_reaches_no_site(xnat: XnatServer, tmp_path):
    file = tmp_path / "command.json"
    file.write_text(json.dumps({**command_definition(JobConfig), "gpus": "all"}))
    assert "gpus" in problem(xnat, "register", "--file", str(file)).message
    assert not xnat.requests


def test_a_launch_from_the_form_and_what_became_of_it(xnat: XnatServer):
    project = liver(xnat)
    answer(xnat, "register", "--project", "LIVER")

    def run(launch: Launch) -> int:
        launch.stdout, launch.stderr = "RESULT status=complete kimg=1\n", "medgan 0.1\n"
        for output in launch.command["outputs"]:
            folder = launch.mounts["output"] / output["path"]
            folder.mkdir(parents=True)
            (folder / "file.txt").write_text("x")
        return 0

    xnat.containers.runner = run
    session = project.find("experiments", LABEL)
    scan = session.find("scans", "2")
    for node, level in ((project, "project"), (session, "session"), (scan, "scan")):
        launched = answer(xnat, "launch", node.uri, "--set", "kimg=1", "--set", "sessions=CT_*")
        assert launched["wrapper"] == level
        [made] = [each for each in xnat.containers.launches if each.wrapper["name"] == level]
        assert made.wait() == "Complete"
        assert (made.root, made.inputs["kimg"], made.inputs["sessions"]) == (node, "1", "CT_*")
        # What the job is told of where it was launched.
        assert (made.inputs["target"], made.inputs["project-id"]) == (node.archive_uri, "LIVER")
        found = answer(xnat, "status", launched["workflow"], "--project", "LIVER")
        assert (found["status"], found["exit_code"], found["result"]) == ("Complete", 0, "RESULT status=complete kimg=1")
    assert answer(xnat, "status", made.container_id)["workflow"] == launched["workflow"]


def test_a_failed_launch_shows_its_error(xnat: XnatServer):
    liver(xnat)
    answer(xnat, "register", "--project", "LIVER")

    def run(launch: Launch) -> int:
        launch.stderr = "banner\nERROR E_DATA 0 of 8 slices kept; fix: --mask-label 1\n"
        return 65

    xnat.containers.runner = run
    launched = answer(xnat, "launch", "projects/LIVER", "--command", "medgan-check")
    xnat.containers.launches[0].wait()
    found = answer(xnat, "status", launched["workflow"])
    assert (found["exit_code"], found["result"]) == (65, "ERROR E_DATA 0 of 8 slices kept; fix: --mask-label 1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("launch", "projects/LIVER", "--command", "nnunet"), "XNAT has no command nnunet"),
        (("launch", "projects/LIVER", "--version", "0"), "XNAT has no command medgan-train 0"),
        (("launch", "projects/OTHER"), "medgan-train is not enabled for projects of the project"),
        (("launch", "projects/LIVER", "--set", "learning_rate=1"), "the form has no field learning_rate"),
        (("launch", "projects/LIVER", "--set", "target=x"), "the form has no field target"),
        (
            ("launch", "projects/LIVER", "--set", "scan_types=T1 (post)"),
            "the value of scan_types holds (, which XNAT refuses to launch with",
        ),
        (("launch", "projects/LIVER", "--set", "kimg"), "--set kimg is not NAME=VALUE"),
        (("launch", "LIVER"), "--target is no address of a project, session or scan"),
        (("status", "12345"), "XNAT knows no such launch, or not this user"),
    ],
)
def test_what_cannot_be_launched_or_found(xnat: XnatServer, words: tuple[str, ...], message: str):
    liver(xnat)
    xnat.project("OTHER")
    answer(xnat, "register", "--project", "LIVER")
    assert problem(xnat, *words).message == message
    assert not xnat.containers.launches


def test_a_site_without_the_container_service(xnat: XnatServer, monkeypatch: pytest.MonkeyPatch):
    from tests.xnat_server.web import Refusal

    def gone(*_: object) -> None:
        raise Refusal(404, "Not Found")

    monkeypatch.setattr(xnat.containers, "answer", gone)
    found = problem(xnat, "register")
    assert found.message.endswith("the site has no Container Service")
