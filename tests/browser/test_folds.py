"""What is folded is opened before anybody agrees: in the pane, on a request's own page, by a mailed link."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from banksman.digest import Json
from banksman.ids import RequestId
from banksman.states import Tier
from tests.browser.conftest import OpenAs, Place
from tests.browser.test_triage import became, in_pane, state
from tests.gateway.browser import mailed, notice_of, page_of
from tests.gateway.scenes import asking

LONG: Json = "".join(f"line {number}\n" for number in range(842))
MANY: Json = [{"to": f"p{number}", "sum": number} for number in range(90)]


def waiting(place: Place, tier: Tier = Tier.LOW) -> RequestId:
    _, [request_id] = place.site.a_waiting_run(asking(tool="send", arguments={"body": LONG, "many": MANY}, tier=tier))
    return request_id


def approve(page: Page) -> None:
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_disabled()
    expect(page.locator("#decide")).to_contain_text("First open what is folded above.")
    expect(page.get_by_role("button", name="Deny", exact=True)).to_be_enabled()


def test_in_the_inbox_approval_waits_until_every_fold_was_opened(place: Place, open_as: OpenAs) -> None:
    only = waiting(place)
    page = open_as(place.site.ana)
    in_pane(page, "812 lines, 6,416 characters between")
    approve(page)

    page.keyboard.press("a")
    expect(page.locator("#held")).to_be_hidden()
    page.keyboard.press("Enter")
    expect(page.get_by_text("line 400", exact=True)).to_be_visible()
    approve(page)
    page.keyboard.press("f")
    expect(page.get_by_text('"p45"', exact=True)).to_be_visible()
    page.keyboard.press("a")

    became(page, only, "approved")
    assert state(place, only) == "approved"


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_a_mailed_link_and_a_page_of_its_own_ask_alike(place: Place, open_as: OpenAs, *, script: bool) -> None:
    first, second = waiting(place), waiting(place, Tier.MEDIUM)
    mail = mailed(place.site, notice_of(place.site, first))
    own = open_as(place.site.ana, page_of(second), script=script)
    link = open_as(place.site.ana, "/sign-in", script=script)
    link.context.clear_cookies()
    link.goto(mail["url"])

    for page in (own, link):
        if page is link:
            page.get_by_label("Code from the mail").fill(mail["code"])
        if script:
            approve(page)
            page.locator("details.fold > summary").first.click()
            approve(page)
            page.locator("details.fold > summary").last.click()
        else:
            page.get_by_role("button", name="Approve", exact=True).click()
            expect(page.locator("#decide")).to_be_visible()
            page.get_by_label("I have read all of it, also what is folded").check()
        page.get_by_role("button", name="Approve", exact=True).click()
        expect(page.locator("main")).to_contain_text("What was decided")

    assert (state(place, first), state(place, second)) == ("approved", "approved")
