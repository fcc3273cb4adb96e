"""From plans to commands: the one place that moves a robot, and the one that keeps it safe.

Every tick asks, channel by channel, what pose is wanted when a command given now will have reached the motors, reads
the buffered plans there, smooths, and sends what the limits allow. No plan for too long: home. A lost wire: open it
again and start from the measured pose. An emergency stop is latched: home, then let go; a robot that is lost while
stopped is left alone.

One thread keeps time: it calls `start` once and `tick` at the calibration's rate, and it alone talks to the robot.
`offer`, `stop`, `rearm` and `status` may come from any thread and never wait for the robot.  Shapes: C channels.
"""

import threading
import time

import numpy as np

from deploy.calibration import Mixer
from deploy.motion import smooth
from deploy.motion.config import MotionConfig
from deploy.motion.course import Pace, bounded_reach, next_state
from deploy.motion.degrade import Degrade, PlanAge
from deploy.motion.holds import HoldRule
from deploy.motion.jitter_buffer import PlanBuffer
from deploy.motion.latency import LookAhead
from deploy.motion.limits import Channels, Limiter
from deploy.motion.rhythm import Rhythm
from deploy.motion.states import Counts, Moment, State, Status, Times, Verdict, Watch
from deploy.motion.wire import Wire
from deploy.plan import AUPlan, Command
from deploy.robots import Feedback, Robot

__all__ = ["Controller", "Moment", "MotionConfig", "Status", "Verdict"]

MOVING: tuple[State, ...] = ("following", "holding")


