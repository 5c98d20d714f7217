"""Celery's Redis transport, narrowed to what a hint needs: it lets our own messages in and puts nothing back.

PostgreSQL is the queue of record, so a message is taken out of its list for good. There is no list of unacknowledged
messages to be restored from, doubled, forged or locked, and each message costs the broker two round trips less.

What `wire.read` refuses never reaches Celery: neither its decoders, nor its callbacks, expiry, ETA or retries see a
byte of it. What it accepts is written anew, so that nothing but ids comes from outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import redis
from kombu.transport import redis as stock

from banksman import logs, wire
from banksman.errors import InvalidInput

if TYPE_CHECKING:
    _StockChannel = _StockTransport = Any
else:
    _StockChannel, _StockTransport = stock.Channel, stock.Transport

log = logs.get(__name__)


class _Client(redis.Redis):
    """Looks at what comes out of a queue before Celery does."""

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """The answer to a command; a message that is dropped looks like no message at all."""
        answer = cast("object", super().parse_response(connection, command_name, **options))
        if command_name != "BRPOP" or not answer:
            return answer
        queue, raw = cast("tuple[bytes, bytes]", answer)
        try:
            hint = wire.read(queue.decode(), raw)
        except InvalidInput as error:
            log.warning("A message was dropped.", queue=queue.decode(), why=str(error))
            return None
        return None if hint.stale else (queue, wire.message(hint).encode())


class Channel(_StockChannel):
    """Takes messages out, and does nothing else in the broker."""

    do_restore = False
    ack_emulation = False
    priority_steps = (0,)

    def _get_client(self) -> type[redis.Redis]:
        return _Client

    def _queue_bind(self, *_: object) -> None:
        """No table of bindings: nothing is published through an exchange."""

    def _restore(self, *_: object, **__: object) -> None:
        """Nothing goes back: the row is found by state."""


class Transport(_StockTransport):
    """The transport that our applications name."""

    Channel = Channel
