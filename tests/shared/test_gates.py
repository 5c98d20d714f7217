"""Gates: what rules make of a tool before any call of it is known."""

from __future__ import annotations

from typing import Any

from banksman import gates, rule_file
from banksman.gates import Gate
from banksman.policy import Judgement
from banksman.records import Requirement
from banksman.standing_policy import Standing
from banksman.states import Tier

FLAGGED = Judgement("ask", "flagged", "Its author wants it.", Requirement(rule="flagged"))

TEXT = """
[[rule]]
name = "never"
agent = "desk"
tool = "drop_*"
then = "deny"
because = "Nothing is dropped here."

[[rule]]
name = "large refunds"
tool = "issue_refund"
when = "amount(args.amount) > 100"
then = "ask"
tier = "high"
because = "Large."

[[rule]]
name = "small refunds"
agent = "desk"
tool = ["issue_refund", "read"]
then = "allow"
because = "Small."

[[rule]]
name = "mails"
tool = "send_*"
then = "ask"
tier = "high"
because = "They leave the house."
"""


def gate(tool: str, agent: str = "desk", text: str = TEXT, **more: Any) -> Gate:
    return gates.of_tool(Standing(rule_file.read(text)), agent, tool, FLAGGED, **more)


def test_a_rule_without_a_condition_decides_the_gate() -> None:
    assert gate("drop_table").in_words == "denied by rule never"
    assert gate("read").in_words == "allowed by rule small refunds"
    asked = gate("send_mail")
    assert (asked.verdict, asked.tier, asked.rule, asked.rules) == ("ask", Tier.HIGH, "mails", ())
    assert asked.in_words == "tier high by rule mails"


def test_a_condition_before_it_makes_the_gate_depend_on_the_call() -> None:
    found = gate("issue_refund")

    assert (found.verdict, found.tier, found.rule, found.rules) == ("depends", None, "", ["large refunds"])
    assert found.in_words == "depends on the call: rule large refunds"
    assert "large refunds (tier high); otherwise allowed by rule small refunds." in found.because
    assert "otherwise tier medium (flagged)." in gate("issue_refund", "shop").because


def test_what_no_rule_names_is_as_it_is_without_rules_and_takes_the_texts_default() -> None:
    assert gate("drop_table", "shop").in_words == "tier medium (flagged)"
    assert gate("drop_table", "shop", TEXT + '[default]\ntier = "high"\n').in_words == "tier high (flagged)"
    assert gates.of_tool(Standing(), "desk", "drop_table", FLAGGED).in_words == "tier medium (flagged)"


def test_a_policy_in_doubt_decides_nothing_but_that_all_is_asked() -> None:
    standing = Standing(rule_file.read(TEXT), doubt="It is not genuine.")

    found = gates.of_tool(standing, "desk", "read", FLAGGED)

    assert (found.verdict, found.rule) == ("ask", "policy-refused")


def test_a_toolset_that_cannot_be_listed_may_hold_tools_of_any_name() -> None:
    found = gate("mcp", listed=False)
    assert (found.verdict, found.rules) == ("depends", ["never", "large refunds", "small refunds", "mails"])

    everything = '[[rule]]\nname = "all"\ntool = "*"\nthen = "deny"\nbecause = "No."\n'
    assert gate("mcp", text=everything, listed=False).in_words == "denied by rule all"


def test_what_a_worker_left_out_of_its_announcement_is_asked() -> None:
    for tool in ({}, {"verdict": "maybe", "tier": "none"}, {"verdict": "ask", "tier": "medium"}):
        found = gates.announced(Standing(), "desk", "x", tool)
        assert (found.verdict, found.tier) == ("ask", Tier.MEDIUM)
    elsewhere = {"verdict": "ask", "rule": "external", "because": "", "external": True}
    found = gates.announced(Standing(rule_file.read(TEXT)), "desk", "read", elsewhere)
    assert found.in_words == "answered from outside"
