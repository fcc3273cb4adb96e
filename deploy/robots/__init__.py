"""Robots, one file per wire, found by name; how each moves is its calibration in configs/robots.

A robot takes plans and reports what it really did. The loop keeps the limits; a robot never moves on its own.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deploy.calibration import Calibration
from deploy.plan import AUPlan


@dataclass(frozen=True)
class Feedback:
    """What the robot's own sensors say: time on the loop's clock, joint positions, and what was last commanded."""

    time_s: float
    joints: NDArray[np.float64]
    """[C] metres and radians."""
    shares: NDArray[np.float64]
    """[C] the same as shares of each channel's travel, -1…1."""
    commanded: NDArray[np.float64]
    """[C] shares last commanded."""


class Robot(Protocol):
    """One robot face."""

    calibration: Calibration

    def open(self) -> None:
        """Connect; ValueError with a remedy when that fails."""
        ...

    def send(self, plan: AUPlan, now_s: float) -> AUPlan:
        """Take a plan; returns what was really sent."""
        ...

    def feedback(self, now_s: float) -> Feedback | None:
        """What the sensors say now; None where a robot has none."""
        ...

    def neutral(self, now_s: float) -> None:
        """Go to the neutral face."""
        ...

    def close(self) -> None:
        """Release the robot; safe to call twice."""
        ...


def available() -> list[str]:
    """Names of the robots in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def load(name: str) -> Robot:
    """A robot by its file's name, with its calibration; an unknown name lists what is there."""
    if name not in available():
        raise ValueError(f"unknown robot {name!r}; available: {', '.join(available())}")
    return importlib.import_module(f"deploy.robots.{name}").make(Calibration.load(name))
