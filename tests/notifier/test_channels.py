"""Every channel hands over what it was given, fails in one way, and takes its mail's head back from the bytes."""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banksman.embedded import ports
from banksman.errors import ConfigurationError
from banksman.ids import NoticeId
from banksman_notifier import compose
from banksman_notifier.channels import Channel, ChannelError, Message, Opener, console, email
from tests.notifier.conftest import SENDER, Catcher

MESSAGE = Message(
    notice_id=NoticeId(UUID("01927f7c0c0070008000000000000001")),
    to="ana@example.org",
    subject="write_file waits for your decision (medium)",
    text="It waits.\n.\nA dot alone ends nothing.\n",
    html="<p>It waits.</p>",
    brief="It waits.",
    written_at=datetime(2026, 11, 22, 12, 0, tzinfo=UTC),
)


@pytest.fixture(params=["email", "console"])
def channel(request: pytest.FixtureRequest, catcher: Catcher) -> tuple[Opener, io.StringIO]:
    out = io.StringIO()
    server = email.Server("127.0.0.1", catcher.port, tls=False)
    openers: dict[str, Opener] = {
        "email": partial(email.opened, server, SENDER),
        "console": partial(console.opened, out),
    }
    return openers[request.param], out


def test_a_channel_hands_over_a_handful(channel: tuple[Opener, io.StringIO], catcher: Catcher) -> None:
    opener, out = channel

    with opener() as way:
        for number in range(3):
            way.send(replace(MESSAGE, text=f"Number {number}.\n"))

    arrived = out.getvalue() + b"".join(catcher.raw).decode()
    assert re.findall(r"Number (\d)\.", arrived) == ["0", "1", "2"]
    assert arrived.count("write_file waits") == 3
    assert catcher.connections <= 1


def test_a_channel_that_is_never_used_connects_to_nothing(
    channel: tuple[Opener, io.StringIO], catcher: Catcher
) -> None:
    with channel[0]():
        pass

    assert catcher.connections == 0


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
