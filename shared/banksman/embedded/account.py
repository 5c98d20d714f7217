"""Which account a server runs under: the caller's own, or `daemon` when the caller is root.

PostgreSQL refuses to run as root, and Valkey has no need to. It is not `nobody`: an approved `execute`
runs as that, and a command must not be able to stop the servers or to read their files.

Two things then stand in the way, and both are solved here without loosening anybody's permissions. The
data folder is root's alone (0700): a server is started *inside* its own folder and reaches it as its
working directory, which needs no right on the folders above. The binaries may lie in a virtual
environment below /root: they are copied once to a place that everybody can read and only root can write.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from banksman.errors import ConfigurationError

UNPRIVILEGED = "daemon"
CACHE = Path("/var/cache/banksman")
# To give files away, to reach them afterwards, to signal the servers, to become their user (capabilities(7)).
_RIGHTS = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7}


@dataclass(frozen=True, slots=True)
class Account:
    """The account that a server is started under; `switched` when it is not the caller's own."""

    uid: int
    gid: int
    switched: bool

    def can_enter(self, folder: Path) -> bool:
        """Whether this account may pass through every folder above."""
        above = [parent.stat() for parent in folder.resolve().parents if parent.exists()]
        return not self.switched or all(
            found.st_mode & (stat.S_IXUSR if found.st_uid == self.uid else stat.S_IXOTH) for found in above
        )

    def folder_of(self, folder: Path) -> str:
        """How a server that was started inside `folder` calls it."""
        return str(folder) if self.can_enter(folder) else "/proc/self/cwd"


def for_servers() -> Account:
    """The caller's account, or the unprivileged one when the caller is root."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switched=False)
    if missing := _missing_rights():
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and this root may not become another user (it lacks {missing}). Run "
            "as an ordinary user, or give BANKSMAN_DATABASE_URL and BANKSMAN_BROKER_URL for servers of your own."
        )
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and this machine has no account {UNPRIVILEGED!r} to run it "
            "under. Add one, run as an ordinary user, or give BANKSMAN_DATABASE_URL and BANKSMAN_BROKER_URL."
        ) from None
    return Account(entry.pw_uid, entry.pw_gid, switched=True)


def _missing_rights() -> str:
    """What a root in a container may have been stripped of, and needs here; nothing where there is no telling."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        held = int(next(line.split()[1] for line in lines if line.startswith("CapEff:")), 16)
    except (OSError, StopIteration):
        return ""
    return ", ".join(name for name, bit in _RIGHTS.items() if not held >> bit & 1)


def private_folder(folder: Path, account: Account) -> None:
    """A folder that the account owns and nobody else may enter; one that exists must be the account's."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account.switched and folder.stat().st_uid == 0:
            os.chown(folder, account.uid, account.gid)
        if folder.stat().st_uid != account.uid:
            raise ConfigurationError(
                f"{folder} belongs to user {folder.stat().st_uid}, and the server would run as user "
                f"{account.uid}. Start Banksman as the user who first did, or choose another BANKSMAN_DATA_DIR."
            )
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be prepared: {error.strerror}.") from error


def reachable(paths: Iterable[Path]) -> bool:
    """Whether every account may read these files: each, and each folder above, is open to others."""
    for path in paths:
        real = path.resolve()
        if not real.stat().st_mode & stat.S_IROTH:
            return False
        if not all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents):
            return False
    return True


def public_copy(name: str, binary: Path, parts: Mapping[str, Path]) -> Path:
    """A folder with copies of `parts` (relative name → file or folder) that every account can read.

    It is named for the content of `binary`, made once and used again; only root can have written it.
    """
    with binary.open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    reasons: list[str] = []
    for base in (CACHE, Path(tempfile.gettempdir()) / "banksman-cache"):
        target = base / f"{name}-{fingerprint}"
        try:
            base.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not target.exists():
                _copy(parts, target)
            if _only_ours(base) and _only_ours(target) and reachable([target]):
                return target
            reasons.append(f"{target} can be written by others, or not reached by them")
        except OSError as error:
            reasons.append(f"{error.filename}: {error.strerror}")
    raise ConfigurationError(
        f"{binary} lies where user {UNPRIVILEGED!r} cannot read it, and could not be copied "
        f"({'; '.join(reasons)}). Put the virtual environment where others can read it, or run as an ordinary user."
    )


def _only_ours(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _copy(parts: Mapping[str, Path], target: Path) -> None:
    """Everything under a name of its own first, so that a half-made copy is never found."""
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name, source in parts.items():
            place = draft / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, place, symlinks=True)
            else:
                shutil.copy2(source, place)
        for path in [draft, *draft.rglob("*")]:
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if executable else 0o644)
        draft.rename(target)
    except OSError:
        if not target.exists():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
