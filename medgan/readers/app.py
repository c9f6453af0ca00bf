"""The web application of a reader study: invitation, consent, one image after the other, every answer saved at once.

The server knows what readers may see (study.json, images/) and never opens key.json. Images are sent as they lie on the disk, not compressed, all with
the same headers: a compressed image is as long as it is noisy.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from medgan.readers import admin, guard
from medgan.readers.answers import Answer
from medgan.readers.design import LIKERT, Design
from medgan.readers.pages import MOST_YEARS, ROLES, STATIC, questions
from medgan.readers.site import Site, enter, page, set_cookie, site_of
from medgan.readers.store import Closed, Reader, Store
from medgan.readers.study import Study

log = logging.getLogger(__name__)

MOST_MILLISECONDS = 24 * 3600 * 1000
COOKIE = "medgan_reader"


async def reader_of(request: Request) -> tuple[Reader, str]:
    """Who asks, and the secret in the cookie.

    Raises:
        HTTPException: 401, nobody who was invited; 429.
    """
    site, token = site_of(request), request.cookies.get(COOKIE, "")
    reader = await run_in_threadpool(site.store.welcome, token) if token else None
    if reader is None:
        raise HTTPException(401, "Open your invitation link to go on. Links end at some day: ask who sent yours for a new one.")
    site.requests.count(reader.code)
    return reader, token


async def home(request: Request) -> Response:
    """To the page at which the reader is."""
    reader, _ = await reader_of(request)
    return RedirectResponse("/read" if reader.began else "/start", 303)


async def door(request: Request) -> Response:
    """The page of an invitation. Looking at it changes nothing: mail filters open links too."""
    return page("door.html.j2", site_of(request), token=request.path_params["token"], action="/enter", admin=False)


async def enter_reader(request: Request) -> Response:
    """The way in: the secret of the link becomes a cookie."""
    site = site_of(request)
    token = await enter(request, lambda token: site.store.welcome(token) is not None)
    response = RedirectResponse("/", 303)
    set_cookie(response, site, COOKIE, token)
    return response


async def start(request: Request) -> Response:
    """Consent, role and years of experience, once."""
    site, (reader, token) = site_of(request), await reader_of(request)
    if reader.began:
        return RedirectResponse("/read", 303)
    given: dict[str, str] = {}
    problem = ""
    if request.method == "POST":
        guard.check_origin(request, site.url)
        given = await guard.form(request)
        guard.check_csrf(token, given.get("csrf", ""))
        years = number_of_years(given.get("years", ""))
        if not given.get("consent"):
            problem = "Without your consent there is no reading. Tick the box to agree, or close this page."
        elif given.get("role") not in ROLES:
            problem = "Choose what you are."
        elif years is None:
            problem = f"Give your years of experience as a number from 0 to {MOST_YEARS}."
        else:
            await run_in_threadpool(functools.partial(site.store.begin, reader.code, role=given["role"], years=years))
            return RedirectResponse("/read", 303)
    return page(
        "start.html.j2", site, status=400 if problem else 200, csrf=guard.csrf(token), reader=reader.code, given=given, problem=problem,
    )  # fmt: skip


def number_of_years(text: str) -> float | None:
    """Years of experience; None where `text` is no such number."""
    try:
        years = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return years if 0 <= years <= MOST_YEARS else None


async def read(request: Request) -> Response:
    """The viewer, with the reader's order and what is answered already."""
    site, (reader, token) = site_of(request), await reader_of(request)
    if not reader.began:
        return RedirectResponse("/start", 303)
    saved = await run_in_threadpool(site.store.answers, reader.code)
    state = {
        **questions(site.study.design),
        "order": site.order(reader.code),
        "saved": {one.item: {"answer": one.answer, "likert": one.likert, "milliseconds": one.milliseconds} for one in saved},
        "csrf": guard.csrf(token),
    }
    return page("read.html.j2", site, state=state, reader=reader.code, csrf=guard.csrf(token))


async def answer(request: Request) -> Response:
    """Save one answer: 200 says that it is on the disk."""
    site, (reader, token) = site_of(request), await reader_of(request)
    guard.check_origin(request, site.url)
    guard.check_csrf(token, request.headers.get("x-csrf-token", ""))
    try:
        given = json.loads(await guard.body(request))
    except (ValueError, RecursionError):
        raise HTTPException(400, "This is no JSON.") from None
    order = site.order(reader.code)
    places = {item: place for place, (_, item) in enumerate(order)}
    one = checked(given, site.study.design, reader.code, {item: section for section, item in order}, site.study.id)
    if not reader.began:
        raise HTTPException(403, "Your consent comes first.")
    # Answers have no gaps, so as many as there are say which item is next.
    if places[one.item] > reader.answered:
        raise HTTPException(409, "Images before this one have no answer yet. Load the page again.")
    try:
        await run_in_threadpool(functools.partial(site.store.save, one, change=site.study.design.go_back))
    except Closed:
        raise HTTPException(409, "This image has an answer already, which stays. Load the page again.") from None
    return JSONResponse({"saved": one.item})


