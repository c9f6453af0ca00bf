"""Readers and their answers in a database: SQLite, or PostgreSQL where several machines or a hospital's backups want it.

What is saved is on the disk when `Store.save` returns: SQLite syncs its log at every commit, PostgreSQL does so by default. Of invitation links only
the SHA-256 is kept: who reads the database cannot answer in a reader's name.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from medgan import runs
from medgan.errors import ConfigError, DataError, InputError
from medgan.readers.answers import Answer
from medgan.readers.study import DATABASE

SCHEMA = 1
CODE = r"[A-Za-z0-9][A-Za-z0-9-]{0,19}"
"""A reader's code: too short and plain for a name and an address, but nobody can keep people from typing one."""
BUSY_SECONDS = 30
"""How long a writer waits for others. 200 readers who answer at the same moment are done in a few seconds."""

_tables = sa.MetaData()
_versions = sa.Table("medgan_readers", _tables, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))
_readers = sa.Table(
    "readers",
    _tables,
    sa.Column("study", sa.String(64), primary_key=True),
    sa.Column("reader", sa.String(20), primary_key=True),
    sa.Column("token_sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("expires", sa.String(20), nullable=False),
    sa.Column("began", sa.String(20), nullable=False),  # times are ISO 8601 in UTC, which sort as text; empty: not yet
    sa.Column("role", sa.String(80), nullable=False),
    sa.Column("years", sa.Float),
)
_answers = sa.Table(
    "answers",
    _tables,
    sa.Column("study", sa.String(64), primary_key=True),
    sa.Column("reader", sa.String(20), primary_key=True),
    sa.Column("item", sa.String(64), primary_key=True),  # with the two above it: an answer cannot be there twice
    sa.Column("section", sa.String(64), nullable=False),
    sa.Column("answer", sa.String(8), nullable=False),
    sa.Column("likert", sa.Integer),
    sa.Column("milliseconds", sa.Integer),
    sa.Column("changes", sa.Integer, nullable=False),
    sa.Column("saved", sa.String(20), nullable=False),
    sa.ForeignKeyConstraint(["study", "reader"], ["readers.study", "readers.reader"]),
)


@dataclass(frozen=True)
class Reader:
    """A reader of a study.

    Attributes:
        code: Stands for a name everywhere.
        expires: When the invitation does, ISO 8601 in UTC.
        began: When the reader consented; empty before.
        role: What the reader is; empty before.
        years: Of experience; None where not said.
        answered: Items so far.
        last: When the last answer was saved; empty where none was.
    """

    code: str
    expires: str
    began: str
    role: str
    years: float | None
    answered: int = 0
    last: str = ""


class Closed(Exception):
    """An answer that may no longer be changed."""


class Store:
    """The database of a study's readers.

    Args:
        url: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`.
        study: Id of the study; a database may hold several.
        create: Make what is missing; otherwise it must be there.

    Raises:
        ConfigError: The URL is of neither kind.
        InputError: The database cannot be reached or opened.
        DataError: It is of another version of medgan.
    """

    def __init__(self, url: str, study: str, *, create: bool = True) -> None:
        self.study = study
        self._engine = _open(url, create)
        self._insert: Any = sqlite.insert if self._engine.dialect.name == "sqlite" else postgresql.insert
        with _problems():
            _check(self._engine, create)

    def close(self) -> None:
        self._engine.dispose()

    def invite(self, code: str, *, days: float) -> str:
        """The secret of a new reader's invitation, which is kept nowhere. Who was invited before gets a new one, and the old one ends.

        Raises:
            ConfigError: The code is none.
        """
        if not re.fullmatch(CODE, code):
            raise ConfigError("a reader's code is 1 to 20 letters, digits and dashes", fix="R07")
        token = secrets.token_urlsafe(24)
        row = {"token_sha256": _digest(token), "expires": _time(days)}
        statement = self._insert(_readers).values(study=self.study, reader=code, began="", role="", **row)
        with self._writing() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["study", "reader"], set_=row))
        return token

    def revoke(self, code: str) -> None:
        """End a reader's invitation; what was answered stays."""
        with self._writing() as connection:
            connection.execute(_readers.update().where(self._is(_readers, code)).values(expires=_time(0)))

    def welcome(self, token: str) -> Reader | None:
        """Whose invitation this is; None where it is nobody's or has expired."""
        known = sa.and_(_readers.c.study == self.study, _readers.c.token_sha256 == _digest(token), _readers.c.expires > _time(0))
        found = self._read_readers(known)
        return found[0] if found else None

    def readers(self) -> list[Reader]:
        """All readers of the study with how far they are, by code."""
        return self._read_readers(_readers.c.study == self.study)

    def _read_readers(self, which: sa.ColumnElement[bool]) -> list[Reader]:
        both = sa.and_(_answers.c.study == _readers.c.study, _answers.c.reader == _readers.c.reader)
        columns = (_readers.c.reader, _readers.c.expires, _readers.c.began, _readers.c.role, _readers.c.years)
        query = (
            sa.select(*columns, sa.func.count(_answers.c.item), sa.func.coalesce(sa.func.max(_answers.c.saved), ""))
            .select_from(_readers.outerjoin(_answers, both))
            .where(which)
            .group_by(*columns)
            .order_by(_readers.c.reader)
        )
        with self._engine.connect() as connection:
            return [Reader(*row) for row in connection.execute(query)]

    def begin(self, code: str, *, role: str, years: float | None) -> None:
        """Keep that a reader consented, and the role and years of experience. A second time changes nothing."""
        row = {"began": _time(0), "role": role, "years": years}
        with self._writing() as connection:
            connection.execute(_readers.update().where(self._is(_readers, code), _readers.c.began == "").values(**row))

    def save(self, answer: Answer, *, change: bool) -> None:
        """Keep an answer; when this returns, it is on the disk. The same answer again, as after a lost reply, is no change.

        Args:
            answer: Its `changes`, `role` and `years` are not looked at.
            change: Whether another answer than the one that is there takes its place.

        Raises:
            Closed: Another answer is there, and `change` is False.
        """
        row = {name: getattr(answer, name) for name in ("section", "answer", "likert", "milliseconds")} | {"saved": _time(0)}
        key = {"study": self.study, "reader": answer.reader, "item": answer.item}
        statement = self._insert(_answers).values(**key, **row, changes=0)
        differs = sa.or_(_answers.c.answer != answer.answer, sa.func.coalesce(_answers.c.likert, 0) != (answer.likert or 0))
        if change:
            statement = statement.on_conflict_do_update(
                index_elements=list(key), set_={**row, "changes": _answers.c.changes + sa.case((differs, 1), else_=0)}
            )
        else:
            statement = statement.on_conflict_do_nothing(index_elements=list(key))
        with self._writing() as connection:
            connection.execute(statement)
            if not change:
                there = self._is(_answers, answer.reader) & (_answers.c.item == answer.item) & differs
                if connection.execute(sa.select(_answers.c.item).where(there)).first():
                    raise Closed

    def answers(self, reader: str = "") -> list[Answer]:
        """All answers, or those of one reader, in the order of reader and item."""
        both = sa.and_(_answers.c.study == _readers.c.study, _answers.c.reader == _readers.c.reader)
        columns = [_readers.c[name] if name in ("role", "years") else _answers.c[name] for name in Answer.__dataclass_fields__]
        query = sa.select(*columns).select_from(_answers.join(_readers, both)).order_by(_answers.c.reader, _answers.c.item)
        query = query.where(self._is(_answers, reader) if reader else _answers.c.study == self.study)
        with self._engine.connect() as connection:
            return [Answer(**row) for row in connection.execute(query).mappings()]

    def _is(self, table: sa.Table, code: str) -> sa.ColumnElement[bool]:
        return sa.and_(table.c.study == self.study, table.c.reader == code)

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._engine.begin() as connection:
            yield connection


