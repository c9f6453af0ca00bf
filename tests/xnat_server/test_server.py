"""The fake XNAT itself: who gets in, what is found under which path, what an upload does, what a fault is."""

from __future__ import annotations

import csv
import io
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
import requests

from tests.xnat_server import XnatServer
from tests.xnat_server.conftest import CT, Client
from tests.xnat_server.web import FAULTS

# -- who gets in ---------------------------------------------------------------------------------------------------------


def test_a_stranger_is_asked_for_a_password(liver):
    answer = requests.get(liver.url + "/data/projects", timeout=10)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert "LIVER" not in answer.text


def test_the_cookie_of_a_stranger_or_of_a_failed_login_opens_nothing(liver):
    client = Client(liver.url)
    assert client.get("/").status_code == 200
    assert client.cookies.get("JSESSIONID")
    assert client.put("/data/services/auth", data={"username": liver.user, "password": "wrong"}).status_code == 401
    assert client.get("/data/projects").status_code == 401
    client.cookies.set("JSESSIONID", "F" * 32)
    assert client.get("/data/projects").status_code == 401


def test_a_login_gives_a_cookie_that_ends_with_the_session(liver):
    client = Client(liver.url)
    session = client.put("/data/services/auth", data={"username": liver.user, "password": liver.password}).text
    assert client.cookies["JSESSIONID"] == session
    milliseconds, span = client.cookies["SESSION_EXPIRATION_TIME"].strip('"').split(",")
    assert int(milliseconds) == pytest.approx(time.time() * 1000, abs=10_000)
    assert span == "900000"
    assert client.get("/data/auth").text == "User 'admin' is logged in"
    assert client.delete("/data/JSESSION").status_code == 200
    assert client.get("/data/auth").status_code == 401


def test_an_idle_session_ends(liver):
    client = Client(liver.url)
    client.put("/data/services/auth", data={"username": liver.user, "password": liver.password})
    liver.accounts.idle_seconds = 0.0
    assert client.get("/data/auth").status_code == 401


def test_an_alias_token_logs_in_as_its_user_until_it_expires(liver):
    token = liver.token("reader")
    client = Client(liver.url)
    client.auth = (token.alias, token.secret)
    assert client.get("/data/auth").text == "User 'reader' is logged in"
    assert requests.get(liver.url + "/data/auth", auth=(token.alias, "wrong"), timeout=10).status_code == 401
    liver.accounts.expire()
    # The cookie died with the token it came from.
    assert client.get("/data/auth").status_code == 401
    short = liver.token(seconds=-1)
    assert requests.get(liver.url + "/data/auth", auth=(short.alias, short.secret), timeout=10).status_code == 401


def test_a_token_issued_over_rest_works(http, liver):
    token = http.get("/data/services/tokens/issue").json()
    assert requests.get(liver.url + "/data/auth", auth=(token["alias"], token["secret"]), timeout=10).status_code == 200


# -- what is found -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/data/projects/LIVER/subjects/P01/experiments/CT01/scans",
        "/data/archive/projects/LIVER/subjects/P01/experiments/CT01/scans",
        "/data/projects/LIVER/experiments/CT01/scans",
        "/data/archive/experiments/XNAT_E00001/scans",
        "/data/experiments/XNAT_E00001/scans",
        "/REST/subjects/XNAT_S00001/experiments/XNAT_E00001/scans",
    ],
)
def test_every_form_of_a_path_finds_the_same(http, path):
    assert [(row["ID"], row["type"], row["URI"]) for row in http.rows(path)] == [
        ("2", "Abdomen", "/data/experiments/XNAT_E00001/scans/2"),
        ("3", "Scout", "/data/experiments/XNAT_E00001/scans/3"),
    ]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/data/projects/NONE", 404),
        ("/data/experiments/CT01", 404),  # a label means something only inside its project
        ("/data/projects/LIVER/experiments/CT09", 404),
        ("/data/experiments/XNAT_E00001/scans/9", 404),
        ("/data/experiments/XNAT_E00001/scans/2/resources/NIFTI/files", 404),
        ("/data/experiments/XNAT_E00001/scans/2/resources/DICOM/files/none.dcm", 404),
        ("/data/nonsense", 404),
        ("/xapi/nonsense", 404),
        ("/nonsense", 404),
    ],
)
def test_what_is_not_there_is_404(http, path, status):
    assert http.get(path).status_code == status


