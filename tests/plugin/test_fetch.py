"""Scans over REST lie where a mount would have them, whole, however often the way there breaks."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from medgan.errors import ConfigError, DiskError, InputError, MedganError
from plugin.fetch import fetch, inside
from plugin.target import Filters, Target, target_of
from tests.plugin.sites import CT, LABEL, connect, liver
from tests.xnat_server import XnatServer
from tests.xnat_server.archive import Node

# What an assessor holds besides outlines is not asked for; XNAT's own lists, pictures and our results are no scans.
NOT_FETCHED = ("AIM", "SNAPSHOTS", "MEDGAN_SYNTHETIC", "MEDGAN_REPORT")


@pytest.fixture
def project(xnat: XnatServer) -> Node:
    return liver(xnat)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mounted(folder: Path) -> dict[str, bytes]:
    """What the mount of an archive folder shows, less what is no scan."""
    return {
        name: data
        for name, data in tree(folder).items()
        if not name.endswith("_catalog.xml") and not set(Path(name).parts) & set(NOT_FETCHED)
    }


def run(xnat: XnatServer, address: str, into: Path, filters: Filters = Filters()) -> dict[str, bytes]:  # noqa: B008
    with connect(xnat, InputError) as connection:
        fetch(connection, target_of(address), filters, into)
    return tree(into)


def downloads(xnat: XnatServer) -> int:
    """Requests for content: zips and single files."""
    return len(xnat.asked("GET", "*/files/*")) + sum(request.query.get("format") == "zip" for request in xnat.asked("GET", "*/files"))


def test_a_project_a_session_and_a_scan_lie_as_xnat_mounts_them(xnat: XnatServer, project: Node, tmp_path: Path):
    session = project.find("experiments", LABEL)
    scan = session.find("scans", "2")
    for node in (project, session, scan):
        assert run(xnat, node.archive_uri, tmp_path / "scans") == mounted(node.folder)
    assert len(mounted(project.folder)) == 12
    assert f"{LABEL}/ASSESSORS/ROI_2/SEG/seg.dcm" in mounted(project.folder)


def test_what_is_there_is_not_fetched_again(xnat: XnatServer, project: Node, tmp_path: Path):
    first = run(xnat, "projects/LIVER", tmp_path / "scans")
    before = downloads(xnat)
    assert run(xnat, "projects/LIVER", tmp_path / "scans") == first
    assert downloads(xnat) == before
    # A file of the right size with other content is not the file.
    (tmp_path / "scans" / LABEL / "SCANS/2/DICOM/3.dcm").write_bytes(b"x" * len(CT["3.dcm"]))
    assert run(xnat, "projects/LIVER", tmp_path / "scans") == first
    assert downloads(xnat) == before + 1


def test_a_broken_way_goes_on_where_it_broke(xnat: XnatServer, project: Node, tmp_path: Path):
    xnat.faults.add("reset", "*/scans/3-MR1/resources/*/files/*", times=-1)
    with pytest.raises(InputError, match="breaks the connection off"):
        run(xnat, "projects/LIVER", tmp_path / "scans")
    done = tree(tmp_path / "scans")
    assert {name for name in done if "/SCANS/2/" in name} == {name for name in mounted(project.folder) if "/SCANS/2/" in name}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scans", "xnat"]  # and nothing half-fetched beside
    xnat.faults.clear()
    xnat.requests.clear()
    assert run(xnat, "projects/LIVER", tmp_path / "scans") == mounted(project.folder)
    assert not [request for request in xnat.asked("GET", "*/scans/2/*") if request.query.get("format") == "zip"]


@pytest.mark.parametrize("fault", ["truncated", "shortened", "reset_midway", "login_page", "502", "504"])
def test_a_zip_that_comes_damaged_is_fetched_file_by_file(xnat: XnatServer, project: Node, tmp_path: Path, fault: str):
    # The listing of the files has the same path and comes first.
    xnat.faults.add(fault, "*/scans/2/resources/*/files", after=1)
    uri = project.find("experiments", LABEL).find("scans", "2").uri
    assert run(xnat, uri, tmp_path / "scans") == {f"DICOM/{name}": data for name, data in CT.items()}
    assert any(request.fault == fault and request.query["format"] == "zip" for request in xnat.requests)


def test_filters_take_sessions_by_label_and_scans_by_type(xnat: XnatServer, project: Node, tmp_path: Path):
    def scans(**filters: str) -> set[str]:
        found = run(xnat, "projects/LIVER", tmp_path / "scans", Filters(**filters))
        return {"/".join(Path(name).parts[:3]) for name in found if "/SCANS/" in name}

    erika, hans = f"{LABEL}/SCANS", "Hans_MR_2020/SCANS"
    assert scans() == {f"{erika}/2", f"{erika}/3-MR1", f"{hans}/1"}
    assert scans(sessions="*_ct_*") == {f"{erika}/2", f"{erika}/3-MR1"}
    assert scans(sessions="Nobody, Hans*") == {f"{hans}/1"}
    assert scans(scan_types="t1 ?bdomen,T1 B*") == {f"{erika}/2", f"{hans}/1"}
    # What another filter brought before is gone.
    assert scans(sessions="Hans*", scan_types="T1*") == {f"{hans}/1"}


@pytest.mark.parametrize(
    ("address", "filters", "error", "words"),
    [
        ("projects/LIVER", Filters(sessions="XX*"), InputError, "none of the 2 sessions fits --sessions"),
        ("projects/LIVER", Filters(sessions="Hans*", scan_types="CT"), InputError, "no file of a scan there that fits the filters"),
        ("projects/EMPTY", Filters(), InputError, "no session that the user may see"),
        ("projects/NONE", Filters(), InputError, "XNAT has no such thing"),
        ("experiments/XNAT_E00001", Filters(sessions="Hans*"), ConfigError, "--sessions chooses among the sessions of a project"),
        ("experiments/XNAT_E00001/scans/2", Filters(scan_types="T1"), ConfigError, "--scan-types chooses among the scans"),
    ],
)
def test_nothing_to_fetch(
    xnat: XnatServer, project: Node, tmp_path: Path, address: str, filters: Filters, error: type[MedganError], words: str
):
    xnat.project("EMPTY")
    with pytest.raises(error, match=words) as caught:
        run(xnat, address, tmp_path / "scans", filters)
    assert "Erika" not in caught.value.line
    assert "Hans" not in caught.value.line.replace("Hans*", "")


def test_a_full_disk_is_found_before_anything_is_fetched(xnat: XnatServer, project: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(DiskError, match=r"the scans need 0\.0 GiB in the scratch folder, 0\.0 are free"):
        run(xnat, "projects/LIVER", tmp_path / "scans")
    assert downloads(xnat) == 0


def test_the_log_counts_and_names_nothing(
    xnat: XnatServer, project: Node, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    with caplog.at_level(logging.DEBUG):
        run(xnat, "projects/LIVER", tmp_path / "scans")
    out, err = capfd.readouterr()
    ours = "".join(record.getMessage() for record in caplog.records if record.name.startswith("medgan")) + out + err
    assert "12 files (0.0 MiB) in 7 resources, 12 of them fetched now" in ours
    for secret in (LABEL, "Erika", "Hans", xnat.password, "ROI_1"):
        assert secret not in ours


@pytest.mark.parametrize("name", ["../x.dcm", "a/../../x", "/etc/passwd", "a//b", "", "a\\b", "x" * 300])
def test_a_name_that_leads_out_of_its_folder_is_refused(name: str):
    with pytest.raises(InputError, match="no folder can have"):
        inside(name)


@pytest.mark.parametrize(
    ("given", "path", "level"),
    [
        ("/archive/projects/LIVER", "/data/projects/LIVER", "project"),
        ("projects/LIVER", "/data/projects/LIVER", "project"),
        ("https://x.org/xnat/data/archive/projects/P", "/data/projects/P", "project"),
        ("https://x.org/projects/P", "", ""),
        ("https://x.org/data/archive/projects/P/subjects/S 1/experiments/E", "/data/projects/P/subjects/S%201/experiments/E", "session"),
        ("/archive/experiments/XNAT_E1", "/data/experiments/XNAT_E1", "session"),
        ("/archive/experiments/XNAT_E1/scans/2", "/data/experiments/XNAT_E1/scans/2", "scan"),
        ("/data/experiments/XNAT_E1/scans/2-MR1/", "/data/experiments/XNAT_E1/scans/2-MR1", "scan"),
        ("projects", "", ""),
        ("P", "", ""),
        ("subjects/S", "", ""),
        ("projects/../experiments/E", "", ""),
        ("experiments/E/resources/R", "", ""),
        ("projects/P/projects/Q", "", ""),
    ],
)
def test_addresses_of_xnat(given: str, path: str, level: str):
    if level:
        assert target_of(given) == Target(path, level)
    else:
        with pytest.raises(ConfigError, match="--target is no address"):
            target_of(given)


def test_a_project_may_be_named_by_its_id_alone():
    assert target_of("", "LIVER 1") == Target("/data/projects/LIVER%201", "project")
    with pytest.raises(ConfigError, match="no project, session or scan is named"):
        target_of(" ")
