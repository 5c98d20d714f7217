"""Hostile values, one by one: each is shown whole, as the exact text that a reviewer must be able to read."""

from __future__ import annotations

import re

import pytest
from tests.hostile import HOSTILE, VALUES

from banksman import digest, render


def test_there_are_enough_of_them_and_together_they_are_one_action() -> None:
    assert len(HOSTILE) >= 60
    assert len(digest.canonical(VALUES)) < digest.MAX_BYTES


@pytest.mark.parametrize("name", HOSTILE)
def test_what_it_is_can_be_read(name: str) -> None:
    value, seen = HOSTILE[name]

    shown = render.of({"tool": "send", "arguments": {name: digest.parse(digest.canonical(value))}}, {}).text

    assert seen in shown
    exact = "\n".join(line for line in shown.split("\n") if not line.startswith(("      > ", "warning: ")))
    assert re.fullmatch(r"[\n -~]*", re.sub(r"⟦U\+[0-9A-F]{4,6}⟧", "", exact))
