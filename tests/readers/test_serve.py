"""`medgan readers serve` as a process: many readers at once, a kill in the middle, and what makes it stop before it starts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from medgan.cli import main
from medgan.readers import guard
from medgan.readers.app import COOKIE
from medgan.readers.design import Design
from medgan.readers.store import Store, default_url
from medgan.readers.study import Study
from tests.conftest import ROOT
from tests.readers.served import Served, postgresql
from tests.readers.studies import study as made_study

DESIGN = Design(name="graded", likert=True, real=10, fake=10)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path) -> Iterator[str]:
    """What stands behind --database, empty for the default."""
    if request.param == "sqlite":
        yield ""
        return
    with postgresql() as url:
        yield url


class Crowd:
    """Readers of a study, all at once.

    Attributes:
        acknowledged: (reader, item) -> the answer and grade that the server said it has saved.
    """

    def __init__(self, study: Study, database: str, readers: int) -> None:
        self.study = study
        store = Store(database or default_url(study.folder), study.id)
        self.tokens = {f"R{n}": store.invite(f"R{n}", days=1) for n in range(readers)}
        for code in self.tokens:
            store.begin(code, role="Radiologist", years=1)
        store.close()
        self.acknowledged: dict[tuple[str, str], tuple[str, int]] = {}

    def answer(self, url: str, items: int) -> None:
        """Every reader answers up to so many items, the first one sent twice at the same time, or until the server is gone."""
        asyncio.run(self.answering(url, items))

    async def answering(self, url: str, items: int) -> None:
        limits = httpx.Limits(max_connections=len(self.tokens), max_keepalive_connections=len(self.tokens))
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            await asyncio.gather(*(self._one(client, code, items) for code in self.tokens))

    async def _one(self, client: httpx.AsyncClient, code: str, items: int) -> None:
        headers = {"cookie": f"{COOKIE}={self.tokens[code]}", "x-csrf-token": guard.csrf(self.tokens[code])}
        for place, (_, item) in enumerate(self.study.order(code)[:items]):
            answer, likert = ("real", "fake")[(place + len(code)) % 2], place % 5 + 1
            value = {"item": item, "answer": answer, "likert": likert, "milliseconds": place}
            while True:
                try:
                    replies = await asyncio.gather(*(client.post("/answer", json=value, headers=headers) for _ in range(1 if place else 2)))
                    break
                except httpx.ConnectError:
                    return
                except httpx.TransportError:
                    # An idle connection that the server closed just then: sent again, as the page does.
                    continue
            assert [reply.json() for reply in replies] == [{"saved": item}] * len(replies)
            self.acknowledged[code, item] = (answer, likert)

    def saved(self, database: str) -> dict[tuple[str, str], tuple[str, int]]:
        store = Store(database or default_url(self.study.folder), self.study.id, create=False)
        rows = store.answers()
        store.close()
        assert all(one.changes == 0 for one in rows)
        found = {(one.reader, one.item): (one.answer, one.likert) for one in rows}
        assert len(found) == len(rows)
        return found


def words(database: str) -> list[str]:
    return ["--database", database] if database else []


def test_200_readers_at_once_lose_and_double_no_answer(tmp_path, database):
    crowd = Crowd(made_study(tmp_path / "study", DESIGN), database, readers=200)
    with Served(tmp_path / "study", *words(database)) as server:
        crowd.answer(server.url, items=5)
        assert len(server.answers().splitlines()) == 1 + 1000
    assert len(crowd.acknowledged) == 1000
    assert crowd.saved(database) == crowd.acknowledged


def test_a_server_killed_in_the_middle_loses_no_acknowledged_answer(tmp_path, database):
    crowd = Crowd(made_study(tmp_path / "study", DESIGN), database, readers=10)
    with Served(tmp_path / "study", *words(database)) as server:

        async def killed() -> None:
            reading = asyncio.create_task(crowd.answering(server.url, items=10))
            while len(crowd.acknowledged) < 40:
                await asyncio.sleep(0.001)
            server.process.send_signal(signal.SIGKILL)
            await reading

        asyncio.run(killed())
    acknowledged = dict(crowd.acknowledged)
    assert 40 <= len(acknowledged) < 100
    saved = crowd.saved(database)
    assert saved.items() >= acknowledged.items()
    with Served(tmp_path / "study", *words(database)) as server:
        crowd.answer(server.url, items=10)  # from the first image on: what is there already is no change
    assert crowd.saved(database) == crowd.acknowledged
    assert len(crowd.acknowledged) == 100


def test_it_ends_at_ctrl_c_and_at_sigterm(tmp_path):
    made_study(tmp_path / "study", DESIGN)
    with Served(tmp_path / "study") as server:
        assert server.stop(signal.SIGINT) == 0
    with Served(tmp_path / "study", "--url", "https://readers.example.org/") as server:
        assert server.admin.startswith("https://readers.example.org/admin/i/")
        assert server.stop(signal.SIGTERM) == 75


@pytest.fixture
def run(capsys):
    """Gives exit code and last line, without the fix, of `medgan readers serve` with these words."""

    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(["readers", "serve", *map(str, arguments)])
        said = capsys.readouterr()
        assert said.out == ""
        return stop.value.code, said.err.splitlines()[-1].partition("; fix: ")[0]

    return run


def test_what_cannot_be_served_is_one_line(tmp_path, run, monkeypatch):
    folder = made_study(tmp_path / "study", DESIGN).folder
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(folder, "--port", port) == (2, f"ERROR E_CONFIG port {port} is in use")
    assert run(folder, "--port", 70000) == (2, "ERROR E_CONFIG --port 70000 is not between 0 and 65535")
    assert run(folder, "--host", "192.0.2.1", "--url", "http://x") == (2, "ERROR E_CONFIG --host is no address of this machine")
    assert run(folder, "--url", "readers.example.org", "--port", 0) == (2, "ERROR E_CONFIG --url is no address")
    assert run(folder, "--host", "0.0.0.0")[1] == (
        "ERROR E_CONFIG --host lets other machines in, and links need the name under which they find this one"
    )
    assert run(tmp_path / "nothing") == (66, "ERROR E_INPUT there is no study.json in the study's folder")
    assert run(folder, "--port", 0, "--database", "mysql://a:planted-secret@127.0.0.1/x")[0] == 2
    monkeypatch.setenv("MEDGAN_DATABASE", "postgresql://erika:planted-secret@127.0.0.1:1/x")
    assert run(folder, "--port", 0) == (66, "ERROR E_DATABASE --database cannot be reached or opened")


def test_without_the_extra_the_line_says_how_to_install_it(tmp_path: Path):
    made_study(tmp_path / "study", DESIGN)
    missing = tmp_path / "missing" / "sqlalchemy"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text("raise ModuleNotFoundError(name='sqlalchemy')")
    paths = os.pathsep.join([str(missing.parent), str(ROOT)])
    command = [sys.executable, "-m", "medgan", "readers", "serve", str(tmp_path / "study")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "the package sqlalchemy is not installed, which reader studies need; fix: pip install 'medgan[readers]'"
    )
