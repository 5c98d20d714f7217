"""Rules as an operator writes them: how they are read, in which order they count, and what becomes of unclear ones."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from banksman import ids, policy, rule_file
from banksman.conditions import Condition, Scene, Unevaluable
from banksman.errors import InvalidInput
from banksman.ids import PersonId
from banksman.policy import Call, Judgement, Policy
from banksman.records import Person, Requirement, Rung
from banksman.rules import Rules
from banksman.states import Tier

OTHERWISE = Judgement("ask", "flagged", "Flagged.", Requirement(rule="flagged", because="Flagged."))
EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "banksman.toml"
BIG = """
[[rule]]
name = "large refunds"
tool = "refund"
when = 'amount(args.amount) > 100'
then = "ask"
tier = "high"
groups = {finance = 1, security = 1}
expires_after = "24h"
reminders = ["2h", "8h"]
escalation = [{after = "4h", groups = ["leads"]}, {after = "12h", groups = ["admins"]}]
on_expiry = "stop"
because = "Large refunds need finance and security."

[[rule]]
name = "small refunds"
tool = "refund"
then = "allow"

[[rule]]
name = "never delete"
tool = "delete_*"
then = "deny"
because = "Nothing is deleted here."
"""


def a_person(email: str, *groups: str, roles: tuple[str, ...] = ("reviewer",)) -> Person:
    return Person(PersonId(ids.new()), email, email, frozenset(roles), frozenset(groups), disabled=False)


def judged(text: str | Rules, tool: str, people: tuple[Person, ...] = (), **args: object) -> Judgement:
    rules = rule_file.read(text) if isinstance(text, str) else text
    return rules.judge(Call("desk", tool, args, requester="ana@example.org"), OTHERWISE, people)


def refusal(text: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        rule_file.read(text, "banksman.toml")
    return str(caught.value)


def test_the_first_rule_that_matches_says_what_becomes_of_a_call() -> None:
    assert judged(BIG, "refund", amount=101).verdict == "ask"
    assert judged(BIG, "refund", amount=100).rule == "small refunds"
    assert judged(BIG, "delete_file").verdict == "deny"
    assert judged(BIG, "delete_file").because == "Nothing is deleted here."
    assert judged(BIG, "write_file").rule == "flagged"


def test_a_rule_freezes_everything_that_it_says_into_the_requirement() -> None:
    requirement = judged(BIG, "refund", amount="250.00").requirement

    assert requirement == Requirement(
        tier=Tier.HIGH,
        approvals=2,
        groups={"finance": 1, "security": 1},
        policy="draft",
        rule="large refunds",
        because="Large refunds need finance and security.",
        expires_after=86400,
        reminders=(7200, 28800),
        escalation=(Rung(14400, ("leads",)), Rung(43200, ("admins",))),
        on_expiry="stop",
    )


def test_a_rule_that_names_the_tool_allows_also_what_its_author_flagged() -> None:
    rules = rule_file.read(BIG)
    call = Call("desk", "refund", {"amount": 5}, flagged=True)

    class Above:
        def judge(self, call: Call, otherwise: Judgement) -> Judgement:
            return rules.judge(call, otherwise)

    assert policy.judge(Policy(rules=Above()), call).verdict == "allow"


def test_default_says_who_must_agree_where_no_rule_does() -> None:
    text = '[default]\ntier = "low"\nexpires_after = "2h"\ngroups = ["desk", "leads"]\n' + BIG
    requirement = judged(text, "other").requirement

    assert requirement is not None
    assert (requirement.tier, requirement.expires_after) == (Tier.LOW, 7200)
    assert requirement.groups == {"desk": 0, "leads": 0}
    assert (requirement.rule, requirement.because) == ("flagged", "Flagged.")


def test_a_tool_that_the_settings_put_at_tier_high_stays_there_above_a_default() -> None:
    high = Judgement("ask", "flagged", "", Requirement(tier=Tier.HIGH, approvals=2))
    found = rule_file.read('[default]\ntier = "low"').judge(Call("a", "execute", {}), high).requirement

    assert found is not None
    assert (found.tier, found.approvals) == (Tier.HIGH, 2)


@pytest.mark.parametrize(
    "args",
    [{}, {"amount": "1,000"}, {"amount": None}, {"amount": [1]}, {"amount": "NaN"}, {"amount": {"value": 5}}],
    ids=str,
)
def test_a_rule_that_cannot_be_worked_out_asks_at_the_highest_tier_and_says_so(args: dict[str, object]) -> None:
    people = tuple(a_person(f"{n}@example.org", "finance", "security") for n in "abc")
    found = judged(BIG, "refund", people, **args)

    assert found.verdict == "ask"
    assert "'large refunds' cannot be worked out" in found.because
    assert found.requirement is not None
    assert found.requirement.because == found.because
    assert (found.requirement.tier, found.requirement.approvals) == (Tier.HIGH, 2)
    assert found.requirement.groups == {"finance": 1, "security": 1}


def test_the_highest_tier_is_one_that_somebody_other_than_the_requester_can_reach() -> None:
    text = '[[rule]]\nname = "r"\ntool = "t"\nwhen = "args.gone == 1"\nthen = "allow"\n'
    ana, ben, cleo = (a_person(f"{name}@example.org") for name in ("ana", "ben", "cleo"))

    def tier(*people: Person) -> tuple[Tier, int]:
        requirement = judged(text, "t", people).requirement
        assert requirement is not None
        return requirement.tier, requirement.approvals

    assert tier(ana, ben, cleo) == (Tier.HIGH, 2)
    assert tier(ana, ben) == (Tier.MEDIUM, 1)
    assert tier() == (Tier.HIGH, 2)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[[rule]]\nname = "a"\nthen = "perhaps"', 3, "'allow', 'deny' or 'ask'"),
        ('[[rule]]\nname = "a"\nthen = "ask"\ntoool = "x"', 4, "`toool` is not known here"),
        ('[[rule]]\nname = "a"\nthen = "ask"\n\n# so\non_expiry = "allow"', 6, "silence decides nothing"),
        ('[[rule]]\nname = "a"\nthen = "ask"\nexpires_after = 24', 4, "is not a duration"),
        ('[[rule]]\nname = "a"\nthen = "ask"\nexpires_after = "24"', 4, "is not a duration"),
        ('[[rule]]\nname = "a"\nthen = "ask"\nexpires_after = "1h"\nreminders = ["2h"]', 5, "has expired"),
        ('[[rule]]\nname = "a"\nthen = "ask"\nescalation = [{after = "4h"}]', 4, "`groups` is missing"),
        (
            '[[rule]]\nname = "a"\nthen = "ask"\nescalation = [{after = "4h", groups = ["x"], group = "y"}]',
            4,
            "`group` is not known here; there are after, groups.",
        ),
        ('[[rule]]\nname = "a"\nthen = "ask"\nexpires_after = "53w"', 4, "is not a duration of a second to a year"),
        ('[[rule]]\nname = "a"\nthen = "ask"\ngroups = {a=1,b=1,c=1,d=1,e=1,f=1,g=1}', 4, "at most 6"),
        ('[[rule]]\nname = "a"\nthen = "ask"\ngroups = {a=2,b=1}\napprovals = 2', 5, "at least 3"),
        ('[[rule]]\nname = "a"\nthen = "ask"\ntier = "high"\napprovals = 1', 5, "tier high takes two people"),
        ('[[rule]]\nname = "a"\nthen = "allow"', 1, "every tool through"),
        ('[[rule]]\nname = "a"\nthen = "allow"\ntool = ["x", "*"]', 1, "every tool through"),
        ('[[rule]]\nname = "a"\nthen = "deny"\ntier = "low"', 1, "needs nobody"),
        ('[[rule]]\nname = "a"\nthen = "deny"\ntool = "x?"', 4, "is no name"),
        ('[[rule]]\nname = "a"\nthen = "deny"\nwhen = \'argz.x > 1\'', 4, "names 'argz'"),
        ('[[rule]]\nname = "a"\nthen = "deny"\nwhen = \'sum(args.x) > 1\'', 4, "calls 'sum'"),
        ("[[rule]]\nname = \"a\"\nthen = \"deny\"\nwhen = '''\nargs.x >\n'''", 4, "is not CEL"),
        ('[[rule]]\nname = "a"\nthen = "deny"\nwhen = \'args.a.all(x, args.b.all(y, x == y))\'', 4, "inside another"),
        ('[[rule]]\nname = "a"\nthen = "deny"\n[[rule]]\nname = "b"\nthen = "deny"', 4, "no call ever comes here"),
        (
            '[[rule]]\nname = "a"\ntool = "x"\nthen = "deny"\n[[rule]]\nname = "b"\ntool = "x"\nthen = "ask"',
            5,
            "'a' matches",
        ),
        ('[[rule]]\nname = "a"\ntool="x"\nthen = "deny"\n[[rule]]\nname = "a"\nthen = "deny"', 6, "is taken by rule 1"),
        ('[defaults]\ntier = "low"', 1, "`defaults` is not known"),
        ('[default]\ntier = "lowest"', 2, "'low', 'medium' or 'high'"),
    ],
)
def test_an_error_names_the_rule_and_the_line(text: str, line: int, words: str) -> None:
    said = refusal(text)

    assert words in said
    assert f"line {line}:" in said
    assert said.startswith("banksman.toml, ")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('tool = "pay"\nthen = "allow"', 'tool = "pay"\nwhen = "args.amount > 100"\nthen = "ask"'),
        ('tool = "pay"\nthen = "allow"', 'tool = "pay"\nthen = "allow"'),
        ('tool = "pay_*"\nthen = "ask"', 'tool = ["pay_now", "pay_*_later"]\nthen = "deny"'),
        ('tool = ["a", "pay*"]\nthen = "deny"', 'tool = "pay*"\nagent = "desk"\nthen = "ask"'),
        ('tool = "**"\nthen = "deny"', 'agent = "desk"\nthen = "ask"'),
    ],
)
def test_a_rule_below_one_that_takes_all_of_its_calls_is_refused(first: str, second: str) -> None:
    between = '[[rule]]\nname = "between"\ntool = "other"\nthen = "deny"\nwhen = "args.a"\n'

    said = refusal(f'[[rule]]\nname = "above"\n{first}\n{between}[[rule]]\nname = "below"\n{second}')

    assert "rule 3 'below'" in said
    assert "ever comes here: the rule 'above' matches" in said


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('tool = "pay"\nwhen = "args.amount > 100"\nthen = "ask"', 'tool = "pay"\nthen = "allow"'),
        ('tool = "pay"\nagent = "desk"\nthen = "allow"', 'tool = "pay"\nwhen = "args.amount > 100"\nthen = "ask"'),
        ('tool = "pay_now"\nthen = "deny"', 'tool = "pay_*"\nthen = "ask"'),
        ('tool = "p*y"\nthen = "deny"', 'tool = "p*"\nthen = "ask"'),
        # Calls in which something hides pass the first and come to the second.
        ('tool = "pay"\nthen = "allow"', 'tool = "pay"\nthen = "deny"'),
    ],
)
def test_a_rule_that_some_call_comes_to_is_read(first: str, second: str) -> None:
    text = f'[[rule]]\nname = "above"\n{first}\n[[rule]]\nname = "below"\n{second}'

    assert [rule.name for rule in rule_file.read(text).rules] == ["above", "below"]


def test_the_whole_text_is_checked_at_once() -> None:
    said = refusal('[[rule]]\nname = "a"\nthen = "no"\ntier = "x"\n[[rule]]\nname = "b"\nthen = "ask"\nwhat = 1')

    assert len(said.splitlines()) == 3
    assert "rule 1 'a', line 3" in said
    assert "rule 2 'b', line 8" in said


def test_lines_are_found_past_strings_comments_and_brackets_that_look_like_rules() -> None:
    text = (
        '# [[rule]]\n[[rule]]\nname = "a # [[rule]]"\nbecause = "x = 1"\ntool = [\n  "then = 1",\n  "b",\n]\n'
        'then = "deny"\n'
        '[[rule]]\nname = \'b\'\nwhen = """\n\ntier = \'x\' [[rule]]\n"""\n"then" = \'nothing\'\n'
    )
    said = refusal(text)

    assert "rule 2 'b', line 16: `then`" in said
    assert "rule 1" in said
    assert "line 5: `tool`" in said


