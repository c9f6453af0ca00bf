"""XNAT over REST: one short connection, in which the traps of server, proxies and xnatpy are handled once for all who use it.

Connect, do, disconnect: a token of the Container Service lives for two days, a login for a quarter of an hour, a training may last longer.
Plain paths and `no_parse_model=True`, so that nothing depends on a site's data types. No message here quotes an address, an answer or a
name: they hold session labels, and a sign-in page may hold more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote, unquote

from medgan.errors import MedganError
from plugin.attempts import PASSING, PAUSES, SECONDS_TO_ANSWER, SECONDS_TO_CONNECT, Trouble, insist, is_page, of_network
from plugin.credentials import Site

T = TypeVar("T")

# xnatpy logs addresses (session labels) and user names.
SILENT = logging.getLogger("medgan.xnatpy")
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False
SILENT.setLevel(logging.CRITICAL + 1)

GONE_STATUS, FORBIDDEN, UNAUTHORISED, TOO_LARGE = 404, 403, 401, 413


def quoted(*parts: str) -> str:
    """Words as a part of a REST path: labels and file names hold blanks and worse."""
    return "/".join(quote(part, safe="") for part in parts)


def name_in(path: str) -> str:
    """The name of a file within its resource, sub-folders included, from an address or a zip's entry; empty where that is none of a resource."""
    found = re.match(r".*?/?resources/[^/]+/files/(.+)", path, flags=re.DOTALL)
    return found[1] if found else ""


@dataclass(frozen=True)
class Stored:
    """A file as a listing of XNAT shows it.

    Args:
        name: Its name within the resource, sub-folders included.
        size: Bytes, or -1 where the listing does not say.
        md5: MD5 digest as hexadecimal digits, or empty: a site may keep none.
    """

    name: str
    size: int
    md5: str

    def equals(self, size: int, md5: str) -> bool:
        """Whether content of this size and digest is the file's, as far as XNAT says."""
        return self.size in (-1, size) and self.md5 in ("", md5)


class Connection:
    """A connection to a site, opened when first needed and renewed when the site has forgotten it.

    Args:
        site: Where and who.
        error: The class of problem that a user sees when it fails: reading and writing have different exit codes.
        pauses: Seconds before each further attempt; empty for one attempt only.
    """

    def __init__(self, site: Site, error: type[MedganError], *, pauses: tuple[float, ...] = PAUSES) -> None:
        self.site, self.error, self.pauses = site, error, pauses
        self._session: Any = None

    def __enter__(self) -> Connection:
        self._try("signing in", lambda session: None)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Sign out, as far as the site still answers."""
        session, self._session = self._session, None
        if session is not None:
            session.request_timeout = SECONDS_TO_CONNECT
            with contextlib.suppress(Exception):
                session.disconnect()

    def rows(self, path: str, **query: str) -> list[dict[str, Any]]:
        """The rows of a listing."""
        answer = self.read_json(path, **query)
        try:
            return [row for row in answer["ResultSet"]["Result"] if isinstance(row, dict)]
        except (KeyError, TypeError):
            raise self.error("XNAT answered a listing in a form that is not known", fix="check XNAT_HOST and the site's version") from None

    def read_json(self, path: str, **query: str) -> Any:
        """An answer in JSON; `format=json` is added where the path is one of /data."""

        def read(session: Any) -> Any:
            return _json(session.get(path, format="json" if path.startswith("/data/") else None, query=dict(query)))

        return self._try("reading", read)

    def files(self, resource: str) -> list[Stored]:
        """The files of a resource, by its path."""
        found = []
        for row in self.rows(f"{resource}/files"):
            size = str(row.get("Size", ""))
            name = name_in(unquote(str(row.get("URI", "")))) or str(row.get("Name", ""))
            md5 = str(row.get("digest") or "").lower()
            found.append(Stored(name, int(size) if size.isdigit() else -1, md5 if len(md5) == 32 else ""))
        return found

    def answer(self, method: str, path: str, **content: Any) -> tuple[int, str]:
        """Status and text of an answer, refusals included: all but what a new login or another attempt may change."""
        import xnat.exceptions as xnatpy

        def ask(session: Any) -> tuple[int, str]:
            try:
                answer = getattr(session, method)(path, accepted_status=(200, 201, 202, 204), **content)
            except xnatpy.XNATResponseError as error:
                if _judge_status(error.status_code, error.text).again:
                    raise
                return error.status_code, error.text
            return answer.status_code, answer.text

        return self._try("writing", ask)

    def send(self, method: str, path: str, **content: Any) -> str:
        """Put, post or delete something; gives the answer's text."""
        status, text = self.answer(method, path, **content)
        if status >= 300:
            trouble = _judge_status(status, text)
            raise self.error(f"{trouble.reason}, while writing", fix=trouble.fix, code="E_XNAT")
        return text

    def upload(self, path: str, stream: BinaryIO, **query: str) -> None:
        """Put one file's content; a file of that name is replaced.

        Raises:
            MedganError: The site kept what it had, or refused.
        """
        query = {"overwrite": "true"} | query

        def put(session: Any) -> Any:
            stream.seek(0)
            kind = {"Content-Type": "application/octet-stream"}
            return session.put(path, data=stream, query=dict(query), headers=kind, timeout=(SECONDS_TO_CONNECT, SECONDS_TO_ANSWER))

        answer = self._try("uploading", put).text
        if '"duplicates"' in answer and json.loads(answer).get("duplicates"):
            raise self.error("XNAT kept an older file of the same name", fix="delete it there, then upload again")

    def download(self, uri: str, target: Path, *, size: int = -1, md5: str = "", format: str | None = None, once: bool = False) -> None:
        """Load one file, and check its size and digest where they are known.

        What arrived is not what was asked for more often than one would like: a sign-in page with status 200, a body cut by a proxy.
        """

        def load(session: Any) -> None:
            digest, count, head = hashlib.md5(usedforsecurity=False), 0, b""
            with target.open("wb") as file:
                timeout = (SECONDS_TO_CONNECT, SECONDS_TO_ANSWER)
                for block in session.download_generator(uri, format=format, verbose=False, timeout=timeout):
                    head = head or block[:512]
                    digest.update(block)
                    count += len(block)
                    file.write(block)
            whole = size in (-1, count) and md5 in ("", digest.hexdigest())
            if is_page(head) and not (whole and md5):
                raise Trouble("the site answers with its sign-in page", sign_in=True)
            if not whole:
                fix = "if it stays so, refresh the checksums of the resource's catalog in XNAT"
                raise Trouble("a file arrived otherwise than XNAT lists it", fix)

        self._try("downloading", load, pauses=() if once else self.pauses)

    def _open(self) -> Any:
        if self._session is None:
            import xnat

            site = self.site
            self._session = xnat.connect(
                site.host, user=site.user, password=site.password, verify=site.verify, no_parse_model=True, logger=SILENT,
                default_timeout=(SECONDS_TO_CONNECT, SECONDS_TO_ANSWER), pilot_timeout=(SECONDS_TO_CONNECT, SECONDS_TO_ANSWER),
            )  # fmt: skip
        return self._session

    def _try(self, doing: str, action: Callable[[Any], T], *, pauses: tuple[float, ...] | None = None) -> T:
        def error(message: str, fix: str) -> MedganError:
            return self.error(message, fix=fix, code="E_XNAT")

        pauses = self.pauses if pauses is None else pauses
        return insist(lambda: action(self._open()), _judge, error, doing, pauses=pauses, sign_out=self.close)


