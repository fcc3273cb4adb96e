"""The controller's end of the network: lets one client drive, lets others watch, and believes nobody.

One thread serves all. A message that is not understood closes its connection; plans beyond 120 a second are dropped; a
client that is silent for two seconds has left. What is late, repeated or out of order is the controller's to drop, and
a lost connection is silence like any other: the dead-man answers it, there is no second rule.
"""

import selectors
import socket
import threading
from typing import Any

from deploy.net.complaints import Bucket, Complaints
from deploy.net.connection import Connection
from deploy.net.guest import Desk, Driven, Guest
from deploy.net.wire import WireError
from dyad.clock import Clock

SILENCE_S = 2.0
"""A client that says nothing for so long has left; it pings ten times a second."""
MOST_GUESTS = 8
FAILURES = 5
"""Failed visits of one address before it is refused unheard; one is forgiven every two seconds."""
MOST_ADDRESSES = 1000


class ControllerServer:
    """Serves a listening socket in a thread of its own until `close`."""

    def __init__(
        self,
        listener: socket.socket,
        driven: Driven,
        clock: Clock,
        *,
        robot: str,
        token: str | None = None,
        complaints: Complaints | None = None,
    ) -> None:
        self._listener, self._clock = listener, clock
        self._complaints = complaints or Complaints()
        self._desk = Desk(driven, clock, robot, token, self._complaints)
        self._guests: set[Guest] = set()
        self._failures: dict[str, Bucket] = {}
        self._connections = 0
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="network", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs; it ends only by `close`, or by a mistake of ours."""
        return self._thread.is_alive()

    def report(self) -> dict[str, Any]:
        """Who drives, and counts: connections, plans, and every kind of complaint."""
        driver, counts = self._desk.driver, dict(self._complaints.counts)
        named = {"driver": driver.peer if driver else None, "connections": self._connections}
        return {**named, "plans": self._desk.plans, "complaints": counts}

    def close(self) -> None:
        """Hang up on everybody; safe to call twice."""
        if self._thread.is_alive():
            self._waker.send(b"x")
            self._thread.join(timeout=2.0)
        for guest in tuple(self._guests):
            guest.leave()
        self._guests.clear()
        for end in (self._listener, self._waker, self._woken):
            end.close()

    def _serve(self) -> None:
        with self._selector:
            while True:
                for key, events in self._selector.select(timeout=0.25):
                    if key.fileobj is self._woken:
                        return
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.data in self._guests:  # not sent away by one served before it
                        self._attend(key.data, events)
                self._dismiss_the_silent()

    def _accept(self) -> None:
        try:
            connected, address = self._listener.accept()
            connection = Connection(connected)
        except OSError:  # it left before it was let in, or there is no descriptor for it
            return
        now_s, host = self._clock.now_s(), str(address[0])
        failures = self._failures.get(host)
        if failures is not None and not failures.has_room(now_s):
            self._complaints.say("locked_out", f"{host}: too many failed visits, refused unheard for a while", now_s)
            connection.close()
            return
        self._make_room()
        guest = Guest(connection, f"{host}:{address[1]}", self._desk)
        self._connections += 1
        self._guests.add(guest)
        self._selector.register(connected, selectors.EVENT_READ, guest)
        self._attend(guest, 0, challenge=True)

    def _attend(self, guest: Guest, events: int, *, challenge: bool = False) -> None:
        try:
            if challenge:
                guest.challenge()
            if events & selectors.EVENT_READ:
                guest.hear()
            guest.connection.flush()
        except WireError as error:
            now_s, host = self._clock.now_s(), guest.peer.rpartition(":")[0]
            if len(self._failures) >= MOST_ADDRESSES:
                self._failures.clear()
            self._failures.setdefault(host, Bucket(0.5, FAILURES)).take(now_s)
            self._complaints.say(
                "refused" if not guest.welcome else "garbage", f"{guest.peer} sent away: {error}", now_s
            )
            self._dismiss(guest)
        except ConnectionError:
            self._dismiss(guest)
        else:
            writing = selectors.EVENT_WRITE if guest.connection.waiting_bytes else 0
            self._selector.modify(guest.connection.socket, selectors.EVENT_READ | writing, guest)

    def _dismiss(self, guest: Guest) -> None:
        self._selector.unregister(guest.connection.socket)
        self._guests.discard(guest)
        guest.leave()

    def _make_room(self) -> None:
        """Whoever has not shown who it is leaves first, the longest silent of them; whoever drives stays."""
        if len(self._guests) >= MOST_GUESTS:
            self._dismiss(min(self._guests, key=lambda g: (g.drives, g.welcome, g.heard_s)))

    def _dismiss_the_silent(self) -> None:
        now_s = self._clock.now_s()
        for guest in [g for g in self._guests if now_s - g.heard_s > SILENCE_S]:
            self._dismiss(guest)
