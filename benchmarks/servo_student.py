"""How the joints follow a student's own plans: what a look-ahead is worth when the plans are only as good as they are.

The packaged student hears and sees a clip; what it says of every moment in the end, in the row for the newest frame, is
what the joints are compared with. A plan's later rows are guesses of that, and what lies beyond them is guessed again:
so each servo is driven as it is, with the rows only, and without looking ahead.
Shapes: T frames, H rows of a plan, A = 17 action units, C channels.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.repeating import Repeating
from benchmarks.servo_play import (
    FIRST_ROW_S,
    Array,
    Curve,
    Run,
    achieved_lag_s,
    error,
    felt,
    follow,
    intended,
    roughness,
)
from deploy import engines
from deploy.loop import Loop
from deploy.motion.config import MotionConfig
from deploy.motion.states import Status
from deploy.plan import AUPlan
from dyad.clock import FPS, FRAME_S, FakeClock

Plans = NDArray[np.float32]
SETTLED_S, END_S = 4.0, 0.5
"""Not looked at: the delays are being measured; the last plans' end."""
MOVES = 0.01
"""Standard deviation [shares] from which a channel counts in the mean correlation."""
WAYS = {
    "as it is": MotionConfig(),
    "rows only": MotionConfig(beyond_s=0.0),
    "not ahead": MotionConfig(longest_look_ahead_s=0.0),
}


class _Kept:
    """A link to nowhere that keeps the plans."""

    def __init__(self) -> None:
        self.rows: list[Plans] = []

    def open(self, now_s: float) -> None:
        """Nothing to open."""

    def deliver(self, plan: AUPlan | None) -> None:
        """Keep it; a frame without one repeats the last."""
        self.rows.append(self.rows[-1] if plan is None else plan.au)

    def stop(self, reason: str) -> None:
        """Nothing moves."""

    def status(self) -> Status | None:
        """Nothing is known."""
        return None

    def close(self, home: bool) -> None:
        """Nothing to close."""


def plans_of(engine: Path, clip: Path, seconds: float) -> Plans:
    """Plans [T, H, A] of a student on a clip, again and again for so long."""
    loaded, kept = engines.load(engine), _Kept()
    source = Repeating(clip, loaded.manifest.spec, round(seconds * FPS))
    try:
        source.wait_until_ready()
        Loop(loaded, kept, FakeClock()).run(source)
    finally:
        source.close()
    return np.stack(kept.rows)


def finally_said(plans: Plans) -> Curve:
    """What the student said of every moment at the moment itself."""
    times_s = FIRST_ROW_S + FRAME_S * np.arange(len(plans))
    return lambda at_s: np.stack([np.interp(at_s, times_s, unit) for unit in plans[:, 0].T], axis=-1).astype(np.float32)


def drive(plans: Plans, dead_time_s: float, motion: MotionConfig) -> Run:
    """One run on plans as they are."""
    return follow(lambda seq, _: plans[min(seq, len(plans) - 1)], len(plans) * FRAME_S, dead_time_s, motion)


def agreement(run: Run, curve: Curve, from_s: float, to_s: float) -> float:
    """Mean correlation of the channels that move with what was meant."""
    when, sensed = felt(run, from_s, to_s)
    meant: Array = intended(run, curve, when)
    moving = np.flatnonzero(meant.std(axis=0) > MOVES)
    return float(np.mean([np.corrcoef(meant[:, c], sensed[:, c])[0, 1] for c in moving]))


def rows_of(plans: Plans, name: str, dead_times_s: tuple[float, ...]) -> list[dict[str, Any]]:
    """One row per dead time and way."""
    curve, to_s = finally_said(plans), len(plans) * FRAME_S - END_S
    return [
        {"clip": name, "dead_time_ms": 1000 * dead_time_s, "way": way}
        | _quality(drive(plans, dead_time_s, motion), curve, to_s)
        for dead_time_s in dead_times_s
        for way, motion in WAYS.items()
    ]


def _quality(run: Run, curve: Curve, to_s: float) -> dict[str, Any]:
    lag_s = achieved_lag_s(run, curve, SETTLED_S, to_s)
    return {
        "correlation": round(agreement(run, curve, SETTLED_S, to_s), 3),
        "rms_error": round(error(run, curve, SETTLED_S, to_s), 4),
        "roughness_per_s2": round(roughness(run, SETTLED_S), 1),
        "lag_ms": None if lag_s is None else round(1000 * lag_s, 1),
    }
