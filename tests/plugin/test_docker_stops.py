"""Containers that are stopped: by a scheduler's signal, a budget, the kernel's memory killer, a full disk. What comes after goes on from there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medgan import runs
from tests.plugin.containers import SMALL, UID, Answer, Place, Running, Unbroken, half_written

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

USER = f"{UID}:{UID}"


def finished(place: Place, unbroken: Unbroken, **request: Any) -> Answer:
    """The same command again, to its end: it goes on, and the results are those of a run that nobody disturbed."""
    answer = place(["train"], env=SMALL, user=USER, **request)
    assert answer.code == 0, answer.err
    assert answer.last.startswith("RESULT status=complete kimg=0.1 ")
    assert half_written(place.output) == []
    assert place.results() == unbroken.results
    return answer


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGUSR1"])
def test_a_signal_saves_the_state_and_a_second_container_goes_on(filled: Place, unbroken: Unbroken, signal: str):
    with filled.started(["train"], env=SMALL, user=USER, work=True) as container:
        filled.wait_for_state(container)
        container.kill(signal)
        answer = container.end()
    assert answer.code == 75, answer.err
    told = re.fullmatch(r"RESULT status=preempted kimg=(0\.\d+)", answer.last)
    assert told, answer.last
    assert 0.004 <= float(told[1]) < 0.1
    assert half_written(filled.output) == []
    # It goes on where it was: no tick of the first step is shown again.
    assert "0.004/0.1" not in finished(filled, unbroken, work=True).said("kimg")


def test_a_signal_before_the_first_step(filled: Place):
    with filled.started(["train"], env=SMALL, user=USER, work=True) as container:
        while not any(filled.work.iterdir()):
            assert container.runs()
        container.kill("SIGTERM")
        answer = container.end()
    assert (answer.code, answer.last) == (75, "RESULT status=preempted")


def test_a_budget_fills_the_checkpoint_and_the_next_container_goes_on_from_it(filled: Place, unbroken: Unbroken):
    # No scratch outlives a container here: /output/checkpoint is all that the second has of the first.
    first = filled(["train"], env=SMALL | {"MEDGAN_TIME_BUDGET": "0.1s"}, user=USER)
    assert first.code == 0, first.err
    assert first.last.startswith("RESULT status=partial kimg=0.004 ")
    assert {"state.pt", "config.json", "stats.jsonl", "bundle"} <= {path.name for path in (filled.output / "checkpoint").iterdir()}
    assert half_written(filled.output) == []
    second = finished(filled, unbroken)
    assert second.said("kimg") == ["0.1/0.1"]
    # The curves are whole, and nothing is left to resume.
    assert [row["kimg"] for row in runs.read_json_lines(filled.output / "metrics/stats.jsonl")] == [0.004, 0.1]
    assert [path.name for path in (filled.output / "checkpoint").iterdir()] == ["README.txt"]


def test_the_memory_killer(filled: Place, unbroken: Unbroken):
    with filled.started(["train"], env=SMALL, user=USER, work=True, Memory=3 * 2**30, ShmSize=4 * 2**30) as container:
        filled.wait_for_state(container)
        # Shared memory counts as the container's: when it is full, the kernel ends the largest process.
        fill = filled.api.exec_create(container.id, ["dd", "if=/dev/zero", "of=/dev/shm/fill", "bs=1M", "count=3500"])["Id"]
        with contextlib.suppress(Exception):
            filled.api.exec_start(fill)
        answer = container.end()
    assert answer.code == 137
    assert answer.state["OOMKilled"]
    assert half_written(filled.output) == []
    finished(filled, unbroken, work=True)


class Disk:
    """A volume in memory that is as small as one likes, and stays while a container that only sleeps holds it."""

    def __init__(self, engine: Any, image: Any, name: str, megabytes: int) -> None:
        options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={megabytes}m,uid={UID},gid={UID}"}
        self.volume = engine.volumes.create(name, driver="local", driver_opts=options)
        body = {"Image": image.id, "Entrypoint": ["sleep"], "Cmd": ["600"], "HostConfig": {"Binds": [f"{name}:/disk"]}}
        self.holder = Running(engine.api, body)
        self.path = Path(self.volume.attrs["Mountpoint"])

    def fill(self) -> None:
        with contextlib.suppress(OSError), (self.path / "fill").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))

    def free(self) -> None:
        (self.path / "fill").unlink()

    def remove(self) -> None:
        self.holder.remove()
        self.volume.remove(force=True)


@pytest.fixture
def disk(engine: Any, image: Any) -> Iterator[Disk]:
    disk = Disk(engine, image, "medgan-test-disk", 200)
    yield disk
    disk.remove()


def test_scratch_that_fills_up_while_training(filled: Place, disk: Disk, unbroken: Unbroken):
    filled.work, filled.sources["/work"] = disk.path, disk.volume.name
    with filled.started(["train"], env=SMALL, user=USER, work=True) as container:
        filled.wait_for_state(container)
        before = runs.sha256(filled.state)
        disk.fill()
        answer = container.end()
    assert answer.code == 74, answer.err
    assert answer.last.startswith("ERROR E_DISK ")
    assert "fix: " in answer.last
    assert runs.sha256(filled.state) == before
    assert half_written(filled.output) == []
    disk.free()
    finished(filled, unbroken, work=True)


def test_results_that_find_no_room(filled: Place, disk: Disk, unbroken: Unbroken):
    filled.output, filled.sources["/output"] = disk.path, disk.volume.name
    with filled.started(["train"], env=SMALL, user=USER, work=True) as container:
        filled.wait_for_state(container)
        disk.fill()
        answer = container.end()
    assert answer.code == 74, answer.err
    assert answer.last.startswith("ERROR E_DISK ")
    disk.free()
    assert half_written(filled.output) == []
    finished(filled, unbroken, work=True)


def test_a_disk_that_never_had_room_is_said_before_the_first_step(filled: Place, engine: Any, image: Any):
    answer = filled(["train"], env=SMALL, user=USER, Tmpfs={"/work": f"size=3m,uid={UID}"})
    assert answer.code == 74, answer.err
    assert answer.last.startswith("ERROR E_DISK ")
    assert answer.said("kimg") == []
