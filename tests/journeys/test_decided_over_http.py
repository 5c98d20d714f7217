"""The story of a program and a reviewer who have HTTP and nothing else."""

from __future__ import annotations

import json

from tests.journeys.outsider import problem
from tests.journeys.stacks import Stack

PROMPT = "Create a backup script at /backup.sh that archives the /data directory"
REFUND = "The customer of order A-1042 writes that the lamp arrived broken. Refund it."


def test_a_call_that_is_approved_runs_as_it_was_shown(calm: Stack) -> None:
    program, ana = calm.program(), calm.reviewer()

    run = program.submit("desk", REFUND, metadata={"ticket": 7})
    [request] = ana.asked(run["id"])
    decided = ana.decide(request, "approve")
    ended = program.ended(run["id"])

    assert run["id"].startswith("run_")
    assert run["status"] == "queued"
    assert (run["output"], run["error"], run["finished_at"]) == (None, None, None)
    assert request["id"].startswith("req_")
    assert request["run_id"] == run["id"]
    assert (request["kind"], request["state"], request["tool"]) == ("approval", "open", "issue_refund")
    assert request["arguments"] == {"order": "A-1042", "amount": "59.00", "currency": "EUR"}
    assert "59.00" in request["rendered"]
    assert request["revision"] == 1
    assert request["decision"] is None
    assert request["siblings"] == []
    assert request["requirement"]["tier"] == request["tier"]
    assert request["expires_at"] > request["created_at"]
    assert decided["state"] == "approved"
    assert decided["decision"]["by"] == ["ana@example.org"]
    assert ended["output"] == "Done: refunded 59.00 EUR for A-1042"
    assert ended["error"] is None
    assert ended["finished_at"] > ended["created_at"]
    assert ended["usage"]["requests"] == 3


def test_a_call_that_is_denied_does_not_run_and_the_agent_reads_why(calm: Stack) -> None:
    program, ana = calm.program(), calm.reviewer()
    run = program.submit("desk", REFUND)
    [request] = ana.asked(run["id"])

    decided = ana.decide(request, "deny", reason="Send a new lamp instead.")
    ended = program.ended(run["id"])

    assert decided["state"] == "denied"
    assert decided["decision"]["verdict"] == "denied"
    assert ended["output"] == "I did not refund it: Send a new lamp instead."


def test_a_changed_argument_is_what_runs_and_the_answer_says_so(calm: Stack) -> None:
    program, ana = calm.program(), calm.reviewer()
    run = program.submit("desk", REFUND)
    [request] = ana.asked(run["id"])

    decided = ana.decide(request, "approve", arguments={"amount": "20.00"})
    ended = program.ended(run["id"])

    assert decided["state"] == "approved"
    assert decided["revision"] == 2
    assert decided["digest"] != request["digest"]
    assert decided["arguments"] == request["arguments"] | {"amount": "20.00"}
    assert json.loads(decided["decision"]["statement"])["arguments"] == decided["arguments"]
    assert ended["output"].startswith("Done: refunded 20.00 EUR for A-1042")
    assert "A person changed the arguments of this call" in ended["output"]


def test_of_two_calls_only_the_first_is_approved(calm: Stack) -> None:
    program, ana, ben = calm.program(), calm.reviewer(), calm.reviewer("ben@example.org")
    run = program.submit("sysadmin", PROMPT)
    write, execute = ana.asked(run["id"], 2)

    first = ana.decide(write, "approve")
    between = program.run(run["id"])
    ben.decide(execute, "deny", reason="No commands today.")
    ended = program.ended(run["id"])

    assert [(item["tool"], item["state"]) for item in first["siblings"]] == [("execute", "open")]
    assert between["status"] == "waiting"
    assert ended["output"].startswith("I've created the backup script")
    assert ended["output"].endswith("I did not run it: No commands today.")
    assert program.files(run["id"]) == {"/backup.sh": write["arguments"]["content"]}


def test_of_two_calls_only_the_second_is_approved(calm: Stack) -> None:
    program, ana, ben = calm.program(), calm.reviewer(), calm.reviewer("ben@example.org")
    run = program.submit("sysadmin", PROMPT)
    write, execute = ana.asked(run["id"], 2)

    ben.decide(execute, "approve")
    ana.decide(write, "deny", reason="No scripts today.")
    ended = program.ended(run["id"])

    assert ended["output"].startswith("There is no backup script: No scripts today.")
    assert "I ran it, and it did not work" in ended["output"]
    assert program.files(run["id"]).keys() == {"/data/system.txt"}


def test_a_command_whose_script_was_changed_is_asked_again(calm: Stack) -> None:
    program, ana = calm.program(), calm.reviewer()
    run = program.submit("sysadmin", PROMPT)
    write, execute = ana.asked(run["id"], 2)

    ana.decide(execute, "approve")
    ana.decide(write, "approve", arguments={"content": "echo something else\n"})
    [again] = ana.asked(run["id"])
    ana.decide(again, "approve")
    ended = program.ended(run["id"])

    assert again["tool"] == "execute"
    assert again["arguments"] == execute["arguments"]
    assert again["digest"] != execute["digest"]
    assert again["context"]["why_again"]
    assert again["context"]["before"]["operands"].keys() == {"/backup.sh"}
    assert "echo something else" in again["rendered"]
    assert ended["output"].endswith("something else\n[Workspace: created /data/system.txt]")
    assert program.files(run["id"])["/backup.sh"] == "echo something else\n"


def test_a_second_vote_is_told_who_was_first(calm: Stack) -> None:
    program, ana, ben = calm.program(), calm.reviewer(), calm.reviewer("ben@example.org")
    run = program.submit("desk", REFUND)
    [request] = ana.asked(run["id"])
    ana.decide(request, "deny")

    late = problem(ben.vote(request, "approve"), 409)

    assert late["current"]["state"] == "denied"
    assert [winner["person"] for winner in late["current"]["decided_by"]] == ["ana@example.org"]
    assert program.ended(run["id"])["output"].startswith("I did not refund it")