@given(st.text(max_size=300))
@example("a=" + "[" * 5000)
@example("a=" + "9" * 5000)
@example("[[rule]]\nname=1979-05-27T07:32:00Z")
@example("rule = 1")
@example("[[rule]]\nrule=[[1]]\n[default.tier]")
@example("\ud800")
def test_no_text_breaks_the_loader(text: str) -> None:
    with suppress(InvalidInput):
        assert isinstance(rule_file.read(text), Rules)


KEYS = st.sampled_from(
    [
        "name",
        "tool",
        "agent",
        "when",
        "then",
        "tier",
        "groups",
        "approvals",
        "expires_after",
        "reminders",
        "escalation",
        "on_expiry",
        "because",
        "else",
    ]
)
VALUES = st.sampled_from(
    [
        '"a"',
        '"*"',
        '"ask"',
        '"allow"',
        '"deny"',
        '"high"',
        "1",
        "-1",
        "true",
        "[]",
        "{}",
        '["a", "b"]',
        "{a = 1}",
        '"24h"',
        "'args.a > 1'",
        "'amount('",
        '["1h", "1h"]',
        '[{after = "1h", groups = ["a"]}]',
        '"stop"',
        "1e999",
        "[[[]]]",
        '""',
    ]
)


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=6), max_size=4), st.dictionaries(KEYS, VALUES, max_size=4))
def test_rules_of_any_shape_are_read_or_refused_in_words(rules: list[dict[str, str]], default: dict[str, str]) -> None:
    tables = ["[[rule]]\n" + "\n".join(f"{key} = {value}" for key, value in rule.items()) for rule in rules]
    text = "\n".join(["[default]", *(f"{key} = {value}" for key, value in default.items()), *tables])
    try:
        found = rule_file.read(text)
    except InvalidInput:
        return

    for rule in found.rules:
        assert (rule.requirement is not None) == (rule.then == "ask")
    found.judge(Call("a", "a", {"a": 2}), OTHERWISE)


