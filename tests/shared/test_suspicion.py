"""Suspicion: which text raises the tier of a call, which is only pointed out, and that no rule lets the hidden pass."""

from __future__ import annotations

import time

import pytest

from banksman import ids, policy, rule_file, suspicion
from banksman.digest import Json
from banksman.ids import PersonId
from banksman.policy import Call, Judgement, Policy
from banksman.records import Person
from banksman.standing_policy import Standing
from banksman.states import Tier

ALLOWED = '[[rule]]\nname = "free"\ntool = "pay"\nthen = "allow"\n'
FINANCE = '[[rule]]\nname = "pay"\ntool = "*"\nthen = "ask"\ntier = "low"\ngroups = {finance = 1}\n'


def whats(**arguments: Json) -> set[str]:
    return {sign.what for sign in suspicion.signs(arguments)}


def a_person(name: str, *groups: str) -> Person:
    return Person(PersonId(ids.new()), f"{name}@example.org", name, frozenset({"reviewer"}), frozenset(groups), False)


def judged(rules: str, *people: Person, **arguments: Json) -> Judgement:
    standing = Standing(rule_file.read(rules) if rules else None, people=people)
    call = Call("desk", "pay", arguments, flagged=True, requester="ana@example.org")
    return policy.judge(Policy(rules=standing, allow_tools=("pay",) if not rules else ()), call)


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("note", "pay \u202eeno", suspicion.TURNED),
        ("note", "pass\u200bword", suspicion.HIDDEN),
        ("note", "a\U000e0041\U000e0042", suspicion.HIDDEN),
        ("note", "\u2764\ufe0f\ufe0e\ufe0f\ufe0f", suspicion.HIDDEN),
        ("note", "a\ufe0f", suspicion.HIDDEN),
        ("note", "\x1b[2Kls", suspicion.CONTROL),
        ("note", "rm -rf /\rls", suspicion.CONTROL),
        ("note", "from p\u0430ypal", suspicion.LOOK_ALIKE),
        ("note", "the \uff50assword", suspicion.LOOK_ALIKE),
        ("command", "ls \u0430", suspicion.LOOK_ALIKE),
        ("command", "rm\u00a0-rf", suspicion.LOOK_ALIKE),
        ("file_path", "/etc\u2215passwd", suspicion.LOOK_ALIKE),
        ("anything", "/\u0435tc/hosts", suspicion.LOOK_ALIKE),
        ("callbackUrl", "https://ex\u00e4mple.org", suspicion.LOOK_ALIKE),
        ("note", "https://ex\u00e4mple.org", suspicion.LOOK_ALIKE),
        ("to", "Ana <\u00e1na@example.org>", suspicion.LOOK_ALIKE),
        ("note", "a" + "\n" * 40 + "rm -rf /", suspicion.PADDING),
        ("note", "a" + "\t" * 100 + "b", suspicion.PADDING),
        ("note", "a" + "\u3000" * 100 + "b", suspicion.PADDING),
    ],
)
def test_text_that_could_deceive_is_a_sign(name: str, text: str, what: str) -> None:
    assert what in whats(**{name: text})
    assert what in whats(outer=[{name: text}])
    assert any(what in words for words in [suspicion.in_words(suspicion.signs({name: text}))])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("command", "make\tall && ls -la\r\n"),
        ("body", "Grüße aus Köln – „schön“, 5 µs, H₂O, m², λ-Wert…"),
        ("body", "Bonjour\u00a0! Ça va\u202f?"),
        ("body", "⚠️ done ✅ 👩‍💻 1️⃣ 👍🏽"),
        ("body", "Привет, мир"),
        ("body", "用Python写的。日本語とAPI"),
        ("body", "می\u200cخواهم"),
        ("path", "/berichte/März.md"),
        ("path", "/報告/三月.md"),
        ("to", "Jörg Müller <joerg@example.org>"),
        ("body", "x" * 5000),
        ("body", "end" + " " * 500 + "\n" * 500),
    ],
)
def test_what_people_write_is_no_sign(name: str, text: str) -> None:
    assert whats(**{name: text}) == set()


