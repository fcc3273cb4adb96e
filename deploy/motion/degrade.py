"""What is kept when the face is too late to keep everything: fewer commands, and the key expressions only.

From camera to motor more than half a second, quick small movements answer a moment long past; a smile that lasts is
still right. So beyond `degrade_over_s` only units stay that are strong over the whole plan, and the face is commanded
at a lower rate. Back under four fifths of it all is as before.  Shapes: H rows, A = 17 action units.
"""

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 20.0
"""Commands per second while degraded."""
KEY_INTENSITY = 0.3
"""A unit that stays above over the whole plan is a key expression."""
BACK_BELOW = 0.8
LASTING_S = 0.5
"""A delay too long for less than that is one bad lesson of the lag meter, or one late plan."""
AGE_SHARE = 0.05
"""Of a tick's own plan age in the mean."""


class PlanAge:
    """How old plans are when they are read, and how far beyond their capture that is; means over the last ticks."""

    def __init__(self) -> None:
        self.age_s = self.read_at_s = 0.0
        self._known = False

    def add(self, age_s: float, ahead_s: float) -> None:
        """One tick's; the first counts whole."""
        share, self._known = AGE_SHARE if self._known else 1.0, True
        self.age_s += share * (age_s - self.age_s)
        self.read_at_s += share * (age_s + ahead_s - self.read_at_s)


class Degrade:
    """The rule's one bit, with hysteresis."""

    def __init__(self, over_s: float) -> None:
        self._over_s = over_s
        self.on = False
        self._sent_s = -np.inf
        self._late_since_s = np.inf

    def consider(self, delay_s: float, now_s: float) -> None:
        """Switch by the whole delay from camera to motor, once it has been too long for LASTING_S."""
        if delay_s <= self._over_s:
            self._late_since_s = np.inf
        elif now_s < self._late_since_s:
            self._late_since_s = now_s
        lasting = now_s - self._late_since_s >= LASTING_S
        self.on = delay_s > BACK_BELOW * self._over_s if self.on else lasting

    def keep(self, intensity: NDArray[np.float32]) -> NDArray[np.float32]:
        """Intensities [H, A] of what is still shown."""
        return intensity * (intensity.min(axis=0) >= KEY_INTENSITY) if self.on else intensity

    def skips(self, now_s: float) -> bool:
        """Whether no command is due yet."""
        if self.on and now_s - self._sent_s < 1 / RATE_HZ - 1e-3:
            return True
        self._sent_s = now_s
        return False
