"""A second host: a network namespace whose one link to us can be cut, so that packets vanish and nobody is told."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from contextlib import ExitStack
from typing import Self

from tests.chaos.proxy import Proxy

_NOBODY = "02:00:00:00:00:01"


def missing() -> str:
    """Why there can be no second host here; empty when there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "a network namespace takes root and the command `ip`"
    probe = f"bkp{secrets.token_hex(3)}"
    tried = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if tried.returncode == 0:
        made = ["ip", "-n", probe, "link", "add", "name", "near0", "type", "veth", "peer", "name", "far0"]
        tried = subprocess.run(made, capture_output=True, text=True)
        subprocess.run(["ip", "netns", "del", probe], check=True)
    return tried.stderr.strip()


class FarHost:
    """The namespace, the link, and a way over it to each server: nothing listens but on the link's own address."""

    def __init__(self, *, postgres: int, broker: int) -> None:
        name = secrets.token_hex(3)
        self.netns, self._near, self._far = f"bkh{name}", f"bkn{name}", f"bkf{name}"
        third, fourth = secrets.randbelow(256), secrets.randbelow(64) * 4
        self.address, self._its = (f"10.231.{third}.{fourth + number}" for number in (1, 2))
        self._postgres, self._broker = postgres, broker
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as closing:
            _ip("netns", "add", self.netns)
            closing.callback(_ip, "netns", "del", self.netns)  # the link goes with it
            _ip("link", "add", "name", self._near, "type", "veth", "peer", "name", self._far, "netns", self.netns)
            _ip("addr", "add", f"{self.address}/30", "dev", self._near)
            _ip("-n", self.netns, "addr", "add", f"{self._its}/30", "dev", self._far)
            _ip("link", "set", self._near, "up")
            for device in ("lo", self._far):
                _ip("-n", self.netns, "link", "set", device, "up")
            self.postgres = Proxy(self._postgres, host=self.address)
            self.broker = Proxy(self._broker, host=self.address)
            for proxy in (self.postgres, self.broker):
                proxy.start()
                closing.callback(proxy.close)
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def cut(self) -> None:
        """Whatever either side sends goes to nobody; no connection is reset, and nothing is unreachable."""
        for where, device, other in (((), self._near, self._its), (("-n", self.netns), self._far, self.address)):
            _ip(*where, "neigh", "replace", other, "lladdr", _NOBODY, "nud", "permanent", "dev", device)

    def heal(self) -> None:
        """Packets arrive again; what is still being sent again arrives late."""
        for where, device, other in (((), self._near, self._its), (("-n", self.netns), self._far, self.address)):
            _ip(*where, "neigh", "del", other, "dev", device)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
