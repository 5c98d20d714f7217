"""The inbox by keyboard: one key a request, a few seconds to take it back, and nothing moves under the cursor."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from banksman import ids, ledger
from banksman.ids import RequestId
from tests.browser.conftest import OpenAs, Place
from tests.gateway.scenes import asking


def test_a_key_approves_what_is_in_the_pane_and_goes_on_to_the_next(place: Place, open_as: OpenAs) -> None:
    first, second = (waiting(place, f"/{n}.txt", expires_after=1000 * n) for n in (1, 2))
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")

    page.keyboard.press("a")

    in_pane(page, "/2.txt")
    expect(page.locator("#held")).to_contain_text("approve write_file")
    assert state(place, first) == "open"
    became(page, first, "approved")
    assert state(place, first) == "approved"
    assert state(place, second) == "open"


def test_a_vote_is_taken_back_before_it_is_sent(place: Place, open_as: OpenAs) -> None:
    only = waiting(place, "/1.txt")
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")

    page.keyboard.press("a")
    expect(page.locator("#held")).to_be_visible()
    page.keyboard.press("u")

    expect(page.locator("#held")).to_be_hidden()
    in_pane(page, "/1.txt")
    page.wait_for_timeout(5500)
    assert state(place, only) == "open"


def test_leaving_the_page_sends_what_was_held(place: Place, open_as: OpenAs) -> None:
    only = waiting(place, "/1.txt")
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")

    page.keyboard.press("a")
    page.goto("/runs")

    until(page, place, only, "approved")


def test_a_denial_says_why(place: Place, open_as: OpenAs) -> None:
    only = waiting(place, "/1.txt")
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")

    page.keyboard.press("d")
    page.keyboard.type("Not this file.")
    page.keyboard.press("Control+Enter")

    became(page, only, "denied")
    assert "Not this file." in str(place.site.request(only)["votes"])


def waiting(place: Place, path: str, **requirement: Any) -> RequestId:
    _, [request_id] = place.site.a_waiting_run(asking(arguments={"path": path, "content": "x\n"}, **requirement))
    return request_id


def in_pane(page: Page, words: str) -> None:
    expect(page.locator("#pane")).to_contain_text(words)


def became(page: Page, request_id: RequestId, words: str) -> None:
    row = page.locator(f'li[data-request="{ids.show("req", request_id)}"] .became')
    expect(row).to_contain_text(f": {words}", timeout=10_000)


def state(place: Place, request_id: RequestId) -> str:
    return place.site.request(request_id)["state"]


def until(page: Page, place: Place, request_id: RequestId, wanted: str) -> None:
    for _ in range(50):
        if state(place, request_id) == wanted:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"it is {state(place, request_id)}, not {wanted}")


def test_a_vote_of_somebody_signed_out_meanwhile_is_said_to_be_lost(place: Place, open_as: OpenAs) -> None:
    only = waiting(place, "/1.txt")
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")
    with ledger.transaction(place.site.gateway) as conn:
        conn.execute("UPDATE sessions SET ended_at = clock_timestamp()")

    page.keyboard.press("a")

    row = page.locator(f'li[data-request="{ids.show("req", only)}"] .became')
    expect(row).to_contain_text("Not sent. You are signed out.", timeout=10_000)
    assert state(place, only) == "open"


def test_while_a_page_is_read_no_key_reaches_the_one_before(place: Place, open_as: OpenAs) -> None:
    first, second = (waiting(place, f"/{n}.txt", expires_after=1000 * n) for n in (1, 2))
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")
    page.route(f"**/requests/{ids.show('req', second)}", lambda route: None)
    page.reload()
    in_pane(page, "/1.txt")

    page.keyboard.press("j")
    page.keyboard.press("a")
    page.wait_for_timeout(500)

    expect(page.locator("#pane form")).to_have_count(0)
    expect(page.locator("#held")).to_be_hidden()
    assert (state(place, first), state(place, second)) == ("open", "open")
