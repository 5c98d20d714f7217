"""Migrations stay as they are once a database may have been built with them: it would refuse the next release."""

from __future__ import annotations

import hashlib
from pathlib import Path

SQL = Path(__file__).parents[2] / "shared/banksman/ledger/sql"
LANDED = {
    "0001_spine.sql": "ff5e97d53cd6ebad",
    "0002_policy.sql": "6087314dc8e79437",
    "0003_votes.sql": "7cc01e3e943042c2",
    "0004_notifier.sql": "9ee9a86c48f712bc",
    "0005_people.sql": "3ccfcf049463787a",
    "0006_audit.sql": "e5795e9d0be66355",
    "0007_families.sql": "88de666f02922f27",
    "0008_inbox.sql": "1f214e291ea9260f",
    "0010_volume.sql": "939b78b5810a9c5c",
    "0011_vault.sql": "251d8edb9307a813",
    "0013_retention.sql": "11b15a562fe9918a",
    "0014_watching.sql": "76332277123bd010",
}
"""The beginning of each one's SHA-256. What is to change of them takes a number of its own; a new one is added here."""


def test_no_migration_changes_once_a_database_may_have_it() -> None:
    now = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in sorted(SQL.glob("*.sql"))}

    assert {name: now.get(name) for name in LANDED} == LANDED
