"""Scans from a DICOMweb server: QIDO-RS says which series there are, WADO-RS brings their instances (DICOM PS3.18, sections 10.6 and 10.4).

Series by series, from the network to the disk in blocks, so that neither a series nor an instance is ever in memory. What already lies there
stays, so the same command goes on where it was stopped. No message here quotes an address, a UID, a value of the query or an answer.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import quote, unquote, urlsplit

from medgan.errors import ConfigError, DiskError, InputError
from medgan.progress import bar
from plugin.attempts import PASSING, PAUSES, SECONDS_TO_ANSWER, SECONDS_TO_CONNECT, Trouble, insist, is_page, of_network
from plugin.credentials import certificates
from plugin.fetch import BLOCK, SPARE_BYTES, keep_only
from plugin.rest import quoted

log = logging.getLogger("medgan.dicomweb")

T = TypeVar("T")
Row = dict[str, Any]

SECRETS = ("DICOMWEB_PASS", "DICOMWEB_TOKEN")

STUDY, SERIES, INSTANCE, MODALITY = "0020000D", "0020000E", "00080018", "00080060"
"""StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID and Modality, as the DICOM JSON model names them (PS3.18, F.2)."""
OUTLINES = ("SEG", "RTSTRUCT")

FOUND = "application/dicom+json"
# Without the asterisk a server sends Explicit VR Little Endian: it decodes every image, or fails where it cannot.
STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'

LITERAL = "*?!$'(),;:@/"

QUERY_FIX = "keywords or tags of DICOM joined by &, like 'Modality=CT&StudyDescription=*liver*'"
SIGN_IN_FIX = "check DICOMWEB_USER and DICOMWEB_PASS, or DICOMWEB_TOKEN; what has arrived stays, and the same command goes on"
STRANGE = "the address answers otherwise than a DICOMweb server"
ADDRESS_FIX = "check --dicomweb: the address below which /studies and /series lie, e.g. https://pacs.example.org/dicom-web"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A DICOMweb server, what is asked of it and who asks.

    Args:
        url: The address below which /studies and /series lie.
        query: The matching keys of series: value, as QIDO-RS takes it, by tag.
        authorization: The header that signs in, or empty; in no text of ours.
        verify: Whether its certificate must be known; or a file of certificates to trust.
    """

    url: str
    query: Mapping[str, str] = field(repr=False)
    authorization: str = field(default="", repr=False)
    verify: bool | str = True


def server(environment: MutableMapping[str, str], url: str, query: str) -> Server:
    """The server of --dicomweb and --query, with the credentials of DICOMWEB_USER and DICOMWEB_PASS, or of DICOMWEB_TOKEN.

    Without any of them requests looks into ~/.netrc; without an entry there nobody signs in.

    Args:
        environment: `os.environ`; password and token are removed from it, so that no process started later inherits them.
            DICOMWEB_VERIFY is `false`, or a file of certificates to trust.
        url: As given.
        query: As given.

    Raises:
        ConfigError: One of them cannot be.
    """
    password, token = (environment.pop(name, "") for name in SECRETS)
    user, token = environment.get("DICOMWEB_USER", "").strip(), token.strip()
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError("--source dicomweb needs the server's address", fix="--dicomweb https://pacs.example.org/dicom-web")
    if parts.username or parts.password:
        raise ConfigError("the address of the DICOMweb server holds a user", fix="set DICOMWEB_USER and DICOMWEB_PASS instead")
    if token and (user or password):
        raise ConfigError(
            "a token and a user are set for the DICOMweb server", fix="unset DICOMWEB_TOKEN, or DICOMWEB_USER and DICOMWEB_PASS"
        )
    if bool(user) != bool(password):
        raise ConfigError("a user without a password, or the other way round", fix="set both DICOMWEB_USER and DICOMWEB_PASS")
    if not re.fullmatch(r"[!-~]*", token):
        raise ConfigError("DICOMWEB_TOKEN is no token", fix="one word, without 'Bearer'")
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    signed = f"Bearer {token}" if token else f"Basic {basic}" if user else ""
    verify = certificates(environment, "DICOMWEB_VERIFY")
    return Server(url=url.strip().rstrip("/"), query=matching_keys(query), authorization=signed, verify=verify)


