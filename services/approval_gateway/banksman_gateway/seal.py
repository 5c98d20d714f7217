"""The gateway's sealer: a thread that seals what is new in the audit log, and writes the heads down elsewhere.

Of many gateways one seals at a time. It has a role of its own in PostgreSQL, which may write leaves and heads and
nothing else, and a key of its own. A gateway without that key seals nothing, and knows the newest head all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from banksman import ledger, logs
from banksman.errors import BanksmanError, ConfigurationError, Unavailable
from banksman.ledger import seals
from banksman.sealing import anchors, heads, sealer
from banksman.sealing.anchors import Anchor
from banksman.sealing.heads import Head
from banksman.settings import GatewaySettings
from banksman.signing import Signed, Signer, Verifier

log = logs.get(__name__)

_MOST_HEADS = 1000
_LOOK_SECONDS = 10.0


class Seal:
    """What this process knows of the seal: the newest head, as of its last look."""

    def __init__(self, settings: GatewaySettings, pool: ledger.Pool) -> None:
        self.head: Head | None = None
        self._pool = pool
        self._anchor: Anchor | None = anchors.of_setting(settings.audit_anchor)
        self._sealing: Callable[[], Head | None] | None = None
        self._own: ledger.Pool | None = None
        self._seconds = settings.seal_seconds
        self.verifier: Verifier | None = None
        key, url = settings.sealing_key, settings.sealer_database_url
        if settings.seal_verify_keys:
            self.verifier = Verifier.read(settings.seal_verify_keys, setting="BANKSMAN_SEAL_VERIFY_KEYS")
        if (key is None) != (url is None):
            raise ConfigurationError(
                "To seal the audit log set both BANKSMAN_SEALING_KEY and BANKSMAN_SEALER_DATABASE_URL; else neither."
            )
        if key is not None and url is not None:
            signer = Signer.read(key.get_secret_value(), setting="BANKSMAN_SEALING_KEY")
            verifier = self.verifier = self.verifier or Verifier.read(signer.public())
            self._own = own = ledger.open_pool(url.get_secret_value(), size=1, name="banksman-sealer")
            self._sealing = lambda: _seal(own, signer, verifier)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="seal", daemon=True)
        self._said = ""

    @property
    def seals(self) -> bool:
        """Whether this process seals."""
        return self._sealing is not None and self._seconds is not None

    def start(self) -> None:
        """Begin to seal, or only to look."""
        if not self.seals:
            why = "BANKSMAN_SEAL_SECONDS is never" if self._sealing else "BANKSMAN_SEALING_KEY is not set"
            log.info("This gateway does not seal the audit log.", why=why)
        self._thread.start()

    def close(self) -> None:
        """Stop after what is at hand."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        if self._own is not None:
            self._own.close()

    def turn(self) -> None:
        """Seal all that is complete, look which head is the newest, and anchor those that are not yet."""
        seal = self._sealing if self.seals else None
        while seal is not None and seal() is not None and not self._over.is_set():
            pass
        with ledger.transaction(self._pool) as conn:
            newest = seals.newest_head(conn)
        self.head = None if newest is None else heads.read(newest)
        if self._anchor is not None:
            self._write_down(self._anchor)

    def _write_down(self, anchor: Anchor) -> None:
        last = anchor.last()
        if last is not None:
            number = heads.read(last).number
        else:
            number = 0 if anchor.whole or self.head is None else self.head.number - 1
        while not self._over.is_set():
            with ledger.transaction(self._pool) as conn:
                if last is not None and not _same(seals.head_of(conn, number), last):
                    raise ConfigurationError(
                        f"The audit log's head {number} is not the one that was anchored: the log was rolled back or "
                        "replaced. `banksman audit verify --anchor` says more; after a restore, begin a new file."
                    )
                more = seals.heads(conn, after=number, limit=_MOST_HEADS)
            if not more:
                return
            for signed in more:
                number = heads.after(signed, number).number
            anchor.put(more)
            last = more[-1]

    def _loop(self) -> None:
        while not self._over.wait(self._seconds or _LOOK_SECONDS):
            try:
                self.turn()
                self._said = ""
            except Unavailable as error:
                log.warning("The seal waits for PostgreSQL.", error=str(error)[:200])
            except (BanksmanError, OSError) as error:
                if self._said != str(error):
                    self._said = str(error)
                    log.error("The audit log is not sealed or not anchored.", error=self._said)  # noqa: TRY400  it says enough
            except Exception:
                log.exception("The seal broke off; it goes on.")


def _seal(pool: ledger.Pool, signer: Signer, verifier: Verifier) -> Head | None:
    with ledger.transaction(pool) as conn:
        return sealer.seal(conn, signer, verifier)


def _same(kept: Signed | None, anchored: Signed) -> bool:
    return kept is not None and kept.statement == anchored.statement
