"""The loop's way to a robot's controller: in the same process, or at `tcp://host:port`.

The loop hands plans over and never waits: a heart beats for the controller in a thread of its own, here or there.
"""

from pathlib import Path
from typing import Protocol

from deploy import robots
from deploy.motion.config import MotionConfig
from deploy.motion.controller import Controller
from deploy.motion.heart import Heart
from deploy.motion.states import Status, Times, Watch
from deploy.plan import AUPlan
from deploy.robots import Robot, Simulated
from deploy.safety.black_box import BlackBox
from dyad.clock import Clock, MonotonicClock

REMOTE = "tcp://"


class Link(Protocol):
    """One robot, wherever its controller runs."""

    def open(self, now_s: float) -> None:
        """Connect; ValueError with a remedy when that cannot be. Nothing moves but to neutral."""
        ...

    def deliver(self, plan: AUPlan | None) -> None:
        """Hand over a plan, timed on this process's clock; never waits. Raises what broke a controller of our own.

        Called once a frame: None says that this one has no plan, and the controller rides on with the last.
        """
        ...

    def rest(self, why: str) -> None:
        """No plans until the next one, on purpose: the silence that follows is no fault. May be called every frame."""
        ...

    def fault(self, why: str) -> None:
        """Something went wrong on this side: the robot's black box is written, wherever it is."""
        ...

    def stop(self, reason: str) -> None:
        """Emergency stop, latched."""
        ...

    def status(self) -> Status | None:
        """How the controller does; None when nothing is known."""
        ...

    def close(self, home: bool) -> None:
        """The end; safe to call twice. `home`: wait until the face is neutral, where another process sees to that."""
        ...

    @property
    def doubt(self) -> str | None:
        """After `close`, why somebody must look after the robot; None when all is well.

        A stop that may not have come, torque that may still be on.
        """
        ...


class LocalLink:
    """Controller and heart in this process.

    On a clock that only moves when told to there is no thread, neither the heart's nor a simulated robot's: `deliver`
    makes all ticks that are due, then takes the plan, so that a test sees the same motion every time.
    """

    def __init__(
        self,
        robot: Robot,
        clock: Clock,
        motion: MotionConfig | None = None,
        *,
        watch: Watch | None = None,
        times: Times | None = None,
        box: BlackBox | None = None,
    ) -> None:
        self.robot, self._clock = robot, clock
        if isinstance(robot, Simulated):
            robot.live_by(clock)
        watchers = [w for w in (watch, box.watch if box else None) if w is not None]
        self.controller = Controller(robot, motion, watch=_both(watchers), times=times)
        self.heart = Heart(self.controller, robot, clock, box=box)
        self._threaded = isinstance(clock, MonotonicClock)
        self._open = False

    def open(self, now_s: float) -> None:
        """Open the robot and let the heart beat; where it does not begin to, the robot is let go and closed again."""
        try:
            self.robot.open()
        except BaseException:
            self.robot.close()  # safe without `open`, too
            raise
        self._open = True
        try:
            self.heart.start(thread=self._threaded)
        except BaseException:
            self.close(home=True)
            raise

    def deliver(self, plan: AUPlan | None) -> None:
        """Taken, or refused and counted, at once; the coming ticks follow it."""
        if self.heart.error is not None:
            raise self.heart.error
        if not self._threaded:
            self.heart.catch_up(self._clock.now_s())
        self.heart.note_silence()
        if plan is not None:
            self.heart.offer(plan)

    def rest(self, why: str) -> None:
        """Noted in the black box."""
        self.heart.rest(why)

    def fault(self, why: str) -> None:
        """Written by the black box."""
        self.heart.fault(why)

    def stop(self, reason: str) -> None:
        """Emergency stop."""
        self.heart.stop(reason)

    def status(self) -> Status:
        """As of now."""
        return self.heart.status()

    def close(self, home: bool) -> None:
        """Home in any case, within 1.5 s; let go, and give the wire back."""
        if not self._open:
            return
        self._open = False
        try:
            self.heart.stop_and_home()
        finally:
            self.robot.close()

    @property
    def doubt(self) -> str | None:
        """What may still be on."""
        return self.heart.doubt


def _both(watchers: list[Watch]) -> Watch | None:
    """One callable for all who watch."""
    if len(watchers) < 2:
        return watchers[0] if watchers else None
    first, second = watchers
    return lambda moment: (first(moment), second(moment))[0]


def open_link(
    robot: str,
    calibration: Path | None = None,
    *,
    clock: Clock,
    motion: MotionConfig | None = None,
    token: str | None = None,
    watch: Watch | None = None,
    times: Times | None = None,
    box: BlackBox | None = None,
) -> Link:
    """The link to `robot` (a name, or `tcp://host:port`), not yet opened; ValueError for what cannot be.

    Elsewhere the controller has its own calibration, motion and black box: giving them here too is refused.
    """
    if not robot.startswith(REMOTE):
        return LocalLink(robots.load(robot, calibration), clock, motion, watch=watch, times=times, box=box)
    if calibration is not None:
        raise ValueError(f"{robot} has its calibration there: python -m deploy.controller --calibration {calibration}")
    from deploy.net.client import RemoteLink

    return RemoteLink(robot.removeprefix(REMOTE), clock, token)