def matching_keys(query: str) -> dict[str, str]:
    """The matching keys of a query string: value by tag.

    Raises:
        ConfigError: There is none, or one that DICOM does not know: servers ignore such keys and would answer with all that they have.
    """
    from pydicom.datadict import tag_for_keyword

    keys: dict[str, str] = {}
    for number, pair in enumerate(filter(None, query.strip().lstrip("?").split("&")), start=1):
        name, _, value = (unquote(word).strip() for word in pair.partition("="))
        known = int(name, 16) if re.fullmatch(r"[0-9A-Fa-f]{8}", name) else tag_for_keyword(name)
        tag = f"{known or 0:08X}"
        if not known or not value or tag in keys:
            raise ConfigError(f"part {number} of --query is no KEY=VALUE that DICOM knows", fix=QUERY_FIX)
        keys[tag] = value
    if not keys:
        raise ConfigError("--source dicomweb would read all that the server has", fix=f"--query with {QUERY_FIX}")
    return keys


class Archive:
    """A connection to a DICOMweb server; failures are those of the input.

    Args:
        server: Where and who.
        pauses: Seconds before each further attempt.
    """

    def __init__(self, server: Server, *, pauses: tuple[float, ...] = PAUSES) -> None:
        import requests

        self.server, self.pauses = server, pauses
        self._session = requests.Session()
        if server.authorization:
            # Not as a header of the session, over which an entry of ~/.netrc would win.
            self._session.auth = self._sign

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._session.close()

    def _sign(self, request: Any) -> Any:
        request.headers["Authorization"] = self.server.authorization
        return request

    def attempt(self, doing: str, action: Callable[[], T], *, pauses: tuple[float, ...] | None = None) -> T:
        """Do something, again after each pause while that may help; `pauses` instead of the connection's own."""

        def error(message: str, fix: str) -> InputError:
            return InputError(message, fix=fix, code="E_DICOMWEB")

        return insist(action, _judge, error, f"{doing} over DICOMweb", pauses=self.pauses if pauses is None else pauses)

    def search(self, path: str, level: str, query: Mapping[str, Any] | None = None) -> dict[str, Row]:
        """The rows of a search by their UID. Servers give them in pages of whatever length; one with nothing new is behind the last.

        Args:
            path: Below the server's address.
            level: The tag of the UID of what is searched for.
            query: Parameters.
        """
        found: dict[str, Row] = {}
        while True:
            here = {**(query or {}), **({"offset": len(found)} if found else {})}
            page = self.attempt("searching", partial(self._page, path, level, here))
            fresh = {uid: row for uid, row in page.items() if uid not in found}
            if not fresh:
                return found
            found |= fresh

    def _page(self, path: str, level: str, query: Mapping[str, Any]) -> dict[str, Row]:
        with self._get(path, FOUND, query) as answer:
            if not answer.content:  # 204
                return {}
            try:
                rows = answer.json()
            except ValueError:
                if is_page(answer.content[:512]):
                    raise Trouble(f"{STRANGE}, with a web page", ADDRESS_FIX, again=False) from None
                raise Trouble("the answer is cut off or no JSON", ADDRESS_FIX) from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) and _values(row, level) for row in rows):
            raise Trouble(STRANGE, ADDRESS_FIX, again=False)
        return {str(_values(row, level)[0]): row for row in rows}

    def receive(self, path: str, part: Path, take: Callable[[], None]) -> None:
        """Ask once for instances; `take` is called for each when it lies whole in the file `part`.

        Raises:
            Trouble: The answer is none of WADO-RS, or ends before its closing boundary. Servers that do not know its length beforehand name
                none, so a connection that breaks looks like an end.
        """
        from python_multipart.multipart import MultipartParser, parse_options_header

        with self._get(path, STORED, {}) as answer, contextlib.closing(_Parts(part, take)) as parts:
            kind, options = parse_options_header(answer.headers.get("Content-Type"))
            if kind != b"multipart/related" or not options.get(b"boundary"):
                page = f"{STRANGE}, with a web page" if kind == b"text/html" else f"{STRANGE}: instances come in no parts"
                raise Trouble(page, ADDRESS_FIX, again=False)
            parser = MultipartParser(options[b"boundary"], parts.callbacks)
            for block in answer.iter_content(BLOCK):
                parser.write(block)
            if not parts.whole:
                raise Trouble("an answer breaks off before its end")

    def _get(self, path: str, accept: str, query: Mapping[str, Any]) -> Any:
        pairs = [(name, str(each)) for name, value in query.items() for each in (value if isinstance(value, list) else [value])]
        # What RFC 3986 lets stand stays: Orthanc 1.10 (Debian 12) does not decode what a plugin is asked, and `*` as %2A would fit nothing.
        words = "&".join(f"{name}={quote(value, safe=LITERAL)}" for name, value in pairs)
        answer = self._session.get(
            f"{self.server.url}/{path}{'?' if words else ''}{words}", headers={"Accept": accept}, stream=True,
            timeout=(SECONDS_TO_CONNECT, SECONDS_TO_ANSWER), verify=self.server.verify,
        )  # fmt: skip
        if answer.status_code in (200, 204):
            return answer
        answer.close()
        raise _judge_status(answer.status_code)


