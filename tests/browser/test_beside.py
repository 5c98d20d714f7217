"""Beside the list: rows chosen together, buttons that do what the keys do, and who else looks at the same request."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from banksman import ids
from banksman.ids import RequestId
from banksman.states import Kind, Tier
from tests.browser.conftest import OpenAs, Place
from tests.browser.test_triage import became, in_pane, state, waiting
from tests.gateway.scenes import asking


@pytest.fixture
def dwell() -> float:
    return 3


def test_rows_are_chosen_by_keyboard_and_denied_together(place: Place, open_as: OpenAs) -> None:
    asked = [waiting(place, f"/{n}.txt", expires_after=1000 * n) for n in (1, 2, 3)]
    other = tool(place, "refund", expires_after=500)
    page = open_as(place.site.ana)
    in_pane(page, "refund")
    bar = page.locator("#chosen .bar")
    expect(bar).to_be_hidden()

    page.keyboard.press("x")
    expect(bar).to_contain_text("1 selected:")
    page.keyboard.press("Escape")
    expect(bar).to_be_hidden()
    in_pane(page, "refund")
    page.keyboard.press("j")
    in_pane(page, "/1.txt")
    page.keyboard.press("Shift+X")
    expect(bar).to_contain_text("3 selected:")
    bar.get_by_role("button", name="Deny …").click()
    page.get_by_label("Reason").fill("Not these.")
    page.get_by_label("I mean all 3 of them").check()
    page.get_by_role("button", name="Deny 3").click()

    expect(page.locator("h1")).to_have_text("3 of 3 votes counted")
    assert [state(place, one) for one in (*asked, other)] == ["denied"] * 3 + ["open"]


def test_rows_are_chosen_without_a_script(place: Place, open_as: OpenAs) -> None:
    asked = [waiting(place, "/1.txt"), tool(place, "refund"), tool(place, "pay", tier=Tier.HIGH)]
    page = open_as(place.site.ana, script=False)

    for box in page.locator("input[name=pick]").all():
        box.check()
    page.get_by_role("button", name="Approve …").click()
    expect(page.locator(".note")).to_contain_text("pay is of tier high")
    page.get_by_label("I mean all 2 of them").check()
    page.get_by_role("button", name="Approve 2").click()

    expect(page.locator("h1")).to_have_text("2 of 2 votes counted")
    assert [state(place, one) for one in asked] == ["approved", "approved", "open"]


def test_what_is_decided_meanwhile_is_no_longer_chosen(place: Place, open_as: OpenAs) -> None:
    waiting(place, "/1.txt", expires_after=1000)
    waiting(place, "/2.txt", expires_after=2000)
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")
    page.keyboard.press("Shift+X")
    expect(page.locator("#chosen .bar")).to_contain_text("2 selected:")

    page.keyboard.press("a")

    expect(page.locator("#chosen .bar")).to_contain_text("1 selected:")


def test_the_buttons_below_the_pane_do_what_the_keys_do(place: Place, open_as: OpenAs) -> None:
    first, second = (waiting(place, f"/{n}.txt", expires_after=1000 * n) for n in (1, 2))
    page = open_as(place.site.ana)
    in_pane(page, "/1.txt")
    for name in ("Approve (a)", "Deny (d)", "Change (e)", "Open (o)"):
        expect(button(page, name)).to_be_in_viewport(ratio=1)

    button(page, "Approve (a)").click()
    in_pane(page, "/2.txt")
    button(page, "Deny (d)").click()
    expect(page.locator("#pane #reason-deny")).to_be_focused()
    button(page, "Change (e)").click()
    expect(page.locator("#arg-content")).to_be_focused()
    for name in ("Approve (a)", "Deny (d)", "Change (e)"):
        expect(button(page, name)).not_to_be_enabled()
    button(page, "Open (o)").click()

    expect(page).to_have_url(re.compile(ids.show("req", second)))
    assert state(place, second) == "open"
    page.goto("/")
    expect(page.locator(f'li[data-request="{ids.show("req", first)}"]')).to_have_count(0)


def test_who_may_not_decide_is_told_why_where_the_buttons_would_be(place: Place, open_as: OpenAs) -> None:
    place.site.a_waiting_run(asking(), requester=place.site.ana)
    page = open_as(place.site.ana, "/?queue=others")
    in_pane(page, "write_file")

    expect(page.locator("#foot")).to_contain_text("asked for")
    for name in ("Approve (a)", "Deny (d)", "Change (e)"):
        expect(button(page, name)).to_be_hidden()
    expect(button(page, "Open (o)")).to_be_enabled()


def test_at_tier_high_the_bar_says_what_is_missing(place: Place, open_as: OpenAs) -> None:
    tool(place, "pay", tier=Tier.HIGH, approvals=2)
    page = open_as(place.site.ana)
    in_pane(page, "pay")
    foot = page.locator("#foot")

    expect(foot).to_contain_text(re.compile(r"Still missing: your words, the tick that you read it, \d s\."))
    button(page, "Approve (a)").click()
    expect(page.locator("#pane #reason-approve")).to_be_focused()
    page.keyboard.insert_text("As agreed.")
    expect(foot).not_to_contain_text("your words")
    page.locator("#pane input[name=read]").check()
    expect(foot).not_to_contain_text("Still missing", timeout=6000)
    button(page, "Approve (a)").click()

    expect(page.locator("#held")).to_contain_text("approve pay")


def test_a_question_is_answered_by_the_same_button(place: Place, open_as: OpenAs) -> None:
    _, [only] = place.site.a_waiting_run(asking(kind=Kind.QUESTION, tool="ask", arguments={"question": "When?"}))
    page = open_as(place.site.ana)
    in_pane(page, "When?")

    button(page, "Answer (a)").click()
    page.keyboard.insert_text("Tomorrow.")
    button(page, "Answer (a)").click()

    became(page, only, "answered")


def test_who_looks_is_seen_by_the_others_as_it_happens(place: Place, open_as: OpenAs) -> None:
    first, second = (waiting(place, f"/{n}.txt", expires_after=1000 * n) for n in (1, 2))
    ana = open_as(place.site.ana)
    in_pane(ana, "/1.txt")
    ben = open_as(place.site.ben)
    in_pane(ben, "/1.txt")

    expect(looking(ana, first)).to_have_text("Ben is looking")
    expect(ana.locator("#foot .looking")).to_have_text("Ben is looking")
    expect(looking(ben, first)).to_have_text("Ana is looking")
    ben.keyboard.press("j")
    expect(looking(ana, second)).to_have_text("Ben is looking")
    expect(looking(ana, first)).to_be_hidden()
    expect(ana.locator("#foot .looking")).to_be_hidden()
    ben.keyboard.press("Escape")
    expect(looking(ana, second)).to_be_hidden()
    ana.keyboard.press("a")
    expect(looking(ben, first)).to_be_hidden()
    expect(looking(ben, second)).to_have_text("Ana is looking")
    ana.goto("/runs")
    expect(looking(ben, second)).to_be_hidden()


def looking(page: Page, request_id: RequestId) -> Locator:
    return page.locator(f'li[data-request="{ids.show("req", request_id)}"] .looking')


def button(page: Page, name: str) -> Locator:
    return page.locator("#foot").get_by_role("button", name=name, exact=True, include_hidden=True)


def tool(place: Place, name: str, **requirement: Any) -> RequestId:
    _, [request_id] = place.site.a_waiting_run(asking(tool=name, **requirement))
    return request_id
