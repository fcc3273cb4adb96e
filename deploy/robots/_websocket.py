"""A WebSocket that never makes its user wait: one slot per kind of message, written by a thread of its own.

A new message of a kind replaces the one that has not left yet, so a slow wire shows the newest pose and no queue grows.
The kernel's own buffer is kept small for the same reason. Pings notice a peer that is gone without a word.
"""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from deploy.robots import RobotLost
from deploy.robots._extras import need

PING_S = 1.0
SILENT_S = 2.0
"""A peer that answers no ping for so long is called lost."""
STUCK_S = 0.3
"""So is a wire that takes nothing for so long: after a longer stall the newest pose would come as a jump."""
MALFORMED = (ValueError, LookupError, TypeError, OverflowError, RecursionError)
"""What reading a text of the peer raises when it is not what the protocol says."""
SEND_BUFFER_BYTES = 8192


def _quiet() -> logging.Logger:
    """The library would log every message at DEBUG, and with it keys and tokens."""
    logger = logging.getLogger(__name__)
    logger.setLevel(max(logging.INFO, logger.getEffectiveLevel()))
    return logger


class Line:
    """One connection to `url`; `hear` gets every text that comes, on the line's own thread."""

    def __init__(
        self, robot: str, url: str, hear: Callable[[str], None], *, headers: dict[str, str] | None = None
    ) -> None:
        self._robot, self._url, self._hear, self._headers = robot, url, hear, headers
        self._change = threading.Condition()
        self._slots: dict[str, str] = {}
        self._writing_since: float | None = None
        self._broken: str | None = None
        self._connection: Any = None
        self._threads: list[threading.Thread] = []

    def open(self, timeout_s: float = 3.0) -> None:
        """Connect, or ValueError with a remedy; an old connection is closed first."""
        self.close()
        client: Any = need(self._robot, "websockets.sync.client", "websockets")
        failures: Any = need(self._robot, "websockets.exceptions", "websockets")
        self._failures = (failures.WebSocketException, OSError, TimeoutError)
        try:
            self._connection = client.connect(
                self._url,
                additional_headers=self._headers,
                open_timeout=timeout_s,
                ping_interval=PING_S,
                ping_timeout=SILENT_S,
                close_timeout=0.5,
                compression=None,  # a few hundred bytes; compressing them costs more than sending them
                max_size=2**24,  # a camera's picture
                proxy=None,
                logger=_quiet(),
            )
        except self._failures as error:
            raise ValueError(
                f"robot {self._robot}: no connection to {self._url} ({error or type(error).__name__}); is it switched "
                "on, and is the address right?"
            ) from None
        with contextlib.suppress(OSError):
            self._connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._broken, self._slots, self._writing_since = None, {}, None
        work = (("write", self._write), ("read", self._read))
        self._threads = [threading.Thread(target=w, name=f"{self._robot}-{n}", daemon=True) for n, w in work]
        for thread in self._threads:
            thread.start()

    def put(self, kind: str, text: str) -> None:
        """Leave a message for the writer; raises RobotLost when the wire is broken."""
        with self._change:
            self.check()
            self._slots.pop(kind, None)  # newest last, so that kinds leave in the order of their newest
            self._slots[kind] = text
            self._change.notify_all()

    def check(self) -> None:
        """Raises RobotLost when the wire is broken, or has taken nothing for too long."""
        stuck = self._writing_since is not None and time.monotonic() - self._writing_since > STUCK_S
        if self._connection is None or self._broken is not None or stuck:
            why = "takes nothing any more" if stuck else self._broken or "is not open"
            raise RobotLost(f"robot {self._robot}: the connection {why}")

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything has left; False when it did not in time."""
        with self._change:
            return self._change.wait_for(
                lambda: self._broken is not None or not (self._slots or self._writing_since), timeout_s
            )

    def wait_for(self, happened: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until what `hear` has seen makes `happened` true; False when the time or the wire ends first."""
        with self._change:
            self._change.wait_for(lambda: happened() or self._broken is not None, timeout_s)
            return happened()

    def _write(self) -> None:
        connection = self._connection
        while True:
            with self._change:
                self._writing_since = None
                self._change.notify_all()
                self._change.wait_for(lambda: self._slots or self._broken is not None)
                if self._broken is not None:
                    return
                text = self._slots.pop(next(iter(self._slots)))
                self._writing_since = time.monotonic()
            try:
                connection.send(text)
            except self._failures as error:
                self._break(f"broke ({error or type(error).__name__})")

    def _read(self) -> None:
        connection = self._connection
        try:
            for text in connection:
                if isinstance(text, str):
                    with self._change:
                        self._hear(text)
                        self._change.notify_all()
            self._break("was closed by the other side")
        except self._failures as error:
            self._break(f"broke ({error or type(error).__name__})")
        except MALFORMED as error:
            self._break(f"said what is not in its protocol ({type(error).__name__}: {error})")

    def _break(self, why: str) -> None:
        with self._change:
            self._broken = self._broken or why
            self._change.notify_all()

    def close(self) -> None:
        """Let what is written leave, then hang up; safe to call twice."""
        if self._connection is None:
            return
        done = self.flush(0.5)
        self._break("is not open")
        if not done:  # a peer that reads nothing would hold a polite goodbye for ever
            with contextlib.suppress(OSError):
                self._connection.socket.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        for thread in self._threads:
            thread.join(timeout=1.0)
        self._connection, self._threads = None, []
