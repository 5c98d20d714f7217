"""Every channel hands over what it was given, fails in one way, and takes its mail's head back from the bytes."""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banksman.embedded import ports
from banksman.errors import ConfigurationError
from banksman.ids import NoticeId, RequestId, RunId
from banksman.records import Matter, Requirement
from banksman.states import Kind
from banksman_notifier import compose
from banksman_notifier.channels import Channel, ChannelError, Message, Way, apprise, console, email, webhook
from banksman_notifier.gateway import Link
from tests.notifier.conftest import SENDER, Catcher
from tests.notifier.receivers import receiver, says
from tests.notifier.tls import Authority

MESSAGE = Message(
    notice_id=NoticeId(UUID("01927f7c0c0070008000000000000001")),
    to="ana@example.org",
    subject="write_file waits for your decision (medium)",
    text="It waits.\n.\nA dot alone ends nothing.\n",
    html="<p>It waits.</p>",
    brief="It waits.",
    written_at=datetime(2026, 11, 22, 12, 0, tzinfo=UTC),
)


@dataclass(frozen=True)
class Far:
    """A channel, and what is at its other end."""

    opened: Callable[[], AbstractContextManager[Way[Any]]]
    arrived: Callable[[], str]
    connections: Callable[[], int]
    message: Callable[[Message], Any] = lambda message: message


CHANNELS = ("console", "email", "email over TLS", "email over STARTTLS", "apprise", "webhook")


@pytest.fixture(params=CHANNELS)
def far(
    request: pytest.FixtureRequest, catcher: Catcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Far]:
    """Every channel, with the real thing at its other end."""
    name, out = request.param, io.StringIO()

    def mailed(server: email.Server, kept: Catcher) -> Far:
        opened = partial(email.opened, server, SENDER)
        return Far(opened, lambda: b"".join(kept.raw).decode(), lambda: kept.connections)

    if name == "console":
        yield Far(partial(console.opened, out), out.getvalue, lambda: 0)
    elif name == "email":
        yield mailed(email.Server("127.0.0.1", catcher.port, tls=False), catcher)
    elif name.startswith("email"):
        authority = Authority(tmp_path)
        monkeypatch.setattr(email, "_tls", lambda: authority.trust)
        with secure_catcher(authority, starttls=name.endswith("STARTTLS")) as (server, kept):
            yield mailed(server, kept)
    else:
        with receiver(says(204)) as there:
            outside = webhook.Outside(there.free)

            def arrived() -> str:
                return " ".join(posted.body.decode() for posted in there.posted)

            def connections() -> int:
                return len(there.posted)

            if name == "apprise":
                urls = [there.url.replace("http://", "json://")]
                yield Far(partial(apprise.opened, outside, urls), arrived, connections)
            else:

                def call(message: Message) -> webhook.Call:
                    return webhook.Call("dlv_1", there.url, ["whsec_c2VjcmV0"], message.brief.encode())

                yield Far(partial(webhook.opened, outside), arrived, connections, call)


def numbered(number: int) -> Message:
    return replace(MESSAGE, text=f"Number {number}.\n", brief=f"Number {number}.\nhttps://x.example/")


def test_a_channel_hands_over_a_handful_in_order(far: Far) -> None:
    with far.opened() as way:
        for number in range(3):
            way.send(far.message(numbered(number)))

    assert re.findall(r"Number (\d)", far.arrived()) == ["0", "1", "2"]


def test_a_channel_that_is_never_used_connects_to_nothing(far: Far) -> None:
    with far.opened():
        pass

    assert far.connections() == 0


def test_no_channel_hands_over_arguments_markup_or_more_than_it_was_given(far: Far) -> None:
    with far.opened() as way:
        way.send(far.message(numbered(7)))

    assert far.arrived().count("Number 7") == 1


def test_an_email_connection_serves_a_handful(catcher: Catcher) -> None:
    with email.opened(email.Server("127.0.0.1", catcher.port, tls=False), SENDER) as way:
        for number in range(3):
            way.send(numbered(number))

    assert (catcher.connections, len(catcher.raw)) == (1, 3)


