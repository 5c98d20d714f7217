"""The pages: what a reviewer reads, what a form may do, and that nothing an agent wrote is ever more than text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI

from banksman import ids, ledger, render
from banksman.digest import Json
from banksman.ids import RequestId, RunId
from banksman.ledger import decisions, executions, families, roster, runs, staff, votes
from banksman.records import Delegation, Person
from banksman.states import Kind, RequestState, RunStatus, Tier, Verdict
from banksman_gateway import html, silence
from tests.conftest import Database
from tests.gateway.browser import (
    Browser,
    Form,
    Words,
    form_in,
    forms_in,
    link_of,
    notice_of,
    page_of,
    routes_of,
    stored,
    with_context,
)
from tests.gateway.scenes import LEASE, SCHEMA, Site, asking
from tests.gateway.test_silence import later

XSS = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><svg onload=alert(1)>{{7*7}}{% raw %}**bold**"


@pytest.fixture
def ben(site: Site) -> Browser:
    """Ben's browser, signed in."""
    browser = Browser(site)
    browser.sign_in(site.ben)
    return browser


def a_request(site: Site, requester: Person | None = None, **more: Any) -> RequestId:
    _, [request_id] = site.a_waiting_run(asking(**more), requester=requester)
    return request_id


def foreign_scripts(page: str) -> list[str]:
    """Scripts that are not the inbox's own file."""
    found = re.findall(r"<script.*?</script>|<script[^>]*>", page, re.IGNORECASE | re.DOTALL)
    own = re.compile(r'<script src="/script/[0-9a-f]{12}\.js" defer></script>')
    return [script for script in found if not own.fullmatch(script)]


def text_of(browser: Browser, path: str) -> str:
    page = browser.get(path)
    assert page.status_code == 200, page.text
    return " ".join(Words(page.text).text.split())


# What is shown


def test_the_inbox_lists_what_waits_for_me_with_the_nearest_deadline_first(site: Site, ana: Browser) -> None:
    a_request(site, tool="later", expires_after=7200)
    a_request(site, tool="sooner", expires_after=3700)
    a_request(site, tool="own_run", requester=site.ana)
    a_request(site, tool="for_finance", groups={"finance": 1})

    text = text_of(ana, "/")

    assert "2 wait for you" in text
    assert 0 < text.index("sooner") < text.index("later")
    assert "in 1 h 1 min" in text
    assert "own_run" not in text
    others = text_of(ana, "/?queue=others")
    assert "own_run" in others
    assert "for_finance" in others
    assert "sooner" not in others


def test_an_empty_inbox_says_what_is_true(site: Site, ana: Browser) -> None:
    assert "Nothing waits for you. A message comes when something does." in text_of(ana, "/")

    a_request(site, groups={"finance": 1})

    text = text_of(ana, "/")
    assert "Nothing waits for you" in text
    assert "1 waits for other people" in text


def test_a_name_that_begins_like_an_id_is_searched_for_as_a_name(site: Site, ana: Browser) -> None:
    for tool in ("run_report", "req_new"):
        a_request(site, tool=tool)
        page = ana.get(f"/?q={tool}")
        assert page.status_code == 200
        assert "1 waits for you" in Words(page.text).text


def test_what_i_voted_on_waits_for_others(site: Site, ana: Browser) -> None:
    request_id = a_request(site, approvals=2)
    assert ana.send(ana.form(page_of(request_id), "approve")).status_code == 303

    assert "Nothing waits for you" in text_of(ana, "/")
    assert "1 of 2 have agreed" in text_of(ana, page_of(request_id))


