"""Something done over HTTP, again after each pause while that may help; what becomes of XNAT (rest.py) and DICOMweb (dicomweb.py) alike.

No reason here quotes an address, an answer or an exception: they hold names, and may hold a password.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from medgan.errors import MedganError

T = TypeVar("T")

# Libraries wait minutes for an answer and for ever for a file; a proxy in between gives up after one or two.
SECONDS_TO_CONNECT, SECONDS_TO_ANSWER = 12.0, 120.0
PAUSES = (1.0, 4.0, 16.0)
"""Seconds before each further attempt: a server that restarts, or a proxy that lost it, is back by then or not soon."""

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers that another attempt may not get; XNAT itself says 500 where its database is busy."""


class Trouble(Exception):
    """What went wrong with one attempt.

    Args:
        reason: In words of ours.
        fix: What a person could do.
        again: Whether another attempt may go better.
        sign_in: Whether it needs a new login.
    """

    def __init__(self, reason: str, fix: str = "", *, again: bool = True, sign_in: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.fix, self.again, self.sign_in = reason, fix, again, sign_in


def insist(
    action: Callable[[], T],
    judge: Callable[[Exception], Trouble | None],
    error: Callable[[str, str], MedganError],
    doing: str,
    *,
    pauses: tuple[float, ...] = PAUSES,
    sign_out: Callable[[], None] = lambda: None,
) -> T:
    """Do something, again after each pause while that may help; two refused logins end it, for sites lock a user out after some.

    Args:
        action: What is done.
        judge: What an exception means; None for one that is neither the server's nor the network's.
        error: Makes what a user sees of a message and a fix.
        doing: In a word, for the message.
        pauses: Seconds before each further attempt; empty for one attempt only.
        sign_out: Called before an attempt that needs a new login.
    """
    refusals = 0
    for attempt, pause in enumerate((*pauses, -1.0), start=1):
        try:
            return action()
        except Exception as caught:
            trouble = judge(caught)
            if trouble is None:
                raise
        if trouble.sign_in:
            sign_out()
        refusals += trouble.sign_in
        if not trouble.again or refusals > 1 or pause < 0:
            tried = f" ({attempt} attempts)" if attempt > 1 else ""
            raise error(f"{trouble.reason}, while {doing}{tried}", trouble.fix) from None
        time.sleep(pause)
    raise AssertionError


def of_network(error: Exception, server: str, *, certificates: str, check: str) -> Trouble | None:
    """A failure of the network, or of requests before it; None for any other exception.

    Args:
        error: What was raised.
        server: How the server is called in messages.
        certificates: The variable that names certificates to trust.
        check: What a person could look at.
    """
    import requests

    if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Trouble(f"the certificate of {server} is not known", f"{certificates}=FILE with the certificates to trust", again=False)
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return Trouble(f"the address of {server} is none", "like https://example.org", again=False)
    if isinstance(error, requests.RequestException | ConnectionError | TimeoutError):
        # A silence in the middle of a body reaches us as a ConnectionError around urllib3's ReadTimeoutError.
        late = any("Timeout" in type(each).__name__ for each in (error, *error.args))
        return Trouble(f"{server} {'does not answer in time' if late else 'cannot be reached, or breaks the connection off'}", check)
    return None


def is_page(head: bytes) -> bool:
    """Whether content that begins so is a web page: a sign-in page comes with status 200."""
    return head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))
