"""Datagrams to a face that never answers: sent without waiting, dropped where the kernel has no room.

Nobody can tell whether anyone listens at the other end, so these robots are never lost for silence; only a broken
network is noticed.
"""

import socket
from typing import Any

from deploy.robots import RobotLost


class Datagrams:
    """An outgoing UDP socket."""

    def __init__(self, robot: str, host: str, port: int) -> None:
        self._robot, self._host, self._port = robot, host, port
        self._socket: socket.socket | None = None
        self._to: Any = ()

    def open(self) -> None:
        """Resolve the host's name; ValueError when there is none."""
        self.close()
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
        except OSError as error:
            raise ValueError(
                f"robot {self._robot}: no host {self._host!r} is known here ({error}); check the address"
            ) from None
        self._socket, self._to = socket.socket(found[0], socket.SOCK_DGRAM), found[4]
        self._socket.setblocking(False)

    def send(self, data: bytes) -> bool:
        """Whether the kernel took it; one that it had no room for is dropped, as the next is newer."""
        if self._socket is None:
            raise RobotLost(f"robot {self._robot} is not open")
        try:
            self._socket.sendto(data, self._to)
        except BlockingIOError:
            return False
        except OSError as error:
            raise RobotLost(f"robot {self._robot}: the network refused a datagram ({error})") from error
        return True

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