def test_csv_and_json_say_the_same(http):
    path = "/data/projects/LIVER/experiments"
    table = list(csv.DictReader(io.StringIO(http.get(path, params={"format": "csv"}).text)))
    assert table == http.rows(path)
    assert [row["label"] for row in table] == ["CT01", "CT02"]
    assert [row["xsiType"] for row in table] == ["xnat:ctSessionData"] * 2


def test_columns_are_chosen(http):
    [row, _] = http.rows("/data/projects/LIVER/experiments?columns=ID,label,xnat:ctSessionData/date")
    always = {"xsiType": "xnat:ctSessionData", "URI": "/data/experiments/XNAT_E00001"}
    assert row == {"ID": "XNAT_E00001", "label": "CT01", "xnat:ctsessiondata/date": "2024-01-31", **always}


def test_rows_are_chosen_by_the_query(http, liver):
    liver.project("LIVER").session("MR01", subject="P01", modality="MR")
    assert [row["label"] for row in http.rows("/data/projects/LIVER/experiments?xsiType=xnat:mrSessionData")] == ["MR01"]
    assert [row["label"] for row in http.rows("/data/experiments?xsiType=xnat:imageSessionData&project=LIVER")] == ["CT01", "MR01", "CT02"]
    assert [row["ID"] for row in http.rows("/data/experiments?label=CT02")] == ["XNAT_E00003"]


def test_a_file_is_listed_with_size_and_digest_and_comes_as_it_is(http):
    rows = http.rows("/data/experiments/XNAT_E00001/scans/2/resources/DICOM/files")
    assert [(r["Name"], r["Size"], r["collection"], r["digest"]) for r in rows] == [
        ("1-01.dcm", "1000", "DICOM", "f0835dbe66a7e90b0e0e8647354d0c0b"),
        ("1-02 b.dcm", "3000", "DICOM", "7dbf8e06efe2ebe4e1b4e625adddb265"),
    ]
    assert [http.get(row["URI"]).content for row in rows] == list(CT.values())


def test_all_scans_and_lists_of_resources_are_found(http):
    names = [row["Name"] for row in http.rows("/data/experiments/XNAT_E00001/scans/ALL/files")]
    assert names == ["1-01.dcm", "1-02 b.dcm", "t.gif", "s.dcm"]
    some = http.rows("/data/experiments/XNAT_E00001/scans/2,3/resources/DICOM/files")
    assert [row["Name"] for row in some] == ["1-01.dcm", "1-02 b.dcm", "s.dcm"]


def test_a_zip_holds_the_files_below_session_scan_and_resource(http):
    data = http.get("/data/experiments/XNAT_E00001/scans/2/resources/DICOM/files?format=zip").content
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == [f"CT01/scans/2/resources/DICOM/files/{name}" for name in CT]
        assert [archive.read(name) for name in archive.namelist()] == list(CT.values())


def test_a_resource_answers_with_its_catalog(http):
    text = http.get("/data/experiments/XNAT_E00001/scans/2/resources/DICOM").text
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<cat:Catalog')
    assert text.count("<cat:entry ") == 2


def test_the_folder_is_laid_out_as_xnat_s_archive(liver):
    found = {p.relative_to(liver.archive.folder).as_posix() for p in liver.archive.folder.rglob("*") if p.is_file()}
    scans = "LIVER/arc001/CT01/SCANS"
    assert found == {
        *(f"{scans}/2/DICOM/{name}" for name in (*CT, "scan_2_catalog.xml")),
        f"{scans}/2/SNAPSHOTS/t.gif",
        f"{scans}/2/SNAPSHOTS/scan_2_catalog.xml",
        f"{scans}/3/DICOM/s.dcm",
        f"{scans}/3/DICOM/scan_3_catalog.xml",
        "LIVER/arc001/CT01/ASSESSORS/ROI1/RTSTRUCT/roi.dcm",
        "LIVER/arc001/CT01/ASSESSORS/ROI1/RTSTRUCT/RTSTRUCT_catalog.xml",
    }


