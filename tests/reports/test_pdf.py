"""The PDF twin: the same words, nothing loaded, equal for equal, and one line where it cannot be made."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zlib

import pytest
from PIL import ImageFile

from medgan.errors import ConfigError, OutputError
from medgan.reports.build import build_report
from medgan.reports.pdf import weasyprint, write_pdf
from tests.reports.folder import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    try:
        weasyprint()
    except ConfigError as error:
        pytest.skip(error.message)
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def pdf(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    build_report(run, folder / "report.html", pdf=folder / "report.pdf")
    return (folder / "report.pdf").read_bytes()


def test_it_is_a_tagged_pdf_of_some_pages_with_the_reports_title(pdf):
    objects = pdf + b"".join(zlib.decompress(part) for part in re.findall(rb"/FlateDecode.*?stream\n(.*?)\nendstream", pdf, re.S))
    assert "medgan report: Complete, with remarks".encode("utf-16-be") in objects or b"medgan report: Complete, with remarks" in objects
    assert b"pdfuaid" in objects
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", objects)) <= 20
    assert len(pdf) < 5_000_000


def test_nothing_is_fetched(run, tmp_path):
    """A picture that names a file of this machine stays empty."""
    secret = tmp_path / "secret.svg"
    secret.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"><text y="50">QUELLWERT</text></svg>')
    page = '<!DOCTYPE html><html lang="en"><title>t</title><body><img alt="a" src="{}"><p>text</p></body></html>'
    write_pdf(page.format(secret.as_uri()), tmp_path / "with.pdf")
    write_pdf(page.format("data:,"), tmp_path / "without.pdf")
    assert (tmp_path / "with.pdf").stat().st_size == pytest.approx((tmp_path / "without.pdf").stat().st_size, abs=50)


def test_a_missing_extra_is_one_line_and_nothing_is_written(run, tmp_path):
    """WeasyPrint hidden from the import system, as where the extra is not installed."""
    code = "import sys; sys.modules['weasyprint'] = None; from medgan.cli import main; main()"
    words = ["report", str(run), "--out", str(tmp_path / "r.html"), "--pdf"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "ERROR E_CONFIG --pdf needs the extra `pdf`; fix: pip install 'medgan[pdf]', or print report.html from a browser"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_command_makes_the_same_file_and_takes_no_pdf_as_html(run, pdf, tmp_path):
    from click.testing import CliRunner

    from medgan.commands.report import command

    done = CliRunner().invoke(command, [str(run), "--out", str(tmp_path / "r.html"), "--pdf"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["pdf"] == str(tmp_path / "r.pdf")
    assert (tmp_path / "r.pdf").read_bytes() == pdf
    done = CliRunner().invoke(command, [str(run), "--out", str(tmp_path / "s.pdf"), "--pdf"])
    assert isinstance(done.exception, ConfigError)


def test_a_target_that_is_a_folder_is_the_users_problem(run, tmp_path):
    (tmp_path / "report.pdf").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        build_report(run, tmp_path / "report.html", pdf=tmp_path / "report.pdf")


def test_half_a_picture_stays_an_error_after_its_import(run):
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