class _Parts:
    """Writes the parts of a multipart answer into a file, one after another.

    Args:
        part: The file; whoever takes it may move it away.
        take: Called when a part has ended.
    """

    def __init__(self, part: Path, take: Callable[[], None]) -> None:
        self._part, self._take = part, take
        self._file: BinaryIO | None = None
        self.whole = False
        self.callbacks: Any = {
            "on_part_begin": self._begin, "on_part_data": self._write, "on_part_end": self._end, "on_end": self._finish,
        }  # fmt: skip

    def _begin(self) -> None:
        self._file = self._part.open("wb")

    def _write(self, data: bytes, start: int, end: int) -> None:
        assert self._file
        self._file.write(data[start:end])

    def _end(self) -> None:
        self.close()
        self._take()

    def _finish(self) -> None:
        self.whole = True

    def close(self) -> None:
        if self._file:
            self._file.close()


def _judge(error: Exception) -> Trouble | None:
    """An exception as what it means; None for one that is neither the server's nor the network's."""
    from python_multipart.exceptions import MultipartParseError

    if isinstance(error, Trouble):
        return error
    if isinstance(error, MultipartParseError):
        return Trouble("an answer is no multipart message as it says")
    return of_network(error, "the DICOMweb server", certificates="DICOMWEB_VERIFY", check="check --dicomweb from this machine")


def _judge_status(status: int) -> Trouble:
    if status in PASSING:
        return Trouble(f"the DICOMweb server or a proxy before it answers {status}", "try again later")
    reasons = {
        400: ("the DICOMweb server does not understand the query (400)", f"check --query: {QUERY_FIX}"),
        401: ("the DICOMweb server does not know who asks (401)", SIGN_IN_FIX),
        403: ("the DICOMweb server says that this user may not read that (403)", "a role that may, or a narrower --query"),
        404: ("the DICOMweb server has no such thing (404)", ADDRESS_FIX),
        406: ("the DICOMweb server does not give instances as they are stored (406)", "a server that knows transfer-syntax=*"),
    }
    reason, fix = reasons.get(status, (f"the DICOMweb server answers {status}", ADDRESS_FIX))
    return Trouble(reason, fix, again=False)


def fetch(archive: Archive, into: Path) -> int:
    """Bring the series that fit the query into `into`, with the outlines of their studies, and remove from it what is not among them.

    Args:
        archive: The connection.
        into: Folder of this function's own; afterwards a folder for each study, in it one for each series, in it a file for each instance,
            named by digests of their UIDs.

    Returns:
        Number of files there.

    Raises:
        InputError: Nothing to fetch, or the server does not give it.
        DiskError: It does not fit on the disk.
    """
    series = series_of(archive)
    wanted: set[Path] = set()
    fetched = 0
    into.mkdir(parents=True, exist_ok=True)
    with bar("fetching") as step, tempfile.TemporaryDirectory(dir=into.parent, prefix=".fetching-") as scratch:
        for number, (uid, study) in enumerate(series.items(), start=1):
            path = f"studies/{quoted(study)}/series/{quoted(uid)}"
            places = {
                instance: into / _name(study) / _name(uid) / f"{_name(instance)}.dcm"
                for instance in archive.search(f"{path}/instances", INSTANCE)
            }
            fetched += _fetch_series(archive, path, places, Path(scratch) / "instance")
            wanted.update(places.values())
            step(number, len(series))
    if not wanted:
        raise InputError("the series that fit --query hold no instance", fix="check what the DICOMweb server holds", code="E_DICOMWEB")
    keep_only(into, wanted)
    size, studies = sum(path.stat().st_size for path in wanted), len(set(series.values()))
    counts = f"{len(wanted)} instances ({size / 2**20:.1f} MiB) in {len(series)} series of {studies} studies"
    log.info("DICOMweb: %s, %d of them fetched now", counts, fetched)
    return len(wanted)