def test_a_request_page_says_everything_in_the_order_a_reviewer_needs(site: Site, ana: Browser) -> None:
    new = with_context(asking(rule="flagged", because="The author wants it asked."), said="Only tidying up.")
    _, [request_id, _] = site.a_waiting_run(new, asking("c2", tool="execute", arguments={"command": "ls"}))

    text = text_of(ana, page_of(request_id))

    parts = [
        "The agent wants to call write_file",
        "What will happen",
        '"/a.txt"',
        "hello",
        "Why it was held",
        "The author wants it asked.",
        "flagged",
        "Who asks",
        "plain",
        "0 of 2 decided",
        "execute",
        "The agent says",
        "Nobody has checked it",
        "Only tidying up.",
        "If nobody decides",
        "The call is not made",
        "Silence never allows anything",
        "Approve",
        "Deny",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert stored(site, request_id).digest.hex() in text


def test_a_long_file_is_on_the_page_to_its_last_line(site: Site, ana: Browser) -> None:
    content = "".join(f"line-{number}\n" for number in range(3000)) + "rm -rf /"
    request_id = a_request(site, arguments={"path": "/a", "content": content})

    text = text_of(ana, page_of(request_id))

    assert "3,001 lines" in text
    assert all(f"line-{number}" in text for number in range(3000))
    assert "rm -rf /" in text


def test_nobody_sees_a_page_without_signing_in(site: Site) -> None:
    run_id, [request_id] = site.a_waiting_run()
    browser = Browser(site)

    for path in ("/", "/runs", f"/runs/{ids.show('run', run_id)}", page_of(request_id), f"{page_of(request_id)}/edit"):
        answer = browser.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next={path}")


def test_a_person_without_a_role_sees_only_their_own_runs(site: Site) -> None:
    carl = site.a_person("carl@example.org")
    own, [own_request] = site.a_waiting_run(requester=carl)
    other, [other_request] = site.a_waiting_run()
    browser = Browser(site)
    browser.sign_in(carl)

    assert browser.get("/").headers["location"] == "/runs"
    listed = browser.get("/runs").text
    assert ids.show("run", own) in listed
    assert ids.show("run", other) not in listed
    assert browser.get(f"/runs/{ids.show('run', own)}").status_code == 200
    assert browser.get(f"/runs/{ids.show('run', other)}").status_code == 404
    assert "you are not a reviewer" in text_of(browser, page_of(own_request))
    assert browser.get(page_of(other_request)).status_code == 404


def test_a_run_page_tells_the_whole_story(site: Site, ana: Browser) -> None:
    run_id, [request_id] = site.a_waiting_run()
    ana.send(ana.form(page_of(request_id), "approve"))
    site.finish(run_id)

    text = text_of(ana, f"/runs/{ids.show('run', run_id)}")

    for part in (
        "finished",
        "Do it.",
        "What the agent answered",
        "done",
        "write_file",
        "approved",
        "submitted the run",
    ):
        assert part in text
    assert "ana@example.org" in text


def test_a_run_page_leads_to_what_it_delegated_and_back(site: Site, ana: Browser) -> None:
    run_id, _ = site.a_waiting_run()
    task = Delegation(RunId(ids.new()), "plain", "Look it up.", 1, "c9")
    with ledger.transaction(site.worker) as conn:
        families.send_out(conn, run_id, 0, task, hint=LEASE)
    parent, child = (f"/runs/{ids.show('run', each)}" for each in (run_id, task.child_id))

    assert f'href="{child}"' in ana.get(parent).text
    assert "1 decision and 1 run that it delegated to" in " ".join(text_of(ana, parent).split())
    assert f'href="{parent}"' in ana.get(child).text


def test_a_request_that_is_asked_again_shows_what_has_changed(site: Site, ana: Browser) -> None:
    was: dict[str, Json] = {
        "arguments": {"path": "/a.txt", "content": "bye\n"},
        "operands": {},
        "agent_version": "0",
        "schema": SCHEMA | {"title": "Older"},
        "files": {},
    }
    context = {"said": "", "files": {}, "why_again": "Since the approval this has changed.", "before": was}
    _, [request_id] = site.a_waiting_run(replace(asking(), context=json.dumps(context).encode()))

    text = text_of(ana, page_of(request_id))

    changed = text[text.index("What has changed since") :]
    assert "the agent's version" in changed
    assert '"Older"' in changed
    assert "bye" in changed


def test_a_stuck_run_is_tried_again_failed_or_cancelled_on_its_page(site: Site, ana: Browser) -> None:
    carl = Browser(site)
    carl.sign_in(site.a_person("carl@example.org", "auditor"))
    retried, failed, stopped = (f"/runs/{ids.show('run', site.a_stuck_run())}" for _ in range(3))

    first = {form.action.rpartition("/")[2]: form for form in forms_in(ana.get(retried).text)}
    assert ana.send(first["retry"]).status_code == 303
    assert ana.send(first["retry"]).status_code == 409
    second = {form.action.rpartition("/")[2]: form for form in forms_in(ana.get(failed).text)}
    assert ana.send(second["fail"], reason=" ").status_code == 422
    assert ana.send(second["fail"], reason="Nobody needs it.").status_code == 303
    third = {form.action.rpartition("/")[2]: form for form in forms_in(ana.get(stopped).text)}
    forged = Form(third["cancel"].action, forms_in(carl.get(stopped).text)[0].fields)

    assert [form.action for form in forms_in(carl.get(stopped).text)] == ["/sign-out"]
    assert carl.send(forged).status_code == 403
    assert ana.send(third["cancel"]).status_code == 303
    assert "queued" in text_of(ana, retried)
    assert "ana@example.org failed this run: Nobody needs it." in text_of(ana, failed)
    assert "cancelled the run" in text_of(ana, stopped)


def test_a_runs_files_are_shown_as_text(site: Site, ana: Browser) -> None:
    run_id = site.a_run_with_files({"/notes.txt": "käse\n".encode(), "/raw.bin": b"\xff\xfe"})

    text = text_of(ana, f"/runs/{ids.show('run', run_id)}")

    assert "/notes.txt" in text
    assert "k⟦U+00E4⟧se" in text
    assert "/raw.bin (2 bytes, as it was given)" in text
    assert "not text" in text


def test_runs_are_listed_newest_first_and_by_status(site: Site, ana: Browser) -> None:
    waiting, _ = site.a_waiting_run()
    queued = site.a_run()

    everything = ana.get("/runs").text
    only = ana.get("/runs?status=waiting").text

    assert everything.index(ids.show("run", queued)) < everything.index(ids.show("run", waiting))
    assert ids.show("run", waiting) in only
    assert ids.show("run", queued) not in only
    assert ana.get("/runs?status=nonsense").status_code == 422


def test_what_is_not_there_is_told_on_a_page(ana: Browser) -> None:
    nobody = "0" * 32
    missing = ["/requests/x", f"/requests/req_{nobody}", "/runs/x", f"/runs/run_{nobody}", "/nothing"]

    for path in missing:
        answer = ana.get(path)
        assert answer.status_code in (404, 422)
        assert answer.headers["content-type"].startswith("text/html")


# Deciding


def test_an_approval_in_a_session_is_signed_with_what_was_shown(site: Site, ana: Browser) -> None:
    request_id = a_request(site)
    shown = stored(site, request_id)

    answer = ana.send(ana.form(page_of(request_id), "approve"))

    assert (answer.status_code, answer.headers["location"]) == (303, page_of(request_id))
    with ledger.transaction(site.gateway) as conn:
        decision = decisions.get(conn, request_id)
        [vote] = votes.of_request(conn, request_id)
        run = runs.get(conn, shown.run_id)
    assert decision is not None
    assert decision.verdict is RequestState.APPROVED
    assert vote.render_hash == render.of(json.loads(shown.action), json.loads(shown.context)).hash
    assert (vote.channel, run.status) == ("session", RunStatus.QUEUED)


def test_a_denial_keeps_its_reason_and_may_stop_the_run(site: Site, ana: Browser) -> None:
    run_id, [request_id] = site.a_waiting_run()
    form = ana.form(page_of(request_id), "deny")

    assert ana.send(form, reason="Wrong folder.\r\nUse /var.", stop_run="yes").status_code == 303

    with ledger.transaction(site.gateway) as conn:
        assert runs.get(conn, run_id).status is RunStatus.CANCELLED
        assert votes.of_request(conn, request_id)[0].reason == "Wrong folder.\nUse /var."
    text = text_of(ana, page_of(request_id))
    assert "Denied" in text
    assert "Wrong folder." in text


@pytest.mark.parametrize(
    ("kind", "verdict", "said"),
    [
        (Kind.OUTCOME, "happened", "Somebody said that the call happened. It was not made again."),
        (Kind.OUTCOME, None, "Nobody said that the call happened, or that it did not. It was not made again."),
        (Kind.QUESTION, "answer", "The agent is told the answer."),
        (Kind.QUESTION, None, "It was not answered."),
        (Kind.APPROVAL, None, "The call was not made."),
    ],
)
def test_the_receipt_of_each_kind_says_no_more_than_is_known(
    site: Site, ana: Browser, database: Database, kind: Kind, verdict: str | None, said: str
) -> None:
    _, [request_id] = site.a_waiting_run(asking(kind=kind))
    if verdict is None:
        later(database, request_id, 30 * 86400)
        assert silence.act(site.parts) == 1
    else:
        ana.send(ana.form(page_of(request_id), verdict), answer="So it is.")

    text = text_of(ana, page_of(request_id))

    assert said in text
    assert ("The call was not made." in text) is (kind is Kind.APPROVAL)


def test_the_receipt_says_what_happened_since(site: Site, ana: Browser) -> None:
    run_id, [request_id] = site.a_waiting_run()
    ana.send(ana.form(page_of(request_id), "approve"))
    before = text_of(ana, page_of(request_id))
    request = stored(site, request_id)
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, run_id, 1, owner="w", lease=LEASE)
        assert claim is not None
        call: dict[str, Any] = {"step": 1, "call_id": "c1", "attempt": 1}
        approved: dict[str, Any] = {"voters": {site.ana.id: "reviewer"}, "start_by": None}
        assert executions.start(
            conn,
            run_id,
            claim.fence,
            **call,
            **approved,
            tool="write_file",
            digest=request.digest,
            request_id=request_id,
        )
        assert executions.finish(conn, run_id, claim.fence, **call, outcome="returned", result=b'"Wrote 6 bytes"')

    after = text_of(ana, page_of(request_id))

    assert "Approved" in before
    assert "Ana <ana@example.org>" in before
    assert "Not started yet" in before
    assert "returned" in after
    assert "Wrote 6 bytes" in after


