"""The loop's end of one connection: shakes hands, asks the time, sends plans; ends with an exception."""

import secrets
import socket

from deploy.motion.states import Status
from deploy.net import wire
from deploy.net.address import is_loopback, split
from deploy.net.auth import Seal, is_proof, nonce, proof
from deploy.net.clock_offset import ClockOffset, RoundTrip
from deploy.net.connection import Connection
from deploy.net.wire import Message, WireError
from deploy.plan import AUPlan
from dyad.clock import Clock
from dyad.config import from_dict

PING_EVERY_S = 0.1
FIRST_PINGS = 20
"""The first questions about the time come five times as often."""
SILENCE_S = 1.0
"""A controller that answers nothing for so long is taken for gone."""


class NotAdmittedError(ValueError):
    """The controller is there and says no: asking again changes nothing."""


class OccupiedError(ConnectionError):
    """Another client drives the robot; its place may become free."""


class Session:
    """One connection from its opening to its end."""

    def __init__(self, address: str, clock: Clock, token: str | None, sender: str) -> None:
        self._address, self._clock, self._token, self._sender = address, clock, token, sender
        self.connection = Connection(socket.create_connection(split(address), timeout=2.0))
        self.offset = ClockOffset()
        self.status: Status | None = None
        self.ready = self.drives = False
        self.robot = ""
        self._nonce, self._challenge = nonce(), ""
        self._heard_s = clock.now_s()
        self._pings, self._next_ping_s = 0, 0.0
        self._seq = 0

    def hear(self) -> None:
        """Take all that has come."""
        for message in self.connection.receive():
            self._heard_s = self._clock.now_s()
            if message.kind == "challenge" and not self._challenge:
                self._say_hello(message)
            elif message.kind == "welcome" and self._challenge and not self.ready:
                self._enter(message)
            elif message.kind == "refused":
                raise NotAdmittedError(f"{self._address}: the controller says: {message.fields['why']}")
            elif message.kind == "pong" and self.ready:
                self._learn(message)
            else:
                raise WireError(f"{self._address}: {message.kind} at the wrong moment; is that a controller?")

    def _say_hello(self, message: Message) -> None:
        where, theirs, wanted = self._address, message.fields["version"], message.fields["token"]
        if theirs != wire.VERSION:
            raise NotAdmittedError(f"{where} speaks version {theirs}, not {wire.VERSION}; update both ends alike")
        if wanted and self._token is None:
            raise NotAdmittedError(f"{where}: the controller wants a token; give --token-file FILE or RAPPORT_TOKEN")
        if not wanted and self._token is not None:
            if not is_loopback(split(where)[0]):  # whoever answers there cannot show that it is ours
                raise NotAdmittedError(f"{where}: the controller knows no token; start it with --token-file FILE")
            self._token = None
        self._challenge = message.fields["nonce"]
        shown = proof(self._token, "loop", self._challenge, self._nonce)
        fields = {"version": wire.VERSION, "nonce": self._nonce, "proof": shown, "sender": self._sender}
        self.connection.send(Message("hello", fields))

    def _enter(self, message: Message) -> None:
        if not is_proof(message.fields["proof"], self._token, "controller", self._challenge, self._nonce):
            raise NotAdmittedError(f"{self._address} does not hold the token itself; is that the right controller?")
        if self._token is not None:
            outgoing, incoming = (
                Seal(self._token, who, self._challenge, self._nonce) for who in ("loop", "controller")
            )
            self.connection.seal(outgoing, incoming)
        self.ready = True
        self.drives, self.robot = bool(message.fields["drives"]), str(message.fields["robot"])

    def _learn(self, message: Message) -> None:
        times = [message.fields[k] for k in ("asked_s", "received_s", "answered_s")]
        self.offset.add(RoundTrip(times[0], times[1], times[2], self._heard_s))
        try:
            self.status = from_dict(Status, message.fields["status"], where=f"{self._address}: status")
        except (ValueError, OverflowError) as error:  # an integer may be too long for a float
            raise WireError(str(error)) from None

    def beat(self) -> float:
        """Ask the time when it is due; returns when to call again. ConnectionError when nothing was heard too long."""
        now_s = self._clock.now_s()
        if now_s - self._heard_s > SILENCE_S:
            raise ConnectionError(f"{self._address}: nothing heard for {SILENCE_S} s")
        if self.ready and now_s >= self._next_ping_s and not self.connection.waiting_bytes:
            self.connection.send(Message("ping", {"asked_s": self._clock.now_s()}))
            self._pings += 1
            self._next_ping_s = now_s + (PING_EVERY_S if self._pings > FIRST_PINGS else PING_EVERY_S / 5)
        return max(self._next_ping_s, now_s + 0.01)

    @property
    def can_send(self) -> bool:
        """Whether a plan may go now: admitted, the time known, the last one gone."""
        return self.ready and self.offset.known and not self.connection.waiting_bytes

    def send(self, plan: AUPlan) -> None:
        """Send a plan, its times turned into the controller's, numbered from 0 in this connection."""
        there = self.offset.there_s
        times_s = plan.target_times_s + (there(plan.captured_at_s) - plan.captured_at_s)
        moved = AUPlan(self._seq, there(plan.captured_at_s), times_s, plan.au, plan.confidence, plan.flags)
        self.connection.send(wire.from_plan(moved))
        self._seq += 1


def new_sender() -> str:
    """A random name for one loop, kept over its reconnections: the controller knows who is back."""
    return secrets.token_hex(16)
