"""The e-mail channel: SMTP, one connection for a handful of messages.

What can go wrong with a mail's head is worth the words. The standard library of some Python releases turns an encoded
word such as `=?utf-8?q?=0D=0ABcc:…?=` in a subject into a real `Bcc:` line (CVE-2024-6923), and a tool's name comes
from far away. So `wire_form` takes plain ASCII without encoded words for its fixed set of headers, and then reads its
own bytes back as a mail server would: a header that was not meant, or another recipient, stops the mail.

The bytes of a mail follow from its message alone (identity, date, even the boundary between its parts), so a repeat
after a crash is the same mail, and mail programs that fold doubles show it once. The older MIME classes write it in a
tenth of the time that `EmailMessage` takes, and mail is a good part of what a run costs.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.parser import BytesHeaderParser
from email.policy import compat32
from email.utils import format_datetime, formataddr, parseaddr
from functools import cache
from urllib.parse import unquote, urlsplit

from banksman import addresses
from banksman.errors import ConfigurationError
from banksman_notifier.channels import Channel, ChannelError, Message

_TIMEOUT = 15.0
_HEADER = re.compile(rb"([!-9;-~]+):")
# Printable ASCII, and nothing that a reader decodes.
_PLAIN = re.compile(r"(?:(?!=\?)[ -~]){1,200}")
_WIRE = compat32.clone(linesep="\r\n", max_line_length=None)


@dataclass(frozen=True, slots=True)
class Server:
    """Where mail is handed over, from a URL such as `smtp://user:password@host:587` or `smtps://…`."""

    host: str
    port: int
    tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def read(cls, url: str) -> Server:
        """The server behind a URL, or a `ConfigurationError` that names the setting and never the password."""
        wrong = ConfigurationError(
            "BANKSMAN_SMTP_URL is not a URL like smtp://user:password@host:587 or smtps://user:password@host:465."
        )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise wrong from None
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.path.strip("/"):
            raise wrong
        if (parts.username is None) != (parts.password is None):
            raise wrong
        usual = 465 if parts.scheme == "smtps" else 587 if parts.username else 25
        return cls(
            parts.hostname,
            port or usual,
            parts.scheme == "smtps",
            None if parts.username is None else unquote(parts.username),
            None if parts.password is None else unquote(parts.password),
        )

    @property
    def is_local(self) -> bool:
        """Whether the way to it never leaves this machine."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Sender:
    """Whom mails come from."""

    name: str
    address: str

    @classmethod
    def read(cls, text: str) -> Sender:
        """From `Name <address>` or a bare address."""
        name, address = parseaddr(text)
        if not addresses.is_plain(address) or not name.isprintable():
            raise ConfigurationError("BANKSMAN_MAIL_FROM is not an address like `Banksman <banksman@example.org>`.")
        return cls(name, address)

    @property
    def domain(self) -> str:
        """What the identities of its mails end in."""
        return self.address.rpartition("@")[2]


@contextmanager
def opened(server: Server, sender: Sender) -> Generator[Channel]:
    """A channel that connects for its first message and keeps the connection for the rest."""
    way = _Way(server, sender)
    try:
        yield way
    finally:
        way.close()


def wire_form(message: Message, sender: Sender) -> bytes:
    """The mail's bytes, known to hold exactly the headers that were meant and exactly one recipient."""
    if not addresses.is_plain(message.to):
        raise ChannelError(f"{message.to!r} is not an address that mail can be sent to.", retryable=False)
    headers = {
        "From": formataddr((sender.name, sender.address)),
        "To": message.to,
        "Subject": message.subject,
        "Date": format_datetime(message.written_at),
        "Message-ID": f"<{message.notice_id.hex}@{sender.domain}>",
        "Auto-Submitted": "auto-generated",
    }
    if message.thread is not None:
        headers["In-Reply-To"] = headers["References"] = f"<{message.thread.hex}@{sender.domain}>"
    if not _PLAIN.fullmatch(message.subject):
        raise ChannelError("The mail's subject is not plain text, so it was not sent.", retryable=False)
    mail = MIMEMultipart("alternative", boundary=f"=_{message.notice_id.hex}", policy=_WIRE)
    for name, value in headers.items():
        mail[name] = value
    mail.attach(_part(message.text, "plain"))
    mail.attach(_part(message.html, "html"))
    raw = mail.as_bytes()
    _check(raw, headers)
    return raw


def _part(text: str, subtype: str) -> MIMEText:
    plain = text.isascii() and all(len(line) < 900 for line in text.splitlines())
    return MIMEText(text, subtype, "us-ascii" if plain else "utf-8", policy=_WIRE)


