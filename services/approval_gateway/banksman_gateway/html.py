"""HTML: templates in which everything is escaped, times in words, errors as pages, and the one style sheet."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from importlib import resources
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from banksman import ids, letters, masks
from banksman_gateway import folds
from banksman_gateway.problems import Problem


def page(name: str, status: int = 200, /, **values: object) -> HTMLResponse:
    """A template, filled in."""
    values.setdefault("problem", None)
    return HTMLResponse(environment.get_template(name).render(values), status_code=status)


def see(path: str) -> RedirectResponse:
    """After a POST: look there."""
    return RedirectResponse(path, status_code=303)


_REQUEST = re.compile(r"/requests/req_[0-9a-f]{32}(?=/)")


def problem_page(request: Request, problem: Problem) -> Response:
    """An error as a page; who is not signed in is sent to the sign-in, and back."""
    if problem.status == 401:
        if request.method == "GET":
            return see(f"/sign-in?next={quote(request.url.path)}")
        wanted = _REQUEST.match(request.url.path)
        lost = "" if request.url.path == "/sign-out" else "&lost=yes"
        return see(f"/sign-in?next={wanted[0] if wanted else '/'}{lost}")
    return page("problem.html", problem.status, title=problem.title, text=problem.detail, person=None)


router = APIRouter(include_in_schema=False)


@router.get("/style/{stamp}.css")
def style(stamp: str) -> Response:
    """The style sheet; its address changes with its content, so that browsers may keep it."""
    keep = "public, max-age=31536000, immutable" if stamp == _style_stamp else "no-store"
    return Response(_style, media_type="text/css", headers={"Cache-Control": keep})


@router.get("/icon.svg")
def icon() -> Response:
    """The icon."""
    return Response(_icon, media_type="image/svg+xml", headers={"Cache-Control": "public, max-age=86400"})


def relative(at: datetime) -> str:
    """How far away a moment is, in words: “in 2 h 10 min”, “3 min ago”."""
    seconds = round((at - datetime.now(UTC)).total_seconds())
    distance = _duration(abs(seconds))
    if distance is None:
        return "now"
    return f"in {distance}" if seconds > 0 else f"{distance} ago"


def _duration(seconds: int) -> str | None:
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 5:
        return None
    if seconds < 60:
        return f"{seconds} s"
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"


def _when(at: datetime | None) -> Markup:
    if at is None:
        return Markup("not yet")
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        utc.isoformat(timespec="seconds"), f"{utc:%Y-%m-%d %H:%M} UTC ({relative(at)})"
    )


def times(number: int) -> str:
    """How often, in words."""
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


_TAIL = re.compile(r" +$")


def _marked(shown: str) -> Markup:
    """Text that `letters` made visible, its numbers and trailing spaces set apart for the eye."""
    tail = _TAIL.search(shown)
    body = shown[: tail.start()] if tail else shown
    out = [
        Markup('<b class="n">{}</b>').format(piece) if apart else escape(piece) for apart, piece in letters.pieces(body)
    ]
    if tail:
        out.append(Markup('<span class="tail">{}</span>').format(tail[0]))
    return Markup("").join(out)


def _exact(value: object) -> Markup:
    return _marked(letters.line(_covered(value)))


def _prose(value: object) -> Markup:
    return _marked(letters.prose(_covered(value).replace("\r\n", "\n")))


def _head(value: object, most: int) -> Markup:
    """The beginning of a text's first line; no secret or spelled number is cut."""
    return _marked(letters.prose(letters.first(_covered(value).split("\n")[0], most)))


def _covered(value: object) -> str:
    return value if isinstance(value, masks.Covered) else masks.Cover().text(str(value))


@router.get("/script/{stamp}.js")
def script(stamp: str) -> Response:
    """One of the scripts; its address changes with its content."""
    keep = "public, max-age=31536000, immutable" if stamp in _scripts else "no-store"
    return Response(_scripts.get(stamp, ""), media_type="text/javascript", headers={"Cache-Control": keep})


_files = resources.files("banksman_gateway")
_style = (_files / "static" / "banksman.css").read_text("utf-8")
_icon = (_files / "static" / "icon.svg").read_text("utf-8")
_style_stamp = hashlib.sha256(_style.encode()).hexdigest()[:12]
_scripts: dict[str, str] = {}


def _script(name: str) -> str:
    text = (_files / "static" / name).read_text("utf-8")
    stamp = hashlib.sha256(text.encode()).hexdigest()[:12]
    _scripts[stamp] = text
    return stamp


# `autoescape=True`, not a list of endings: no template can be named so that it goes unescaped.
environment = Environment(
    loader=PackageLoader("banksman_gateway"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_filters: dict[str, Any] = {
    "when": _when,
    "relative": relative,
    "marked": _marked,
    "exact": _exact,
    "prose": _prose,
    "head": _head,
    "shown": ids.show,
    "times": times,
    "drawn": folds.drawn,
    "folded": folds.folded,
}
environment.filters.update(_filters)
_globals: dict[str, Any] = {
    "style_stamp": _style_stamp,
    "read_stamp": _script("read.js"),
    "inbox_stamps": [_script(name) for name in ("looking.js", "triage.js", "chosen.js", "foot.js")],
    "watch_stamp": _script("watch.js"),
}
environment.globals.update(_globals)
