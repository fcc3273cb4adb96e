"""How far to look ahead: as far as the robot is late, measured on its own joints.

The lag of the motors is where their sensed curve correlates best with the commanded one. Look-ahead = capture-to-send +
that lag + a margin of half a frame, bounded by the plan's last horizon and changed slowly, so that the face never jumps
in time. Shapes: H horizons, A units, C channels.  Source: the system's requirements, "adaptive delay compensation".
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from dyad.clock import FPS, FRAME_S

WINDOW_FRAMES = 8 * FPS
LONGEST_LAG_FRAMES = 15
LEAST_MOTION = 0.02
"""Summed squared steps of commanded travel below which nothing can be told about a lag."""
SETTLING_FRAMES = FPS
"""The first ticks come unevenly and are not measured on."""
SLEW_PER_S = 0.1
"""Largest change of look-ahead, seconds per second."""


def best_lag_s(commanded: NDArray[np.float64], sensed: NDArray[np.float64], step_s: float = FRAME_S) -> float | None:
    """Lag [s] at which `sensed` [T, C] follows `commanded` [T, C] best, finer than a step; None when nothing moved.

    Speeds are correlated, not positions: they mark the moment of a movement.
    """
    a, b = np.diff(commanded, axis=0), np.diff(sensed, axis=0)
    if len(a) < 2 * LONGEST_LAG_FRAMES or (a**2).sum() < LEAST_MOTION:
        return None
    scores = np.array([(a[: len(a) - k] * b[k:]).sum() for k in range(LONGEST_LAG_FRAMES)])
    k = int(scores.argmax())
    if 0 < k < len(scores) - 1:  # a parabola through the peak and its neighbours
        left, peak, right = scores[k - 1 : k + 2]
        curvature = left - 2 * peak + right
        return (k + (0.5 * (left - right) / curvature if curvature < 0 else 0.0)) * step_s
    return k * step_s


class DelayEstimator:
    """Watches commands and sensors, and keeps the look-ahead."""

    def __init__(self, first_guess_s: float, longest_s: float) -> None:
        self.motor_lag_s = first_guess_s
        self.longest_s = longest_s
        self.look_ahead_s = min(first_guess_s + 0.5 * FRAME_S, longest_s)
        self._history: deque[tuple[NDArray[np.float64], NDArray[np.float64]]] = deque(maxlen=WINDOW_FRAMES)
        self._watched = 0

    def watch(self, commanded: NDArray[np.float64], sensed: NDArray[np.float64]) -> None:
        """Remember one tick's command and sensor reading, both [C]; measures once a second."""
        self._watched += 1
        if self._watched <= SETTLING_FRAMES:
            return
        self._history.append((commanded.copy(), sensed.copy()))
        if self._watched % FPS == 0:
            told, did = (np.array(x) for x in zip(*self._history, strict=True))
            lag_s = best_lag_s(told, did)
            if lag_s is not None:
                self.motor_lag_s = lag_s

    def update(self, capture_to_send_s: float, dt_s: float) -> float:
        """The look-ahead [s] now, moved towards what is measured by at most SLEW_PER_S."""
        wanted = min(max(capture_to_send_s + self.motor_lag_s + 0.5 * FRAME_S, 0.0), self.longest_s)
        step = SLEW_PER_S * dt_s
        self.look_ahead_s += float(np.clip(wanted - self.look_ahead_s, -step, step))
        return self.look_ahead_s


def at_look_ahead(plan: NDArray[np.float32], horizons: NDArray[np.float64], ahead_s: float) -> NDArray[np.float32]:
    """Row [A] of a plan [H, A] at `ahead_s` seconds, interpolated between horizons (frames); ends are held."""
    position = float(np.interp(ahead_s * FPS, horizons, np.arange(len(horizons))))
    low = int(position)
    high = min(low + 1, len(plan) - 1)
    return plan[low] + (plan[high] - plan[low]) * np.float32(position - low)
