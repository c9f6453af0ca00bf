"""A real Orthanc with its DICOMweb plugin for the tests, and a way to it that can be broken.

Debian: apt-get install --no-install-recommends orthanc orthanc-dicomweb. `ORTHANC` is the path of one that must be there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import pytest
import requests

from tests.xnat_server.web import Answer, Fault, Request, Web

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "erika", "planted-secret-of-érika"


def program() -> str:
    """The path of Orthanc; where it is not, the test is skipped, or fails if it was asked for."""
    asked = os.environ.get("ORTHANC", "")
    found = shutil.which(asked or "/usr/sbin/Orthanc")  # which is in root's PATH only
    if found and PLUGIN.exists():
        return found
    reason = "no Orthanc with DICOMweb: apt-get install --no-install-recommends orthanc orthanc-dicomweb"
    if asked:
        pytest.fail(reason)
    pytest.skip(reason)


class Orthanc:
    """Starts in a folder of its own on a free port of loopback; `url` is where DICOMweb lies.

    Args:
        folder: For its database.
        settings: Further settings.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        executable = program()
        folder.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = {
            "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "Plugins": [str(PLUGIN)], "HttpPort": port,
            "DicomServerEnabled": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, **settings,
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(config))
        self.site = f"http://127.0.0.1:{port}"
        self.url = f"{self.site}/dicom-web"
        self.session = requests.Session()
        self.session.auth = (USER.encode(), PASSWORD.encode())
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen([executable, str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
        for _ in range(200):
            try:
                self.session.get(f"{self.site}/system", timeout=1)
                return
            except requests.ConnectionError:
                time.sleep(0.05)
        self.close()
        pytest.fail(f"Orthanc does not answer: {(folder / 'log').read_text()[-500:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.session.close()
        self.process.kill()
        self.process.wait()

    def store(self, files: Iterable[Path]) -> None:
        """Files of DICOM, as Orthanc's own REST takes them."""
        for path in files:
            self.session.post(f"{self.site}/instances", data=path.read_bytes(), timeout=20).raise_for_status()


class Between:
    """A proxy before a DICOMweb server, on loopback: `faults` says what breaks, `requests` what was asked (tests/xnat_server/web.py).

    Args:
        origin: The server.
        certificate: Of HTTPS, with its key. Not Orthanc's own: Debian's ends with a segmentation fault when asked.

    Attributes:
        status: Answers this instead, where it is not 0.
        page: How many rows the server gives at most, where it is not 0.
        ignored: Parameters that the server disregards.
        exchange: Paths answered with the content of another.
        body: Answered to every retrieval, where it is not empty: content and its type.
    """

    def __init__(self, origin: Orthanc, certificate: Path | None = None) -> None:
        self.origin = origin
        self.status, self.page = 0, 0
        self.ignored: tuple[str, ...] = ()
        self.exchange: dict[str, str] = {}
        self.body: tuple[bytes, str] | None = None
        self._web = Web(self._answer, "127.0.0.1", 0)
        self.faults, self.requests = self._web.faults, self._web.requests
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._web.socket = context.wrap_socket(self._web.socket, server_side=True)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self._web.server_port}/dicom-web"
        self._thread = threading.Thread(target=self._web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._web.shutdown()
        self._web.server_close()
        self._thread.join()

    def retrieved(self) -> list[str]:
        """The paths of instances or whole series that were asked for, below the server's address."""
        return [request.path.removeprefix("/dicom-web/") for request in self.requests if "multipart" in request.headers.get("Accept", "")]

    def _answer(self, request: Request, fault: Fault | None) -> Answer:
        if self.status:
            return Answer.text("planted words of erika", self.status)
        if self.body and "multipart" in request.headers.get("Accept", ""):
            return Answer(200, *self.body)
        query = {name: value for name, value in request.query.items() if name not in self.ignored}
        if self.page:
            query["limit"] = str(self.page)
        path = self.exchange.get(request.path, request.path)
        words = "&".join(f"{name}={value}" for name, value in query.items())
        headers = {name: request.headers[name] for name in ("Accept", "Authorization") if name in request.headers}
        answer = requests.get(f"{self.origin.site}{path}?{words}", headers=headers, timeout=20)
        return Answer(answer.status_code, answer.content, answer.headers.get("Content-Type", "text/plain"))
