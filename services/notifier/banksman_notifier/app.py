"""The notifier's process: a Celery worker on the queue `approvals`, and the sweep beside it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

from celery import Celery

from banksman import address_guard, consumer, ledger, logs, settings, tracing, vault
from banksman.errors import BanksmanError
from banksman.ids import NoticeId
from banksman.settings import NotifierSettings
from banksman.wire import APPROVALS, Wire
from banksman_notifier import gathering, outbox, routes, tasks, watched
from banksman_notifier.channels import console, email, webhook
from banksman_notifier.deliver import HANDFUL, Office, deliver
from banksman_notifier.gateway import Gateway
from banksman_notifier.sweep import Sweep

_THREADS = 8
_CONNECTIONS = _THREADS + 6
"""For each thread that delivers, for both sweeps, and a few for webhooks, which wait for receivers most of the time."""
_MESSAGE_LIFE = 60.0

log = logs.get(__name__)


def main() -> int:
    """Run until SIGTERM or SIGINT; the exit code is 2 when the settings stop the start-up."""
    try:
        chosen = settings.read(NotifierSettings)
        logs.configure("notifier", form=chosen.log_format, level=chosen.log_level)
        vault.use(chosen.vault_keys.get_secret_value())
        tracing.configure("banksman-notifier", os.environ)
        server = email.Server.read(chosen.smtp_url.get_secret_value())
        sender = email.Sender.read(chosen.mail_from)
        outside = webhook.Outside(address_guard.allowed(chosen.webhook_allow))
        pool = ledger.open_pool(chosen.database_url.get_secret_value(), size=_CONNECTIONS, name="banksman-notifier")
    except BanksmanError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    broker_url = chosen.broker_url.get_secret_value()
    wire = Wire(broker_url, expires=_MESSAGE_LIFE)
    celery = consumer.app(broker_url, "banksman-notifier")
    office = Office(
        pool=pool,
        wire=wire,
        gateway=Gateway(chosen.gateway_url, chosen.notifier_token.get_secret_value()),
        channels=watched.each(routes.channels(pool, partial(email.opened, server, sender), outside)),
        copies=[console.opened] if chosen.console else [],
        max_attempts=chosen.max_attempts,
        lease=timedelta(seconds=chosen.claim_seconds),
    )
    windows = gathering.Windows(
        medium=timedelta(minutes=chosen.gather_medium_minutes), low=timedelta(minutes=chosen.gather_low_minutes)
    )
    office = replace(office, sort=partial(gathering.sort, office, windows))
    sweep = Sweep(office, every=chosen.sweep_seconds)
    box = outbox.Outbox(pool, office.gateway, partial(watched.opened, "webhook", partial(webhook.opened, outside)))
    post = outbox.Post(box, every=chosen.sweep_seconds)
    try:
        return _serve(office, celery, (sweep, post), (chosen.health_host, chosen.health_port))
    finally:
        sweep.stop(within=5)
        post.stop(within=5)
        office.gateway.close()
        wire.close()
        celery.close()
        pool.close()
        tracing.end()
        log.info("The notifier has stopped.")


def deliver_all(office: Office, notices: Sequence[NoticeId]) -> None:
    """Deliver announced notices, a handful at a time."""
    for start in range(0, len(notices), HANDFUL):
        deliver(office, notices[start : start + HANDFUL])


def _serve(office: Office, celery: Celery, loops: Sequence[Sweep | outbox.Post], health: tuple[str, int]) -> int:
    tasks.register(celery, partial(deliver_all, office))
    # Every delivery asks the gateway over HTTP, which is not worth a line each time.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # They work also while the broker is away, so they do not wait for it.
    for loop in loops:
        loop.start()
    return consumer.serve(celery, name="notifier", queues=[APPROVALS], threads=_THREADS, health=health)
