"""Whole curves of every row: are they where they should be in time, and could a robot's motors follow them?

dtw            distance after the best warping, as a root mean square per frame and unit: 0.1 is a tenth of the range
lag            of the best cross-correlation with the listener, ms, > 0: late; all sessions' correlations added up
within a frame share of sessions whose own lag is at most a frame: the chain's delay is made up for
speed …        of intensities after the robot's own calibration, which is what its motors are asked for

Frames without any label are left out; for the motors they are held.
Shapes: T frames, A units, S sessions, R resamples, L lags.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill import scoring
from distill.evidence import Evidence
from distill.scoring import POSITIVE, SIGNED, UNIT, Score
from dyad.clock import FPS
from dyad.config import PRESETS, read_yaml
from dyad.metrics import synchrony
from dyad.metrics.bootstrap import ANYTHING, Resampling
from dyad.metrics.sequence import Limits, motion, smoothness
from dyad.metrics.warping import dtw

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
ROBOTS = PRESETS / "robots"
PIECE = 30 * FPS
"""Frames that are warped at once: longer sessions cost no more per frame, and all are on one scale."""
MAX_LAG = FPS
"""Frames searched on either side."""
SCORES = ("dtw", "lag_ms", "correlation", "within_a_frame", "speed_p95", "speed_above", "acceleration_above",
          "jerk_above", "jerk_p95", "smoothness")  # fmt: skip
RANGES = {"dtw": POSITIVE, "lag_ms": (-1000.0, 1000.0), "correlation": SIGNED, "speed_p95": POSITIVE,
          "jerk_p95": POSITIVE} | dict.fromkeys(("within_a_frame", "speed_above", "acceleration_above", "jerk_above"),
                                                UNIT)  # fmt: skip
FAINT = 0.1
"""Below this correlation a lag says nothing, however sure it is."""
SURE = 3.0
"""Standard errors that a correlation must exceed to be no chance: it is the best of 61."""


@dataclass(frozen=True, kw_only=True)
class Robot:
    """What a robot makes of a probability, and how fast its motors are."""

    name: str
    rest: float
    gain: float
    gamma: float
    limits: Limits

    @classmethod
    def load(cls, name: str) -> "Robot":
        """Read configs/robots/<name>.yaml, or a file of this name."""
        path = Path(name) if name.endswith(".yaml") else ROBOTS / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in ROBOTS.glob("*.yaml")))
            raise ValueError(f"robot {name!r}: {path} is no file; known: {known}; or give a calibration.yaml")
        content = read_yaml(path)
        limits = Limits(
            velocity_per_s=content["velocity_per_s"],
            acceleration_per_s2=content["acceleration_per_s2"],
            jerk_per_s3=content.get("jerk_per_s3", float("inf")),
        )
        return cls(name=content["robot"], limits=limits, **{k: content[k] for k in ("rest", "gain", "gamma")})

    def intensity(self, prob: Floats) -> Floats:
        """Probabilities → intensities in [0, 1], any shape."""
        above = np.clip((prob - self.rest) / (1 - self.rest), 0, 1)
        return np.clip(self.gain * above**self.gamma, 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Track:
    """One row's movement."""

    scores: dict[str, Score]
    lags_ms: list[float]
    """Every session's own lag; NaN where nothing moves."""
    speed: dict[str, list[float]]
    """Per unit: 95th percentile and largest speed, and share of frames above the limit; sessions averaged."""
    fastest: float
    """Largest speed of any unit in any session."""
    noise: float
    """What the best correlation reaches by chance; a lag is told only above it."""
    resampled: dict[str, Array] = field(repr=False)
    """Every resample of the scores, [R]."""

    @property
    def told(self) -> bool:
        """Does the lag say anything?"""
        return self.scores["correlation"].value >= self.noise


@dataclass(frozen=True)
class Movement:
    """Every row's movement, and the robot it is measured against."""

    robot: Robot
    tracks: dict[str, Track]


def movement(
    evidence: Evidence, said: Mapping[str, Sequence[Floats]], horizon: int, over: Resampling, robot: Robot
) -> Movement:
    """Measure every row at one look-ahead."""
    true = [case.true(horizon) for case in evidence.cases]
    ids = [case.session.id for case in evidence.cases]
    return Movement(robot, {name: _track(c, true, ids, over, robot) for name, c in said.items()})


