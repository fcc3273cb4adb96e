"""Keep the face within what the motors can follow: velocity and acceleration, both per action unit.

The bound holds for whatever comes in: jumps, NaN-refused gaps, start-up. The limiter knows how far it needs to brake,
so it neither overshoots its goal nor breaks the acceleration bound to avoid it. Shapes: A action units.
Source: the system's requirements, "velocity and acceleration limits".
"""

import numpy as np
from numpy.typing import NDArray

Units = NDArray[np.float64]


class Limiter:
    """Position and velocity of all units; starts at rest on the neutral face."""

    def __init__(self, units: int, velocity_per_s: float, acceleration_per_s2: float) -> None:
        self._v_max, self._a_max = velocity_per_s, acceleration_per_s2
        self.position: Units = np.zeros(units)
        self.velocity: Units = np.zeros(units)

    def step(self, goal: NDArray[np.float32], dt_s: float) -> NDArray[np.float32]:
        """Move towards `goal` [A] in [0, 1] for `dt_s`; a goal that is no number means stay.

        Returns the new position, always in [0, 1].
        """
        wished = np.where(np.isfinite(goal), goal, self.position).astype(np.float64)
        gap = np.clip(wished, 0, 1) - self.position
        change = self._a_max * dt_s
        wanted = np.sign(gap) * np.minimum(_brakeable(np.abs(gap), change, dt_s), self._v_max)
        velocity = np.clip(wanted, self.velocity - change, self.velocity + change)
        velocity = np.clip(velocity, -self._v_max, self._v_max)
        # The edges of the range are walls for the position, never a reason to jump.
        room_up, room_down = (1 - self.position) / dt_s, -self.position / dt_s
        self.velocity = np.clip(velocity, room_down, room_up)
        self.position = np.clip(self.position + self.velocity * dt_s, 0, 1)
        return self.position.astype(np.float32)


def _brakeable(gap: Units, change: float, dt_s: float) -> Units:
    """The fastest speed for the coming step from which a stop within `gap` is possible, losing `change` a step.

    With n whole braking steps after it, the way is dt · ((n + 1) v - change · n (n + 1) / 2).
    """
    n = np.floor(np.sqrt(0.25 + 2 * gap / (change * dt_s)) - 0.5)
    return gap / (dt_s * (n + 1)) + change * n / 2
