"""Sees to it that commands end with the worker that started them, also when nothing in the worker can run any more.

Beside each worker that runs commands stands a small shell in a session of its own, told through a pipe which process
groups there are. When the worker dies, however it dies, the pipe ends, and the shell kills every group that is left
and itself. Without it a command would go on after `kill -9` of its worker, while a person is asked whether it happened
and may say that it shall run again.
"""

from __future__ import annotations

import atexit
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager

_KEEP = """
groups=' '
while read -r what group; do
    case $what in
        +) groups="$groups$group " ;;
        -) groups="${groups%% $group *} ${groups#* $group }" ;;
    esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
"""


class Watch:
    """The shell beside one worker; it is started with the first command."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._shell: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    @contextmanager
    def over(self, group: int) -> Generator[None]:
        """A process group that is killed when this process ends within the block."""
        self._tell("+", group)
        try:
            yield
        finally:
            self._tell("-", group)

    def close(self) -> None:
        """Let the shell go, at the end of a process that ends by itself."""
        with self._lock:
            if self._shell is not None:
                self._shell.communicate()
                self._shell = None

    def _tell(self, what: str, group: int) -> None:
        with self._lock:
            (self._groups.add if what == "+" else self._groups.discard)(group)
            if self._shell is not None and self._shell.poll() is None and self._write(f"{what} {group}\n"):
                return
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _KEEP],
                env={},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                bufsize=0,
            )
            self._write("".join(f"+ {known}\n" for known in self._groups))

    def _write(self, text: str) -> bool:
        assert self._shell is not None
        assert self._shell.stdin is not None
        try:
            self._shell.stdin.write(text.encode())
        except OSError:
            return False
        return True
