"""What conditions say when they compare: values of one kind have an answer, all others have none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banksman import comparisons
from banksman.conditions import Condition, Scene, Unevaluable
from banksman.digest import Json


def said(text: str, **args: Json) -> bool:
    scene = Scene(agent="desk", tool="pay", args=args, requester="r@x.org", tags=["eu"], batch="")
    return Condition(text).holds(scene)


@pytest.mark.parametrize("to", [["x"], 1, True, {"x": 1}, None, 1.5])
@pytest.mark.parametrize(
    "text",
    [
        'args.to != "x"',
        'args.to == "x"',
        '!(args.to == "x")',
        'args.to in ["x", "y"]',
        'args.to < "x"',
        '"x" >= args.to',
    ],
)
def test_a_value_of_another_kind_is_not_compared(text: str, to: Json) -> None:
    with pytest.raises(Unevaluable, match="kinds"):
        said(text, to=to)


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("args.a == 1", {"a": True}),
        ("args.a != 0", {"a": False}),
        ('args.a != ["x"]', {"a": [["x"]]}),
        ('args.a != {"k": "x"}', {"a": {"k": ["x"]}}),
        ('!("x" in args.a)', {"a": [["x"]]}),
        ('!("x" in args.a)', {"a": "xyz"}),
        ("!(1 in args.a)", {"a": {"1": 1}}),
        ("args.a == args.b", {"a": "1", "b": 1}),
        ('args.a.all(item, item != "x")', {"a": ["y", ["x"]]}),
        ('[args.a == "x"][0]', {"a": 1}),
        ('args.b ? args.a == "x" : false', {"a": 1, "b": True}),
    ],
)
def test_neither_is_what_is_held_or_stands_deeper(text: str, args: dict[str, Json]) -> None:
    with pytest.raises(Unevaluable):
        said(text, **args)


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("args.a == 1", {"a": 1.0}),
        ("args.a in [1, 2]", {"a": 2.0}),
        ("args.a == 1u", {"a": 1}),
        ("args.a != 0x1F", {"a": 30}),
        ("args.a == args.b", {"a": None, "b": None}),
        ("args.a == {'k': [1, 'x']}", {"a": {"k": [1.0, "x"]}}),
        ('"x" in args.a', {"a": ["x", 1]}),
        ('"x" in args.a', {"a": {"x": 1}}),
        ('!("x" in args.a)', {"a": []}),
        ('!("x" in args.a)', {"a": [None, "y"]}),
        ('args.a in [null, "x"]', {"a": None}),
        ('args.a in [null, "x"]', {"a": "x"}),
        ('!args.a == false && -args.b==-1 // "x\n && true', {"a": True, "b": 1}),
        (r'''args.a == r"\" && args.b == "\"" && """a == "b" """ == args.c''', {"a": "\\", "b": '"', "c": 'a == "b" '}),
        ("(args.a == 1) == true", {"a": 1}),
        ('args.b == 2 || args.a == "x"', {"a": 1, "b": 2}),
    ],
)
def test_what_is_of_one_kind_has_an_answer(text: str, args: dict[str, Json]) -> None:
    assert said(text, **args)


@pytest.mark.parametrize("value", ["x", 1, 1.5, True, ["x"], {"x": 1}])
def test_a_null_that_the_author_wrote_asks_for_absence(value: Json) -> None:
    assert said("args.a != null && !(null == args.a)", a=value)
    assert said("args.a == null && !( null != args.a )", a=None)
    assert said("args.a == null || args.a == 'x'", a=None)


@pytest.mark.parametrize("text", ["1 < args.a < 3", "args.a == 1 == true", "args.a == args.b in [true]"])
def test_comparing_twice_in_a_row_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="compares twice in a row"):
        Condition(text)


@pytest.mark.parametrize("name", comparisons.FUNCTIONS)
def test_nobody_calls_our_functions_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="calls"):
        Condition(f"{name}(args.a, 1)")


_PLAIN = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.0, 1.0, 1.5]) | st.sampled_from(["", "x"])
_VALUES = st.recursive(_PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("k"), inner))


@given(_VALUES, _VALUES)
def test_an_answer_is_the_one_that_equality_has_for_json(one: Json, other: Json) -> None:
    try:
        answer = said("args.a == args.b", a=one, b=other)
    except Unevaluable:
        return
    assert (
        answer == (one == other) == said("args.b == args.a", a=one, b=other) != said("args.a != args.b", a=one, b=other)
    )