class Controller:
    """One robot's motion."""

    def __init__(
        self,
        robot: Robot,
        config: MotionConfig | None = None,
        *,
        watch: Watch | None = None,
        times: Times | None = None,
    ) -> None:
        config, calibration = config or MotionConfig(), robot.calibration
        channels, period_s = len(calibration.names), 1 / calibration.rate_hz
        self._config, self._calibration = config, calibration
        self._watch, self._times = watch, times
        self._mixer, self._wire = Mixer(calibration), Wire(robot)
        self._pace = Pace.of(calibration, config)
        self._limiter = Limiter(*calibration.limits, np.where(calibration.one_way, 0.0, -1.0))
        self._smoother, self._holds = smooth.make(config.smoothing, channels), HoldRule(calibration)
        self._degrade, self._buffer = Degrade(config.degrade_over_s), PlanBuffer(config)
        self.rhythm = Rhythm(period_s)
        """When ticks are due."""
        motor_lag_s = calibration.dead_time_s + calibration.time_constant_s
        self._look = LookAhead(channels, self._smoother.lag_s() + period_s, motor_lag_s, config)
        self._lock = threading.RLock()
        self._counts = Counts()
        self._state: State = "waiting"
        self._stopped: str | None = None
        self._home_since_s: float | None = None
        self._rearmed = False
        self._age = PlanAge()
        self._neutral = np.zeros(channels)
        self._goal: Channels = self._neutral
        self._command = Command(0, 0.0, self._neutral, ("waiting",))

    def start(self, now_s: float) -> None:
        """Begin with an open robot, at its measured pose where it has sensors; the first ticks bring it to neutral."""
        sensed = self._wire.sense(now_s)
        with self._lock:
            self._begin(sensed)

    def _begin(self, sensed: Feedback | None) -> None:
        self._limiter.reset(self._command.shares if sensed is None else sensed.shares)
        self._look.forget()
        self.rhythm.pause()
        self._home_since_s = None
        self._state = "lost" if self._wire.lost else "waiting" if self._stopped is None else "stopped"

    def offer(self, plan: AUPlan, now_s: float) -> Verdict:
        """Take a plan, or say why not; a plan is taken or refused whole."""
        with self._lock:
            verdict: Verdict = "refused" if self._stopped is not None else self._buffer.judge(plan, now_s)
            if verdict == "taken":
                intensity = self._degrade.keep(self._calibration.intensity(plan.au))
                self._buffer.add(plan, self._mixer.mix(intensity), now_s)
                self.rhythm.came(now_s)
            setattr(self._counts, verdict, getattr(self._counts, verdict) + 1)
            return verdict

    def tick(self, now_s: float) -> Command:
        """Send one command; the last one again, unsent, when none is due (lost, released, degraded)."""
        began = time.perf_counter()
        if not self._connected(now_s):
            return self._tell(now_s, self._command.shares, None)
        with self._lock:
            if self._state == "released" or now_s <= self.rhythm.ticked_s:
                intended, command = self._command.shares, None
            elif self._degrade.skips(now_s):
                self._counts.degraded += 1
                return self._command
            else:
                intended, command = self._decide(now_s)
        if command is None:
            return self._tell(now_s, intended, self._wire.sense(now_s))
        decided = time.perf_counter()
        sent, sensed = self._wire.exchange(command, now_s)
        if self._times is not None:
            self._times("motion", 1000 * (decided - began))
            self._times("send", 1000 * (time.perf_counter() - decided))
        with self._lock:
            let_go = self._settle(now_s, sent, sensed)
        if let_go and not self._wire.release(now_s):
            with self._lock:
                self._counts.lost, self._state = self._wire.losses, "lost"
        return self._tell(now_s, intended, sensed, command.shares if sent.seq == command.seq else None)

    def _connected(self, now_s: float) -> bool:
        """Whether there is a robot; one that was lost or let go is opened when it is time."""
        if self._rearmed:
            self._rearmed = False
            self._wire.take_back(now_s)
        if not self._wire.lost:
            return True
        if self._stopped is not None:
            return False  # whoever stopped it may have a hand in there: only `rearm` may open and move it again
        sensed = self._wire.sense(now_s) if self._wire.reopen(now_s) else None
        with self._lock:
            self._begin(sensed)
            self._counts.lost, self._counts.reconnects = self._wire.losses, self._wire.reconnects
        return not self._wire.lost

    def _decide(self, now_s: float) -> tuple[Channels, Command]:
        """What is intended [C], and the command that goes there."""
        dt_s, before = self.rhythm.elapsed(now_s), self._state
        if dt_s is None:  # the robot stands by now: motion begins anew from there, it does not jump after the clock
            self._limiter.reset(self._limiter.position)
            self._counts.stalls += 1
            dt_s = self.rhythm.period_s
        self._choose_state(now_s, dt_s)
        intended = goal = self._neutral
        ahead_s = 0.0
        if self._state in MOVING:
            if before not in MOVING:
                self._smoother.reset(self._limiter.position)
            intended, self._goal, ahead_s = self._aim(now_s)
            goal = self._smoother.step(self._goal, dt_s)
        goal, relaxed = self._holds.apply(goal, self._limiter.position, dt_s)
        self._limiter.top_speed = self._pace.swift if self._state in MOVING else self._pace.gentle
        shares = self._limiter.step(goal, dt_s)
        self._counts.ticks += 1
        self._counts.holds += relaxed
        self._counts.gaps += self._state == "holding" and before == "following"
        flags = (self._state, "degraded") if self._degrade.on else (self._state,)
        return intended, Command(self._command.seq + 1, now_s + ahead_s, shares, flags)

    def _choose_state(self, now_s: float, dt_s: float) -> None:
        supply = self._buffer.supply
        if self._stopped is not None or supply is None:
            self._state = "waiting" if self._stopped is None else "stopped"
            self._degrade.consider(0.0, now_s)
            return
        if self._state in MOVING:
            self._look.update(dt_s, supply.end_s - now_s)
        else:
            self._look.plans_ended()
        ahead_s = float(self._look.ahead_s.min(initial=self._look.mean_s))
        self._state = next_state(now_s, supply, ahead_s, self._pace, self._config, home=self._limiter.home)
        if self._state not in MOVING:
            self._degrade.consider(0.0, now_s)
        if self._state == "neutral":
            self._buffer.forget_numbers()

    def _aim(self, now_s: float) -> tuple[Channels, Channels, float]:
        """The pose intended for one moment, the goals of all channels for theirs ([C] each), and that moment."""
        assert self._buffer.supply is not None
        both = np.stack([np.full(len(self._neutral), self._look.mean_s), self._look.ahead_s])
        both = bounded_reach(both, now_s, self._buffer.supply, self._config.beyond_s)
        intended, goal = self._buffer.read(now_s + both)
        age_s, ahead_s = now_s - self._buffer.captured_at_s, float(both[0, 0]) if both.size else 0.0
        self._age.add(age_s, ahead_s)
        self._degrade.consider(self._age.age_s + self._look.lag_s, now_s)
        return intended, goal, ahead_s

    def _settle(self, now_s: float, sent: Command, sensed: Feedback | None) -> bool:
        """Learn from the sensors; whether the robot is to be let go now."""
        self._command = sent
        if self._wire.lost:
            self._counts.lost, self._state = self._wire.losses, "lost"
            return False
        self._counts.sent += 1
        if self._state == "following":
            self._look.own.watch(now_s, self._goal, now_s, sent.shares)
        if sensed is not None:
            self._look.motor.watch(now_s, sent.shares, sensed.time_s, sensed.shares)
        home_since_s = now_s if self._home_since_s is None else self._home_since_s
        self._home_since_s = home_since_s if self._state == "stopped" and self._limiter.home else None
        if self._home_since_s is not None and now_s - home_since_s >= self._pace.settle_s:  # the motors had their time
            self._state = "released"
        return self._state == "released"

    def _tell(self, now_s: float, intended: Channels, sensed: Feedback | None, told: Channels | None = None) -> Command:
        if self._watch is not None:
            out = self._command
            self._watch(Moment(now_s, out.target_time_s, intended, out.shares, sensed, self._state, told))
        return self._command

    def stop(self, reason: str, now_s: float) -> None:
        """Emergency stop, latched: home within the limits, then let go; plans are refused until `rearm`."""
        with self._lock:
            if self._stopped is None:
                self._stopped = reason
                self._buffer.clear()
                released = self._state == "released"  # armed a moment ago, and not opened since
                self._rearmed = self._rearmed and not released
                self._state = "lost" if self._wire.lost else "released" if released else "stopped"

    def rearm(self, now_s: float) -> None:
        """Undo a stop; a robot that was let go is opened anew and starts from its measured pose."""
        with self._lock:
            if self._stopped is not None:
                self._stopped = None
                self._buffer.forget_numbers()
                self._rearmed = self._state == "released"
                self._state = "waiting" if self._state == "stopped" else self._state

    @property
    def doubt(self) -> str | None:
        """What may still be on although the robot was to let go; None when nothing is."""
        return self._wire.doubt

    def at_rest(self) -> bool:
        """Whether the face is home and nothing moves; never while the robot is lost, so waiting wants a limit."""
        with self._lock:
            return self._state == "released" or (not self._wire.lost and self._limiter.home)

    def status(self, now_s: float) -> Status:
        """How it does."""
        with self._lock:
            supply, look = self._buffer.supply, self._look
            return Status(
                state=self._state,
                counts=Counts(**vars(self._counts)),
                measured=look.motor.measured,
                motor_lag_s=look.motor.lag_s,
                own_lag_s=look.own.lag_s,
                look_ahead_s=look.mean_s,
                glass_to_motor_s=self._age.age_s + look.lag_s,
                compensated_s=self._age.read_at_s,
                plan_left_s=0.0 if supply is None else max(supply.end_s - now_s, 0.0),
                last_plan_age_s=None if supply is None else now_s - supply.received_s,
                degraded=self._degrade.on,
                stop_reason=self._stopped,
            )
