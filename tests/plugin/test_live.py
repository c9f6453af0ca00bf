"""What is sent while a training runs, and that nothing that goes wrong there reaches the training."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medgan.errors import InputError, PrivacyError
from plugin import live
from plugin.credentials import Site
from plugin.live import Live
from plugin.results import checkpoint_files, newest_state
from plugin.target import target_of
from tests.plugin.sites import connect, liver, site_of
from tests.xnat_server import XnatServer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / "run"
    (folder / "checkpoint").mkdir(parents=True)
    return folder


def step(run: Path, kimg: float, *, status: str = "running", state: bytes = b"") -> None:
    """What a tick of a training leaves."""
    (run / "status.json").write_text(json.dumps({"status": status, "kimg": kimg}))
    if state:
        (run / "config.json").write_text("{}")
        part = run / "checkpoint" / "part"
        part.write_bytes(state)
        part.replace(run / "checkpoint" / "state.pt")


def watch(xnat: XnatServer, run: Path, **who: str) -> Live:
    return Live(site_of(xnat, **who), target_of("projects/LIVER"), run, "run-7", 0.05)


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def files(xnat: XnatServer, label: str) -> dict[str, bytes]:
    found = [node for node in xnat.project("LIVER").of("resources") if node.label == label]
    return {name: path.read_bytes() for node in found for name, path in node.files().items()}


def states(xnat: XnatServer) -> list[bytes]:
    return [data for name, data in files(xnat, "MEDGAN_CHECKPOINT").items() if name.endswith(".pt")]


def test_status_and_newest_state_are_in_xnat_while_a_training_runs(xnat: XnatServer, run: Path):
    liver(xnat)
    with watch(xnat, run):
        step(run, 1, state=b"first")
        until(lambda: states(xnat) == [b"first"])
        assert json.loads(files(xnat, "MEDGAN_REPORT")["run-7/status.json"])["kimg"] == 1
        time.sleep(1.1)  # names of states have seconds
        step(run, 2, state=b"second")
        until(lambda: states(xnat) == [b"second"])
    assert "run-7/config.json" in files(xnat, "MEDGAN_CHECKPOINT")
    # Killed or stopped at a budget: the state stays, for another run to go on from.
    assert states(xnat) == [b"second"]


def test_what_has_not_changed_is_not_sent_again(xnat: XnatServer, run: Path):
    liver(xnat)
    step(run, 1, state=b"first")
    with watch(xnat, run):
        until(lambda: states(xnat) == [b"first"])
        time.sleep(0.3)
    assert len(xnat.asked("PUT", "*/files/*")) == 3  # status, settings, state


def test_a_run_launched_again_under_its_name_has_newer_states_than_the_one_it_ended_with(xnat: XnatServer, run: Path):
    def newest() -> str:
        with connect(xnat, InputError) as connection:
            found = {file.name: file.md5 for file in checkpoint_files(connection, target_of("projects/LIVER"))}
        return newest_state(found, "", lambda name: found.get(name, ""))

    def sent(state: bytes) -> str:
        with watch(xnat, run):
            step(run, 1, state=state)
            until(lambda: state in states(xnat))
        return next(name for name, data in files(xnat, "MEDGAN_CHECKPOINT").items() if data == state)

    liver(xnat)
    assert sent(b"on the way") == newest()
    checkpoint = xnat.project("LIVER").resource("MEDGAN_CHECKPOINT", {"run-7/state.pt": b"at its time budget"})
    assert newest() == "run-7/state.pt"
    # Launched again, and killed. Fewer images may have been seen: it may have begun anew, on purpose.
    time.sleep(1.1)  # names of states have seconds
    assert sent(b"of the second launch") == newest() != "run-7/state.pt"
    checkpoint.store("run-7/state.pt", b"at the second's budget", overwrite=True)
    assert newest() == "run-7/state.pt"
    assert len(states(xnat)) == 2


def test_where_the_first_weights_came_from_is_sent_with_a_state(xnat: XnatServer, run: Path):
    liver(xnat)
    (run / "pretrained.json").write_text('{"licence": "planted"}')
    with watch(xnat, run):
        step(run, 1, state=b"first")
        until(lambda: states(xnat) == [b"first"])
    assert {"run-7/config.json", "run-7/pretrained.json"} < set(files(xnat, "MEDGAN_CHECKPOINT"))


@pytest.mark.parametrize("refused", [False, True])
def test_a_state_nobody_needs_or_may_have_is_removed(xnat: XnatServer, run: Path, refused: bool):
    liver(xnat).resource("MEDGAN_CHECKPOINT", {"run-6/state.pt": b"another run's", "run-7/state.pt": b"not sent by this"})
    with contextlib.suppress(PrivacyError), watch(xnat, run):
        step(run, 1, state=b"first")
        until(lambda: b"first" in states(xnat))
        if refused:
            raise PrivacyError("3 of 5 images are near copies")
        step(run, 2, status="complete")
    assert sorted(files(xnat, "MEDGAN_CHECKPOINT")) == ["run-6/state.pt", "run-7/state.pt"]


@pytest.mark.parametrize("fault", ["reset", "502", "login_page", "expired", "no_edit_right", "reset_after", "truncated"])
def test_a_failure_is_one_line_and_the_next_time_may_work(xnat: XnatServer, run: Path, fault: str, caplog: pytest.LogCaptureFixture):
    liver(xnat)
    xnat.faults.add(fault, "/data/projects/*", times=2)
    step(run, 1, state=b"first")
    with caplog.at_level(logging.INFO, "medgan"), watch(xnat, run):
        until(lambda: states(xnat) == [b"first"])
    lines = [record.getMessage() for record in caplog.records if record.name == "medgan.xnat"]
    assert len(lines) <= 2  # one for each of the two that went wrong
    assert all(line.startswith("XNAT: sending the status failed, the training goes on: ") for line in lines)
    assert not [line for line in lines if xnat.password in line or xnat.url in line]


def test_a_site_that_is_gone_is_said_once_and_costs_the_training_nothing(run: Path, caplog: pytest.LogCaptureFixture):
    step(run, 1)
    with (
        caplog.at_level(logging.INFO, "medgan"),
        Live(Site(host="http://127.0.0.1:9", user="u", password="planted"), target_of("projects/P"), run, "", 0.05),
    ):
        time.sleep(0.5)
    assert [record.getMessage() for record in caplog.records if record.name == "medgan.xnat"] == [
        "XNAT: sending the status failed, the training goes on: the XNAT site cannot be reached, or breaks the connection off, while signing in"
    ]


def test_the_end_of_a_training_waits_for_no_upload(
    xnat: XnatServer, run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    liver(xnat)
    monkeypatch.setattr(live, "SECONDS_TO_END", 0.3)
    xnat.faults.add("slow", "*/files/*", method="PUT", seconds=3.0, times=-1)
    step(run, 1, state=b"state" * 1000)
    started = time.monotonic()
    with caplog.at_level(logging.INFO, "medgan"):
        with watch(xnat, run):
            until(lambda: xnat.asked("PUT", "*/files/*"))
        assert time.monotonic() - started < 2.5
        time.sleep(3.5)
    # And after the last line of a job no other one comes.
    assert not [record for record in caplog.records if record.name == "medgan.xnat"]


def test_an_upload_that_is_under_way_is_broken_off(xnat: XnatServer, run: Path):
    stop = threading.Event()
    path = run / "big"
    path.write_bytes(b"x" * 100_000)
    with path.open("rb") as file:
        stream = live._Stream(file, 100_000, stop)
        assert len(stream.read(1000)) == 1000
        stop.set()
        with pytest.raises(live._Stopped):
            stream.read(1000)
