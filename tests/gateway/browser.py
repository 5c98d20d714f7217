"""A browser without scripts: keeps cookies, reads pages, and fills in the forms that it finds on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any, cast

from httpx2 import Response
from starlette.testclient import TestClient

from banksman import ids, ledger
from banksman.digest import Json
from banksman.ids import NoticeId, RequestId
from banksman.ledger import notices, requests
from banksman.records import NewRequest, Person, Request
from tests.gateway.conftest import NOTIFIER_TOKEN
from tests.gateway.scenes import Site

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
        [notice] = notices.of_request(conn, request_id)
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
