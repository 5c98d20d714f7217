"""The page of a run: each request's way, the conversation, the files, the tree below it, what it used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from banksman import ids, ledger
from banksman.digest import Json
from banksman.ids import RunId
from banksman.ledger import executions, families, requests, runs, snapshots
from banksman.records import Delegation, Snapshot
from banksman_gateway import transcript
from tests.gateway.browser import Browser, Words, page_of
from tests.gateway.scenes import LEASE, Site, asking, sha256

HOSTILE = "</pre></details><script>alert(1)</script>{{7*7}}\u202egnp.exe\x1b[2J"


def test_the_conversation_tells_whose_words_are_whose_and_interprets_none(site: Site, ana: Browser) -> None:
    talk = [asked(HOSTILE), said(text=HOSTILE, call={"command": HOSTILE}), returned(HOSTILE), {"new": HOSTILE}]
    run_id = a_run_with(site, [({}, talk)])

    page = ana.get(address(run_id)).text

    words = Words(page)
    for voice in ("Asked", "The agent says", "The agent calls execute", "The tool returned execute"):
        assert voice in " ".join(words.text.split())
    assert "Something else (message)" in words.text
    assert "{{7*7}}" in words.text
    assert "script" not in words.tags
    assert not {"\u202e", "\x1b"} & set(page)
    assert words.text.count("⟦U+202E⟧") == 5


def test_a_long_conversation_folds_with_its_count_and_leaves_nothing_out(site: Site, ana: Browser) -> None:
    talk = [said(text=f"thought {number}") for number in range(30)]
    long = "\n".join(f"line {number}" for number in range(500))
    run_id = a_run_with(site, [({}, [*talk, returned(long)])])

    text = text_of(ana, run_id)

    assert "The conversation (31 messages)" in text
    assert "19 messages in between are folded" in text
    assert f"(500 lines, {len(long):,} characters)" in text
    for words in (*(f"thought {number}" for number in range(30)), "line 0", "line 250", "line 499"):
        assert words in text


def test_what_is_too_much_for_a_page_is_counted() -> None:
    talk: list[Json] = [said(text="x" * 100) for _ in range(10)]

    found = transcript.read(talk, most=450)

    assert (len(found.head), found.missing, found.count) == (4, 6, 10)


def test_files_say_what_became_of_them_and_what_changed(site: Site, ana: Browser) -> None:
    given = {"/kept.txt": b"same\n", "/old.txt": b"one\ntwo\n", "/gone.txt": b"bye\n"}
    after = {"/kept.txt": b"same\n", "/old.txt": b"one\n2\n", "/new.txt": b"fresh\n", "/raw": b"\xff"}
    run_id = a_run_with(site, [(given, []), (after, [])])

    text = text_of(ana, run_id)

    assert "/kept.txt (5 bytes, as it was given)" in text
    assert "/old.txt (6 bytes, changed by the run, 2 versions)" in text
    assert "1 line removed, 1 line added, 2 kept" in text
    assert "/gone.txt (4 bytes, removed by the run)" in text
    assert "/new.txt (6 bytes, made by the run)" in text
    assert "GET /v1/runs/" in text


def test_a_request_is_told_from_asking_to_returning(site: Site, ana: Browser) -> None:
    run_id, [request_id] = site.a_waiting_run(asking())
    ana.send(ana.form(page_of(request_id), "approve"))
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, run_id, 1, owner="w", lease=LEASE)
        assert claim is not None
        approved: dict[str, Any] = {"voters": {site.ana.id: "reviewer"}, "start_by": None, "request_id": request_id}
        approved |= {"tool": "write_file", "digest": requests.get(conn, request_id).digest}
        call: dict[str, Any] = {"step": 1, "call_id": "c1", "attempt": 1}
        assert executions.start(conn, run_id, claim.fence, **call, **approved)
        assert executions.finish(conn, run_id, claim.fence, **call, outcome="returned", result=b'"Wrote 6 bytes"')

    text = text_of(ana, run_id)

    assert "asked 20" in text
    assert "approved by ana@example.org 20" in text
    assert "started 20" in text
    assert text.count('"Wrote 6 bytes"') == 2  # in its request's way, and in the timeline
    assert "1 line about messages to reviewers" in text


def test_delegated_runs_stand_as_a_tree_with_their_states(site: Site, ana: Browser) -> None:
    run_id = site.a_run()
    child = delegated(site, run_id, "c1")
    below = delegated(site, child, "c2")
    other = delegated(site, run_id, "c3")

    page = ana.get(address(run_id)).text

    at = [page.index(address(one)) for one in (child, below, other)]
    assert at == sorted(at)
    assert '<ul class="list below">' in page[at[0] : at[1]]
    assert "</ul>" in page[at[1] : at[2]]
    assert page.count(address(below)) == 1


def test_usage_is_told_in_words_and_its_price_where_it_is_known(site: Site, ana: Browser) -> None:
    plain, priced = site.a_run(), site.a_run()
    used: dict[str, Json] = {"requests": 2, "input_tokens": 12345, "output_tokens": 67, "tool_calls": 1}
    for run_id, usage in ((plain, used), (priced, {**used, "cost": "0.0123", "unmeasured_requests": 1})):
        with ledger.transaction(site.worker) as conn:
            claim = runs.claim(conn, run_id, 0, owner="w", lease=LEASE)
            assert claim is not None
            assert runs.finish(conn, run_id, claim.fence, output="done", version="1", usage=usage)

    one, other = text_of(ana, plain), text_of(ana, priced)

    assert "12,345" in one
    assert "not known: the agent library has no price for its model" in one
    assert "at least 0.0123 USD" in other


def a_run_with(site: Site, stages: Sequence[tuple[Mapping[str, bytes], Sequence[Json]]]) -> RunId:
    """A run under way whose snapshots hold these files, and add these messages."""
    run_id = site.a_run()
    length = 0
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, run_id, 0, owner="w", lease=LEASE)
        assert claim is not None
        for seq, (files, messages) in enumerate(stages):
            snapshots.keep_blobs(conn, run_id, {sha256(body): body for body in files.values()})
            state = {"workspace": {path: sha256(body) for path, body in files.items()}, "usage": {}}
            new = Snapshot(seq, 0, length, json.dumps(list(messages)).encode(), json.dumps(state).encode())
            assert snapshots.save(conn, run_id, claim.fence, new)
            length += len(messages)
    return run_id


def delegated(site: Site, parent: RunId, call_id: str) -> RunId:
    task = Delegation(RunId(ids.new()), "plain", "Look it up.", 1, call_id)
    with ledger.transaction(site.worker) as conn:
        families.send_out(conn, parent, 0, task, hint=LEASE)
    return task.child_id


def asked(words: str) -> Json:
    return {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": words}]}


def said(*, text: str, call: Mapping[str, Json] | None = None) -> Json:
    parts: list[Any] = [{"part_kind": "text", "content": text}]
    if call is not None:
        parts.append({"part_kind": "tool-call", "tool_name": "execute", "args": json.dumps(call)})
    return {"kind": "response", "parts": parts, "model_name": "scripted", "timestamp": "2026-11-22T12:00:00Z"}


def returned(words: str) -> Json:
    part = {"part_kind": "tool-return", "tool_name": "execute", "content": words, "outcome": "success"}
    return {"kind": "request", "parts": [part]}


def address(run_id: RunId) -> str:
    return f"/runs/{ids.show('run', run_id)}"


def text_of(browser: Browser, run_id: RunId) -> str:
    page = browser.get(address(run_id))
    assert page.status_code == 200, page.text
    return " ".join(Words(page.text).text.split())