@pytest.mark.parametrize("name", ["email", "apprise", "webhook"])
def test_what_is_not_there_at_the_moment_may_be_there_later(name: str) -> None:
    port = ports.free()
    outside = webhook.Outside(frozenset({("127.0.0.1", port)}))
    ways: dict[str, tuple[AbstractContextManager[Way[Any]], Any]] = {
        "email": (email.opened(email.Server("127.0.0.1", port, tls=False), SENDER), MESSAGE),
        "apprise": (apprise.opened(outside, [f"json://127.0.0.1:{port}/"]), MESSAGE),
        "webhook": (webhook.opened(outside), webhook.Call("d", f"http://127.0.0.1:{port}/", [], b"")),
    }
    opening, message = ways[name]

    with opening as way, pytest.raises(ChannelError) as caught:
        way.send(message)

    assert caught.value.retryable


@contextmanager
def secure_catcher(
    authority: Authority, *, starttls: bool, password: str = ""
) -> Generator[tuple[email.Server, Catcher]]:
    """A mail server that speaks TLS from the start or on demand, and nothing before it; it may want a password."""
    kept = Catcher(ports.free())
    context = authority.server("127.0.0.1", "localhost")

    def check(_server: object, _session: object, _envelope: object, _how: str, said: object) -> AuthResult:
        known = isinstance(said, LoginPassword) and (said.login, said.password) == (b"ana", password.encode())
        return AuthResult(success=known, handled=False)

    rules: dict[str, Any] = {"authenticator": check, "auth_required": True} if password else {}
    if starttls:
        server = Controller(
            kept, hostname=ports.LOOPBACK, port=kept.port, tls_context=context, require_starttls=True, **rules
        )
    else:
        server = Controller(
            kept, hostname=ports.LOOPBACK, port=kept.port, ssl_context=context, auth_require_tls=False, **rules
        )
    server.start()
    try:
        user = {"user": "ana", "password": password} if password else {}
        yield email.Server("127.0.0.1", kept.port, tls=not starttls, **user), kept
    finally:
        server.stop()


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
@pytest.mark.parametrize("starttls", [True, False])
def test_a_password_goes_through_tls_and_a_wrong_one_locks_nothing(
    starttls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setattr(email, "_tls", lambda: authority.trust)

    with secure_catcher(authority, starttls=starttls, password="s3cret") as (server, kept):
        with email.opened(server, SENDER) as way:
            way.send(MESSAGE)
        wrong = replace(server, password="wrong")
        with email.opened(wrong, SENDER) as way:
            for _ in range(3):
                with pytest.raises(ChannelError, match="535") as caught:
                    way.send(MESSAGE)
                assert caught.value.retryable
                assert "wrong" not in str(caught.value)

    assert len(kept.raw) == 1
    assert kept.connections <= 4


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
@pytest.mark.parametrize("starttls", [True, False])
def test_a_mail_server_that_nobody_vouches_for_is_handed_nothing(starttls: bool, tmp_path: Path) -> None:
    with (
        secure_catcher(Authority(tmp_path), starttls=starttls, password="s3cret") as (server, kept),
        email.opened(server, SENDER) as way,
        pytest.raises(ChannelError, match="certificate"),
    ):
        way.send(MESSAGE)

    assert kept.raw == []


def test_a_mail_that_goes_on_with_a_conversation_names_its_first_mail() -> None:
    first = NoticeId(UUID("01927f7c0c0070008000000000000009"))

    raw = email.wire_form(replace(MESSAGE, thread=first), SENDER)

    for name in (b"In-Reply-To", b"References"):
        assert b"\r\n" + name + b": <" + first.hex.encode() + b"@example.org>\r\n" in raw


@pytest.mark.parametrize(
    ("url", "words", "for_good"),
    [
        # What the guard refuses, whatever the service: inside addresses, other ports, odd spellings.
        ("json://127.0.0.1/", "port 80", False),
        ("jsons://127.0.0.1/", "no public address", False),
        ("jsons://127.0.0.1:6379/", "port 6379", False),
        ("jsons://169.254.169.254/latest", "no public address", False),
        ("jsons://localhost/", "full host name", False),
        ("jsons://127.1/", "makes nothing of", True),
        ("xmls://2130706433/", "full host name", False),
        ("forms://[::1]/", "no public address", False),
        ("gotifys://metadata.google.internal/token", "network's inside", False),
        ("ntfys://printer.local/topic", "network's inside", False),
        ("jsons://hooks.acme.org/", "no public address", False),
        # What is no call over HTTPS.
        ("mailto://user:pass@example.org", "not called over HTTPS", True),
        ("syslog://", "URL 1", True),
        ("dbus://", "URL 1", True),
        ("mqtt://localhost/topic", "not called over HTTPS", True),
        ("file:///etc/passwd", "not called over HTTPS", True),
        # What would read a file here.
        ("slack://TokenA/TokenB/TokenC?template=/etc/passwd", "read a file", True),
        ("fcm://project/device?keyfile=/etc/passwd", "read a file", True),
        ("nonsense://x", "makes nothing of", True),
    ],
)
def test_a_persons_url_reaches_nothing_inside_and_reads_nothing_here(url: str, words: str, for_good: bool) -> None:
    def inside(_host: str, _port: int, _within: float) -> list[str]:
        return ["10.0.0.1"]

    with (
        apprise.opened(webhook.Outside(resolve=inside), [url]) as way,
        pytest.raises(ChannelError, match=re.escape(words)) as caught,
    ):
        way.send(MESSAGE)

    assert caught.value.retryable is not for_good
    assert "Token" not in str(caught.value)


def test_a_service_that_redirects_is_not_followed_and_one_that_never_ends_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def endless(line: socket.socket) -> None:
        with suppress(OSError):
            line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
            while True:
                line.sendall(b"x" * 1000)
                time.sleep(0.01)

    def silent(line: socket.socket) -> None:
        with suppress(OSError):
            line.recv(1)

    monkeypatch.setattr(apprise, "SECONDS", 1.0)
    with receiver(says(302, head="Location: http://127.0.0.1:1/\r\n")) as there:
        urls = [there.url.replace("http://", "json://")]
        began = time.monotonic()
        with apprise.opened(webhook.Outside(there.free), urls) as way:
            for answer, taken in ((there.answer, False), (silent, False), (endless, True)):
                there.answer = answer
                try:
                    way.send(MESSAGE)
                except ChannelError:
                    assert not taken
                else:
                    assert taken
        took = time.monotonic() - began

    assert took < 40
    assert len(there.posted) == 3


@given(st.text(max_size=100))
def test_a_chat_service_is_given_nothing_that_it_could_make_a_link_a_mention_or_type_of(subject: str) -> None:
    shown = compose.brief(subject)

    assert re.fullmatch(r"[A-Za-z0-9_ ()-]*", shown)
    assert "](" not in shown


def refuses(opening: AbstractContextManager[Channel], *, times: int = 1) -> list[bool]:
    with opening as way:
        found: list[bool] = []
        for _ in range(times):
            with pytest.raises(ChannelError) as caught:
                way.send(MESSAGE)
            found.append(caught.value.retryable)
        return found


def test_a_closed_console_is_a_channel_error() -> None:
    out = io.StringIO()
    out.close()

    assert refuses(console.opened(out)) == [True]


def test_a_server_that_is_away_is_asked_once_for_a_handful() -> None:
    away = email.Server("127.0.0.1", ports.free(), tls=False)

    assert refuses(email.opened(away, SENDER), times=2) == [True, True]


@pytest.mark.parametrize(
    ("where", "answer", "retryable"),
    [
        ("on_recipient", "550 no such mailbox", False),
        ("on_recipient", "450 busy", True),
        ("on_data", "554 refused", False),
        ("on_data", "452 full", True),
    ],
)
def test_a_refusal_is_for_good_when_the_server_says_so(
    where: str, answer: str, retryable: bool, catcher: Catcher
) -> None:
    setattr(catcher, where, answer)
    server = email.Server("127.0.0.1", catcher.port, tls=False)

    assert refuses(email.opened(server, SENDER)) == [retryable]


def test_a_connection_that_the_server_ended_is_opened_again(catcher: Catcher) -> None:
    server = email.Server("127.0.0.1", catcher.port, tls=False)

    with email.opened(server, SENDER) as way:
        way.send(MESSAGE)
        catcher.on_data = "421 closing"
        with pytest.raises(ChannelError):
            way.send(MESSAGE)
        catcher.on_data = "250 OK"
        way.send(MESSAGE)

    assert len(catcher.raw) == 2


def test_a_password_never_travels_in_the_clear(catcher: Catcher, monkeypatch: pytest.MonkeyPatch) -> None:
    server = email.Server("127.0.0.1", catcher.port, tls=False, user="ana", password="hidden")
    monkeypatch.setattr(email.Server, "is_local", False)

    assert refuses(email.opened(server, SENDER)) == [True]

    assert "hidden" not in repr(server)


@pytest.mark.parametrize(
    "subject",
    [
        "=?utf-8?q?=0D=0ABcc:_evil@example.org?=",
        "=?utf-8?q?x?=\r\nBcc: evil@example.org",
        "x\r\nBcc: evil@example.org",
        "x\nBcc: evil@example.org",
        "x\rBcc: evil@example.org",
        "x\r\n\r\nA body of its own",
    ],
)
def test_no_subject_brings_a_header_of_its_own(subject: str) -> None:
    try:
        raw = email.wire_form(replace(MESSAGE, subject=subject), SENDER)
    except ChannelError:
        return
    # A fixed Python keeps such a word inside the subject, which is right as well.
    assert not re.search(rb"^bcc:", raw, re.MULTILINE | re.IGNORECASE)


@given(subject=st.text(max_size=80), text=st.text(max_size=200))
def test_whatever_is_written_has_exactly_the_headers_that_were_meant(subject: str, text: str) -> None:
    try:
        raw = email.wire_form(replace(MESSAGE, subject=subject, text=text), SENDER)
    except ChannelError:
        return
    names = re.findall(rb"^([^\s:]+):", raw.partition(b"\r\n\r\n")[0], re.MULTILINE)
    assert sorted(names) == sorted(
        [b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Auto-Submitted", b"MIME-Version", b"Content-Type"]
    )


HOSTILE = st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\r\n\0=?_:,;<>@. ")), max_size=120)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tool=HOSTILE, agent=HOSTILE, requester=HOSTILE, because=HOSTILE, kind=st.sampled_from(list(Kind)))
def test_on_the_wire_no_name_brings_a_header_or_a_recipient(
    tool: str, agent: str, requester: str, because: str, kind: Kind, catcher: Catcher
) -> None:
    now = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    matter = Matter(
        MESSAGE.notice_id, "ana@example.org", wanted=True, created_at=now, expires_at=now,
        request_id=RequestId(UUID(int=1)), run_id=RunId(UUID(int=2)), kind=kind, agent=agent, tool=tool,
        requirement=Requirement(because=because), requester=requester, thread=NoticeId(UUID(int=3)),
    )  # fmt: skip
    link = Link("http://localhost/l/x", "123456", "http://localhost/requests/x")
    catcher.raw.clear()
    catcher.recipients.clear()

    with email.opened(email.Server("127.0.0.1", catcher.port, tls=False), SENDER) as way:
        for name in ("request", "reminder", "escalation", "remark"):
            way.send(compose.of_notice(name, matter, link))

    assert catcher.recipients == [["ana@example.org"]] * 4
    for raw in catcher.raw:
        names = re.findall(rb"^([^\s:]+):", raw.partition(b"\r\n\r\n")[0], re.MULTILINE)
        assert sorted(names) == sorted(
            b"From To Subject Date Message-ID Auto-Submitted In-Reply-To References MIME-Version Content-Type".split()
        )


@given(name=st.text(max_size=200))
def test_a_name_from_far_away_is_short_and_plain(name: str) -> None:
    shown = compose.plain(name)

    assert len(shown) <= 60
    assert re.fullmatch(r"[A-Za-z0-9_.:/@+ ?-]*", shown)


@pytest.mark.parametrize(
    "address",
    ["", "ana", "ana@example.org, ben@example.org", "Ana <ana@example.org>", "a@b\r\nBcc: c@d", "añ@example.org"],
)
def test_only_one_plain_address_is_ever_written_to(address: str) -> None:
    with pytest.raises(ChannelError, match="not an address"):
        email.wire_form(replace(MESSAGE, to=address), SENDER)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail:1025", email.Server("mail", 1025, tls=False)),
        ("smtp://mail", email.Server("mail", 25, tls=False)),
        ("smtp://a%40b:p%2Fw@mail", email.Server("mail", 587, tls=False, user="a@b", password="p/w")),
        ("smtps://a:b@mail", email.Server("mail", 465, tls=True, user="a", password="b")),
    ],
)
def test_the_servers_url_says_how_to_connect(url: str, expected: email.Server) -> None:
    assert email.Server.read(url) == expected


@pytest.mark.parametrize("url", ["", "mail:25", "http://mail", "smtp://", "smtp://a@mail", "smtp://mail:x"])
def test_a_malformed_url_is_named_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="BANKSMAN_SMTP_URL"):
        email.Server.read(url)
