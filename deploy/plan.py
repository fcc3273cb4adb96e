"""What the loop hands to a robot's controller, and what the controller hands to the robot.

The plan speaks of action units and of time; the command speaks of one robot's channels. Between them lie the
calibration, the smoothing and the limits. Shapes: H horizons, A = 17 action units (SEED17), C channels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AUPlan:
    """The listener's face for the next quarter second. Times in seconds, on the receiver's monotonic clock."""

    seq: int
    """Rises with every plan of one sender."""
    captured_at_s: float
    """When the newest picture and sound in it were captured."""
    target_times_s: NDArray[np.float64]
    """[H] when each row should be the robot's pose, rising."""
    au: NDArray[np.float32]
    """[H, A] probabilities in [0, 1], as predicted; the robot's calibration says how far a unit moves."""
    confidence: NDArray[np.float32]
    """[H, A] in [0, 1]."""
    flags: tuple[str, ...] = ()
    """no_face: nobody seen, the student goes on by ear; no_sound; held_picture."""


@dataclass(frozen=True)
class Command:
    """One pose for one robot, smoothed and within its limits."""

    seq: int
    """Rises by one per command."""
    target_time_s: float
    """When the pose is meant to be reached, on the controller's clock."""
    shares: NDArray[np.float64]
    """[C] shares of each channel's travel: 0 is neutral, 1 its high end, -1 its low end."""
    flags: tuple[str, ...] = ()
    """What the controller is about: following, holding, returning, stopped."""


def is_safe(au: NDArray[np.float32]) -> bool:
    """Whether every value is finite and in [0, 1]; anything else is refused whole."""
    return bool(np.isfinite(au).all() and au.min() >= 0 and au.max() <= 1)
