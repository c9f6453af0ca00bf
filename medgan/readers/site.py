"""What all pages of a reader study share: the study, its database, the templates, and the way in by a secret link."""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from medgan.readers import guard
from medgan.readers.pages import PAGES
from medgan.readers.store import Store
from medgan.readers.study import IMAGES, Study


@dataclass(frozen=True)
class Site:
    """What every page needs.

    Attributes:
        study: What is shown.
        store: Where answers go.
        url: What readers type, without a slash at the end.
        admin_token: Secret of the administrator.
        entries: Of unknown secrets, by address.
        requests: Of readers, by code.
    """

    study: Study
    store: Store
    url: str
    admin_token: str
    entries: guard.Limit
    requests: guard.Limit

    @functools.cached_property
    def files(self) -> dict[str, Path]:
        """Name -> path of every picture, and of nothing else."""
        items = [item for section in self.study.sections for item in section.items]
        return {name: self.study.folder / IMAGES / name for item in items for name in self.study.images(item)}

    @functools.cached_property
    def order(self) -> Callable[[str], list[tuple[str, str]]]:
        """`Study.order`, remembered."""
        return functools.lru_cache(maxsize=1024)(self.study.order)


def page(name: str, site: Site, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page of the study."""
    return HTMLResponse(
        PAGES.get_template(name).render(study=site.study, total=site.study.total, root="/", offline=False, **values), status
    )


def site_of(request: Request) -> Site:
    """What the application was made with."""
    site: Site = request.app.state.site
    return site


async def enter(request: Request, known: Callable[[str], bool]) -> str:
    """The secret in a form, when it is one.

    Raises:
        HTTPException: 404, it is unknown or has expired; 429 after too many of those.
    """
    site = site_of(request)
    guard.check_origin(request, site.url)
    address = request.client.host if request.client else ""
    if site.entries.exhausted(address):
        raise HTTPException(429, "Too many unknown links were tried from here. Wait a minute, then try again.")
    token = (await guard.form(request)).get("token", "")
    if not await run_in_threadpool(known, token):
        site.entries.count(address)
        raise HTTPException(404, "This invitation is unknown or has expired. Ask who sent it for a new one.")
    return token


def set_cookie(response: Response, site: Site, name: str, token: str, path: str = "/") -> None:
    """A cookie that ends with the browser, no script reads and no other site's page sends."""
    response.set_cookie(name, token, path=path, httponly=True, samesite="strict", secure=site.url.startswith("https:"))


def is_admin(site: Site, token: str) -> bool:
    """Whether this is the secret that was printed at the start."""
    return hmac.compare_digest(site.admin_token.encode(), token.encode())
