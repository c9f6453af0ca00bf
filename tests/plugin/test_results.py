"""Results sent are results that a listing shows; the state of an earlier run comes back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from medgan.errors import InputError, OutputError
from plugin.results import MOST_SINGLE_FILES, checkpoint_files, fetch_state, labels, natural, newest_state, send_results
from plugin.target import target_of
from tests.plugin.sites import connect, liver
from tests.xnat_server import XnatServer

RUN = "run-7"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Result folders of a run, as plugin/container.py leaves them."""
    files = {
        "report/run-7/report.html": "<html>", "report/run-7/figures/a b.png": "png", "report/run-7/status.json": '{"status": "complete"}',
        "synthetic/run-7/synthetic.zip": "zip", "metrics/run-7/metrics.json": "{}", "model/run-7/bundle.zip": "bundle",
        "checkpoint/run-7/README.txt": "none", "report/run-6/report.html": "another run's",
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / "output" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "output"


def send(xnat: XnatServer, output: Path, target: str = "projects/LIVER", **who: str) -> int:
    with connect(xnat, OutputError, **who) as connection:
        return send_results(connection, target_of(target), output, labels(output, RUN), RUN)


def stored(xnat: XnatServer) -> dict[str, str]:
    resources = [node for node in xnat.project("LIVER").of("resources") if node.label.startswith("MEDGAN_")]
    return {f"{node.label}/{name}": path.read_text() for node in resources for name, path in node.files().items()}


def test_each_result_folder_becomes_a_resource_with_a_folder_for_the_run(xnat: XnatServer, output: Path):
    liver(xnat)
    assert send(xnat, output) == 7
    assert stored(xnat) == {
        "MEDGAN_REPORT/run-7/report.html": "<html>", "MEDGAN_REPORT/run-7/figures/a b.png": "png", "MEDGAN_REPORT/run-7/status.json": '{"status": "complete"}',
        "MEDGAN_SYNTHETIC/run-7/synthetic.zip": "zip", "MEDGAN_METRICS/run-7/metrics.json": "{}", "MEDGAN_MODEL/run-7/bundle.zip": "bundle",
        "MEDGAN_CHECKPOINT/run-7/README.txt": "none",
    }  # fmt: skip
    assert [r.path for r in xnat.asked("PUT", "*/files/*")][-1].startswith("/data/projects/LIVER/resources/MEDGAN_REPORT/")


def test_a_session_and_a_scan_get_results_too(xnat: XnatServer, output: Path):
    session = liver(xnat).of("experiments")[0]
    for node in (session, session.find("scans", "3-MR1")):
        send(xnat, output, node.archive_uri)
        assert node.find("resources", "MEDGAN_MODEL").read("run-7/bundle.zip") == b"bundle"


def test_only_what_differs_is_sent_again(xnat: XnatServer, output: Path):
    liver(xnat)
    send(xnat, output)
    sent = len(xnat.asked("PUT", "*/files/*"))
    (output / "metrics/run-7/metrics.json").write_text("[]")
    send(xnat, output)
    assert [r.path.rpartition("/")[2] for r in xnat.asked("PUT", "*/files/*")[sent:]] == ["metrics.json"]
    assert stored(xnat)["MEDGAN_METRICS/run-7/metrics.json"] == "[]"


@pytest.mark.parametrize("fault", ["reset", "reset_after", "502", "504", "login_page", "no_edit_right"])
def test_an_upload_that_fails_once_arrives(xnat: XnatServer, output: Path, fault: str):
    liver(xnat)
    xnat.faults.add(fault, "*/MEDGAN_MODEL", method="PUT")
    if fault != "no_edit_right":
        xnat.faults.add(fault, "*/MEDGAN_MODEL/files/*", method="PUT")
    send(xnat, output)
    assert stored(xnat)["MEDGAN_MODEL/run-7/bundle.zip"] == "bundle"


def test_an_upload_without_the_right_says_so_though_xnat_does_not(xnat: XnatServer, output: Path):
    liver(xnat)
    xnat.faults.add("no_edit_right", "*/files/*", method="PUT", times=-1)
    with pytest.raises(OutputError, match="XNAT took 1 of 1 files but does not list them as sent: run-7/synthetic") as caught:
        send(xnat, output)
    assert "the right to edit" in caught.value.fix
    assert caught.value.exit_code == 73


def test_a_reader_is_refused(xnat: XnatServer, output: Path):
    liver(xnat).members["reader"] = "collaborator"
    xnat.accounts.add("reader", "reader-password")
    with pytest.raises(OutputError, match=r"XNAT does not let the user make a resource \(403\)"):
        send(xnat, output, user="reader", password="reader-password")


def test_many_files_go_as_a_zip_that_xnat_unpacks(xnat: XnatServer, output: Path):
    liver(xnat)
    for number in range(MOST_SINGLE_FILES + 1):
        (output / "synthetic/run-7" / f"seed{number}.png").write_text(f"{number}")
    (output / "synthetic/run-7/empty.txt").write_bytes(b"")
    send(xnat, output)
    assert stored(xnat)["MEDGAN_SYNTHETIC/run-7/seed50.png"] == "50"
    assert [r.path for r in xnat.asked("PUT", "*/MEDGAN_SYNTHETIC/files/*")] == [
        "/data/projects/LIVER/resources/MEDGAN_SYNTHETIC/files/part.zip"
    ]


def test_what_a_zip_lost_goes_by_itself(xnat: XnatServer, output: Path):
    liver(xnat)
    for number in range(MOST_SINGLE_FILES + 1):
        (output / "synthetic/run-7" / f"seed{number}.png").write_text(f"{number}")
    xnat.faults.add("no_edit_right", "*/files/part.zip", method="PUT")
    send(xnat, output)
    assert len([name for name in stored(xnat) if name.startswith("MEDGAN_SYNTHETIC/run-7/seed")]) == MOST_SINGLE_FILES + 1


def test_a_check_has_a_resource_of_its_own(xnat: XnatServer, output: Path):
    liver(xnat)
    (output / "report/run-7/status.json").write_text('{"status": "checked"}')
    assert send(xnat, output) == 3
    assert {name.partition("/")[0] for name in stored(xnat)} == {"MEDGAN_CHECK"}


def test_an_output_without_results_is_no_output(xnat: XnatServer, output: Path):
    liver(xnat)
    with connect(xnat, OutputError) as connection, pytest.raises(OutputError, match="nothing in model to send"):
        send_results(connection, target_of("projects/LIVER"), output, {"model": "MEDGAN_MODEL"}, "run-8")


# -- the state of an earlier run -------------------------------------------------------------------------------------------


def test_the_newest_state_is_the_last_run_s_and_within_it_the_final_one(xnat: XnatServer):
    project = liver(xnat)

    def newest(run_name: str = "") -> str:
        with connect(xnat, InputError) as connection:
            found = {file.name: file.md5 for file in checkpoint_files(connection, target_of("projects/LIVER"))}
        return newest_state(found, run_name, lambda name: found.get(name, ""))

    assert newest() == ""
    checkpoint = project.resource("MEDGAN_CHECKPOINT", {"run-9/README.txt": b"complete"})
    assert newest() == ""
    project.resource(
        "MEDGAN_CHECKPOINT", {"run-9/state.pt": b"a", "run-10/state-20260131T120000Z.pt": b"b", "run-10/state-20260131T130000Z.pt": b"c"}
    )
    assert newest() == "run-10/state-20260131T130000Z.pt"
    assert newest("run-9") == "run-9/state.pt"
    checkpoint.store("run-10/state.pt", b"d", overwrite=True)
    assert newest() == "run-10/state.pt"
    assert newest("run-1") == ""


def test_a_state_comes_back_as_a_run_folder_with_its_curves_and_best_network(xnat: XnatServer, tmp_path: Path):
    beside = {"run-9/config.json": b"{}", "run-9/stats.jsonl": b"curve", "run-9/bundle/models/model.pt": b"best"}
    others = {"run-9/state-20260131T120000Z.pt": b"older", "run-8/state.pt": b"other", "run-9/README.txt": b"text"}
    liver(xnat).resource("MEDGAN_CHECKPOINT", {"run-9/state.pt": b"state", **beside, **others})
    xnat.faults.add("truncated", "*/state.pt")
    target = target_of("projects/LIVER")
    with connect(xnat, InputError) as connection:
        fetch_state(connection, target, checkpoint_files(connection, target), "run-9/state.pt", tmp_path / "earlier")
    assert {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in (tmp_path / "earlier").rglob("*") if path.is_file()} == {
        "earlier/config.json": b"{}",
        "earlier/stats.jsonl": b"curve",
        "earlier/bundle/models/model.pt": b"best",
        "earlier/checkpoint/state.pt": b"state",
    }


def test_a_state_s_neighbours_never_lead_out_of_the_run_folder(xnat: XnatServer, tmp_path: Path):
    resource = liver(xnat).resource("MEDGAN_CHECKPOINT", {"run-9/state.pt": b"state"})
    resource.store("run-9/bundle/..\\..\\planted", b"planted", overwrite=True)
    target = target_of("projects/LIVER")
    with connect(xnat, InputError) as connection, pytest.raises(InputError, match="no folder can have"):
        fetch_state(connection, target, checkpoint_files(connection, target), "run-9/state.pt", tmp_path / "earlier")


def test_runs_are_ordered_by_their_number():
    assert sorted(["run-10", "run-9", "mine", "run-9b"], key=natural) == ["mine", "run-9", "run-9b", "run-10"]