def answers(url: str, study: str) -> list[Answer]:
    """All answers of a study in a database.

    Raises:
        ConfigError, InputError, DataError: As `Store`.
    """
    store = Store(url, study, create=False)
    try:
        return store.answers()
    finally:
        store.close()


def default_url(folder: Path) -> str:
    """The database in a study's own folder."""
    return f"sqlite:///{folder / DATABASE}"


def _open(text: str, create: bool) -> sa.Engine:
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError:
        raise ConfigError("--database is no URL", fix="sqlite:///answers.sqlite or postgresql://USER@HOST/NAME") from None
    if url.drivername == "sqlite" and url.database and url.database != ":memory:":
        path = Path(url.database)
        if not create and not path.is_file():
            raise InputError("--database names no file that exists", fix="check the path", code="E_DATABASE")
        if not path.parent.is_dir():
            raise InputError("--database lies in a folder that does not exist", fix="make the folder, or check the path", code="E_DATABASE")
        if create:
            # Before SQLite makes it with the rights that everybody has: answers are the readers'.
            path.touch(mode=0o600)
        engine = sa.create_engine(url, pool_size=8, max_overflow=0, pool_timeout=BUSY_SECONDS, connect_args={"timeout": BUSY_SECONDS})
        sa.event.listen(engine, "connect", _durable)
        return engine
    if url.drivername in ("postgresql", "postgres"):
        return sa.create_engine(
            url.set(drivername="postgresql+pg8000"), pool_size=8, max_overflow=0, pool_timeout=BUSY_SECONDS, pool_pre_ping=True,
            connect_args={"timeout": BUSY_SECONDS},
        )  # fmt: skip
    raise ConfigError("--database is neither SQLite nor PostgreSQL", fix="sqlite:///answers.sqlite or postgresql://USER@HOST/NAME")


