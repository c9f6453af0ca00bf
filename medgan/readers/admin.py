"""Pages of the administrator: invitations, how far readers are, the answers as CSV. No page shows how well a reader does."""

from __future__ import annotations

import re
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from medgan import runs
from medgan.readers import guard
from medgan.readers.answers import answers_csv
from medgan.readers.site import Site, enter, is_admin, page, set_cookie, site_of
from medgan.readers.store import CODE

COOKIE, PATH = "medgan_admin", "/admin"
MOST_READERS = 500
MOST_DAYS = 366


async def admin_of(request: Request, given: dict[str, str] | None = None) -> str:
    """The administrator's secret from the cookie; with `given`, of a form that a page of ours sent.

    Raises:
        HTTPException: 401, 403.
    """
    site, token = site_of(request), request.cookies.get(COOKIE, "")
    if not is_admin(site, token):
        raise HTTPException(401, "Open the administrator's link that was printed when the server started.")
    if given is not None:
        guard.check_origin(request, site.url)
        guard.check_csrf(token, given.get("csrf", ""))
    return token


async def door(request: Request) -> Response:
    """The page of the administrator's link."""
    return page("door.html.j2", site_of(request), token=request.path_params["token"], action="/admin/enter", admin=True)


async def enter_admin(request: Request) -> Response:
    """The way in: the secret of the link becomes a cookie."""
    site = site_of(request)
    token = await enter(request, lambda token: is_admin(site, token))
    response = RedirectResponse(PATH + "/", 303)
    set_cookie(response, site, COOKIE, token, PATH)
    return response


async def overview(request: Request) -> Response:
    """Readers and how far they are."""
    return await shown(site_of(request), await admin_of(request))


async def shown(site: Site, token: str, *, links: list[tuple[str, str]] | None = None, problem: str = "", **given: Any) -> Response:
    """The page with what has just been made or refused."""
    readers = await run_in_threadpool(site.store.readers)
    return page(
        "admin.html.j2", site, status=400 if problem else 200, csrf=guard.csrf(token), readers=readers, now=runs.utc_now(), links=links or [],
        problem=problem, given={"codes": "", "days": "60", **given}, most_days=MOST_DAYS,
    )  # fmt: skip


async def invite(request: Request) -> Response:
    """New invitations, or new links of readers who have one. The links are shown this once."""
    given = await guard.form(request)
    site, token = site_of(request), await admin_of(request, given)
    codes = list(dict.fromkeys(given.get("codes", "").replace(",", " ").split()))
    known = {reader.code for reader in await run_in_threadpool(site.store.readers)}
    days = given.get("days", "").strip()
    problem = ""
    if bad := [code for code in codes if not re.fullmatch(CODE, code)]:
        problem = f"A code is 1 to 20 letters, digits and dashes, not {bad[0][:30]!r}."
    elif not codes:
        problem = "Give a code for each reader, such as R01 R02 R03."
    elif len(known | set(codes)) > MOST_READERS:
        problem = f"A study has {MOST_READERS} readers at most."
    elif not (days.isascii() and days.isdigit() and 1 <= int(days) <= MOST_DAYS):
        problem = f"Links are valid for 1 to {MOST_DAYS} days."
    elif (there := sorted(known & set(codes))) and not given.get("again"):
        problem = f"{there[0]} has a link already. Use “New link” in the reader's row to replace it."
    if problem:
        return await shown(site, token, problem=problem, codes=given.get("codes", ""), days=days)
    links = [(code, f"{site.url}/i/{await run_in_threadpool(site.store.invite, code, days=int(days))}") for code in codes]
    return await shown(site, token, links=links)


async def revoke(request: Request) -> Response:
    """End a reader's link."""
    given = await guard.form(request)
    site = site_of(request)
    await admin_of(request, given)
    await run_in_threadpool(site.store.revoke, given.get("code", ""))
    return RedirectResponse(PATH + "/", 303)


async def csv(request: Request) -> Response:
    """All answers, as `medgan readers score --answers` takes them."""
    site = site_of(request)
    await admin_of(request)
    text = answers_csv(await run_in_threadpool(site.store.answers))
    return Response(text, media_type="text/csv", headers={"content-disposition": f'attachment; filename="answers-{site.study.id}.csv"'})


async def leave(request: Request) -> Response:
    """Forget the administrator in this browser."""
    await admin_of(request, await guard.form(request))
    response = page("message.html.j2", site_of(request), title="Signed out", text="The administrator's link opens this page again.")
    response.delete_cookie(COOKIE, PATH)
    return response


ROUTES = [
    Route("/", overview),
    Route("/i/{token:str}", door),
    Route("/enter", enter_admin, methods=["POST"]),
    Route("/invite", invite, methods=["POST"]),
    Route("/revoke", revoke, methods=["POST"]),
    Route("/answers.csv", csv),
    Route("/leave", leave, methods=["POST"]),
]
