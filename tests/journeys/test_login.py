"""The story of a person who signs in at a terminal by a code from their mail, and of a script that does the same."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Self

import httpx

from tests.journeys.outsider import Outsider
from tests.journeys.stacks import Stack, until

BEN = "ben@example.org"
REFUND = "Refund order A-1043, please: it is standing crooked."


def test_the_code_from_the_mail_gives_a_terminal_a_token_that_votes(calm: Stack, tmp_path: Path) -> None:
    run_id = calm.program().submit("desk", REFUND)["id"]
    [request] = calm.reviewer().asked(run_id)
    before = len(calm.mail.about("sign-in code", to=BEN))

    with Terminal("login", calm.url, home=tmp_path) as terminal:
        terminal.type(BEN, after="Your e-mail address")
        [mail] = until(lambda: calm.mail.about("sign-in code", to=BEN)[before:], what="the code")
        terminal.type("0" * 8, after="Code")
        terminal.type(mail.code, after="does not fit")
        code = terminal.ended()
    kept = tmp_path / ".config" / "banksman" / "login.json"
    approved = subprocess.run(
        [sys.executable, "-m", "banksman.cli", "approve", request["id"], "--yes"],
        cwd=tmp_path,
        env=away(tmp_path),
        capture_output=True,
        text=True,
    )

    assert code == 0, terminal.shown
    assert f"You are {BEN}" in terminal.shown
    assert json.loads(kept.read_text())["token"] not in terminal.shown
    assert kept.stat().st_mode & 0o777 == 0o600
    assert approved.returncode == 0, approved.stderr
    ended = calm.program().ended(run_id)
    assert ended["output"] == "Done: refunded 740.00 EUR for A-1043"
    [vote] = calm.program().request(request["id"])["votes"]
    assert (vote["by"], vote["channel"]) == (BEN, "token")


def test_a_script_does_the_same_in_two_calls(calm: Stack) -> None:
    before = len(calm.mail.about("sign-in code", to=BEN))

    with httpx.Client(base_url=calm.url, trust_env=False) as http:
        attempt = http.post("/v1/tokens", json={"email": BEN}).json()["attempt"]
        [mail] = until(lambda: calm.mail.about("sign-in code", to=BEN)[before:], what="the code")
        typed = {"attempt": attempt, "code": mail.code, "name": "nightly report"}
        made = http.post("/v1/tokens/redeem", json=typed)

    assert made.status_code == 201, made.text
    assert made.json().keys() == {"token", "expires_at", "person"}
    script = Outsider(calm.url, made.json()["token"])
    assert script.http.get("/v1/requests").status_code == 200
    script.close()
    assert "nightly report" in calm.cli("keys", "list").stdout


class Terminal:
    """A command on a terminal of its own, far from any stack's folder."""

    def __init__(self, *arguments: str, home: Path) -> None:
        self._ours, theirs = pty.openpty()
        os.set_blocking(self._ours, False)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "banksman.cli", *arguments],
            cwd=home,
            env=away(home),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def type(self, text: str, *, after: str) -> None:
        """Type a line once the terminal shows this."""
        until(lambda: after in self._read(), what=f"{after!r} on the terminal")
        os.write(self._ours, f"{text}\n".encode())

    def ended(self) -> int:
        """The exit code."""
        until(lambda: self._read() and self._process.poll() is not None, what="the command's end")
        self._read()
        return self._process.wait()

    def _read(self) -> str:
        try:
            while chunk := os.read(self._ours, 65536):
                self.shown += chunk.decode()
        except OSError:  # nothing more for now, or the other side is gone
            pass
        return self.shown


def away(home: Path) -> dict[str, str]:
    """The environment of a command that knows of no stack."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BANKSMAN_")}
    return clean | {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
