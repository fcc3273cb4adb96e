"""Home without the controller: the last resort when the controller itself has failed.

From the last two commands follow where the face is and how fast it moves; from there the quickest way to neutral within
the calibration's limits is computed once and sent; a machine that stalls delays it, and makes no jump of it. It shares
no code with the controller, so that one mistake cannot take away both. Shapes: C channels, in shares of travel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.calibration import Calibration
from deploy.plan import Command
from deploy.robots import Robot, RobotLost
from dyad.clock import Clock

LONGEST_S = 1.5
AT_NEUTRAL = 1e-6
STALE_PERIODS = 2.5
"""A face whose last command is older than so many periods stands still; no command goes further than those."""

Told = Sequence[tuple[float, Command]]
"""Commands with the times at which they were given, oldest first."""


def trajectory(calibration: Calibration, position: NDArray[np.float64], velocity: NDArray[np.float64]) -> Any:
    """The quickest ruckig trajectory from there to neutral."""
    import ruckig

    wanted = ruckig.InputParameter(len(position))
    wanted.current_position, wanted.current_velocity = position.tolist(), velocity.tolist()
    wanted.target_position = [0.0] * len(position)
    wanted.max_velocity, wanted.max_acceleration, wanted.max_jerk = (x.tolist() for x in calibration.limits)
    way = ruckig.Trajectory(len(position))
    ruckig.Ruckig(len(position)).calculate(wanted, way)
    return way


def _speed(calibration: Calibration, told: Told, now_s: float) -> NDArray[np.float64]:
    """Mean speed [C] between the last two commands; zero when the last one is long ago.

    The way home begins with it and without acceleration, so that no two steps differ by more than the limit.
    """
    still = now_s - told[-1][0] > STALE_PERIODS / calibration.rate_hz
    if still or len(told) < 2 or told[-1][0] <= told[-2][0]:
        return np.zeros(len(calibration.names))
    (before_s, before), (last_s, last) = told[-2:]
    top = calibration.limits[0]
    return np.clip((last.shares - before.shares) / (last_s - before_s), -top, top)


def go(robot: Robot, told: Told, clock: Clock) -> bool:
    """Send the way home at the robot's rate, in commands for 1.5 s; whether it arrived. A lost robot is left alone."""
    calibration, now_s = robot.calibration, clock.now_s()
    if not told or not calibration.names:
        return True  # nothing was ever moved
    position, velocity = np.clip(told[-1][1].shares, -1, 1), _speed(calibration, told, now_s)
    if not (np.abs(position).max() > AT_NEUTRAL or velocity.any()):
        return True  # it may have been let go already: not one command more
    way = trajectory(calibration, position, velocity)
    step_s, seq, told_s = 1 / calibration.rate_hz, told[-1][1].seq, told[-1][0]
    last_s = told_s if velocity.any() else now_s  # a moving face went on moving since
    at_s, due_s = 0.0, max(now_s, told_s + step_s)
    try:
        for k in range(1, int(LONGEST_S / step_s) + 2):
            clock.sleep_until(due_s)
            now_s = clock.now_s()
            at_s, last_s = at_s + min(now_s - last_s, STALE_PERIODS * step_s), now_s
            due_s = max(now_s, due_s) + step_s
            there = at_s >= way.duration
            shares = np.zeros(len(calibration.names)) if there else np.array(way.at_time(at_s)[0])
            robot.send(Command(seq + k, now_s, shares, ("returning",)), now_s)
            if there:
                return True
    except RobotLost:
        return False
    return False
