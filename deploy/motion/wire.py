"""The robot's end of the wire: a lost one is opened again with growing pauses, never raised about.

The pauses grow until a command has gone through, not only until the wire opens.
Source: the system's requirements, "reconnect with back-off".
"""

from deploy.plan import Command
from deploy.robots import Feedback, NotReleased, Robot, RobotLost

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
LOSSES = (RobotLost, OSError)


class Wire:
    """One robot that may be lost and come back; every call to it is made here, by the thread that ticks."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._tries = 0
        self._next_try_s: float | None = None
        self._let_go = False
        self.losses = self.reconnects = 0
        self.doubt: str | None = None
        """What may still be on although the robot was to let go; None when nothing is."""

    @property
    def lost(self) -> bool:
        """Whether there is no robot to talk to at present."""
        return self._next_try_s is not None

    def exchange(self, command: Command, now_s: float) -> tuple[Command, Feedback | None]:
        """What was really sent, and what the sensors say; `lost` tells when the wire broke."""
        try:
            sent, sensed = self._robot.send(command, now_s), self._robot.feedback(now_s)
        except LOSSES:
            self._lose(now_s)
            return command, None
        self._tries = 0
        return sent, sensed

    def sense(self, now_s: float) -> Feedback | None:
        """What the sensors say; None where there are none, or no robot."""
        try:
            return self._robot.feedback(now_s)
        except LOSSES:
            self._lose(now_s)
            return None

    def release(self, now_s: float) -> bool:
        """Let the robot go; the next `take_back` opens it anew. False where it may hold on: it counts as lost then."""
        self._let_go = True
        try:
            self._robot.release()
        except NotReleased as doubt:
            self.doubt = str(doubt)
            self._lose(now_s)
        return not self.lost

    def take_back(self, now_s: float) -> None:
        """Have a robot that was let go opened by the next `reopen`."""
        if self._let_go:
            self._robot.close()
            self._tries, self._next_try_s = 0, now_s

    def reopen(self, now_s: float) -> bool:
        """Try when it is time; whether the robot is there again. Takes as long as the robot's own `open`."""
        if self._next_try_s is None or now_s < self._next_try_s:
            return self._next_try_s is None
        try:
            self._robot.open()
        except (*LOSSES, ValueError):
            self._wait(now_s)
            return False
        self.reconnects += not self._let_go
        self._next_try_s, self._let_go, self.doubt = None, False, None
        return True

    def _lose(self, now_s: float) -> None:
        self.losses += 1
        self._wait(now_s)

    def _wait(self, now_s: float) -> None:
        self._next_try_s = now_s + PAUSES_S[min(self._tries, len(PAUSES_S) - 1)]
        self._tries += 1
