"""Keep every channel within its velocity, acceleration and jerk, and within its travel, whatever is asked.

Time-optimal, jerk-limited ways (ruckig) from the present motion to the goal, planned anew on every tick and followed
for exactly the time that has really passed: what is sent are samples of one continuous motion, however unevenly the
ticks come. Every way ends at rest within the travel, so none can overshoot it. Above a speed limit that was lowered,
the solver's way is now and then a third longer than the quickest (3 of 1000 random states); the next tick's, planned
below the limit, is the quickest again: who goes somewhere in a given time must tick.  Shapes: C channels, in shares.
Source: Berscheid & Kröger, "Jerk-limited real-time trajectory generation with arbitrary target states", 2021.
"""

import numpy as np
import ruckig
from numpy.typing import NDArray

Channels = NDArray[np.float64]
AT_REST = 1e-6


class Limiter:
    """Position, velocity and acceleration of all channels; starts at rest on neutral."""

    def __init__(self, velocity: Channels, acceleration: Channels, jerk: Channels, low: Channels) -> None:
        self._low, self._acceleration, self._jerk = low, acceleration, jerk
        self._input = ruckig.InputParameter(max(len(low), 1))
        self._input.synchronization = ruckig.Synchronization.No  # every channel as fast as it can, none waits
        self._way = ruckig.Trajectory(max(len(low), 1))
        self._solver = ruckig.Ruckig(max(len(low), 1))
        self.position: Channels = np.zeros(len(low))
        self.velocity: Channels = np.zeros(len(low))
        self.acceleration: Channels = np.zeros(len(low))
        if len(low):
            self._input.max_acceleration, self._input.max_jerk = acceleration.tolist(), jerk.tolist()
        self.top_speed = velocity

    @property
    def top_speed(self) -> Channels:
        """[C] present velocity limits; lowering them brakes within the other limits."""
        return self._top_speed

    @top_speed.setter
    def top_speed(self, velocity: Channels) -> None:
        self._top_speed = velocity
        if len(velocity):
            self._input.max_velocity = velocity.tolist()

    def reset(self, position: Channels) -> None:
        """Begin anew, at rest at a measured pose [C]; what lies outside the travel begins at its end."""
        known = np.where(np.isfinite(position), position, 0.0)
        self.position = np.clip(known, self._low, 1.0)
        self.velocity, self.acceleration = np.zeros_like(self.position), np.zeros_like(self.position)

    def step(self, goal: Channels, dt_s: float) -> Channels:
        """Move towards `goal` [C] for `dt_s` > 0; a goal that is no number means stay. Returns the position, a copy."""
        if not len(goal):
            return self.position
        wished = np.minimum(np.maximum(np.where(np.isfinite(goal), goal, self.position), self._low), 1.0)
        try:
            self._follow(wished, dt_s)
        except ruckig.RuckigError:  # the solver's last digit: no way from this exact state, brake from it instead
            self._input.control_interface = ruckig.ControlInterface.Velocity
            try:
                self._follow(wished, dt_s)
            finally:
                self._input.control_interface = ruckig.ControlInterface.Position
        return self.position.copy()

    def _follow(self, wished: Channels, dt_s: float) -> None:
        task = self._input
        task.current_position, task.current_velocity = self.position.tolist(), self.velocity.tolist()
        task.current_acceleration, task.target_position = self.acceleration.tolist(), wished.tolist()
        self._solver.calculate(task, self._way)
        position, self.velocity, self.acceleration = (np.array(x) for x in self._way.at_time(dt_s))
        self.position = np.minimum(np.maximum(position, self._low), 1.0)  # rounding only

    @property
    def at_rest(self) -> bool:
        """Whether nothing moves."""
        return bool((np.abs(self.velocity) < AT_REST).all() and (np.abs(self.acceleration) < AT_REST).all())

    @property
    def home(self) -> bool:
        """Whether all rest on neutral."""
        return self.at_rest and bool((np.abs(self.position) < AT_REST).all())


def ramp_s(velocity: Channels, acceleration: Channels, jerk: Channels) -> Channels:
    """[C] the longest that a change between rest and `velocity` takes; a full stop is one, wherever the motion is."""
    return velocity / acceleration + acceleration / jerk


def gentle_speed(velocity: Channels, acceleration: Channels, jerk: Channels, within_s: float) -> Channels:
    """[C] the lowest speed at which any motion is home `within_s`: a full stop on the way out, then all the travel.

    Full speed where none is low enough.
    """
    left_s = within_s - ramp_s(velocity, acceleration, jerk) - acceleration / jerk
    inside = left_s**2 - 4 / acceleration  # v² / a - left v + 1 ≤ 0
    slow = (left_s - np.sqrt(np.maximum(inside, 0))) * acceleration / 2
    return np.where((inside >= 0) & (left_s > 0), np.minimum(slow, velocity), velocity)
