"""One connection against the fake XNAT: each way in which a site or a proxy fails, and what a person is told then."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from medgan.errors import InputError, OutputError
from plugin import rest
from plugin.credentials import Site
from plugin.rest import Connection, name_in
from tests.plugin.sites import CT, LABEL, QUICK, connect, liver, site_of
from tests.xnat_server import XnatServer

PASSING = ("reset", "reset_midway", "truncated", "shortened", "502", "504", "login_page", "expired")
FILE = "1.dcm"
SIZE, MD5 = len(CT[FILE]), hashlib.md5(CT[FILE]).hexdigest()


@pytest.fixture
def scan(xnat: XnatServer) -> str:
    """The path of a scan on a seeded server."""
    session = liver(xnat).of("experiments")[0]
    return f"/data/experiments/{session.id}/scans/2"


@pytest.mark.parametrize("fault", PASSING)
def test_a_listing_comes_in_spite_of(xnat: XnatServer, scan: str, fault: str):
    with connect(xnat, InputError) as connection:
        xnat.faults.add(fault, "*/resources", times=1)
        assert {row["label"] for row in connection.rows(f"{scan}/resources")} == {"DICOM", "SNAPSHOTS", "MEDGAN_SYNTHETIC"}
    assert [request.fault for request in xnat.asked("GET", "*/resources")] == [fault, None]


@pytest.mark.parametrize("fault", PASSING)
def test_a_file_comes_whole_in_spite_of(xnat: XnatServer, scan: str, fault: str, tmp_path: Path):
    with connect(xnat, InputError) as connection:
        xnat.faults.add(fault, "*/files/*", times=2 if fault not in ("login_page", "expired") else 1)
        connection.download(f"{scan}/resources/DICOM/files/{FILE}", tmp_path / "file", size=SIZE, md5=MD5)
    assert (tmp_path / "file").read_bytes() == CT[FILE]


@pytest.mark.parametrize("fault", ["reset_after", "504", "login_page", "502", "reset"])
def test_an_upload_is_repeated_until_it_is_there(xnat: XnatServer, scan: str, fault: str):
    project = xnat.project("LIVER")
    with connect(xnat, OutputError) as connection:
        connection.send("put", "/data/projects/LIVER/resources/NEW")
        xnat.faults.add(fault, "*/files/*", method="PUT", times=1)
        connection.upload("/data/projects/LIVER/resources/NEW/files/a%20b.txt", io.BytesIO(b"content"))
    assert project.find("resources", "NEW").read("a b.txt") == b"content"
    # Content length is known, a body in chunks of unknown length is refused by XNAT.
    assert all(request.sized for request in xnat.asked("PUT", "*/files/*") if request.status)


def test_a_wrong_digest_is_found_though_the_size_is_right(xnat: XnatServer, scan: str, tmp_path: Path):
    with (
        connect(xnat, InputError) as connection,
        pytest.raises(InputError, match=r"otherwise than XNAT lists it, while downloading \(4 attempts\)"),
    ):
        connection.download(f"{scan}/resources/DICOM/files/{FILE}", tmp_path / "file", size=SIZE, md5="0" * 32)


def test_a_sign_in_page_is_no_file_though_nothing_is_known_of_it(xnat: XnatServer, scan: str, tmp_path: Path):
    with connect(xnat, InputError) as connection:
        xnat.faults.add("login_page", "*/files/*", times=1)
        connection.download(f"{scan}/resources/DICOM/files/{FILE}", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CT[FILE]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("502", "XNAT or a proxy before it answers 502, while reading (4 attempts)"),
        ("reset", "the XNAT site cannot be reached, or breaks the connection off"),
        ("shortened", "cut off or no JSON"),
        ("login_page", "no longer knows the login, while reading (2 attempts)"),
    ],
)
def test_what_stays_broken_is_said_in_one_line_without_a_name(xnat: XnatServer, scan: str, fault: str, words: str):
    with connect(xnat, InputError) as connection:
        xnat.faults.add(fault, "*/scans", times=-1)
        with pytest.raises(InputError) as caught:
            connection.rows(f"/data/projects/LIVER/experiments/{LABEL}/scans")
    assert words in caught.value.line
    assert caught.value.line.startswith("ERROR E_XNAT ")
    for secret in (LABEL, xnat.password, xnat.url.removeprefix("http://"), "<html"):
        assert secret not in caught.value.line


def test_a_slow_answer_is_not_waited_for_for_ever(xnat: XnatServer, scan: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rest, "SECONDS_TO_ANSWER", 0.3)
    with connect(xnat, InputError) as connection:
        xnat.faults.add("slow", "*/resources", seconds=2.0, times=1)
        assert connection.rows(f"{scan}/resources")


def test_a_wrong_password_is_tried_twice_at_most(xnat: XnatServer):
    # XNAT locks an account after a number of failed logins.
    with (
        pytest.raises(InputError, match="XNAT refuses user and password, or the token has ended") as caught,
        connect(xnat, InputError, password="planted-wrong"),
    ):
        pass
    assert len(xnat.asked("PUT", "/data/services/auth")) == 2
    assert "planted-wrong" not in str(caught.value) + caught.value.line


def test_a_token_signs_in_and_its_end_is_said(xnat: XnatServer, scan: str):
    token = xnat.token()
    with connect(xnat, InputError, user=token.alias, password=token.secret) as connection:
        assert connection.rows(f"{scan}/resources")
        xnat.accounts.expire()
        with pytest.raises(InputError, match="the token has ended") as caught:
            connection.rows(f"{scan}/resources")
    assert token.secret not in caught.value.line


def test_no_server_there():
    with (
        pytest.raises(InputError, match="cannot be reached"),
        Connection(Site(host="http://127.0.0.1:9", user="u", password="p"), InputError, pauses=QUICK),
    ):
        pass


@pytest.mark.parametrize(("path", "words"), [("/data/projects/NONE/experiments", "404"), ("/data/experiments/XNAT_E99999/scans", "404")])
def test_a_refusal_is_not_repeated(xnat: XnatServer, scan: str, path: str, words: str):
    with connect(xnat, InputError) as connection, pytest.raises(InputError, match=words):
        connection.rows(path)
    assert len(xnat.asked("GET", path)) == 1


def test_an_older_file_that_xnat_keeps_is_an_error(xnat: XnatServer):
    xnat.project("LIVER").resource("R", {"a.txt": b"old"})
    with connect(xnat, OutputError) as connection, pytest.raises(OutputError, match="kept an older file"):
        connection.upload("/data/projects/LIVER/resources/R/files/a.txt", io.BytesIO(b"new"), overwrite="false")


def test_nobody_stays_signed_in(xnat: XnatServer, scan: str):
    with connect(xnat, InputError) as connection:
        connection.rows(f"{scan}/resources")
        assert xnat.accounts.logins
    assert not xnat.accounts.logins


def test_a_password_is_in_no_text_of_a_site(xnat: XnatServer):
    assert xnat.password not in repr(site_of(xnat)) + str(site_of(xnat))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/experiments/E/scans/1/resources/101/files/a/b c.dcm", "a/b c.dcm"),
        ("S_1/scans/1/resources/DICOM/files/files/1.dcm", "files/1.dcm"),
        ("resources/DICOM/files/1.dcm", "1.dcm"),
        ("a/b.dcm", ""),
    ],
)
def test_the_name_of_a_file_within_its_resource(path: str, name: str):
    assert name_in(path) == name
