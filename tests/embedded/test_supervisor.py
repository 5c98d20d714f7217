"""The supervisor with tiny children: what it shows, what it starts again, and that nothing outlives it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from banksman.embedded import processes
from banksman.embedded.service import Service, ServiceStopped
from banksman.embedded.supervisor import Supervisor

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


def child(name: str, code: str, folder: Path, *, lifeline: bool = False, patience: float = 5) -> Service:
    argv = [sys.executable, "-c", code]
    if lifeline:
        (folder / f"{name}_module.py").write_text(code)
        argv = [sys.executable, "-m", "banksman.embedded.child", f"{name}_module"]
    return Service(name=name, argv=argv, env=dict(os.environ), cwd=folder, lifeline=lifeline, stop_within=patience)


def wait_for(fact: Callable[[], bool], within: float = 15) -> None:
    deadline = time.monotonic() + within
    while not fact():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return processes.identify(pid) is None


def test_every_line_carries_its_childs_name_and_moves_no_cursor(tmp_path: Path) -> None:
    out = io.StringIO()
    code = r"print('one\ntwo\x1b[2Jthree\x1b[31mred\x1b[0m'); import sys; sys.stdout.write('no end')"

    with Supervisor(out=out) as supervisor:
        supervisor.start(child("talker", f"{code}; sys.stdout.flush(); {SLEEP}", tmp_path))
        assert supervisor.watch(lambda: "up" in out.getvalue(), within=10)

    lines = out.getvalue().splitlines()
    assert lines[:3] == ["talker   | one", "talker   | two�[2Jthree\x1b[31mred\x1b[0m", "talker   | no endup"]


def test_a_child_that_dies_is_started_again_and_its_new_number_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    out = io.StringIO()

    with Supervisor(out=out, on_change=lambda name, pid: told.append((name, pid))) as supervisor:
        supervisor.start(child("a", SLEEP, tmp_path), child("b", SLEEP, tmp_path))
        first = supervisor.pids()

        def kill_once(turns: list[int] = []) -> bool:  # noqa: B006 - counts its own calls
            turns.append(1)
            if len(turns) == 1:
                os.kill(first["a"], signal.SIGKILL)
            return len(told) == 3

        supervisor.settled()
        assert supervisor.watch(kill_once, within=10)
        second = supervisor.pids()

    assert told == [("a", first["a"]), ("b", first["b"]), ("a", second["a"])]
    assert second["a"] != first["a"]
    assert second["b"] == first["b"]
    assert "a was killed by SIGKILL; starting it again" in out.getvalue()


def test_a_child_that_ends_while_starting_up_stops_everything_and_is_quoted(tmp_path: Path) -> None:
    code = "import sys; sys.exit('No module named acme')"

    pids: dict[str, int] = {}

    def start_and_watch() -> None:
        with Supervisor(out=io.StringIO(), on_change=pids.__setitem__) as supervisor:
            supervisor.start(child("other", SLEEP, tmp_path), child("worker", code, tmp_path))
            supervisor.watch(lambda: False, within=10)

    with pytest.raises(ServiceStopped, match=r"(?s)worker ended with code 1.*No module named acme"):
        start_and_watch()

    assert gone(pids["other"])


def test_later_groups_stop_first_and_the_deaf_are_killed(tmp_path: Path) -> None:
    out = io.StringIO()
    tell = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit()))"

    with Supervisor(out=out) as supervisor:
        supervisor.start(child("server", f"{tell}; {SLEEP}", tmp_path))
        supervisor.start(child("service", f"{tell}; {SLEEP}", tmp_path), child("deaf", DEAF, tmp_path, patience=0.3))
        assert supervisor.watch(lambda: out.getvalue().count("up") == 3, within=10)
        pids = supervisor.pids()

    said = out.getvalue()
    assert said.index("service  | bye") < said.index("deaf did not stop in time") < said.index("server   | bye")
    assert all(gone(pid) for pid in pids.values())


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_supervisor import DEAF, SLEEP, Supervisor, child
folder = Path({folder!r})
with Supervisor(record=folder / "children.json") as supervisor:
    supervisor.start(child("server", SLEEP, folder))
    supervisor.start(child("service", SLEEP, folder, lifeline=True), child("deaf", DEAF, folder, lifeline=True))
    supervisor.run()
"""


def start_script(folder: Path) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """A supervisor as a process of its own, and its children's numbers once all of them are up."""
    code = SCRIPT.format(here=str(Path(__file__).parent), folder=str(folder))
    popen = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert popen.stdout is not None
    ups = 0
    while ups < 3:
        line = popen.stdout.readline()
        assert line, "the supervisor ended early"
        ups += "| up" in line
    record = json.loads((folder / "children.json").read_text())
    return popen, {name: entry["pid"] for name, entry in record.items()}


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_all_children_and_then_the_supervisor(tmp_path: Path, sign: signal.Signals) -> None:
    popen, pids = start_script(tmp_path)

    # The deaf child takes its time; a second Ctrl-C does not grant it.
    popen.send_signal(sign)
    wait_for(lambda: gone(pids["service"]))
    popen.send_signal(signal.SIGINT)
    popen.communicate(timeout=15)

    assert popen.returncode == 0
    assert all(gone(pid) for pid in pids.values())
    assert not (tmp_path / "children.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a server is stopped by the next start")
def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    popen, pids = start_script(tmp_path)

    popen.kill()
    popen.communicate()

    wait_for(lambda: all(gone(pid) for pid in pids.values()))


def test_a_left_over_is_ended_by_the_next_start_and_a_stranger_is_not(tmp_path: Path) -> None:
    record = tmp_path / "children.json"
    left_over, stranger = (subprocess.Popen([sys.executable, "-c", SLEEP]) for _ in range(2))
    found = processes.identify(left_over.pid)
    assert found is not None
    record.write_text(
        json.dumps(
            {
                "postgres": {"pid": found.pid, "born": found.born, "stop": "SIGTERM"},
                "valkey": {"pid": stranger.pid, "born": "long ago", "stop": "SIGTERM"},
            }
        )
    )
    out = io.StringIO()

    with Supervisor(record=record, out=out):
        pass

    assert left_over.wait(5) == -signal.SIGTERM
    assert stranger.poll() is None
    assert f"postgres ({found.pid}) is left over" in out.getvalue()
    stranger.kill()
    stranger.wait()
