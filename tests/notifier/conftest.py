"""A real mail server that keeps what it gets, a gateway's internal door, and notices made by real moves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import UUID

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from banksman import digest, ids, ledger
from banksman.embedded import ports
from banksman.ids import NoticeId, RequestId, RunId
from banksman.ledger import notices, requests, runs
from banksman.links import LinkKeys
from banksman.records import NewRequest, NewRun, Person, Requirement
from banksman.states import Kind, Tier
from banksman.wire import Wire
from banksman_gateway import binding
from banksman_notifier import gathering
from banksman_notifier.channels import email
from banksman_notifier.deliver import Office
from banksman_notifier.gateway import Gateway

HOME = "http://localhost:8420"
TOKEN = "the-notifiers-own-token"
SENDER = email.Sender("Banksman", "banksman@example.org")


@dataclass(slots=True)
class Catcher:
    """Keeps each message; answers what a test wants answered to recipients and to data."""

    port: int = 0
    raw: list[bytes] = field(default_factory=list[bytes])
    recipients: list[list[str]] = field(default_factory=list[list[str]])
    connections: int = 0
    on_recipient: str = "250 OK"
    on_data: str = "250 OK"

    @property
    def mails(self) -> Sequence[EmailMessage]:
        return [message_from_bytes(raw, policy=default) for raw in self.raw]

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.connections += 1
        return responses

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if self.on_recipient.startswith("2"):
            envelope.rcpt_tos.append(address)
        return self.on_recipient

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        if self.on_data.startswith("2"):
            self.raw.append(envelope.original_content or b"")
            self.recipients.append(list(envelope.rcpt_tos))
        return self.on_data


@pytest.fixture
def catcher() -> Iterator[Catcher]:
    kept = Catcher(ports.free())
    server = Controller(kept, hostname=ports.LOOPBACK, port=kept.port)
    server.start()
    yield kept
    server.stop()


@dataclass(slots=True)
class Door:
    """The gateway's internal door, minting with real keys for real rows; `status` and `refused` make it fail."""

    url: str = ""
    calls: int = 0
    asked: list[NoticeId] = field(default_factory=list[NoticeId])
    refused: set[NoticeId] = field(default_factory=set[NoticeId])
    status: int = 200


@pytest.fixture
def door(gateway_pool: ledger.Pool, link_key: str) -> Iterator[Door]:
    made, keys = Door(), LinkKeys.read(link_key)

    def mint(notice_id: NoticeId) -> dict[str, object]:
        made.asked.append(notice_id)
        shown: dict[str, object] = {"notice": ids.show("ntc", notice_id)}
        if notice_id in made.refused:
            return shown | {"reason": "This notice counts no more."}
        with ledger.transaction(gateway_pool) as conn:
            notice = notices.get(conn, notice_id)
        page = f"{HOME}/requests/{ids.show('req', notice.request_id)}" if notice.request_id else f"{HOME}/"
        if not binding.digits(notice.kind):
            return shown | {"url": page, "page": page, "code": ""}
        bound = binding.of(notice)
        place = f"l/{keys.token(notice.id, bound)}" if notice.request_id else "sign-in"
        code = keys.code(notice.id, bound, digits=binding.digits(notice.kind))
        return shown | {"url": f"{HOME}/{place}", "page": page, "code": code}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = made.status if self.headers["Authorization"] == f"Bearer {TOKEN}" else 401
            items: list[dict[str, object]] = []
            if status == 200:
                made.calls += 1
                items = [mint(NoticeId(UUID(name))) for name in body["notices"]]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"items": items, "home": HOME}).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    server = ThreadingHTTPServer((ports.LOOPBACK, 0), Handler)
    made.url = f"http://{ports.LOOPBACK}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def office(notifier_pool: ledger.Pool, wire: Wire, door: Door, catcher: Catcher) -> Iterator[Office]:
    gateway = Gateway(door.url, TOKEN)
    server = email.Server.read(f"smtp://127.0.0.1:{catcher.port}")
    yield Office(
        pool=notifier_pool,
        wire=wire,
        gateway=gateway,
        channels={"email": partial(email.opened, server, SENDER)},
        copies=[],
        max_attempts=3,
    )
    gateway.close()


@pytest.fixture
def gathering_office(office: Office) -> Office:
    """An office that gathers as the settings have it when nobody says anything."""
    return replace(office, sort=partial(gathering.sort, office, gathering.Windows()))


AskFor = Callable[..., Sequence[NoticeId]]


@pytest.fixture
def asked(gateway_pool: ledger.Pool, worker_pool: ledger.Pool, reviewers: tuple[Person, Person]) -> AskFor:
    """Opens one request of a fresh run and returns its notices, one for each of `tell`."""

    def ask(
        *,
        tell: Sequence[Person] = reviewers,
        tool: str = "write_file",
        tier: Tier = Tier.MEDIUM,
        kind: Kind = Kind.APPROVAL,
        expires_after: int = 3600,
        on_expiry: str = "deny",
        approvals: int = 1,
        agent: str = "sysadmin",
        requester: str = "key nightly",
        run: RunId | None = None,
        call: str = "call-1",
    ) -> Sequence[NoticeId]:
        run_id, told = run or RunId(ids.new()), [(NoticeId(ids.new()), person.id) for person in tell]
        if run is None:
            with ledger.transaction(gateway_pool) as conn:
                runs.create(conn, NewRun(run_id, agent, "Do it.", requester), hint=timedelta(seconds=-1))
        with ledger.transaction(worker_pool) as conn:
            claim = runs.claim(conn, run_id, 0, owner="w", lease=timedelta(minutes=1)) if run is None else None
            assert run is not None or claim is not None
            requests.open_request(
                conn,
                run_id,
                0,
                NewRequest(
                    id=RequestId(ids.new()),
                    step=1,
                    call_id=call,
                    kind=kind,
                    agent=agent,
                    tool=tool,
                    requirement=Requirement(
                        tier=tier,
                        approvals=approvals,
                        rule="flagged",
                        because="The agent's author wants it.",
                        expires_after=expires_after,
                        on_expiry=on_expiry,
                    ),
                    action=digest.canonical({"arguments": {"path": "/secret/canary"}}),
                    digest=b"\0" * 32,
                    schema=b"{}",
                    schema_hash=digest.of_schema({}),
                    shape=b"\0" * 8,
                    context=b"{}",
                    notify=told,
                ),
            )
            if claim is not None:
                runs.park(conn, run_id, claim.fence, version="1", usage={})
        return [notice for notice, _ in told]

    return ask
