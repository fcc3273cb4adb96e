"""The loop's way to a controller elsewhere: hands plans over without waiting, comes back by itself when the wire broke.

One thread does the talking. Of plans that the network did not take yet only the newest is kept: a plan that waited is
worth nothing. Who drives is settled by the controller; while another does, this link keeps asking.

An emergency stop is told in every connection anew until the controller says that it has stopped; no plan goes before,
and `close` does not give up before five more seconds have passed: then `doubt` says that it may not have come.
"""

import contextlib
import logging
import random
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from deploy.motion.states import Status
from deploy.net.address import split
from deploy.net.news import News
from deploy.net.session import NotAdmittedError, OccupiedError, Session, new_sender
from deploy.net.stop import PendingStop
from deploy.net.wire import Message, WireError, sentence
from deploy.plan import AUPlan
from dyad.clock import Clock

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
PATIENCE_S = 5.0
"""How long `open` waits for a controller."""
HOME_S = 2.0
CONFIRM_S = 5.0
"""How long `close` goes on telling an emergency stop that the controller has not confirmed."""
STATUS_AGE_S = 2.0
AT_HOME = ("waiting", "neutral", "released")

_LOG = logging.getLogger("deploy")


@dataclass
class LinkCounts:
    """What became of the plans on this side."""

    delivered: int = 0
    sent: int = 0
    replaced: int = 0
    """A newer one came before the network took them."""
    connections: int = 0


