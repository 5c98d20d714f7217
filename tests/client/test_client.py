"""Both clients say the same, bind votes to what was seen, and turn problems into errors."""

from __future__ import annotations

import math
import socket
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import banksman
from banksman import api, ids, ledger, shapes
from banksman.client import Client
from banksman.errors import (
    AlreadyDecided,
    AlreadyVoted,
    BanksmanError,
    Changed,
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    NotSignedIn,
    Unavailable,
)
from banksman.ids import RequestId, RunId
from banksman.ledger import runs
from banksman.states import Kind
from banksman.stream import Event, EventReader
from tests.client.conftest import Connect
from tests.gateway.scenes import Site, asking
from tests.gateway.test_batches import a_batch, parked


def req(request_id: RequestId) -> str:
    return ids.show("req", request_id)


def run_id(found: RunId) -> str:
    return ids.show("run", found)


def test_a_run_is_submitted_and_read(site: Site, connect: Connect) -> None:
    client = connect(site.key("runs:submit", "runs:read"))

    run = client.submit("plain", "Do it.", metadata={"n": 1}, tags=["nightly"], priority=7)

    again = client.run(run.id)
    assert again == run
    assert (run.status, run.agent, run.prompt, run.metadata) == ("queued", "plain", "Do it.", {"n": 1})
    assert [found.id for found in client.runs(agent="plain")] == [run.id]


def test_the_same_key_submits_once(site: Site, connect: Connect) -> None:
    client = connect(site.key("runs:submit", "runs:read"))

    ids_ = {client.submit("plain", "Do it.", idempotency_key="order-1").id for _ in range(3)}

    assert len(ids_) == 1
    assert len(client.runs()) == 1


def test_a_list_is_read_page_by_page(site: Site, connect: Connect) -> None:
    client = connect(site.key("runs:submit", "runs:read"))
    made = [client.submit("plain", "Do it.").id for _ in range(3)]

    first = client.runs(limit=2)
    second = client.runs(limit=2, cursor=first.next_cursor)

    assert [run.id for run in (*first, *second)] == made[::-1]
    assert second.next_cursor is None


def test_a_vote_is_bound_to_what_was_seen(site: Site, connect: Connect) -> None:
    _, (asked,) = site.a_waiting_run(asking(approvals=2))
    ana, ben = connect(site.token(site.ana)), connect(site.token(site.ben))
    seen = ana.request(req(asked))
    ben.approve(seen, arguments={"content": "changed\n"})

    with pytest.raises(Changed) as caught:
        ana.approve(seen)

    assert caught.value.current["revision"] == 2
    assert ana.request(req(asked)).revision == 2


def test_a_bare_id_votes_on_what_is_asked_now(site: Site, connect: Connect) -> None:
    _, (asked,) = site.a_waiting_run()
    ana = connect(site.token(site.ana))

    settled = ana.deny(req(asked), reason="Not today.")

    assert settled.state == "denied"
    assert [(vote.verdict, vote.reason) for vote in settled.votes] == [("deny", "Not today.")]
    assert settled.decision is not None


def test_a_question_is_answered(site: Site, connect: Connect) -> None:
    _, (asked,) = site.a_waiting_run(asking(kind=Kind.QUESTION, tool="ask_person"))

    settled = connect(site.token(site.ana)).answer(req(asked), {"order": "A-1"})

    assert settled.state == "answered"


def test_the_second_to_decide_is_told_who_was_first(site: Site, connect: Connect) -> None:
    _, (asked,) = site.a_waiting_run()
    ana, ben = connect(site.token(site.ana)), connect(site.token(site.ben))
    ana.approve(req(asked))

    with pytest.raises(AlreadyDecided) as caught:
        ben.deny(req(asked))

    assert caught.value.current


def test_one_person_votes_once(site: Site, connect: Connect) -> None:
    _, (asked,) = site.a_waiting_run(asking(approvals=2))
    ana = connect(site.token(site.ana))
    ana.approve(req(asked))

    with pytest.raises(AlreadyVoted):
        ana.approve(req(asked))


