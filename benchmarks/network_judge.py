"""What a face did about the plans that came, told from outside its controller: freezes, replays, limits, tracking.

Plans follow a script, a smooth function of time; so every commanded pose can be told to be of its moment or of another.
Shapes: T ticks, C channels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.calibration import Calibration, Mixer
from deploy.motion.states import Moment
from deploy.plan import AUPlan
from dyad.clock import FRAME_S

HORIZONS_S = np.arange(9, dtype=np.float64) * FRAME_S
WORST_REPLAY_S = 0.05
"""A commanded pose whose moment is so much past was replayed."""
AT_NEUTRAL = 0.02
"""Share of travel."""
SETTLED_S = 2.0
"""The look-ahead is settled so long after the first plan."""
WITHIN = 1 + 1e-3
"""Shares of a limit that count as kept; commands are timed to the microsecond."""
HOME_WITHIN_S, CLOCK_WITHIN_MS = 1.5, 1000 * FRAME_S / 2
ARRIVED = 0.98
"""Share of the plans that get through where nothing spoils the way."""
Came = list[tuple[float, int, float]]
"""Of every plan that reached the controller: when, its number, when its last row is due."""


class Script:
    """Probabilities [17] as a smooth function of the controller's time, each unit with its own two rhythms."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self._hz, self._phase = rng.uniform(0.15, 0.6, (2, 17)), rng.uniform(0, 6.3, (2, 17))

    def at(self, time_s: NDArray[np.float64]) -> NDArray[np.float32]:
        """[..., 17] at times [...]."""
        waves = np.sin(2 * np.pi * self._hz * np.asarray(time_s)[..., None, None] + self._phase)
        return (0.25 + 0.11 * waves.sum(axis=-2)).astype(np.float32)

    def plan(self, seq: int, captured_s: float, here_s: float) -> AUPlan:
        """The plan of a picture captured at `captured_s` on the loop's clock, `here_s` on the controller's."""
        au = self.at(here_s + HORIZONS_S)
        return AUPlan(seq, captured_s, captured_s + HORIZONS_S, au, np.ones_like(au))


def extremes(calibration: Calibration, moments: list[Moment]) -> dict[str, float]:
    """The fastest that was commanded, as shares of the limits; the way home at the end included."""
    times, sent = np.array([m.now_s for m in moments]), np.array([m.sent for m in moments])
    kept = np.concatenate([[True], np.diff(times) > 1e-4])
    steps, sent = np.diff(times[kept]), sent[kept]
    speed = np.diff(sent, axis=0) / steps[:, None]
    push = np.diff(speed, axis=0) / ((steps[1:] + steps[:-1]) / 2)[:, None]
    v_max, a_max, _ = calibration.limits
    worst = {"worst_velocity": np.abs(speed) / v_max, "worst_acceleration": np.abs(push) / a_max}
    return {name: round(float(x.max()), 4) for name, x in worst.items()}


def judge(calibration: Calibration, script: Script, moments: list[Moment], came: Came) -> dict[str, Any]:
    """What the face did about the plans that had come, told from outside the controller."""
    mixer = Mixer(calibration)

    def wanted(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        return mixer.mix(calibration.intensity(script.at(times_s)))

    began_s = came[0][0] + SETTLED_S
    rows = [m for m in moments if m.now_s >= began_s]
    now_s, target_s = np.array([m.now_s for m in rows]), np.array([m.target_time_s for m in rows])
    goal = np.array([m.goal for m in rows])
    end_s = newest_end_s(now_s, came)
    covered = end_s >= target_s - 1e-6
    still = np.concatenate([[False], np.abs(np.diff(goal, axis=0)).max(axis=1) < 1e-6])
    following = np.array([m.state == "following" for m in rows])
    lags_s = np.arange(-80, 81, dtype=np.float64) * 0.005
    distance = np.abs(goal[:, None] - wanted(target_s[:, None] + lags_s)).mean(axis=2)
    off_s = lags_s[distance.argmin(axis=1)]
    played = covered & following
    sensed = np.array([m.sensed.shares for m in rows if m.sensed is not None])
    felt_s = np.array([m.sensed.time_s for m in rows if m.sensed is not None])
    return {
        "ticks": len(rows),
        "ticks_without_plan": int((end_s < now_s).sum()),
        "ticks_held": int((~following).sum()),
        "frozen_with_plan": int(((still | ~following) & covered & (end_s >= now_s)).sum()),
        "replayed_late": int((off_s[played] < -WORST_REPLAY_S).sum()),
        "off_moment_ms_p99": round(1000 * float(np.quantile(np.abs(off_s[played]), 0.99)), 1),
        "tracking_rms": round(float(np.sqrt(np.mean((sensed - wanted(felt_s)) ** 2))), 4),
    }


def newest_end_s(now_s: NDArray[np.float64], came: Came) -> NDArray[np.float64]:
    """When the newest plan that had come by each moment ends; numbers decide what is newer."""
    ends, k, newest, end_s = [], 0, -1, -np.inf
    for moment_s in now_s:
        while k < len(came) and came[k][0] <= moment_s:
            if came[k][1] > newest:
                newest, end_s = came[k][1], came[k][2]
            k += 1
        ends.append(end_s)
    return np.array(ends)


def home_after_s(moments: list[Moment], came: Came) -> float:
    """From the last plan that came to sensed joints that stay at neutral."""
    last_s = came[-1][0]
    away = [m.now_s for m in moments if m.sensed is not None and np.abs(m.sensed.shares).max() > AT_NEUTRAL]
    return round(away[-1] - last_s, 3)


def verdicts(results: dict[str, dict[str, Any]], clean: Sequence[str], plans: int) -> dict[str, bool]:
    """What is promised of every network, and of those that nothing spoils; `plans` were made for each."""
    rows = list(results.values())
    fastest = [max(row["worst_velocity"], row["worst_acceleration"]) for row in rows]
    errors_ms = [abs(row["clock_error_ms"]) for row in rows if row["clock_error_ms"] is not None]
    return {
        "nothing is frozen while plan remains": not any(row["frozen_with_plan"] for row in rows),
        "nothing is replayed late": not any(row["replayed_late"] for row in rows),
        "no limit is exceeded": max(fastest) <= WITHIN,
        "home 1.5 s after the last plan": max(row["home_after_s"] for row in rows) <= HOME_WITHIN_S,
        "the other clock known within half a frame": all(ms <= CLOCK_WITHIN_MS for ms in errors_ms),
        "98 of 100 plans taken on a clean way": all(results[name]["taken"] >= ARRIVED * plans for name in clean),
    }
