"""Exact text is exact: near misses differ, every unseen code point is its number, and the time it takes is linear."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banksman import digest, letters, render
from banksman.digest import Json

IGNORABLE = (
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0x200B, 0x2010)),
    *(*range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, *range(0xFE00, 0xFE10), 0xFEFF, 0xFFA0),
    *(*range(0xFFF0, 0xFFF9), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000)),
)
"""Default_Ignorable_Code_Point."""


def shown(**arguments: Json) -> str:
    return render.of({"tool": "send", "arguments": arguments}, {}).text


def stored(value: Json) -> Json:
    """As it comes back from its stored bytes."""
    return digest.parse(digest.canonical(value))


def test_every_code_point_that_is_unseen_or_steers_is_its_number() -> None:
    unseen = {point for point in range(0x110000) if unicodedata.category(chr(point)) in ("Cc", "Cf", "Cs", "Zl", "Zp")}

    for point in sorted((unseen | set(IGNORABLE)) - {0x0A}):
        number = f"⟦U+{point:04X}⟧"
        assert letters.visible(chr(point)) == number
        assert letters.prose(chr(point)) == number
        assert letters.line(chr(point)) == number


def test_no_code_point_stands_but_printable_ascii_and_line_breaks() -> None:
    for point in range(0x110000):
        plain = 0x20 <= point <= 0x7E or point == 0x0A
        assert (letters.visible(chr(point)) == chr(point)) is plain


NEAR: list[tuple[Json, Json]] = [
    ([{"a": 1}, {"a": 2}], "a\n1\n2"),
    ([{"a": 1}, {"a": 2}], [{"a": "1"}, {"a": "2"}]),
    ([{"a": "x | y"}, {"a": ""}], [{"a": "x", "y": ""}, {"a": "", "y": ""}]),
    ([{"a": "", "b": 1}, {"a": "", "b": 1}], [{"a": "", "b": 1}] * 3),
    ({"a": 1}, '{"a": 1}'),
    ({"a": {"b": 1}}, {"a": '{"b": 1}'}),
    ([], "[]"),
    ({}, []),
    ("x", "x "),
    ("x", "x\n"),
    ("x\n", "x\n\n"),
    ("x\ny", "x\ny "),
    ("x\r\ny", "x\ny"),
    (1, "1"),
    (1, 1.5),
    (0, False),
    (None, "null"),
    (1e300, "1e+300"),
    ({"a": 1, "a ": 2}, {"a": 2, "a ": 1}),
    ({"a": 1, "A": 2}, {"A": 1, "a": 2}),
    ({"a\n": 1}, {"a": 1}),
    ("⟦U+202E⟧", "\u202e"),
    ("\\u202e", "\u202e"),
    ("é", "e\u0301"),
    ("\ud7ff", "\ue000"),
]


@pytest.mark.parametrize(("one", "other"), NEAR)
def test_near_misses_never_look_alike(one: Json, other: Json) -> None:
    assert shown(it=one) != shown(it=other)
    assert shown(it=[one]) != shown(it=[other])
    assert shown(it={"in": one}) != shown(it={"in": other})
    assert shown(it=stored({"in": one})) == shown(it=stored(stored({"in": one})))


def test_the_order_of_keys_changes_nothing() -> None:
    assert shown(it={"a": 1, "b": 2}) == shown(it={"b": 2, "a": 1})


words: st.SearchStrategy[str] = st.text(st.sampled_from('a1 |"\\\n\r\t:{}[]⟦⟧\u202eé'), max_size=12)
values: st.SearchStrategy[Json] = st.recursive(
    st.one_of(words, st.none(), st.booleans(), st.integers(-20, 20), st.floats(-1e9, 1e9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(words, inner, max_size=3),
        st.lists(st.fixed_dictionaries({"a": inner, "b": inner}), min_size=2, max_size=3),
    ),
    max_leaves=8,
)


@given(words, words, values, values)
@settings(max_examples=200, deadline=None)
def test_any_two_values_look_alike_only_if_they_are_the_same(name: str, second: str, one: Json, other: Json) -> None:
    before, after = {name: stored(one)}, {second: stored(other)}
    texts = shown(**before), shown(**after)

    assert (texts[0] == texts[1]) is (digest.canonical(before) == digest.canonical(after))
    assert all(re.fullmatch(r"[\n -~]*", re.sub("⟦U\\+[0-9A-F]{4,6}⟧", "", _exact(text))) for text in texts)


def _exact(text: str) -> str:
    """Without the lines that repeat words in their own script."""
    return "\n".join(part for part in text.split("\n") if not part.startswith("      > ")).replace("×", "x")


LARGE: dict[str, Callable[[int], dict[str, Json]]] = {
    "text": lambda size: {"it": "some words\n" * (size // 11)},
    "one line": lambda size: {"it": "x" * size},
    "brackets": lambda size: {"it": "⟦" * size},
    "ascii brackets": lambda size: {"it": "[" * size},
    "many letters": lambda size: {"it": "".join(chr(0x400 + number % 50_000) for number in range(size // 3))},
    "json": lambda size: {"it": [{"n": {"deep": [number]}} for number in range(size // 30)]},
    "table": lambda size: {"it": [{"name": "x" * 20, "sum": number} for number in range(size // 40)]},
    "diff": lambda size: {"path": "/a", "old_string": "a\nb\n" * (size // 8), "new_string": "b\na\n" * (size // 8)},
}
"""Arguments of so many bytes, or about."""


@pytest.mark.parametrize("kind", LARGE)
def test_four_times_as_much_takes_about_four_times_as_long(kind: str) -> None:
    short, long = (_seconds(LARGE[kind](size)) for size in (250_000, 1_000_000))

    assert long < 12 * short + 1


def _seconds(arguments: dict[str, Json]) -> float:
    def once() -> float:
        began = time.process_time()
        _ = render.of({"tool": "edit_file", "arguments": arguments}, {}).text
        return time.process_time() - began

    return min(once() for _ in range(2))
