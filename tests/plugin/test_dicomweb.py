"""Scans over DICOMweb from a real Orthanc: byte for byte, however often the way there breaks, and never one that nobody asked for."""

from __future__ import annotations

import logging
import shutil
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import certifi
import numpy as np
import pytest

from medgan.errors import ConfigError, DiskError, InputError
from plugin import dicomweb
from plugin.dicomweb import Archive, Server, fetch, matching_keys, server
from tests.outlines import COMPLETE, box, outline_of, write_rtstruct, write_seg
from tests.phantoms import affine_for, body, ct_series
from tests.plugin.orthanc import PASSWORD, USER, Between, Orthanc

# Each may name a patient: no message and no log may hold one.
LIVER = {"PatientID": "PID7741", "PatientName": "Muster^Erika", "StudyInstanceUID": "1.2.840.4711.1", "StudyDate": "20190304"}
HEAD = {"PatientID": "PID8852", "PatientName": "Mann^Hans", "StudyInstanceUID": "1.2.840.4722.1", "StudyDate": "20200102"}
QUICK = (0.0, 0.0, 0.0)
SECRETS = (*LIVER.values(), *HEAD.values(), "Muster", "Erika", "4711", "4722", "PID", PASSWORD)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Two studies: a liver CT with a scout and two kinds of outlines, and a head."""
    folder = tmp_path_factory.mktemp("dicom")
    hu, liver = body((16, 14, 5))
    series = ct_series(
        folder / "liver", hu, **{**COMPLETE, **LIVER}, SeriesInstanceUID="1.2.840.4711.2", SeriesDescription="Abdomen portal"
    )
    mask = outline_of(box(3, 4, 8, 9), affine_for("LPS", hu.shape), 2)
    study = {name: LIVER[name] for name in ("StudyInstanceUID", "StudyDate", "PatientID", "PatientName")}
    return {
        "liver": series,
        "scout": ct_series(folder / "scout", hu[:, :, :1], **LIVER, SeriesInstanceUID="1.2.840.4711.3", SeriesDescription="Scout"),
        "seg": [write_seg(folder / "seg.dcm", series, {"liver": liver}, **study)],
        "rtstruct": [write_rtstruct(folder / "rt.dcm", {"liver": [mask]}, SeriesInstanceUID="1.2.840.4711.5", **study)],
        "head": ct_series(folder / "head", hu[:, :, :2] + 1, **HEAD, SeriesInstanceUID="1.2.840.4722.2", SeriesDescription="Head"),
    }


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, files: dict[str, list[Path]]) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc") / "own") as running:
        running.store(path for paths in files.values() for path in paths)
        yield running


@pytest.fixture
def between(orthanc: Orthanc) -> Iterator[Between]:
    with Between(orthanc) as way:
        yield way


def to(url: str, query: str, **env: str) -> Server:
    return server({"DICOMWEB_USER": USER, "DICOMWEB_PASS": PASSWORD} | env, url, query)


def run(url: str, query: str, into: Path, **env: str) -> list[bytes]:
    """What lies there afterwards, sorted."""
    with Archive(to(url, query, **env), pauses=QUICK) as archive:
        fetch(archive, into)
    return sorted(path.read_bytes() for path in into.rglob("*") if path.is_file())


def content(files: dict[str, list[Path]], *names: str) -> list[bytes]:
    return sorted(path.read_bytes() for name in names for path in files[name])


OF_LIVER = ("liver", "scout", "seg", "rtstruct")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("Modality=CT", (*OF_LIVER, "head")),
        ("StudyInstanceUID=1.2.840.4711.1", OF_LIVER),
        ("0020000D=1.2.840.4722.1", ("head",)),
        ("StudyInstanceUID=1.2.840.4711.1,1.2.840.4722.1&Modality=CT", (*OF_LIVER, "head")),
        ("StudyInstanceUID=1.2.840.4711.1&SeriesDescription=*portal", ("liver", "seg", "rtstruct")),
        ("SeriesInstanceUID=1.2.840.4711.2", ("liver", "seg", "rtstruct")),
        ("SeriesDescription=Abd?men*", ("liver", "seg", "rtstruct")),
        ("0008103E=Head&Modality=ct", ("head",)),
        ("PatientID=PID8852", ("head",)),
        ("PatientName=Mann*", ("head",)),
        ("StudyDate=20200101-20201231", ("head",)),
        ("StudyDate=-20191231&SeriesDescription=Scout", ("scout", "seg", "rtstruct")),
        ("Modality=SEG", ("seg", "rtstruct")),
    ],
)
def test_a_query_brings_its_series_byte_for_byte_and_the_outlines_of_their_studies(
    orthanc: Orthanc, files: dict[str, list[Path]], tmp_path: Path, query: str, names: tuple[str, ...]
):
    assert run(orthanc.url, query, tmp_path / "scans") == content(files, *names)


def test_a_study_has_a_folder_and_each_series_one_in_it_without_a_uid(orthanc: Orthanc, tmp_path: Path):
    run(orthanc.url, "Modality=CT", tmp_path / "scans")
    found = sorted((tmp_path / "scans").rglob("*.dcm"))
    assert {len(path.relative_to(tmp_path / "scans").parts) for path in found} == {3}
    assert (len({path.parent.parent for path in found}), len({path.parent for path in found})) == (2, 5)
    assert not [secret for secret in SECRETS for path in found if secret in str(path.relative_to(tmp_path))]
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]  # and nothing half-fetched beside


def test_only_what_is_missing_is_fetched(between: Between, files: dict[str, list[Path]], tmp_path: Path):
    query = "StudyInstanceUID=1.2.840.4711.1"
    first = run(between.url, query, tmp_path / "scans")
    assert len(between.retrieved()) == 4
    between.requests.clear()
    assert run(between.url, query, tmp_path / "scans") == first
    assert between.retrieved() == []
    lost = sorted((tmp_path / "scans").rglob("*.dcm"), key=lambda path: path.stat().st_size)[0]
    lost.unlink()
    assert run(between.url, query, tmp_path / "scans") == first
    assert len(between.retrieved()) == 1
    # What another query brought before is gone.
    assert run(between.url, "SeriesDescription=Head", tmp_path / "scans") == content(files, "head")


def test_a_stopped_fetch_goes_on_where_it_stopped(between: Between, files: dict[str, list[Path]], tmp_path: Path):
    for path in ("*/series/1.2.840.4722.2", "*/series/1.2.840.4722.2/instances/*"):
        between.faults.add("reset", path, times=-1)
    with pytest.raises(InputError, match=r"breaks the connection off, while retrieving over DICOMweb \(4 attempts\)"):
        run(between.url, "Modality=CT", tmp_path / "scans")
    there = [path for path in (tmp_path / "scans").rglob("*") if path.is_file()]
    assert len(there) >= 1
    between.faults.clear()
    between.requests.clear()
    assert run(between.url, "Modality=CT", tmp_path / "scans") == content(files, *OF_LIVER, "head")
    assert len(between.retrieved()) < 5


# Half an answer with a length that agrees is what Orthanc itself leaves when it stops: it names no length of a series.
@pytest.mark.parametrize("fault", ["shortened", "truncated", "reset", "reset_midway", "502", "504"])
@pytest.mark.parametrize("what", ["*/series/1.2.840.4711.2", "*/series/1.2.840.4711.2/instances/*", "*/instances", "*/series"])
def test_a_broken_answer_is_asked_for_again(between: Between, files: dict[str, list[Path]], tmp_path: Path, fault: str, what: str):
    if what.endswith("instances/*"):
        between.faults.add("502", "*/series/1.2.840.4711.2")  # so that instances are fetched one by one
    between.faults.add(fault, what)
    assert run(between.url, "SeriesDescription=Abd*", tmp_path / "scans") == content(files, "liver", "seg", "rtstruct")
    assert [request.fault for request in between.requests].count(fault) >= 1


def test_a_series_cut_in_the_middle_keeps_what_came_whole(between: Between, files: dict[str, list[Path]], tmp_path: Path):
    between.faults.add("shortened", "*/series/1.2.840.4711.2")
    run(between.url, "SeriesDescription=Abd*", tmp_path / "scans")
    single = [path for path in between.retrieved() if path.startswith("studies/1.2.840.4711.1/series/1.2.840.4711.2/instances/")]
    assert 0 < len(single) < len(files["liver"])


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("shortened", "an answer breaks off before its end, while retrieving over DICOMweb (4 attempts)"),
        ("reset_midway", "the DICOMweb server cannot be reached, or breaks the connection off, while retrieving"),
        ("502", "the DICOMweb server or a proxy before it answers 502, while retrieving over DICOMweb (4 attempts)"),
        ("login_page", "the address answers otherwise than a DICOMweb server, with a web page, while retrieving over DICOMweb"),
    ],
)
def test_what_stays_broken_is_said_in_a_line(between: Between, tmp_path: Path, fault: str, line: str):
    between.faults.add(fault, "*/series/1.2.840.4722.2", times=-1)
    between.faults.add(fault, "*/series/1.2.840.4722.2/instances/*", times=-1)
    with pytest.raises(InputError) as caught:
        run(between.url, "SeriesDescription=Head", tmp_path / "scans")
    assert caught.value.line.startswith(f"ERROR E_DICOMWEB {line}")
    assert not [secret for secret in (*SECRETS, "127.0.0.1") if secret in caught.value.line]
    assert not list((tmp_path / "scans").rglob("*.dcm"))


@pytest.mark.parametrize(("fault", "seconds"), [("slow", 1.0), ("trickle", 10.0)])
def test_a_silence_is_not_waited_for_for_ever(
    between: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, seconds: float
):
    monkeypatch.setattr(dicomweb, "SECONDS_TO_ANSWER", 0.3)
    for path in ("*/series/1.2.840.4722.2", "*/series/1.2.840.4722.2/instances/*"):
        between.faults.add(fault, path, times=-1, seconds=seconds)
    with pytest.raises(InputError, match="the DICOMweb server does not answer in time, while retrieving"):
        run(between.url, "SeriesDescription=Head", tmp_path / "scans")


def test_another_instance_than_the_one_asked_for_is_not_taken(between: Between, files: dict[str, list[Path]], tmp_path: Path):
    first, second = (dicomweb._instance_in(path) for path in files["head"])
    series = "/dicom-web/studies/1.2.840.4722.1/series/1.2.840.4722.2"
    between.faults.add("502", series)
    between.exchange = {f"{series}/instances/{first}": f"{series}/instances/{second}"}
    with pytest.raises(InputError, match="another instance arrives than the one asked for"):
        run(between.url, "SeriesDescription=Head", tmp_path / "scans")
    assert len(list((tmp_path / "scans").rglob("*.dcm"))) <= 1


@pytest.mark.parametrize(
    ("body", "kind", "line"),
    [
        (b"--b\r\n\r\nErika\r\n--b--\r\n", 'multipart/related; boundary="b"', "an instance arrives that is no DICOM file"),
        (b"Erika", "multipart/related; boundary=b", "an answer is no multipart message as it says"),
        (b"--b--\r\n", "multipart/related; boundary=b", "another instance arrives than the one asked for"),
        (b"Erika", "multipart/related", "instances come in no parts"),
        (b"Erika", "application/dicom", "instances come in no parts"),
    ],
)
def test_what_is_no_instance_is_not_taken(between: Between, tmp_path: Path, body: bytes, kind: str, line: str):
    between.body = (body, kind)
    with pytest.raises(InputError, match=line) as caught:
        run(between.url, "SeriesDescription=Head", tmp_path / "scans")
    assert "Erika" not in caught.value.line
    assert not list((tmp_path / "scans").rglob("*.dcm"))


def test_pages_of_any_length_are_put_together(between: Between, files: dict[str, list[Path]], tmp_path: Path):
    between.page = 2
    assert run(between.url, "Modality=CT", tmp_path / "scans") == content(files, *OF_LIVER, "head")
    # A server that gives the same page for ever is asked no more than twice.
    between.page, between.ignored = 0, ("offset",)
    assert run(between.url, "Modality=CT", tmp_path / "scans") == content(files, *OF_LIVER, "head")


def test_a_server_that_disregards_a_key_gives_nobody(between: Between, tmp_path: Path):
    between.ignored = ("00100020",)
    with pytest.raises(InputError, match="the DICOMweb server does not search by PatientID") as caught:
        run(between.url, "PatientID=PID8852&Modality=CT", tmp_path / "scans")
    assert "PID8852" not in caught.value.line
    assert between.retrieved() == []


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (400, "the DICOMweb server does not understand the query (400)"),
        (401, "the DICOMweb server does not know who asks (401)"),
        (403, "the DICOMweb server says that this user may not read that (403)"),
        (404, "the DICOMweb server has no such thing (404)"),
        (418, "the DICOMweb server answers 418"),
    ],
)
def test_a_refusal_is_asked_about_once(between: Between, tmp_path: Path, status: int, line: str):
    between.status = status
    with pytest.raises(InputError) as caught:
        run(between.url, "Modality=CT", tmp_path / "scans")
    assert (caught.value.exit_code, len(between.requests)) == (66, 1)
    assert caught.value.line.startswith(f"ERROR E_DICOMWEB {line}, while searching over DICOMweb; fix: ")
    assert "planted" not in caught.value.line


def test_who_may_not_read_is_told_so(orthanc: Orthanc, tmp_path: Path):
    with pytest.raises(InputError, match=r"does not know who asks \(401\)"):
        run(orthanc.url, "Modality=CT", tmp_path / "scans", DICOMWEB_PASS="wrong")
    with pytest.raises(InputError, match=r"does not know who asks \(401\)"):
        run(orthanc.url, "Modality=CT", tmp_path / "scans", DICOMWEB_USER="", DICOMWEB_PASS="", DICOMWEB_TOKEN="planted")


def test_a_token_is_sent_as_a_bearer_and_wins_over_netrc(between: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login joe password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    between.status = 401
    with pytest.raises(InputError):
        run(between.url, "Modality=CT", tmp_path / "scans", DICOMWEB_USER="", DICOMWEB_PASS="", DICOMWEB_TOKEN="ey.J-_1")
    assert [request.headers["Authorization"] for request in between.requests] == ["Bearer ey.J-_1"]


def test_netrc_signs_in_where_nothing_is_set(between: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login jane password known\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    between.status = 403
    with pytest.raises(InputError):
        run(between.url, "Modality=CT", tmp_path / "scans", DICOMWEB_USER="", DICOMWEB_PASS="")
    assert [request.headers["Authorization"] for request in between.requests] == ["Basic amFuZTprbm93bg=="]


def test_what_is_no_dicomweb_server_is_told_apart(orthanc: Orthanc, tmp_path: Path):
    for url, words in (
        (orthanc.site, "the address answers otherwise than a DICOMweb server"),
        (f"{orthanc.site}/app", "has no such thing"),
        ("http://127.0.0.1:9", "cannot be reached"),
        ("http://no-such-host.invalid", "cannot be reached"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            run(url, "Modality=CT", tmp_path / "scans")
        assert caught.value.line.startswith("ERROR E_DICOMWEB the ")
        assert not [word for word in ("127.0.0.1", "no-such-host") if word in caught.value.line]


@pytest.mark.parametrize(
    "query", ["Modality=US", "StudyInstanceUID=9.9", "StudyInstanceUID=,", "StudyDate=20210101-", "SeriesDescription=abd"]
)
def test_nothing_that_fits_is_an_error(orthanc: Orthanc, tmp_path: Path, query: str):
    with pytest.raises(InputError, match="no series on the DICOMweb server fits --query"):
        run(orthanc.url, query, tmp_path / "scans")


def test_a_full_disk_is_found_before_a_series_is_fetched(between: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(DiskError, match="the scratch folder is nearly full"):
        run(between.url, "Modality=CT", tmp_path / "scans")
    assert between.retrieved() == []


def test_an_instance_never_lies_in_memory(tmp_path: Path):
    hu = np.random.default_rng(0).integers(0, 1000, (1600, 1600, 3)).astype(float)  # three instances of 5 MB
    series = ct_series(tmp_path / "dicom", hu, **HEAD, SeriesInstanceUID="1.2.840.4722.9")
    with Orthanc(tmp_path / "own") as orthanc:
        orthanc.store(series)
        with Archive(to(orthanc.url, "Modality=CT"), pauses=QUICK) as archive:
            fetch(archive, tmp_path / "warm")  # imports
            tracemalloc.start()
            fetch(archive, tmp_path / "scans")
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert sum(path.stat().st_size for path in (tmp_path / "scans").rglob("*.dcm")) > 15e6
    assert peak < 4.5e6  # two or three blocks of 1 MiB


def test_certificates_are_checked(orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    made = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(["openssl", *made.split(), "-keyout", tmp_path / "key", "-out", tmp_path / "ca"], check=True, capture_output=True)
    (tmp_path / "pem").write_bytes((tmp_path / "ca").read_bytes() + (tmp_path / "key").read_bytes())
    with Between(orthanc, tmp_path / "pem") as between:
        line = _line(between.url, tmp_path)
        assert "the certificate of the DICOMweb server is not known, while searching over DICOMweb; fix: DICOMWEB_VERIFY=FILE" in line
        # A bundle of the machine's does not win over what was said.
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
        for given in (str(tmp_path / "ca"), "false"):
            assert "no series" in _line(between.url, tmp_path, DICOMWEB_VERIFY=given)


def _line(url: str, folder: Path, **env: str) -> str:
    with pytest.raises(InputError) as caught:
        run(url, "Modality=US", folder / "scans", **env)
    return caught.value.line


def test_the_log_counts_and_names_nothing(orthanc: Orthanc, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture):
    with caplog.at_level(logging.DEBUG):
        run(orthanc.url, "PatientID=PID7741", tmp_path / "scans")
    out, err = capfd.readouterr()
    ours = "".join(record.getMessage() for record in caplog.records if record.name.startswith("medgan")) + out + err
    assert "8 instances (0.0 MiB) in 4 series of 1 studies, 8 of them fetched now" in ours
    assert not [secret for secret in (*SECRETS, "127.0.0.1") if secret in ours]


# -- what is said on the command line ----------------------------------------------------------------------------------------


def test_credentials_are_taken_out_of_the_environment_and_shown_nowhere():
    basic = {"DICOMWEB_USER": "jane", "DICOMWEB_PASS": "planted-päss"}
    found = server(basic, " https://pacs.example.org/dicom-web/ ", "PatientID=PID7741")
    assert (found.url, found.authorization) == ("https://pacs.example.org/dicom-web", "Basic amFuZTpwbGFudGVkLXDDpHNz")
    assert basic == {"DICOMWEB_USER": "jane"}
    token = {"DICOMWEB_TOKEN": "planted-token\n"}
    assert server(token, "http://x", "Modality=CT").authorization == "Bearer planted-token"
    assert token == {}
    assert server({}, "http://x", "Modality=CT").authorization == ""
    assert not [word for word in ("planted", "amFu", "PID7741") if word in repr(found)]


@pytest.mark.parametrize(
    ("env", "url", "query", "line"),
    [
        ({}, "", "Modality=CT", "--source dicomweb needs the server's address"),
        ({}, "pacs.example.org", "Modality=CT", "--source dicomweb needs the server's address"),
        ({}, "http://[planted", "Modality=CT", "--source dicomweb needs the server's address"),
        ({}, "https://x.org/q?planted=1", "Modality=CT", "--source dicomweb needs the server's address"),
        ({}, "https://jane:planted@x.org", "Modality=CT", "the address of the DICOMweb server holds a user"),
        ({"DICOMWEB_TOKEN": "planted", "DICOMWEB_USER": "jane"}, "https://x.org", "Modality=CT", "a token and a user are set"),
        ({"DICOMWEB_PASS": "planted"}, "https://x.org", "Modality=CT", "a user without a password, or the other way round"),
        ({"DICOMWEB_TOKEN": "Bearer planted"}, "https://x.org", "Modality=CT", "DICOMWEB_TOKEN is no token"),
        ({"DICOMWEB_VERIFY": "/planted"}, "https://x.org", "Modality=CT", "DICOMWEB_VERIFY names no file"),
        ({}, "https://x.org", "", "--source dicomweb would read all that the server has"),
        ({}, "https://x.org", "Modality=CT&Planted=7", "part 2 of --query is no KEY=VALUE that DICOM knows"),
        ({}, "https://x.org", "PatientID=", "part 1 of --query is no KEY=VALUE"),
        ({}, "https://x.org", "planted", "part 1 of --query is no KEY=VALUE"),
        ({}, "https://x.org", "Modality=CT&limit=5", "part 2 of --query is no KEY=VALUE"),
        ({}, "https://x.org", "Modality=CT&00080060=MR", "part 2 of --query is no KEY=VALUE"),
    ],
)
def test_what_cannot_be_is_named_without_its_words(env: dict[str, str], url: str, query: str, line: str):
    with pytest.raises(ConfigError) as caught:
        server(env, url, query)
    assert caught.value.line.startswith(f"ERROR E_CONFIG {line}")
    assert "planted" not in caught.value.line.lower()


def test_a_query_may_be_copied_from_an_address():
    assert matching_keys("?SeriesDescription=T1%20MPRAGE+C&00100020=7") == {"0008103E": "T1 MPRAGE+C", "00100020": "7"}
