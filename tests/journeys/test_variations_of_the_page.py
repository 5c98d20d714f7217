"""The variations of the page that this product grew from, each by its effect: asked on the console, on the web, on
a condition, and with the arguments changed.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

from tests.journeys.browser import Browser, form_in
from tests.journeys.stacks import Stack, environ

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
PROMPT = "Create a backup script at /backup.sh that archives the /data directory"


def test_console_the_demo_asks_and_the_answers_decide(tmp_path: Path) -> None:
    demo = environ(tmp_path / "data", TMPDIR=str(tmp_path))

    said, code = _typed(["demo"], demo, ["y", "n", "Not on this machine."])

    assert code == 0, said
    assert said.count("Approve? [y/n]") == 2
    assert "ana@example.org → write_file approved" in said
    assert "ana@example.org → execute denied: Not on this machine." in said
    final = said.partition("Final output:")[2]
    assert "I've created the backup script" in final
    assert "I did not run it: Not on this machine." in final
    assert re.search(r"Files in storage:\s+/backup.sh: \d+ lines\s*$", final)


def test_web_the_page_decides(calm: Stack) -> None:
    program = calm.program()
    run = program.submit("sysadmin", PROMPT)
    asked = {request["tool"]: request["id"] for request in program.asked(run["id"], 2)}

    with Browser(calm.url) as browser:
        inbox = browser.sign_in("ben@example.org", calm.mail)
        assert all(f"/requests/{request_id}" in inbox for request_id in asked.values())
        page = browser.open(f"/requests/{asked['execute']}")
        browser.send(form_in(page, "deny"), reason="Not from here.")
        page = browser.open(f"/requests/{asked['write_file']}")
        browser.send(form_in(page, "approve"))

    ended = program.ended(run["id"])
    assert ended["output"].startswith("I've created the backup script")
    assert ended["output"].endswith("I did not run it: Not from here.")
    assert program.files(run["id"]).keys() == {"/backup.sh"}


def test_conditional_a_write_below_the_folder_is_not_asked_and_dots_do_not_fool_it(calm: Stack) -> None:
    program, ana = calm.program(), calm.reviewer()

    run = program.submit("writer", "Write what you may.")
    [request] = program.asked(run["id"])
    before = program.files(run["id"])
    ana.decide(request, "deny", reason="That is a password file.")
    ended = program.ended(run["id"])

    assert request["tool"] == "write_file"
    assert request["arguments"]["path"] == "/workspace/../etc/passwd"
    assert program.requests(run["id"])[0]["state"] == "denied"
    assert len(program.requests(run["id"])) == 1
    assert before == program.files(run["id"]) == {"/workspace/ok.txt": "fine\n"}
    assert "That is a password file." in ended["output"]


def test_modification_the_timeout_that_the_reviewer_wrote_is_the_one_that_runs(calm: Stack) -> None:
    program = calm.program()
    run = program.submit("sysadmin", PROMPT)
    asked = {request["tool"]: request for request in program.asked(run["id"], 2)}
    execute = f"/requests/{asked['execute']['id']}"

    with Browser(calm.url) as browser:
        write = browser.sign_in(
            "ana@example.org", calm.mail, page=f"/sign-in?next=/requests/{asked['write_file']['id']}"
        )
        browser.send(form_in(write, "approve"))
        form = form_in(browser.open(f"{execute}/edit?as=json"))
        edited = form.fields["arguments"].replace('"timeout": 60', '"timeout": 30')
        confirm = browser.send(form, arguments=edited)
        browser.send(form_in(confirm, "approve"))

    ended = program.ended(run["id"])
    decided = program.request(asked["execute"]["id"])
    assert asked["execute"]["arguments"]["timeout"] == 60
    assert decided["arguments"] == asked["execute"]["arguments"] | {"timeout": 30}
    assert decided["revision"] == 2
    assert "A person changed the arguments of this call" in ended["output"]
    assert '"timeout":30' in ended["output"]
    assert any(path.startswith("/backups/data-") for path in program.files(run["id"]))


def _typed(command: list[str], env: dict[str, str], answers: list[str]) -> tuple[str, int]:
    """What a command says at a terminal where a person types an answer to each question."""
    ours, theirs = pty.openpty()
    popen = subprocess.Popen(
        [sys.executable, "-m", "banksman.cli", *command],
        cwd=env["TMPDIR"],
        env={name: value for name, value in env.items() if name != "BANKSMAN_DATA_DIR"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said, deadline = "", time.monotonic() + 120
    waiting, left = 0, list(answers)
    try:
        while chunk := _read(ours, deadline):
            said = _ESCAPES.sub("", said + chunk)
            unanswered = said[waiting:]
            if left and re.search(r"(\[y/n\]|\(the agent reads it\):) $", unanswered):
                waiting = len(said)
                os.write(ours, f"{left.pop(0)}\n".encode())
        return said, popen.wait(60)
    finally:
        if popen.poll() is None:
            popen.terminate()
            popen.wait(60)
        os.close(ours)


def _read(terminal: int, deadline: float) -> str:
    """What comes next, or nothing at the end."""
    ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
    assert ready, "the command says nothing more"
    try:
        return os.read(terminal, 65536).decode(errors="replace").replace("\r\n", "\n")
    except OSError:
        return ""
