"""Drafts: from many like decisions in a row comes a rule to look at, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from banksman import ids, masks, rule_file
from banksman.digest import Json
from banksman.ledger.rehearsal import Said
from banksman.policy import Call, Judgement
from banksman.records import Person, Requirement
from banksman.states import RequestState
from banksman_gateway import drafts
from banksman_gateway.drafts import Streak
from tests.gateway.browser import Browser
from tests.gateway.scenes import Site, asking

ASKED = Judgement("ask", "flagged", "", Requirement())


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of four is long enough."""
    monkeypatch.setattr(drafts, "IN_A_ROW", 4)


def decide(site: Site, verdicts: Sequence[str], by: Person | None = None, **more: Any) -> None:
    for number, verdict in enumerate(verdicts):
        request = asking(tool="pay", arguments={"amount": 10 + number, "currency": "EUR"} | more)
        _, [request_id] = site.a_waiting_run(request)
        assert site.vote(request_id, site.token(by or site.ana), verdict=verdict).status_code == 200


def offered(site: Site, person: Person | None = None) -> list[dict[str, Any]]:
    answer = site.client.get("/v1/policy/drafts", headers=site.token(person or site.ana))
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


@pytest.mark.usefixtures("few")
def test_like_decisions_in_a_row_offer_a_rule_with_its_replay(site: Site) -> None:
    decide(site, ["deny"])
    decide(site, ["approve"] * 4)

    [draft] = offered(site)

    assert (draft["verdict"], draft["decisions"]) == ("allow", 4)
    assert (draft["examined"], draft["matched"], draft["disagreements"]) == (5, 5, 1)
    [rule] = rule_file.read(draft["text"]).rules
    assert rule.condition is not None
    assert rule.condition.text == 'amount(args.amount) >= 10 && amount(args.amount) <= 13 && args.currency == "EUR"'


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("verdicts", [["approve"] * 3, ["approve"] * 3 + ["deny"] * 3, ["approve"] * 9 + ["deny"]])
def test_fewer_or_mixed_decisions_offer_nothing(site: Site, verdicts: list[str]) -> None:
    decide(site, verdicts)

    assert offered(site) == []


@pytest.mark.usefixtures("few")
def test_a_row_is_one_persons_and_of_one_shape(site: Site) -> None:
    decide(site, ["approve"] * 2)
    decide(site, ["approve"] * 2, by=site.ben)
    decide(site, ["approve"] * 2, memo="other")

    assert offered(site) == []
    assert offered(site, site.ben) == []


@pytest.mark.usefixtures("few")
def test_denials_in_a_row_offer_a_rule_that_denies(site: Site) -> None:
    decide(site, ["deny"] * 4)

    [draft] = offered(site)

    assert 'then = "deny"' in draft["text"]


@pytest.mark.usefixtures("few")
def test_nothing_is_created_by_itself_and_an_uploaded_draft_is_offered_no_more(site: Site) -> None:
    decide(site, ["approve"] * 4)
    admin = site.a_person("root@example.org", "admin", "reviewer")
    [draft] = offered(site)
    assert site.client.get("/v1/policy", headers=site.token(site.ana)).json()["version"] == "default"

    made = site.client.post("/v1/policy", json={"text": draft["text"]}, headers=site.token(admin))

    assert made.status_code == 200, made.text
    assert offered(site) == []


@pytest.mark.usefixtures("few")
def test_the_inbox_says_so_in_a_quiet_line_and_the_page_shows_the_draft(site: Site) -> None:
    browser = Browser(site)
    browser.sign_in(site.ana)
    assert "in a row" not in browser.get("/").text
    decide(site, ["approve"] * 4)

    assert "4 like decisions in a row" in browser.get("/").text
    assert "4 like decisions in a row" in browser.get("/?queue=done").text
    site.a_waiting_run()
    assert "in a row" not in browser.get("/").text
    page = browser.get("/policy").text
    assert "it would have allowed 4, 0 of which people denied" in page
    assert "drafted: approve pay of plain" in page


@pytest.mark.usefixtures("few")
def test_a_draft_tells_no_secret_that_the_calls_had(site: Site) -> None:
    token = "ghp_aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0dF3gH6"
    masks.follow(lambda agent, tool: ["note", "pin"] if (agent, tool) == ("plain", "pay") else [])
    try:
        decide(site, ["approve"] * 4, password="hunter22-is-long", url=f"https://{token}.example.org/", note="sesame",
               pin=4711)  # fmt: skip
        [draft] = offered(site)
    finally:
        masks.follow(masks.nothing)

    text = draft["text"]
    assert not [secret for secret in (token, "hunter22", "sesame", "4711") if secret.lower() in text.lower()]
    for name in ("password", "url", "note", "pin"):
        assert f'It does not look at "{name}", which is covered.' in text
    assert 'args.currency == \\"EUR\\"' in text


def test_a_machine_has_no_drafts(site: Site) -> None:
    assert site.client.get("/v1/policy/drafts", headers=site.key("requests:read")).status_code == 403


def a_rule(*arguments: Mapping[str, Json], tool: str = "t", local: bool = False) -> str | None:
    said = Said(ids.RequestId(ids.new()), "a", tool, b"", RequestState.APPROVED, as_asked=True)
    calls = [Call("a", tool, found, local=local) for found in arguments]
    return drafts.rule_for(Streak("a", tool, RequestState.APPROVED, [said] * len(calls)), calls)


@pytest.mark.parametrize(
    ("first", "second", "local", "condition"),
    [
        ("/w/a/x", "/w/a/b/y", True, 'path_within(args.v, "/w/a")'),
        ("/w/../e/x", "/w/y", True, None),
        ("/w/a/x", "/w/a/b/y", False, None),
        ("https://a.example.org/1", "https://a.example.org/2", False, 'host_within(args.v, "a.example.org")'),
        ("https://a.example.org/1", "https://b.example.org/2", False, None),
        ("1.50", "99", False, "amount(args.v) >= 1.5 && amount(args.v) <= 99"),
        ("x", "x", False, 'args.v == "x"'),
        ('a"b\\c', 'a"b\\c', False, 'args.v == "a\\"b\\\\c"'),
        ("x", "y", False, None),
        ("x\u202e", "x\u202e", False, None),
        (None, None, False, None),
        ([1], [1], False, None),
    ],
)
def test_a_drafted_condition_is_as_narrow_as_what_was_decided(
    first: Json, second: Json, local: bool, condition: str | None
) -> None:
    text = a_rule({"v": first}, {"v": second}, local=local)

    assert text is not None
    rules = rule_file.read(text)
    assert (rules.rules[0].condition.text if rules.rules[0].condition else None) == condition
    assert ("does not look at" in text) == (condition is None)
    for value in (first, second):
        call = Call("a", "t", {"v": value}, local=local)
        assert rules.judge(call, ASKED).verdict == ("ask" if call.hides else "allow")


def test_strange_names_are_quoted_or_make_no_rule() -> None:
    text = a_rule({"a b": 1, "in": 2, 'x"': 3}, {"a b": 1, "in": 2, 'x"': 3})

    assert text is not None
    assert rule_file.read(text).judge(Call("a", "t", {"a b": 1, "in": 2, 'x"': 3}), ASKED).verdict == "allow"
    assert a_rule({"v": 1}, tool="a tool\n") is None
