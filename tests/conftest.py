"""Fixtures: a real PostgreSQL and a real Valkey for the session, a fresh migrated database for each test."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from banksman import ledger, logs, signing, vault
from banksman.embedded import postgres, valkey
from banksman.ledger import migrate, staff
from banksman.records import Person
from banksman.signing import Signer, Verifier
from banksman.wire import Wire
from tests import told

PASSWORDS = {role: f"{role}-secret" for role in (*migrate.ROLES, migrate.KEEPER)}
HINT = timedelta(seconds=5)


logs.configure("test")


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated database with a URL for each role."""

    owner: str
    worker: str
    gateway: str
    notifier: str
    sealer: str
    keeper: str


VAULT_KEYS = f"v1:{signing.base64url(bytes([7] * 32))}"


@pytest.fixture(autouse=True)
def _sealed() -> None:
    """Everything that a test stores is encrypted, as it is where people use it."""
    vault.use(VAULT_KEYS)


@pytest.fixture(scope="session")
def watch() -> Iterator[told.Watch]:
    """What this process committed untold so far in a test."""
    found = told.Watch()
    with pytest.MonkeyPatch.context() as patch:
        found.install(patch)
        yield found


@pytest.fixture(autouse=True)
def _everything_is_told(watch: told.Watch) -> Iterator[None]:
    """Whatever a service or a command changed in this process, an event of the same transaction says so."""
    watch.untold.clear()
    yield
    assert watch.untold == []


@pytest.fixture
def unsealed(_sealed: None) -> None:
    """Nothing is encrypted: whoever writes to the database can change what stands there, and is still stopped."""
    vault.use("")


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Postgres]:
    """One PostgreSQL for the session, with a template that every test's database is copied from."""
    with postgres.running(tmp_path_factory.mktemp("postgres") / "home", durable=False) as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
            conn.execute("CREATE DATABASE template_banksman")
        migrate.migrate(server.url("template_banksman"), passwords=PASSWORDS)
        yield server


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[valkey.Valkey]:
    """One Valkey for the session."""
    with valkey.running(tmp_path_factory.mktemp("valkey") / "home", durable=False) as server:
        yield server


@pytest.fixture
def database(postgres_server: postgres.Postgres) -> Iterator[Database]:
    """A fresh database, migrated, dropped afterwards."""
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as conn:
        conn.execute(f'CREATE DATABASE "{name}" TEMPLATE template_banksman STRATEGY FILE_COPY'.encode())
        yield Database(
            owner=postgres_server.url(name),
            **{
                role.removeprefix("banksman_"): postgres_server.url(name, user=role, password=secret)
                for role, secret in PASSWORDS.items()
            },
        )
        conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def _pool(url: str, name: str) -> Generator[ledger.Pool]:
    pool = ledger.open_pool(url, size=8, name=name)
    yield pool
    pool.close()


@pytest.fixture
def owner_pool(database: Database) -> Iterator[ledger.Pool]:
    """Connections of the owner: for looking, never for making what a service makes."""
    yield from _pool(database.owner, "test-owner")


@pytest.fixture
def worker_pool(database: Database) -> Iterator[ledger.Pool]:
    """Connections with the worker's rights."""
    yield from _pool(database.worker, "test-worker")


@pytest.fixture
def gateway_pool(database: Database) -> Iterator[ledger.Pool]:
    """Connections with the gateway's rights."""
    yield from _pool(database.gateway, "test-gateway")


@pytest.fixture
def notifier_pool(database: Database) -> Iterator[ledger.Pool]:
    """Connections with the notifier's rights."""
    yield from _pool(database.notifier, "test-notifier")


@pytest.fixture
def sealer_pool(database: Database) -> Iterator[ledger.Pool]:
    """Connections with the sealer's rights."""
    yield from _pool(database.sealer, "test-sealer")


@pytest.fixture
def broker(valkey_server: valkey.Valkey) -> str:
    """The URL of an empty broker."""
    import redis

    client = redis.Redis.from_url(valkey_server.url())
    client.flushall()
    client.close()
    return valkey_server.url()


@pytest.fixture
def wire(broker: str) -> Iterator[Wire]:
    """A publisher on the empty broker."""
    published = Wire(broker, expires=30)
    yield published
    published.close()


@pytest.fixture(scope="session")
def signer() -> Signer:
    """The gateway's key for these tests."""
    return Signer("k1", b"\x01" * 32)


@pytest.fixture(scope="session")
def verifier(signer: Signer) -> Verifier:
    """What a worker trusts in these tests."""
    return Verifier.read(signer.public())


@pytest.fixture
def reviewers(gateway_pool: ledger.Pool) -> tuple[Person, Person]:
    """Two people who may vote."""
    with ledger.transaction(gateway_pool) as conn:
        return (staff.upsert(conn, "ana@example.org", name="Ana"), staff.upsert(conn, "ben@example.org", name="Ben"))


@pytest.fixture
def link_key() -> str:
    """A setting for BANKSMAN_LINK_KEYS."""
    return f"k1:{signing.base64url(bytes(range(32)))}"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder of one's own."""
    return tmp_path / "data"
