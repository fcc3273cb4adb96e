"""One client of the controller: who it says it is, whether it may drive, and what it may ask.

One guest drives; the others watch, and may stop the robot, for that is everybody's right. Where a rule is broken,
WireError or ConnectionError ends the visit.
"""

import dataclasses
from typing import Any, Protocol

from deploy.net import wire
from deploy.net.auth import Seal, is_proof, nonce, proof
from deploy.net.complaints import Bucket, Complaints
from deploy.net.connection import Connection
from deploy.net.wire import Message, WireError
from deploy.plan import AUPlan
from dyad.clock import Clock

PLANS_PER_S = 120.0
MESSAGES_PER_S = 1000.0
MOST_UNSENT_BYTES = 65536


class Driven(Protocol):
    """What the network may do to a robot; the heart implements it. All calls return at once."""

    def offer(self, plan: AUPlan) -> None:
        """A plan has come."""
        ...

    def stop(self, reason: str) -> None:
        """Emergency stop."""
        ...

    def rest(self, why: str) -> None:
        """No plans until the next one, on purpose."""
        ...

    def fault(self, reason: str) -> None:
        """Something went wrong on the loop's side."""
        ...

    def report(self) -> dict[str, Any]:
        """How the robot is, as plain data for JSON."""
        ...


class Desk:
    """What all guests share: the robot, the token, the one writer's place and the numbering of plans."""

    def __init__(self, driven: Driven, clock: Clock, robot: str, token: str | None, complaints: Complaints) -> None:
        self.driven, self.clock, self.robot, self.token, self.complaints = driven, clock, robot, token, complaints
        self.driver: Guest | None = None
        self.plans = 0
        self._base_seq = self._next_seq = 0

    def ask_to_drive(self, guest: "Guest") -> bool:
        """Whether `guest` drives from now on: only if nobody else does."""
        if self.driver is None:
            self.driver, self._base_seq = guest, self._next_seq
        return self.driver is guest

    def leave(self, guest: "Guest") -> None:
        """`guest` has gone."""
        if self.driver is guest:
            self.driver = None

    def take(self, plan: AUPlan) -> None:
        """A plan of the driver. Every connection counts from 0; the controller sees one row that goes on rising."""
        plan = dataclasses.replace(plan, seq=self._base_seq + plan.seq)
        self._next_seq = max(self._next_seq, plan.seq + 1)
        self.plans += 1
        self.driven.offer(plan)


class Guest:
    """One connection, from its challenge to its end."""

    def __init__(self, connection: Connection, peer: str, desk: Desk) -> None:
        self.connection, self.peer, self._desk = connection, peer, desk
        self.welcome = False
        self.sender = ""
        """Random name that the client keeps over its reconnections."""
        self.heard_s = desk.clock.now_s()
        self._nonce = nonce()
        self._plans, self._messages = Bucket(PLANS_PER_S, 30), Bucket(MESSAGES_PER_S, 200)

    @property
    def drives(self) -> bool:
        """Whether its plans move the robot."""
        return self._desk.driver is self

    def challenge(self) -> None:
        """Ask who it is."""
        fields = {"version": wire.VERSION, "nonce": self._nonce, "token": self._desk.token is not None}
        self._send("challenge", fields)

    def hear(self) -> None:
        """Answer all that has come."""
        for message in self.connection.receive():
            self.heard_s = self._desk.clock.now_s()
            if not self._messages.take(self.heard_s):
                raise WireError(f"more than {MESSAGES_PER_S:.0f} messages a second")
            if self.welcome:
                self._answer(message)
            else:
                self._greet(message)

    def _greet(self, message: Message) -> None:
        if message.kind != "hello":
            raise WireError(f"wanted hello first, got {message.kind}")
        desk, theirs = self._desk, message.fields["nonce"]
        if message.fields["version"] != wire.VERSION:
            self._refuse(f"wanted version {wire.VERSION}, got {message.fields['version']}; update both ends alike")
        if not is_proof(message.fields["proof"], desk.token, "loop", self._nonce, theirs):
            self._refuse("the token is not the controller's")
        self.welcome, self.sender = True, message.fields["sender"]
        if desk.driver is not None and desk.driver.sender == self.sender:
            desk.driver = None  # its connection broke, and it noticed before us
        drives = desk.ask_to_drive(self)
        fields = {"drives": drives, "proof": proof(desk.token, "controller", self._nonce, theirs), "robot": desk.robot}
        self._send("welcome", fields)
        if desk.token is not None:
            outgoing, incoming = (Seal(desk.token, who, self._nonce, theirs) for who in ("controller", "loop"))
            self.connection.seal(outgoing, incoming)

    def _answer(self, message: Message) -> None:
        if message.kind == "plan":
            self._plan(message)
        elif message.kind == "ping":
            fields = {"asked_s": message.fields["asked_s"], "received_s": self.heard_s}
            status = self._desk.driven.report()
            self._send("pong", {**fields, "answered_s": self._desk.clock.now_s(), "status": status})
        elif message.kind == "stop":
            self._desk.driven.stop(f"asked by {self.peer}: {message.fields['why']}")
        elif message.kind in ("rest", "fault", "bye"):
            self._say(message)
        else:
            raise WireError(f"{message.kind} is for the other end")

    def _plan(self, message: Message) -> None:
        complain = self._desk.complaints.say
        plan = wire.to_plan(message)
        if not self.drives:
            complain("read_only", f"{self.peer} only watches: another client drives; plan dropped", self.heard_s)
        elif not self._plans.take(self.heard_s):
            complain("too_fast", f"{self.peer}: more than {PLANS_PER_S:.0f} plans a second, dropped", self.heard_s)
        else:
            self._desk.take(plan)

    def _say(self, message: Message) -> None:
        """What the driver says of its silence; whoever only watches has no say in that."""
        driven = self._desk.driven
        if self.drives and message.kind == "fault":
            driven.fault(f"{self.peer}: {message.fields['why']}")
        elif self.drives:
            driven.rest(message.fields.get("why", "the loop left"))
        if message.kind == "bye":
            raise ConnectionError("it said goodbye")

    def _refuse(self, why: str) -> None:
        self._send("refused", {"why": why})
        raise WireError(why)

    def _send(self, kind: str, fields: dict[str, Any]) -> None:
        self.connection.send(Message(kind, fields))
        if self.connection.waiting_bytes > MOST_UNSENT_BYTES:
            raise ConnectionError("it does not read what it asked for")

    def leave(self) -> None:
        """Hang up, and free the place."""
        self._desk.leave(self)
        self.connection.close()