def checked(given: Any, design: Design, reader: str, sections: dict[str, str], study: str) -> Answer:
    """An answer from JSON values.

    Raises:
        HTTPException: 404, the item is not in the study; 400, a value cannot be.
    """
    given = given if isinstance(given, dict) else {}
    item, word, likert, milliseconds = (given.get(name) for name in ("item", "answer", "likert", "milliseconds"))
    if not isinstance(item, str) or item not in sections:
        raise HTTPException(404, "This image is not in the study.")
    if word not in design.answers:
        raise HTTPException(400, f"The answer is one of {', '.join(design.answers)}.")
    if (type(likert) is not int or likert not in LIKERT) if design.likert else likert is not None:
        raise HTTPException(400, "The scale goes from 1 to 5." if design.likert else "This study has no scale.")
    if type(milliseconds) is not int or not 0 <= milliseconds <= MOST_MILLISECONDS:
        raise HTTPException(400, "The time is a number of milliseconds.")
    return Answer(study=study, reader=reader, section=sections[item], item=item, answer=word, likert=likert, milliseconds=milliseconds)


async def image(request: Request) -> Response:
    """A picture, as it lies on the disk, for a reader of this study."""
    site, (reader, _) = site_of(request), await reader_of(request)
    path = site.files.get(request.path_params["name"])
    if path is None or not reader.began:
        raise HTTPException(404, "There is no such image.")
    return Response(await run_in_threadpool(path.read_bytes), media_type="image/png")


async def leave(request: Request) -> Response:
    """Forget the reader, as at a computer that others use too."""
    site, (_, token) = site_of(request), await reader_of(request)
    guard.check_origin(request, site.url)
    guard.check_csrf(token, (await guard.form(request)).get("csrf", ""))
    response = page(
        "message.html.j2",
        site,
        title="See you later",
        text="Every answer is saved. Your invitation link opens the study where you left it.",
    )
    response.delete_cookie(COOKIE)
    return response


async def refused(request: Request, error: Exception) -> Response:
    """A problem as one sentence: JSON for the script, a page for people."""
    assert isinstance(error, HTTPException)
    words = (
        error.detail
        if error.status_code not in (404, 405) or error.detail not in ("Not Found", "Method Not Allowed")
        else "There is no such page."
    )
    if request.url.path == "/answer":
        return JSONResponse({"problem": words}, error.status_code)
    return page("message.html.j2", site_of(request), status=error.status_code, title="This did not work", text=words)


async def database_gone(request: Request, error: Exception) -> Response:
    """The page says that nothing was saved, and the log why."""
    log.error("the database does not answer: %s", type(error).__name__)
    return await refused(request, HTTPException(503, "The database does not answer. Nothing was saved; try again in a moment."))


def make_app(study: Study, store: Store, *, url: str, admin_token: str) -> guard.Headers:
    """The application of one study.

    Args:
        study: What is shown.
        store: Where answers go.
        url: What readers type, without a slash at the end.
        admin_token: Secret of the administrator.
    """
    routes = [
        Route("/", home),
        Route("/i/{token:str}", door),
        Route("/enter", enter_reader, methods=["POST"]),
        Route("/start", start, methods=["GET", "POST"]),
        Route("/read", read),
        Route("/answer", answer, methods=["POST"]),
        Route("/images/{name:str}", image),
        Route("/leave", leave, methods=["POST"]),
        Mount("/admin", routes=admin.ROUTES),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    host = url.split("://")[1].rsplit(":", 1)[0]
    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        HTTPException: refused,
        sa.exc.SQLAlchemyError: database_gone,
    }
    app = Starlette(
        routes=routes,
        middleware=[
            # A name of another site that points here (DNS rebinding) is not ours.
            Middleware(TrustedHostMiddleware, allowed_hosts=[host, "127.0.0.1", "localhost"], www_redirect=False),
        ],
        exception_handlers=handlers,
    )
    app.state.site = Site(study, store, url, admin_token, guard.Limit(0.5, 20), guard.Limit(30, 120))
    # Outside everything, so that an internal error has the headers too.
    return guard.Headers(app, secure=url.startswith("https:"))
