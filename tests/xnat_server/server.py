"""The fake XNAT put together: accounts, archive, Container Service and what stands around them, behind one port of loopback."""

from __future__ import annotations

import threading
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qsl

from tests.xnat_server import documents, schemas
from tests.xnat_server.accounts import Accounts, Token, basic_of, unauthorized
from tests.xnat_server.archive import Archive, Node
from tests.xnat_server.containers import Containers
from tests.xnat_server.data import Data
from tests.xnat_server.web import LOGIN_PAGE, Answer, Fault, Faults, Refusal, Request, Web

BUILD = {"version": "1.9.3", "buildNumber": "1", "buildDate": "2026-01-01", "isDirty": "false"}


class XnatServer:
    """A running fake XNAT; see the package's docstring for how it is used.

    Args:
        folder: Where archive and build folders are made.
        address: 127.0.0.1; containers of a Docker bridge reach the host at another, so the end-to-end test gives that one.
        port: 0 takes a free one.
    """

    def __init__(self, folder: Path, *, address: str = "127.0.0.1", port: int = 0) -> None:
        self.folder = folder
        self.accounts = Accounts()
        self.user, self.password = "admin", "admin-password"
        self.accounts.add(self.user, self.password, administrator=True)
        self.archive = Archive(folder / "archive")
        self._data = Data(self.archive, self.accounts.administrators)
        self._lock = threading.RLock()
        self.containers = Containers(self.archive, self._data, self.accounts, folder / "build", self._lock)
        self._web = Web(self._answer, address, port)
        self.url = f"http://{address}:{self._web.server_address[1]}"
        self.containers.host = self.url

    def __enter__(self) -> XnatServer:
        # The default poll of half a second would be waited for at each test's end.
        threading.Thread(target=self._web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._web.shutdown()
        self._web.server_close()

    # -- what tests use --------------------------------------------------------------------------------------------------

    def project(self, id: str, *, owner: str = "admin", **fields: str) -> Node:
        """The project of this id, made if it is not there."""
        return self.archive.project(id, owner=owner, **fields)

    def token(self, user: str | None = None, *, seconds: float = 2 * 86400.0) -> Token:
        """An alias token (`.alias`, `.secret`), as a container is given one."""
        return self.accounts.issue(user or self.user, seconds)

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in order of arrival."""
        return self._web.requests

    def asked(self, method: str = "*", path: str = "*") -> list[Request]:
        """The requests of a method whose path matches a shell pattern."""
        return [r for r in self.requests if method in ("*", r.method) and fnmatchcase(r.path, path)]

    @property
    def faults(self) -> Faults:
        """Switch faults with `.add(kind, path, ...)`."""
        return self._web.faults

    # -- routes ----------------------------------------------------------------------------------------------------------

    def _answer(self, request: Request, fault: Fault | None) -> Answer:
        try:
            with self._lock:
                if fault and fault.kind == "expired":
                    self.accounts.forget(request)
                return self._route(request, edit=not (fault and fault.kind == "no_edit_right"))
        except Refusal as refusal:
            return refusal.answer

    def _route(self, request: Request, *, edit: bool) -> Answer:
        if request.path == "/data/services/auth" and request.method in ("PUT", "POST"):
            form = dict(parse_qsl((request.body or b"").decode()))
            found = self.accounts.login(form.get("username", ""), form.get("password", ""))
            if not found:
                return unauthorized()
            request.user = found[1].user
            return Answer(200, found[0].encode(), headers=self.accounts.cookies(found[0]))
        known = self.accounts.recognise(request)
        if not known:
            if request.path in ("/", "/app/template/Login.vm") and not basic_of(request):
                # Tomcat gives the stranger a session too; it is good for nothing until a login.
                return Answer(
                    200,
                    LOGIN_PAGE,
                    "text/html;charset=UTF-8",
                    {"Set-Cookie": "JSESSIONID=0123456789ABCDEF0123456789ABCDEF; Path=/; HttpOnly"},
                )
            return unauthorized()
        session, login, new = known
        request.user = login.user
        answer = self._inside(request, session, login.user, edit)
        if new and "Set-Cookie" not in answer.headers:
            answer.headers |= self.accounts.cookies(session)
        return answer

    def _inside(self, request: Request, session: str, user: str, edit: bool) -> Answer:
        match [request.method, *request.parts]:
            case ["GET" | "HEAD"]:
                return Answer.text("<html><head><title>XNAT</title></head><body>Welcome</body></html>", type="text/html;charset=UTF-8")
            case [_, "app", *_] | [_, "xapi", "siteConfig", "siteId"]:
                return Answer.text("XNAT")
            case ["GET", "data", "auth"]:
                return Answer.text(f"User '{user}' is logged in")
            case ["DELETE", "data", "JSESSION" | "JSESSIONID"]:
                self.accounts.logins.pop(session, None)
                return Answer.text("")
            case ["GET" | "POST", "data", "JSESSION" | "JSESSIONID"]:
                return Answer.text(session)
            case ["GET", "data", "version"]:
                raise Refusal(404, "Not Found")
            case ["GET", "data", "services", "tokens", "issue"]:
                token = self.accounts.issue(user)
                return Answer.json(
                    {"alias": token.alias, "secret": token.secret, "xdatUserId": user, "estimatedExpirationTime": int(token.expires * 1000)}
                )
            case ["GET", "data", "services", "tokens", "validate", alias, secret]:
                known = self.accounts.tokens.get(alias)
                return Answer.json({"valid": known.user} if known and known.secret == secret else {})
            case ["GET", "data", "services", "tokens", "invalidate", alias, _]:
                self.accounts.tokens.pop(alias, None)
                return Answer.text("")
            case ["POST", "data", "services", "refresh", "catalog"]:
                return self._refresh(request, user)
            case ["GET", "data", "workflows", id]:
                return self.containers.workflow(id)
            case ["GET", "data", "search", "elements", *name]:
                return self._elements(request, name)
            case ["GET", "xapi", "siteConfig", "buildInfo"]:
                return Answer.json(BUILD)
            case ["GET", "xapi", "siteConfig", "buildInfo", name] if name in BUILD:
                return Answer.text(BUILD[name])
            case ["GET", "xapi", "users", "username"]:
                return Answer.text(user)
            case ["GET", "xapi", "users", name] if name in self.accounts.users:
                return Answer.json({"username": name, "enabled": True, "admin": name in self.accounts.administrators})
            case ["GET", "xapi", "schemas"]:
                return Answer.json(list(schemas.NAMES))
            case ["GET", "xapi", "schemas", name, *_]:
                return self._schema(name)
            case [_, "xapi", *rest]:
                return self.containers.answer(request, rest, user)
            case [_, "data" | "REST", *rest]:
                return self._data.answer(request, rest[1:] if rest[:1] == ["archive"] else rest, user, edit=edit)
        raise Refusal(404, "Not Found")

    def _refresh(self, request: Request, user: str) -> Answer:
        parts = [p for p in request.query.get("resource", "").split("/") if p not in ("", "archive", "data")]
        for node in self._data.walk(parts, user)[1]:
            for resource in (r for r in self.archive.all("resources") if node in (r, r.parent) or r.folder.is_relative_to(node.folder)):
                resource.write_catalog()
        return Answer.text("")

    def _elements(self, request: Request, name: list[str]) -> Answer:
        types = {"xnat:projectData", "xnat:subjectData", *(node.xsi_type for node in self.archive.all("experiments"))}
        rows = [{"ELEMENT_NAME": type, "SINGULAR": type, "PLURAL": type, "SECURED": "true", "COUNT": "0"} for type in sorted(types)]
        return documents.table(request, [] if name else rows)

    def _schema(self, name: str) -> Answer:
        if name not in schemas.NAMES:
            raise Refusal(404, "Not Found")
        return Answer(200, schemas.schema(name), "application/xml")