@given(st.text(max_size=200))
@example("(" * 900 + "1" + ")" * 900)
@example("!" * 1999 + "a")
@example("[" * 1000)
@example("args" + ".a" * 990)
def test_no_text_breaks_the_reading_of_a_condition(text: str) -> None:
    scene = Scene(agent="a", tool="t", args={"a": [1]}, requester="r", tags=["x"], batch="")
    with suppress(ValueError, Unevaluable):
        Condition(text).holds(scene)


def test_a_condition_sees_the_call_and_who_asked_for_it() -> None:
    scene = Scene(agent="desk", tool="pay", args={"a": 1}, requester="r@x.org", tags=["eu"], batch="bat_1")
    text = (
        'agent == "desk" && tool == "pay" && args.a == 1 && requester == "r@x.org" && "eu" in tags && batch == "bat_1"'
    )

    assert Condition(text).holds(scene)


@pytest.mark.parametrize(
    "text",
    [
        "args.a.all(x, // it's so\n args.b.all(x, x == 1)) // isn't it",
        "r'\\' == args.t && args.a.all(x, args.b.all(x, x == 'y'))",
        '"""a"b""" == args.t && args.a.all(x, args.b.all(x, x == \'y"\'))',
    ],
)
def test_no_remark_or_text_hides_one_walk_inside_another(text: str) -> None:
    with pytest.raises(ValueError, match="inside another"):
        Condition(text)


