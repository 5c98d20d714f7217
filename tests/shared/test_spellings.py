"""Paths, hosts and amounts: one reading, and none at all where two programs could differ."""

from __future__ import annotations

import math
import posixpath
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banksman.errors import InvalidInput
from banksman.spellings import Unclear, amount, host_within, path_within
from banksman_worker.workspace import normal

PIECES = st.sampled_from(
    ["workspace", "Workspace", "WORKSPACE", "etc", "passwd", "..", ".", "", "a b", "%2e%2e", "~", "…", "work"]
)
HOSTS = st.sampled_from(
    ["example.org", "evil.com", "example.org.evil.com", "notexample.org", "a.example.org", "xn--e1afmkfd.com", "127.1"]
)


@given(st.lists(PIECES, max_size=8).map(lambda pieces: "/" + "/".join(pieces)))
def test_what_is_within_a_folder_is_where_the_workspace_puts_it(path: str) -> None:
    try:
        within = path_within(path, "/workspace")
    except Unclear:
        return

    try:
        stored = normal(path)
    except InvalidInput:
        return  # the workspace refuses what climbs out of it, whatever the rules say
    assert within == stored.startswith("/workspace/")


@given(st.text())
def test_no_text_is_a_path_within_unless_it_reads_so_plainly(path: str) -> None:
    try:
        within = path_within(path, "/workspace")
    except Unclear:
        return

    assert path.startswith("/")
    assert path.isprintable()
    assert "\\" not in path
    if within:
        assert posixpath.normpath(path).startswith("/workspace/")


@pytest.mark.parametrize(
    ("path", "within"),
    [
        ("/workspace/a.txt", True),
        ("/workspace/./b/../a.txt", True),
        ("/workspace//a.txt", True),
        ("/workspace/../etc/passwd", False),
        ("/workspace/../../etc/passwd", False),
        ("/workspace", False),
        ("/workspace/..", False),
        ("/workspaces/a", False),
        ("/Workspace/a", False),
        ("/WORKSPACE/../workspace/a", True),
    ],
)
def test_a_path_is_within_a_folder_only_below_it(path: str, within: bool) -> None:
    assert path_within(path, "/workspace") is within


@pytest.mark.parametrize(
    "path",
    [
        "workspace/a",
        "../workspace/a",
        "//workspace/a",
        "/workspace\\..\\etc",
        "/workspace/\x00",
        "/workspace/a\n",
        "/workspace/\u202e",
        "/work\u200bspace/a",
        "",
        "~/a",
        None,
        1,
        ["/workspace/a"],
        {"a": 1},
    ],
)
def test_a_path_that_can_be_read_two_ways_is_unclear(path: object) -> None:
    with pytest.raises(Unclear):
        path_within(path, "/workspace")


def test_a_folder_that_is_none_is_unclear_and_not_simply_elsewhere() -> None:
    with pytest.raises(Unclear):
        path_within("/workspace/a", "workspace")


@pytest.mark.parametrize(
    ("url", "within"),
    [
        ("https://example.org", True),
        ("https://example.org/", True),
        ("HTTPS://A.Example.ORG:8443/x?y=@evil.com#z", True),
        ("https://example.org./x", True),
        ("wss://example.org/x", True),
        ("https://example.org.evil.com/", False),
        ("https://notexample.org/", False),
        ("https://example-org.com/", False),
        ("https://evil.com/https://example.org", False),
        ("https://evil.com?example.org", False),
        ("https://evil.com#@example.org/", False),
        ("https://xn--exmple-cua.org/", False),
        ("http://127.0.0.1/", False),
        ("http://[::1]:80/", False),
    ],
)
def test_a_host_is_within_a_domain_only_by_whole_labels(url: str, within: bool) -> None:
    assert host_within(url, "example.org") is within


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org@evil.com/",
        "https://evil.com\\@example.org/",
        "https://example.org:pw@evil.com/",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://example.org:80:80/",
        "https://example.org:/",
        "https://exämple.org/",
        "https://ｅxample.org/",
        "https://example。org/",
        "https://example.org\t.evil.com/",
        "//example.org/",
        "https:/example.org/",
        "https:example.org",
        "example.org",
        "https:///example.org",
        " https://example.org",
        "https://127.1/",
        "https://0x7f.0.0.1/",
        "https://2130706433/",
        "https://010.0.0.1/",
        "https://[::1/",
        "https://[::1]x/",
        "https://example%2eorg/",
        "https://example..org/",
        "https://example.org../",
        "https://-example.org/",
        "javascript://example.org/%0aalert(1)",
        "file://example.org/etc/passwd",
        "data://example.org/,x",
        "https+unix://example.org/",
        "ftp://example.org/",
        "",
        None,
        5,
    ],
)
def test_an_address_that_can_be_read_two_ways_is_unclear(url: object) -> None:
    with pytest.raises(Unclear):
        host_within(url, "example.org")


@pytest.mark.parametrize(
    "domain", ["", ".", "Example.org", "example.org.", "*.example.org", "exämple.org", "1.2.3.4", 5]
)
def test_a_domain_that_is_none_is_unclear(domain: object) -> None:
    with pytest.raises(Unclear):
        host_within("https://example.org/", domain)


@given(
    HOSTS,
    st.sampled_from(["", ":443", ":0", "."]),
    st.sampled_from(["", "u@", "example.org@", "example.org:x@"]),
    st.text(alphabet="/?#@\\:.ae[]%\t ", max_size=8),
)
def test_no_dressing_of_an_address_brings_another_host_within(host: str, after: str, before: str, rest: str) -> None:
    try:
        within = host_within(f"https://{before}{host}{after}{rest}", "example.org")
    except Unclear:
        return

    if within:
        assert host in ("example.org", "a.example.org")
        assert before == ""


@given(st.text())
def test_no_text_breaks_the_reading_of_an_address_or_an_amount(text: str) -> None:
    for read in (lambda: host_within(text, "example.org"), lambda: amount(text)):
        with suppress(Unclear):
            read()


@given(st.decimals(min_value=-(10**12), max_value=10**12, places=2))
def test_an_amount_as_text_is_the_number_that_it_says(value: Decimal) -> None:
    assert amount(format(value, "f")) == float(value)
    assert amount(float(value)) == float(value)


@pytest.mark.parametrize("value", [0, -5, 12.5, "0", "-0.5", "1000", "12.50", "0.125", 2**53])
def test_plain_numbers_are_amounts(value: object) -> None:
    assert amount(value) == float(str(value))


@pytest.mark.parametrize(
    "value",
    [
        "",
        " 5",
        "5 ",
        "+5",
        "1,000",
        "1.000",
        "1.000,00",
        "1e3",
        "0x10",
        "007",
        "٣",
        "５",
        "NaN",
        "inf",
        "Infinity",
        "1_000",
        ".5",
        "5.",
        "1" * 16,
        "--5",
        "5-",
        "$5",
        math.nan,
        math.inf,
        -math.inf,
        2**53 + 2,
        1e300,
        True,
        None,
        [5],
        {"value": 5},
    ],
)
def test_what_people_read_differently_is_no_amount(value: object) -> None:
    with pytest.raises(Unclear):
        amount(value)