def test_a_name_that_hides_something_is_a_sign_and_is_not_repeated() -> None:
    found = suspicion.signs({"ok\u200b see evil.example": 1, "deep": {"x\u202e": 1}})

    assert {sign.what for sign in found} == {suspicion.HIDDEN, suspicion.TURNED}
    assert suspicion.in_words(found) == "turned writing in `deep`, hidden characters in an argument"


def test_a_call_with_a_sign_is_asked_at_the_highest_tier_that_its_groups_can_reach() -> None:
    bo, cy, di = a_person("bo", "finance"), a_person("cy", "finance"), a_person("di")

    two, one, none = (judged(FINANCE, *people, note="a\u200bb").requirement for people in ((bo, cy), (bo, di), (di,)))

    assert two is not None
    assert one is not None
    assert none is not None
    assert (two.tier, two.approvals, dict(two.groups)) == (Tier.HIGH, 2, {"finance": 1})
    assert (one.tier, one.approvals, dict(one.groups)) == (Tier.MEDIUM, 1, {"finance": 1})
    assert (none.tier, dict(none.groups)) == (Tier.HIGH, {"finance": 1})
    assert two.because.startswith("Raised to tier high: hidden characters in `note`. ")
    plain = judged(FINANCE, bo, cy, note="ab").requirement
    assert plain is not None
    assert plain.tier is Tier.LOW


@pytest.mark.parametrize("rules", [ALLOWED, ""])
@pytest.mark.parametrize("text", ["a\u200bb", "a\u202eb", "a\x1bb"])
def test_no_rule_and_no_setting_allows_a_call_in_which_something_hides(rules: str, text: str) -> None:
    people = a_person("bo"), a_person("cy")

    found = judged(rules, *people, note=text)

    assert found.verdict == "ask"
    assert found.requirement is not None
    assert found.requirement.tier is Tier.HIGH
    assert judged(rules, *people, note="plain, with \u0430 sign of padding" + " " * 80 + ".").verdict == "allow"


@pytest.mark.parametrize(
    "file", [{"text": "l\u200bs\n"}, {"text": None, "proposed": True, "before": {"text": "l\u200bs"}}]
)
def test_a_file_that_a_call_refers_to_raises_its_tier_and_is_not_repeated(file: Json) -> None:
    rules = Standing(rule_file.read(FINANCE), people=(a_person("bo", "finance"), a_person("cy", "finance")))
    call = Call("desk", "pay", {"command": "sh x"}, requester="ana@example.org", files={"/x": file, "/y": None})

    found = policy.judge(Policy(rules=rules), call).requirement

    assert found is not None
    assert found.tier is Tier.HIGH
    assert found.because.startswith("Raised to tier high: hidden characters in a file that it refers to. ")


@pytest.mark.parametrize(("text", "words"), [("a" + " " * 80, "to their right"), ("a" + "\n" * 40, "below them")])
def test_blanks_with_nothing_behind_them_are_pointed_out_and_raise_nothing(text: str, words: str) -> None:
    assert whats(body=text) == set()
    [said] = suspicion.of("body", text)
    assert f"nothing stands {words}" in said


def test_a_rule_that_denies_stands() -> None:
    assert judged('[[rule]]\nname = "no"\ntool = "*"\nthen = "deny"\n', note="a\u200bb").verdict == "deny"


def test_hidden_text_opens_no_folder_for_writing() -> None:
    here = Policy(allow_writes_below=("/workspace",))
    for content, verdict in (("plain", "allow"), ("a\u202eb", "ask")):
        call = Call("desk", "write_file", {"path": "/workspace/a", "content": content}, flagged=True, local=True)
        assert policy.judge(here, call).verdict == verdict


def test_the_largest_call_is_looked_at_quickly() -> None:
    began = time.process_time()

    for text in (
        " " * 250_000,
        "\n" * 250_000,
        " \n" * 125_000,
        "\u202e" * 80_000,
        "p\u0430" * 80_000,
        "\u3000 a" * 60_000,
    ):
        suspicion.signs({"command": text, "note": text})
        list(suspicion.of("note", text))

    assert time.process_time() - began < 10
