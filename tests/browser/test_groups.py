"""Like requests side by side: what differs, what is odd, and a vote for each row after a look at all of them."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from banksman.ids import RequestId
from tests.browser.conftest import OpenAs, Place
from tests.gateway.scenes import asking


def test_a_group_is_approved_after_a_second_look_and_each_row_says_what_became_of_it(
    place: Place, open_as: OpenAs
) -> None:
    asked = [refund(place, f"A-{number}", 20 + number) for number in range(5)]
    page = open_as(place.site.ana, "/groups")

    page.get_by_role("link", name="refund").click()
    expect(page.locator("thead")).to_contain_text("amount")
    expect(page.locator("thead")).not_to_contain_text("currency")
    choose(page, 5)
    place.site.vote(asked[0], place.site.token(place.site.ben), verdict="deny")
    page.get_by_role("button", name="Approve those").click()

    expect(page.locator("main")).to_contain_text("has been decided or has changed")
    page.go_back()
    page.reload()
    choose(page, 4)
    page.get_by_role("button", name="Approve those").click()
    page.get_by_label("I mean all 4 of them").check()
    page.get_by_role("button", name="Approve 4").click()

    expect(page.locator("h1")).to_contain_text("4 of 4 votes counted")
    assert [place.site.request(one)["state"] for one in asked] == ["denied", *["approved"] * 4]


def test_what_stands_out_is_marked_and_what_does_not_fit_is_decided_alone(place: Place, open_as: OpenAs) -> None:
    for number in range(8):
        refund(place, f"A-{number}", 20 + number)
    refund(place, "A-8", 4200)
    refund(place, "A-9", 24, to="eve@elsewhere.test")
    refund(place, "A-10\u202e", 24)
    page = open_as(place.site.ana, "/groups")
    page.get_by_role("link", name="refund").click()

    odd = page.locator("td.odd")

    expect(odd.filter(has_text="4200")).to_contain_text("far above the middle")
    expect(odd.filter(has_text="elsewhere.test")).to_contain_text("its domain differs")
    hidden = page.locator("tr").filter(has_text="U+202E")
    expect(hidden).to_contain_text("needs a closer look")
    expect(hidden.locator("input")).to_have_count(0)


def choose(page: Page, count: int) -> None:
    boxes = page.locator('input[type="checkbox"][name^="pick-"]')
    expect(boxes).to_have_count(count)
    for box in boxes.all():
        box.check()


def refund(place: Place, order: str, amount: int, *, to: str = "ana@example.org") -> RequestId:
    arguments = {"order": order, "amount": amount, "currency": "EUR", "to": to}
    _, [request_id] = place.site.a_waiting_run(asking(tool="refund", arguments=arguments))
    return request_id