def test_a_question_is_answered_in_words_and_external_work_in_json(site: Site, ana: Browser) -> None:
    question = a_request(site, kind=Kind.QUESTION, tool="ask", arguments={"question": "Which?"})
    work = a_request(site, kind=Kind.EXTERNAL, tool="scan", arguments={"target": "x"})

    assert ana.send(ana.form(page_of(question), "answer"), answer="The blue one.").status_code == 303
    form = ana.form(page_of(work), "answer")
    assert ana.send(form, answer="not json").status_code == 422
    assert ana.send(form, answer="").status_code == 422
    assert ana.send(form, answer='{"found": 3}').status_code == 303

    with ledger.transaction(site.gateway) as conn:
        assert votes.of_request(conn, question)[0].answer == "The blue one."
        assert votes.of_request(conn, work)[0].answer == {"found": 3}


def test_an_option_is_chosen_by_its_number_and_its_secret_does_not_stand_in_the_page(site: Site, ana: Browser) -> None:
    secret = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"
    options: Json = ["Neither.", f"Use {secret}"]
    question = a_request(site, kind=Kind.QUESTION, tool="ask", arguments={"question": "Which?", "options": options})
    form = ana.form(page_of(question), "answer")

    assert secret not in ana.get(page_of(question)).text
    assert [ana.send(form, option=number).status_code for number in ("2", "-1", "x")] == [422] * 3
    assert ana.send(form, option="1").status_code == 303
    with ledger.transaction(site.gateway) as conn:
        assert votes.of_request(conn, question)[0].answer == f"Use {secret}"


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (Verdict.HAPPENED, RequestState.ANSWERED),
        (Verdict.RERUN, RequestState.APPROVED),
        (Verdict.STOP, RequestState.DENIED),
    ],
)
def test_an_unknown_outcome_is_settled_on_its_page(
    site: Site, ana: Browser, verdict: Verdict, state: RequestState
) -> None:
    request_id = a_request(site, kind=Kind.OUTCOME)

    assert "Nobody knows whether it took effect" in text_of(ana, page_of(request_id))
    form = ana.form(page_of(request_id), verdict.value)
    assert ana.send(form, answer="It was sent.").status_code == 303

    assert stored(site, request_id).state is state


