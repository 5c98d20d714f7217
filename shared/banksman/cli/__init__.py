"""The command line. `banksman --help` lists the commands; each says what it does with `--help`."""

from __future__ import annotations

import sys

import typer

from banksman.cli import (
    access,
    agents,
    audit,
    batches,
    bench,
    company,
    figures,
    grants,
    login,
    machine,
    notify,
    policy,
    restore,
    retention,
    review,
    runs,
    show,
)
from banksman.errors import (
    BanksmanError,
    ConfigurationError,
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    NotGenuine,
    NotSignedIn,
    Unavailable,
)

_HELP = """AI agents that stop where a person must say yes, and then do exactly what was approved, once.

Commands find the nearest stack of this machine (BANKSMAN_DATA_DIR, or .banksman here or above), else the gateway of
BANKSMAN_URL and BANKSMAN_TOKEN, else the one of `banksman login`.

Exit codes: 0 done; 1 the run failed, or you said no; 2 wrong usage or configuration; 3 a conflict, such as a request
that changed or was decided meanwhile; 4 there is no such thing; 5 not signed in, or not allowed; 6 the gateway or
PostgreSQL cannot be reached.
"""

_CODES: tuple[tuple[type[BanksmanError], int], ...] = (
    (ConfigurationError, 2),
    (InvalidInput, 2),
    (Conflict, 3),
    (NotGenuine, 3),
    (NotFound, 4),
    (NotSignedIn, 5),
    (NotAllowed, 5),
    (Unavailable, 6),
)

app = typer.Typer(
    name="banksman",
    help=_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(machine.demo)
app.command()(machine.up)
app.command()(machine.init)
app.command()(machine.check)
app.command()(machine.migrate)
app.command("restore-check")(restore.restore_check)
app.command()(retention.purge)
app.command()(retention.erase)
app.command()(machine.doctor)
app.command()(bench.bench)
app.command()(login.login)
app.add_typer(access.keys, name="keys")
app.add_typer(access.reviewers, name="reviewers")
app.command()(runs.submit)
app.command("runs")(runs.runs)
app.command("show")(runs.show_run)
app.command()(runs.watch)
app.command()(runs.cancel)
app.command()(runs.retry)
app.command()(runs.fail)
app.command()(agents.agents)
app.command()(agents.pause)
app.command()(agents.resume)
app.add_typer(batches.batch, name="batch")
app.add_typer(notify.notify, name="notify")
app.add_typer(notify.webhooks, name="webhooks")
app.add_typer(policy.policy, name="policy")
app.add_typer(audit.audit, name="audit")
app.add_typer(grants.grants, name="grants")
app.command("requests")(review.requests)
app.command()(review.approve)
app.command()(review.deny)
app.command()(review.answer)
app.command()(review.settle)
app.command()(company.withdraw)
app.command()(company.remark)
app.command()(company.reveal)
app.command()(company.look)
app.command()(company.away)
app.command()(figures.insights)
app.command()(figures.receipt)
app.command("open")(review.open_inbox)
app.command()(review.mail)


def main() -> None:
    """Run a command; what goes wrong is said in a sentence and in the exit code."""
    try:
        app()
    except BanksmanError as error:
        show.complain(f"banksman: {error}")
        _show_current(error)
        sys.exit(next((code for kind, code in _CODES if isinstance(error, kind)), 1))
    except TimeoutError as error:
        show.complain(f"banksman: {error}")
        sys.exit(6)
    except KeyboardInterrupt:
        sys.exit(130)


def _show_current(error: BanksmanError) -> None:
    """Whatever a conflict says of the winner, or of what changed."""
    if isinstance(error, Conflict):
        for name, value in error.current.items():
            show.complain(f"  {name}: {value}")
