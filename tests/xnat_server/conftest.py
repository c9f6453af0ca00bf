"""A server with something in it, and a client that knows nothing of XNAT but its paths."""

from __future__ import annotations

import pytest
import requests

from tests.xnat_server import XnatServer

CT = {"1-01.dcm": b"\x01" * 1000, "1-02 b.dcm": b"\x02" * 3000}


@pytest.fixture
def liver(xnat: XnatServer) -> XnatServer:
    """A server with one project: a CT session of two scans, a ROI collection, a reader who may not write."""
    project = xnat.project("LIVER")
    session = project.session("CT01", subject="P01", modality="CT", date="2024-01-31")
    session.scan("2", type="Abdomen", series_description="Abd 3.0", files={"DICOM": CT, "SNAPSHOTS": {"t.gif": b"gif"}})
    session.scan("3", type="Scout", files={"DICOM": {"s.dcm": b"s"}})
    session.assessor("ROI1", files={"RTSTRUCT": {"roi.dcm": b"roi"}})
    project.session("CT02", subject="P02", modality="CT")
    xnat.accounts.add("reader", "reader-password")
    project.members["reader"] = "collaborator"
    return xnat


@pytest.fixture
def http(liver: XnatServer) -> requests.Session:
    """A client logged in as administrator, with plain paths."""
    client = Client(liver.url)
    assert client.put("/data/services/auth", data={"username": liver.user, "password": liver.password}).status_code == 200
    return client


class Client(requests.Session):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def request(self, method, url, **more):  # type: ignore[no-untyped-def]
        return super().request(method, self.url + url, timeout=10, **more)

    def rows(self, path: str) -> list[dict[str, str]]:
        return self.get(path).json()["ResultSet"]["Result"]