def test_the_requester_finds_no_form_and_cannot_vote(site: Site, ana: Browser) -> None:
    own = a_request(site, requester=site.ana)
    other = a_request(site)
    form = ana.form(page_of(other), "approve")

    page = ana.get(page_of(own)).text
    shown = stored(site, own)
    forced = Form(f"{page_of(own)}/vote", form.fields | {"digest": shown.digest.hex()})

    assert [found.action for found in forms_in(page)] == ["/sign-out", f"{page_of(own)}/remarks"]
    assert "somebody else must decide" in page
    assert ana.send(forced).status_code in (403, 409)
    assert stored(site, own).state is RequestState.OPEN


def test_a_reason_has_a_bound(site: Site, ana: Browser) -> None:
    request_id = a_request(site)
    form = ana.form(page_of(request_id), "deny")

    assert ana.send(form, reason="x" * 4001).status_code == 422
    assert stored(site, request_id).state is RequestState.OPEN
    assert ana.send(form, reason="x" * 4000).status_code == 303


def test_at_tier_high_a_reason_is_needed_and_one_person_is_not_enough(site: Site, ana: Browser, ben: Browser) -> None:
    request_id = a_request(site, tier=Tier.HIGH, approvals=2)

    assert ana.send(ana.form(page_of(request_id), "approve"), read="whole").status_code == 422
    assert ana.send(ana.form(page_of(request_id), "approve"), reason="Checked.").status_code == 422
    assert ana.send(ana.form(page_of(request_id), "approve"), read="whole", reason="Checked.").status_code == 303
    assert stored(site, request_id).state is RequestState.OPEN
    assert ben.send(ben.form(page_of(request_id), "approve"), read="whole", reason="Me too.").status_code == 303
    assert stored(site, request_id).state is RequestState.APPROVED


