"""Asks the gateway for the links and codes of notices: the notifier holds no key that could make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from banksman import digest, ids
from banksman.errors import BanksmanError, InvalidInput, NotFound
from banksman.ids import NoticeId


@dataclass(frozen=True, slots=True)
class Link:
    """What the gateway mints for one notice; a sign-in's URL is the page to type the code into."""

    url: str = field(repr=False)
    code: str = field(repr=False)


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
        body = {"notices": [notice_id.hex for notice_id in notice_ids]}
        try:
            response = self._http.post("/internal/links", json=body)
        except httpx.HTTPError as error:
            raise GatewayAway(f"The gateway cannot be reached: {error}") from error
        if response.status_code != 200:
            raise GatewayAway(f"The gateway answered {response.status_code} when asked for links.")
        try:
            answer: Any = digest.parse(response.content, what="The gateway's answer")
            items = dict(zip(notice_ids, answer["items"], strict=True))
            return {notice_id: _link(notice_id, item) for notice_id, item in items.items()}
        except (AttributeError, InvalidInput, KeyError, TypeError, ValueError) as error:
            raise GatewayAway(f"The gateway's answer is not about these notices: {error}") from error

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()


def _link(notice_id: NoticeId, item: Any) -> Link | NotFound:
    if item["notice"] != ids.show("ntc", notice_id):
        raise ValueError("another notice's link")
    if "reason" in item:
        return NotFound(f"The gateway mints no link: {item['reason']}")
    url, code = item["url"], item["code"]
    if not isinstance(url, str) or not isinstance(code, str) or not url or not code:
        raise TypeError("neither a link nor a reason")
    return Link(url, code)
