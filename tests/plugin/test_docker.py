"""The image in a real engine, as XNAT and a careful administrator start it: `scripts/engine up && scripts/engine build` come before.

The engine has no bridge, so no container here has a network, and what it needs is in the image or mounted.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from medgan.weights import KNOWN
from plugin.container import RESOURCES
from tests.plugin.containers import HARDENED, SMALL, UID, Place, half_written

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

# What XNAT sets, with marks to look for afterwards. The session's label names a patient, as labels do.
PLANTED = {"XNAT_HOST": "http://planted-host", "XNAT_USER": "planted-alias", "XNAT_PASS": "planted-secret"}
XNAT = PLANTED | {"XNAT_WORKFLOW_ID": "77", "XNAT_EVENT_ID": "78"}
SESSION = "Erika_CT_2019"


def form(command: dict[str, Any], **values: str) -> dict[str, str]:
    """The variables of a launch: all that the command names, blank where the form is blank."""
    return dict.fromkeys(command["environment-variables"], "") | XNAT | values


def limits(command: dict[str, Any]) -> dict[str, Any]:
    """The rest of XNAT's HostConfig, with an administrator's limits."""
    return {
        "Runtime": command["runtime"],
        "ShmSize": command["shm-size"],
        "IpcMode": "private",
        "NanoCpus": 2 * 10**9,
        "Memory": 4 * 2**30,
        "MemoryReservation": 2**30,
    }


def leaks(place: Place, said: list[str], *names: str) -> list[str]:
    """Which planted values stand anywhere in results, scratch or log."""
    found = place.text(place.output, place.work) + "\n".join(said).encode()
    return [name for name in (*PLANTED.values(), *names) if name.encode() in found]


def test_an_empty_input_under_an_unknown_uid(place: Place):
    place.give_to(UID)
    answer = place(["train"], user=f"{UID}:{UID}", **HARDENED)
    assert (answer.code, answer.out) == (66, [])
    assert len(answer.err) <= 13
    assert "uid:gid 12345:12345 (no passwd entry)" in "\n".join(answer.err)
    assert [line.split()[1] for line in answer.err if line.startswith(("input ", "output "))] == ["ro", "rw"]
    assert f"weights {len(KNOWN)} found" in answer.err
    assert answer.last.startswith("ERROR E_INPUT /input is empty; fix: ")
    assert json.loads((place.output / "report/error.json").read_text())["exit_code"] == 66


def test_an_output_of_somebody_else(place: Place):
    answer = place(["train"], user=f"{UID}:{UID}", **HARDENED)
    assert answer.code == 73
    assert answer.err == [
        "ERROR E_OUTPUT uid 12345 cannot write /output (owner 0, mode 0755, Permission denied); fix: --user 0:0, or make the folder writable"
    ]


def test_a_left_over_key_explains_itself(place: Place):
    answer = place(["train"], env={"MEDGAN_KIMG": "#kimg#"})
    assert answer.code == 2
    assert answer.last.startswith("ERROR E_CONFIG MEDGAN_KIMG is still #kimg#")
    assert not list(place.output.iterdir())


def test_a_failure_as_xnat_meets_it_keeps_the_token_to_itself(place: Place, command: dict[str, Any]):
    answer = place(["python -m plugin train"], entry="", env=form(command), **limits(command))
    assert answer.code == 66
    assert any(line.startswith("/dev/shm 2.0 of 2.0 GiB") for line in answer.err)
    assert leaks(place, answer.out + answer.err) == []
    assert json.loads((place.output / "report/run-77/error.json").read_text())["exit_code"] == 66


@pytest.mark.slow
@pytest.mark.parametrize("override", [False, True])
def test_a_session_trained_on_as_xnat_starts_it(place: Place, command: dict[str, Any], override: bool):
    place.fill(f"{SESSION}/SCANS/1/NIFTI/files")
    place.give_to(UID)
    env = form(command, **SMALL | {"MEDGAN_PRIVACY": "gate"})
    line = command["command-line"]
    answer = place(
        [f"python -m plugin {line}" if override else line], entry="" if override else None, env=env, user=str(UID), **limits(command)
    )
    assert answer.code == 0, answer.err
    assert answer.last.startswith("RESULT status=complete kimg=0.1 ")
    # XNAT takes every child of each folder, and calls an empty one an error.
    for name in RESOURCES:
        assert [path.name for path in (place.output / name).iterdir()] == ["run-77"]
        assert any((place.output / name / "run-77").iterdir())
    assert half_written(place.output) == []
    assert leaks(place, answer.out + answer.err, SESSION, "Erika") == []


@pytest.mark.slow
def test_scans_to_results_without_network_home_or_rights(filled: Place, engine: Any):
    with filled.started(["train"], env=SMALL, user=f"{UID}:{UID}", **HARDENED) as container:
        answer = container.end()
        stamped = engine.api.logs(container.id, stdout=False, timestamps=True).decode().splitlines()
    assert answer.code == 0, answer.err
    assert answer.last.startswith("RESULT status=complete")
    for name in RESOURCES:
        files = [path for path in (filled.output / name).rglob("*") if path.is_file()]
        assert files, name
        assert all(path.stat().st_mode & 0o777 == 0o644 for path in files)
    assert (filled.output / "report/report.html").exists()
    # The log says when the first step was done, counted from the start of the process.
    [first] = answer.said("first_step")
    assert first.endswith("s")
    assert 1 <= int(first.removesuffix("s")) <= 60
    assert f"first_step={first}" in (filled.output / "report/run.log").read_text()
    # By the engine's clock too: the line that says so was written within that time of the container's start.
    [said_at] = [line.split()[0] for line in stamped if f"first_step={first}" in line]
    assert 0 < (moment(said_at) - moment(answer.state["StartedAt"])).total_seconds() <= 60


def moment(text: str) -> datetime:
    """A time of the engine, which gives nine digits of a second."""
    return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00")


# What a compiler, or an interpreter that finds no bytecode, leaves behind.
COMPILED = {".so", ".o", ".c", ".cpp", ".cu", ".ptx", ".cubin", ".ttir", ".pyc"}


@pytest.mark.slow
@pytest.mark.parametrize("word", ["check", "train"])
def test_nothing_is_compiled_or_downloaded_or_written_beside_output_and_scratch(filled: Place, engine: Any, word: str):
    request = {"env": SMALL, "user": f"{UID}:{UID}", "work": True, "NetworkMode": "none"}
    with filled.started([word, "--work", "/work"], **request) as container:
        answer = container.end()
        changed = {change["Path"] for change in engine.api.diff(container.id) or []}
    assert answer.code == 0, answer.err
    # Docker's own mount points; no cache, no home.
    assert changed <= {"/input", "/output", "/work"}, changed
    scratch = [path for path in filled.work.rglob("*") if path.is_file()]
    assert scratch
    assert [path.name for path in scratch if path.suffix in COMPILED] == []
    assert not list(Path(filled.input).rglob("*.lock"))