def test_at_tier_high_nobody_agrees_before_they_can_have_read_it_and_anybody_may_refuse(
    site: Site, ana: Browser
) -> None:
    request_id, other = (a_request(site, tier=Tier.HIGH, approvals=2) for _ in range(2))
    slow = site.parts.settings.model_copy(update={"dwell_seconds": 300})
    cast("FastAPI", site.client.app).state.parts = replace(site.parts, settings=slow)
    form = ana.form(page_of(request_id), "approve")

    early = ana.send(form, read="whole", reason="Checked.")
    moved = ana.send(replace(form, action=f"{page_of(other)}/vote"), read="whole", reason="Checked.")
    at, _, mac = form.fields["opened"].partition(".")
    older = ana.send(form, opened=f"{int(at) - 400}.{mac}", read="whole", reason="Checked.")
    never = ana.send(form, opened="", read="whole", reason="Checked.")
    same = json.dumps(site.request(request_id)["arguments"])
    edited = ana.send(form, opened="", arguments=same, reason="Checked.")
    refused = ana.send(ana.form(page_of(request_id), "deny"), reason="No.")

    assert [answer.status_code for answer in (early, moved, older, never, edited)] == [403, 422, 422, 422, 422]
    assert "nobody agrees within 300 s" in early.text
    assert refused.status_code == 303
    assert stored(site, other).state is RequestState.OPEN


def test_a_vote_that_comes_second_is_told_who_won_and_keeps_its_words(site: Site, ana: Browser, ben: Browser) -> None:
    request_id = a_request(site)
    late = ben.form(page_of(request_id), "deny")
    ana.send(ana.form(page_of(request_id), "approve"))

    answer = ben.send(late, reason="No.")

    assert answer.status_code == 409
    assert "already approved, by ana@example.org" in answer.text
    assert stored(site, request_id).state is RequestState.APPROVED


def test_a_form_that_does_not_say_what_was_shown_decides_nothing(site: Site, ana: Browser) -> None:
    request_id = a_request(site)
    form = ana.form(page_of(request_id), "approve")
    wrong = [
        ("digest", "00" * 32, 409),
        ("digest", "zz", 422),
        ("revision", "2", 409),
        ("revision", "x", 422),
        ("rendered", "00", 409),
        ("rendered", "", 409),
        ("verdict", "", 422),
        ("verdict", "happened", 422),
        ("form", "", 403),
        ("form", "é", 403),
        ("arguments", "[]", 422),
        ("arguments", '{"a": 1, "a": 2}', 422),
    ]

    for name, value, status in wrong:
        answer = ana.send(Form(form.action, form.fields | {name: value}))
        assert (name, value, answer.status_code) == (name, value, status)

    assert stored(site, request_id).state is RequestState.OPEN


# Editing


def test_edited_arguments_are_shown_as_a_change_before_they_are_approved(site: Site, ana: Browser) -> None:
    request_id = a_request(site)
    form = ana.form(f"{page_of(request_id)}/edit?as=json")
    assert json.loads(form.fields["arguments"]) == {"path": "/a.txt", "content": "hello\n"}

    confirm = ana.send(form, arguments='{"path": "/var/a.txt", "content": "hello\\n"}')

    assert confirm.status_code == 200
    assert stored(site, request_id).revision == 1
    text = " ".join(Words(confirm.text).text.split())
    assert "path change, 1 line removed, 1 line added" in text
    assert '- "/a.txt"' in text
    assert '+ "/var/a.txt"' in text
    assert ana.send(form_in(confirm.text), reason="Keep the root clean.").status_code == 303
    request = stored(site, request_id)
    assert (request.state, request.revision, request.author_id) == (RequestState.APPROVED, 2, site.ana.id)
    assert json.loads(request.action)["arguments"] == {"path": "/var/a.txt", "content": "hello\n"}
    with ledger.transaction(site.gateway) as conn:
        [vote] = votes.of_request(conn, request_id)
    assert vote.render_hash == render.of(json.loads(request.action), json.loads(request.context)).hash
    after = text_of(ana, page_of(request_id))
    assert "Edited by Ana" in after
    assert "Revision 1, by the agent" in after


def test_an_edit_that_cannot_be_used_is_shown_again_with_the_reason(site: Site, ana: Browser) -> None:
    request_id = a_request(site)
    form = ana.form(f"{page_of(request_id)}/edit?as=json")
    unusable = [
        "",
        "{",
        "[]",
        '{"path": "/a", "path": "/b", "content": ""}',
        '{"path": NaN, "content": ""}',
        '{"path": null, "content": ""}',
        form.fields["arguments"],
    ]

    for text in unusable:
        answer = ana.send(form, arguments=text)
        assert answer.status_code == 422
        assert form_in(answer.text).fields["arguments"] == text

    assert stored(site, request_id).revision == 1


