"""A browser without scripts: keeps cookies, reads pages, and fills in the forms that it finds on them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any, cast

from httpx2 import Response
from starlette.testclient import TestClient

from banksman import ids, ledger
from banksman.blocks import Block
from banksman.digest import Json
from banksman.ids import NoticeId, RequestId
from banksman.ledger import requests
from banksman.records import NewRequest, Person, Request
from tests.gateway.scenes import NOTIFIER_TOKEN, Site, notices_of

ORIGIN = "http://localhost:8420"


@dataclass(slots=True)
class Form:
    """A form as a scanner sees it: its address and what its fields hold by default."""

    action: str
    fields: dict[str, str] = field(default_factory=dict[str, str])
    verdicts: set[str] = field(default_factory=set[str])
    """Those of its buttons, where a form has one for each."""


class Browser:
    """One person's browser."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.http = TestClient(site.client.app, base_url=ORIGIN, follow_redirects=False)

    def get(self, path: str, **headers: str) -> Response:
        """Open an address."""
        return self.http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def send(self, form: Form, *, headers: dict[str, str] | None = None, **typed: str) -> Response:
        """Send a form as a browser does, with some fields typed over."""
        sent = {"Sec-Fetch-Site": "same-origin"} if headers is None else headers
        return self.http.post(form.action, data=form.fields | typed, headers=sent)

    def form(self, path: str, verdict: str | None = None) -> Form:
        """The form on a page: the one for this verdict, or the only one in its main part."""
        page = self.get(path)
        assert page.status_code == 200, page.text
        return form_in(page.text, verdict)

    def sign_in(self, person: Person) -> None:
        """By the code that is mailed."""
        answer = self.send(Form("/sign-in", {"email": person.email, "next": "/"}))
        assert answer.status_code == 200
        code = code_of(self.site, latest_sign_in(self.site))
        answer = self.send(form_in(answer.text), code=code)
        assert answer.status_code == 303, answer.text


def page_of(request_id: RequestId) -> str:
    """The address of a request's page."""
    return f"/requests/{ids.show('req', request_id)}"


def stored(site: Site, request_id: RequestId) -> Request:
    """A request as it stands in the database."""
    with ledger.transaction(site.gateway) as conn:
        return requests.get(conn, request_id)


def notice_of(site: Site, request_id: RequestId) -> NoticeId:
    """The one notice about a request."""
    with ledger.transaction(site.gateway) as conn:
        [notice] = notices_of(conn, request_id)
    return notice.id


def latest_sign_in(site: Site) -> NoticeId:
    """The sign-in notice that was made last."""
    with ledger.transaction(site.gateway) as conn:
        row = conn.execute("SELECT id FROM notices WHERE kind = 'sign_in' ORDER BY created_at DESC LIMIT 1").fetchone()
    assert row is not None
    return NoticeId(row[0])


def mailed(site: Site, notice: NoticeId) -> dict[str, Any]:
    """What the notifier is given for a mail: url and code."""
    answer = site.client.post(
        "/internal/links", json={"notices": [notice.hex]}, headers={"Authorization": f"Bearer {NOTIFIER_TOKEN}"}
    )
    assert answer.status_code == 200, answer.text
    [minted] = answer.json()["items"]
    return minted


def code_of(site: Site, notice: NoticeId) -> str:
    """The code in a mail."""
    return mailed(site, notice)["code"]


def link_of(site: Site, notice: NoticeId) -> str:
    """The path of the link in a mail."""
    return mailed(site, notice)["url"].removeprefix(ORIGIN)


def with_context(new: NewRequest, **context: Json) -> NewRequest:
    """The same request with other context."""
    return replace(new, context=json.dumps(json.loads(new.context) | context).encode())


def form_in(page: str, verdict: str | None = None) -> Form:
    """The form for a verdict, or the only one outside the page's head."""
    found = [form for form in forms_in(page) if form.action != "/sign-out"]
    if verdict is not None:
        found = [form for form in found if verdict in {form.fields.get("verdict"), *form.verdicts}]
        found = [replace(form, fields=form.fields | {"verdict": verdict}) for form in found]
    assert len(found) == 1, [form.action for form in found]
    return found[0]


