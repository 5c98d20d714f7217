"""Seals what is new in the audit log: events → leaves, nodes and a signed head, in one transaction.

The sealer trusts the stored tree only as far as the newest head that it signed itself: if the stored hashes do not lead
to that root any more, it seals nothing further, so that a damaged tree is never signed anew.
"""

from __future__ import annotations

from banksman.errors import ConfigurationError, NotGenuine
from banksman.ledger import Connection, seals
from banksman.ledger.seals import Home, Moment, Row
from banksman.sealing import heads, leaf, tree
from banksman.sealing.heads import Head
from banksman.sealing.store import Stored
from banksman.signing import Signer, Verifier

AT_ONCE = 10_000
"""The most events under one head: what a transaction holds in memory."""

_NO_HEAD = Head(0, 0, tree.EMPTY, "", heads.NONE_BEFORE, (0, 0), 0, 0)


def seal(conn: Connection, signer: Signer, verifier: Verifier, *, limit: int = AT_ONCE) -> Head | None:
    """Events that are complete and not sealed → sealed, at most `limit`; None when there are none, or another seals."""
    if not seals.take_turn(conn):
        return None
    where = seals.home(conn)
    if where is None or not where.here:
        raise ConfigurationError(
            "This database came from another PostgreSQL since it was last migrated. Run `banksman migrate`, as after "
            "every restore: until then its audit log is not sealed."
        )
    kept = seals.newest_head(conn)
    last = _NO_HEAD if kept is None else heads.verify(verifier, kept)
    moment = seals.now(conn)
    rows, cursor, home = _next(conn, last, where, moment, limit)
    if not rows:
        return None
    frontier = _frontier(conn, last)
    hashes = [tree.leaf_hash(leaf.entry(row)) for row in rows]
    nodes = frontier.extend(hashes)
    head = Head(
        number=last.number + 1,
        size=frontier.size,
        root=frontier.root(),
        at=moment.at,
        previous=heads.NONE_BEFORE if kept is None else heads.fingerprint(kept),
        cursor=cursor,
        ceiling=moment.ceiling,
        home=home,
    )
    seals.append(conn, last.size, rows, hashes, nodes)
    seals.put_head(conn, head.number, head.size, heads.sign(signer, head))
    return head


def _next(
    conn: Connection, last: Head, where: Home, moment: Moment, limit: int
) -> tuple[list[Row], tuple[int, int], int]:
    """What is to be sealed, how far the log is complete with it, and where it lives by then."""
    if last.number and last.home < where.number:
        rows = list(seals.strays(conn, where.floor, limit=limit))
        if len(rows) == limit:
            return rows, last.cursor, last.home
        rows += seals.unsealed(conn, (where.xid, 0), horizon=moment.horizon, limit=limit - len(rows))
    else:
        rows = list(seals.unsealed(conn, last.cursor, horizon=moment.horizon, limit=limit))
    full = len(rows) == limit
    return rows, (rows[-1][1], rows[-1][0]) if full else (moment.horizon, 0), where.number


def _frontier(conn: Connection, last: Head) -> tree.Frontier:
    frontier = tree.Frontier.of(last.size, Stored(conn).hash_of)
    if frontier.root() != last.root:
        raise NotGenuine(
            f"The stored tree of the audit log does not lead to the root of head {last.number}. Nothing is sealed "
            "until somebody has looked: `banksman audit verify`."
        )
    return frontier
