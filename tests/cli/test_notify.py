"""`banksman notify` and `banksman webhooks` from a terminal."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta

import pytest

from banksman import ids, ledger
from banksman.client import Client
from banksman.ledger import notices, staff
from banksman.shapes import Resent
from tests.cli.conftest import Banksman
from tests.gateway.scenes import Site, notices_of


def promote(site: Site, *roles: str) -> None:
    with ledger.transaction(site.gateway) as conn:
        staff.upsert(conn, site.ana.email, name="Ana", roles=["reviewer", *roles])


def test_a_person_reads_and_changes_how_they_are_told(banksman: Banksman) -> None:
    before = banksman("notify", "preferences")
    changed = banksman("notify", "preferences", "--quiet", "22:00-07:00", "--zone", "Europe/Berlin", "--low", "90")
    added = banksman("notify", "preferences", "--apprise", "slack://a/b/canary", "--json")
    more = banksman("notify", "preferences", "--apprise", "slack://c/d/e")
    without = banksman("notify", "preferences", "--quiet", "none", "--low", "default", "--forget-apprise")

    assert "quiet hours  none" in before.stdout
    assert "22:00 to 07:00 in Europe/Berlin" in changed.stdout
    assert "low 90 minutes" in changed.stdout
    assert json.loads(added.stdout)["apprise"] == ["slack://…"]
    assert (more.returncode, "cannot be read back" in more.stderr) == (2, True)
    assert without.stdout == before.stdout
    assert banksman("notify", "preferences", "--no-email").returncode == 2
    assert banksman("notify", "preferences", "--quiet", "late").returncode == 2


def test_a_test_message_tells_what_became_of_it(banksman: Banksman, site: Site, notifier_pool: ledger.Pool) -> None:
    def take(*, error: str | None) -> None:
        """Does the notifier's part."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with ledger.transaction(notifier_pool) as conn:
                for notice, fence in notices.claim(conn, lease=timedelta(minutes=1)):
                    if error is None:
                        notices.sent(conn, [(notice.id, fence)])
                    else:
                        notices.bury(conn, [(notice.id, fence)], error=error)
                    return
            time.sleep(0.05)

    def asked(*more: str, error: str | None) -> tuple[int, str]:
        notifier = threading.Thread(target=take, kwargs={"error": error})
        notifier.start()
        done = banksman("notify", "test", *more)
        notifier.join()
        return done.returncode, done.stdout

    sent = asked(error=None)
    dead = asked("--channel", "email", error="550 nobody")
    nobody = banksman("notify", "test", "--wait", "0")

    assert sent[0] == 0
    assert "was taken by the server" in sent[1]
    assert dead[0] == 1
    assert "failed: 550 nobody" in dead[1]
    assert (nobody.returncode, "does a notifier run?" in nobody.stdout) == (1, True)


def test_dead_messages_are_listed_and_sent_once_more(banksman: Banksman, site: Site) -> None:
    promote(site, "operator")
    _, [request_id] = site.a_waiting_run()
    with ledger.transaction(site.gateway) as conn:
        [notice] = notices_of(conn, request_id)
        conn.execute("UPDATE notices SET state = 'dead', due_at = NULL, last_error = '550 no\x1b[2Jbody'")

    listed = banksman("notify", "dead")
    neither = banksman("notify", "resend")
    resent = banksman("notify", "resend", ids.show("ntc", notice.id))
    everything = banksman("notify", "resend", "--all", "--json")

    assert ids.show("ntc", notice.id) in listed.stdout
    assert "\x1b" not in listed.stdout
    assert neither.returncode == 2
    assert resent.stdout == "1 message is sent once more.\n"
    assert json.loads(everything.stdout) == {"notices": []}


def test_messages_that_are_dead_again_at_once_are_sent_once_more_once(
    banksman: Banksman, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = [f"ntc_{number}" for number in range(1500)]
    pages = [dead[:1000], dead[500:], dead[500:], []]
    asked: list[int] = []

    def resend(_: Client) -> Resent:
        asked.append(len(asked))
        return Resent(notices=pages[len(asked) - 1])

    monkeypatch.setattr(Client, "resend", resend)
    resent = banksman("notify", "resend", "--all")
    pages[:] = [["ntc_1"], ["ntc_1"]]
    asked.clear()
    few = banksman("notify", "resend", "--all", "--json")

    assert resent.stdout == "1500 messages are sent once more.\n"
    assert json.loads(few.stdout) == {"notices": ["ntc_1"]}
    assert asked == [0]


def test_an_administrator_manages_webhooks(banksman: Banksman, site: Site) -> None:
    refused = banksman("webhooks", "list")
    promote(site, "admin")
    made = banksman("webhooks", "add", "https://hooks.acme.org/x", "--event", "run.finished")
    [endpoint] = json.loads(banksman("webhooks", "list", "--json").stdout)
    rotated = banksman("webhooks", "rotate", endpoint["id"])
    disabled = banksman("webhooks", "disable", endpoint["id"])
    listed = banksman("webhooks", "list")
    enabled = banksman("webhooks", "enable", endpoint["id"])
    redelivered = banksman("webhooks", "redeliver", endpoint["id"])
    removed = banksman("webhooks", "remove", endpoint["id"])

    assert refused.returncode == 5
    assert made.stdout.startswith("whsec_")
    assert rotated.stdout.startswith("whsec_")
    assert rotated.stdout != made.stdout
    assert (endpoint["events"], endpoint["secret"]) == (["run.finished"], None)
    assert "is disabled" in disabled.stdout
    assert "disabled: by hand" in listed.stdout
    assert "is live" in enabled.stdout
    assert redelivered.stdout == "0 webhooks are sent once more.\n"
    assert "is removed" in removed.stdout
    assert banksman("webhooks", "deliveries", endpoint["id"]).returncode == 4
    assert banksman("webhooks", "add", "https://127.0.0.1/").returncode == 2
