"""How predictions become motion: what the controller may be told."""

from dataclasses import dataclass
from typing import Literal

Smoothing = Literal["one-euro", "kalman", "none"]


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """How predictions become motion; times in seconds."""

    smoothing: Smoothing = "one-euro"
    """Causal smoothing of the goal; its lag is measured with the rest and looked ahead over."""
    blend_s: float = 0.05
    """How fast a plan loses its say to newer ones about the same moment (e-fold); 0: the newest alone counts."""
    beyond_s: float = 0.2
    """A plan is read so far beyond its last row, as foresight.py guesses it on; then that end is held."""
    buffer_s: float = 0.5
    """Plans kept: captured no longer before the newest; none may reach further ahead of now than twice that."""
    late_s: float = 0.05
    """A plan whose last row was due longer ago than that is dropped."""
    hold_s: float = 0.25
    """Longest time without a row of the plan to go by; what `beyond_s` reads counts as such."""
    neutral_within_s: float = 1.5
    """The motors are home so long after the last valid plan."""
    return_s: float = 0.7
    """A return from the far end takes so long; sooner where the motors or `neutral_within_s` want it."""
    margin_s: float = 0.01
    """Looked ahead beyond the measured lag."""
    longest_look_ahead_s: float = 0.5
    """Bound of the look-ahead."""
    slew_per_s: float = 0.2
    """Largest change of the look-ahead, seconds per second, so that the face never jumps in time."""
    degrade_over_s: float = 0.5
    """From camera to motor: beyond, fewer commands are sent, and only the key expressions."""

    def __post_init__(self) -> None:
        """Refuse what could keep no promise."""
        if not 0.2 <= self.buffer_s <= 0.5:
            raise ValueError(f"buffer_s must be in [0.2, 0.5] seconds, got {self.buffer_s}")
        if not 0 <= self.longest_look_ahead_s <= 0.5:
            raise ValueError(f"longest_look_ahead_s must be in [0, 0.5] seconds, got {self.longest_look_ahead_s}")
        if not 0 <= self.hold_s <= 0.25:
            raise ValueError(f"hold_s must be in [0, 0.25] seconds, got {self.hold_s}")
        if not 0 <= self.beyond_s <= self.hold_s:
            raise ValueError(f"beyond_s must be in [0, hold_s = {self.hold_s}] seconds, got {self.beyond_s}")
        if not self.hold_s < self.neutral_within_s <= 1.5:
            raise ValueError(f"neutral_within_s must be over hold_s and at most 1.5, got {self.neutral_within_s}")
        for name in ("blend_s", "late_s", "margin_s"):
            if not 0 <= getattr(self, name) <= 0.5:
                raise ValueError(f"{name} must be in [0, 0.5] seconds, got {getattr(self, name)}")
        for name in ("return_s", "slew_per_s", "degrade_over_s"):
            if not 0 < getattr(self, name) < 10:
                raise ValueError(f"{name} must be in (0, 10), got {getattr(self, name)}")
