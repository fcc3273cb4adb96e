"""A bad network between a loop and its controller: a proxy that delays, loses and reorders whole messages.

`datagrams`: every message has its own delay and its own luck, so later ones overtake; in an outage all are lost.
`stream`: what TCP makes of the same network: nothing is lost or overtakes, but a lost message comes a retransmission
later and holds up all behind it, and an outage holds them until it is over. Messages are told apart by their lengths.
"""

import contextlib
import heapq
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import Literal

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How bad; times in seconds, the outages counted from the first connection."""

    kind: Literal["datagrams", "stream"]
    delay_s: tuple[float, float] = (0.01, 0.1)
    """Each message takes between these."""
    loss: float = 0.02
    outages_s: tuple[tuple[float, float], ...] = ()
    """Start and length of each."""
    retransmission_s: float = 0.2
    """What a lost message costs in a stream: the shortest time-out that Linux has."""


class BadNetwork:
    """Listens on a free port of loopback and passes on to `target`; `close` hangs up everything."""

    def __init__(self, target: tuple[str, int], weather: Weather, seed: int = 0) -> None:
        self._target, self._weather, self._random = target, weather, random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._began_s: float | None = None
        self._sockets = [self._listener]
        self.passed = self.lost = self.overtaken = 0
        threading.Thread(target=self._accept, name="bad network", daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._began_s = self._began_s or time.monotonic()
                self._sockets += [near, far]
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for source, sink in ((near, far), (far, near)):
                    _Way(self, source, sink).start()

    def arrival_s(self, sent_s: float, last_s: float) -> float | None:
        """When a message sent at `sent_s` arrives, the one before it in its direction at `last_s`; None: never."""
        weather, began_s = self._weather, self._began_s or sent_s
        arrival_s = sent_s + self._random.uniform(*weather.delay_s)
        lost = self._random.random() < weather.loss
        for start_s, length_s in weather.outages_s:
            begin_s = began_s + start_s
            if begin_s <= sent_s < begin_s + length_s:
                lost, arrival_s = True, begin_s + length_s + self._random.uniform(*weather.delay_s)
        if weather.kind == "datagrams":
            return None if lost else arrival_s
        return max(arrival_s + weather.retransmission_s * lost, last_s + 1e-6)

    def close(self) -> None:
        """No more network."""
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class _Way:
    """One direction of one connection."""

    def __init__(self, network: BadNetwork, source: socket.socket, sink: socket.socket) -> None:
        self._network, self._source, self._sink = network, source, sink
        self._heap: list[tuple[float, int, bytes]] = []
        self._change = threading.Condition()
        self._ended = False

    def start(self) -> None:
        """Read and write, a thread each."""
        for target in (self._read, self._write):
            threading.Thread(target=target, name="bad network", daemon=True).start()

    def _take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            came = self._source.recv(count - len(data))
            if not came:
                raise ConnectionError
            data += came
        return data

    def _read(self) -> None:
        number, last_s = 0, 0.0
        with contextlib.suppress(OSError):
            while True:
                head = self._take(_LENGTH.size)
                message = head + self._take(*_LENGTH.unpack(head))
                arrival_s = self._network.arrival_s(time.monotonic(), last_s)
                if arrival_s is None:
                    self._network.lost += 1
                    continue
                number, self._network.overtaken = number + 1, self._network.overtaken + (arrival_s < last_s)
                last_s = max(last_s, arrival_s)
                with self._change:
                    heapq.heappush(self._heap, (arrival_s, number, message))
                    self._change.notify()
        with self._change:
            self._ended = True
            self._change.notify()

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while (message := self._next()) is not None:
                self._sink.sendall(message)
                self._network.passed += 1
        with contextlib.suppress(OSError):
            self._sink.shutdown(socket.SHUT_RDWR)

    def _next(self) -> bytes | None:
        with self._change:
            while True:
                if not self._heap and self._ended:
                    return None
                wait_s = self._heap[0][0] - time.monotonic() if self._heap else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._heap)[2]
                self._change.wait(wait_s)
