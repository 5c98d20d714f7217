"""A long block is folded and says how much it folds; whoever agrees has read that too, and whoever denies need not."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banksman import blocks, diffs
from banksman.blocks import Block
from banksman.digest import Json
from banksman.states import Tier
from banksman_gateway import folds, html
from banksman_gateway.folds import Piece
from tests.gateway.browser import Browser, Form, Parts, form_in, link_of, mailed, must_show, notice_of, page_of, stored
from tests.gateway.scenes import Site, asking

LONG = "".join(f"line {number}\n" for number in range(812 + 30))
BOX = "I have read all of it, also what is folded (812 lines)"


def flat(pieces: list[Piece]) -> list[Piece]:
    return [one for piece in pieces for one in (piece, *flat(list(piece.below)))]


def lines_of(drawn: folds.Drawn) -> list[tuple[int, str, str]]:
    """The lines as they were before they were drawn."""
    found: list[tuple[int, str, str]] = []
    for piece in flat([*drawn.head, *drawn.between, *drawn.tail]):
        line = piece.line
        if piece.part:
            number, mark, text = found.pop()
            assert (number, mark) == (line.number, line.mark)
            found.append((number, mark, text + line.text))
        else:
            found.append((line.number, line.mark, line.text))
    return found


texts: st.SearchStrategy[str] = st.text(st.sampled_from("ab \n\u202e⟦⟧{}[]\"'<&"), max_size=60)
longer = st.tuples(texts, st.sampled_from([2, 40, 90, 300])).map(lambda both: both[0] * both[1])
bits: st.SearchStrategy[str] = st.one_of(texts, longer)
jsons: st.SearchStrategy[Json] = st.recursive(
    st.one_of(bits, st.none(), st.integers(-9, 9)),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(st.one_of(bits, jsons, st.lists(jsons, min_size=30, max_size=60)), texts)
@settings(max_examples=60, deadline=None)
def test_a_fold_loses_nothing_and_counts_what_it_holds(value: Json, other: str) -> None:
    made = [blocks.of_argument("it", value), diffs.diff("it", other, value if isinstance(value, str) else other * 90)]
    for block in made:
        drawn = folds.drawn(block)
        shown = [*drawn.head, *drawn.tail]
        inside = flat(list(drawn.between))

        rows = block.lines[1:] if block.form == "table" else block.lines
        assert lines_of(drawn) == [(line.number, line.mark, line.text) for line in rows]
        assert sum(one.lines for one in shown) <= folds.LINES
        assert sum(one.characters for one in shown) <= folds.CHARACTERS
        assert not [one for one in inside if re.search(r"^[^⟦]*⟧|⟦[^⟧]*$", one.line.text)]
        counted = len(inside), sum(len(one.line.text) for one in inside)
        assert drawn.words == f"{blocks.count(counted[0], 'line')}, {blocks.count(counted[1], 'character')} between"


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (blocks.whole("file", "it", LONG), "812 lines, 6,416 characters between"),
        (blocks.whole("text", "it", "x" * 100_000), "1 line, 97,000 characters between"),
        (blocks.of_argument("it", list(range(100))), "72 lines, 360 characters between"),
        (blocks.of_argument("it", [{"a": n} for n in range(100)]), "70 lines, 140 characters between"),
    ],
)
def test_head_and_tail_of_a_long_block_stand_outside_its_fold(block: Block, words: str) -> None:
    drawn = folds.drawn(block)

    assert drawn.words == words
    assert drawn.head
    assert drawn.tail
    assert not folds.drawn(blocks.whole("file", "it", "x\n" * folds.LINES)).between
    assert not folds.drawn(blocks.whole("text", "it", "x" * folds.CHARACTERS)).between


def test_a_page_holds_every_line_in_its_place_and_json_as_a_tree(site: Site) -> None:
    tree: Json = {"deep": {"list": [1, {"x": "{"}], "none": {}}, "flat": "]"}
    table: Json = [{"to": f"</td>{n}", "sum": n} for n in range(100)]
    block = [blocks.of_argument("tree", tree), blocks.of_argument("many", table), blocks.whole("text", "it", LONG)]
    drawn = html.environment.from_string(
        '{% from "_blocks.html" import block %}<div data-whole>{% for item in all %}{{ block(item) }}{% endfor %}</div>'
    ).render(all=block)

    _, _, text = Parts(drawn).found

    must_show(drawn, block)
    assert drawn.count('<details class="node" open>') == 3
    assert len(text.inside) == 812
    assert text.folded == ["812 lines, 6,416 characters between"]


@pytest.mark.parametrize("tier", [Tier.LOW, Tier.MEDIUM])
def test_who_approves_says_that_what_is_folded_was_read(site: Site, tier: Tier) -> None:
    ana = Browser(site)
    ana.sign_in(site.ana)
    _, [request_id] = site.a_waiting_run(asking(arguments={"path": "/a", "content": LONG}, tier=tier))
    form = ana.form(page_of(request_id), "approve")

    assert f"required data-by-opening>{BOX}" in ana.get(page_of(request_id)).text
    refused = ana.send(form)
    assert (refused.status_code, "Tick the box" in refused.text) == (422, True)
    assert stored(site, request_id).state.value == "open"
    assert ana.send(form, read="whole").status_code == 303
    assert stored(site, request_id).state.value == "approved"


def test_who_denies_needs_to_open_nothing(site: Site) -> None:
    ana = Browser(site)
    ana.sign_in(site.ana)
    _, [request_id] = site.a_waiting_run(asking(arguments={"path": "/a", "content": LONG}))

    assert ana.send(ana.form(page_of(request_id), "deny")).status_code == 303
    assert stored(site, request_id).state.value == "denied"


def test_what_fits_asks_for_no_word(site: Site) -> None:
    ana = Browser(site)
    ana.sign_in(site.ana)
    _, [request_id] = site.a_waiting_run(asking(arguments={"path": "/a", "content": "x\n" * folds.LINES}))

    assert 'name="read"' not in ana.get(page_of(request_id)).text
    assert ana.send(ana.form(page_of(request_id), "approve")).status_code == 303


def test_a_mailed_link_asks_for_the_word_too_and_denies_without(site: Site) -> None:
    for verdict, read, status in (("approve", "", 422), ("approve", "whole", 303), ("deny", "", 303)):
        _, [request_id] = site.a_waiting_run(asking(arguments={"path": "/a", "content": LONG}, tier=Tier.LOW))
        browser = Browser(site)
        notice = notice_of(site, request_id)
        page = followed(browser, link_of(site, notice))

        answer = browser.send(form_in(page, verdict), code=mailed(site, notice)["code"], read=read)

        assert answer.status_code == status, answer.text
        assert f"required data-by-opening>{BOX}" in page
        assert 'value="deny" formnovalidate' in page


def test_what_an_edit_makes_long_is_read_before_it_is_approved(site: Site) -> None:
    ana = Browser(site)
    ana.sign_in(site.ana)
    _, [request_id] = site.a_waiting_run(asking(arguments={"path": "/a", "content": "x\n"}, tier=Tier.LOW))
    edited = json.dumps({"path": "/a", "content": LONG})

    fields = ana.form(f"{page_of(request_id)}/edit?as=json").fields
    page = ana.send(Form(f"{page_of(request_id)}/edit", fields), arguments=edited).text

    assert BOX in page
    assert ana.send(form_in(page, "approve")).status_code == 422
    assert ana.send(form_in(page, "approve"), read="whole").status_code == 303


def followed(browser: Browser, address: str) -> str:
    """The page at the end of a link."""
    answer = browser.get(address)
    while answer.status_code in (302, 303):
        answer = browser.get(answer.headers["location"])
    return answer.text