@pytest.mark.parametrize("text", ["args.a.all(x, // it's so\n x == 1)", "r'\\' == '' || args.a.all(x, x == 1)"])
def test_a_walk_beside_a_remark_or_an_odd_text_is_read(text: str) -> None:
    scene = Scene(agent="a", tool="t", args={"a": [1]}, requester="r", tags=[], batch="")

    assert Condition(text).holds(scene)


@pytest.mark.parametrize("text", ["args.long.map(x, x) == []", "args.long.exists(x, x in args.long)"])
def test_a_long_list_is_not_walked_through(text: str) -> None:
    scene = Scene(agent="a", tool="t", args={"long": list(range(1000))}, requester="r", tags=[], batch="")

    with pytest.raises(Unevaluable, match="more than 300 items"):
        Condition(text).holds(scene)


def test_what_a_condition_says_when_it_fails_never_repeats_the_arguments() -> None:
    scene = Scene(agent="a", tool="t", args={"a": "sk-secret"}, requester="r", tags=[], batch="")
    for text in ("amount(args.a) > 1", "args.a > 1", 'host_within(args.a, "x.org")', "args.a", "double(args.a) > 1.0"):
        with pytest.raises(Unevaluable) as caught:
            Condition(text).holds(scene)
        assert "sk-secret" not in str(caught.value)


def test_a_requirement_that_nobody_can_meet_is_refused_with_its_rule_and_line() -> None:
    rules = rule_file.read(BIG)
    finance, security = a_person("f@x.org", "finance"), a_person("s@x.org", "security")

    with pytest.raises(InvalidInput, match=r"rule 'large refunds', line 2: nobody could ever meet tier high, 2 people"):
        rule_file.check_reach(rules, [finance, security])  # whoever asks for the run is missing then
    rule_file.check_reach(rules, [finance, security, a_person("g@x.org", "finance"), a_person("t@x.org", "security")])


