"""The simulated head: MuJoCo physics at 500 Hz with real servo dead time and inertia, read back through joint sensors.

By the machine's clock its physics runs in a thread of its own (`live_by`, which deploy.link calls): the servos move
whether or not anyone talks to them, and readings bear the time that they are of. On any other clock, and without one,
physics runs up to the time it is asked for by every `send` and `feedback`, and the same calls give the same motion to
the last bit. How late its servos are is the head's own affair (deploy.head.model), whatever its calibration says of it.
It has no address; `--robot` alone means `sim` in deploy.run.
"""

import weakref

from deploy.calibration import Calibration
from deploy.head.model import CHANNELS, DEAD_TIME_S, NAMES, TIME_CONSTANT_S
from deploy.head.pacer import Pacer
from deploy.head.physics import Physics, PhysicsBrokenError
from deploy.plan import Command
from deploy.robots import Feedback, RobotLost
from dyad.clock import Clock, MonotonicClock


class SimRobot:
    """The head of `deploy.head` on MuJoCo."""

    def __init__(
        self, calibration: Calibration, *, dead_time_s: float = DEAD_TIME_S, time_constant_s: float = TIME_CONSTANT_S
    ) -> None:
        """The servos are truly this late; ValueError when `calibration` is not one of this head."""
        if calibration.names != NAMES:
            odd = sorted(set(calibration.names) ^ set(NAMES)) or ["their order"]
            raise ValueError(f"calibration {calibration.robot}: the head's channels differ in {', '.join(odd)}")
        ends = [(c.low, c.high) for c in calibration.channels.values()]
        if ends != [(c.low, c.high) for c in CHANNELS]:
            raise ValueError(f"calibration {calibration.robot}: ends of travel differ from the head's (deploy/head)")
        self.calibration, self._late = calibration, (dead_time_s, time_constant_s)
        self.pacer: Pacer | None = None
        """The thread of an open head in real time."""
        self._clock: MonotonicClock | None = None
        self._physics: Physics | None = None
        self._forgotten: weakref.finalize[..., SimRobot] | None = None

    def live_by(self, clock: Clock) -> None:
        """From the next `open` on, in a thread of its own when `clock` is the machine's, else as far as it is asked."""
        self._clock = clock if isinstance(clock, MonotonicClock) else None

    def open(self) -> None:
        """Build the model at neutral; in real time it lives from now on."""
        self._end()
        self._physics = Physics(*self._late)
        if self._clock is not None:
            self.pacer = Pacer(self._physics, self._clock)
            self._forgotten = weakref.finalize(self, self.pacer.end)  # the thread never outlives its robot

    def advance(self, now_s: float) -> None:
        """Run physics up to `now_s`, where it does not run by itself; RobotLost when it has broken."""
        error = None if self.pacer is None else self.pacer.error
        try:
            if self.pacer is None:
                self._opened().advance(now_s)
        except PhysicsBrokenError as broken:
            error = broken
        if error is not None:
            raise RobotLost(
                f"robot sim: its physics has ended ({type(error).__name__}: {error}); open it again"
            ) from error

    def _opened(self) -> Physics:
        if self._physics is None:
            raise RobotLost("robot sim is not open")
        return self._physics

    def be_late(self, dead_time_s: float) -> None:
        """Change the servos' dead time while they run: what wear, cold or another robot would do."""
        self._opened().be_late(dead_time_s)

    def send(self, command: Command, now_s: float) -> Command:
        """Command the servos."""
        self._opened().command(self.calibration.device_values(command.shares), now_s)
        self.advance(now_s)
        return command

    def feedback(self, now_s: float) -> Feedback:
        """Joint sensors now; in real time as of the last step, with its time."""
        physics = self._opened()
        self.advance(now_s)
        at_s, joints = physics.reading()
        return Feedback(now_s if self.pacer is None else at_s, self.calibration.shares_of(joints), joints)

    def release(self) -> None:
        """The head rests where it is."""

    def close(self) -> None:
        """End the thread; nothing else to give back."""
        self._end()

    def _end(self) -> None:
        if self.pacer is not None and self._forgotten is not None:
            self._forgotten.detach()
            self.pacer.end()
        self.pacer = self._physics = None


def make(calibration: Calibration, address: str) -> SimRobot:
    """Entry point of `deploy.robots.load`."""
    if address:
        raise ValueError(f"robot sim takes no address, got {address!r}")
    return SimRobot(calibration)