def test_waiting_ends_with_the_run(site: Site, connect: Connect) -> None:
    waiting, (asked,) = site.a_waiting_run()
    ana = connect(site.token(site.ana))
    assert ana.wait(run_id(waiting), until=["waiting"], timeout=5).status == "waiting"
    ana.approve(req(asked))
    threading.Timer(0.2, site.finish, [waiting]).start()

    run = ana.wait(run_id(waiting), timeout=10)

    assert (run.status, run.output) == ("finished", "done")


def test_waiting_gives_up_in_time(site: Site, connect: Connect) -> None:
    waiting, _ = site.a_waiting_run()

    with pytest.raises(TimeoutError, match="waiting"):
        connect(site.token(site.ana)).wait(run_id(waiting), timeout=0.2)


def test_events_are_followed_to_the_end_and_from_any_place(site: Site, connect: Connect) -> None:
    waiting, (asked,) = site.a_waiting_run()
    ana = connect(site.token(site.ana))
    ana.approve(req(asked))
    threading.Timer(0.3, site.finish, [waiting]).start()

    events = list(ana.events(run_id(waiting)))
    later = list(ana.events(run_id(waiting), after=events[0].id))

    assert [event.name for event in events] == ["run.submitted", "request.approved"]
    assert [event.id for event in later] == [event.id for event in events[1:]]


def test_a_batch_is_followed_to_the_end_of_its_last_run_and_from_any_place(site: Site, connect: Connect) -> None:
    batch_id, [first, second] = a_batch(site, 2)
    site.a_waiting_run()  # of which nothing is told here
    ana = connect(site.token(site.ana))
    shown = ids.show("bat", batch_id)
    approved = parked(site, first)
    ana.approve(req(approved))

    def end() -> None:
        with ledger.transaction(site.worker) as conn:
            claim = runs.claim(conn, first, 1, owner="w", lease=timedelta(minutes=1))
            assert claim is not None
            assert runs.finish(conn, first, claim.fence, output="done", version="1", usage={})
        ana.cancel(run_id(second))

    threading.Timer(0.3, end).start()

    events = list(ana.batch_events(shown))
    later = list(ana.batch_events(shown, after=events[2].id))
    none = list(ana.batch_events(shown, after=events[-1].id))

    assert [(event.name, event.data["run_id"]) for event in events] == [
        ("run.submitted", run_id(first)),
        ("run.submitted", run_id(second)),
        ("batch.submitted", None),
        ("request.approved", run_id(first)),
        ("run.cancelled", run_id(second)),
    ]
    assert [event.id for event in later] == [event.id for event in events[3:]]
    assert none == []


def test_files_messages_and_the_timeline_are_read(site: Site, connect: Connect) -> None:
    found = run_id(site.a_run_with_files({"/a b.txt": b"\x00\xff", "/c.txt": b"c"}))
    ana = connect(site.token(site.ana))

    assert [(file.path, file.size) for file in ana.files(found)] == [("/a b.txt", 2), ("/c.txt", 1)]
    assert ana.file(found, "/a b.txt") == b"\x00\xff"
    assert ana.messages(found) == [{"n": 1}, {"n": 22}, {"n": 3}]
    assert "run.submitted" in [moment.what for moment in ana.timeline(found)]


def test_a_run_is_cancelled_and_a_stuck_one_tried_again(site: Site, connect: Connect) -> None:
    ana = connect(site.token(site.ana))
    waiting, _ = site.a_waiting_run()
    stuck = run_id(site.a_stuck_run())

    assert ana.cancel(run_id(waiting)).status == "cancelled"
    assert ana.wait(stuck, timeout=1).status == "stuck"
    assert ana.retry(stuck).status == "queued"


