"""What stands between a browser and the reader study: headers, the origin of requests, secrets, sizes and rates."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request

MOST_BYTES = 64 * 1024
"""Of a request's body: an answer has 200 bytes, 500 readers' codes 10,000."""

HEADERS = {
    # Nothing from elsewhere, nothing inline, no frames: an injected word could neither run nor send anything.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With `no-referrer` a browser sends `Origin: null` with forms, and `check_origin` could not tell ours from others'.
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}

App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]


class Headers:
    """ASGI middleware: `HEADERS` on every answer, errors too.

    Args:
        app: What it stands before.
        secure: Whether readers come by https.
    """

    def __init__(self, app: App, *, secure: bool) -> None:
        self.app = app
        headers = HEADERS | ({"strict-transport-security": "max-age=31536000"} if secure else {})
        self.raw = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.raw]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class Limit:
    """So many events a second for each key, after a burst (a token bucket).

    Args:
        rate: Events a second.
        burst: Events at once.
        most: Keys kept; beyond them those that are idle are forgotten.
        clock: Seconds.
    """

    def __init__(self, rate: float, burst: float, *, most: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.most, self.clock = rate, burst, most, clock
        self._left: dict[str, tuple[float, float]] = {}

    def _now(self, key: str) -> tuple[float, float]:
        now = self.clock()
        left, then = self._left.get(key, (self.burst, now))
        return min(self.burst, left + (now - then) * self.rate), now

    def exhausted(self, key: str) -> bool:
        """Whether the next event would be one too many."""
        return self._now(key)[0] < 1

    def count(self, key: str) -> None:
        """One event more.

        Raises:
            HTTPException: 429, it is one too many.
        """
        left, now = self._now(key)
        if left < 1:
            raise HTTPException(429, "Too many requests. Wait a moment, then try again.")
        if len(self._left) >= self.most:
            self._left = {k: v for k, v in self._left.items() if v[0] + (now - v[1]) * self.rate < self.burst}
        self._left[key] = (left - 1, now)


def check_origin(request: Request, url: str) -> None:
    """Refuse what another site made the browser send: with the cookie of ours, or to log a reader in as somebody else.

    Raises:
        HTTPException: 403.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin not in (url, f"{request.url.scheme}://{request.headers.get('host')}"):
        raise HTTPException(403, "This request came from another site. Open your link again.")


def csrf(token: str) -> str:
    """What a page of ours must send along, and another site cannot know: bound to the secret in the cookie."""
    return hmac.new(token.encode(), b"medgan readers csrf", hashlib.sha256).hexdigest()


def check_csrf(token: str, given: str) -> None:
    """Raises HTTPException 403 where `given` is not what `csrf` gave to the page."""
    if not hmac.compare_digest(csrf(token).encode(), given.encode()):
        raise HTTPException(403, "This page was opened with another link. Load it again.")


async def body(request: Request) -> bytes:
    """The body of a request, of `MOST_BYTES` at most.

    Raises:
        HTTPException: 413.
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MOST_BYTES:
            raise HTTPException(413, "That is too long.")
        chunks.append(chunk)
    return b"".join(chunks)


async def form(request: Request) -> dict[str, str]:
    """The fields of a form, the last value of each; a form that cannot be read has none."""
    try:
        fields = parse_qs((await body(request)).decode(), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in fields.items()}
