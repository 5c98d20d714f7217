"""What people see from a phone and after the decision: the mailed link, the run, the batch that follows itself."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from banksman import ids
from banksman.ids import RequestId
from banksman.states import Tier
from tests.browser.conftest import PHONE, WIDE, OpenAs, Place
from tests.browser.test_everywhere import barriers
from tests.browser.test_triage import state
from tests.gateway.browser import mailed, notice_of
from tests.gateway.scenes import asking
from tests.gateway.test_batch_page import a_batch, finish, wait
from tests.gateway.test_run_page import a_run_with, asked, returned, said

SMALL = (360, 640)
"""What a phone leaves of its screen between its own bars."""


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_a_short_request_is_read_and_decided_in_one_screen(place: Place, open_as: OpenAs, *, script: bool) -> None:
    request_id, url, code = a_mailed(place)
    page = open_as(place.site.ben, "/sign-in", size=SMALL, script=script)
    page.context.clear_cookies()

    page.goto(url)

    for name in ("Approve", "Deny"):
        box = page.get_by_role("button", name=name, exact=True).bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["width"] >= 44
        assert box["y"] + box["height"] <= SMALL[1], (name, box)
    typed = page.get_by_label("Code from the mail").bounding_box()
    assert typed is not None
    assert typed["height"] >= 44
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.get_by_label("Code from the mail").fill(code)
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.locator("main")).to_contain_text("What was decided")
    assert state(place, request_id) == "approved"


def test_enter_in_the_code_field_never_approves(place: Place, open_as: OpenAs) -> None:
    request_id, url, code = a_mailed(place)
    page = open_as(place.site.ben, "/sign-in", size=SMALL)
    page.context.clear_cookies()
    page.goto(url)

    page.get_by_label("Code from the mail").fill(code)
    page.keyboard.press("Enter")

    expect(page.locator("main")).to_contain_text("What was decided")
    assert state(place, request_id) == "denied"


def test_every_target_of_the_mailed_page_is_large(place: Place, open_as: OpenAs) -> None:
    _, url, _ = a_mailed(place)
    page = open_as(place.site.ben, "/sign-in", size=SMALL)
    page.context.clear_cookies()
    page.goto(url)
    page.get_by_text("Say why, or stop the whole run").click()

    found = page.locator("button:visible, summary:visible, input:visible, label.inline:visible, header a:visible")
    boxes = {one.evaluate("it => it.outerHTML.slice(0, 80)"): one.bounding_box() for one in found.all()}

    small = {
        words: box
        for words, box in boxes.items()
        if box is None or (box["height"] < 44 and 'type="checkbox"' not in words)  # its label is the target
    }
    assert len(boxes) >= 6
    assert small == {}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_what_comes_after_has_no_serious_barrier_and_fits(
    place: Place, open_as: OpenAs, size: tuple[int, int], *, dark: bool
) -> None:
    talk = [asked("Do it. " * 40), *(said(text="x" * 3000, call={"command": "y" * 300}) for _ in range(20))]
    run_id = a_run_with(place.site, [({"/a.txt": b"1\n"}, talk), ({"/a.txt": b"2\n"}, [returned("z" * 400)])])
    lot = a_batch(place.site, 3)
    finish(place.site, lot.runs[0], {"requests": 1})
    wait(place.site, lot.runs[1])
    _, url, _ = a_mailed(place)
    page = open_as(place.site.ana, size=size, dark=dark)
    own = [f"/runs/{ids.show('run', run_id)}", "/batches", lot.page]

    found = {path: look(page, path) for path in own}
    page.context.clear_cookies()
    found["link"] = look(page, url)

    assert not any(found.values()), found


def test_an_open_batch_follows_what_happens(place: Place, open_as: OpenAs) -> None:
    lot = a_batch(place.site, 2)
    page = open_as(place.site.ana, lot.page)
    expect(page.locator("main")).to_contain_text("0 of 2 runs are over")

    for run_id in lot.runs:
        finish(place.site, run_id, {"requests": 1})

    expect(page.locator("main")).to_contain_text("2 of 2 runs are over", timeout=15_000)
    expect(page.locator("#watched")).to_have_text("")


def a_mailed(place: Place) -> tuple[RequestId, str, str]:
    """A short request of tier low, with the address and the code of its mail."""
    arguments = {"order": "A-1042", "amount": "59.00", "currency": "EUR"}
    _, [request_id] = place.site.a_waiting_run(asking(tool="issue_refund", arguments=arguments, tier=Tier.LOW))
    mail = mailed(place.site, notice_of(place.site, request_id))
    return request_id, mail["url"], mail["code"]


def look(page: Page, path: str) -> list[str]:
    """Barriers of a page, all of it unfolded, and whether it is wider than the screen."""
    found = barriers(page, path)
    page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")
    wide = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    return [*found, *(["wider than the screen"] if wide else [])]
