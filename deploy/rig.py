"""A robot on the bench: moves one channel at a time within its limits, watches its sensors, and always comes home.

Every movement is a jerk-limited trajectory under the calibration's own limits, so that nothing is asked that the loop
would not ask: a machine that stalls delays the way, and makes no jump of it. Shapes: C channels, in the calibration's
order, as shares of travel.
"""

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ruckig
import yaml
from numpy.typing import NDArray

from deploy.calibration import Calibration
from deploy.plan import Command
from deploy.robots import Feedback, Robot, RobotLost, Simulated
from deploy.step_response import Response, fit
from dyad.clock import Clock
from dyad.config import as_dict
from dyad.provenance import atomic_path

Shares = NDArray[np.float64]
HOLD_S = 0.5
"""How long a channel stays at each end: long enough for the slowest servo to arrive."""
SETTLED_S = 0.1
"""The last part of that, over which the end is read."""
PATIENCE_S = 2.0
"""How long a robot's first sensor reading is waited for."""
LONGEST_STEP = 2.5
"""Periods by which a path goes on with one command, however late that comes."""
TRUSTED = 0.97
"""Agreement from which a channel's answer counts."""
SHORT = 0.9
"""A channel that gets less far than this of what it was told gets its ends drawn in."""


@dataclass(frozen=True)
class Measured:
    """One channel."""

    channel: str
    response: Response | None
    """None: it did not move."""
    low: float | None
    """How much of the commanded way it really went towards its low end; None where it has none."""
    high: float | None


@dataclass
class Record:
    """What one channel was told and what it did."""

    told: list[tuple[float, float]] = field(default_factory=list)
    """(time, share) of each command."""
    seen: list[tuple[float, float]] = field(default_factory=list)
    """(time, share) of each reading."""


class Rig:
    """The robot, and where it was last sent."""

    def __init__(self, robot: Robot, clock: Clock) -> None:
        self._robot, self._clock = robot, clock
        if isinstance(robot, Simulated):
            robot.live_by(clock)
        self._limits = robot.calibration.limits
        self._channels = len(robot.calibration.names)
        self._state: tuple[Shares, Shares, Shares] = tuple(np.zeros((3, self._channels)))  # type: ignore[assignment]
        self._seq = 0

    def begin(self) -> None:
        """Start from where the sensors say the robot is; ValueError when it has none."""
        until_s = self._clock.now_s() + PATIENCE_S
        while (seen := self._robot.feedback(self._clock.now_s())) is None:
            if self._clock.now_s() >= until_s:
                name = self._robot.calibration.robot
                raise ValueError(
                    f"robot {name} reports no positions, so nothing can be measured; calibrate one that does: sim, "
                    "dynamixel, or ros2 and rosbridge with joints"
                )
            self._clock.sleep_until(self._clock.now_s() + 0.02)
        low = np.where(self._robot.calibration.one_way, 0.0, -1.0)
        self._state = (np.clip(seen.shares, low, 1), np.zeros(self._channels), np.zeros(self._channels))

    def go(self, goal: Shares, hold_s: float, watched: int | None = None, record: Record | None = None) -> None:
        """Move there, jerk-limited from wherever it is on its way to, and stay for `hold_s`."""
        path = self._path(goal)
        period_s, end_s = 1 / self._robot.calibration.rate_hz, path.duration + hold_s
        at_s, last_s = 0.0, self._clock.now_s()
        due_s = last_s
        while at_s < end_s:
            self._state = tuple(np.array(x) for x in path.at_time(min(at_s, path.duration)))  # type: ignore[assignment]
            self._step(watched, record)
            due_s = max(last_s, due_s) + period_s
            self._clock.sleep_until(due_s)
            now_s = self._clock.now_s()
            at_s, last_s = at_s + min(now_s - last_s, LONGEST_STEP * period_s), now_s

    def _path(self, goal: Shares) -> Any:
        wanted = ruckig.InputParameter(self._channels)
        wanted.current_position, wanted.current_velocity, wanted.current_acceleration = (
            x.tolist() for x in self._state
        )
        wanted.max_velocity, wanted.max_acceleration, wanted.max_jerk = (x.tolist() for x in self._limits)
        wanted.target_position = goal.tolist()
        path = ruckig.Trajectory(self._channels)
        result = ruckig.Ruckig(self._channels).calculate(wanted, path)
        assert result in (ruckig.Result.Working, ruckig.Result.Finished), f"no path: {result}"
        return path

    def _step(self, watched: int | None, record: Record | None) -> None:
        now_s = self._clock.now_s()
        sent = self._robot.send(Command(self._seq, now_s, self._state[0]), now_s)
        seen: Feedback | None = self._robot.feedback(self._clock.now_s())
        if record is not None and watched is not None:
            if sent.seq == self._seq:
                record.told.append((now_s, float(sent.shares[watched])))
            if seen is not None and (not record.seen or seen.time_s > record.seen[-1][0]):
                record.seen.append((seen.time_s, float(seen.shares[watched])))
        self._seq += 1

    def measure(self, channel: int, share: float) -> Measured:
        """Out and back, both ways where it has two."""
        calibration, record = self._robot.calibration, Record()
        home, reached = np.zeros(self._channels), {}
        self.go(home, HOLD_S, channel, record)
        for way in (1.0,) if calibration.one_way[channel] else (1.0, -1.0):
            goal = home.copy()
            goal[channel] = way * share
            self.go(goal, HOLD_S, channel, record)
            ends = [at for when, at in record.seen if when > self._clock.now_s() - SETTLED_S]
            reached[way] = float(np.median(ends) / goal[channel]) if ends else None
            self.go(home, HOLD_S, channel, record)
        told, seen = np.array(record.told).T, np.array(record.seen).T
        response = fit(*told, *seen) if seen.size else None
        return Measured(calibration.names[channel], response, reached.get(-1.0), reached[1.0])