def _json(answer: Any) -> Any:
    try:
        return answer.json()
    except ValueError:
        # The sign-in page, where it starts with a blank or another spelling than xnatpy looks for.
        if is_page(answer.content[:512]):
            raise Trouble("the site answers with its sign-in page", sign_in=True) from None
        raise Trouble("the site's answer is cut off or no JSON") from None


SIGN_IN_FIX = "check XNAT_USER and XNAT_PASS; a token of the Container Service ends after two days"


def _judge(error: Exception) -> Trouble | None:
    """An exception of xnatpy or requests as what it means; None for any other, which is not theirs."""
    import xnat.exceptions as xnatpy

    if isinstance(error, Trouble):
        return error
    if isinstance(error, xnatpy.XNATAuthError):
        return Trouble("XNAT refuses user and password, or the token has ended", SIGN_IN_FIX, sign_in=True)
    if isinstance(error, xnatpy.XNATResponseError):
        return _judge_status(error.status_code, error.text)
    if isinstance(error, xnatpy.XNATConnectionError):
        error = ConnectionError()
    check = "check XNAT_HOST from this machine; in XNAT, the site's processing address"
    return of_network(error, "the XNAT site", certificates="XNAT_VERIFY", check=check)


def _judge_status(status: int, text: str) -> Trouble:
    if status == UNAUTHORISED or (status == 200 and is_page(text[:512].encode())):
        return Trouble("XNAT no longer knows the login", SIGN_IN_FIX, sign_in=True)
    if status in PASSING:
        return Trouble(f"XNAT or a proxy before it answers {status}", "try again later")
    fixes = {
        FORBIDDEN: ("XNAT says that the user may not do this (403)", "a role that may, in the project or on the site"),
        GONE_STATUS: ("XNAT has no such thing (404)", "check the address of project, session or scan, and that the user may see it"),
        TOO_LARGE: ("a proxy before XNAT takes no file of this size (413)", "raise its limit (client_max_body_size in nginx)"),
    }
    reason, fix = fixes.get(status, (f"XNAT answers {status}", ""))
    return Trouble(reason, fix, again=False)
