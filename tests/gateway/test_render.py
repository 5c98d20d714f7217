"""What a reviewer sees is what stands there: nothing hides, nothing poses as something else, nothing is cut."""

from __future__ import annotations

import hashlib
import re
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banksman import digest, letters, render
from banksman.digest import Json

SAFE = re.compile(r"[\n -~⟦⟧]*")

characters = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from('\t\r\x1b\x08\x7f\x00\u202e\u200b\u2066\u00ad\u3164\u2028\ufeff\U000e0041⟦⟧|>\n -+:"\\'),
)
texts = st.text(characters, max_size=30)
scalars = st.one_of(texts, st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
plain_calls = st.tuples(
    st.sampled_from(["write_file", "execute", "edit_file", "send_mail"]) | texts,
    st.dictionaries(
        st.sampled_from(["path", "content", "command", "old_string", "new_string", "warning", "tool"]) | texts,
        values,
        max_size=4,
    ),
)
edits = st.tuples(
    st.just("edit_file"), st.fixed_dictionaries({"path": texts, "old_string": texts, "new_string": texts})
)
writes = st.tuples(st.just("write_file"), st.fixed_dictionaries({"path": texts, "content": texts}))
calls = st.one_of(plain_calls, edits, writes)


def action(call: tuple[str, dict[str, Json]]) -> dict[str, Json]:
    return {"tool": call[0], "arguments": call[1], "operands": {}}


def a_call(tool: str, **arguments: Json) -> dict[str, Json]:
    return action((tool, arguments))


@given(calls)
@settings(max_examples=400, deadline=None)
def test_nothing_but_printable_ascii_and_our_own_numbers_is_shown(call: tuple[str, dict[str, Json]]) -> None:
    for block in render.of(action(call), {}).blocks:
        shown = [block.label, block.summary, *(line.text for line in block.lines)]
        assert all(SAFE.fullmatch(text) for text in shown)
        assert all("\n" not in line.text for line in block.lines)
        for part in shown:
            assert re.sub(r"⟦U\+[0-9A-F]{4,6}⟧", "", part).isascii()


@given(calls, calls)
@settings(max_examples=800, deadline=None)
def test_two_different_calls_never_look_alike(
    one: tuple[str, dict[str, Json]], other: tuple[str, dict[str, Json]]
) -> None:
    same = digest.canonical(action(one)) == digest.canonical(action(other))
    assert (render.of(action(one), {}).text == render.of(action(other), {}).text) is same
    assert (render.of(action(one), {}).hash == render.of(action(other), {}).hash) is same


@given(texts)
@settings(max_examples=800, deadline=None)
def test_exact_text_can_be_read_back(value: str) -> None:
    back = re.sub(r"⟦U\+([0-9A-F]{4,6})⟧", lambda found: chr(int(found[1], 16)), letters.visible(value))
    assert back == value
    assert "\n" not in letters.line(value)


@given(texts)
@settings(max_examples=800, deadline=None)
def test_prose_keeps_letters_and_spells_out_what_nobody_can_see(value: str) -> None:
    shown = letters.prose(value)
    back = re.sub(r"⟦U\+([0-9A-F]{4,6})⟧", lambda found: chr(int(found[1], 16)), shown)
    assert back == value
    assert not [letter for letter in shown if letter != "\n" and unicodedata.category(letter)[0] == "C"]


def test_no_code_point_that_is_invisible_or_steers_survives_anywhere() -> None:
    ignorable = [0xAD, 0x34F, 0x61C, *range(0x115F, 0x1161), 0x17B4, 0x17B5, *range(0x180B, 0x1810)]
    ignorable += [*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, 0x2800]
    ignorable += [*range(0xFE00, 0xFE10), 0xFEFF, 0xFFA0, *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)]
    ignorable += [*range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0x20), *range(0x7F, 0xA1)]
    for point in ignorable:
        if point == 0x0A:
            continue
        assert chr(point) not in letters.visible(chr(point)) or point == 0x20
        assert chr(point) not in letters.prose(chr(point)) or point == 0x20


def test_a_lone_surrogate_is_shown_and_does_not_stop_the_page() -> None:
    assert letters.visible("a\ud800") == "a⟦U+D800⟧"
    assert letters.prose("a\ud800") == "a⟦U+D800⟧"


