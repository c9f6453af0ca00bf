"""The HTTP side of the fake XNAT: requests in, answers out, faults in between. Nothing here knows what XNAT stores."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import HTTP
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

LOGIN_PAGE = (
    b"<!DOCTYPE html><html><head><title>XNAT</title></head><body><form name='login' action='/login' method='post'></form></body></html>"
)


# Longest body that stays in the list of requests, in bytes: checkpoints would fill the memory.
KEPT = 2**24


@dataclass
class Request:
    """One request as it arrived, and how it was answered: `XnatServer.requests` is a list of these.

    Attributes:
        path: Decoded path without query.
        parts: The path's segments, decoded one by one, so that a %2F in a name stays in its segment.
        body: As sent, multipart included; None where neither a length nor chunks were sent, and once a body above KEPT is answered.
        sized: A Content-Length came with the body.
        user: Who it was found to come from; None before a login.
        status: Of the answer; 0 where the connection was cut instead.
        fault: Kind of the fault that was put in its way.
    """

    method: str
    path: str
    parts: list[str]
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes | None = None
    sized: bool = False
    user: str | None = None
    status: int = 0
    fault: str | None = None

    def json(self) -> object:
        return json.loads(self.body or b"null")

    def uploads(self) -> list[tuple[str, bytes]]:
        """The (file name, content) pairs of a multipart body, or the body itself with an empty name."""
        kind = self.headers.get("Content-Type", "")
        if not kind.startswith("multipart/"):
            return [("", self.body or b"")]
        message = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + (self.body or b""), policy=HTTP)
        parts = [(part.get_filename(), part.get_payload(decode=True)) for part in message.iter_parts()]
        return [(name, data) for name, data in parts if name is not None and isinstance(data, bytes)]


@dataclass
class Answer:
    """What is sent back."""

    status: int = 200
    body: bytes = b""
    type: str = "text/plain;charset=UTF-8"
    headers: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def text(text: str, status: int = 200, type: str = "text/plain;charset=UTF-8") -> Answer:
        return Answer(status, text.encode(), type)

    @staticmethod
    def json(value: object, status: int = 200) -> Answer:
        return Answer(status, json.dumps(value).encode(), "application/json;charset=UTF-8")


class Refusal(Exception):
    """An answer that ends a request from anywhere below: 404, 403, ..."""

    def __init__(self, status: int, text: str) -> None:
        self.answer = Answer.text(
            f"<html><head><title>Status page</title></head><body><h3>{text}</h3></body></html>", status, "text/html;charset=UTF-8"
        )
        super().__init__(text)


FAULTS = {
    "expired": "the session and the alias token of this request are cancelled first: 401, also for what follows",
    "login_page": "200 with the login page in place of the answer, nothing done",
    "truncated": "half the body, then the connection is closed; the length promised was the full one",
    "shortened": "half the body with a length that agrees, as a proxy that lost its backend sends: only size, digest or zip test show it",
    "reset": "the connection is reset before anything is done",
    "reset_midway": "half the body, then a reset",
    "reset_after": "the request is carried out, then the connection is reset instead of an answer",
    "502": "a proxy's 502 page, nothing done",
    "504": "the request is carried out, then a proxy's 504 page: the client cannot know",
    "slow": "the answer waits for `seconds`",
    "trickle": "the body comes in ten pieces over `seconds`, so that no single read waits long",
    "no_edit_right": "an upload answers 200 and stores nothing",
}


@dataclass
class Fault:
    """A thing that goes wrong with the requests that match; see FAULTS."""

    kind: str
    path: str
    method: str
    times: int
    after: int
    seconds: float


class Faults:
    """Which requests meet which fault; the first rule that matches and is not used up is taken."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []

    def add(self, kind: str, path: str = "*", *, method: str = "*", times: int = 1, after: int = 0, seconds: float = 1.0) -> Fault:
        """Put a fault in the way of requests.

        Args:
            kind: One of FAULTS.
            path: Shell pattern of the decoded path, without query: "*/files/*", "/data/experiments/*".
            method: "GET", "PUT", ...; "*" for any.
            times: How many requests meet it; -1 for all.
            after: How many matching requests pass untouched before.
            seconds: Of "slow" and "trickle".
        """
        if kind not in FAULTS:
            raise ValueError(f"no fault {kind!r}; there are {', '.join(FAULTS)}")
        rule = Fault(kind, path, method, times, after, seconds)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self.rules.clear()

    def take(self, request: Request) -> Fault | None:
        """The fault this request meets."""
        for rule in self.rules:
            if rule.times == 0 or not fnmatchcase(request.path, rule.path) or rule.method not in ("*", request.method):
                continue
            if rule.after > 0:
                rule.after -= 1
                continue
            rule.times -= 1
            return rule
        return None


class Web(ThreadingHTTPServer):
    """Threads that read requests, meet faults, ask `answer` and send what it says."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Request, Fault | None], Answer], address: str, port: int) -> None:
        self.answer = answer
        self.faults = Faults()
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        super().__init__((address, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news; anything else is a bug of the fake and is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            traceback.print_exc()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web
    # One segment for head and body: without it every answer waits 40 ms for a delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Requests are kept in `requests` instead."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        body, sized = self._body()
        parts = [unquote(part) for part in url.path.split("/") if part]
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        request = Request(self.command, unquote(url.path), parts, query, self.headers, body, sized)
        with self.server.lock:
            fault = self.server.faults.take(request)
            request.fault = fault.kind if fault else None
            self.server.requests.append(request)
        kind = request.fault
        if fault and kind == "slow":
            time.sleep(fault.seconds)
        if kind == "reset":
            return self._reset()
        if kind == "502":
            return self._send(request, Answer.text("<html><h1>502 Bad Gateway</h1></html>", 502, "text/html"))
        if kind == "login_page":
            return self._send(request, Answer(200, LOGIN_PAGE, "text/html;charset=UTF-8"))
        answer = self.server.answer(request, fault)
        if kind == "504":
            return self._send(request, Answer.text("<html><h1>504 Gateway Timeout</h1></html>", 504, "text/html"))
        if kind == "reset_after":
            return self._reset()
        if kind == "shortened":
            answer.body = answer.body[: len(answer.body) // 2]
        if len(request.body or b"") > KEPT:
            request.body = None
        return self._send(
            request, answer, cut=kind in ("truncated", "reset_midway"), spread=fault.seconds if fault and kind == "trickle" else 0.0
        )

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def handle_expect_100(self) -> bool:
        going = super().handle_expect_100()
        self.wfile.flush()
        return going

    def _body(self) -> tuple[bytes | None, bool]:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"])), True
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return None, False
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks), False

    def _send(self, request: Request, answer: Answer, cut: bool = False, spread: float = 0.0) -> None:
        body = answer.body[: len(answer.body) // 2] if cut else answer.body
        request.status = answer.status
        self.send_response(answer.status)
        headers = {"Content-Type": answer.type, "Content-Length": str(len(answer.body)), **answer.headers}
        for name, value in headers.items():
            # Several cookies are kept under one key, a line each: each becomes a header of its own.
            for line in value.split("\n"):
                self.send_header(name, line)
        self.end_headers()
        if self.command != "HEAD":
            step = -(-len(body) // 10) if spread else len(body)
            for start in range(0, len(body), step or 1):
                self.wfile.write(body[start : start + step])
                if spread:
                    self.wfile.flush()
                    time.sleep(spread / 10)
        self.wfile.flush()
        if cut and request.fault == "reset_midway":
            self._reset()
        elif cut:
            self.close_connection = True

    def _reset(self) -> None:
        # Linger of 0 s: close() sends RST in place of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
