"""Asks the gateway for the link and the code of a notice: the notifier holds no key that could make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx

from banksman import digest
from banksman.errors import BanksmanError, InvalidInput, NotFound
from banksman.ids import NoticeId


@dataclass(frozen=True, slots=True)
class Link:
    """What the gateway mints for one notice; a sign-in has a code and no link."""

    url: str = field(repr=False)
    code: str | None = field(repr=False)


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

    def link(self, notice_id: NoticeId) -> Link:
        """The link of a notice: the same one each time; `NotFound` when the gateway says it counts no more."""
        try:
            response = self._http.post("/internal/links", json={"notice": notice_id.hex})
        except httpx.HTTPError as error:
            raise GatewayAway(f"The gateway cannot be reached: {error}") from error
        if response.status_code in (404, 409, 410):
            raise NotFound("The gateway mints no link for this notice any more.")
        if response.status_code != 200:
            raise GatewayAway(f"The gateway answered {response.status_code} when asked for a link.")
        try:
            return _link(digest.parse(response.content, what="The gateway's answer"))
        except (InvalidInput, KeyError, TypeError) as error:
            raise GatewayAway(f"The gateway's answer is not a link: {error}") from error

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()


def _link(body: Any) -> Link:
    url, code = body.get("url") or "", body.get("code")
    if not isinstance(url, str) or not isinstance(code, str | None) or not (url or code):
        raise TypeError("neither a url nor a code")
    return Link(url, code)