class RemoteLink:
    """A controller at `host:port`."""

    def __init__(self, address: str, clock: Clock, token: str | None = None, *, patience_s: float = PATIENCE_S) -> None:
        split(address)  # a wrong one is refused now
        self._address, self._clock, self._token, self._patience_s = address, clock, token, patience_s
        self._sender = new_sender()
        self._newest: AUPlan | None = None
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._status: tuple[float, Status] | None = None
        self._words, self._resting = deque[Message](maxlen=8), False
        self._stop, self._news = PendingStop(), News(address)
        self._problem: Exception | None = None
        self._opened, self._ending = threading.Event(), threading.Event()
        self._waker: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self.counts = LinkCounts()

    def open(self, now_s: float) -> None:
        """Connect, and learn the controller's time; ValueError when it is not there, or says no."""
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._thread.start()
        end_s = now_s + self._patience_s
        while self._thread.is_alive() and self._clock.now_s() < end_s:
            if self._opened.wait(0.05):
                return
        problem = self._problem
        self.close(home=False)
        if isinstance(problem, NotAdmittedError | OccupiedError):
            raise ValueError(str(problem)) from None
        why = f" ({problem})" if problem else ""
        raise ValueError(
            f"no controller answers at {self._address}{why}; start one there: "
            "python -m deploy.controller --robot NAME --listen HOST:PORT"
        )

    def deliver(self, plan: AUPlan | None) -> None:
        """Hand a plan over, timed on this machine's clock; returns at once. None: this frame has no plan.

        Raises when the link has ended for good: ValueError when the controller lets this loop in no more.
        """
        if self._opened.is_set() and not self._thread.is_alive() and not self._ending.is_set():
            raise self._problem or RuntimeError(f"{self._address}: the link has ended by a mistake of ours")
        if plan is None:
            return
        with self._lock:
            self._resting = False
            self.counts.delivered += 1
            self.counts.replaced += self._newest is not None
            self._newest = plan
        self._wake()

    def rest(self, why: str) -> None:
        """Say once that no plan will come until the next one, on purpose."""
        if not self._resting:
            self._resting = True
            self._words.append(sentence("rest", why))
            self._wake()

    def fault(self, why: str) -> None:
        """Have the controller's black box written; without a connection, as soon as there is one."""
        self._words.append(sentence("fault", why))
        self._wake()

    def stop(self, reason: str) -> None:
        """Ask for the emergency stop there, until it is confirmed; without a connection, as soon as there is one."""
        self._stop.why = reason
        _LOG.warning("%s: asked to stop: %s", self._address, reason)
        self._wake()

    def status(self) -> Status | None:
        """What the controller said last; None when it said nothing for two seconds."""
        said = self._status
        return said[1] if said is not None and self._clock.now_s() - said[0] <= STATUS_AGE_S else None

    @property
    def round_trip_s(self) -> float | None:
        """Of the newest exchange; None without a connection."""
        session = self._session
        return session.offset.round_trip_s if session else None

    def controller_time_s(self, here_s: float) -> float | None:
        """A moment of this clock on the controller's, as far as it is known; None without a connection."""
        session = self._session
        return session.offset.there_s(here_s) if session is not None and session.offset.known else None

    def close(self, home: bool) -> None:
        """Leave, when a stop that was asked for is confirmed, or five seconds later.

        `home`: say no more plans first, and wait until the dead-man has brought the face to neutral.
        """
        self._wait(CONFIRM_S, lambda: self._stop.why is None)
        if home and self._opened.is_set():
            self.rest("the loop leaves")
            self._wait(HOME_S, self._at_home)
        self._ending.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout=3.0)
        if self._waker is not None:
            self._waker.close()
            self._woken.close()

    @property
    def doubt(self) -> str | None:
        """A stop that was not confirmed, or what may still be on over there."""
        return self._stop.doubt(self._address) or (self._status[1].doubt if self._status else None)

    def _at_home(self) -> bool:
        status = self.status()
        return status is None or status.state in AT_HOME or status.doubt is not None

    def _wait(self, longest_s: float, is_so: Callable[[], bool]) -> None:
        """Until it is so, for as long as there is a thread that could bring it about."""
        end_s = self._clock.now_s() + longest_s
        while self._thread.is_alive() and not is_so() and self._clock.now_s() < end_s:
            if self._ending.wait(0.05):
                return

    def _wake(self) -> None:
        if self._waker is not None:
            with contextlib.suppress(OSError):  # full: it is awake anyway; closed: there is nobody to wake
                self._waker.send(b"x")

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._ending.is_set():
            try:
                self._talk()
            except NotAdmittedError as problem:
                self._problem = problem  # `open` or `deliver` says so
                return
            except (OSError, WireError) as problem:
                self._problem = problem
                if self._opened.is_set():
                    _LOG.warning("%s; connecting anew", problem)
            pause_s = FIRST_PAUSE_S if self._session and self._session.ready else min(2 * pause_s, LONGEST_PAUSE_S)
            self._session = None
            self._pause(pause_s * random.uniform(0.5, 1.0))

    def _pause(self, pause_s: float) -> None:
        """Between two tries; a stop that is not confirmed is in a hurry."""
        self._ending.wait(FIRST_PAUSE_S / 2)
        self._wait(pause_s, lambda: self._stop.why is not None)

    def _talk(self) -> None:
        """One connection, to its end."""
        self._session = session = Session(self._address, self._clock, self._token, self._sender)
        self.counts.connections += 1
        with selectors.DefaultSelector() as selector, contextlib.closing(session.connection):
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(session.connection.socket, selectors.EVENT_READ)
            while not self._ending.is_set():
                self._serve(session, selector)
            if session.ready:
                self._stop.tell(session)
                self._tell_words(session)
                session.connection.send(Message("bye"))

    def _serve(self, session: Session, selector: selectors.BaseSelector) -> None:
        until_s = session.beat()
        writing = selectors.EVENT_WRITE if session.connection.waiting_bytes else 0
        selector.modify(session.connection.socket, selectors.EVENT_READ | writing)
        for key, events in selector.select(max(until_s - self._clock.now_s(), 0.0)):
            if key.fileobj is self._woken:
                self._woken.recv(4096)
            elif events & selectors.EVENT_READ:
                session.hear()
                self._notice(session)
        session.connection.flush()
        self._stop.tell(session)
        if session.can_send and self._stop.why is None:
            self._send(session)
        if session.ready:
            self._tell_words(session)

    def _tell_words(self, session: Session) -> None:
        while self._words:
            session.connection.send(self._words.popleft())

    def _notice(self, session: Session) -> None:
        if not session.ready:
            return
        if not session.drives and self._stop.why is None:  # to stop it is everybody's right
            raise OccupiedError(f"{self._address}: another client drives the robot; end it, or wait until it leaves")
        if session.status is not None:
            self._news.hear(session.status)
            if session.drives:
                self._status = (self._clock.now_s(), session.status)
                self._opened.set()

    def _send(self, session: Session) -> None:
        with self._lock:
            plan, self._newest = self._newest, None
        if plan is not None:
            session.send(plan)
            self.counts.sent += 1
