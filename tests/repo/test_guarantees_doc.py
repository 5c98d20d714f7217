"""Each promise and crash point of docs/guarantees.md names tests that try to break it, and those tests exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.chaos import crashes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
PROMISES = re.findall(r"^\*\*(\d+)\. (.*?)(?=^\*\*\d|^## )", PAGE, re.MULTILINE | re.DOTALL)
NAMED = [
    (file, test)
    for file, rest in re.findall(r"\]\(\.\./(tests/\S+?\.py)\)([^\[]*)", PAGE)
    for test in re.findall(r"`(test_\w+)`", rest)
]


def test_there_are_seven_promises_and_each_names_a_test() -> None:
    assert [number for number, _ in PROMISES] == list("1234567")
    assert all(re.search(r"`test_\w+`", promise) for _, promise in PROMISES)


def test_every_test_that_the_page_names_stands_behind_a_file() -> None:
    assert [test for _, test in NAMED] == re.findall(r"`(test_\w+)`", PAGE)


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[test for _, test in NAMED])
def test_the_page_names_only_tests_that_exist(file: str, test: str) -> None:
    assert re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_the_page_tells_of_every_crash_point_and_of_no_other() -> None:
    told = re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)

    assert told == crashes.NAMES
