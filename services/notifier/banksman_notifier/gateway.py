"""Asks the gateway for the links and codes of notices: the notifier holds no key that could make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import httpx

from banksman import digest, ids
from banksman.errors import BanksmanError, InvalidInput, NotFound
from banksman.ids import NoticeId


@dataclass(frozen=True, slots=True)
class Link:
    """What the gateway mints for one notice; a sign-in's URL is the page to type the code into.

    `page` is where the matter is found by whoever is signed in: an address that lets nobody in.
    """

    url: str = field(repr=False)
    code: str = field(repr=False)
    page: str


class GatewayAway(BanksmanError):
    """The gateway cannot mint now: the notice waits, however long that takes."""


class Gateway:
    """The gateway's internal door, over connections that are kept."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(
            base_url=url,
            timeout=httpx.Timeout(10, connect=3),
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
        )

    def links(self, notice_ids: Sequence[NoticeId]) -> Mapping[NoticeId, Link | NotFound]:
        """The link of each notice, the same one each time; `NotFound` for one that the gateway says counts no more."""
        answer = self._ask(notice_ids)
        try:
            items = dict(zip(notice_ids, answer["items"], strict=True))
            return {notice_id: _link(notice_id, item) for notice_id, item in items.items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise GatewayAway(f"The gateway's answer is not about these notices: {error}") from error

    def home(self) -> str:
        """The address of everybody's own inbox, without a slash at its end."""
        answer = self._ask(())
        if not isinstance(answer, dict) or not isinstance(home := cast("dict[str, Any]", answer).get("home"), str):
            raise GatewayAway("The gateway does not say where people find it.")
        return home

    def _ask(self, notice_ids: Sequence[NoticeId]) -> Any:
        body = {"notices": [notice_id.hex for notice_id in notice_ids]}
        try:
            response = self._http.post("/internal/links", json=body)
        except httpx.HTTPError as error:
            raise GatewayAway(f"The gateway cannot be reached: {error}") from error
        if response.status_code != 200:
            raise GatewayAway(f"The gateway answered {response.status_code} when asked for links.")
        try:
            return digest.parse(response.content, what="The gateway's answer")
        except InvalidInput as error:
            raise GatewayAway(str(error)) from error

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()


def _link(notice_id: NoticeId, item: Any) -> Link | NotFound:
    if item["notice"] != ids.show("ntc", notice_id):
        raise ValueError("another notice's link")
    if "reason" in item:
        return NotFound(f"The gateway mints no link: {item['reason']}")
    url, code, page = item["url"], item["code"], item["page"]
    if not all(isinstance(part, str) for part in (url, code, page)) or not url or not page:
        raise TypeError("neither a link nor a reason")
    return Link(url, code, page)