def series_of(archive: Archive) -> dict[str, str]:
    """The UIDs of the series that are taken, each with that of its study: what fits the query, and SEG and RTSTRUCT of the same studies.

    Raises:
        InputError: There is none, or the server disregards a key of the query: it would give patients whom nobody asked for.
    """
    from pydicom.datadict import keyword_for_tag

    query = dict(archive.server.query)
    # A server need not search in all studies at once; below a study that is named each can.
    studies = list(filter(None, map(str.strip, re.split(r"[,\\]", query.pop(STUDY))))) if STUDY in query else [""]
    fields = {**query, "includefield": list(query)}
    rows = [
        (uid, row, study or "".join(map(str, _values(row, STUDY)[:1])))
        for study in studies
        for uid, row in archive.search(f"studies/{quoted(study)}/series" if study else "series", SERIES, fields).items()
    ]
    for tag, value in query.items():
        if not all(_fits(row, tag, value) for _, row, _ in rows):
            raise InputError(
                f"the DICOMweb server does not search by {keyword_for_tag(tag) or tag}: it answers with series that lack it or have another value",
                fix="leave it out of --query; --series and the like choose by headers afterwards",
                code="E_DICOMWEB",
            )
    if not rows:
        raise InputError(
            "no series on the DICOMweb server fits --query", fix="other values; * and ? stand for any characters", code="E_DICOMWEB"
        )
    series = {uid: study for uid, _, study in rows}
    for study in sorted(set(series.values())):
        for uid, row in archive.search(f"studies/{quoted(study)}/series", SERIES).items():
            if set(_values(row, MODALITY)) & {*OUTLINES}:
                series[uid] = study
    return series


def _values(row: Row, tag: str) -> list[Any]:
    """The values of an element in the DICOM JSON model; empty where it has none."""
    element = row.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _fits(row: Row, tag: str, value: str) -> bool:
    """Whether a row has what was asked for, as far as it can be told: a server answers with each key that it searches by (PS3.18, 10.6.3.3)."""
    has = _values(row, tag)
    kind = row[tag].get("vr") if has else ""
    if not value.strip("*") or (has and kind in ("PN", "TM", "DT")):
        return True
    first, dash, last = value.partition("-")
    if kind == "DA" and dash:
        return any(first <= str(each) <= (last or "9") for each in has)
    # One of several, where a server takes lists.
    wanted = [value, *re.split(r"[,\\]", value)]
    patterns = ["".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in text.strip()) for text in wanted]
    return any(re.fullmatch(pattern, str(each).strip(), re.IGNORECASE | re.DOTALL) for pattern in patterns for each in has)


def _fetch_series(archive: Archive, path: str, places: Mapping[str, Path], part: Path) -> int:
    """Bring those instances of a series that are not there: as one answer where none is, else, and where that one broke off, one by one.

    Args:
        archive: The connection.
        path: The series below the server's address.
        places: Where each instance belongs, by its UID.
        part: A file for what is arriving, on the same disk.

    Returns:
        How many were fetched.
    """
    missing = {uid: place for uid, place in places.items() if not place.is_file()}
    number = len(missing)
    if number and shutil.disk_usage(part.parent).free < SPARE_BYTES:
        raise DiskError("the scratch folder is nearly full", fix="--work on a larger disk, or a narrower --query; what has arrived stays")

    def take() -> None:
        if place := missing.pop(_instance_in(part), None):
            place.parent.mkdir(parents=True, exist_ok=True)
            part.replace(place)

    def one(uid: str) -> None:
        archive.receive(f"{path}/instances/{quoted(uid)}", part, take)
        if uid in missing:
            raise Trouble("another instance arrives than the one asked for")

    if len(places) == number > 1:
        with contextlib.suppress(InputError):
            archive.attempt("retrieving", partial(archive.receive, path, part, take), pauses=())
    for uid in list(missing):
        archive.attempt("retrieving", partial(one, uid))
    return number


def _instance_in(part: Path) -> str:
    """The SOPInstanceUID of a file.

    Raises:
        Trouble: It is no DICOM file.
    """
    from pydicom import dcmread

    try:
        return str(dcmread(part, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
    except Exception:
        # Whatever a broken file makes pydicom raise; its words quote the file.
        raise Trouble("an instance arrives that is no DICOM file") from None


def _name(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]