def _durable(connection: Any, record: object) -> None:  # noqa: ARG001
    """Readers do not wait for a writer, and a commit is on the disk before it is acknowledged (sqlite.org/wal.html, pragma synchronous)."""
    for words in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {words}")


def _check(engine: sa.Engine, create: bool) -> None:
    """Raises DataError where the tables are of another version; makes them where there are none."""
    found = sa.inspect(engine).get_table_names()
    if _versions.name not in found:
        if set(found) & set(_tables.tables):
            raise DataError("--database holds tables of something else", fix="name a new database", code="E_DATABASE")
        if not create:
            raise DataError("--database holds no answers of a reader study", fix="check its name", code="E_DATABASE")
        with engine.begin() as connection:
            _tables.create_all(connection)
            connection.execute(_versions.insert().values(version=SCHEMA))
    with engine.connect() as connection:
        version = connection.execute(sa.select(_versions.c.version)).scalar()
    if version != SCHEMA:
        raise DataError(
            f"--database is of version {version}, this medgan's is {SCHEMA}", fix="use the medgan that made it", code="E_DATABASE"
        )


@contextmanager
def _problems() -> Iterator[None]:
    """What a driver says at the first connection as a line without the URL, in which a password may stand."""
    try:
        yield
    except sa.exc.DatabaseError as error:
        if "file is not a database" in str(error.orig):
            raise DataError("--database is no SQLite database", fix="check the path", code="E_DATABASE") from None
        raise InputError(
            "--database cannot be reached or opened", fix="check host, port, user, password and name", code="E_DATABASE"
        ) from None
    except (sa.exc.SQLAlchemyError, OSError):
        raise InputError(
            "--database cannot be reached or opened", fix="check host, port, user, password and name", code="E_DATABASE"
        ) from None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _time(days: float) -> str:
    """So many days from now in UTC, as `runs.utc_now` writes it."""
    if not days:
        return runs.utc_now()
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
