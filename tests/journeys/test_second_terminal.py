"""The story of a person with two terminals: a stack in one, commands in the other."""

from __future__ import annotations

import json

from tests.journeys.stacks import Stack

REFUND = "Refund order A-1043, please: it is standing crooked."


def test_commands_carry_a_run_from_submit_to_its_end(calm: Stack) -> None:
    submitted = calm.cli("submit", "desk", REFUND)
    run_id = submitted.stdout.strip()
    [request] = calm.reviewer().asked(run_id)

    listed = calm.cli("requests", "--run", run_id, "--quiet")
    shown = calm.cli("show", request["id"])
    approved = calm.cli("approve", request["id"], "--yes", "--as", "ben@example.org")
    watched = calm.cli("watch", run_id)
    finished = calm.cli("show", run_id, "--json")

    assert submitted.returncode == 0, submitted.stderr
    assert listed.stdout.split() == [request["id"]]
    assert "issue_refund" in shown.stdout
    assert "740.00" in shown.stdout
    assert approved.returncode == 0, approved.stderr
    assert f"{request['id']} is approved." in approved.stdout
    assert watched.returncode == 0, watched.stderr
    assert "refunded 740.00 EUR for A-1043" in watched.stdout
    run = json.loads(finished.stdout)
    assert run["status"] == "finished"
    assert run["output"] == "Done: refunded 740.00 EUR for A-1043"


def test_what_went_otherwise_has_an_exit_code_of_its_own(calm: Stack) -> None:
    run = calm.program().submit("desk", REFUND)
    [request] = calm.reviewer().asked(run["id"])

    denied = calm.cli("deny", request["id"], "--yes", "--stop", "--reason", "It looks straight.")
    late = calm.cli("approve", request["id"], "--yes", "--as", "ben@example.org")
    watched = calm.cli("watch", run["id"])
    unknown = calm.cli("submit", "no-such-agent", "Do it.")

    assert denied.returncode == 0, denied.stderr
    assert late.returncode == 3
    assert "is denied already. It was ana@example.org," in late.stderr
    assert watched.returncode == 1
    assert "cancelled" in watched.stdout
    assert unknown.returncode == 2
    assert "'no-such-agent'" in unknown.stderr