def test_a_shared_session_is_listed_in_both_projects(http, liver):
    liver.project("OTHER")
    assert http.put("/data/projects/LIVER/subjects/P01/experiments/CT01/projects/OTHER?label=X1").status_code == 200
    assert [row["ID"] for row in http.rows("/data/projects/OTHER/experiments")] == ["XNAT_E00001"]
    assert [row["ID"] for row in http.rows("/data/projects/OTHER/experiments/X1/scans")] == ["2", "3"]
    assert [row["ID"] for row in http.rows("/data/experiments/XNAT_E00001/projects")] == ["LIVER", "OTHER"]
    assert http.delete("/data/experiments/XNAT_E00001/projects/OTHER").status_code == 200
    assert http.rows("/data/projects/OTHER/experiments") == []
    assert http.get("/data/projects/OTHER").status_code == 200


def test_objects_are_made_changed_and_removed(http, liver):
    base = "/data/projects/LIVER/subjects/P09"
    assert http.put(base).text == "XNAT_S00003"
    assert http.put(base + "/experiments/MR1?xsiType=xnat:mrSessionData&xnat:mrSessionData/date=2024-02-01").status_code == 201
    assert http.put(base + "/experiments/MR1/scans/7?xsiType=xnat:mrScanData&type=T1").status_code == 201
    assert http.put(base + "/experiments/MR1?label=MR2").status_code == 200
    assert http.rows(base + "/experiments/MR2/scans")[0]["type"] == "T1"
    assert (liver.archive.folder / "LIVER/arc001/MR2/SCANS/7").is_dir()
    assert http.put("/data/projects/LIVER/experiments/MR3").status_code == 400
    assert http.delete(base).status_code == 200
    assert http.get("/data/projects/LIVER/experiments/MR2").status_code == 404
    assert not (liver.archive.folder / "LIVER/arc001/MR2").exists()


# -- uploads -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def resource(http):
    """Path of a new, empty project resource."""
    path = "/data/projects/LIVER/resources/UP"
    assert http.put(path).status_code == 200
    return path


def names(http, resource):
    return [row["URI"].partition("/files/")[2] for row in http.rows(resource + "/files")]


def test_a_resource_is_made_once(http, resource):
    again = http.put(resource)
    assert (again.status_code, "already exists" in again.text) == (409, True)


def test_an_upload_is_listed_and_lies_in_the_archive(http, resource, liver):
    assert http.put(resource + "/files/run-1/a.png?overwrite=true", data=b"png").status_code == 200
    assert http.post(resource + "/files", files={"file": ("b.png", b"second")}).status_code == 200
    assert names(http, resource) == ["b.png", "run-1/a.png"]
    assert (liver.archive.folder / "LIVER/resources/UP/run-1/a.png").read_bytes() == b"png"
    assert liver.project("LIVER").find("resources", "UP").read("b.png") == b"second"