@pytest.mark.parametrize("way", ["edit", "edit?as=json"])
def test_an_edit_form_from_before_somebody_elses_edit_changes_nothing_and_shows_what_is_asked_now(
    site: Site, ana: Browser, way: str
) -> None:
    request_id = a_request(site, approvals=2)
    form = ana.form(f"{page_of(request_id)}/{way}")
    site.vote(request_id, site.token(site.ben), arguments={"path": "/bens.txt"})

    form.fields |= {"arg-content": "bye"} if way == "edit" else {"arguments": '{"path": "/a.txt"}'}
    answer = ana.send(form)

    assert answer.status_code == 409
    assert "ben@example.org changed the arguments" in answer.text
    again = form_in(answer.text).fields
    assert again["revision"] == "2"
    assert "/bens.txt" in again.get("arg-path", again.get("arguments", ""))


def test_an_edit_form_without_what_it_edits_is_refused(site: Site, ana: Browser) -> None:
    request_id = a_request(site, arguments={"a path": "/a"})
    form = ana.form(f"{page_of(request_id)}/edit")
    del form.fields["arguments"]

    assert ana.send(form).status_code == 422


def test_an_edit_that_does_not_fit_the_tool_is_refused(site: Site, ana: Browser) -> None:
    request_id = a_request(site)

    answer = ana.send(ana.form(f"{page_of(request_id)}/edit?as=json"), arguments='{"path": 7, "content": ""}')

    assert answer.status_code == 422
    assert "do not fit the tool" in answer.text
    assert (stored(site, request_id).revision, stored(site, request_id).state) == (1, RequestState.OPEN)


def test_nothing_hides_in_the_box_for_editing(site: Site, ana: Browser) -> None:
    request_id = a_request(site, arguments={"path": "/a", "content": "\u202e\u200bé"})

    assert ana.form(f"{page_of(request_id)}/edit?as=json").fields["arguments"].isascii()


# Forms from elsewhere


def test_a_form_from_elsewhere_is_refused(site: Site, ana: Browser) -> None:
    request_id = a_request(site)
    form = ana.form(page_of(request_id), "approve")
    page = page_of(request_id)
    elsewhere = [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
    ]

    for headers in elsewhere:
        for path in (f"{page}/vote", f"{page}/edit", "/sign-in", "/sign-in/code", "/sign-out"):
            assert ana.send(Form(path, form.fields), headers=headers).status_code == 403

    assert stored(site, request_id).state is RequestState.OPEN
    assert ana.get("/").status_code == 200


def test_a_form_of_another_session_is_refused(site: Site, ana: Browser, ben: Browser) -> None:
    request_id = a_request(site)
    form = ana.form(page_of(request_id), "approve")

    assert ben.send(form).status_code == 403
    assert ana.send(Form(form.action, form.fields | {"form": ""})).status_code == 403

    assert stored(site, request_id).state is RequestState.OPEN


def test_a_session_that_ends_while_a_vote_arrives_decides_nothing(site: Site, ana: Browser) -> None:
    request_id = a_request(site)
    form = ana.form(page_of(request_id), "approve")

    def arriving() -> Iterator[bytes]:
        with ledger.transaction(site.gateway) as conn:
            roster.sign_out(conn, "owner", site.ana.id)
        yield urlencode(form.fields).encode()

    headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
    answer = ana.http.post(form.action, content=arriving(), headers=headers)

    assert answer.status_code == 303
    assert stored(site, request_id).state is RequestState.OPEN


def test_a_vote_after_the_session_ended_is_told_that_it_was_not_counted_and_led_back(site: Site, ana: Browser) -> None:
    request_id = a_request(site)
    form = ana.form(page_of(request_id), "approve")
    with ledger.transaction(site.gateway) as conn:
        roster.sign_out(conn, "owner", site.ana.id)

    answer = ana.send(form)

    assert answer.headers["location"] == f"/sign-in?next={page_of(request_id)}&lost=yes"
    page = ana.get(answer.headers["location"]).text
    assert "Nothing was counted." in page
    assert form_in(page).fields["next"] == page_of(request_id)
    assert "Nothing was counted." not in ana.get("/sign-in").text


