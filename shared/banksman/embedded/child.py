"""Runs one of our services so that it ends when its supervisor does, however that one dies.

Standard input is a pipe whose other end only the supervisor holds. When it closes, the service is
asked to stop (SIGTERM), and after a grace everything in its process group is killed: the service,
and the commands it started.

    python -m banksman.embedded.child banksman_worker
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

GRACE_SECONDS = 5.0


def follow(lifeline: int) -> None:
    """Blocks until the supervisor is gone, then ends this process and its group."""
    while os.read(lifeline, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Takes the pipe away from standard input, then becomes the module that is named."""
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=follow, args=(lifeline,), name="lifeline", daemon=True).start()
    module = sys.argv[1]
    sys.argv[:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
