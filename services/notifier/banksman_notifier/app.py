"""The notifier's process: a Celery worker on the queue `approvals`, and the sweep beside it."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from functools import partial

from celery import signals

from banksman import ledger, logs, settings
from banksman.errors import BanksmanError
from banksman.ids import NoticeId
from banksman.settings import NotifierSettings
from banksman.wire import APPROVALS, Wire
from banksman_notifier import tasks
from banksman_notifier.channels import console, email
from banksman_notifier.deliver import HANDFUL, Office, deliver
from banksman_notifier.gateway import Gateway
from banksman_notifier.sweep import Sweep

_THREADS = 8
_MESSAGE_LIFE = 60.0

log = logs.get(__name__)


def main() -> int:
    """Run until SIGTERM or SIGINT; the exit code is 2 when the settings stop the start-up."""
    try:
        chosen = settings.read(NotifierSettings)
        logs.configure("notifier", form=chosen.log_format, level=chosen.log_level)
        server = email.Server.read(chosen.smtp_url.get_secret_value())
        sender = email.Sender.read(chosen.mail_from)
        pool = ledger.open_pool(
            chosen.database_url.get_secret_value(), size=_THREADS + 1, name="banksman-notifier"
        )
    except BanksmanError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    wire = Wire(chosen.broker_url.get_secret_value(), "banksman-notifier", expires=_MESSAGE_LIFE)
    office = Office(
        pool=pool,
        wire=wire,
        gateway=Gateway(chosen.gateway_url, chosen.notifier_token.get_secret_value()),
        channels={"email": partial(email.opened, server, sender)},
        copies=[console.opened] if chosen.console else [],
        max_attempts=chosen.max_attempts,
    )
    sweep = Sweep(office, every=chosen.sweep_seconds)
    try:
        return _serve(office, sweep)
    finally:
        sweep.stop(within=5)
        office.gateway.close()
        wire.close()
        pool.close()
        log.info("The notifier has stopped.")


def deliver_all(office: Office, notices: Sequence[NoticeId]) -> None:
    """Deliver announced notices, a handful at a time."""
    for start in range(0, len(notices), HANDFUL):
        deliver(office, notices[start : start + HANDFUL])


def _serve(office: Office, sweep: Sweep) -> int:
    celery = office.wire.celery
    tasks.register(celery, partial(deliver_all, office))
    # Celery announces every message and connection, and warns every root user; our own lines say what matters.
    for name in ("celery", "kombu", "amqp", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*superuser privileges.*")
    signals.setup_logging.connect(_keep_logging, weak=False)
    worker = celery.Worker(
        pool="threads",
        concurrency=_THREADS,
        queues=[APPROVALS],
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    # The sweep delivers also while the broker is away, so it does not wait for it.
    sweep.start()
    log.info("The notifier is ready.")
    worker.start()
    return int(worker.exitcode or 0)


def _keep_logging(**_: object) -> None:
    """Celery leaves logging alone when somebody answers its signal."""
