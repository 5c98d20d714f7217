"""Any service that Apprise knows, by a person's own URLs: a few plain words and one address.

Apprise brings some 200 services, takes its time and memory to load, and calls wherever a URL says. So it is loaded
when the first person needs it, and each connection that its services make goes through `address_guard`, at port 443 or
8443 of a public address, or to a host that the operator named. A call that does not end is cut off; of an answer no
more than 64 KiB is read. Only services count that make their calls through `requests`, where these guards stand.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from banksman import address_guard, chat_urls
from banksman.address_guard import Blocked, Target
from banksman.errors import InvalidInput
from banksman_notifier.channels import Channel, ChannelError, Message
from banksman_notifier.channels.webhook import Outside

SECONDS = 20.0
MOST_BYTES = 64 * 1024
_CONNECT_SECONDS = 5.0
_UNGUARDED = frozenset({"socket", "smtplib", "subprocess"})
_BASE = frozenset({"apprise.plugins.base", "apprise.url", "apprise.persistent_store"})


class Service(Protocol):
    """One of Apprise's services, ready to send."""

    def notify(self, *, title: str, body: str, body_format: str) -> bool:
        """Whether it was taken."""
        ...


@contextmanager
def opened(outside: Outside, urls: Sequence[str]) -> Generator[Channel]:
    """Nothing is loaded before the first message."""
    yield _Chat(outside, urls)


@dataclass(frozen=True, slots=True)
class _Chat:
    outside: Outside
    urls: Sequence[str]

    def send(self, message: Message, /) -> None:
        """To each URL; it is enough that one of them took it."""
        failed: list[ChannelError] = []
        title, _, rest = message.brief.rpartition("\n")
        for url in self.urls:
            try:
                _send(self.outside, url, title, rest)
            except ChannelError as error:
                failed.append(error)
        if len(failed) == len(self.urls):
            words = " ".join(dict.fromkeys(map(str, failed))) or "This person gave no URL."
            raise ChannelError(words, retryable=any(error.retryable for error in failed))


def _send(outside: Outside, url: str, title: str, body: str) -> None:
    try:
        chat_urls.checked([url])
    except InvalidInput as error:
        raise ChannelError(str(error), retryable=False) from error
    shown = chat_urls.masked(url)
    service = _service(url)
    if service is None:
        raise ChannelError(f"Apprise makes nothing of the URL {shown}.", retryable=False)
    with _guarded(outside) as call:
        try:
            taken = service.notify(title=title, body=body, body_format="text")
        except Exception as error:
            raise ChannelError(f"{shown} broke off: {type(error).__name__}.", retryable=True) from error
    if not taken:
        why = f": {call.refused}" if call.refused else "."
        raise ChannelError(f"{shown} did not take the message{why}", retryable=True)


def _service(url: str) -> Service | None:
    """The service behind a URL; None for one that Apprise does not know, or whose calls the guard would not see."""
    _load()
    import apprise

    asset: Any = apprise.AppriseAsset(app_id="Banksman", app_desc="Banksman", storage_mode="memory", plugin_paths=[])
    made: Any = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if made is None:
        return None
    homes = {kind.__module__ for kind in type(made).__mro__ if kind.__module__.startswith("apprise.")} - _BASE
    names = {name for home in homes for name in vars(sys.modules[home])}
    if "requests" not in names or names & _UNGUARDED:
        raise ChannelError(
            f"{chat_urls.masked(url)} is not called over HTTPS alone, so it is not used here.", retryable=False
        )
    if any(getattr(made, name, None) for name in ("template", "keyfile", "subfile")):
        raise ChannelError(f"{chat_urls.masked(url)} would read a file of this machine.", retryable=False)
    made.socket_connect_timeout, made.socket_read_timeout = _CONNECT_SECONDS, SECONDS
    made.redirects, made.retry, made.wait = False, 0, 0.0
    made.request_rate_per_sec = 0
    return made


class _Call:
    """What one thread's calls may reach, and the connections they made."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.until = time.monotonic() + SECONDS
        self.refused = ""
        self._lines: list[socket.socket] = []

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection through the guard, which ends when the call's time is up."""
        host = host.strip("[]").lower()
        free = bool({(host, port), (host, None)} & self.outside.free)
        try:
            if not free and port not in address_guard.PORTS:
                raise Blocked(f"it is called at port {port}, and only 443 and 8443 are open.")
            if not free:
                address_guard.check_host(host)
            where = Target(host, port, "/", tls=True, free=free)
            line = address_guard.connect(where, until=self.until, resolve=self.outside.resolve)
        except (Blocked, InvalidInput) as error:
            self.refused = str(error)
            raise OSError(str(error)) from error
        # A second handle on the same connection: TLS takes the first one over.
        self._lines.append(line.dup())
        return line

    def cut(self) -> None:
        """End whatever is still open."""
        for line in self._lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Forget the connections."""
        for line in self._lines:
            line.close()


_calls = threading.local()


@contextmanager
def _guarded(outside: Outside) -> Generator[_Call]:
    call = _Call(outside)
    _calls.now = call
    timer = threading.Timer(SECONDS, call.cut)
    timer.daemon = True
    timer.start()
    try:
        yield call
    finally:
        _calls.now = None
        timer.cancel()
        call.close()


_loading = threading.Lock()


def _load() -> None:
    with _loading:
        _load_once()


@cache
def _load_once() -> None:
    """Apprise with all of its services, and the guards under `requests`: nothing else in this process uses it."""
    import requests.adapters
    import urllib3.util.connection

    with warnings.catch_warnings():
        # Some of the two hundred use modules that are on their way out of Python.
        warnings.simplefilter("ignore")
        import apprise

        apprise.Apprise.instantiate("json://localhost")
    # Their lines may hold URLs, which are secrets; what went wrong is in our own.
    for name in ("apprise", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def connect(
        address: tuple[str, int], timeout: Any = None, source_address: Any = None, socket_options: Any = None
    ) -> socket.socket:
        del timeout, source_address
        call: _Call | None = getattr(_calls, "now", None)
        if call is None:
            raise OSError("Nothing is called outside a message that is sent.")
        line = call.connect(*address)
        for option in socket_options or ():
            line.setsockopt(*option)
        line.settimeout(max(0.1, call.until - time.monotonic()))
        return line

    plain: Any = requests.adapters.HTTPAdapter.send

    def send(self: Any, request: Any, **how: Any) -> Any:
        answer: Any = plain(self, request, **{**how, "stream": True, "proxies": None})
        content = answer.raw.read(MOST_BYTES, decode_content=True)
        answer._content, answer._content_consumed = content, True  # noqa: SLF001 - as if it had been read whole
        answer.raw.close()
        return answer

    urllib3.util.connection.create_connection = connect
    setattr(requests.adapters.HTTPAdapter, "send", send)  # noqa: B010 - its own signature is spelled out