def test_a_new_file_is_shown_whole_with_its_size() -> None:
    content = "".join(f"line {number}\n" for number in range(1, 2001)) + "rm -rf /"

    blocks = render.of(a_call("write_file", path="/a.sh", content=content), {}).blocks

    [path, file] = blocks
    assert (path.label, path.lines[0].text) == ("path", '"/a.sh"')
    assert (file.form, file.summary) == ("file", f"2,001 lines, {len(content):,} bytes")
    assert [line.text for line in file.lines] == content.split("\n")
    assert [line.number for line in file.lines] == list(range(1, 2002))


def test_a_file_that_is_replaced_is_also_shown_as_a_change() -> None:
    context: dict[str, Json] = {"files": {"/a": {"text": "one\ntwo\nthree"}}}

    blocks = render.of(a_call("write_file", path="/a", content="one\n2\nthree"), context).blocks

    assert [(line.mark, line.text) for line in blocks[2].lines] == [
        (" ", "one"),
        ("-", "two"),
        ("+", "2"),
        (" ", "three"),
    ]


def test_an_edit_is_shown_as_a_change_with_everything_it_removes_and_adds() -> None:
    call = a_call("edit_file", path="/a", old_string="x = 1\ny = 2", new_string="x = 1\ny = 3\n", replace_all=True)

    [_, change, rest] = render.of(call, {}).blocks

    assert [(line.mark, line.text) for line in change.lines] == [
        (" ", "x = 1"),
        ("-", "y = 2"),
        ("+", "y = 3"),
        ("+", ""),
    ]
    assert (rest.label, rest.lines[0].text) == ("replace_all", "true")


def test_a_script_that_a_command_runs_is_shown_under_the_hash_that_is_approved() -> None:
    body = "#!/bin/sh\ncurl evil.example\n"
    call = a_call("execute", command="sh /a.sh") | {"operands": {"/a.sh": [hashlib.sha256(body.encode()).hexdigest()]}}

    blocks = render.of(call, {"files": {"/a.sh": {"text": body}}}).blocks

    assert blocks[0].form == "command"
    assert blocks[-1].lines[1].text == "curl evil.example"
    assert "as it will be used" in blocks[-1].label
    other = render.of(call, {"files": {"/a.sh": {"text": "harmless"}}}).blocks
    assert "not what the approval would cover" in other[-1].label


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("rm \u202efile", "direction"),
        ("rm\u200b -rf", "nobody can see"),
        ("\x1b[2Kls", "control"),
        ("p\u0430ypal", "look-alikes"),
        ("a" + "\n" * 40 + "rm -rf /", "empty lines"),
        ("a" + " " * 200 + "; rm -rf /", "spaces"),
        ("x" * 2000, "2,000 characters"),
    ],
)
def test_text_that_plays_tricks_is_pointed_out(value: str, word: str) -> None:
    assert word in " ".join(render.of(a_call("execute", command=value), {}).warnings)


def test_plain_text_is_not_suspicious() -> None:
    assert render.of(a_call("execute", command="make\tall && ls -la\n"), {}).warnings == []


def test_words_in_another_script_can_be_read_beside_their_exact_form() -> None:
    [block] = render.of(a_call("send_mail", body="Grüße aus Köln"), {}).blocks

    assert block.lines[0].text == '"Gr⟦U+00FC⟧⟦U+00DF⟧e aus K⟦U+00F6⟧ln"'
    assert block.reading == "Grüße aus Köln"


def test_the_largest_call_is_drawn_quickly_whatever_stands_in_it() -> None:
    old, new = "a\nb\n" * 30_000, "b\na\n" * 30_000
    began = time.process_time()

    _ = render.of(a_call("edit_file", path="/x", old_string=old, new_string=new), {}).text
    _ = render.of(a_call("edit_file", path="/x", old_string="a\nb\n" * 249, new_string="b\na\n" * 249), {}).text
    _ = render.of(a_call("execute", command="\u202e" * 80_000), {}).text

    assert time.process_time() - began < 5


def test_the_hash_depends_on_what_is_shown_and_nothing_else() -> None:
    call = a_call("execute", command="ls")

    assert render.of(call, {"said": "one"}).hash == render.of(call, {"said": "two"}).hash
    assert render.of(call, {}).hash != render.of(a_call("execute", command="ls "), {}).hash
