"""Page, API, terminal and the hash kept with a vote show one and the same text, whatever stands in the arguments."""

from __future__ import annotations

import json
import re

import pytest

from banksman import digest, ids, ledger, render
from banksman.blocks import of_argument
from banksman.cli import show
from banksman.ledger import votes
from banksman.shapes import Request
from tests.gateway.browser import Browser, Words, must_show, page_of, stored
from tests.gateway.scenes import Site, asking
from tests.hostile import VALUES


def test_page_api_terminal_and_the_votes_hash_agree_on_hostile_values(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    ana = Browser(site)
    ana.sign_in(site.ana)
    _, [request_id] = site.a_waiting_run(asking(tool="send", arguments=VALUES))
    kept = stored(site, request_id)
    action, context = json.loads(kept.action), json.loads(kept.context)
    shown = render.of(action, context).text

    page = ana.get(page_of(request_id)).text
    answer = site.request(request_id)
    show.request(Request.model_validate(answer))
    printed = capsys.readouterr().out
    assert ana.send(ana.form(page_of(request_id), "approve"), read="whole").status_code == 303

    assert answer["rendered"] == shown
    assert shown.rstrip("\n") in printed
    assert re.fullmatch(r"[\n -~×]*", re.sub(r"⟦U\+[0-9A-F]{4,6}⟧", "", _without_readings(printed)))
    with ledger.transaction(site.gateway) as conn:
        [vote] = votes.of_request(conn, request_id)
    assert vote.render_hash == render.of(action, context).hash
    must_show(page, render.of(action, context).blocks)
    tags = Words(page).tags
    assert (tags.count("script"), tags.count("img")) == (1, 1)  # the page's own, and the brand's icon
    assert digest.of_action(action) == kept.digest
    assert ids.show("req", request_id) == answer["id"]


def test_a_list_of_like_objects_is_a_table_with_every_row() -> None:
    block = of_argument("payments", [{"to": f"p{n}", "sum": n, "note": None} for n in range(300)])

    assert (block.form, block.summary) == ("table", "300 rows, 3 columns")
    assert [line.text for line in block.lines[:2]] == ["note | sum | to", 'null | 0   | "p0"']
    assert len(block.lines) == 301


@pytest.mark.parametrize(
    "value",
    [[{"a": 1}], [{"a": 1}, {"b": 1}], [{"a": 1}, 2], [{"a": 1}, {"a": []}], [{"a": "x" * 61}, {"a": ""}], [{}, {}]],
)
def test_what_is_no_table_is_shown_as_json(value: object) -> None:
    assert of_argument("it", value).form == "json"


def _without_readings(printed: str) -> str:
    return "\n".join(line for line in printed.split("\n") if not line.startswith("      > "))
