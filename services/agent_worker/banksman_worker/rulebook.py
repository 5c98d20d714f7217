"""The rulebook: the policy in force as this worker knows it, read again every second and verified with its own keys.

No call waits for the database because of it. A thread looks whether there is a newer version; what it finds takes
effect for every call judged from then on, also in segments that are under way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Protocol

from banksman import ledger, logs, quorum
from banksman.errors import BanksmanError
from banksman.ledger import Connection, audit, people, policies
from banksman.policy import Call, Judgement
from banksman.records import Event, Person, Requirement
from banksman.rules import Rules
from banksman.signing import Verifier
from banksman.standing_policy import Standing, verified

_PEOPLE_SECONDS = 10.0
_ANYBODY = Requirement(groups={quorum.REVIEWERS: 0, quorum.ADMINS: 0})
_REMEDY = (
    "Every call is asked at the highest tier meanwhile. An administrator uploads the policy again (`banksman policy "
    "upload FILE`); if its key is new, give it to the workers in BANKSMAN_VERIFY_KEYS and restart them."
)

log = logs.get(__name__)


class Rulebook:
    """Holds what stands; `policy.judge` asks it about every call."""

    def __init__(self, verifier: Verifier, file: Rules | None = None, *, name: str = "worker") -> None:
        self._verifier, self._file, self._name = verifier, file, name
        self._known = 0
        self._people_at = -_PEOPLE_SECONDS
        self._lock = threading.Lock()
        self._standing = Standing(doubt="It has not been read yet.")

    def judge(self, call: Call, otherwise: Judgement) -> Judgement:
        """What the policy in force says of a call."""
        return self._standing.judge(call, otherwise)

    def refresh(self, conn: Connection) -> None:
        """See whether another version is in force by now."""
        with self._lock:
            before = self._standing
            try:
                number, rules, doubt = self._read(conn)
            except ledger.AWAY:
                raise  # what was read before stands: without PostgreSQL no call starts anyway
            except Exception:
                self._standing = Standing(doubt="It can no longer be read from the database.", people=before.people)
                raise
            # What is in doubt stops counting before anything else can go wrong.
            self._standing = Standing(rules, doubt, self._people(conn, before.people))
            self._known = number
            if doubt is not None and doubt != before.doubt:
                log.error("The policy in force is refused.", version=number, why=doubt, what_to_do=_REMEDY)
                audit.append(conn, Event(self._name, "policy.refused", body={"version": number, "why": doubt[:1000]}))

    def _read(self, conn: Connection) -> tuple[int, Rules | None, str | None]:
        """The number of the version in force, and its rules or why they cannot be used."""
        number = self._known
        try:
            found = policies.newest(conn, self._known)
            if found is None and self._known == 0:
                return 0, self._file, None
            if found is None or found[0] < self._known:
                return self._known, None, f"Version {self._known} was in force, and has gone from the database."
            number, signed = found
            if signed is None:
                return number, self._standing.rules, self._standing.doubt
            return number, verified(number, signed, self._verifier)[0], None
        except BanksmanError as error:
            return number, None, str(error)
        except (KeyError, TypeError, ValueError):
            return number, None, "What was signed is no policy that this release can read."

    def _people(self, conn: Connection, before: Sequence[Person]) -> Sequence[Person]:
        now = time.monotonic()
        if now - self._people_at < _PEOPLE_SECONDS:
            return before
        self._people_at = now
        return people.who_may_decide(conn, _ANYBODY, except_for=None)


class Book(Protocol):
    """What is read again and again."""

    def refresh(self, conn: Connection) -> None:
        """Read it, in this transaction."""
        ...


class Watch:
    """The thread that refreshes books."""

    def __init__(self, pool: ledger.Pool, *books: Book, interval: float = 1.0) -> None:
        self._pool, self._books, self._interval = pool, books, interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="rulebook", daemon=True)

    def start(self) -> None:
        """Read the policy once, and go on looking."""
        self._look()
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.wait(self._interval):
            try:
                self._look()
            except BanksmanError as error:
                log.warning("The policy could not be read; what was read before stands.", error=str(error)[:200])
            except Exception:
                log.exception("The rulebook broke, and goes on.")

    def _look(self) -> None:
        for book in self._books:
            with ledger.transaction(self._pool) as conn:
                book.refresh(conn)