def forms_in(page: str) -> list[Form]:
    """Every form of a page."""
    reader = _Forms()
    reader.feed(page)
    return reader.found


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Form] = []
        self._area: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(given["action"]))
        elif tag == "input" and given.get("type") not in ("checkbox", "radio"):
            self.found[-1].fields[given["name"]] = given.get("value", "")
        elif tag == "button" and given.get("name") == "verdict":
            self.found[-1].verdicts.add(given["value"])
        elif tag == "textarea":
            self._area = given["name"]
            self.found[-1].fields[self._area] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._area is not None:
            # A browser drops the line break right after the opening tag.
            fields = self.found[-1].fields
            fields[self._area] = fields[self._area].removeprefix("\n")
            self._area = None

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self.found[-1].fields[self._area] += data


class Words(HTMLParser):
    """What a page says, and every tag on it."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.parts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.parts)


def routes_of(site: Site) -> Iterator[tuple[str, set[str]]]:
    """Every address pattern of the gateway with its methods."""
    for mounted in cast("Any", site.client).app.routes:
        inner = getattr(mounted, "original_router", None)
        for route in [mounted] if inner is None else inner.routes:
            yield route.path, set(route.methods or ())


@dataclass(slots=True)
class Part:
    """A block of an action as a page holds it, folded or not."""

    form: str
    label: str = ""
    lines: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """The number of each line and its text; a line that a fold divides is one."""
    rows: list[list[str]] = field(default_factory=list[list[str]])
    folded: list[str] = field(default_factory=list[str])
    """What each fold says of itself."""
    inside: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """What stands in folds, each part of a line alone."""


class Parts(HTMLParser):
    """The blocks of the action on a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Part] = []
        self._open: list[tuple[str, str]] = []
        self._whole = 0
        self._number = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("meta", "link", "img", "input"):
            return
        self._open.append((tag, given.get("class", "")))
        if "data-whole" in given:
            self._whole = len(self._open)
        if not self._whole:
            return
        kind = given.get("class", "")
        if "data-form" in given:
            self.found.append(Part(given["data-form"]))
        elif tag in ("td", "th"):
            self.found[-1].rows[-1].append("")
        elif kind == "no":
            self._number = ""
        elif kind in ("tx", "value"):
            self._text(kind)
        elif tag == "tr":
            self.found[-1].rows.append([])
        elif tag == "summary" and self._open[-2][1] == "fold":
            self.found[-1].folded.append("")

    def _text(self, kind: str) -> None:
        if kind == "value":
            self._number = "1"
        if self._number:
            self.found[-1].lines.append((self._number.strip(), ""))
        if self._within("fold"):
            self.found[-1].inside.append((self._number.strip(), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag
        if len(self._open) < self._whole:
            self._whole = 0

    def handle_data(self, data: str) -> None:
        if not self._whole or not self.found:
            return
        part = self.found[-1]
        if self._within("tx") or self._within("value"):
            part.lines[-1] = (part.lines[-1][0], part.lines[-1][1] + data)
            if self._within("fold"):
                part.inside[-1] = (part.inside[-1][0], part.inside[-1][1] + data)
        elif self._within("no") and not part.rows:
            self._number += data
        elif part.rows and {tag for tag, _ in self._open} & {"td", "th"}:
            part.rows[-1][-1] += data
        elif any(tag == "h3" for tag, _ in self._open) and not self._within("soft"):
            part.label += data
        elif self._open[-1][0] == "summary" and part.folded:
            part.folded[-1] += data

    def _within(self, kind: str) -> bool:
        return any(kind == found for _, found in self._open)


def must_show(page: str, shown: Sequence[Block]) -> None:
    """Nothing, when a page holds these blocks: each line and each cell whole, in its place, and nothing beside."""
    found = Parts(page).found
    assert [(part.form, part.label.strip()) for part in found] == [(block.form, block.label) for block in shown]
    for part, block in zip(found, shown, strict=True):
        if block.form == "table":
            head = ["Row", *block.rows[0]]
            rows = [[str(number), *row] for number, row in enumerate(block.rows) if number]
            assert part.rows[0] == head
            assert [row for row in part.rows if row != head] == rows
        else:
            assert part.lines == [(str(line.number), line.text) for line in block.lines], block.label
