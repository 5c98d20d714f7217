"""The mail catcher: whatever is accepted is on disk."""

from __future__ import annotations

import mailbox
import smtplib
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from banksman.embedded import ports, service
from banksman.embedded.service import Service


@pytest.fixture
def catcher(tmp_path: Path) -> Iterator[int]:
    port = ports.free()
    argv = ["-m", "banksman.embedded.mail", "--port", str(port), "--maildir", str(tmp_path / "mail")]
    process = Service(name="mail", argv=[sys.executable, *argv], env={}, cwd=tmp_path)
    with service.running(process, ready=lambda _pid: ports.answers(port), log=tmp_path / "log", within=20):
        yield port


def test_an_accepted_message_is_kept_word_for_word_with_whom_it_was_for(catcher: int, tmp_path: Path) -> None:
    message = EmailMessage()
    message["Subject"], message["To"], message["Message-ID"] = "Grüße", "ana@example.org", "<n1@x>"
    message.set_content("Zeile eins\n.punkt\n")

    with smtplib.SMTP("127.0.0.1", catcher, timeout=5) as client:
        client.send_message(message, "banksman@localhost", ["ana@example.org", "ben@example.org"])

    (kept,) = (tmp_path / "mail" / "new").iterdir()
    box = mailbox.Maildir(str(tmp_path / "mail"), create=False)
    (found,) = box
    assert found.get_all("Delivered-To") == ["ana@example.org", "ben@example.org"]
    assert found["Return-Path"] == "<banksman@localhost>"
    assert found["Message-ID"] == "<n1@x>"
    assert b"\n.punkt" in kept.read_bytes()
    assert (tmp_path / "mail").stat().st_mode & 0o777 == 0o700


def test_a_message_that_cannot_be_stored_is_refused_for_now(catcher: int, tmp_path: Path) -> None:
    for name in ("tmp", "new"):
        (tmp_path / "mail" / name).rmdir()

    with smtplib.SMTP("127.0.0.1", catcher, timeout=5) as client, pytest.raises(smtplib.SMTPDataError) as refused:
        client.sendmail("a@x", ["b@x"], "Subject: x\r\n\r\nx")

    assert refused.value.smtp_code == 451
