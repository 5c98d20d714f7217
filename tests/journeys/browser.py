"""A browser without scripts: cookies, pages, and the forms that it finds on them."""

from __future__ import annotations

from typing import Self

import httpx

from tests.gateway.browser import Form, Words, form_in, forms_in
from tests.journeys.mailbox import Mailbox
from tests.journeys.stacks import until

__all__ = ["Browser", "Form", "form_in", "forms_in"]


class Browser:
    """One person's browser on one gateway."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, follow_redirects=True, trust_env=False, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def open(self, address: str, status: int = 200) -> str:
        """The page behind an address, wherever it leads."""
        answer = self.http.get(address)
        assert answer.status_code == status, answer.text
        return answer.text

    def send(self, form: Form, *, status: int = 200, **typed: str) -> str:
        """The page after a form was sent with some fields typed over."""
        headers = {"Sec-Fetch-Site": "same-origin"}
        answer = self.http.post(form.action, data=form.fields | typed, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.text

    def sign_in(self, email: str, mail: Mailbox, *, page: str = "/sign-in") -> str:
        """By the code that is mailed; the page that it leads to."""
        before = len(mail.about("sign-in code", to=email))
        asking = self.send(form_in(self.open(page)), email=email)
        codes = until(lambda: mail.about("sign-in code", to=email)[before:], what=f"a code for {email}")
        return self.send(form_in(asking), code=codes[-1].code)


def words(page: str) -> str:
    """What a page says."""
    return Words(page).text
