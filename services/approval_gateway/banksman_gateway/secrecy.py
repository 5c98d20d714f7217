"""What the policy names as secret, as this gateway knows it: read again every second, and covered from then on.

A version that cannot be read or verified changes nothing here: what was covered stays covered.
"""

from __future__ import annotations

from banksman import logs, masks, standing_policy
from banksman.errors import BanksmanError
from banksman.ledger import Connection, policies
from banksman.rules import Rules
from banksman.signing import Verifier

log = logs.get(__name__)


class Secrecy:
    """Follows the policy in force."""

    def __init__(self, verifier: Verifier, file: Rules | None) -> None:
        self._verifier, self._known, self._ready = verifier, 0, False
        masks.follow(masks.nothing if file is None else file.sensitive_args)

    def begin(self, conn: Connection) -> None:
        """Read it once before anything else is read."""
        if not self._ready:
            self.refresh(conn)

    def refresh(self, conn: Connection) -> None:
        """See whether another version is in force by now."""
        try:
            found = policies.newest(conn, self._known)
            self._ready = True
            if found is None or found[1] is None:
                return
            rules, _ = standing_policy.verified(found[0], found[1], self._verifier)
        except (BanksmanError, KeyError, TypeError, ValueError) as error:
            log.warning("The policy cannot be read: what it named as secret stays covered.", why=str(error)[:200])
            self._ready = True
            return
        self._known = found[0]
        masks.follow(rules.sensitive_args)
