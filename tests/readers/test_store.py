"""Answers in SQLite and in PostgreSQL: each test runs on both."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from medgan.errors import ConfigError, DataError, InputError
from medgan.readers.answers import Answer
from medgan.readers.store import Closed, Store, answers, default_url
from tests.readers.served import postgresql

ONE = Answer(study="s", reader="R1", section="k", item="i1", answer="real", likert=4, milliseconds=1500)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request) -> Iterator[str]:
    """ "" for SQLite, else the URL of a PostgreSQL server."""
    if request.param == "sqlite":
        yield ""
        return
    with postgresql() as url:
        yield url


@pytest.fixture
def url(server, tmp_path) -> str:
    """An empty database."""
    if not server:
        return default_url(tmp_path)
    name = tmp_path.name.replace("-", "_").lower()
    engine = sa.create_engine(sa.make_url(server).set(drivername="postgresql+pg8000"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return server.replace("/postgres", f"/{name}")


@pytest.fixture
def store(url) -> Iterator[Store]:
    store = Store(url, "s")
    for code in ("R1", "R2"):
        store.invite(code, days=1)
        store.begin(code, role="Radiologist", years=7.5)
    yield store
    store.close()


def test_what_was_saved_is_there_for_whoever_opens_the_database_next(store, url):
    store.save(ONE, change=True)
    store.save(dataclasses.replace(ONE, reader="R2", likert=None, answer="fake", milliseconds=None), change=True)
    assert answers(url, "s") == [
        dataclasses.replace(ONE, role="Radiologist", years=7.5),
        dataclasses.replace(ONE, reader="R2", likert=None, answer="fake", milliseconds=None, role="Radiologist", years=7.5),
    ]
    assert answers(url, "another study") == []


def test_an_answer_sent_twice_is_there_once_and_is_no_change(store):
    for milliseconds in (1500, 1500, 1700):
        store.save(dataclasses.replace(ONE, milliseconds=milliseconds), change=True)
    assert [(one.changes, one.milliseconds) for one in store.answers()] == [(0, 1700)]


def test_each_other_answer_and_each_other_grade_is_a_change(store):
    for answer, likert in [("real", 4), ("fake", 4), ("fake", 2), ("fake", 2), ("real", 5)]:
        store.save(dataclasses.replace(ONE, answer=answer, likert=likert), change=True)
    assert [(one.answer, one.likert, one.changes) for one in store.answers()] == [("real", 5, 3)]


def test_a_design_without_going_back_keeps_the_first_answer(store):
    store.save(ONE, change=False)
    store.save(ONE, change=False)  # sent again after a lost reply
    for other in ({"answer": "fake"}, {"likert": 1}):
        with pytest.raises(Closed):
            store.save(dataclasses.replace(ONE, **other), change=False)
    assert [(one.answer, one.likert, one.changes) for one in store.answers()] == [("real", 4, 0)]


def test_the_same_answer_from_many_threads_at_once_is_one_row(store):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: store.save(ONE, change=True), range(64)))
    assert [(one.item, one.changes) for one in store.answers()] == [("i1", 0)]


def test_an_answer_of_nobody_is_refused_by_the_database_itself(store):
    with pytest.raises(sa.exc.DBAPIError, match=r"(?i)foreign key"):
        store.save(dataclasses.replace(ONE, reader="R9"), change=True)


def test_only_the_newest_invitation_of_a_reader_opens_until_it_ends(store, url):
    first = store.invite("R1", days=1)
    second = store.invite("R1", days=1)
    assert store.welcome(first) is None
    assert store.welcome(second).code == "R1"
    assert store.welcome(second).began  # a new link is no new start
    assert Store(url, "another study").welcome(second) is None
    store.revoke("R1")
    assert store.welcome(second) is None
    assert store.welcome(store.invite("R1", days=-1)) is None


def test_the_database_holds_no_invitation_that_could_be_used(store, url, server, tmp_path):
    token = store.invite("R1", days=1)
    store.close()
    if not server:
        assert token.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    else:
        engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+pg8000"))
        with engine.connect() as connection:
            assert token not in str(connection.execute(sa.text("SELECT * FROM readers")).all())
        engine.dispose()


def test_progress_counts_answers_of_the_study_only(store, url):
    other = Store(url, "other")
    other.invite("R1", days=1)
    for item in ("i1", "i2"):
        store.save(dataclasses.replace(ONE, item=item), change=True)
    other.save(dataclasses.replace(ONE, item="i3"), change=True)
    assert [(one.code, one.answered, bool(one.last), one.role, one.years) for one in store.readers()] == [
        ("R1", 2, True, "Radiologist", 7.5),
        ("R2", 0, False, "Radiologist", 7.5),
    ]
    assert [(one.code, one.answered) for one in other.readers()] == [("R1", 1)]
    other.close()


def test_consent_is_given_once(store):
    before = store.readers()[0]
    store.begin("R1", role="Student", years=0)
    assert store.readers()[0] == before


def test_a_database_of_another_version_is_refused(store, url):
    with store._writing() as connection:
        connection.execute(sa.text("UPDATE medgan_readers SET version = 7"))
    with pytest.raises(DataError, match="of version 7, this medgan's is 1"):
        Store(url, "s")


def test_tables_of_something_else_are_left_alone(url):
    engine = sa.create_engine(sa.make_url(url.replace("postgresql", "postgresql+pg8000")))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE answers (colour TEXT)"))
    with pytest.raises(DataError, match="tables of something else"):
        Store(url, "s")
    assert sa.inspect(engine).get_table_names() == ["answers"]
    engine.dispose()


def test_looking_makes_nothing(url, tmp_path):
    with pytest.raises((DataError, InputError), match=r"holds no answers|names no file"):
        answers(url, "s")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", ["", "Dr. Erika Mustermann", "a" * 21, "R 1", "-1", "Ä1", "R1\n"])
def test_a_code_is_no_name(store, code):
    with pytest.raises(ConfigError, match="letters, digits and dashes"):
        store.invite(code, days=1)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("answers.sqlite", "no URL"),
        ("mysql://erika:planted-secret@127.0.0.1/x", "neither SQLite nor PostgreSQL"),
        ("sqlite://", "neither SQLite nor PostgreSQL"),
        ("sqlite:////nowhere/answers.sqlite", "folder that does not exist"),
        ("postgresql://erika:planted-secret@127.0.0.1:1/x", "cannot be reached"),
        ("postgresql://erika:planted-secret@name.invalid/x", "cannot be reached"),
    ],
)
def test_a_database_that_cannot_be_is_one_line_without_its_password(url, problem):
    with pytest.raises((ConfigError, InputError), match=problem) as caught:
        Store(url, "s")
    assert "secret" not in caught.value.line
    assert caught.value.fix


def test_a_wrong_password_is_one_line(server):
    if not server:
        pytest.skip("SQLite has none")
    with pytest.raises(InputError, match="cannot be reached or opened"):
        Store(server.replace("planted-secret", "wrong"), "s")


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path):
    (tmp_path / "answers.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match="no SQLite database"):
        Store(default_url(tmp_path), "s")
    assert (tmp_path / "answers.sqlite").read_bytes() == b"no database" * 100


def test_sqlite_syncs_at_every_commit_and_is_the_owners_only(tmp_path):
    store = Store(default_url(tmp_path), "s")
    with store._engine.connect() as connection:
        settings = [connection.execute(sa.text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous", "foreign_keys")]
    assert settings == ["wal", 2, 1]  # 2 is FULL
    assert (tmp_path / "answers.sqlite").stat().st_mode & 0o777 == 0o600
    store.close()


def test_sqlite_alone_reads_the_table(tmp_path):
    """What a statistician without medgan would do."""
    store = Store(default_url(Path(tmp_path)), "s")
    store.invite("R1", days=1)
    store.save(ONE, change=True)
    store.close()
    with sqlite3.connect(tmp_path / "answers.sqlite") as connection:
        assert connection.execute("SELECT reader, item, answer, likert, changes FROM answers").fetchall() == [("R1", "i1", "real", 4, 0)]
