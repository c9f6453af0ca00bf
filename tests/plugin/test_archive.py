"""The object of a launch in XNAT's archive, and results filed as XNAT files them."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgan.errors import ConfigError, InputError, OutputError
from plugin.archive import file_results, next_workflow, target
from plugin.resolution import Handled


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "P1" / "arc001" / "S1" / "SCANS" / "4" / "DICOM").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "below", "uri"),
    [
        ("Project", "P1/arc001", "/archive/projects/P1"),
        ("Session", "P1/arc001/S1", "/archive/experiments/S1"),
        ("Scan", "P1/arc001/S1/SCANS/4", "/archive/experiments/S1/scans/4"),
    ],
)
def test_a_named_object_is_found_where_xnat_keeps_it(archive: Path, kind: str, below: str, uri: str):
    found = target(kind, archive, project="P1", session="S1", scan="4")
    assert (found.kind, found.directory, found.properties["uri"]) == (kind, archive / below, uri)
    session = found.related.get("Session", found)
    assert session.properties["id" if kind == "Project" else "project-id"] == "P1"


def test_without_a_project_the_folder_is_what_is_mounted(archive: Path):
    folder = archive / "P1" / "arc001"
    assert target("Project", folder, project="", session="", scan="").directory == folder


@pytest.mark.parametrize(
    ("kind", "names", "error", "words"),
    [
        ("Scan", ("P1", "", ""), ConfigError, "needs --session and --scan"),
        ("Session", ("P1", "../..", ""), ConfigError, "names, not paths"),
        ("Session", ("P1", "S2", ""), InputError, "does not exist"),
        ("Project", ("..", "", ""), ConfigError, "names, not paths"),
    ],
)
def test_what_is_not_there(archive: Path, kind: str, names: tuple[str, str, str], error: type[Exception], words: str):
    with pytest.raises(error, match=words) as caught:
        target(kind, archive, project=names[0], session=names[1], scan=names[2])
    assert str(archive) not in str(caught.value)


def handled(folder: Path, **changes: object) -> Handled:
    values: dict[str, object] = {"output": "report", "folder": folder, "label": "MEDGAN_REPORT", "parent": "project", "required": True}
    return Handled(**(values | changes))  # type: ignore[arg-type]


def test_every_child_goes_into_the_resource_and_equal_names_are_replaced(tmp_path: Path):
    build, output = tmp_path / "build", tmp_path / "out"
    (build / "run-2" / "figures").mkdir(parents=True)
    (build / "run-2" / "report.html").write_text("new")
    (build / "run-2" / "figures" / "a.png").write_text("a")
    old = output / "MEDGAN_REPORT" / "run-2" / "report.html"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    (old.parent.parent / "run-1").mkdir()
    assert file_results((handled(build),), output) == {"MEDGAN_REPORT": 2}
    assert old.read_text() == "new"
    assert (old.parent / "figures" / "a.png").read_text() == "a"
    assert (old.parent.parent / "run-1").is_dir()


def test_an_output_may_be_one_file(tmp_path: Path):
    (tmp_path / "one.json").write_text("{}")
    file_results((handled(tmp_path / "one.json"),), tmp_path / "out")
    assert (tmp_path / "out" / "MEDGAN_REPORT" / "one.json").exists()


def test_a_missing_output_fails_only_where_it_is_required(tmp_path: Path):
    assert file_results((handled(tmp_path / "none", required=False),), tmp_path / "out") == {}
    with pytest.raises(OutputError, match="made no report"):
        file_results((handled(tmp_path / "none"),), tmp_path / "out")


def test_runs_are_numbered_on(tmp_path: Path):
    assert next_workflow(tmp_path) == "1"
    for name in ("MEDGAN_REPORT/run-3", "failed/run-11", "MEDGAN_REPORT/run-x", "other/run-2b"):
        (tmp_path / name).mkdir(parents=True)
    assert next_workflow(tmp_path) == "12"
