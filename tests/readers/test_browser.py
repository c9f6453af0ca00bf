"""Both designs of the paper and pairs in a real browser, by mouse and by keyboard, with the server and without.

MEDGAN_SCREENSHOTS names a folder for pictures of the pages.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medgan.readers.answers import read_answers
from medgan.readers.design import Design
from medgan.readers.offline import write_offline
from tests.readers.served import Site, Threaded, chromium
from tests.readers.studies import study as made_study

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.browser

# The designs of the paper with fewer images.
CLINICIAN = Design(name="clinician", likert=True, real=3, fake=3)
MULTI_MODEL = Design(name="multi-model", by_model=True, real=2, fake=2)
FORWARD_ONLY = Design(name="forward", real=2, fake=2, go_back=False)
PAIRS = Design(name="pairs", kind="2afc", real=3, fake=3)


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    program = chromium()
    # Without these it asks for its maker's hosts at every start.
    quiet = [
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with playwright.sync_playwright() as engine:
        started = engine.chromium.launch(executable_path=program, args=quiet)
        yield started
        started.close()


@pytest.fixture
def new_page(browser) -> Iterator[Callable[[], playwright.Page]]:
    """Opens a page of a browser with storage of its own, 1280 x 1024, that may say nothing to the console."""
    said: list[str] = []
    contexts = []

    def opened() -> playwright.Page:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 1024}))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        return page

    opened.said = said
    yield opened
    for context in contexts:
        context.close()
    assert said == []


def served(folder: Path, design: Design, models: tuple[str, ...] = ("model",), **options: Any) -> Threaded:
    return Threaded(made_study(folder / "study", design, models=models, **options))


def begin(page: playwright.Page, link: str = "", *, keyboard: bool = False) -> None:
    """From an invitation, or the offline page that is open, to the first image."""
    if link:
        page.goto(link)
        press(page, "Tab", "Enter") if keyboard else page.click("button.go")
    if keyboard:
        page.wait_for_selector("#role")
        press(page, "Tab", "R", "Tab")  # the first role with R
        page.keyboard.type("7")
        press(page, "Tab", "Tab", "Space", "Tab", "Enter")
    else:
        page.select_option("#role", "Radiologist")
        page.fill("#years", "7")
        page.check("#consent")
        page.click("button.go")
    ready(page)


def press(page: playwright.Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def ready(page: playwright.Page) -> None:
    """Until an image is there."""
    page.wait_for_selector(".frame img")


def count(page: playwright.Page) -> str:
    return page.inner_text("#count")


def wait_for(page: playwright.Page, words: str) -> None:
    """Until that image is shown."""
    playwright.expect(page.locator("#count")).to_have_text(words)
    ready(page)


def rows(server: Site) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(server.answers())))


def test_a_clinician_goes_to_the_end_by_keyboard_alone(tmp_path, new_page):
    with served(tmp_path, CLINICIAN) as server:
        page = new_page()
        begin(page, server.invite("R1")[0], keyboard=True)
        given = ["r5", "f1", "2f", "r4", "f2", "3r"]
        for place, keys in enumerate(given):
            wait_for(page, f"Image {place + 1} of 6")
            press(page, *keys)
        page.wait_for_selector("#done:not([hidden])")
        order = [item for _, item in page.evaluate("JSON.parse(document.getElementById('state').textContent).order")]
        saved = {row["item"]: row for row in rows(server)}
    assert [(saved[item]["answer"], saved[item]["likert"]) for item in order] == [
        ("real", "5"), ("fake", "1"), ("fake", "2"), ("real", "4"), ("fake", "2"), ("real", "3")
    ]  # fmt: skip
    assert {(row["role"], row["years"], row["changes"]) for row in saved.values()} == {("Radiologist", "7.0", "0")}
    assert all(0 < int(row["milliseconds"]) < 20_000 for row in saved.values())


def test_the_multi_model_test_is_taken_by_mouse_closed_and_gone_on_with_elsewhere(tmp_path, new_page):
    with served(tmp_path, MULTI_MODEL, models=("none", "ada")) as server:
        link = server.invite("R1")[0]
        page = new_page()
        begin(page, link)
        for place in range(3):
            wait_for(page, f"Image {place + 1} of 8")
            page.click("[data-answer=real]")
        wait_for(page, "Image 4 of 8")
        assert page.inner_text("#part") == "Part 1 of 2"
        page.context.close()
        other = new_page()  # another machine, as far as the server can tell
        other.goto(link)
        other.click("button.go")
        wait_for(other, "Image 4 of 8")
        for place in range(3, 8):
            wait_for(other, f"Image {place + 1} of 8")
            assert other.inner_text("#part") == f"Part {1 + place // 4} of 2"
            other.click("[data-answer=fake]")
        other.wait_for_selector("#done:not([hidden])")
        assert sorted(row["answer"] for row in rows(server)) == ["fake"] * 5 + ["real"] * 3
        assert len({row["section"] for row in rows(server)}) == 2


def test_pairs_lie_side_by_side_under_one_view(tmp_path, new_page):
    with served(tmp_path, PAIRS) as server:
        page = new_page()
        begin(page, server.invite("R1")[0])
        assert page.locator(".frame img").count() == 2
        press(page, "+", "i")
        looks = page.eval_on_selector_all(".frame img", "all => all.map(one => one.getAttribute('style'))")
        assert looks[0] == looks[1]
        assert "scale(1.15)" in looks[0]
        for place, key in enumerate("aba"):
            wait_for(page, f"Pair {place + 1} of 3")
            press(page, key)
        page.wait_for_selector("#done:not([hidden])")
        assert sorted(row["answer"] for row in rows(server)) == ["a", "a", "b"]


def test_who_goes_back_sees_the_answer_and_may_change_it(tmp_path, new_page):
    with served(tmp_path, CLINICIAN) as server:
        page = new_page()
        begin(page, server.invite("R1")[0])
        press(page, "r", "5")
        wait_for(page, "Image 2 of 6")
        press(page, "Backspace")
        wait_for(page, "Image 1 of 6")
        assert page.locator("[data-answer=real][aria-pressed=true]").count() == 1
        assert page.locator("[data-likert='5'][aria-pressed=true]").count() == 1
        press(page, "Enter")  # forth without a change
        wait_for(page, "Image 2 of 6")
        page.click("#back")
        wait_for(page, "Image 1 of 6")
        press(page, "f", "4")  # both fall on this image, which stays until the reader goes on
        playwright.expect(page.locator("[data-likert='4']")).to_have_attribute("aria-pressed", "true")
        assert count(page) == "Image 1 of 6"
        press(page, "Enter")
        wait_for(page, "Image 2 of 6")
        assert page.locator("#next").is_disabled()
        assert [(row["answer"], row["likert"], row["changes"]) for row in rows(server)] == [("fake", "4", "2")]


def test_where_nobody_goes_back_there_is_no_way_to(tmp_path, new_page):
    with served(tmp_path, FORWARD_ONLY) as server:
        page = new_page()
        begin(page, server.invite("R1")[0])
        press(page, "r")
        wait_for(page, "Image 2 of 4")
        assert not page.locator("#back").is_visible()
        press(page, "Backspace", "f")
        wait_for(page, "Image 3 of 4")
        assert sorted(row["answer"] for row in rows(server)) == ["fake", "real"]


def test_pauses_are_not_counted(tmp_path, new_page):
    """By a clock that the test turns: 3 s of looking, 50 s pause, 4 s, ten minutes away, then 2 s and the answer."""
    with served(tmp_path, FORWARD_ONLY) as server:
        page = new_page()
        page.clock.install(time=0)
        page.clock.pause_at(1000)  # from here on it moves when told
        begin(page, server.invite("R1")[0])
        page.clock.run_for(3_000)
        press(page, "p")
        assert not page.locator(".frame img").is_visible()
        page.clock.run_for(50_000)
        press(page, "r")  # does nothing: nobody answers what is not to be seen
        page.click("#resume")
        page.clock.run_for(4_000)
        press(page, "Shift")  # a hand on the keyboard
        page.clock.run_for(600_000)
        assert page.locator("#paused").is_visible()
        page.click("#resume")
        page.clock.run_for(2_000)
        press(page, "f")
        wait_for(page, "Image 2 of 4")
        (row,) = rows(server)
    assert row["milliseconds"] == "9000"


def test_while_the_server_is_away_the_answer_waits_and_is_saved_once(tmp_path, new_page):
    with served(tmp_path, FORWARD_ONLY) as server:
        page = new_page()
        begin(page, server.invite("R1")[0])
        page.route("**/answer", lambda route: route.abort())
        press(page, "r")
        playwright.expect(page.locator("#note")).to_contain_text("Not saved yet")
        assert count(page) == "Image 1 of 4"
        assert rows(server) == []
        page.unroute("**/answer")
        wait_for(page, "Image 2 of 4")
        assert [row["changes"] for row in rows(server)] == ["0"]
    assert all("ERR_FAILED" in words for words in new_page.said)
    new_page.said.clear()


def test_the_window_is_the_formula_of_dicom(tmp_path, new_page):
    """Greys on the screen against PS3.3 C.11.2.1.3.2, with level and width as the sliders say."""
    import numpy as np
    from PIL import Image

    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))[None]
    with served(tmp_path, FORWARD_ONLY, pixels=lambda model, number: ramp, dither=0) as server:
        page = new_page()
        begin(page, server.invite("R1")[0])

        def shown() -> np.ndarray:
            # One device pixel for one of the image: a corner of the stage is enough to see all greys.
            page.eval_on_selector(".frame img", "one => { one.style.width = one.style.height = '256px'; }")
            return np.asarray(Image.open(io.BytesIO(page.locator(".frame img").screenshot())).convert("L"))[128].astype(int)

        g = np.arange(256)
        assert np.array_equal(shown(), g)
        page.eval_on_selector("#level", "one => { one.value = 100; one.dispatchEvent(new Event('input')); }")
        page.eval_on_selector("#width", "one => { one.value = 80; one.dispatchEvent(new Event('input')); }")
        expected = np.clip(((g - 100) / 80 + 0.5) * 255, 0, 255)
        assert np.abs(shown() - expected).max() <= 1
        press(page, "i")
        assert np.abs(shown() - (255 - expected)).max() <= 1


# -- without a server -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("design", "keys"), [(CLINICIAN, ["r5", "f1", "2f", "r4", "f2", "3r"]), (MULTI_MODEL, list("rfrf"))], ids=["clinician", "multi-model"]
)
def test_the_folder_on_a_stick_goes_to_the_end_and_its_csv_is_taken(tmp_path, new_page, design, keys):
    made = made_study(tmp_path / "study", design)
    write_offline(made, tmp_path / "stick")
    address = (tmp_path / "stick" / "index.html").as_uri()
    page = new_page()
    page.goto(address)
    page.fill("#reader", "R7")
    begin(page)
    half = len(keys) // 2
    for place, pressed in enumerate(keys[:half]):
        wait_for(page, f"Image {place + 1} of {len(keys)}")
        press(page, *pressed)
    wait_for(page, f"Image {half + 1} of {len(keys)}")
    press(page, "Backspace")
    wait_for(page, f"Image {half} of {len(keys)}")
    press(page, "f", *(["1", "Enter"] if design.likert else []))
    wait_for(page, f"Image {half + 1} of {len(keys)}")
    again = page.context.new_page()  # the same browser, opened another day
    page.close()
    again.goto(address)
    assert again.input_value("#reader") == "R7"
    begin(again)
    for place, pressed in list(enumerate(keys))[half:]:
        wait_for(again, f"Image {place + 1} of {len(keys)}")
        press(again, *pressed)
    again.wait_for_selector("#done:not([hidden])")
    with again.expect_download() as download:
        again.click("#done .save-answers")
    assert download.value.suggested_filename == f"answers-{made.id}-R7.csv"
    download.value.save_as(tmp_path / "answers.csv")
    saved = read_answers(tmp_path / "answers.csv")
    # In the order of the server for this reader, each answer where it belongs.
    expected = [("real" if "r" in pressed else "fake", int(min(pressed)) if design.likert else None) for pressed in keys]
    expected[half - 1] = ("fake", 1 if design.likert else None)
    assert [(one.section, one.item, one.answer, one.likert) for one in saved] == [
        (*where, *answer) for where, answer in zip(made.order("R7"), expected, strict=True)
    ]
    assert {(one.study, one.reader, one.role, one.years) for one in saved} == {(made.id, "R7", "Radiologist", 7.0)}
    assert sum(one.changes for one in saved) == (1 if design.likert else 0)  # from 2 to 1; from fake to fake
    assert all(one.milliseconds > 0 for one in saved)


# -- for everybody --------------------------------------------------------------------------------------------------------------------------------


def test_axe_finds_nothing_wrong_on_any_page(tmp_path, new_page):
    """WCAG 2.2 A and AA, and axe's best practices, on every page as it stands open."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    faults: list[str] = []

    def look(page: playwright.Page, name: str) -> None:
        found = axe.run(page).response["violations"]
        faults.extend(f"{name}: {one['id']} ({one['impact']}) {one['nodes'][0]['html'][:120]}" for one in found)
        picture(page, name)

    with served(tmp_path, CLINICIAN) as server:
        link, _ = server.invite("R1", "R2")
        page = new_page()
        page.goto(link)
        look(page, "invitation")
        page.click("button.go")
        look(page, "start")
        begin(page)
        look(page, "viewer")
        press(page, "r")
        look(page, "viewer-chosen")
        press(page, "p")
        look(page, "paused")
        press(page, "Enter")
        for place, keys in enumerate(["4", *["f1"] * 5]):
            wait_for(page, f"Image {place + 1} of 6")
            press(page, *keys)
        page.wait_for_selector("#done:not([hidden])")
        look(page, "done")
        page.goto(server.admin)
        page.click("button.go")
        look(page, "administration")
        page.fill("input[name=codes]:visible", "R3 R4")
        page.click("text=Make links")
        look(page, "administration-links")
    write_offline(made_study(tmp_path / "pairs", PAIRS), tmp_path / "stick")
    page.goto((tmp_path / "stick" / "index.html").as_uri())
    look(page, "offline")
    page.fill("#reader", "R7")
    begin(page)
    look(page, "offline-viewer")
    assert faults == []
    # axe fetches style sheets, which the page on the stick forbids.
    assert all("connect-src" in words or "ProgressEvent" in words for words in new_page.said), new_page.said
    new_page.said.clear()


def picture(page: playwright.Page, name: str) -> None:
    if folder := os.environ.get("MEDGAN_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize(("width", "height"), [(1280, 1024), (1280, 720), (1024, 700)])
def test_nothing_has_to_be_scrolled(tmp_path, new_page, width, height):
    made = made_study(tmp_path / "study", CLINICIAN)
    write_offline(dataclasses.replace(made, title="A title as long as titles of studies are, of liver CT"), tmp_path / "stick")
    page = new_page()
    page.set_viewport_size({"width": width, "height": height})
    page.goto((tmp_path / "stick" / "index.html").as_uri())
    page.fill("#reader", "R7")
    begin(page)
    boxes = [page.locator(name).bounding_box() for name in ("#stage", "[data-answer=real]", "[data-likert='5']", "#next", "#who")]
    for box in boxes:
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
    stage = boxes[0]
    assert min(stage["width"], stage["height"]) >= 0.6 * height
    overlap = [
        (a, b)
        for a, b in itertools.combinations(boxes, 2)
        if a["x"] < b["x"] + b["width"] and b["x"] < a["x"] + a["width"] and a["y"] < b["y"] + b["height"] and b["y"] < a["y"] + a["height"]
    ]
    assert overlap == []
