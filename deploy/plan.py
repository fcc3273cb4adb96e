"""What the loop sends to a robot: the listener's face for the next quarter second.

Shapes: H horizons, A action units.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AUPlan:
    """One plan. Times are on the loop's monotonic clock, seconds."""

    seq: int
    """Rises by one per plan."""
    captured_at_s: float
    """When the newest picture and sound in it were captured."""
    target_times_s: NDArray[np.float64]
    """[H] when each row should be the robot's pose."""
    au: NDArray[np.float32]
    """[H, A] intensities in [0, 1], smoothed and limited."""
    confidence: NDArray[np.float32]
    """[H, A] in [0, 1]."""
    flags: tuple[str, ...] = ()
    """no_face: nobody seen, the student goes on by ear; neutral: going home; estop."""


def is_safe(au: NDArray[np.float32]) -> bool:
    """Whether every value is finite and in [0, 1]; anything else is refused whole."""
    return bool(np.isfinite(au).all() and au.min() >= 0 and au.max() <= 1)
