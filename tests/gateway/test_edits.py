"""Edits: a person changes a call before approving it: what becomes of votes, what is shown, what can be said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from banksman import diffs, digest, ids, ledger
from banksman.digest import Json
from banksman.ids import RequestId
from banksman.records import NewRequest, Person
from banksman.states import Kind, Tier, Verdict
from banksman_gateway import decide, edits
from tests.gateway.browser import Browser, Words, form_in, page_of, stored
from tests.gateway.scenes import Site, asking

LOOSE: dict[str, Json] = {
    "type": "object",
    "properties": {"path": {"type": ["string", "null"]}, "more": {"type": "object"}},
}


def loosely(**arguments: Json) -> NewRequest:
    """A request of a tool that takes null."""
    new = asking(arguments=arguments)
    action = json.loads(new.action) | {"schema": digest.of_schema(LOOSE).hex()}
    return replace(
        new,
        action=digest.canonical(action),
        digest=digest.of_action(action),
        schema=digest.canonical(LOOSE),
        schema_hash=digest.of_schema(LOOSE),
    )


def test_an_edit_voids_the_votes_before_it_and_is_its_authors_vote(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    site.vote(request_id, site.token(site.ana))

    edited = site.vote(request_id, site.token(site.ben), arguments={"content": "bye\n"}).json()

    assert (edited["state"], edited["revision"]) == ("open", 2)
    assert edited["quorum"]["agreed"] == ["ben@example.org"]
    assert [vote["void"] for vote in edited["votes"]] == ["is on revision 1, which was edited since", None]
    again = site.vote(request_id, site.token(site.ana)).json()
    assert (again["state"], again["decision"]["by"]) == ("approved", ["ben@example.org", "ana@example.org"])


def test_everybody_else_who_must_agree_is_told_of_an_edit(site: Site) -> None:
    site.a_person("cem@example.org", "reviewer")
    site.a_person("aud@example.org", "auditor")
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    site.vote(request_id, site.token(site.ana))

    site.vote(request_id, site.token(site.ben), arguments={"content": "bye\n"})
    site.vote(request_id, site.token(site.ben), arguments={"content": "bye\n"})

    assert told_of(site, request_id) == {1: ["Ana"], 2: ["Ana", "cem"]}


def test_an_edit_at_tier_high_is_told_to_everybody_but_its_author(site: Site) -> None:
    site.a_person("cem@example.org", "reviewer")
    _, [request_id] = site.a_waiting_run(asking(tier=Tier.HIGH, approvals=2))

    outcome = _by(site, request_id, site.ben, arguments={"content": "bye\n"})

    assert len(outcome.told) == 2
    assert told_of(site, request_id)[2] == ["Ana", "cem"]


def test_an_edit_that_settles_is_told_to_nobody(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking())

    site.vote(request_id, site.token(site.ben), arguments={"content": "bye\n"})

    assert told_of(site, request_id) == {1: ["Ana"]}


def told_of(site: Site, request_id: RequestId) -> dict[int, list[str]]:
    """Who was told of which revision."""
    with ledger.transaction(site.gateway) as conn:
        rows = conn.execute(
            """
            SELECT revision, array_agg(name ORDER BY name)
            FROM notices
            JOIN people ON people.id = person_id
            WHERE request_id = %s
            GROUP BY revision
            """,
            (request_id,),
        ).fetchall()
    return dict(rows)


def test_what_an_edit_changed_is_told_line_by_line_in_the_api_and_on_the_page(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    edited = site.vote(request_id, site.token(site.ben), arguments={"content": "bye\n"}).json()
    browser = Browser(site)
    browser.sign_in(site.ana)

    first, second = edited["revisions"]
    page = Words(browser.get(page_of(request_id)).text).text

    assert first["changes"] == []
    assert second["changes"] == [{"argument": "content", "lines": ["-hello", "+bye", " "]}]
    assert "What revision 2 changed" in page
    assert "Edited by Ben" in page


def test_who_votes_on_what_was_changed_meanwhile_is_told_who_changed_it(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    before = site.request(request_id)
    site.vote(request_id, site.token(site.ben), arguments={"content": "bye\n"})

    late = site.vote(request_id, site.token(site.ana), digest=before["digest"], revision=1)

    assert (late.status_code, late.json()["type"]) == (409, "urn:banksman:problem:changed")
    assert "ben@example.org changed the arguments on" in late.json()["detail"]
    assert late.json()["current"]["by"] == "ben@example.org"
    assert late.json()["current"]["revision"] == 2


def test_an_exact_edit_can_set_an_argument_to_null_where_a_patch_leaves_it_out(site: Site) -> None:
    _, [one, two] = site.a_waiting_run(
        replace(loosely(path="/a", more={"x": 1}), call_id="c1"), replace(loosely(path="/a"), call_id="c2")
    )
    headers = site.token(site.ana)

    exact = site.vote(one, headers, arguments_exact={"path": None, "more": {"x": None}}).json()
    patched = site.vote(two, headers, arguments={"path": None}).json()

    assert (exact["state"], exact["arguments"]) == ("approved", {"path": None, "more": {"x": None}})
    assert (patched["state"], patched["arguments"]) == ("approved", {})


def test_an_argument_is_set_to_null_on_the_page(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(loosely(path="/a"))
    browser = Browser(site)
    browser.sign_in(site.ana)

    confirm = browser.send(browser.form(f"{page_of(request_id)}/edit?as=json"), arguments='{"path": null}')
    assert browser.send(form_in(confirm.text)).status_code == 303

    assert json.loads(stored(site, request_id).action)["arguments"] == {"path": None}


@pytest.mark.parametrize(
    "said",
    [
        {"arguments": {"content": "a"}, "arguments_exact": {"path": "/a", "content": "a"}},
        {"arguments_exact": {"path": 7, "content": "a"}},
        {"arguments_exact": {}},
        {"arguments_exact": []},
        {"arguments_exact": {"path": "/a", "content": "x" * 300_000}},
        {"verdict": "deny", "arguments_exact": {"path": "/a", "content": "a"}},
    ],
)
def test_an_exact_edit_that_cannot_be_used_changes_nothing(site: Site, said: dict[str, Any]) -> None:
    _, [request_id] = site.a_waiting_run()

    assert site.vote(request_id, site.token(site.ana), **said).status_code == 422
    assert (stored(site, request_id).revision, site.request(request_id)["votes"]) == (1, [])


def test_a_question_is_not_edited(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(kind=Kind.QUESTION))

    answer = site.vote(request_id, site.token(site.ana), verdict="answer", answer="x", arguments_exact={"path": "/b"})

    assert answer.status_code == 422


def _by(site: Site, request_id: ids.RequestId, person: Person, **more: Any) -> decide.Outcome:
    shown = stored(site, request_id)
    ballot = decide.Ballot(Verdict.APPROVE, shown.digest, shown.revision, reason="So.", **more)
    with ledger.transaction(site.gateway) as conn:
        return decide.vote(conn, request_id, decide.Voter("session", person), ballot, site.parts.pen)


def test_at_tier_high_an_edit_takes_everybody_but_its_author(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2, tier=Tier.HIGH))
    _by(site, request_id, site.ana, exact={"path": "/b", "content": ""})

    second = _by(site, request_id, site.ben)
    shown = site.request(request_id)
    third = _by(site, request_id, site.a_person("cleo@example.org", "reviewer"))

    assert second.request.state.value == "open"
    assert shown["quorum"]["agreed"] == ["ben@example.org"]
    assert shown["votes"][0]["void"] == "is its editor’s, who does not count at tier high"
    assert third.request.state.value == "approved"
    assert site.request(request_id)["decision"]["by"] == ["ben@example.org", "cleo@example.org"]


def test_a_large_edit_is_compared_in_no_time() -> None:
    old, new = ({"content": "".join(f"{n % period}\n" for n in range(60_000))} for period in (7, 5))

    [block] = diffs.edited(old, new)

    assert sum(line.mark in "- " for line in block.lines) == 60_001


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({"a": 1}, {"a": True}, ["-1", "+true"]),
        ({"a": "1"}, {"a": 1}, ['-"1"', "+1"]),
        ({"a": "x"}, {}, ['-"x"', "+(left out)"]),
        ({}, {"a": None}, ["-(left out)", "+null"]),
        ({"a": "x"}, {"a": "x "}, ['-"x"', '+"x "']),
        ({"a": "x\u202e"}, {"a": "x"}, ['-"x⟦U+202E⟧"', '+"x"']),
    ],
)
def test_what_an_edit_changed_is_exact(old: dict[str, Json], new: dict[str, Json], lines: list[str]) -> None:
    [block] = diffs.edited({**old, "same": 1}, {**new, "same": 1})

    assert [line.mark + line.text for line in block.lines] == lines


def test_a_call_is_not_changed_for_ever(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "MOST_REVISIONS", 2)
    _, [request_id] = site.a_waiting_run(asking(approvals=3))

    first = site.vote(request_id, site.token(site.ana), arguments={"content": "1"})
    second = site.vote(request_id, site.token(site.ben), arguments={"content": "2"})

    assert (first.status_code, second.status_code) == (200, 422)
    assert stored(site, request_id).revision == 2
