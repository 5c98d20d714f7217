"""`banksman demo` as a process of its own, with and without a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from banksman.embedded import processes

# A person's Ctrl-C arrives, even where the tests themselves were started in the background and ignore it.
DEMO = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    " from banksman.embedded.demo import run_demo; sys.exit(run_demo())"
)


def environ(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "COLUMNS": "100"}


def test_without_a_terminal_it_decides_as_the_original_did_and_shows_everything(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEMO],
        env=environ(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )

    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert "APPROVAL REQUIRED (1 of 2)" in said
    assert "APPROVAL REQUIRED (2 of 2)" in said
    assert re.search(r"Tool: +write_file\n", said)
    assert '  path: "/backup.sh"\n' in said
    assert "  content:\n    | #!/bin/sh\n" in said
    assert '    | cd "$(dirname "$0")"\n' in said
    assert '  command: "mkdir -p data' in said
    assert "write_file approved" in said
    assert "execute denied: User denied execute for safety reasons" in said
    assert "Final output:\nI've created the backup script" in said
    assert re.search(r"Files in storage:\n  /backup.sh: \d+ lines", said)
    assert list(tmp_path.iterdir()) == []


class Terminal:
    """A person at a terminal: reads until something is said, and types."""

    def __init__(self, folder: Path) -> None:
        self._fd, theirs = pty.openpty()
        self.popen = subprocess.Popen(
            [sys.executable, "-c", DEMO],
            env=environ(folder),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.said = ""
        self._from = 0

    def until(self, words: str, within: float = 90) -> None:
        deadline = time.monotonic() + within
        while words not in self.said[self._from :]:
            assert time.monotonic() < deadline, self.said
            if select.select([self._fd], [], [], 1)[0]:
                try:
                    chunk = os.read(self._fd, 65536)
                except OSError:
                    chunk = b""
                assert chunk, f"it ended before {words!r}:\n{self.said}"
                self.said += chunk.decode(errors="replace").replace("\r\n", "\n")
        self._from = self.said.index(words, self._from) + len(words)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def end(self) -> int:
        deadline = time.monotonic() + 90
        try:
            while select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                if not os.read(self._fd, 65536):
                    break
        except OSError:
            pass
        return self.popen.wait(30)

    def close(self) -> None:
        self.popen.terminate()
        self.end()
        os.close(self._fd)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path)
    yield opened
    opened.close()


def test_at_a_terminal_the_answers_are_the_persons(terminal: Terminal, tmp_path: Path) -> None:
    terminal.until("Approve? [y/n] ")
    terminal.type("maybe\n")
    terminal.until("Approve? [y/n] ")
    terminal.type("y\n")
    terminal.until(" approved")
    terminal.until("Approve? [y/n] ")
    terminal.type("n\n")
    terminal.until("Reason")
    terminal.type("Not on a Friday.\n")
    terminal.until("denied: Not on a Friday.")
    terminal.until("Final output:")

    assert terminal.end() == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_it_leaves_no_process_and_no_file(
    terminal: Terminal, tmp_path: Path, sign: signal.Signals
) -> None:
    terminal.until("Approve? [y/n] ")
    (folder,) = tmp_path.iterdir()
    children = [int(pid) for pid in re.findall(r'"pid": (\d+)', (folder / "children.json").read_text())]

    terminal.popen.send_signal(sign)

    assert terminal.end() == 130
    assert len(children) == 6
    assert not any(processes.identify(pid) for pid in children)
    assert list(tmp_path.iterdir()) == []
