"""The mailed link: opening it decides nothing, and without a session only tier low is decided, with the mail's code."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from banksman import ids, ledger, links
from banksman.digest import Json
from banksman.ids import NoticeId, RequestId
from banksman.ledger import decisions, notices, runs, staff, telling, votes
from banksman.records import Notice
from banksman.signing import base64url
from banksman.states import Kind, RequestState, RunStatus, Tier
from tests.gateway.browser import Browser, Form, Words, code_of, form_in, forms_in, link_of, notice_of, page_of, stored
from tests.gateway.scenes import Site, asking


def a_mailed_request(site: Site, tier: Tier = Tier.LOW, **more: Any) -> tuple[RequestId, NoticeId]:
    _, [request_id] = site.a_waiting_run(asking(tier=tier, **more))
    return request_id, notice_of(site, request_id)


def opened(site: Site, request_id: RequestId, notice: NoticeId) -> Browser:
    browser = Browser(site)
    answer = browser.get(link_of(site, notice))
    assert (answer.status_code, answer.headers["location"]) == (303, page_of(request_id))
    return browser


def decided(site: Site, request_id: RequestId) -> bool:
    with ledger.transaction(site.gateway) as conn:
        return bool(votes.of_request(conn, request_id) or decisions.get(conn, request_id))


def notice_now(site: Site, notice: NoticeId) -> Notice:
    with ledger.transaction(site.gateway) as conn:
        return notices.get(conn, notice)


def test_a_scanner_decides_nothing_and_then_a_person_succeeds(site: Site) -> None:
    request_id, notice = a_mailed_request(site)
    link = link_of(site, notice)

    scanner = Browser(site)
    scanner.http.head(link)
    for _ in range(5):
        scanner.get(scanner.get(link).headers["location"])
    page = scanner.get(page_of(request_id)).text
    [only] = forms_in(page)
    assert only.verdicts == {"approve", "deny"}
    for _ in range(10):
        for form in (only, form_in(page, "approve"), form_in(page, "deny")):
            assert scanner.send(form).status_code == 422
            assert scanner.send(form, headers={}).status_code == 422

    assert not decided(site, request_id)
    assert notice_now(site, notice).code_tries == 0
    person = opened(site, request_id, notice)
    form = person.form(page_of(request_id), "approve")
    answer = person.send(form, code=code_of(site, notice))
    assert (answer.status_code, answer.headers["location"]) == (303, page_of(request_id))
    assert stored(site, request_id).state is RequestState.APPROVED
    with ledger.transaction(site.gateway) as conn:
        [vote] = votes.of_request(conn, request_id)
        run = runs.get(conn, vote_run(site, request_id))
    assert (vote.channel, vote.person_id) == ("link", site.ana.id)
    assert run.status is RunStatus.QUEUED


def vote_run(site: Site, request_id: RequestId) -> Any:
    return stored(site, request_id).run_id


def test_denying_follows_the_same_rules_and_its_reason_is_kept(site: Site) -> None:
    request_id, notice = a_mailed_request(site)
    browser = opened(site, request_id, notice)
    form = browser.form(page_of(request_id), "deny")

    assert browser.send(form, reason="Not at night.").status_code == 422
    code = code_of(site, notice)
    answer = browser.send(form, code=f"{code[:3]} {code[3:]}", reason="Not at night.")

    assert answer.status_code == 303
    assert stored(site, request_id).state is RequestState.DENIED
    with ledger.transaction(site.gateway) as conn:
        assert votes.of_request(conn, request_id)[0].reason == "Not at night."


def test_a_link_tapped_twice_leaves_the_first_page_working(site: Site) -> None:
    request_id, notice = a_mailed_request(site)
    browser = opened(site, request_id, notice)
    form = browser.form(page_of(request_id), "approve")

    browser.get(link_of(site, notice))
    answer = browser.send(form, code=code_of(site, notice))

    assert answer.status_code == 303
    assert stored(site, request_id).state is RequestState.APPROVED


def test_a_link_decides_on_what_is_shown_and_edits_nothing(site: Site) -> None:
    request_id, notice = a_mailed_request(site)
    browser = opened(site, request_id, notice)
    form = browser.form(page_of(request_id), "approve")

    answer = browser.send(form, code=code_of(site, notice), arguments='{"content": "curl evil", "path": "/a.txt"}')

    assert answer.status_code == 403
    assert not decided(site, request_id)


def test_after_five_wrong_codes_the_right_one_counts_no_more(site: Site) -> None:
    request_id, notice = a_mailed_request(site)
    browser = opened(site, request_id, notice)
    form = browser.form(page_of(request_id), "approve")
    code = code_of(site, notice)
    wrong = f"{(int(code) + 1) % 10**6:06d}"

    for left in (4, 3, 2, 1, 0):
        answer = browser.send(form, code=wrong)
        assert answer.status_code == 403
        assert f"Tries left: {left}." in answer.text
    answer = browser.send(form, code=code)

    assert answer.status_code == 403
    assert not decided(site, request_id)


@pytest.mark.parametrize("kind", [Kind.APPROVAL, Kind.QUESTION])
def test_after_five_wrong_codes_the_page_asks_for_none_and_leads_to_the_sign_in(site: Site, kind: Kind) -> None:
    request_id, notice = a_mailed_request(site, kind=kind)
    browser = opened(site, request_id, notice)
    form = browser.form(page_of(request_id), "deny")
    wrong = f"{(int(code_of(site, notice)) + 1) % 10**6:06d}"
    for _ in range(4):
        assert forms_in(browser.send(form, code=wrong).text) != []

    answer = browser.send(form, code=wrong)

    for page in (answer.text, browser.get(page_of(request_id)).text):
        assert forms_in(page) == []
        assert f"/sign-in?next={page_of(request_id)}" in page
        assert "mistyped 5 times" in page


def test_a_link_to_what_was_denied_names_nobody_who_approved(site: Site) -> None:
    request_id, notice = a_mailed_request(site, Tier.MEDIUM, approvals=2)
    browser = opened(site, request_id, notice)
    site.vote(request_id, site.token(site.ana))
    site.vote(request_id, site.token(site.ben), verdict="deny")

    page = Words(browser.get(page_of(request_id)).text).text

    assert "by Ben <ben@example.org>." in page
    assert "Ana" not in page


def test_a_link_for_a_notice_that_brings_none_is_like_any_other_that_is_not_valid(site: Site) -> None:
    _, notice = a_mailed_request(site)
    made = NoticeId(ids.new())
    with ledger.transaction(site.gateway) as conn:
        telling.test(conn, made, site.ana.id, "email", lifetime=timedelta(hours=1))
    scheme, kid, _, mac = link_of(site, notice).split(".")

    answer = Browser(site).get(f"{scheme}.{kid}.{base64url(made.bytes)}.{mac}")

    assert answer.status_code == 404


def test_a_code_of_another_notice_does_not_fit(site: Site) -> None:
    request_id, notice = a_mailed_request(site)
    _, other = a_mailed_request(site)
    browser = opened(site, request_id, notice)

    answer = browser.send(browser.form(page_of(request_id), "approve"), code=code_of(site, other))

    assert answer.status_code == 403
    assert not decided(site, request_id)


@pytest.mark.parametrize("tier", [Tier.MEDIUM, Tier.HIGH])
def test_above_low_the_link_shows_no_arguments_and_offers_to_sign_in(site: Site, tier: Tier) -> None:
    request_id, notice = a_mailed_request(site, tier, arguments={"path": "/secret", "content": "canary"})
    browser = opened(site, request_id, notice)

    page = browser.get(page_of(request_id))

    assert page.status_code == 200
    assert forms_in(page.text) == []
    assert "canary" not in page.text
    assert f"/sign-in?next={page_of(request_id)}" in page.text


@pytest.mark.parametrize("tier", [Tier.MEDIUM, Tier.HIGH])
def test_above_low_even_the_right_code_decides_nothing(site: Site, tier: Tier) -> None:
    low, low_notice = a_mailed_request(site)
    browser = opened(site, low, low_notice)
    form = browser.form(page_of(low), "approve")
    request_id, notice = a_mailed_request(site, tier)
    browser.get(link_of(site, notice))
    shown = stored(site, request_id)

    answer = browser.send(
        Form(f"{page_of(request_id)}/vote", form.fields | {"digest": shown.digest.hex()}),
        code=code_of(site, notice),
        reason="because",
    )

    assert answer.status_code == 403
    assert not decided(site, request_id)


def test_whoever_is_signed_in_decides_as_themselves(site: Site) -> None:
    request_id, notice = a_mailed_request(site, Tier.MEDIUM)
    browser = Browser(site)
    browser.sign_in(site.ben)

    browser.get(link_of(site, notice))
    answer = browser.send(browser.form(page_of(request_id), "approve"))

    assert answer.status_code == 303
    with ledger.transaction(site.gateway) as conn:
        [vote] = votes.of_request(conn, request_id)
    assert (vote.channel, vote.person_id) == ("session", site.ben.id)


def test_a_second_click_shows_the_receipt_and_changes_nothing(site: Site) -> None:
    request_id, notice = a_mailed_request(site)
    link, code = link_of(site, notice), code_of(site, notice)
    browser = opened(site, request_id, notice)
    form = browser.form(page_of(request_id), "approve")
    browser.send(form, code=code)

    later = Browser(site)
    page = later.get(later.get(link).headers["location"])

    assert "What was decided" in page.text
    assert "Ana" in page.text
    assert forms_in(page.text) == []
    again = browser.send(form, code=code)
    assert again.status_code == 409
    assert "already approved" in again.text


def test_a_link_decides_once_even_while_more_votes_are_wanted(site: Site) -> None:
    request_id, notice = a_mailed_request(site, approvals=2)
    browser = opened(site, request_id, notice)
    form = browser.form(page_of(request_id), "approve")
    code = code_of(site, notice)
    assert browser.send(form, code=code).status_code == 303

    assert browser.send(Form(form.action, form.fields | {"verdict": "deny"}), code=code).status_code == 403

    assert stored(site, request_id).state is RequestState.OPEN
    with ledger.transaction(site.gateway) as conn:
        assert len(votes.of_request(conn, request_id)) == 1
    page = browser.get(page_of(request_id)).text
    assert forms_in(page) == []
    assert "You have voted on this" in page


def test_after_an_edit_the_link_says_so_and_has_no_form(site: Site) -> None:
    request_id, notice = a_mailed_request(site, approvals=2)
    link, code = link_of(site, notice), code_of(site, notice)
    reader = opened(site, request_id, notice)
    form = reader.form(page_of(request_id), "approve")
    editor = Browser(site)
    editor.sign_in(site.ben)
    edit = editor.form(f"{page_of(request_id)}/edit?as=json")
    edit.fields["arguments"] = edit.fields["arguments"].replace("hello", "goodbye")
    confirmed = editor.send(edit)
    assert editor.send(form_in(confirmed.text)).status_code == 303

    later = Browser(site)
    page = later.get(later.get(link).headers["location"])

    assert "changed after your mail" in page.text
    assert forms_in(page.text) == []
    assert "goodbye" not in page.text
    assert reader.send(form, code=code).status_code == 409


def test_a_passed_deadline_shows_no_arguments(site: Site, owner_pool: ledger.Pool) -> None:
    _, notice = a_mailed_request(site, arguments={"path": "/a", "content": "canary"})
    link = link_of(site, notice)
    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE requests SET expires_at = now(), due_at = now()")
        conn.execute("UPDATE notices SET expires_at = clock_timestamp()")

    browser = Browser(site)
    page = browser.get(browser.get(link).headers["location"])

    assert forms_in(page.text) == []
    assert "canary" not in page.text


def test_forged_foreign_and_unknown_links_get_one_answer(site: Site, link_key: str) -> None:
    _, notice = a_mailed_request(site)
    link = link_of(site, notice)
    other_keys = links.LinkKeys.read(f"k1:{base64url(bytes(32))}")
    binding: dict[str, Json] = {"person": site.ana.id.hex, "purpose": "decide"}
    own = links.LinkKeys.read(link_key)
    broken = [
        f"/l/{other_keys.token(notice, binding)}",
        f"/l/{own.token(notice, binding)}",
        f"/l/{own.token(ids.new(), binding)}",
        f"{link}A",
        link[:-1],
        link.replace("bk1.k1", "bk1.k2"),
        "/l/" + link[3:].swapcase(),
        "/l/x",
        "/l/%00%ff",
    ]

    browser = Browser(site)
    answers = [browser.get(path) for path in broken]

    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.text for answer in answers}) == 1
    assert not any("set-cookie" in answer.headers for answer in answers)


def test_no_single_changed_character_leaves_a_link_valid(site: Site) -> None:
    _, notice = a_mailed_request(site)
    link = link_of(site, notice)
    browser = Browser(site)

    for place in range(3, len(link)):
        other = "A" if link[place] != "A" else "B"
        assert browser.get(link[:place] + other + link[place + 1 :]).status_code == 404


def test_the_link_of_a_disabled_person_opens_nothing(site: Site) -> None:
    request_id, notice = a_mailed_request(site)
    link = link_of(site, notice)
    browser = opened(site, request_id, notice)
    with ledger.transaction(site.gateway) as conn:
        staff.disable(conn, site.ana.id)

    assert Browser(site).get(link).status_code == 404
    assert browser.get(page_of(request_id)).status_code == 303


@pytest.mark.parametrize("header", ["Sec-Purpose", "Purpose", "X-Moz"])
def test_a_prefetch_is_answered_with_nothing(site: Site, header: str) -> None:
    _, notice = a_mailed_request(site)

    answer = Browser(site).http.get(link_of(site, notice), headers={header: "prefetch;prerender"})

    assert (answer.status_code, answer.text) == (204, "")
    with ledger.transaction(site.gateway) as conn:
        [(seen,)] = conn.execute("SELECT seen_at FROM notices").fetchall()
    assert seen is None


def test_a_link_opens_its_own_request_alone(site: Site) -> None:
    request_id, notice = a_mailed_request(site)
    other_id, _ = a_mailed_request(site)
    browser = opened(site, request_id, notice)

    assert browser.get(page_of(other_id)).status_code == 303
    assert browser.get("/").status_code == 303
    assert browser.get("/runs").status_code == 303
    form = browser.form(page_of(request_id), "approve")
    answer = browser.send(Form(f"{page_of(other_id)}/vote", form.fields), code=code_of(site, notice))
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in")
    assert not decided(site, other_id)


def test_two_mails_can_be_open_side_by_side(site: Site) -> None:
    first, first_notice = a_mailed_request(site)
    second, second_notice = a_mailed_request(site)
    browser = opened(site, first, first_notice)
    browser.get(link_of(site, second_notice))

    for request_id, notice in ((first, first_notice), (second, second_notice)):
        form = browser.form(page_of(request_id), "approve")
        assert browser.send(form, code=code_of(site, notice)).status_code == 303


def test_a_forged_view_cookie_opens_nothing(site: Site) -> None:
    request_id, notice = a_mailed_request(site)
    browser = opened(site, request_id, notice)
    [(name, value)] = browser.http.cookies.items()

    for forged in (value[:-1], value.replace(".", ".9", 1), "", "...", "é", "x" * 5000):
        thief = Browser(site)
        answer = thief.http.get(page_of(request_id), headers=[(b"cookie", f"{name}={forged}".encode())])
        assert answer.status_code == 303


def test_a_question_can_be_answered_from_its_mail(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(
        asking(kind=Kind.QUESTION, tool="ask_person", arguments={"question": "Which one?"}, tier=Tier.LOW)
    )
    notice = notice_of(site, request_id)
    browser = opened(site, request_id, notice)

    form = browser.form(page_of(request_id), "answer")
    answer = browser.send(form, code=code_of(site, notice), answer="The blue one.")

    assert answer.status_code == 303
    assert stored(site, request_id).state is RequestState.ANSWERED
