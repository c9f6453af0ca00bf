"""Who is asking: users, alias tokens and sessions. A cookie is worth something only after a login that succeeded."""

from __future__ import annotations

import base64
import binascii
import secrets
import time
import uuid
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from tests.xnat_server.web import Answer, Request


@dataclass
class Token:
    """An alias token: a UUID as user name, a secret as password, as a container is given."""

    alias: str
    secret: str
    user: str
    expires: float


@dataclass
class Login:
    """A web session."""

    user: str
    alias: str | None
    seen: float


class Accounts:
    """Users of the server and what proves that a request is theirs.

    Args:
        idle_seconds: A session unused so long is over (XNAT: 15 minutes).
    """

    def __init__(self, idle_seconds: float = 900.0) -> None:
        self.idle_seconds = idle_seconds
        self.users: dict[str, str] = {}
        self.administrators: set[str] = set()
        self.tokens: dict[str, Token] = {}
        self.logins: dict[str, Login] = {}

    def add(self, name: str, password: str, *, administrator: bool = False) -> None:
        """A user; what he may do in a project says the project's `members`."""
        self.users[name] = password
        if administrator:
            self.administrators.add(name)

    def issue(self, user: str, seconds: float = 2 * 86400.0) -> Token:
        """A new alias token of a user (XNAT: 2 days)."""
        token = Token(str(uuid.uuid4()), secrets.token_urlsafe(24), user, time.time() + seconds)
        self.tokens[token.alias] = token
        return token

    def expire(self) -> None:
        """All sessions and alias tokens end now; passwords go on."""
        self.logins.clear()
        self.tokens.clear()

    def login(self, name: str, password: str) -> tuple[str, Login] | None:
        """A new session for a right password or alias token; None for a wrong one."""
        token = self.tokens.get(name)
        if token is not None and token.secret == password and token.expires > time.time():
            login = Login(token.user, token.alias, time.time())
        elif self.users.get(name) == password:
            login = Login(name, None, time.time())
        else:
            return None
        session = secrets.token_hex(16).upper()
        self.logins[session] = login
        return session, login

    def cookies(self, session: str) -> dict[str, str]:
        """The headers that give a client its session."""
        now = int(time.time() * 1000)
        return {
            "Set-Cookie": f'JSESSIONID={session}; Path=/; HttpOnly\nSESSION_EXPIRATION_TIME="{now},{int(self.idle_seconds * 1000)}"; Path=/'
        }

    def recognise(self, request: Request) -> tuple[str, Login, bool] | None:
        """(session, login, new) of a request that carries a good cookie or a good Basic header; None for any other.

        A cookie that is over does not spoil a good Basic header beside it, as in XNAT.
        """
        session = session_of(request)
        login = self.logins.get(session) if session else None
        if session and login:
            if time.time() - login.seen < self.idle_seconds and (login.alias is None or login.alias in self.tokens):
                login.seen = time.time()
                return session, login, False
            del self.logins[session]
        found = self.login(*basic) if (basic := basic_of(request)) else None
        return (*found, True) if found else None

    def forget(self, request: Request) -> None:
        """End the session and cancel the alias token this request comes with."""
        login = self.logins.pop(session_of(request) or "", None)
        basic = basic_of(request)
        for alias in (login.alias if login else None, basic[0] if basic else None):
            self.tokens.pop(alias or "", None)
            self.logins = {session: other for session, other in self.logins.items() if other.alias != alias or alias is None}


def session_of(request: Request) -> str | None:
    """The JSESSIONID cookie of a request."""
    try:
        cookie = SimpleCookie(request.headers.get("Cookie", "")).get("JSESSIONID")
    except CookieError:
        return None
    return cookie.value if cookie else None


def basic_of(request: Request) -> tuple[str, str] | None:
    """User and password of a Basic Authorization header."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return name, password


def unauthorized() -> Answer:
    """What XNAT answers whoever it does not know."""
    answer = Answer.text(
        "<html><head><title>Status page</title></head><body><h3>Unauthorized</h3></body></html>", 401, "text/html;charset=UTF-8"
    )
    answer.headers["WWW-Authenticate"] = 'Basic realm="XNAT Protected Area"'
    return answer