def measure(
    robot: Robot,
    clock: Clock,
    channels: list[int],
    share: float,
    interruptible: contextlib.AbstractContextManager[None] | None = None,
    *,
    tell: Callable[[int, Measured], None] = lambda _, __: None,
) -> list[Measured]:
    """Open, measure channel by channel, go home, let go; home and let go also when it is interrupted.

    Only the measuring is done in `interruptible`: neither the opening nor the way home may be cut short. `tell` hears
    of each channel when it is done, with its number from 0.
    """
    rig, measured = Rig(robot, clock), list[Measured]()
    try:
        robot.open()  # a half-open robot is closed, too
        try:
            rig.begin()
        except BaseException:  # no way home: where it stands is unknown
            robot.release()
            raise
        try:
            with interruptible or contextlib.nullcontext():
                for number, channel in enumerate(channels):
                    measured.append(rig.measure(channel, share))
                    tell(number, measured[-1])
                return measured
        except RobotLost:
            raise  # there is nobody left to send home
        except BaseException:
            rig.go(np.zeros(len(robot.calibration.names)), HOLD_S)
            raise
        finally:
            robot.release()
    finally:
        robot.close()


def calibrated(calibration: Calibration, measured: list[Measured]) -> Calibration:
    """The calibration with what was measured; ValueError when no channel gave a clear answer."""
    clear = [m.response for m in measured if m.response and m.response.agreement >= TRUSTED]
    if not clear:
        raise ValueError(
            f"robot {calibration.robot}: no channel followed its commands clearly enough; nothing was written"
        )
    dead, lag = (float(np.median([getattr(r, k) for r in clear])) for k in ("dead_time_s", "lag_s"))
    channels = dict(calibration.channels)
    for one in measured:
        channel, near = channels[one.channel], channels[one.channel].neutral
        if one.response and one.high is not None and 0 < one.high < SHORT:
            channel = dataclasses.replace(channel, high=round(near + one.high * (channel.high - near), 6))
        if one.response and one.low is not None and 0 < one.low < SHORT:
            channel = dataclasses.replace(channel, low=round(near + one.low * (channel.low - near), 6))
        channels[one.channel] = channel
    late = {"dead_time_s": round(dead, 4), "time_constant_s": round(lag, 4)}
    return dataclasses.replace(calibration, channels=channels, **late)


def write(calibration: Calibration, path: Path, measured: list[Measured], robot: str) -> None:
    """YAML beside the old file, then renamed over it; keys that say nothing new are left out."""
    content = as_dict(calibration)
    plain = {f.name: f.default for f in dataclasses.fields(type(next(iter(calibration.channels.values()))))}
    content["channels"] = {
        name: {k: v for k, v in values.items() if v != plain[k]} for name, values in content["channels"].items()
    }
    clear = sum(bool(m.response and m.response.agreement >= TRUSTED) for m in measured)
    head = (
        f"# Written by python -m deploy.calibrate --robot {robot} on {dt.date.today().isoformat()}.\n"
        f"# Delays: medians over {clear} of {len(calibration.names)} channels, by the robot's own sensors.\n"
    )
    text = head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf8")
