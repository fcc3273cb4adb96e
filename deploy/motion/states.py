"""What the controller is told once, says on every tick, and answers when asked how it does. Shapes: C channels."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deploy.robots import Feedback

State = Literal["waiting", "following", "holding", "returning", "neutral", "stopped", "released", "lost"]
"""waiting: no plan yet, at neutral or on the way there; following: a plan says where; holding: the plan ran out, its
last row is kept; returning, neutral: nothing came for too long; stopped: on the way home after an emergency stop;
released: home, and let go; lost: the wire to the robot is broken, or it was to let go and may hold on."""
Verdict = Literal["taken", "refused", "late", "old"]
"""What became of a plan: refused is malformed or unsafe as a whole, late ends in the past, old has a number that does
not rise."""


@dataclass
class Counts:
    """What happened so far."""

    taken: int = 0
    refused: int = 0
    late: int = 0
    old: int = 0
    gaps: int = 0
    """Times that the plan, and what is read beyond it, ran out while it was followed."""
    ticks: int = 0
    sent: int = 0
    stalls: int = 0
    """Ticks that came so late that the motion began anew from rest."""
    holds: int = 0
    """Times that a channel was relaxed because it had been held too long."""
    degraded: int = 0
    """Ticks at the lower rate with the key expressions only."""
    lost: int = 0
    reconnects: int = 0


@dataclass(frozen=True, kw_only=True)
class Status:
    """How the controller does at one moment."""

    state: State
    counts: Counts
    measured: bool
    """Whether the motors' lag was measured on the robot's sensors, not taken from its calibration."""
    motor_lag_s: float
    """From a command until the motors are there."""
    own_lag_s: float
    """From a goal until it is commanded: smoothing and limits, measured."""
    look_ahead_s: float
    """How far beyond now the plan is read: both lags and the margin, or as far as plans reach."""
    glass_to_motor_s: float
    """From capture until the motors are there: the plan's age when it is read, and both lags."""
    compensated_s: float
    """How far beyond its capture the plan is read; equal to the line above when the plan reaches far enough."""
    plan_left_s: float
    """Plan beyond now, 0 when it has run out."""
    last_plan_age_s: float | None
    """Since the last valid plan came; None before the first."""
    degraded: bool
    stop_reason: str | None
    doubt: str | None = None
    """What may still be on although the robot was to let go, such as its torque; None when nothing is."""

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for a report."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Moment:
    """One tick, for the trace, the black box and the report."""

    now_s: float
    target_time_s: float
    """When `goal` is meant to be the robot's pose."""
    goal: NDArray[np.float64]
    """[C] shares intended for the target time."""
    sent: NDArray[np.float64]
    """[C] shares commanded now."""
    sensed: Feedback | None
    state: State
    told: NDArray[np.float64] | None = None
    """[C] shares that the limits allowed and `sent` is made of, before the robot rounded them; None where no command
    went out: held back, lost, let go or none due."""


Watch = Callable[[Moment], None]
Times = Callable[[str, float], None]
"""Name of a stage and its duration in milliseconds."""
