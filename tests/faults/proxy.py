"""A proxy on loopback that a test puts between a run and its server, to cut or freeze their connection."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Blow = Literal["before", "after", "freeze"]


@dataclass
class Proxy:
    """Passes bytes on until the blow falls on a message of the client's, which `when` chooses.

    `when` gets the number of the connection, from 1, and the bytes of the message, as one read returns them: both
    drivers send a command and wait for its answer. ``before`` cuts without passing it on; ``after`` passes it on and
    cuts before the answer; ``freeze`` keeps it back, with everything that follows, until `thaw` passes it on.
    """

    port_behind: int
    when: Callable[[int, bytes], bool]
    blow: Blow
    armed: bool = True
    struck: threading.Event = field(default_factory=threading.Event)
    messages: int = 0
    refuse_after: bool = False

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thawed = threading.Event()
        self._connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._thawed.set()
        self._listener.close()

    def thaw(self) -> None:
        self._thawed.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refuse_after and self.struck.is_set():
                    client.close()
                    continue
                self._connections += 1
                try:
                    server = socket.create_connection(("127.0.0.1", self.port_behind))
                except ConnectionRefusedError:  # it is dead just now
                    client.close()
                    continue
                threading.Thread(target=self._forth, args=(self._connections, client, server), daemon=True).start()
                threading.Thread(target=self._back, args=(client, server), daemon=True).start()

    def _forth(self, connection: int, client: socket.socket, server: socket.socket) -> None:
        with client, server, contextlib.suppress(OSError):
            while message := client.recv(1 << 20):
                self.messages += 1
                if self.armed and not self.struck.is_set() and self.when(connection, message):
                    self.struck.set()
                    if self.blow == "after":
                        _end(client)  # first, so that no answer gets through
                        server.sendall(message)
                        time.sleep(0.3)  # the server does its work, and nobody hears about it
                    if self.blow != "freeze":
                        _end(client)
                        _end(server)
                        return
                    self._thawed.wait(60)
                server.sendall(message)
            _end(server)

    def _back(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while answer := server.recv(1 << 20):
                client.sendall(answer)
        _end(client)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


# Not the AUTOCOMMIT that a driver sets when it connects.
_COMMIT = re.compile(rb"(?<![A-Z])COMMIT\b")


def commits(_connection: int, message: bytes) -> bool:
    return _COMMIT.search(message) is not None
