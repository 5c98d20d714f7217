"""A TCP proxy before a server, that can be made to hang, to refuse, and to let go of everybody."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress

from banksman.embedded import ports


class Proxy:
    """Passes bytes between its own port and another on loopback, in a thread of its own."""

    def __init__(self, target: int, *, host: str = ports.LOOPBACK) -> None:
        self._target = target
        self._listener = socket.create_server((host, 0))
        self._listener.setblocking(False)
        self.host, self.port = host, self._listener.getsockname()[1]
        self._peers: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._hangs = self._refuses = self._over = False
        self._thread = threading.Thread(target=self._pass, name="proxy", daemon=True)

    def start(self) -> None:
        """Begin to pass."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()

    def hang(self) -> None:
        """Open connections stay open and mute; new ones are not taken."""
        self._hangs = True

    def cut(self) -> None:
        """Every connection is reset, and new ones are refused at once."""
        self._refuses = True
        self._let_go()

    def reset(self) -> None:
        """Every connection is reset; new ones are welcome."""
        self._let_go()

    def heal(self) -> None:
        """Pass again. What hung is delivered late, as TCP would."""
        self._hangs = self._refuses = False

    def close(self) -> None:
        """Stop, and let go of everybody."""
        self._over = True
        self._thread.join()
        self._let_go()
        self._listener.close()
        self._selector.close()

    def _pass(self) -> None:
        while not self._over:
            if self._hangs:
                threading.Event().wait(0.02)
                continue
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listener:
                    self._take()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._hand_on(key.fileobj)

    def _take(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            return
        if self._refuses:
            near.close()
            return
        try:
            far = socket.create_connection((ports.LOOPBACK, self._target), timeout=1)
        except OSError:
            near.close()
            return
        with self._lock:
            for one, other in ((near, far), (far, near)):
                one.settimeout(10)
                self._peers[one] = other
                self._selector.register(one, selectors.EVENT_READ)

    def _hand_on(self, source: socket.socket) -> None:
        target = self._peers.get(source)
        if target is None:
            return
        try:
            data = source.recv(65536)
            if data:
                target.sendall(data)
                return
        except OSError:
            pass
        with self._lock:
            self._drop(source)

    def _let_go(self) -> None:
        with self._lock:
            for one in list(self._peers):
                self._drop(one)

    def _drop(self, one: socket.socket) -> None:
        for each in (one, self._peers.get(one)):
            if each is not None and self._peers.pop(each, None) is not None:
                with suppress(KeyError, ValueError):
                    self._selector.unregister(each)
                each.close()
