"""The story of a reviewer who has a mailbox and a browser, and of the scanner that reads the mail first."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.journeys.browser import Browser, form_in, forms_in, words
from tests.journeys.mailbox import Mail
from tests.journeys.stacks import Stack, until

REFUND = "The customer of order A-1042 writes that the lamp arrived broken. Refund it."
PROMPT = "Create a backup script at /backup.sh that archives the /data directory"
ANA = "ana@example.org"


@pytest.fixture
def browser(calm: Stack) -> Iterator[Browser]:
    with Browser(calm.url) as opened:
        yield opened


def test_at_tier_low_the_link_and_the_typed_code_decide(calm: Stack, browser: Browser) -> None:
    run = calm.program().submit("desk", REFUND)
    mail = _mail_about(calm, "issue_refund", run["id"])

    page = browser.open(mail.url)
    wrong = browser.send(form_in(page, "approve"), status=403, code="000000")
    done = browser.send(form_in(page, "approve"), code=mail.code)
    ended = calm.program().ended(run["id"])

    assert "low" in mail.text
    assert "59.00" not in mail.text
    assert '"59.00"' in words(page)
    assert "That is not the code in your mail" in words(wrong)
    assert "Approved" in words(done)
    assert ended["output"] == "Done: refunded 59.00 EUR for A-1042"


def test_at_tier_medium_the_link_leads_to_a_sign_in_and_the_page_decides(calm: Stack, browser: Browser) -> None:
    run = calm.program().submit("sysadmin", PROMPT)
    mails = {tool: _mail_about(calm, tool, run["id"]) for tool in ("write_file", "execute")}

    page = browser.open(mails["write_file"].url)
    [sign_in] = re.findall(r'href="(/sign-in\?next=/requests/req_[^"]+)"', page)[:1]
    request_page = browser.sign_in(ANA, calm.mail, page=sign_in)
    browser.send(form_in(request_page, "approve"))
    other = browser.open(mails["execute"].url)
    browser.send(form_in(other, "deny"), reason="Not from a mail.")
    ended = calm.program().ended(run["id"])

    assert "backup.sh" not in page
    assert [form for form in forms_in(page) if form.fields.get("verdict")] == []
    assert "/backup.sh" in words(request_page)
    assert ended["output"].startswith("I've created the backup script")
    assert ended["output"].endswith("I did not run it: Not from a mail.")


def test_a_scanner_that_follows_links_and_submits_forms_decides_nothing(calm: Stack) -> None:
    runs = [calm.program().submit("desk", REFUND), calm.program().submit("sysadmin", PROMPT)]
    mails = [_mail_about(calm, tool, run["id"]) for run, tool in zip(runs, ("issue_refund", "write_file"), strict=True)]

    for mail in mails:
        for _ in range(3):
            _scan(mail.url)

    for run in runs:
        asked = calm.program().requests(run["id"])
        assert {request["state"] for request in asked} == {"open"}
        assert all(request["votes"] == [] for request in asked)
        assert calm.program().run(run["id"])["status"] == "waiting"
    with Browser(calm.url) as person:
        # Nor has it used anything up.
        page = person.open(mails[0].url)
        person.send(form_in(page, "deny"), code=mails[0].code, reason="The lamp was not broken.")
    ended = calm.program().ended(runs[0]["id"])
    assert ended["output"] == "I did not refund it: The lamp was not broken."


def test_a_link_decides_once_and_a_forged_one_opens_nothing(calm: Stack, browser: Browser) -> None:
    run = calm.program().submit("desk", REFUND)
    mail = _mail_about(calm, "issue_refund", run["id"])
    page = browser.open(mail.url)
    browser.send(form_in(page, "deny"), code=mail.code)

    again = browser.send(form_in(page, "approve"), status=409, code=mail.code)
    forged = browser.open(mail.url[:-1] + ("A" if mail.url[-1] != "A" else "B"), status=404)

    assert "already denied" in words(again)
    assert "This link is not valid" in words(forged)
    assert calm.program().ended(run["id"])["output"].startswith("I did not refund it")


def _mail_about(stack: Stack, tool: str, run_id: str) -> Mail:
    """The mail to Ana about this run's call of a tool: the request's id is at its end."""
    [request] = [
        item for item in stack.program().asked(run_id, 2 if tool != "issue_refund" else 1) if item["tool"] == tool
    ]
    mails = until(lambda: stack.mail.about(request["id"], to=ANA), what=f"a mail about {request['id']}")
    [mail] = mails
    return mail


def _scan(url: str) -> None:
    """What a mail scanner does: opens the link by every way it knows and presses every button it sees."""
    with httpx.Client(follow_redirects=True, trust_env=False) as http:
        http.head(url)
        page = http.get(url)
        for form in forms_in(page.text):
            http.post(httpx.URL(url).join(form.action), data=form.fields)
            http.get(httpx.URL(url).join(form.action), params=form.fields)
        http.get(url, headers={"Sec-Purpose": "prefetch"})
