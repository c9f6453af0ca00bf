"""`medgan report`: a file, a JSON answer, and one line where it cannot."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from medgan.commands.report import command
from tests.reports.folder import make_run


def medgan(*words):
    return subprocess.run([sys.executable, "-m", "medgan", *map(str, words)], capture_output=True, text=True, check=False, timeout=120)


def test_it_writes_into_the_run_folder_and_answers_in_json(tmp_path):
    run = make_run(tmp_path / "run")
    done = medgan("report", run)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["verdict"] == "Complete, with remarks"
    assert answer["checks"]["Final FID"] == "look"
    assert answer["missing"] == []
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_real_examples_are_shown_when_asked_for(tmp_path):
    run = make_run(tmp_path / "run")
    done = CliRunner().invoke(command, [str(run), "--include-real-examples"])
    assert done.exit_code == 0, done.output
    assert "real images of patients" in (run / "report.html").read_text(encoding="utf-8")


def test_out_figures_and_pack(tmp_path):
    run = make_run(tmp_path / "run")
    words = [str(run), "--out", str(tmp_path / "a" / "r.html"), "--figures", str(tmp_path / "f"), "--pack", str(tmp_path / "p")]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert "real images of patients" not in (tmp_path / "a" / "r.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["CLAIM-2024.md", "DATASHEET.md", "MI-CLAIM-GEN.md", "MODEL_CARD.md"]
    assert (tmp_path / "f" / "curves.png").exists()
    assert not (run / "report.html").exists()


def test_a_folder_of_something_else_is_one_line_and_66(tmp_path):
    done = medgan("report", tmp_path)
    assert done.returncode == 66
    assert done.stderr.strip() == "ERROR E_INPUT the folder holds no file of a run; fix: give the --out folder of medgan train"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_a_folder_that_is_none_is_one_line_without_its_name(tmp_path, kind):
    run = tmp_path / "Muster_Erika"
    if kind == "file":
        run.write_text("")
    done = medgan("report", run)
    assert done.returncode == 66
    assert done.stderr.strip() == "ERROR E_INPUT RUN names no folder that exists; fix: give the --out folder of medgan train"


def test_figures_that_cannot_be_written_are_one_line_without_their_name(tmp_path):
    run = make_run(tmp_path / "run")
    (tmp_path / "Muster_Erika").write_text("")
    done = medgan("report", run, "--figures", tmp_path / "Muster_Erika")
    assert done.returncode == 73
    assert "Muster" not in done.stderr
    assert done.stderr.startswith("ERROR E_OUTPUT")


def test_out_and_figures_may_be_variables(tmp_path):
    run = make_run(tmp_path / "run")
    places = {"MEDGAN_OUT": str(tmp_path / "r.html"), "MEDGAN_FIGURES": str(tmp_path / "f")}
    done = CliRunner().invoke(command, [str(run)], env=places)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "r.html").exists()
    assert (tmp_path / "f" / "curves.png").exists()
