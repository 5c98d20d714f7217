"""The local mail catcher: an SMTP server that delivers nothing and keeps every message in a Maildir.

    python -m banksman.embedded.mail --port 2525 --maildir .banksman/mail

A message is on disk before it is acknowledged; one that cannot be stored is refused for now (451), so the
sender tries again. Who it was for is kept in `Delivered-To`, since a message's own headers need not say.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import mailbox
import signal
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from banksman import logs
from banksman.embedded import ports

_log = logs.get(__name__)
_LARGEST = 32 * 1024 * 1024


class Keeper:
    """Stores what arrives; one message, one file."""

    def __init__(self, maildir: Path) -> None:
        maildir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("tmp", "new", "cur"):
            (maildir / name).mkdir(mode=0o700, exist_ok=True)
        self._box = mailbox.Maildir(str(maildir), create=False)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """The answer to one message."""
        content = envelope.original_content or b""
        head = "".join(
            f"{name}: {value}\r\n"
            for name, value in (
                ("Return-Path", f"<{envelope.mail_from or ''}>"),
                *(("Delivered-To", to) for to in envelope.rcpt_tos),
            )
        )
        try:
            name = self._box.add(head.encode("utf-8", "replace") + content)
        except OSError as error:
            _log.error("message refused", error=str(error))
            return "451 4.3.0 The message could not be stored; try again later"
        _log.info("message caught", to=envelope.rcpt_tos, file=name)
        return f"250 2.0.0 Stored as {name}"


async def serve(port: int, maildir: Path) -> None:
    """Catches mail on the loopback address until SIGTERM or SIGINT."""
    keeper, loop = Keeper(maildir), asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(
            keeper,
            data_size_limit=_LARGEST,
            enable_SMTPUTF8=True,
            hostname="localhost",
            ident="Banksman mail catcher",
            loop=loop,
        ),
        ports.LOOPBACK,
        port,
    )
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    _log.info("catching mail", port=port, maildir=str(maildir))
    await stop.wait()
    server.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="banksman.embedded.mail", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--maildir", type=Path, required=True)
    chosen = parser.parse_args()
    logs.configure("mail")
    # aiosmtpd tells of every connection; what matters here is the message.
    logging.getLogger("mail.log").setLevel(logging.WARNING)
    asyncio.run(serve(chosen.port, chosen.maildir))


if __name__ == "__main__":
    main()
