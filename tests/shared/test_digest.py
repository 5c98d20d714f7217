"""Strict JSON intake and digests: what two readers could read differently is refused, and a digest means one thing."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from banksman import digest
from banksman.errors import InvalidInput


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": 1, "\\u0061": 2}',
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": 9007199254740993}',
        '{"a": -9007199254740992}',
        '{"a": 1' + "0" * 5000 + "}",
        '"\\ud800"',
        '{"\\udfff": 1}',
        "[" * 33 + "]" * 33,
        "[" * 100_000,
        '"' + "x" * digest.MAX_BYTES + '"',
        b'"\xff"',
        "{'a': 1}",
        "",
    ],
    ids=lambda text: str(text)[:20],
)
def test_text_that_two_readers_could_read_differently_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidInput):
        digest.parse(text)


def test_everything_else_is_read_as_it_stands() -> None:
    assert digest.parse('{"a": [1, -9007199254740991, 1.5, null, true, "ü"]}') == {
        "a": [1, -(2**53 - 1), 1.5, None, True, "ü"]
    }
    assert digest.parse("[" * 32 + "]" * 32)


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, {1: "a"}, "\ud800", {"a": b"x"}, {"a": (1,)}, {"a", "b"}])
def test_a_value_without_one_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        digest.check({"value": value})


_NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_TEXTS = st.text() | st.sampled_from(["\U0001f600", "\uffff", ":1.5", "\x7f"])
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXTS, inner),
    max_leaves=8,
)


@given(_VALUES)
def test_canonical_bytes_are_what_the_library_of_the_standard_makes_of_a_value(value: Any) -> None:
    assert digest.canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [1e22, -0.0, [-1.5], {"a": 1e-7}, 2.0, {"\uffff": 1, "\U0001f600": 2}])
def test_fractions_and_keys_that_utf16_sorts_otherwise_are_canonical_too(value: Any) -> None:
    assert digest.canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": -math.inf}, 2**53, [-(2**53)], "\ud800"])
def test_what_has_no_canonical_form_gets_none(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  of several kinds
        digest.canonical(value)


def test_the_digest_is_of_the_canonical_form_under_a_prefix_of_its_own() -> None:
    action = {"b": 1, "a": {"d": [1.0, "x"], "c": None}}

    assert digest.of_action(action) == digest.of_action({"a": {"c": None, "d": [1.0, "x"]}, "b": 1})
    assert digest.of_action(action) == hashlib.sha256(b"banksman/action/v1\0" + rfc8785.dumps(action)).digest()
    assert digest.of_action(action) != digest.of_action({**action, "b": 2})