def test_an_existing_name_answers_200_with_duplicates_and_stays(http, resource):
    for data in (b"first", b"second"):
        answer = http.put(resource + "/files/a.txt", data=data)
    assert (answer.status_code, answer.json()) == (200, {"duplicates": ["a.txt"]})
    assert http.get(resource + "/files/a.txt").content == b"first"
    assert http.put(resource + "/files/a.txt?overwrite=true", data=b"third").content == b""
    assert http.get(resource + "/files/a.txt").content == b"third"


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_an_archive_is_extracted(http, resource, name):
    buffer = io.BytesIO()
    members = {"a.txt": b"a", "sub/b.txt": b"bb"}
    if name.endswith("zip"):
        with zipfile.ZipFile(buffer, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    assert http.put(f"{resource}/files/{name}?extract=true", data=buffer.getvalue()).status_code == 200
    assert names(http, resource) == ["a.txt", "sub/b.txt"]
    assert http.get(resource + "/files/sub/b.txt").content == b"bb"
    assert http.put(f"{resource}/files/{name}", data=buffer.getvalue()).status_code == 200
    assert names(http, resource) == ["a.txt", "sub/b.txt", name]


def test_what_cannot_be_stored_is_refused(http, resource):
    assert http.put(resource + "/files/empty.txt", data=b"").status_code == 400
    assert http.put(resource + "/files/unknown.txt", data=iter([b"a", b"b"])).status_code == 411
    assert http.put(resource + "/files/x.zip?extract=true", data=b"no archive").status_code == 400
    assert http.put(resource + "/files/..%2F..%2Fescape.txt", data=b"x").status_code == 400
    assert http.put("/data/projects/LIVER/resources/NONE/files/a.txt", data=b"x").status_code == 404
    assert names(http, resource) == []


def test_a_user_without_edit_right_uploads_into_nothing_without_an_error(liver, http, resource):
    reader = Client(liver.url)
    reader.auth = ("reader", "reader-password")
    assert reader.put("/data/projects/LIVER/resources/MINE").status_code == 403
    assert reader.put(resource + "/files/a.txt", data=b"x").status_code == 200
    assert names(reader, resource) == []


def test_a_user_sees_only_projects_he_belongs_to(liver):
    liver.project("SECRET").session("S1")
    reader = Client(liver.url)
    reader.auth = ("reader", "reader-password")
    assert [row["ID"] for row in reader.rows("/data/projects")] == ["LIVER"]
    assert reader.get("/data/projects/SECRET/experiments/S1").status_code == 403


# -- faults --------------------------------------------------------------------------------------------------------------

FILE = "/data/experiments/XNAT_E00001/scans/2/resources/DICOM/files/1-01.dcm"


@pytest.mark.parametrize("kind", ["truncated", "reset", "reset_midway", "reset_after"])
def test_a_broken_connection_is_an_error_once(liver, http, kind):
    liver.faults.add(kind, "*/files/*")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        http.get(FILE)
    assert http.get(FILE).content == CT["1-01.dcm"]


def test_a_shortened_body_looks_whole(liver, http):
    liver.faults.add("shortened", "*/files/*")
    answer = http.get(FILE)
    assert (answer.status_code, answer.headers["Content-Length"], len(answer.content)) == (200, "500", 500)


def test_a_login_page_comes_with_200(liver, http):
    liver.faults.add("login_page", FILE, times=2, after=1)
    assert [http.get(FILE).headers["Content-Type"] for _ in range(4)] == [
        "application/octet-stream",
        *["text/html;charset=UTF-8"] * 2,
        "application/octet-stream",
    ]


@pytest.mark.parametrize(("kind", "stored"), [("502", []), ("504", ["a.txt"]), ("no_edit_right", []), ("reset_after", ["a.txt"])])
def test_an_upload_that_fails_may_be_stored_or_not(liver, http, resource, kind, stored):
    liver.faults.add(kind, method="PUT")
    try:
        status = http.put(resource + "/files/a.txt", data=b"x").status_code
    except requests.ConnectionError:
        status = 0
    assert status == {"502": 502, "504": 504, "no_edit_right": 200, "reset_after": 0}[kind]
    assert names(http, resource) == stored


def test_an_expired_token_stays_expired(liver):
    token = liver.token()
    client = Client(liver.url)
    client.auth = (token.alias, token.secret)
    liver.faults.add("expired", after=2)
    assert [client.get("/data/projects").status_code for _ in range(4)] == [200, 200, 401, 401]


def test_a_slow_answer_is_late_and_whole(liver, http):
    liver.faults.add("slow", FILE, seconds=0.3)
    start = time.monotonic()
    assert http.get(FILE).content == CT["1-01.dcm"]
    assert time.monotonic() - start >= 0.3


def test_a_trickle_is_slow_as_a_whole_but_never_waits_long(liver, http):
    liver.faults.add("trickle", FILE, seconds=1.0)
    start = time.monotonic()
    assert requests.get(liver.url + FILE, cookies=http.cookies, timeout=0.8).content == CT["1-01.dcm"]
    assert time.monotonic() - start >= 0.85


def test_the_log_says_what_was_asked_and_what_happened(liver, http):
    liver.faults.add("502", "*/files/*")
    http.get(FILE + "?format=x")
    last = liver.asked("GET", "*/files/*")[-1]
    assert (last.user, last.query, last.status, last.fault) == (None, {"format": "x"}, 502, "502")
    http.get("/data/projects")
    assert (liver.requests[-1].user, liver.requests[-1].status) == ("admin", 200)


def test_an_unknown_fault_is_refused(liver):
    with pytest.raises(ValueError, match=next(iter(FAULTS))):
        liver.faults.add("nonsense")


def test_two_servers_do_not_meet(tmp_path: Path):
    with XnatServer(tmp_path / "a") as one, XnatServer(tmp_path / "b") as other:
        one.project("ONLY_HERE")
        cookies = requests.put(one.url + "/data/services/auth", data={"username": one.user, "password": one.password}, timeout=10).cookies
        assert requests.get(one.url + "/data/projects", cookies=cookies, timeout=10).status_code == 200
        assert requests.get(other.url + "/data/projects", cookies=cookies, timeout=10).status_code == 401
