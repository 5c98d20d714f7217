"""The pages where it is hard: without scripts, on a phone, in the dark, for screen readers, with two people at once."""

from __future__ import annotations

from typing import Any, cast

import pytest
from axe_playwright_python.sync_playwright import Axe  # pyright: ignore[reportMissingTypeStubs]
from playwright.sync_api import Page, expect

from banksman import ids, ledger
from banksman.ledger import audit, requests
from banksman.records import Event
from banksman.states import Tier
from tests.browser.conftest import PHONE, WIDE, OpenAs, Place
from tests.browser.test_triage import became, in_pane, state, waiting
from tests.gateway.browser import mailed, notice_of


def test_everything_is_decided_without_a_script(place: Place, open_as: OpenAs) -> None:
    only = waiting(place, "/1.txt")
    page = open_as(place.site.ana, script=False)

    page.get_by_role("link", name="write_file").click()
    expect(page.locator("main")).to_contain_text("/1.txt")
    page.get_by_role("button", name="Approve", exact=True).click()

    expect(page.locator("main")).to_contain_text("What was decided")
    assert state(place, only) == "approved"


def test_on_a_phone_nothing_is_wider_than_the_screen_and_buttons_are_large(place: Place, open_as: OpenAs) -> None:
    only = waiting(place, "/" + "very-long-name-" * 12 + ".txt")
    page = open_as(place.site.ana, size=PHONE)

    for path in ("/", "/groups", f"/requests/{ids.show('req', only)}", "/runs"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
    page.goto(f"/requests/{ids.show('req', only)}")
    box = page.get_by_role("button", name="Approve", exact=True).bounding_box()
    assert box is not None
    assert box["height"] >= 44


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_no_page_has_a_serious_barrier(place: Place, open_as: OpenAs, size: tuple[int, int], *, dark: bool) -> None:
    for number in range(3):
        waiting(place, f"/{number}.txt")
    only = waiting(place, "/a\u202eb.txt")
    page = open_as(place.site.ana, size=size, dark=dark)

    found = {path: barriers(page, path) for path in ("/", "/groups", f"/requests/{ids.show('req', only)}", "/runs")}

    assert not any(found.values()), found


def test_of_two_people_the_second_is_told_and_loses_nothing(place: Place, open_as: OpenAs) -> None:
    only = waiting(place, "/1.txt")
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")
    page.keyboard.press("a")

    place.site.vote(only, place.site.token(place.site.ben), verdict="deny", reason="No.")

    row = page.locator(f'li[data-request="{ids.show("req", only)}"] .became')
    expect(row).to_contain_text("Not counted", timeout=10_000)
    expect(row).to_contain_text("already denied, by ben@example.org")
    assert state(place, only) == "denied"


def test_what_comes_in_is_counted_and_moves_nothing(place: Place, open_as: OpenAs) -> None:
    waiting(place, "/1.txt", expires_after=7000)
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")

    sooner = waiting(place, "/sooner.txt", expires_after=4000)
    with ledger.transaction(place.site.worker) as conn:
        audit.append(conn, Event("worker:1", "request.opened", requests.get(conn, sooner).run_id, sooner))
    place.site.parts.wire.changed(request=sooner)

    expect(page.locator("#news")).to_have_text("1 new: show", timeout=10_000)
    expect(page.locator("#waiting li")).to_have_count(1)
    page.locator("#news").click()
    expect(page.locator("#waiting li")).to_have_count(2)
    in_pane(page, "/sooner.txt")


def test_keys_do_nothing_once_they_are_switched_off(place: Place, open_as: OpenAs) -> None:
    only = waiting(place, "/1.txt")
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")

    page.keyboard.press("?")
    page.get_by_label("Single keys do something").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("a")

    expect(page.locator("#held")).to_be_hidden()
    assert state(place, only) == "open"


def test_a_denial_by_a_preset_is_one_click_and_one_more(place: Place, open_as: OpenAs) -> None:
    only = waiting(place, "/1.txt")
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")

    page.get_by_role("button", name="Wrong target.").click()
    page.get_by_role("button", name="Deny", exact=True).click()

    became(page, only, "denied")
    assert "Wrong target." in str(place.site.request(only)["votes"])


def test_enter_in_the_code_of_a_mailed_link_denies(place: Place, open_as: OpenAs) -> None:
    only = waiting(place, "/1.txt", tier=Tier.LOW)
    page = open_as(place.site.ana)
    page.context.clear_cookies()
    mail = mailed(place.site, notice_of(place.site, only))
    page.goto(mail["url"])

    page.get_by_label("Code from the mail").fill(mail["code"])
    page.keyboard.press("Enter")

    expect(page.locator("main")).to_contain_text("What was decided")
    assert state(place, only) == "denied"


def barriers(page: Page, path: str) -> list[str]:
    page.goto(path)
    if path == "/" and page.viewport_size and page.viewport_size["width"] > 1000:
        expect(page.locator("#pane h1")).to_be_visible()
    found = cast("list[dict[str, Any]]", cast("Any", Axe().run(page)).response["violations"])
    bad = [item for item in found if item["impact"] in ("serious", "critical")]
    return [f"{item['id']}: {item['nodes'][0]['html'][:120]}" for item in bad]