def test_problems_become_errors(site: Site, connect: Connect) -> None:
    nobody = "run_" + "0" * 32
    reader, ana = connect(site.key("runs:read")), connect(site.token(site.ana))
    finished, (asked,) = site.a_waiting_run()
    ana.approve(req(asked))
    site.finish(finished)

    with pytest.raises(NotFound, match=nobody):
        reader.run(nobody)
    with pytest.raises(NotAllowed, match="runs:submit"):
        reader.submit("plain", "Do it.")
    with pytest.raises(InvalidInput, match="no agent 'nope'"):
        ana.submit("nope", "Do it.")
    with pytest.raises(Conflict):
        ana.cancel(run_id(finished))
    with pytest.raises(NotSignedIn):
        connect({"Authorization": "Bearer wrong"}).runs()
    with pytest.raises(InvalidInput, match="is not an id"):
        ana.run("../secrets")


def test_a_gateway_that_is_away_is_said_so(connect: Connect) -> None:
    with Client("http://127.0.0.1:1", "token") as client, pytest.raises(Unavailable, match="cannot be reached"):
        client.runs()


@pytest.mark.parametrize(("prompt", "metadata"), [("\ud800", {}), ("x", {"a": math.nan}), ("x", {"a": math.inf})])
def test_what_json_does_not_have_is_refused_before_it_is_sent(
    prompt: str, metadata: dict[str, float], connect: Connect, site: Site
) -> None:
    client = connect(site.key("runs:submit"))

    with pytest.raises(InvalidInput, match="holds a value that JSON does not have"):
        client.submit("plain", prompt, metadata=metadata)


@pytest.mark.parametrize("url", ["", "localhost:8420", "ftp://x", "http://", "http://x:99999", "http://x\x00y"])
def test_what_is_not_an_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="address"):
        Client(url, "token")


@pytest.mark.parametrize("token", ["a b", "a\nb", "ü"])
def test_what_is_not_a_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput, match="token"):
        Client("http://localhost", token)


def test_answers_may_have_fields_that_nobody_knows_yet() -> None:
    run = shapes.Run.model_validate(
        {"id": "run_1", "agent": "a", "status": "dreaming", "created_at": "2026-11-22T00:00:00Z", "new": 1}
    )

    assert run.status == "dreaming"
    assert not run.over


def test_a_lost_answer_is_asked_for_again_under_the_same_key() -> None:
    keys: list[str] = []

    class Dropping(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            keys.append(self.headers["Idempotency-Key"])
            self.rfile.read(int(self.headers["Content-Length"]))
            if len(keys) < 3:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            body = b'{"id": "run_1", "agent": "a", "status": "queued", "created_at": "2026-11-22T00:00:00Z"}'
            self.send_response(201)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dropping)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        with Client(f"http://127.0.0.1:{server.server_port}", "token") as client:
            assert client.submit("a", "Do it.").id == "run_1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

    assert len(keys) == 3
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, b"<html>", BanksmanError),
        (502, b"", Unavailable),
        (503, b'{"detail": "later"}', Unavailable),
        (418, b"[]", InvalidInput),
        (409, b'{"type": "urn:banksman:problem:changed", "current": {"revision": 2}}', Changed),
        (409, b'{"type": "urn:banksman:problem:what-is-new"}', Conflict),
    ],
)
def test_every_answer_has_an_error(status: int, body: bytes, kind: type[BanksmanError]) -> None:
    assert type(api.problem(status, body)) is kind


def test_a_stream_is_put_together_line_by_line() -> None:
    reader = EventReader()
    lines = ["retry: 1000", "", ": still here", "", "id: 5-1", "event: run.parked", 'data: {"a":', "data: 1}", ""]

    events = [event for line in lines if (event := reader.feed(line)) is not None]

    assert events == [Event("5-1", "run.parked", {"a": 1})]
    assert reader.last == "5-1"


def test_an_event_that_broke_off_is_asked_for_again() -> None:
    reader = EventReader("5-1")
    for line in ("id: 6-1", "event: run.parked", "data: {"):
        reader.feed(line)

    reader.restart()

    assert reader.last == "5-1"
    assert reader.feed("") is None


def test_the_names_that_programs_use_come_from_the_package_itself() -> None:
    assert banksman.Client is Client
    assert "deep_agent" in dir(banksman)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = banksman.nothing_like_it
