"""Strict JSON intake and digests: what two readers could read differently is refused, and a digest means one thing."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
import rfc8785

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


def test_the_digest_is_of_the_canonical_form_under_a_prefix_of_its_own() -> None:
    action = {"b": 1, "a": {"d": [1.0, "x"], "c": None}}

    assert digest.of_action(action) == digest.of_action({"a": {"c": None, "d": [1.0, "x"]}, "b": 1})
    assert digest.of_action(action) == hashlib.sha256(b"banksman/action/v1\0" + rfc8785.dumps(action)).digest()
    assert digest.of_action(action) != digest.of_action({**action, "b": 2})
