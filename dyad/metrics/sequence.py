"""A whole curve at once: its distance and lag from the true one, and whether a robot's motors could follow it.

Shapes: T frames, A action units.  Sources: the system's requirements, "sequence-level metrics" and "robot
suitability"; smoothness: Balasubramanian et al., 2015 (log dimensionless jerk).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dyad.clock import FPS
from dyad.metrics.checks import Numbers, require_finite
from dyad.metrics.synchrony import synchrony
from dyad.metrics.warping import dtw

__all__ = ["Compensation", "Lag", "Limits", "Motion", "compensation", "dtw", "lag", "motion", "smoothness"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lag:
    """Where a prediction correlates best with the truth."""

    ms: float
    """> 0: the prediction is late; NaN: no unit moves in both."""
    correlation: float
    """Pearson's r there, averaged over the units that move; one that is still in what is shared at this lag has 0."""
    units: int
    """How many they are."""


def lag(pred: Numbers, true: Numbers, *, fps: float = FPS, max_lag_s: float = 1.0) -> Lag:
    """Lag of the best cross-correlation of `pred` behind `true`, both [T, A]; its grain is one frame.

    Looked for up to `max_lag_s`, and up to a third of the curves' length.
    """
    if pred.ndim != 2 or pred.shape != true.shape:
        raise ValueError(
            f"two curves [T, A] are needed; got {list(pred.shape)} and {list(true.shape)}; align them first"
        )
    frames = round(max_lag_s * fps)
    found = synchrony(pred[None, None], true[None], fps=fps, seconds=(frames + 1.5) / fps)
    return Lag(float(found.lag_ms[0, 0]), float(found.peak[0, 0]), int(found.moving[0, 0]))


@dataclass(frozen=True)
class Compensation:
    """How well the delay of the chain is made up for."""

    intended_ms: float
    """Lag that the robot's face was meant to have; 0 when the whole delay is predicted away."""
    reached_ms: float
    error_ms: float
    """Reached minus intended; > 0: still late."""
    within_a_frame: bool


def compensation(
    pred: Numbers, true: Numbers, *, intended_ms: float, fps: float = FPS, max_lag_s: float = 1.0
) -> Compensation:
    """Lag of what was shown, `pred` [T, A], behind what should have been, `true` [T, A], beside the intended lag."""
    reached = lag(pred, true, fps=fps, max_lag_s=max_lag_s).ms
    error = reached - intended_ms
    return Compensation(intended_ms, reached, error, bool(abs(error) <= 1000 / fps + 1e-9))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a robot's motors follow; action units per second, per second squared, per second cubed."""

    velocity_per_s: float
    acceleration_per_s2: float
    jerk_per_s3: float = float("inf")

    def __post_init__(self) -> None:
        """Refuse what no motor has."""
        if not min(self.velocity_per_s, self.acceleration_per_s2, self.jerk_per_s3) > 0:
            raise ValueError(f"limits: numbers above 0 are needed; got {self}; take them from configs/robots")


@dataclass(frozen=True)
class Motion:
    """One derivative of a curve, per unit [A]; NaN where the curve is too short to have one."""

    mean: Array
    """Mean of the absolute values."""
    p95: Array
    largest: Array
    above: Array
    """Share of the derivative's values beyond the robot's limit."""


def motion(curve: Numbers, limits: Limits, *, fps: float = FPS, session: str = "the curve") -> dict[str, Motion]:
    """Velocity, acceleration and jerk of `curve` [T, A], as differences of neighbouring frames."""
    require_finite(curve, session=session)
    bounds = (limits.velocity_per_s, limits.acceleration_per_s2, limits.jerk_per_s3)
    values, found = curve.astype(np.float64), {}
    for name, bound in zip(("velocity", "acceleration", "jerk"), bounds, strict=True):
        values = np.diff(values, axis=0) * fps if len(values) else values
        found[name] = _motion(np.abs(values), bound)
    return found


def _motion(size: Array, bound: float) -> Motion:
    if not len(size):
        return Motion(*(np.full(size.shape[1], np.nan) for _ in range(4)))
    # A step exactly at the limit is within it, whatever float rounding says.
    above = (size > bound * (1 + 1e-6)).mean(axis=0)
    return Motion(size.mean(axis=0), np.percentile(size, 95, axis=0), size.max(axis=0), above)


def smoothness(curve: Numbers, *, fps: float = FPS, session: str = "the curve") -> Array:
    """Log dimensionless jerk per unit [A]: higher (nearer to 0) is smoother; independent of amplitude and frame rate.

    -ln(D³ / v² ∫ jerk² dt), D the duration in seconds and v the largest speed. NaN for a unit that does not move and
    for fewer than four frames; +inf for one that moves without any jerk. One movement, not a conversation, is what it
    was made for: compare curves of the same length only.
    """
    require_finite(curve, session=session)
    x = curve.astype(np.float64)
    if len(x) < 4:
        return np.full(x.shape[1], np.nan)
    speed = np.abs(np.diff(x, axis=0)).max(axis=0) * fps
    jerk = np.square(np.diff(x, n=3, axis=0) * float(fps) ** 3).sum(axis=0) / fps
    duration = (len(x) - 1) / fps
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(speed > 0, -np.log(duration**3 / np.square(speed) * jerk), np.nan)
