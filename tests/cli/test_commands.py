"""Commands do what they say, vote on what they have shown, and tell scripts by their exit code what happened."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import typer
from typer.testing import CliRunner

from banksman import ids, ledger
from banksman.cli import app
from banksman.client import Client
from banksman.ids import RequestId
from banksman.ledger import audit
from banksman.records import Event
from banksman.settings import GatewaySettings
from banksman.shapes import Page
from banksman.states import Kind
from tests.cli.conftest import Banksman, bearer, run
from tests.gateway.scenes import Site, asking


def req(request_id: RequestId) -> str:
    return ids.show("req", request_id)


def test_a_run_is_submitted_listed_and_shown(banksman: Banksman) -> None:
    submitted = banksman("submit", "plain", "Do \x1b[31mit.", "--tag", "nightly", "--metadata", '{"n": 1}')
    run_id = submitted.stdout.strip()

    assert re.fullmatch("run_[0-9a-f]{32}", run_id)
    assert run_id in banksman("runs").stdout
    shown = banksman("show", run_id).stdout
    assert "nightly" in shown
    assert "\x1b" not in shown
    as_json = json.loads(banksman("show", run_id, "--json").stdout)
    assert (as_json["metadata"], as_json["status"]) == ({"n": 1}, "queued")


def test_the_prompt_may_come_from_standard_input(banksman: Banksman) -> None:
    found = json.loads(banksman("submit", "plain", "--json", stdin="Do\nit.").stdout)

    assert found["prompt"] == "Do\nit."


def test_requests_are_listed_and_decided_through_a_pipe(banksman: Banksman, site: Site) -> None:
    _, asked = site.a_waiting_run(asking("c1"), asking("c2"))

    listed = banksman("requests", "--quiet").stdout
    approved = banksman("approve", "--yes", "--reason", "Fine.", stdin=listed)

    assert listed.split() == [req(request_id) for request_id in asked]
    assert approved.returncode == 0
    assert approved.stdout.count("is approved.") == 2
    assert "Nothing waits." in banksman("requests").stdout
    assert [item["state"] for item in json.loads(banksman("requests", "--state", "all", "--json").stdout)] == [
        "approved",
        "approved",
    ]


def test_what_is_approved_is_shown_in_full_with_what_hides_in_it(banksman: Banksman, site: Site) -> None:
    _, (asked,) = site.a_waiting_run(asking(arguments={"path": "/a\u202e.txt", "content": "one\ntwo\x1b[2J\n"}))

    shown = banksman("approve", req(asked), "--yes").stdout

    assert "⟦U+202E⟧" in shown
    assert "⟦U+001B⟧" in shown
    assert "\x1b" not in shown
    assert site.request(asked)["digest"] in shown


def test_nobody_is_asked_where_nobody_is(banksman: Banksman, site: Site) -> None:
    _, (asked,) = site.a_waiting_run()

    ended = banksman("approve", stdin=f"{req(asked)}\n")

    assert ended.returncode == 2
    assert "--yes" in ended.stderr
    assert site.request(asked)["state"] == "open"


def test_an_id_on_the_command_line_is_word_enough_where_nobody_can_be_asked(banksman: Banksman, site: Site) -> None:
    _, (asked,) = site.a_waiting_run()

    ended = banksman("approve", req(asked))

    assert ended.returncode == 0
    assert site.request(asked)["state"] == "approved"


def test_a_no_at_the_terminal_decides_nothing(banksman: Banksman, site: Site, tmp_path: Path) -> None:
    _, (asked,) = site.a_waiting_run()

    code, shown = at_a_terminal("n\n", "approve", req(asked), cwd=tmp_path)

    assert code == 1
    assert "Approve this?" in shown
    assert site.request(asked)["state"] == "open"


def test_a_yes_at_the_terminal_approves(banksman: Banksman, site: Site, tmp_path: Path) -> None:
    _, (asked,) = site.a_waiting_run()

    code, _ = at_a_terminal("y\n", "approve", req(asked), cwd=tmp_path)

    assert code == 0
    assert site.request(asked)["state"] == "approved"


def test_what_changed_while_one_was_asked_is_a_conflict(banksman: Banksman, site: Site, tmp_path: Path) -> None:
    _, (asked,) = site.a_waiting_run(asking(approvals=2))

    def change() -> None:
        answer = site.vote(asked, site.token(site.ben), arguments={"content": "other\n"})
        assert answer.status_code == 200, answer.text

    code, shown = at_a_terminal("y\n", "approve", req(asked), cwd=tmp_path, before_typing=change)

    assert code == 3
    assert "revision: 2" in shown


def test_a_denial_carries_its_reason(banksman: Banksman, site: Site) -> None:
    _, (asked,) = site.a_waiting_run()

    ended = banksman("deny", req(asked), "--yes", "--reason", "Not today.", "--as", "ben@example.org")

    assert ended.returncode == 0
    assert [(vote["by"], vote["reason"]) for vote in site.request(asked)["votes"]] == [
        ("ben@example.org", "Not today.")
    ]


def test_an_argument_is_changed_while_approving(banksman: Banksman, site: Site) -> None:
    _, (asked,) = site.a_waiting_run()

    ended = banksman("approve", req(asked), "-y", "--set", 'content="other\\n"')

    assert ended.returncode == 0, ended.stderr
    assert site.request(asked)["arguments"] == {"path": "/a.txt", "content": "other\n"}


def test_arguments_are_changed_in_an_editor(banksman: Banksman, site: Site, tmp_path: Path) -> None:
    _, (asked,) = site.a_waiting_run()
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/hello/edited/' \"$1\"\n")
    editor.chmod(0o755)

    ended = banksman("approve", req(asked), "-y", "--edit", env={"EDITOR": str(editor)})

    assert ended.returncode == 0, ended.stderr
    assert site.request(asked)["arguments"]["content"] == "edited\n"


def test_an_editor_that_changes_nothing_edits_nothing(banksman: Banksman, site: Site) -> None:
    _, (asked,) = site.a_waiting_run()

    ended = banksman("approve", req(asked), "-y", "--edit", env={"EDITOR": "true"})

    assert ended.returncode == 0, ended.stderr
    assert (site.request(asked)["state"], site.request(asked)["revision"]) == ("approved", 1)


def test_a_call_in_doubt_is_settled_in_words_that_the_agent_reads(banksman: Banksman, site: Site) -> None:
    _, (doubtful,) = site.a_waiting_run(asking(kind=Kind.OUTCOME, tool="pay"))

    wordless = banksman("settle", req(doubtful), "happened")
    ended = banksman("settle", req(doubtful), "happened", "--say", "It is on the account.", "--json")

    assert (wordless.returncode, ended.returncode) == (2, 0)
    assert "--say" in wordless.stderr
    assert json.loads(ended.stdout)["votes"][0]["answer"] == "It is on the account."


def test_a_question_is_answered(banksman: Banksman, site: Site) -> None:
    _, (asked,) = site.a_waiting_run(asking(kind=Kind.QUESTION, tool="ask_person"))

    ended = banksman("answer", req(asked), "A-1042", "--json")

    assert ended.returncode == 0
    assert json.loads(ended.stdout)["votes"][0]["answer"] == "A-1042"


@pytest.mark.parametrize("said", ["Infinity", "NaN", '{"a": 1, "a": 2}', "9" * 30])
def test_an_answer_that_is_no_strict_json_is_text(said: str, banksman: Banksman, site: Site) -> None:
    _, (asked,) = site.a_waiting_run(asking(kind=Kind.QUESTION, tool="ask_person"))

    ended = banksman("answer", req(asked), said, "--json")

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["votes"][0]["answer"] == said


def test_watching_ends_with_the_run_and_its_exit_code(banksman: Banksman, site: Site) -> None:
    waiting, (asked,) = site.a_waiting_run()
    banksman("approve", req(asked), "-y")
    threading.Timer(1.0, site.finish, [waiting]).start()

    watched = banksman("watch", ids.show("run", waiting))

    assert watched.returncode == 0
    assert "request.approved" in watched.stdout
    assert "done" in watched.stdout


def test_a_run_that_did_not_finish_ends_watching_with_1(banksman: Banksman, site: Site) -> None:
    waiting, _ = site.a_waiting_run()
    run_id = ids.show("run", waiting)
    assert "is cancelled" in banksman("cancel", run_id).stdout

    assert banksman("watch", run_id).returncode == 1


def test_a_run_that_was_stuck_once_is_watched_to_its_end(banksman: Banksman, site: Site) -> None:
    made = site.a_stuck_run()
    with ledger.transaction(site.worker) as conn:
        audit.append(conn, Event("dispatcher", "run.stuck", made))
    run_id = ids.show("run", made)
    stuck = banksman("watch", run_id)
    banksman("retry", run_id)
    banksman("cancel", run_id)

    watched = banksman("watch", run_id)

    assert (stuck.returncode, watched.returncode) == (1, 1)
    assert "run.stuck" in stuck.stdout
    assert "run.cancelled" in watched.stdout


def test_a_late_vote_is_told_who_cancelled_the_run(banksman: Banksman, site: Site) -> None:
    waiting, (asked,) = site.a_waiting_run()
    banksman("cancel", ids.show("run", waiting), "--as", "ben@example.org")

    late = banksman("approve", req(asked), "-y")

    assert late.returncode == 3
    assert "The run was cancelled by ben@example.org on" in late.stderr
    assert "by: ben@example.org" in late.stderr


def test_a_stuck_run_is_tried_again(banksman: Banksman, site: Site) -> None:
    run_id = ids.show("run", site.a_stuck_run())

    assert "is queued" in banksman("retry", run_id).stdout


def test_a_stuck_run_is_given_up_with_a_reason(banksman: Banksman, site: Site) -> None:
    run_id = ids.show("run", site.a_stuck_run())

    assert banksman("fail", run_id).returncode == 2
    assert "is failed" in banksman("fail", run_id, "--reason", "The account is closed.").stdout
    assert "The account is closed." in banksman("show", run_id).stdout
    assert banksman("fail", run_id, "--reason", "Twice.").returncode == 3


def test_a_file_is_written_byte_for_byte(banksman: Banksman, site: Site) -> None:
    run_id = ids.show("run", site.a_run_with_files({"/a.txt": b"one\r\ntwo"}))

    assert "/a.txt" in banksman("show", run_id, "--files").stdout
    assert banksman("show", run_id, "--file", "/a.txt").stdout == "one\ntwo"
    assert json.loads(banksman("show", run_id, "--messages").stdout) == [{"n": 1}, {"n": 22}, {"n": 3}]
    assert "run.submitted" in banksman("show", run_id, "--timeline").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "run_" + "0" * 32], 4, "There is no run"),
        (["approve", "req_" + "0" * 32, "-y"], 4, "There is no request"),
        (["submit", "nope", "Do it."], 2, "no agent 'nope'"),
        (["show", "nonsense"], 2, "is not an id"),
        (["approve", "-y"], 2, "no id of the form req_"),
        (["requests", "--state", "sleeping"], 2, "state"),
        (["deny", "req_" + "0" * 32, "-y", "--as", "eve@example.org"], 2, "none of this stack's reviewers"),
        (["approve", "req_" + "0" * 32, "-y", "--set", "a=b"], 2, "is not JSON"),
        (["submit", "plain", "x", "--metadata", "[]"], 2, "must be a JSON object"),
        (["submit", "plain", "x", "--metadata", '{"a": NaN}'], 2, "--metadata holds NaN"),
        (["submit", "plain", "\udcff"], 2, "holds a value that JSON does not have"),
        (["approve", "req_" + "0" * 32, "-y", "--set", "a=-Infinity"], 2, "The value of 'a' holds -Infinity"),
        (["notify", "preferences", "--medium", "inf"], 2, "'inf' is no number of minutes"),
        (["mail", "7"], 2, "There are 0 mails."),
        (["no-such-command"], 2, "No such command"),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_an_exit_code(
    arguments: list[str], code: int, said: str, banksman: Banksman
) -> None:
    ended = banksman(*arguments, stdin="")

    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr


def test_the_second_to_decide_is_told_so(banksman: Banksman, site: Site) -> None:
    _, (asked,) = site.a_waiting_run()
    banksman("approve", req(asked), "-y")

    ended = banksman("deny", req(asked), "-y", "--as", "ben@example.org")

    assert ended.returncode == 3
    assert "approved" in ended.stderr
    assert "ana@example.org" in ended.stderr


def test_a_gateway_that_is_away_is_exit_code_6(tmp_path: Path) -> None:
    away = {"BANKSMAN_URL": "http://127.0.0.1:1", "BANKSMAN_TOKEN": "token"}

    ended = run("runs", cwd=tmp_path, env=away)

    assert ended.returncode == 6
    assert "cannot be reached" in ended.stderr


def test_without_any_stack_it_says_how_to_get_one(tmp_path: Path) -> None:
    ended = run("runs", cwd=tmp_path)

    assert ended.returncode == 2
    assert "banksman up" in ended.stderr


def test_a_login_is_kept_once_the_gateway_has_accepted_it(site: Site, served: GatewaySettings, tmp_path: Path) -> None:
    token = bearer(site.token(site.ana))
    wrong = run("login", served.public_url, "--token", cwd=tmp_path, stdin="wrong\n")
    kept = run("login", served.public_url, "--token", cwd=tmp_path, stdin=f"{token}\n")

    assert wrong.returncode == 5
    assert kept.returncode == 0, kept.stderr
    assert (tmp_path / ".config" / "banksman" / "login.json").stat().st_mode & 0o777 == 0o600
    assert run("requests", cwd=tmp_path).returncode == 0


def test_a_kept_token_goes_to_the_gateway_that_it_is_for_and_to_no_other(
    site: Site, served: GatewaySettings, tmp_path: Path
) -> None:
    token = bearer(site.token(site.ana))
    assert run("login", served.public_url, "--token", cwd=tmp_path, stdin=f"{token}\n").returncode == 0

    same = run("requests", cwd=tmp_path, env={"BANKSMAN_URL": served.public_url + "/"})
    other = run("requests", cwd=tmp_path, env={"BANKSMAN_URL": "http://127.0.0.1:1"})
    homeless = run("requests", cwd=tmp_path, env={"BANKSMAN_TOKEN": token})

    assert same.returncode == 0, same.stderr
    assert other.returncode == 2
    assert f"the login that is kept is for {served.public_url}, not for http://127.0.0.1:1" in other.stderr
    assert homeless.returncode == 2
    assert "BANKSMAN_URL is not set" in homeless.stderr


def test_a_key_that_may_not_read_runs_is_kept_as_well(site: Site, served: GatewaySettings, tmp_path: Path) -> None:
    key = bearer(site.key("runs:submit"))

    kept = run("login", served.public_url, "--token", cwd=tmp_path, stdin=f"{key}\n")

    assert kept.returncode == 0, kept.stderr
    assert re.fullmatch("run_[0-9a-f]{32}", run("submit", "plain", "Do it.", cwd=tmp_path).stdout.strip())


def test_without_a_terminal_a_login_takes_a_token_and_asks_for_no_code(
    site: Site, served: GatewaySettings, tmp_path: Path
) -> None:
    ended = run("login", served.public_url, cwd=tmp_path, stdin="ana@example.org\n")

    assert ended.returncode == 2
    assert "--token" in ended.stderr
    assert run("login", cwd=tmp_path).returncode == 2
    with ledger.transaction(site.gateway) as conn:
        assert conn.execute("SELECT FROM notices").fetchall() == []


def test_caught_mail_is_listed_and_shown(banksman: Banksman, tmp_path: Path) -> None:
    for number, to in enumerate(["ana@example.org", "ben@example.org"]):
        mail = EmailMessage()
        mail["To"], mail["Subject"], mail["Date"] = (to, f"Number {number}", "Sun, 22 Nov 2026 12:00:00 +0000")
        mail.set_content(f"Hello \x1b[31m{to}\n")
        folder = tmp_path / ".banksman" / "mail" / "new"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.mail").write_bytes(bytes(mail))
        os.utime(folder / f"{number}.mail", (number, number))

    listed, newest = banksman("mail").stdout, banksman("mail", "1").stdout

    assert listed.index("Number 1") < listed.index("Number 0")
    assert "Hello" in newest
    assert "\x1b" not in newest
    assert [mail["subject"] for mail in json.loads(banksman("mail", "--to", "ana@example.org", "--json").stdout)] == [
        "Number 0"
    ]


def test_open_prints_where_the_inbox_is(banksman: Banksman, served: GatewaySettings, site: Site) -> None:
    _, (asked,) = site.a_waiting_run()

    assert banksman("open").stdout.strip() == served.public_url + "/"
    ended = banksman("open", req(asked), "--print")
    assert ended.stdout.strip() == f"{served.public_url}/requests/{req(asked)}"
    assert "ana@example.org" in ended.stderr


def test_the_doctor_finds_all_well_and_what_is_not(banksman: Banksman, tmp_path: Path) -> None:
    well = banksman("doctor")
    facts = json.loads((tmp_path / ".banksman" / "stack.json").read_text())
    (tmp_path / ".banksman" / "stack.json").write_text(json.dumps(facts | {"pids": {"worker-1": 2**22 + 1}}))
    ill = banksman("doctor", "--json")

    assert well.returncode == 0, well.stdout
    assert ill.returncode == 1
    assert [finding["what"] for finding in json.loads(ill.stdout) if not finding["good"]] == ["processes"]


def test_the_doctor_counts_requests_as_far_as_it_has_seen_them(
    banksman: Banksman, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Page[Any]:
        return Page((None,) * 200, "more")

    monkeypatch.setattr(Client, "requests", full)

    assert "accepted; 200 or more requests are open" in banksman("doctor").stdout


def test_the_doctor_says_that_an_address_is_none(tmp_path: Path) -> None:
    env = {"BANKSMAN_URL": "http://localhost:eight", "BANKSMAN_TOKEN": "token"}

    found = json.loads(run("doctor", "--json", cwd=tmp_path, env=env).stdout)

    assert [finding["what"] for finding in found if not finding["good"]] == ["gateway ready", "credential"]


def test_a_receipt_is_in_the_time_of_its_zone(banksman: Banksman, site: Site) -> None:
    _, (asked,) = site.a_waiting_run()
    banksman("approve", req(asked), "-y")

    [item] = json.loads(banksman("receipt", "--zone", "Asia/Tokyo", "--json").stdout)["items"]
    shown = banksman("receipt", "--zone", "Asia/Tokyo").stdout

    there = datetime.fromisoformat(item["at"]).astimezone(ZoneInfo("Asia/Tokyo"))
    assert f"{there:%H:%M:%S}  approve" in shown
    assert banksman("receipt", "--zone", "Mars").returncode == 2


def test_the_doctor_does_not_look_at_a_gateway_that_it_has_not_found(banksman: Banksman, tmp_path: Path) -> None:
    (tmp_path / ".banksman" / "stack.json").unlink()
    found = json.loads(banksman("doctor", "--json").stdout)

    assert [finding["what"] for finding in found if not finding["good"]] == ["gateway found"]
    assert found[-1]["what"] == "gateway found"


def test_a_database_that_does_not_answer_is_said_in_one_line(tmp_path: Path) -> None:
    url = "postgresql://nobody@127.0.0.1:1/nowhere"
    ended = subprocess.run(
        [sys.executable, "-m", "banksman.cli", "migrate"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "BANKSMAN_DATABASE_URL": url},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 6
    assert ended.stderr.startswith("banksman: PostgreSQL cannot be reached for the migration: ")
    assert ended.stderr.count("\n") == 1
    assert "⟦" not in ended.stderr


def test_help_loads_nothing_that_it_does_not_print_with_and_tells_the_exit_codes(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "banksman.cli", "--help"]

    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    packages = {name.partition(".")[0] for name in loaded}

    assert "Exit codes:" in ended.stdout
    assert {"banksman", "typer"} <= packages
    assert not packages & {"asyncio", "celery", "cryptography", "fastapi", "httpx", "psycopg", "pydantic", "ssl"}
    assert len(loaded) < 350


def test_every_command_explains_itself() -> None:
    commands = set(typer.main.get_group(app).list_commands(typer.Context(typer.main.get_group(app))))

    for command in sorted(commands):
        shown = CliRunner().invoke(app, [command, "--help"])
        assert shown.exit_code == 0
        assert f"Usage: banksman {command}" in shown.output
    wanted = (
        "demo up init check migrate doctor login keys reviewers submit runs show watch cancel retry requests"
        " approve deny answer settle"
    )
    assert {*wanted.split(), "open", "mail"} <= commands


def at_a_terminal(
    typed: str, *arguments: str, cwd: Path, before_typing: Callable[[], None] | None = None
) -> tuple[int, str]:
    """Run a command on a terminal of its own, and type once it asks."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "banksman.cli", *arguments],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if not k.startswith("BANKSMAN_")},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown, asked = b"", False
    while chunk := _read(ours):
        shown += chunk
        if b"this?" in shown and not asked:
            asked = True
            if before_typing is not None:
                before_typing()
            os.write(ours, typed.encode())
    os.close(ours)
    return process.wait(), shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how a terminal says that the other side is gone
        return b""
