"""What is over goes whole after a while, or loses its content at once; the audit log stays, and everybody is told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import psycopg
import pytest

from banksman import ids, ledger, vault
from banksman.errors import Conflict
from banksman.ids import RequestId, RunId
from banksman.ledger import Connection, batches, erasure, executions, families, requests, retention, runs, snapshots
from banksman.records import Delegation, NewRun, Snapshot
from banksman.states import Tier
from tests.conftest import Database
from tests.gateway.browser import Browser
from tests.gateway.scenes import LEASE, Site, asking, bound, sha256
from tests.gateway.test_batches import a_batch
from tests.gateway.test_grants import give
from tests.sealing.logs import seal, verify

CANARY = "canary-5c1d"
SOON = timedelta(minutes=1)


@pytest.fixture
def keeper(database: Database) -> Iterator[Connection]:
    """The keeper, in one transaction after the other."""
    with psycopg.connect(database.keeper, autocommit=True) as conn:
        yield conn


def ended(site: Site, *, grant: bool = False) -> tuple[RunId, RequestId]:
    """A finished run of which everything is kept that can be: the canary stands in every part of it."""
    key = site.key("runs:submit", "runs:submit-as") | {"Idempotency-Key": f"k-{ids.new().hex}"}
    body = {"agent": "plain", "prompt": f"Do {CANARY}.", "metadata": {"a": CANARY}, "tags": [CANARY]}
    submitted = site.client.post("/v1/runs", json=body, headers=key)
    assert submitted.status_code == 201, submitted.text
    run_id = RunId(ids.read("run", submitted.json()["id"]))
    file = f"{CANARY} in a file".encode()
    state = json.dumps({"workspace": {"/a.txt": sha256(file)}, "todos": [CANARY]}).encode()
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, run_id, 0, owner="w", lease=LEASE)
        assert claim is not None
        snapshots.keep_blobs(conn, run_id, {sha256(file): file})
        talk = json.dumps([{"text": CANARY}]).encode()
        assert snapshots.save(conn, run_id, claim.fence, Snapshot(0, 0, 0, talk, state))
        asked = asking(arguments={"path": "/a.txt", "content": CANARY}, tier=Tier.LOW)
        new = replace(bound(asked, run_id, [(ids.NoticeId(ids.new()), site.ana.id)]), context=CANARY_CONTEXT)
        requests.open_request(conn, run_id, 0, new)
        assert runs.park(conn, run_id, claim.fence, version="1", usage={})
    path = f"/v1/requests/{ids.show('req', new.id)}/remarks"
    said = site.client.post(path, json={"text": f"Why {CANARY}?"}, headers=site.token(site.ana))
    assert said.status_code == 200, said.text
    voted = site.vote(new.id, site.token(site.ana), reason=f"Because {CANARY}")
    assert voted.status_code == 200, voted.text
    if grant:
        assert give(site, new.id, site.ana).status_code == 200
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, run_id, 1, owner="w", lease=LEASE)
        assert claim is not None
        assert executions.start(conn, run_id, claim.fence, step=1, call_id="c1", attempt=1, tool="write_file",
                                digest=new.digest, request_id=new.id, voters={}, start_by=None)  # fmt: skip
        result = f'"{CANARY}"'.encode()
        assert executions.finish(
            conn, run_id, claim.fence, step=1, call_id="c1", attempt=1, outcome="returned", result=result
        )
        assert runs.finish(conn, run_id, claim.fence, output=CANARY, version="1", usage={})
    return run_id, new.id


CANARY_CONTEXT = json.dumps({"said": CANARY, "files": {}}).encode()


def where(database: Database, *texts: str) -> Counter[str]:
    """In how many rows of which table one of these stands, as text or as bytes, the audit log left out."""
    found: Counter[str] = Counter()
    with psycopg.connect(database.owner) as conn:
        tables = [row[0] for row in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        for table in set(tables) - {"audit_events", "audit_leaves", "audit_nodes", "audit_heads"}:
            for (row,) in conn.execute(f"SELECT t::text FROM {table} AS t".encode()):
                found[table] += any(text in row or text.encode().hex() in row for text in texts)
    return +found


def purge(conn: Connection, before: datetime, *, limit: int = 10) -> int:
    """All steps; how many runs went."""
    after: retention.Place | None = retention.START
    count = 0
    while after is not None:
        with conn.transaction():
            gone = retention.step(conn, after, before, limit=limit)
        count, after = count + gone.runs, gone.after
    return count


def get(site: Site, path: str) -> tuple[int, str]:
    answer = site.client.get(path, headers=site.key("runs:read", "requests:read"))
    return answer.status_code, answer.text


def test_what_ended_long_ago_goes_whole_and_the_audit_log_verifies(
    site: Site, database: Database, keeper: Connection, sealer_pool: ledger.Pool
) -> None:
    run_id, request_id = ended(site)
    batch, [member] = a_batch(site, 1)
    site.finish(member)
    before = ledger.now(keeper)
    late, _ = ended(site)
    waiting, _ = site.a_waiting_run()
    seal(sealer_pool)

    count = purge(keeper, before, limit=1)

    seal(sealer_pool)
    shown_run, shown_request = ids.show("run", run_id), ids.show("req", request_id)
    assert count == 2
    assert where(database, str(run_id), str(request_id), str(member), str(batch)) == Counter()
    assert [get(site, f"/v1/runs/{ids.show('run', one)}")[0] for one in (late, waiting)] == [200, 200]
    assert verify(sealer_pool).findings == []
    for path in (f"/v1/runs/{shown_run}", f"/v1/requests/{shown_request}", f"/v1/batches/{ids.show('bat', batch)}"):
        status, text = get(site, path)
        assert (status, "It was purged on " in text) == (410, True)
    assert get(site, f"/v1/runs/{ids.show('run', RunId(ids.new()))}")[0] == 404
    browser = Browser(site)
    browser.sign_in(site.ana)
    pages = [browser.get(path) for path in (f"/runs/{shown_run}", f"/requests/{shown_request}")]
    assert [(page.status_code, "It was purged on" in page.text) for page in pages] == [(410, True)] * 2
    assert purge(keeper, before) == 0


def test_a_family_goes_together_once_all_of_it_is_over(site: Site, database: Database, keeper: Connection) -> None:
    parent = site.a_run()
    child = RunId(ids.new())
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, parent, 0, owner="w", lease=LEASE)
        assert claim is not None
        families.send_out(conn, parent, 0, Delegation(child, "plain", "Do it.", 1, "c9"), hint=LEASE)
        assert runs.finish(conn, parent, claim.fence, output=None, version="1", usage={})
    soon = ledger.now(keeper) + SOON

    early = purge(keeper, soon)
    site.finish(child)
    late = purge(keeper, soon)

    assert (early, late) == (0, 2)
    assert where(database, str(parent), str(child)) == Counter()


def test_what_gave_a_grant_that_stands_stays(site: Site, keeper: Connection) -> None:
    run_id, request_id = ended(site, grant=True)

    count = purge(keeper, ledger.now(keeper) + SOON)

    assert count == 0
    assert get(site, f"/v1/requests/{ids.show('req', request_id)}")[0] == 200
    with pytest.raises(Conflict, match="standing grant"), keeper.transaction():
        erasure.erase(keeper, run_id)


def test_while_rows_go_others_submit_vote_and_claim_and_what_somebody_holds_stays(
    site: Site, keeper: Connection
) -> None:
    going, _ = ended(site)
    held, _ = ended(site)
    _, [open_request] = site.a_waiting_run()
    soon = ledger.now(keeper) + SOON

    with ledger.transaction(site.gateway) as other:
        runs.lock(other, held)
        with keeper.transaction():
            first = retention.step(keeper, retention.START, soon, limit=10)
            # Not committed: whoever waits for it would wait for good.
            with ledger.transaction(site.gateway) as conn:
                conn.execute("SET LOCAL lock_timeout = '5s'")
                run = runs.create(conn, NewRun(RunId(ids.new()), "plain", "x", "x@example.org"), hint=LEASE)
                requests.hold(conn, open_request)
            with ledger.transaction(site.worker) as conn:
                conn.execute("SET LOCAL lock_timeout = '5s'")
                claim = runs.claim(conn, run.id, 0, owner="w", lease=LEASE)
                assert claim is not None
                requests.open_request(conn, run.id, 0, bound(asking(), run.id, []))
    second = purge(keeper, soon)

    assert (first.runs, second) == (1, 1)
    assert [get(site, f"/v1/runs/{ids.show('run', one)}")[0] for one in (going, held)] == [410, 410]


def test_nobody_removes_a_row_of_a_run_that_is_not_over_not_even_the_keeper(
    site: Site, database: Database, keeper: Connection
) -> None:
    run_id, request_id = ended(site, grant=True)
    over = site.a_run()
    site.finish(over)
    with psycopg.connect(database.owner) as conn:
        conn.execute("UPDATE runs SET status = 'waiting', finished_at = NULL WHERE id = %s", (run_id,))
        conn.execute("INSERT INTO delegations VALUES (%s, %s, 0, 1, 'c9', 1)", (over, run_id))
        conn.execute("INSERT INTO lookings VALUES (%s, %s, now())", (request_id, site.ana.id))
        endpoint = conn.execute(
            """
            INSERT INTO endpoints (id, url, secret, events, created_by) VALUES (%s, '', '', '{*}', %s) RETURNING id
            """,
            (ids.new(), site.ana.id),
        ).fetchone()
        assert endpoint is not None
        for number, (run, request) in enumerate([(run_id, request_id), (run_id, None), (None, request_id)]):
            conn.execute(
                """
                INSERT INTO deliveries (id, endpoint_id, xid, number, event, run_id, request_id, happened_at)
                VALUES (%s, %s, '1', %s, 'x', %s, %s, now())
                """,
                (ids.new(), endpoint[0], number, run, request),
            )
    tables: Mapping[str, str] = {
        **dict.fromkeys(("snapshots", "blobs", "executions", "requests"), "run_id"),
        **dict.fromkeys(("revisions", "votes", "decisions", "remarks", "grants", "notices", "lookings"), "request_id"),
        "runs": "id",
        "delegations": "parent_id",
    }
    writes = ["DELETE FROM deliveries WHERE run_id = %s AND request_id IS NULL"]
    writes += ["DELETE FROM deliveries WHERE run_id IS NULL AND request_id = %s"]
    writes += [f"DELETE FROM {table} WHERE {column} = %s" for table, column in tables.items()]
    writes += [
        "UPDATE runs SET output = NULL WHERE id = %s",
        "UPDATE executions SET result = NULL WHERE run_id = %s",
        "UPDATE requests SET context = '' WHERE run_id = %s",
    ]

    for write in writes:
        value = request_id if "request_id = " in write else run_id
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"not over|never changed"):
            keeper.execute(write.encode(), (value,))


def test_an_erased_run_keeps_ids_states_and_times_and_nothing_that_was_said_or_done(
    site: Site, database: Database, keeper: Connection, sealer_pool: ledger.Pool
) -> None:
    vault.use("")  # so that what stands there can be seen
    run_id, request_id = ended(site)
    seal(sealer_pool)
    before = where(database, CANARY)
    with keeper.transaction():
        family = erasure.erase(keeper, run_id, because="Their wish.")

    shown = ids.show("run", run_id)
    status, text = get(site, f"/v1/runs/{shown}")
    run = json.loads(text)
    kept = {"runs", "snapshots", "blobs", "requests", "revisions", "votes", "decisions", "executions", "remarks"}
    kept |= {"answers"}
    assert set(before) == kept
    assert where(database, CANARY) == Counter()
    with psycopg.connect(database.owner) as conn:
        logged = [row[0] for row in conn.execute("SELECT body::text FROM audit_events")]
    assert not [body for body in logged if CANARY in body]
    assert (family, status, run["status"], run["output"]) == ([run_id], 200, "finished", None)
    assert run["erased_at"] is not None
    assert "was erased on" in run["error"]
    paths = [f"/v1/runs/{shown}/messages", f"/v1/runs/{shown}/files", f"/v1/runs/{shown}/files/a.txt"]
    paths += [f"/v1/requests/{ids.show('req', request_id)}"]
    for path in paths:
        status, text = get(site, path)
        assert (status, "erased on" in text) == (410, True), path
    assert get(site, f"/v1/runs/{shown}/timeline")[0] == 200
    assert json.loads(get(site, f"/v1/requests?run_id={shown}")[1])["items"] == []
    browser = Browser(site)
    browser.sign_in(site.ana)
    page = browser.get(f"/runs/{shown}")
    assert (page.status_code, "was erased on" in page.text, CANARY in page.text) == (200, True, False)
    assert [browser.get(path).status_code for path in ("/runs", "/?queue=done", "/grants")] == [200] * 3
    seal(sealer_pool)
    assert verify(sealer_pool).findings == []


def test_messages_about_no_request_go_once_they_are_over(site: Site, database: Database, keeper: Connection) -> None:
    with psycopg.connect(database.owner) as conn:
        for state in ("sent", "due"):
            conn.execute(
                """
                INSERT INTO notices (id, kind, person_id, state, due_at, expires_at)
                VALUES (%s, 'test', %s, %s, CASE %s WHEN 'due' THEN now() END, now())
                """,
                (ids.new(), site.ana.id, state, state),
            )

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        keeper.execute("DELETE FROM notices WHERE request_id IS NULL AND state = 'due'")

    assert retention.remove_messages(keeper, ledger.now(keeper), limit=10) == 1


def test_an_erased_run_leaves_no_answer_that_names_only_what_was_granted_in_it(
    site: Site, database: Database, keeper: Connection
) -> None:
    vault.use("")  # so that what stands there can be seen
    run_id, request_id = ended(site)
    body = {"request_id": ids.show("req", request_id), "most": 5}
    headers = site.token(site.ana)
    made = site.client.post("/v1/grants", json=body, headers=headers | {"Idempotency-Key": "a"})
    assert made.status_code == 200, made.text
    revoke = f"/v1/grants/{made.json()['id']}/revoke"
    assert site.client.post(revoke, headers=headers).status_code == 200
    assert CANARY in made.text
    assert ids.show("run", run_id) not in made.text

    with keeper.transaction():
        erasure.erase(keeper, run_id)

    assert where(database, CANARY) == Counter()


def test_what_is_not_over_or_was_delegated_is_not_erased_and_what_was_erased_is_not_tried_again(
    site: Site, database: Database, keeper: Connection
) -> None:
    waiting, _ = site.a_waiting_run()
    batch, [member] = a_batch(site, 1)
    child = RunId(ids.new())
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, member, 0, owner="w", lease=LEASE)
        assert claim is not None
        families.send_out(conn, member, 0, Delegation(child, "nobody", "Do it.", 1, "c9"), hint=LEASE)
        assert runs.fail(conn, member, claim.fence, error="It broke.")

    for run_id, why in ((waiting, "Only what is over"), (child, "Another run delegated this one")):
        with pytest.raises(Conflict, match=why), keeper.transaction():
            erasure.erase(keeper, run_id)
    with keeper.transaction():
        assert erasure.erase(keeper, member) == [member, child]
    with ledger.transaction(site.gateway) as conn:
        assert batches.retry(conn, batch, "per_x") == 0