def _track(said: Sequence[Floats], true: Sequence[Floats], ids: Sequence[str], over: Resampling, robot: Robot) -> Track:
    pairs = [annotated(p, y) for p, y in zip(said, true, strict=True)]
    warped = np.array([_warped(p, y) for p, y in pairs])
    curves = np.stack([_correlations(p, y) for p, y in pairs])
    own = np.array([lag_ms(c) for c in curves])
    moved = [_moved(robot.intensity(held(p)), robot.limits, name) for p, name in zip(said, ids, strict=True)]
    speed = np.stack([m[0] for m in moved])  # [S, 3, A]: 95th percentile, largest, share above
    rest = np.stack([m[1] for m in moved])  # [S, 4]: acceleration and jerk above, jerk, smoothness
    weights = np.concatenate([np.ones((1, len(pairs))), over.counts])
    mean = scoring.mean_defined
    series = {
        "dtw": np.sqrt(over_sessions(weights, warped[:, 0]) / over_sessions(weights, warped[:, 1])),
        "lag_ms": np.array([lag_ms(c) for c in over_sessions(weights, curves)]),
        "correlation": _highest(over_sessions(weights, curves)),
        "within_a_frame": over_sessions(weights, np.where(np.isnan(own), np.nan, np.abs(own) <= 1000 / FPS + 1e-9)),
        "speed_p95": over_sessions(weights, mean(speed[:, 0])),
        "speed_above": over_sessions(weights, mean(speed[:, 2])),
        "acceleration_above": over_sessions(weights, rest[:, 0]),
        "jerk_above": over_sessions(weights, rest[:, 1]),
        "jerk_p95": over_sessions(weights, rest[:, 2]),
        "smoothness": over_sessions(weights, rest[:, 3]),
    }
    scores = {n: scoring.score(series[n][0], series[n][1:], over, RANGES.get(n, ANYTHING)) for n in SCORES}
    per_unit = {n: [float(v) for v in mean(speed[:, i].T)] for i, n in enumerate(("p95", "largest", "above"))}
    noise = _noise(curves, sum(len(y) for _, y in pairs))
    resampled = {n: series[n][1:] for n in SCORES}
    return Track(scores, [float(v) for v in own], per_unit, float(speed[:, 1].max()), noise, resampled)


def _noise(curves: Array, frames: int) -> float:
    """Correlation that sessions' curves [S, L] may reach where nothing follows: by their spread, by their length."""
    pooled = over_sessions(np.ones((1, len(curves))), curves)[0]
    if np.isnan(pooled).all():
        return FAINT
    there = curves[:, int(np.nanargmax(pooled))]
    there = there[~np.isnan(there)]
    error = float(there.std(ddof=1)) / np.sqrt(len(there)) if len(there) > 1 else 0.0
    return max(FAINT, SURE * error, SURE / np.sqrt(max(frames, 1)))


def _highest(curves: Array) -> Array:
    """The largest defined value of curves [..., L]; NaN where there is none."""
    return np.fmax.reduce(curves, axis=-1)


def over_sessions(weights: Array, values: Array) -> Array:
    """Weighted mean [R, …] over sessions of values [S, …], what is undefined left out."""
    known = ~np.isnan(values)
    total = scoring.added(weights, np.where(known, values, 0.0))
    count = scoring.added(weights, known.astype(np.float64))
    return np.where(count > 0, total / np.maximum(count, 1e-9), np.nan)


def annotated(said: Floats, true: Floats) -> tuple[Floats, Floats]:
    """Both curves at the units that are annotated anywhere and the frames where those all are."""
    known = ~np.isnan(true)
    units = known.any(axis=0)
    frames = known[:, units].all(axis=1) if units.any() else np.zeros(len(true), bool)
    return said[frames][:, units], true[frames][:, units]


def _warped(said: Floats, true: Floats) -> tuple[float, float]:
    """Sum of squared warped distances over pieces, and the cells they hold; NaN without any."""
    if not true.size:
        return float("nan"), float("nan")
    pieces = [dtw(said[i : i + PIECE], true[i : i + PIECE]) for i in range(0, len(true), PIECE)]
    return float(np.square(pieces).sum()), float(true.size)


def _correlations(said: Floats, true: Floats) -> Array:
    """Pearson's r at every lag [L], averaged over the units that move; NaN beyond a third of the frames, or without."""
    if len(true) < 2 or not true.size:
        return np.full(2 * MAX_LAG + 1, np.nan)
    r = synchrony.correlations(said[None], true, MAX_LAG)
    return synchrony.over_moving(r, said[None], true)[0][0]


def lag_ms(curve: Array) -> float:
    """Lag of the largest correlation of a curve [L]."""
    return float("nan") if np.isnan(curve).all() else float((np.nanargmax(curve) - MAX_LAG) * 1000 / FPS)


def held(curve: Floats) -> Floats:
    """The curve with the last known value where there is none; 0 before the first."""
    known = ~np.isnan(curve)
    last = np.maximum.accumulate(np.where(known, np.arange(len(curve))[:, None], -1), axis=0)
    values = np.take_along_axis(np.nan_to_num(curve), np.maximum(last, 0), axis=0)
    return np.where(last >= 0, values, 0).astype(np.float32)


def _moved(curve: Floats, limits: Limits, session: str) -> tuple[Array, Array]:
    """Of one session: speed per unit [3, A]; acceleration and jerk above the limit, jerk, smoothness, over units [4].

    NaN for the share of a jerk that has no limit.
    """
    found = motion(curve, limits, session=session)
    speed, jerk, smooth = found["velocity"], found["jerk"], smoothness(curve, session=session)
    finite = smooth[np.isfinite(smooth)]
    jerky = float(jerk.above.mean()) if np.isfinite(limits.jerk_per_s3) else float("nan")
    smoothed = float(finite.mean()) if len(finite) else float("nan")
    rest = [float(found["acceleration"].above.mean()), jerky, float(jerk.p95.mean()), smoothed]
    return np.stack([speed.p95, speed.largest, speed.above]), np.array(rest)