def _check(raw: bytes, headers: Mapping[str, str]) -> None:
    """Every line of the head is a header that was meant, and says what was meant; else the mail is not sent."""
    head = raw.partition(b"\r\n\r\n")[0]
    found: list[str] = []
    for line in head.split(b"\r\n"):
        match = _HEADER.match(line)
        whole = match is not None and b"\r" not in line and b"\n" not in line
        found.append(match[1].decode("ascii") if match is not None and whole else repr(line[:40]))
    again = BytesHeaderParser(policy=compat32).parsebytes(head + b"\r\n\r\n")
    meant = sorted([*headers, "MIME-Version", "Content-Type"])
    if sorted(found) != meant or sorted(again.keys()) != meant:
        unwanted = sorted({*found, *again.keys()} - set(meant))
        raise ChannelError(
            f"The mail would carry headers that nobody meant ({', '.join(unwanted) or 'a repeated one'}), "
            "so it was not sent.",
            retryable=False,
        )
    if any(again[name] != value for name, value in headers.items()):
        raise ChannelError("The mail would not say what was meant, so it was not sent.", retryable=False)


class _Way:
    """One connection. Once the server cannot be reached, the rest of the handful does not wait for it again."""

    def __init__(self, server: Server, sender: Sender) -> None:
        self._server = server
        self._sender = sender
        self._smtp: smtplib.SMTP | None = None
        self._down: str | None = None

    def send(self, message: Message) -> None:
        raw = wire_form(message, self._sender)
        reused = self._smtp is not None
        try:
            try:
                self._hand_over(message.to, raw)
            except smtplib.SMTPServerDisconnected:
                # A server may end a connection after so many mails, or after a pause: no failure yet.
                if not reused:
                    raise
                self._drop()
                self._hand_over(message.to, raw)
        except smtplib.SMTPServerDisconnected as error:
            raise self._unreachable(error) from error
        except smtplib.SMTPException as error:
            raise _refused(error) from error
        except OSError as error:
            raise self._unreachable(error) from error

    def close(self) -> None:
        if self._smtp is not None:
            with suppress(smtplib.SMTPException, OSError):
                self._smtp.quit()
        self._drop()

    def _hand_over(self, to: str, raw: bytes) -> None:
        if self._down is not None:
            raise ChannelError(self._down, retryable=True)
        if self._smtp is None:
            self._smtp = self._connect()
        self._smtp.sendmail(self._sender.address, [to], raw)

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        try:
            smtp = (
                smtplib.SMTP_SSL(server.host, server.port, _own_name(), timeout=_TIMEOUT, context=_tls())
                if server.tls
                else smtplib.SMTP(server.host, server.port, _own_name(), timeout=_TIMEOUT)
            )
            try:
                self._greet(smtp)
            except BaseException:
                smtp.close()
                raise
        except (smtplib.SMTPException, OSError) as error:
            # Also a refused password: asking again for every mail of the handful would lock the account.
            raise self._unreachable(error) from error
        return smtp

    def _greet(self, smtp: smtplib.SMTP) -> None:
        server = self._server
        smtp.ehlo_or_helo_if_needed()
        safe = server.tls or server.is_local
        if not server.tls and smtp.has_extn("starttls"):
            smtp.starttls(context=_tls())
            smtp.ehlo()
            safe = True
        if server.user is None or server.password is None:
            return
        if not safe:
            raise smtplib.SMTPNotSupportedError("it offers no TLS, so the password was not sent to it.")
        smtp.login(server.user, server.password)

    def _unreachable(self, error: Exception) -> ChannelError:
        self._drop()
        self._down = f"The mail server {self._server.host}:{self._server.port} cannot be reached: {error}"
        return ChannelError(self._down, retryable=True)

    def _drop(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None


def _refused(error: smtplib.SMTPException) -> ChannelError:
    """What a refusal means: for good only where it is about this recipient or this mail."""
    match error:
        case smtplib.SMTPRecipientsRefused():
            code, text = next(iter(error.recipients.values()))
            lasting = 500 <= code < 600
        case smtplib.SMTPDataError():
            code, text = error.smtp_code, error.smtp_error
            lasting = 500 <= code < 600
        case smtplib.SMTPResponseException():
            code, text, lasting = error.smtp_code, error.smtp_error, False
        case _:
            return ChannelError(f"The mail server refused the mail: {error}", retryable=True)
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return ChannelError(f"The mail server refused the mail: {code} {said}", retryable=not lasting)


@cache
def _tls() -> ssl.SSLContext:
    """Made once and only when needed: reading the machine's certificates takes longer than a mail."""
    return ssl.create_default_context()


@cache
def _own_name() -> str:
    # smtplib would ask the DNS for a full name, which can take seconds where there is none.
    name = socket.gethostname()
    return name if "." in name else "[127.0.0.1]"
