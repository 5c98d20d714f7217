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


def test_signing_out_sends_what_was_held_first(place: Place, open_as: OpenAs) -> None:
    one, two = (waiting(place, f"/{n}.txt", expires_after=1000 * n) for n in (1, 2))
    page = open_as(place.site.ana)
    for path in ("/1.txt", "/2.txt"):
        in_pane(page, path)
        page.keyboard.press("a")

    page.get_by_role("button", name="Sign out").click()

    expect(page).to_have_url(place.url + "/sign-in")
    assert (state(place, one), state(place, two)) == ("approved", "approved")


def test_who_signs_out_sees_first_which_vote_was_refused(place: Place, open_as: OpenAs) -> None:
    only = waiting(place, "/1.txt")
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")
    page.keyboard.press("a")
    place.site.vote(only, place.site.token(place.site.ben), verdict="deny")

    page.get_by_role("button", name="Sign out").click()

    expect(page.locator("#waiting")).to_contain_text("Not counted")
    expect(page).to_have_url(place.url + "/")


def test_a_vote_too_large_to_be_sent_while_leaving_is_sent_at_once(place: Place, open_as: OpenAs) -> None:
    only = waiting(place, "/1.txt", expires_after=1000)
    waiting(place, "/2.txt", expires_after=2000)
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")
    page.keyboard.press("e")
    page.locator("#arg-content").fill("much " * 20_000)
    page.get_by_role("button", name="Show what changes").click()
    in_pane(page, "What you changed")
    page.keyboard.press("f")
    page.get_by_role("button", name="Approve with these changes").click()

    expect(page.locator("#held")).to_be_hidden()
    in_pane(page, "/2.txt")
    until(page, place, only, "approved")


def test_of_votes_that_are_too_large_together_the_first_is_sent_and_none_is_lost(place: Place, open_as: OpenAs) -> None:
    asked = [waiting(place, f"/{n}.txt", expires_after=1000 * n) for n in (1, 2, 3)]
    page = open_as(place.site.ana)
    for number in (1, 2, 3):
        in_pane(page, f"/{number}.txt")
        page.locator("#pane #reason-deny").fill("é" * 3900)
        page.get_by_role("button", name="Deny", exact=True).click()
    became(page, asked[0], "denied")
    page.goto("/runs")

    for one in asked[1:]:
        until(page, place, one, "denied")


def test_an_argument_is_changed_in_the_pane_in_a_field_of_its_own(place: Place, open_as: OpenAs) -> None:
    only = waiting(place, "/1.txt")
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")

    page.keyboard.press("e")
    expect(page.locator("#arg-content")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("/2.txt")
    page.keyboard.press("Enter")
    in_pane(page, "What you changed")
    page.get_by_role("button", name="Approve with these changes").click()

    became(page, only, "approved")
    assert place.site.request(only)["arguments"] == {"path": "/2.txt", "content": "x\n"}


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
