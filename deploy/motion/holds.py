"""No channel stays far out for longer than its motor bears: a jaw is not kept wide open.

A channel that has been beyond `hold_above` for `max_hold_s` is brought back to `hold_above`, and stays there at most
until its goal has come down by itself. Time spent out is remembered and forgotten at the same pace, so that dipping in
for a moment buys nothing.  Shapes: C channels, in shares of travel.
"""

import numpy as np
from numpy.typing import NDArray

from deploy.calibration import Calibration

Channels = NDArray[np.float64]
COMES_DOWN_TO = 0.8
"""Share of `hold_above` below which a goal has come down."""


class HoldRule:
    """Time that every channel has been out."""

    def __init__(self, calibration: Calibration) -> None:
        channels = calibration.channels.values()
        self._longest_s = np.array([np.inf if c.max_hold_s is None else c.max_hold_s for c in channels], float)
        self._above = np.array([c.hold_above for c in channels], float)
        self._out_s = np.zeros(len(self._above))
        self._relaxed = np.zeros(len(self._above), bool)
        self._idle = not np.isfinite(self._longest_s).any()

    def apply(self, goal: Channels, position: Channels, dt_s: float) -> tuple[Channels, int]:
        """The goal [C] as far as it may be held, and how many channels this tick began to relax."""
        if self._idle:
            return goal, 0
        out = np.abs(position) > self._above + 1e-9
        self._out_s = np.minimum(np.maximum(self._out_s + np.where(out, dt_s, -dt_s), 0.0), self._longest_s)
        tired = ~self._relaxed & (self._out_s >= self._longest_s)
        self._relaxed = (self._relaxed | tired) & (np.abs(goal) >= COMES_DOWN_TO * self._above)
        bound = np.where(self._relaxed, self._above, np.inf)
        return np.minimum(np.maximum(goal, -bound), bound), int(tired.sum())
