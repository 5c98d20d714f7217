"""An approved command: it really runs, alone, and only its own changes come back."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from banksman.errors import BanksmanError, InvalidInput, LostLease
from banksman_worker import execute as commands
from banksman_worker import scratch
from banksman_worker import workspace as workspaces
from banksman_worker.lease import HELD, Lease, clock
from banksman_worker.workspace import Workspace

# Groups that no other test session of this machine is likely to use at the same time.
MINE = range(62_200, 65_200)[os.getpid() % 999 * 3 :][:3]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


def run(workspace: Workspace, command: str, seconds: int = 30) -> str:
    return asyncio.run(commands.execute(workspace, command, seconds))


def test_a_command_sees_the_files_and_its_changes_are_kept() -> None:
    workspace = Workspace("run_1")
    workspace.write("/backup.sh", b"tar -czf out/data.tar.gz data && echo archived")
    workspace.write("/data/a.txt", b"a")
    workspace.write("/old.txt", b"old")
    workspace.write("/same.txt", b"same")

    said = run(workspace, "mkdir out && sh backup.sh && rm old.txt && echo more >> data/a.txt")

    assert said.startswith("archived")
    assert "created /out/data.tar.gz" in said
    assert "changed /data/a.txt" in said
    assert "deleted /old.txt" in said
    assert "/same.txt" not in said
    assert sorted(workspace.manifest()) == ["/backup.sh", "/data/a.txt", "/out/data.tar.gz", "/same.txt"]
    assert workspace.read("/data/a.txt") == b"amore\n"
    assert workspace.read("/out/data.tar.gz").startswith(b"\x1f\x8b")


def test_directories_made_and_removed_are_kept_too() -> None:
    workspace = Workspace("run_1")
    workspace.write("/gone/deep/file", b"x")
    workspace.add_directory("/empty")

    run(workspace, "rm -r gone && rmdir empty && mkdir -p new/one && echo x > became")
    run(workspace, "rm became && mkdir became && echo y > became/file")

    assert workspace.directories() == {"/new", "/new/one", "/became"}
    assert sorted(workspace.manifest()) == ["/became/file"]


def test_a_file_made_executable_stays_so_in_the_next_command() -> None:
    workspace = Workspace("run_1")
    workspace.write("/script", b"#!/bin/sh\necho a script\n")

    run(workspace, "cp /bin/echo tool && chmod +x tool")
    restored = Workspace.restore("run_1", workspace.manifest(), workspace.changed_blobs(()), workspace.state())

    assert run(restored, "./tool kept && ./script") == "kept\na script"


def test_a_failing_command_says_its_code_and_where_its_files_are() -> None:
    workspace = Workspace("run_1")
    workspace.write("/backup.sh", b"echo never")

    said = run(workspace, "sh /backup.sh")

    assert said.startswith("Command failed (exit code ")
    assert "/backup.sh is backup.sh there" in said


def test_a_command_gets_none_of_the_workers_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANKSMAN_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    said = run(Workspace("run_1"), "env | sort")

    names = {line.partition("=")[0] for line in said.splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"HOME", "LANG", "PATH"}
    assert "secret" not in said


def test_a_command_runs_in_a_directory_of_its_own_that_is_gone_afterwards() -> None:
    workspace = Workspace("run_1")
    workspace.write("/a", b"a")

    said = run(workspace, 'pwd; echo "$HOME"; ls -ld . | cut -c1-10; umask; tty')

    where, home, mode, umask, terminal = said.split("Command failed (exit code 1):\n")[-1].split("\n")
    assert where == home
    assert where.startswith(str(Path(tempfile.gettempdir()).resolve()))
    assert mode == "drwx------"
    assert int(umask, 8) == 0o077
    assert terminal == "not a tty"
    assert not Path(where).parent.exists()


@as_root
def test_a_command_of_a_root_worker_runs_as_nobody(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the signing key")
    secret.chmod(0o600)

    said = run(Workspace("run_1"), f"id -un; id -G; cat {secret}; kill -0 {os.getpid()}")

    assert said.splitlines()[1] == "nobody"
    assert "0" not in said.splitlines()[2].split()
    assert "the signing key" not in said
    assert "denied" in said or "not permitted" in said


def test_a_command_inherits_no_open_file_or_socket() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.set_inheritable(True)

        said = run(Workspace("run_1"), "for f in 3 4 5 6 7 8 9; do (: <&$f) 2>/dev/null && echo $f; done; true")

    assert said == "The command succeeded and printed nothing."


def test_a_command_is_stopped_at_its_deadline_with_all_it_started() -> None:
    workspace = Workspace("run_1")
    began = time.monotonic()

    said = run(workspace, "echo kept > before.txt; sleep 300 & setsid sleep 301 & sh -c 'sleep 302; true'", seconds=1)

    assert time.monotonic() - began < 20
    assert said.startswith("Command failed (exit code 124):")
    assert "stopped after 1 seconds" in said
    assert workspace.read("/before.txt") == b"kept\n"
    assert not _running("sleep", "300", "301", "302")


def test_what_a_command_leaves_in_the_background_ends_with_it() -> None:
    began = time.monotonic()

    said = run(Workspace("run_1"), "sleep 303 & nohup setsid sleep 304 & echo started")

    assert time.monotonic() - began < 20
    assert said.startswith("started")
    assert not _running("sleep", "303", "304")


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "cancelled"])
def test_a_command_whose_run_was_stopped_while_it_waited_for_its_turn_does_not_run(lost: bool) -> None:
    async def waits() -> str:
        lease = Lease(cast("Any", None), clock() + (-1 if lost else 60), asyncio.get_running_loop())
        lease.stopped = None if lost else "cancelled"
        HELD.set(lease)
        return await commands.execute(workspace, "touch ran")

    workspace = Workspace("run_1")

    with pytest.raises(LostLease, match="It did not run"):
        asyncio.run(waits())

    assert workspace.files() == {}


def test_cancelling_the_run_stops_the_command() -> None:
    async def scenario() -> None:
        task = asyncio.create_task(commands.execute(Workspace("run_1"), "sleep 305", 60))
        await asyncio.to_thread(_until, lambda: _running("sleep", "305"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(_until, lambda: not _running("sleep", "305"))

    asyncio.run(scenario())


def test_long_output_is_cut_in_the_middle_and_says_by_how_much() -> None:
    said = run(Workspace("run_1"), "echo first; head -c 1000000 /dev/zero | tr '\\0' x; echo last")

    assert said.startswith("first")
    assert said.endswith("last")
    assert len(said) < commands.MAX_OUTPUT_BYTES + 200
    total = len("first\n") + 1_000_000 + len("last\n")
    assert f"{total - commands.MAX_OUTPUT_BYTES:,} of {total:,} bytes cut here" in said


def test_output_that_is_not_text_is_still_readable() -> None:
    assert run(Workspace("run_1"), "printf 'a\\377b'") == "a\ufffdb"


def test_links_are_not_followed_and_what_was_passed_over_is_said(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("do not copy")
    tmp_path.chmod(0o755)
    workspace = Workspace("run_1")
    workspace.write("/kept", b"as it was")

    said = run(
        workspace,
        f"ln -s {outside}/secret file; ln -s {outside} directory; mkfifo pipe;"
        " rm kept; ln -s /etc/passwd kept; echo real > real",
    )

    assert sorted(workspace.manifest()) == ["/kept", "/real"]
    assert workspace.read("/kept") == b"as it was"
    for link in ("/file", "/directory", "/kept"):
        assert f"'{link}' was not kept: it is a link" in said
    assert "'/pipe' was not kept: it is not a file" in said
    assert (outside / "secret").read_text() == "do not copy"


@as_root
def test_a_file_of_another_user_is_not_taken_in() -> None:
    with scratch.private_directory() as place:
        assert place.user is not None
        (place.root / "theirs").write_text("root's")
        (place.root / "ours").write_text("nobody's")
        os.chown(place.root / "ours", place.user.uid, place.user.gid)

        left = scratch.read_back(place)

    assert list(left.files) == ["/ours"]
    assert left.notes == ["'/theirs' was not kept: it belongs to another user."]


@as_root
def test_a_command_cannot_reach_the_files_of_another_runs_command() -> None:
    victim = Workspace("run_1")
    victim.write("/secret", b"of run 1")
    spy = (
        "ls -d /tmp/banksman-execute-*/;"
        " cat /tmp/banksman-execute-*/workspace/secret /proc/[0-9]*/cwd/secret;"
        " for d in /tmp/banksman-execute-*/; do cat $d/workspace/secret; done"
    )

    async def scenario() -> str:
        task = asyncio.create_task(commands.execute(victim, "sleep 306", 60))
        await asyncio.to_thread(_until, lambda: _running("sleep", "306"))
        said = await commands.execute(Workspace("run_2"), spy, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return said

    spied = asyncio.run(scenario())

    assert "/workspace/secret: Permission denied" in spied
    assert "of run 1" not in spied


def test_what_a_killed_worker_left_is_removed_by_the_next_command(monkeypatch: pytest.MonkeyPatch) -> None:
    leave = (
        "import os, signal; from banksman_worker import scratch;"
        f"scratch._GROUPS = {MINE[:1]};"
        "held = scratch.private_directory(); place = held.__enter__();"
        "(place.root / 'left').write_text('x'); print(place.root, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", leave], capture_output=True, text=True, check=False)
    left = Path(killed.stdout.strip())
    assert left.is_absolute(), killed.stderr

    monkeypatch.setattr(scratch, "_GROUPS", MINE[1:2])
    said = run(Workspace("run_1"), "pwd; ls -A")

    assert Path(said) != left
    assert not left.parent.exists()


def test_two_commands_never_share_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_GROUPS", MINE[1:3])

    with scratch.private_directory() as one, scratch.private_directory() as two:
        assert one.root != two.root
        assert one.user is None or one.user != two.user
        with pytest.raises(BanksmanError, match="in use"), scratch.private_directory():
            pass


def test_changes_past_the_limits_are_refused_as_a_whole_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspaces, "MAX_FILE_BYTES", 100)
    workspace = Workspace("run_1")
    workspace.write("/a", b"1")

    said = run(workspace, "echo 2 > a; head -c 101 /dev/zero > big; echo done")

    assert said.startswith("done")
    assert "None of the command's changes to files were kept: /big is" in said
    assert dict(workspace.files()) == {"/a": b"1"}


def test_a_directory_the_command_locked_is_cleaned_up_all_the_same() -> None:
    workspace = Workspace("run_1")

    said = run(workspace, "pwd; mkdir -p locked/in && echo x > locked/in/file && chmod 0 locked .")

    assert not Path(said.splitlines()[0]).parent.exists()


@pytest.mark.parametrize("seconds", [0, -1, commands.MAX_SECONDS + 1])
def test_a_deadline_out_of_range_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidInput, match="timeout must be from 1 to"):
        run(Workspace("run_1"), "true", seconds)


@as_root
def test_a_temporary_directory_that_nobody_can_enter_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(closed))

    said = run(Workspace("run_1"), "cd ~ && pwd")

    assert not said.startswith(str(closed))
    assert Path(said).name == "workspace"


def _until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _running(program: str, *arguments: str) -> bool:
    """Whether any process of this machine is `program` with one of `arguments`."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0] == program and words[1:2] and words[1] in arguments:
            return True
    return False
