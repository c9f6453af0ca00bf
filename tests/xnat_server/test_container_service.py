"""The Container Service of the fake XNAT: commands, who may enable them, launches, containers and where results go."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path

import pytest
import requests

from tests.xnat_server.conftest import Client

COMMAND = {
    "name": "train",
    "image": "medgan:1",
    "version": "1",
    "command-line": "train",
    "mounts": [{"name": "input", "path": "/input"}, {"name": "output", "path": "/output", "writable": True}],
    "inputs": [{"name": "kimg", "type": "number", "default-value": "0"}, {"name": "target", "type": "string"}],
    "outputs": [{"name": "report", "mount": "output", "path": "report", "required": True}],
    "xnat": [
        {
            "name": "session",
            "contexts": ["xnat:imageSessionData"],
            "external-inputs": [{"name": "session", "type": "Session", "provides-files-for-command-mount": "input"}],
            "derived-inputs": [
                {
                    "name": "uri",
                    "type": "string",
                    "derived-from-wrapper-input": "session",
                    "derived-from-xnat-object-property": "uri",
                    "provides-value-for-command-input": "target",
                }
            ],
            "output-handlers": [{"name": "h", "accepts-command-output": "report", "as-a-child-of": "session", "label": "MEDGAN_report"}],
        }
    ],
}


@pytest.fixture
def wrapper(http):
    """Id of the wrapper of a command that is registered and enabled for site and project."""
    id = http.post("/xapi/commands", json=COMMAND).json()
    for place in ("/xapi", "/xapi/projects/LIVER"):
        assert http.put(f"{place}/commands/{id}/wrappers/session/enabled").status_code == 200
    return http.get(f"/xapi/commands/{id}").json()["xnat"][0]["id"]


def launch(http, liver, wrapper, **chosen):
    url = f"/xapi/projects/LIVER/wrappers/{wrapper}/root/session/launch"
    assert http.post(url, json={"session": "/archive/experiments/XNAT_E00001", **chosen}).json()["status"] == "success"
    return liver.containers.launches[-1]


def test_a_command_is_registered_once(http):
    assert http.post("/xapi/commands", json=COMMAND).status_code == 201
    assert http.post("/xapi/commands", json=COMMAND).status_code == 409
    assert http.post("/xapi/commands", json={**COMMAND, "version": "2"}).status_code == 201
    assert http.post("/xapi/commands", json={"name": " "}).status_code == 400
    assert [c["version"] for c in http.get("/xapi/commands").json()] == ["1", "2"]


def test_a_command_is_offered_only_when_it_is_enabled_for_site_and_project(http):
    id = http.post("/xapi/commands", json=COMMAND).json()
    offered = "/xapi/commands/available?project=LIVER&xsiType=xnat:ctSessionData"
    for place, count in (("/xapi", 0), ("/xapi/projects/LIVER", 1)):
        http.put(f"{place}/commands/{id}/wrappers/session/enabled")
        assert len(http.get(offered).json()) == count
    assert http.get(offered.replace("ctSession", "project")).json() == []
    http.put(f"/xapi/commands/{id}/wrappers/session/disabled")
    assert http.get(offered).json() == []


def test_only_a_manager_registers(liver):
    reader = Client(liver.url)
    reader.auth = ("reader", "reader-password")
    assert reader.post("/xapi/commands", json=COMMAND).status_code == 403


def test_a_launch_is_resolved_run_and_its_outputs_are_stored(http, liver, wrapper):
    def run(launch):
        (launch.mounts["output"] / "report").mkdir()
        (launch.mounts["output"] / "report" / "report.html").write_text(" ".join(sorted(p.name for p in launch.mounts["input"].iterdir())))
        seen = requests.get(
            launch.environment["XNAT_HOST"] + "/data/auth",
            auth=(launch.environment["XNAT_USER"], launch.environment["XNAT_PASS"]),
            timeout=10,
        )
        launch.stdout = seen.text
        return 0

    liver.containers.runner = run
    container = launch(http, liver, wrapper, kimg="5")
    assert container.wait(10) == "Complete"
    assert container.inputs == {"kimg": "5", "target": "/archive/experiments/XNAT_E00001"}
    assert container.root.label == "CT01"
    assert container.history == ["Created", "Running", "Finalizing", "Complete"]
    assert container.root.find("resources", "MEDGAN_report").read("report.html") == b"ASSESSORS SCANS"
    shown = http.get(f"/xapi/containers/{container.id}").json()
    assert (shown["status"], shown["docker-image"]) == ("Complete", "medgan:1")
    assert container.environment["XNAT_PASS"] not in json.dumps(shown)
    assert http.get(f"/xapi/containers/{container.id}/logs/stdout").text == "User 'admin' is logged in"
    # The token is cancelled when the container is finished.
    assert not liver.accounts.tokens


@pytest.mark.parametrize(("code", "write", "status"), [(65, True, "Failed"), (0, False, "Failed (Upload)")])
def test_results_are_stored_only_after_exit_code_0(http, liver, wrapper, code, write, status):
    def run(launch):
        if write:
            (launch.mounts["output"] / "report").mkdir()
            (launch.mounts["output"] / "report" / "report.html").write_text("x")
        return code

    liver.containers.runner = run
    container = launch(http, liver, wrapper)
    assert container.wait(10) == status
    stored = [file for resource in container.root.of("resources") for file in resource.files()]
    assert stored == []


def test_results_are_merged_into_a_resource_that_is_there(http, liver, wrapper):
    def run(launch):
        report = launch.mounts["output"] / "report"
        (report / "run").mkdir(parents=True)
        (report / "run" / "same.txt").write_text(launch.chosen["kimg"])
        (report / "run" / f"{launch.chosen['kimg']}.txt").write_text("own")
        return 0

    liver.containers.runner = run
    session = liver.archive.projects[0].find("experiments", "CT01")
    session.resource("MEDGAN_report", {"note.txt": b"note", "run/same.txt": b"older"})
    for kimg in ("1", "2"):
        assert launch(http, liver, wrapper, kimg=kimg).wait(10) == "Complete"
    report = session.find("resources", "MEDGAN_report")
    assert {name: report.read(name) for name in report.files()} == {
        "note.txt": b"note",
        "run/1.txt": b"own",
        "run/2.txt": b"own",
        "run/same.txt": b"2",
    }


@pytest.mark.parametrize("value", ["T1 (post)", "a;b", "a&&b", "a||b", "`a`"])
def test_an_illegal_string_ends_a_launch(http, liver, wrapper, value):
    container = launch(http, liver, wrapper, kimg=value)
    assert container.wait(10) == "Failed (Command resolution)"
    # It never became a container; only the workflow knows.
    assert http.get("/xapi/containers").json() == []
    assert http.get(f"/data/workflows/{container.id}").json()["items"][0]["data_fields"]["status"] == "Failed (Command resolution)"


def test_a_launch_answers_success_whatever_is_wrong(http, liver):
    assert http.post("/xapi/projects/LIVER/wrappers/999/root/session/launch", json={}).json()["status"] == "success"
    assert liver.containers.launches == []


def test_a_wrapper_that_is_not_enabled_for_the_project_fails(http, liver):
    id = http.post("/xapi/commands", json=COMMAND).json()
    http.put(f"/xapi/commands/{id}/wrappers/session/enabled")
    wrapper = http.get(f"/xapi/commands/{id}").json()["xnat"][0]["id"]
    assert launch(http, liver, wrapper).wait(10) == "Failed (Command resolution)"


def test_a_bulk_launch_starts_a_container_for_each(http, liver, wrapper):
    roots = json.dumps(["/archive/experiments/XNAT_E00001", "/archive/experiments/XNAT_E00003"])
    report = http.post(f"/xapi/projects/LIVER/wrappers/{wrapper}/root/session/bulklaunch", json={"session": roots}).json()
    assert len(report["successes"]) == 2
    for container in liver.containers.launches:
        container.wait(10)
    assert [container.root.label for container in liver.containers.launches] == ["CT01", "CT02"]


def test_an_image_brings_its_commands(http, liver):
    liver.containers.images["hospital/medgan:2"] = [COMMAND, {**COMMAND, "name": " "}]
    assert http.post("/xapi/docker/pull?image=none:1&save-commands=true").status_code == 404
    for _ in range(2):  # the second time the command is there already, which is no error
        assert http.post("/xapi/docker/pull?image=hospital/medgan:2&save-commands=true").status_code == 200
    assert [(c["name"], c["image"]) for c in http.get("/xapi/commands").json()] == [("train", "hospital/medgan:2")]


def test_a_killed_container_leaves_no_results(http, liver, wrapper):
    def run(launch):
        (launch.mounts["output"] / "report").mkdir()
        (launch.mounts["output"] / "report" / "report.html").write_text("x")
        assert launch.killed.wait(10)
        return 0

    liver.containers.runner = run
    container = launch(http, liver, wrapper)
    deadline = time.monotonic() + 10
    while container.status != "Running" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert http.post(f"/xapi/containers/{container.id}/kill").status_code == 200
    assert container.wait(10) == "Killed"
    assert container.root.of("resources") == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.update(image=""), "image cannot be blank"),
        (lambda c: c.update(visibility="Public"), "visibility"),
        (lambda c: c["mounts"].append({"name": "input", "path": "/x"}), "used twice"),
        (lambda c: c["mounts"].append({"name": "work"}), "no path"),
        (lambda c: c["inputs"].append({"name": "a b", "type": "string"}), "characters"),
        (lambda c: c["inputs"].append({"name": "a", "type": "select-one"}), "select-values"),
        (lambda c: c["inputs"].append({"name": "a", "type": "select-one", "select-values": ["x"], "default-value": "y"}), "default"),
        (lambda c: c["outputs"].append({"name": "o", "mount": "none"}), "no mount"),
        (lambda c: c["outputs"].append({"name": "o", "mount": "output"}), "no handler"),
        (lambda c: c["xnat"][0]["external-inputs"][0].update(type="session"), "unknown type"),
        (lambda c: c["xnat"][0]["derived-inputs"][0].update({"derived-from-wrapper-input": "later"}), "parent"),
        (lambda c: c["xnat"][0]["output-handlers"][0].update(label=""), "label"),
        (lambda c: c["xnat"][0]["output-handlers"][0].update({"as-a-child-of": "nobody"}), "parent"),
    ],
)
def test_a_command_is_checked_as_xnat_checks_it(http, change, reason):
    command = copy.deepcopy(COMMAND)
    change(command)
    answer = http.post("/xapi/commands", json=command)
    assert (answer.status_code, reason in answer.text) == (400, True), answer.text


def test_an_unknown_input_type_silently_becomes_string(http):
    command = {**COMMAND, "inputs": [{"name": "n", "type": "integer"}, COMMAND["inputs"][1]]}
    id = http.post("/xapi/commands", json=command).json()
    assert http.get(f"/xapi/commands/{id}").json()["inputs"][0]["type"] == "string"


@pytest.mark.parametrize(
    ("level", "uri", "mounted"),
    [
        ("project", "/archive/projects/LIVER", {"CT01", "CT02"}),
        ("session", "/archive/experiments/XNAT_E00001", {"SCANS", "ASSESSORS"}),
        ("scan", "/archive/experiments/XNAT_E00001/scans/2", {"DICOM", "SNAPSHOTS"}),
    ],
)
def test_our_own_command_file_is_taken_and_launched_at_each_level(http, liver, level, uri, mounted):
    command = json.loads((Path(__file__).parents[2] / "xnat-command.json").read_text())
    id = http.post("/xapi/commands", json=command).json()
    [wrapper] = [w for w in http.get(f"/xapi/commands/{id}").json()["xnat"] if w["name"] == level]
    for place in ("/xapi", "/xapi/projects/LIVER"):
        http.put(f"{place}/commands/{id}/wrappers/{level}/enabled")

    def run(launch):
        for output in launch.command["outputs"]:
            folder = launch.mounts[output["mount"]] / output["path"]
            folder.mkdir()
            (folder / "x.txt").write_text(output["name"])
        return 0

    liver.containers.runner = run
    http.post(f"/xapi/projects/LIVER/wrappers/{wrapper['id']}/root/{level}/launch", json={level: uri})
    [container] = liver.containers.launches
    assert container.wait(10) == "Complete", container.why
    assert container.inputs["target"] == uri
    assert {path.name for path in container.mounts["input"].iterdir()} >= mounted
    # The untouched form: each input has the default of the command file.
    fed = {i.get("provides-value-for-command-input") for i in wrapper["external-inputs"] + wrapper["derived-inputs"]}
    assert {i["name"]: container.inputs[i["name"]] for i in command["inputs"] if i["name"] not in fed} == {
        i["name"]: i.get("default-value") or "" for i in command["inputs"] if i["name"] not in fed
    }
    results = {r.label: [path.read_text() for path in r.files().values()] for r in container.root.of("resources")}
    outputs = {handler["label"]: [handler["accepts-command-output"]] for handler in wrapper["output-handlers"]}
    assert {label: results[label] for label in outputs} == outputs
