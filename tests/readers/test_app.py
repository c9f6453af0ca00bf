"""The web application, asked as a browser would ask, and as nobody should."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import sqlalchemy as sa
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from medgan.readers.answers import read_answers
from medgan.readers.app import make_app
from medgan.readers.design import Design
from medgan.readers.guard import Limit
from medgan.readers.store import Store, default_url
from medgan.readers.study import KEY, Study, read_key, read_study
from tests.readers.served import ABOUT, enter, field, state
from tests.readers.studies import study as made_study

URL = "http://127.0.0.1:8000"
LIKERT = Design(name="graded", likert=True, real=3, fake=3)
ONCE = Design(name="once", by_model=True, real=2, fake=2, go_back=False)
PAIRS = Design(name="pairs", kind="2afc", real=4, fake=4)


@dataclass
class Site:
    study: Study
    store: Store
    app: Any
    url: str = URL

    def browser(self, **options: Any) -> TestClient:
        """A browser of its own, with cookies of its own."""
        return TestClient(self.app, base_url=self.url, **options)

    def link(self, code: str = "R1", days: float = 1) -> str:
        return f"/i/{self.store.invite(code, days=days)}"

    def reader(self, code: str = "R1") -> tuple[TestClient, dict[str, Any]]:
        """A browser in which a reader has begun, and the state of the viewer."""
        browser = self.browser()
        return browser, enter(browser, self.link(code))

    def administrator(self) -> TestClient:
        browser = self.browser()
        assert browser.post("/admin/enter", data={"token": "planted-admin"}).status_code == 200
        return browser


def site(folder: Path, design: Design, *, models: tuple[str, ...] = ("planted-model",), url: str = URL) -> Site:
    made = made_study(folder / "study", design, models=models)
    store = Store(default_url(folder / "study"), made.id)
    return Site(made, store, make_app(made, store, url=url, admin_token="planted-admin"), url)


@pytest.fixture
def graded(tmp_path) -> Iterator[Site]:
    one = site(tmp_path, LIKERT)
    yield one
    one.store.close()


@pytest.fixture
def once(tmp_path) -> Iterator[Site]:
    one = site(tmp_path, ONCE, models=("none", "ada"))
    yield one
    one.store.close()


def send(browser: TestClient, given: dict[str, Any], **answer: Any) -> httpx.Response:
    value = {"item": given["order"][0][1], "answer": "real", "likert": 4, "milliseconds": 1234, **answer}
    return browser.post("/answer", json=value, headers={"x-csrf-token": given["csrf"]})


def test_a_reader_goes_from_the_link_to_the_last_image_and_the_answers_come_out(graded, tmp_path):
    browser, given = graded.reader("R1")
    assert given["order"] == [list(one) for one in graded.study.order("R1")]
    for place, (_, item) in enumerate(given["order"]):
        assert browser.get(f"/images/{item}.png").status_code == 200
        assert send(browser, given, item=item, likert=place % 5 + 1).json() == {"saved": item}
    assert state(browser.get("/read").text)["saved"].keys() == {item for _, item in given["order"]}
    (tmp_path / "answers.csv").write_text(graded.administrator().get("/admin/answers.csv").text)
    saved = read_answers(tmp_path / "answers.csv")
    assert sorted((one.section, one.item) for one in saved) == sorted(graded.study.order("R1"))
    assert {(one.study, one.reader, one.answer, one.milliseconds, one.changes, one.role, one.years) for one in saved} == {
        (graded.study.id, "R1", "real", 1234, 0, "Radiologist", 12.0)
    }


def test_on_another_machine_the_same_link_goes_on_where_the_reader_was(graded):
    link = graded.link("R1")
    first, second = graded.browser(), graded.browser()
    given = enter(first, link)
    send(first, given)
    again = enter(second, link, begin=False)
    assert again["order"] == given["order"]
    assert again["saved"] == {given["order"][0][1]: {"answer": "real", "likert": 4, "milliseconds": 1234}}
    assert send(second, again, item=given["order"][1][1]).status_code == 200


def test_readers_have_orders_of_their_own(graded):
    assert len({json.dumps(graded.reader(f"R{n}")[1]["order"]) for n in range(6)}) > 3


def test_the_key_is_not_even_opened(graded):
    (graded.study.folder / KEY).unlink()
    browser, given = graded.reader()
    assert send(browser, given).status_code == 200
    assert graded.administrator().get("/admin/").status_code == 200


def test_no_page_says_what_an_image_is(once, tmp_path):
    truths = read_key(once.study.folder)
    names = {one.model for one in truths.values()} | {source for one in truths.values() for source in one.sources} | {'"truth"', "key.json"}
    browser, given = once.reader()
    administrator = once.administrator()
    pages = [browser.get(path) for path in ("/", "/start", "/read", "/static/viewer.js", "/static/online.js")]
    pages += [administrator.get(path) for path in ("/admin/", "/admin/answers.csv")]
    assert {page.status_code for page in pages} == {200}
    for page in pages:
        assert [name for name in names if re.search(rf"\b{re.escape(name)}\b", page.text) and name not in ("none",)] == []
    assert given.keys() == {"kind", "answers", "likert", "goBack", "order", "saved", "csrf"}


@pytest.mark.parametrize(
    "path",
    ["/key.json", "/study.json", "/answers.sqlite", "/images/key.json", "/images/..%2fkey.json", "/images/%2e%2e%2fkey.json", "/images/../key.json", "/images/", "/images",
     "/static/", "/static/..%2f..%2fapp.py", "/static/%2e%2e/templates/base.html.j2", "/static/../app.py", "/.git/config", "/admin/../key.json"],
)  # fmt: skip
def test_nothing_but_pages_and_pictures_is_served(graded, path):
    browser, _ = graded.reader()
    # httpx would take dots out of the path by itself.
    reply = browser.get(httpx.URL(URL).copy_with(raw_path=path.encode()))
    assert reply.status_code in (404, 405)
    assert "There is no such" in reply.text


def test_all_pictures_come_with_equal_headers_and_lengths(tmp_path):
    pairs = site(tmp_path, PAIRS)
    browser, given = pairs.reader()
    replies = [browser.get(f"/images/{item}-{side}.png") for _, item in given["order"] for side in "ab"]
    assert {reply.status_code for reply in replies} == {200}
    assert len({json.dumps(reply.headers.multi_items()) for reply in replies}) == 1
    headers = replies[0].headers
    assert headers["content-type"] == "image/png"
    assert not {"etag", "last-modified", "content-encoding"} & set(headers)
    assert headers["cache-control"] == "no-store"
    item = given["order"][0][1]
    assert browser.get(f"/images/{item}-a.png").content == (pairs.study.folder / "images" / f"{item}-a.png").read_bytes()
    pairs.store.close()


def test_pictures_are_for_readers_who_consented(graded):
    item = graded.study.order("R1")[0][1]
    stranger, reader, administrator = graded.browser(), graded.browser(), graded.administrator()
    enter_only = {"token": graded.link().rpartition("/")[2]}
    assert stranger.get(f"/images/{item}.png").status_code == 401
    assert administrator.get(f"/images/{item}.png").status_code == 401
    reader.post("/enter", data=enter_only)
    assert reader.get(f"/images/{item}.png").status_code == 404
    assert reader.get("/read").url.path == "/start"


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"item": "0123456789abcdef"}, 404, "not in the study"),
        ({"item": None}, 404, "not in the study"),
        ({"item": ["x"]}, 404, "not in the study"),
        ({"answer": "unsure"}, 400, "one of real, fake"),
        ({"answer": None}, 400, "one of real, fake"),
        ({"likert": 0}, 400, "1 to 5"),
        ({"likert": 6}, 400, "1 to 5"),
        ({"likert": None}, 400, "1 to 5"),
        ({"likert": 2.5}, 400, "1 to 5"),
        ({"likert": True}, 400, "1 to 5"),
        ({"likert": "3"}, 400, "1 to 5"),
        ({"milliseconds": -1}, 400, "milliseconds"),
        ({"milliseconds": 86_400_001}, 400, "milliseconds"),
        ({"milliseconds": None}, 400, "milliseconds"),
        ({"milliseconds": float("1e3")}, 400, "milliseconds"),
    ],
)
def test_an_answer_that_cannot_be_is_refused(graded, given, code, words):
    browser, shown = graded.reader()
    reply = send(browser, shown, **given)
    assert (reply.status_code, words in reply.json()["problem"]) == (code, True)
    assert graded.store.answers() == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 60_000])
def test_what_is_no_answer_is_refused(graded, body):
    browser, given = graded.reader()
    reply = browser.post("/answer", content=body, headers={"x-csrf-token": given["csrf"]})
    assert reply.status_code in (400, 404)
    assert graded.store.answers() == []


def test_a_scale_is_not_answered_where_none_is_asked(once):
    browser, given = once.reader()
    assert send(browser, given, likert=3).json() == {"problem": "This study has no scale."}
    assert send(browser, given, likert=None).status_code == 200


def test_a_long_body_is_cut_off(graded):
    browser, given = graded.reader()
    reply = browser.post("/answer", content=b" " * 70_000, headers={"x-csrf-token": given["csrf"]})
    assert reply.status_code == 413


def test_images_are_answered_in_their_order(graded):
    browser, given = graded.reader()
    assert send(browser, given, item=given["order"][1][1]).status_code == 409
    assert send(browser, given).status_code == 200
    assert send(browser, given, item=given["order"][1][1]).status_code == 200
    assert send(browser, given, answer="fake").status_code == 200  # this design lets readers go back
    assert sorted((one.item, one.changes) for one in graded.store.answers()) == sorted(
        [(given["order"][0][1], 1), (given["order"][1][1], 0)]
    )


def test_where_nobody_goes_back_an_answer_stays(once):
    browser, given = once.reader()
    assert send(browser, given, likert=None).status_code == 200
    assert send(browser, given, likert=None).status_code == 200
    reply = send(browser, given, likert=None, answer="fake")
    assert (reply.status_code, reply.json()["problem"][:35]) == (409, "This image has an answer already, w")
    assert [one.answer for one in once.store.answers()] == ["real"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [({}, 403), ({"x-csrf-token": "0" * 64}, 403), ({"x-csrf-token": "é"}, 403), ({"x-csrf-token": "RIGHT", "origin": "https://evil.example"}, 403),
     ({"x-csrf-token": "RIGHT", "origin": "null"}, 403), ({"x-csrf-token": "RIGHT", "origin": URL}, 200), ({"x-csrf-token": "RIGHT"}, 200)],
)  # fmt: skip
def test_another_sites_page_cannot_answer(graded, headers, code):
    browser, given = graded.reader()
    sent = {name: given["csrf"] if value == "RIGHT" else value.encode() for name, value in headers.items()}
    value = {"item": given["order"][0][1], "answer": "real", "likert": 4, "milliseconds": 1}
    assert browser.post("/answer", json=value, headers=sent).status_code == code
    assert len(graded.store.answers()) == (code == 200)


def test_a_page_of_one_reader_does_not_answer_for_another_who_came_after(graded):
    browser, given = graded.reader("R1")
    enter(browser, graded.link("R2"))
    reply = send(browser, given)
    assert (reply.status_code, reply.json()["problem"]) == (403, "This page was opened with another link. Load it again.")
    assert graded.store.answers() == []


@pytest.mark.parametrize("kind", ["unknown", "expired", "revoked", "of another study", "replaced"])
def test_a_link_that_does_not_count_opens_nothing(graded, kind):
    link = {
        "unknown": lambda: "/i/nobody",
        "expired": lambda: graded.link(days=-1),
        "revoked": lambda: (graded.link(), graded.store.revoke("R1"))[0],
        "of another study": lambda: f"/i/{Store(default_url(graded.study.folder), 'other').invite('R1', days=1)}",
        "replaced": lambda: (graded.link(), graded.link())[0],
    }[kind]()
    browser = graded.browser()
    reply = browser.post("/enter", data={"token": field(browser.get(link).text, "token")})
    assert (reply.status_code, "unknown or has expired" in reply.text) == (404, True)
    assert not browser.cookies
    assert browser.get("/read").status_code == 401


def test_looking_at_a_link_begins_nothing(graded):
    """As the filters of mail programs do."""
    link = graded.link()
    graded.browser().get(link)
    assert [one.began for one in graded.store.readers()] == [""]
    assert not graded.browser().get(link).cookies


def test_a_link_that_ends_ends_the_reading_too(graded):
    browser, given = graded.reader()
    graded.store.revoke("R1")
    assert send(browser, given).status_code == 401
    assert graded.store.answers() == []


def test_guessing_links_is_slowed_and_readers_go_on(graded):
    browser, given = graded.reader()
    guesser = graded.browser()
    codes = [guesser.post("/enter", data={"token": f"guess{n}"}).status_code for n in range(30)]
    assert codes[:20] == [404] * 20
    assert codes[-5:] == [429] * 5
    assert guesser.post("/admin/enter", data={"token": "planted-admin"}).status_code == 429
    assert send(browser, given).status_code == 200


def test_a_flood_of_one_reader_is_held_and_nothing_is_lost(graded):
    browser, given = graded.reader()
    limit = graded.app.app.state.site.requests
    limit.rate, limit.burst = 0, 30
    codes = [send(browser, given, milliseconds=n).status_code for n in range(40)]
    assert set(codes) == {200, 429}
    assert len(graded.store.answers()) == 1


def test_a_limit_gives_back_its_rate():
    now = [0.0]
    limit = Limit(rate=2, burst=3, most=2, clock=lambda: now[0])
    for _ in range(3):
        limit.count("a")
    with pytest.raises(HTTPException):
        limit.count("a")
    limit.count("b")
    now[0] = 0.5  # one more
    limit.count("a")
    assert limit.exhausted("a")
    # b is full again and forgotten when room is needed; a is not, and stays held.
    now[0] = 0.6
    limit.count("c")
    assert limit._left.keys() == {"a", "c"}
    assert limit.exhausted("a")


def test_every_answer_has_the_headers_and_no_page_runs_or_styles_inline(graded):
    browser, _ = graded.reader()
    administrator = graded.administrator()
    replies = [browser.get(path) for path in ("/", "/read", "/nowhere", "/static/readers.css", "/i/x")] + [graded.browser().get("/")]
    replies += [administrator.get("/admin/"), browser.post("/answer"), graded.browser().get("/", headers={"host": "evil.example"})]
    for reply in replies:
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["cache-control"] == "no-store"
        assert not re.search(
            r"<script(?![^>]*(src=|application/json))|<style|\sstyle=|\son[a-z]+=|https?://(?!127\.0\.0\.1)(?!www\.w3\.org)", reply.text
        )


def test_a_crash_has_the_headers_and_says_nothing(graded, monkeypatch):
    browser = graded.browser(raise_server_exceptions=False)
    enter(browser, graded.link())
    (graded.study.folder / "images" / f"{graded.study.order('R1')[0][1]}.png").unlink()
    reply = browser.get(f"/images/{graded.study.order('R1')[0][1]}.png")
    assert (reply.status_code, reply.text) == (500, "Internal Server Error")
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_a_name_of_another_site_that_points_here_is_refused(graded):
    assert graded.browser().get("/", headers={"host": "evil.example"}).status_code == 400
    assert graded.browser().get("/", headers={"host": "localhost:8000"}).status_code == 401


@pytest.mark.parametrize(("url", "secure"), [(URL, False), ("https://127.0.0.1", True)])
def test_cookies_are_for_this_site_and_no_script(tmp_path, url, secure):
    one = site(tmp_path, LIKERT, url=url)
    browser = one.browser(follow_redirects=False)
    token = one.link().rpartition("/")[2]
    replies = [browser.post("/enter", data={"token": token}), browser.post("/admin/enter", data={"token": "planted-admin"})]
    for reply in replies:
        words = {word.strip().lower() for word in reply.headers["set-cookie"].split(";")}
        assert {"httponly", "samesite=strict"} < words
        assert ("secure" in words) == secure
        assert not any(word.startswith(("max-age", "expires")) for word in words)  # ends with the browser
        assert ("strict-transport-security" in reply.headers) == secure
    one.store.close()


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"consent": ""}, "Without your consent"),
        ({"role": ""}, "Choose what you are"),
        ({"role": "<script>"}, "Choose what you are"),
        ({"years": ""}, "years of experience"),
        ({"years": "-1"}, "years of experience"),
        ({"years": "71"}, "years of experience"),
        ({"years": "nan"}, "years of experience"),
        ({"years": "many"}, "years of experience"),
    ],
)
def test_consent_role_and_experience_come_before_the_first_image(graded, about, words):
    browser = graded.browser()
    shown = browser.post("/enter", data={"token": graded.link().rpartition("/")[2]})
    reply = browser.post("/start", data={"csrf": field(shown.text, "csrf"), **ABOUT, **about})
    assert (reply.status_code, words in reply.text) == (400, True)
    assert graded.study.design.consent[:40] in reply.text
    assert send(browser, {"csrf": field(shown.text, "csrf"), "order": graded.study.order("R1")}).status_code == 403
    assert graded.store.readers()[0].began == ""


def test_years_may_have_a_decimal_comma(graded):
    browser = graded.browser()
    shown = browser.post("/enter", data={"token": graded.link().rpartition("/")[2]})
    browser.post("/start", data={"csrf": field(shown.text, "csrf"), **ABOUT, "years": "2,5"})
    assert graded.store.readers()[0].years == 2.5


def test_a_title_is_shown_as_text(tmp_path):
    made = made_study(tmp_path / "study", LIKERT)
    words = "</script><script>alert(1)</script>"
    path = made.folder / "study.json"
    path.write_text(path.read_text().replace('"A test"', json.dumps(words)))
    store = Store(default_url(made.folder), made.id)
    one = Site(read_study(made.folder), store, make_app(read_study(made.folder), store, url=URL, admin_token="planted-admin"))
    browser, _ = one.reader()
    for page in (browser.get("/read"), one.administrator().get("/admin/"), browser.get("/nowhere")):
        assert "alert(1)" in page.text
        assert words not in page.text
    store.close()


def test_who_leaves_is_forgotten(graded):
    browser, given = graded.reader()
    assert "Every answer is saved" in browser.post("/leave", data={"csrf": given["csrf"]}).text
    assert browser.get("/read").status_code == 401


def test_a_database_that_goes_away_is_said_and_loses_nothing(graded, monkeypatch, caplog):
    browser, given = graded.reader()
    with graded.store._engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE answers RENAME TO away"))
    reply = send(browser, given)
    assert (reply.status_code, reply.json()["problem"][:28]) == (503, "The database does not answer")
    assert str(graded.study.folder) not in caplog.text
    with graded.store._engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE away RENAME TO answers"))
    assert send(browser, given).status_code == 200


# -- the administrator ---------------------------------------------------------------------------------------------------------------------------


def test_the_administrator_invites_and_sees_how_far_readers_are(graded):
    administrator = graded.administrator()
    page = administrator.get("/admin/").text
    assert "Nobody is invited yet" in page
    made = administrator.post("/admin/invite", data={"csrf": field(page, "csrf"), "codes": "R02, R01 R02", "days": "30"})
    links = dict(re.findall(r'<th scope="row">(\w+)</th><td><code>(.*?)</code>', made.text))
    assert list(links) == ["R02", "R01"]
    assert all(link.startswith(f"{URL}/i/") for link in links.values())
    browser = graded.browser()
    send(browser, enter(browser, links["R01"]))
    shown = administrator.get("/admin/").text
    assert all(link not in shown for link in links.values())
    rows = [re.sub(r"<[^>]+>|\s+", " ", row).split() for row in re.findall(r"<tr>(.*?)</tr>", shown, re.S)[1:]]
    assert [(row[0], row[1:5]) for row in rows] == [("R01", ["1", "/", "6", "reading"]), ("R02", ["0", "/", "6", "invited"])]
    assert "Radiologist" in shown


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"codes": ""}, "Give a code"),
        ({"codes": "Dr.Erika"}, "letters, digits and dashes"),
        ({"codes": "R1"}, "R1 has a link already"),
        ({"codes": " ".join(f"A{n}" for n in range(501))}, "500 readers at most"),
        ({"days": "0"}, "1 to 366 days"),
        ({"days": "367"}, "1 to 366 days"),
        ({"days": "soon"}, "1 to 366 days"),
    ],
)
def test_an_invitation_that_cannot_be_makes_nothing(graded, given, words):
    graded.link("R1")
    administrator = graded.administrator()
    csrf = field(administrator.get("/admin/").text, "csrf")
    reply = administrator.post("/admin/invite", data={"csrf": csrf, "codes": "R7", "days": "60", **given})
    assert (reply.status_code, words in reply.text) == (400, True)
    assert [one.code for one in graded.store.readers()] == ["R1"]


def test_the_administrators_pages_are_for_the_administrator(graded):
    browser, given = graded.reader()
    for path in ("/admin/", "/admin/answers.csv"):
        assert browser.get(path).status_code == 401
    for path in ("/admin/invite", "/admin/revoke", "/admin/leave"):
        assert browser.post(path, data={"csrf": given["csrf"], "codes": "R9", "days": "1", "code": "R1"}).status_code == 401
        # The cookie alone, as another site's page would send it, is not enough.
        assert graded.administrator().post(path, data={"codes": "R9", "days": "1", "code": "R1"}).status_code == 403
    assert browser.post("/admin/enter", data={"token": "guess"}).status_code == 404
    assert [one.code for one in graded.store.readers()] == ["R1"]
    assert browser.get("/read").status_code == 200


def test_a_link_ends_and_is_replaced_at_the_administrators_word(graded):
    browser, given = graded.reader()
    administrator = graded.administrator()
    csrf = field(administrator.get("/admin/").text, "csrf")
    send(browser, given)
    assert "ended" in administrator.post("/admin/revoke", data={"csrf": csrf, "code": "R1"}).text
    assert browser.get("/read").status_code == 401
    fresh = administrator.post("/admin/invite", data={"csrf": csrf, "codes": "R1", "days": "60", "again": "yes"}).text
    link = re.search(r"<code>(.*?)</code>", fresh)[1]
    assert len(enter(graded.browser(), link, begin=False)["saved"]) == 1
    administrator.post("/admin/leave", data={"csrf": csrf})
    assert administrator.get("/admin/").status_code == 401


def test_the_csv_is_a_file_of_its_own_with_one_row_an_answer(graded):
    browser, given = graded.reader()
    send(browser, given)
    reply = graded.administrator().get("/admin/answers.csv")
    assert reply.headers["content-disposition"] == f'attachment; filename="answers-{graded.study.id}.csv"'
    assert [row["reader"] for row in csv.DictReader(io.StringIO(reply.text))] == ["R1"]