def test_who_is_disabled_or_no_reviewer_reaches_nothing() -> None:
    rules = rule_file.read('[default]\ntier = "medium"')
    idle = Person(PersonId(ids.new()), "i@x.org", "I", frozenset({"reviewer"}), frozenset(), disabled=True)

    with pytest.raises(InvalidInput, match="default"):
        rule_file.check_reach(rules, [a_person("a@x.org"), idle, a_person("b@x.org", roles=("auditor",))])
    rule_file.check_reach(rules, [a_person("a@x.org"), a_person("b@x.org")])


def test_without_a_policy_half_of_the_time_brings_a_reminder_and_three_quarters_the_administrators() -> None:
    requirement = policy.judge(Policy(), Call("a", "t", {})).requirement
    short = policy.judge(Policy(expires_after=600), Call("a", "t", {})).requirement

    assert requirement is not None
    assert requirement.reminders == (36 * 3600,)
    assert requirement.escalation == (Rung(54 * 3600, ("admins",)),)
    assert short is not None
    assert (short.reminders, short.escalation) == ((), ())


@pytest.mark.parametrize(
    ("then", "now", "stricter"),
    [
        ({"finance": 1}, {}, False),
        ({}, {"finance": 0}, True),
        ({"finance": 1}, {"finance": 1, "security": 0}, False),
        ({"finance": 1, "security": 0}, {"finance": 1}, True),
        ({"admins": 1}, {}, True),
    ],
)
def test_only_who_may_no_longer_vote_makes_a_policy_stricter(
    then: dict[str, int], now: dict[str, int], stricter: bool
) -> None:
    assert (policy.stricter(Requirement(groups=now), Requirement(groups=then)) is not None) is stricter


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        ("/workspace/notes.txt", "allow"),
        ("/tmp/x", "allow"),  # noqa: S108  a path in a workspace
        ("/workspace/../tmp/x", "allow"),
        ("/workspace/../etc/passwd", "ask"),
        ("/workspace/../../etc/passwd", "ask"),
        ("/workspace", "ask"),
        ("/Workspace/notes.txt", "ask"),
        ("/WORKSPACE/x", "ask"),
        ("/workspace\\..\\etc", "ask"),
        ("/workspace/\u202etxt", "ask"),
        ("workspace/x", "ask"),
        ("/workspaces/x", "ask"),
    ],
)
def test_the_pages_conditional_approval_as_policy_is_fooled_by_no_spelling_of_a_path(path: str, verdict: str) -> None:
    rules = rule_file.read_path(EXAMPLE)
    ours = Call("sysadmin", "write_file", {"path": path, "content": ""}, effects="workspace", local=True)

    assert rules.judge(ours, OTHERWISE).verdict == verdict
    read = rules.judge(Call("sysadmin", "read_file", {"path": path}), OTHERWISE)
    assert read.verdict == ("ask" if "\u202e" in path else "allow")


def test_a_write_tool_of_an_authors_own_is_asked_because_nobody_here_knows_its_links() -> None:
    rules = rule_file.read_path(EXAMPLE)
    found = rules.judge(Call("other", "write_file", {"path": "/workspace/link/passwd", "content": ""}), OTHERWISE)

    assert found.verdict == "ask"
    assert "this tool works elsewhere" in found.because


@pytest.mark.parametrize(
    ("amount", "currency", "tier"),
    [
        *(("59.00", "EUR", "low"), ("100", "EUR", "low"), ("100.01", "EUR", "high"), ("59", "USD", "high")),
        *(("-5", "EUR", "high"), ("1,000", "EUR", "high"), ("NaN", "EUR", "high"), ("1e9", "EUR", "high")),
    ],
)
def test_the_example_asks_one_person_about_small_refunds_and_two_about_all_others(
    amount: str, currency: str, tier: str
) -> None:
    people = [a_person(f"{name}@example.org") for name in ("ana", "ben", "cleo")]
    call = Call("desk", "issue_refund", {"order": "A-1", "amount": amount, "currency": currency})
    requirement = rule_file.read_path(EXAMPLE).judge(call, OTHERWISE, people).requirement

    assert requirement is not None
    assert requirement.tier.value == tier
