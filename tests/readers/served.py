"""A reader study served by a process of its own, as `medgan readers serve` does; PostgreSQL; Chromium.

Debian: apt-get install --no-install-recommends chromium postgresql. `CHROMIUM` and `POSTGRES` are the paths of a browser and of a folder with
PostgreSQL's programs that must be there.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx2 as httpx
import pytest
import uvicorn

from medgan.readers.app import make_app
from medgan.readers.store import Store, default_url
from medgan.readers.study import Study
from tests.conftest import ROOT


def program(variable: str, default: str, reason: str) -> str:
    """The path of a program; where it is not, the test is skipped, or fails if it was asked for."""
    asked = os.environ.get(variable, "")
    found = asked or next(iter(sorted(glob.glob(default), reverse=True)), "")
    if found and os.path.exists(found):
        return found
    if asked:
        pytest.fail(reason)
    pytest.skip(reason)


def chromium() -> str:
    return program("CHROMIUM", "/usr/bin/chromium", "no Chromium: apt-get install --no-install-recommends chromium")


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a database on a PostgreSQL of its own, on loopback."""
    programs = program("POSTGRES", "/usr/lib/postgresql/*/bin", "no PostgreSQL: apt-get install --no-install-recommends postgresql")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # It does not run as root, and pytest's folders are their owner's only.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="medgan-pg-") as folder:
        if user:
            shutil.chown(folder, user)

        def run(*words: str) -> None:
            done = subprocess.run(
                words, user=user, cwd=folder, stdout=output, stderr=output, timeout=60, env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
            )
            assert done.returncode == 0, Path(output.name).read_text()

        with open(f"{folder}/output", "w") as output:
            Path(folder, "password").write_text("planted-secret")
            words = ("-U", "erika", "-A", "scram-sha-256", f"--pwfile={folder}/password", "-E", "UTF8", "--no-sync")
            run(f"{programs}/initdb", "-D", f"{folder}/data", *words)
            settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
            run(f"{programs}/pg_ctl", "-D", f"{folder}/data", "-l", f"{folder}/log", "-w", "-o", settings, "start")
            try:
                yield f"postgresql://erika:planted-secret@127.0.0.1:{port}/postgres"
            finally:
                run(f"{programs}/pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")


class Site:
    """A server: `url`, and `admin`, its administrator's link."""

    url: str
    admin: str

    def invite(self, *codes: str) -> list[str]:
        """Links of readers, made on the administrator's page as a person would."""
        with httpx.Client(base_url=self.url, follow_redirects=True) as client:
            shown = client.post("/admin/enter", data={"token": self.admin.rpartition("/")[2]})
            shown = client.post("/admin/invite", data={"csrf": field(shown.text, "csrf"), "codes": " ".join(codes), "days": "60"})
        links = re.findall(r"<code>(.*?)</code>", shown.text)
        assert len(links) == len(codes), shown.text
        return links

    def answers(self) -> str:
        """The CSV of the administrator's page."""
        with httpx.Client(base_url=self.url, follow_redirects=True) as client:
            client.post("/admin/enter", data={"token": self.admin.rpartition("/")[2]})
            return client.get("/admin/answers.csv").raise_for_status().text


class Served(Site):
    """`medgan readers serve` in a process of its own."""

    def __init__(self, study: Path, *words: str) -> None:
        command = [sys.executable, "-m", "medgan", "readers", "serve", str(study), "--port", "0", *words]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            pytest.fail(self.process.communicate()[1][-2000:])
        said = json.loads(line)
        self.url, self.admin = said["url"], said["administrator"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)

    def stop(self, number: int) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate()
        return self.process.returncode


class Threaded(Site):
    """The same application in a thread, without the second that a process takes to start."""

    def __init__(self, study: Study) -> None:
        self.store = Store(default_url(study.folder), study.id)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.admin = f"{self.url}/admin/i/planted-admin"
        app = make_app(study, self.store, url=self.url, admin_token="planted-admin")
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()
        self.store.close()


def field(page: str, name: str) -> str:
    """The value of a hidden field of a page."""
    return re.search(f'name="{name}" value="([^"]*)"', page)[1]


def state(page: str) -> dict[str, Any]:
    """What a page gives to the viewer's script."""
    return json.loads(re.search(r'<script type="application/json" id="state">(.*?)</script>', page, re.S)[1])


ABOUT = {"role": "Radiologist", "years": "12", "consent": "yes"}


def enter(client: httpx.Client, link: str, *, begin: bool = True) -> dict[str, Any]:
    """Go in by a link as a person would, and give the state of the viewer."""
    token = field(client.get(link).text, "token")
    shown = client.post("/enter", data={"token": token})
    if begin and shown.url.path == "/start":
        shown = client.post("/start", data={"csrf": field(shown.text, "csrf"), **ABOUT})
    return state(shown.text)
