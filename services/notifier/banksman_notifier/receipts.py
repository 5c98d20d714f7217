"""Receipts: what a person's votes of a day came to, in a few lines of counts for their mail. Never arguments."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

from banksman.ledger import Connection, insights, seals
from banksman.records import Matter, Notice, ReceiptLine
from banksman.sealing import heads


def fill(conn: Connection, notice: Notice, matter: Matter) -> Matter:
    """The matter of a receipt with its lines, as things stand now."""
    until = notice.expires_at - insights.RECEIPT_LIFE
    lines = insights.receipt(conn, notice.person_id, until - timedelta(days=1), until)
    counted = Counter((line.verdict, line.tool, line.agent, line.outcome) for line in lines)
    signed = seals.newest_head(conn)
    return replace(
        matter,
        receipt=tuple(ReceiptLine(count, *what) for what, count in counted.most_common()),
        audit_head="" if signed is None else heads.read(signed).in_words(),
    )