def test_a_field_that_stands_twice_is_refused(site: Site, ana: Browser) -> None:
    request_id = a_request(site)
    fields = ana.form(page_of(request_id), "approve").fields
    body = "&".join(f"{name}={value}" for name, value in fields.items()) + "&verdict=deny"

    answer = ana.http.post(
        f"{page_of(request_id)}/vote",
        content=body,
        headers={"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"},
    )

    assert answer.status_code == 422
    assert "twice" in answer.text
    assert stored(site, request_id).state is RequestState.OPEN


def test_a_body_that_is_no_form_of_ours_is_refused(site: Site, ana: Browser) -> None:
    request_id = a_request(site)
    form = "application/x-www-form-urlencoded"
    bodies = [
        ("application/json", b"{}"),
        ("text/plain", b"verdict=approve"),
        ("multipart/form-data; boundary=x", b"--x--"),
        (form, b"a=%ff%fe"),
        (form, "a=é".encode()),
        (form, b"&".join(b"f%d=1" % number for number in range(200))),
    ]

    for kind, body in bodies:
        answer = ana.http.post(
            f"{page_of(request_id)}/vote", content=body, headers={"Sec-Fetch-Site": "same-origin", "Content-Type": kind}
        )
        assert (kind, body, answer.status_code) == (kind, body, 422)


def test_cookies_open_nothing_below_v1(site: Site, ana: Browser) -> None:
    request_id = a_request(site)

    for path in ("/v1/runs", "/v1/requests", f"/v1{page_of(request_id)}"):
        assert ana.get(path).status_code == 401


# Nothing an agent wrote is more than text


def test_what_agents_people_and_submitters_write_is_inert_everywhere(site: Site, ana: Browser) -> None:
    with ledger.transaction(site.gateway) as conn:
        staff.upsert(conn, "ben@example.org", name=XSS)
    site.client.post("/v1/runs", json={"agent": "plain", "prompt": XSS}, headers=site.key("runs:submit", name=XSS))
    new = asking(tool=XSS, arguments={XSS: XSS, "path": "/" + XSS, "content": XSS}, because=XSS, rule=XSS)
    hostile: dict[str, Json] = {"said": XSS, "tool_description": XSS, "why_again": XSS, "files": {}}
    hostile["before"] = {"arguments": {XSS: XSS}}
    run_id, [request_id] = site.a_waiting_run(with_context(replace(new, agent=XSS), **hostile))
    ben = Browser(site)
    ben.sign_in(site.ben)
    paths = ["/", page_of(request_id), f"{page_of(request_id)}/edit", f"/runs/{ids.show('run', run_id)}"]
    pages = [ana.get(path) for path in paths]
    pages.append(ana.send(form_in(pages[2].text), arguments=json.dumps({"path": XSS, "content": XSS})))
    ben.send(ben.form(page_of(request_id), "deny"), reason=XSS)
    pages += [ana.get(path) for path in ("/?queue=done", paths[1], paths[3])]

    for page in [*pages, ana.get("/runs")]:
        assert page.status_code == 200
        words = Words(page.text)
        assert not {"iframe", "svg", "object", "em"} & set(words.tags)
        assert not foreign_scripts(page.text)
        assert words.tags.count("img") == 1
        assert not [name for name in words.attributes if name.startswith("on") or name == "style"]
        assert "alert(1)" in words.text
        assert "{{7*7}}" in words.text


def test_invisible_and_reordering_characters_never_reach_a_page(site: Site, ana: Browser) -> None:
    tricks = "a\u202eb\u200bc\u2066d\ufeffe\u00adf\u3164g\U000e0041h\x1b[2Ji\x7fj\rk"
    new = asking(tool="to\u202eol", arguments={"pa\u200bth": tricks, "path": tricks, "content": tricks}, because=tricks)
    run_id, [request_id] = site.a_waiting_run(with_context(new, said=tricks, tool_description=tricks))

    for path in ("/", page_of(request_id), f"{page_of(request_id)}/edit", f"/runs/{ids.show('run', run_id)}"):
        page = ana.get(path).text
        assert not [letter for letter in tricks if letter in page and not letter.isascii()]
        assert "\x1b" not in page
        assert "\x7f" not in page
    assert "⟦U+202E⟧" in ana.get(page_of(request_id)).text
    assert "the direction of writing" in ana.get(page_of(request_id)).text


def test_every_template_escapes_whatever_it_is_called() -> None:
    for name in ("x.html", "x.html.j2", "x.txt", "x"):
        assert html.environment.from_string("{{ value }}").render(value="<b>") == "&lt;b&gt;"
        autoescape = html.environment.autoescape
        assert autoescape is True, name
    assert all(name.endswith(".html") for name in html.environment.list_templates())


def test_a_row_that_was_changed_behind_our_back_is_shown_as_such_and_cannot_be_decided(
    site: Site, ana: Browser, owner_pool: ledger.Pool
) -> None:
    request_id = a_request(site)
    form = ana.form(page_of(request_id), "approve")
    with ledger.transaction(owner_pool) as conn:
        conn.execute("ALTER TABLE revisions DISABLE TRIGGER USER")
        conn.execute("UPDATE revisions SET digest = decode(repeat('00', 32), 'hex')")

    page = ana.get(page_of(request_id)).text

    assert "Do not trust this page" in page
    assert [found.action for found in forms_in(page)] == ["/sign-out"]
    assert ana.send(form, digest="00" * 32).status_code in (409, 422)


# Every address


def test_every_answer_carries_the_headers_that_keep_a_page_to_itself(site: Site, ana: Browser) -> None:
    request_id = a_request(site)
    notice = notice_of(site, request_id)
    paths = ["/", page_of(request_id), "/runs", "/sign-in", link_of(site, notice), "/nothing", "/l/x", "/icon.svg"]
    paths += ["/requests/x", f"{page_of(request_id)}/edit", "/healthz", "/style/x.css", "/v1/runs"]
    answers = [ana.get(path) for path in paths]
    answers += [Browser(site).get(path) for path in paths]
    answers += [ana.send(Form(path)) for path in ("/sign-in", "/sign-in/code", f"{page_of(request_id)}/vote")]

    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy == (
            "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        if answer.headers["content-type"].startswith("text/html") if "content-type" in answer.headers else False:
            assert answer.headers["cache-control"] == "no-store"
            assert "style=" not in answer.text
            assert not foreign_scripts(answer.text)


def test_no_get_decides_or_changes_anything(site: Site, ana: Browser, owner_pool: ledger.Pool) -> None:
    run_id, [request_id] = site.a_waiting_run(asking(tier=Tier.LOW))
    link = link_of(site, notice_of(site, request_id))
    known = {
        "{request_id}": ids.show("req", request_id),
        "{run_id}": ids.show("run", run_id),
        "{token}": link.removeprefix("/l/"),
        "{stamp}": "x",
    }
    before = _everything(owner_pool)

    visited = 0
    for pattern, methods in routes_of(site):
        path = pattern
        for name, value in known.items():
            path = path.replace(name, value)
        if "GET" in methods and "{" not in path and not path.endswith("/events"):
            visited += 1
            for query in ("", "?verdict=approve&digest=x&revision=1&code=123456"):
                ana.http.get(path + query)
                ana.http.head(path + query)
                ana.http.options(path + query)

    assert visited > 12
    assert _everything(owner_pool) == before


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    result: dict[str, Any] = {**target} if isinstance(target, dict) else {}
    for name, value in cast("dict[str, Any]", patch).items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result


def _everything(pool: ledger.Pool) -> dict[str, Any]:
    """Every row of every table but for who was seen when."""
    found: dict[str, Any] = {}
    with ledger.transaction(pool) as conn:
        tables = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
        for (table,) in tables:
            rows = conn.execute(
                f"SELECT (to_jsonb(t) - 'seen_at' - 'last_used_at')::text FROM {table} AS t ORDER BY 1".encode()
            ).fetchall()
            found[table] = [row[0] for row in rows]
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_as_wcag_aa_asks(scheme: str) -> None:
    sheet = (resources.files("banksman_gateway") / "static" / "banksman.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light if scheme == "light" else dark))
    pairs = [(ink, ground) for ink in ("ink", "soft", "link") for ground in ("ground", "card", "code")]
    pairs += [("ink", "add"), ("ink", "cut"), ("soft", "add"), ("soft", "cut")]
    pairs += [("warn-ink", "warn-ground"), ("odd-ink", "odd-ground")]

    low = [(pair, _contrast(*(colours[name] for name in pair))) for pair in pairs]
    low += [(name, _contrast("#ffffff", colours[name])) for name in ("go", "stop")]

    assert [found for found in low if found[1] < 4.5] == []


def _contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_distances_in_time_are_said_in_words() -> None:
    now = datetime.now(UTC)
    said = {
        timedelta(0): "now",
        timedelta(seconds=30.4): "in 30 s",
        timedelta(minutes=-3): "3 min ago",
        timedelta(hours=2, minutes=10, seconds=1): "in 2 h 10 min",
        timedelta(hours=5, seconds=1): "in 5 h",
        timedelta(days=3, hours=2, seconds=1): "in 3 d 2 h",
        timedelta(days=-2): "2 d ago",
    }
    for distance, words in said.items():
        assert html.relative(now + distance) == words
