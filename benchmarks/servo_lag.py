"""How close to the intended moment the simulated head's joints move, for servos of different dead times.

    python -m benchmarks.servo_lag

Plans of a perfect oracle (every row is the curve at its own time), the real controller, servos with inertia, plans
handed over as late as the loop's are, on several curves and from several first ticks: the median and the worst. Then
the same with a step of the dead time while running; with noisy plans: what it costs in error and calm, by dead time, by
kind of smoothing, with the newest plan alone and with all that reach a moment; with the plans of the packaged student
on a clip; and what a tick costs. Human tables first, one JSON line last; exit status 1 when a promise is not kept.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import servo_student
from benchmarks.repeating import settings
from benchmarks.servo_play import (
    ALLOWED_S,
    BEGINS_S,
    BUSY_S,
    FIRST_ROW_S,
    HORIZONS,
    SENSE_TO_PLAN_S,
    Run,
    achieved_lag_s,
    error,
    expressions,
    play,
    recovery_s,
    roughness,
)
from deploy.motion.config import MotionConfig
from deploy.run import ASSETS
from dyad.clock import FRAME_S
from dyad.config import parse, run_main
from dyad.provenance import run_card, write_json

DEAD_TIMES_S = (0.05, 0.1, 0.15, 0.2)
SETTLED_S = 10.0
"""Not looked at: the delays are being measured."""
NOISES = (0.003, 0.01)
"""Standard deviations of noisy plans' probabilities."""
LATER_S = 0.0029
"""From one curve's first tick to the next one's: all ways in which ticks may lie to plans."""
REACH_MS = round(1000 * ((HORIZONS - 1) * FRAME_S + FIRST_ROW_S), 1)
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Config:
    """How long and how many the runs are, and where the figures go."""

    seconds: float = 40.0
    """Of every run."""
    seeds: int = 6
    """Curves of every dead time."""
    engine: Path = ASSETS / "engine"
    """The student whose plans are followed, too."""
    clips: tuple[Path, ...] = (ASSETS / "clip.mp4",)
    """What it sees and hears."""
    out: Path = Path("benchmarks/results/servo_lag.json")
    """Results file."""


def dead_times(config: Config, hand_over_s: float) -> list[Row]:
    """One row per dead time: the median of the curves, and the worst lag."""
    print(f"\nplans {1000 * hand_over_s:.0f} ms after the capture's end, {config.seeds} curves")
    return _table([_dead_time(config, dead_time_s, hand_over_s) for dead_time_s in DEAD_TIMES_S])


def _dead_time(config: Config, dead_time_s: float, hand_over_s: float) -> Row:
    curves = [expressions(config.seconds, seed) for seed in range(config.seeds)]
    runs = [
        play(
            curve, config.seconds, dead_time_s, MotionConfig(), hand_over_s=hand_over_s, begins_s=BEGINS_S + LATER_S * i
        )
        for i, curve in enumerate(curves)
    ]
    told = [run.controller.status(config.seconds) for run in runs]
    found = list(zip(runs, curves, strict=True))
    lags_ms = [_ms(achieved_lag_s(run, curve, SETTLED_S, config.seconds)) for run, curve in found]
    known = [lag for lag in lags_ms if lag is not None]
    return {
        "dead_time_ms": 1000 * dead_time_s,
        "hand_over_ms": 1000 * hand_over_s,
        "rows_reach_ms": REACH_MS,
        "motor_lag_ms": _middle([1000 * status.motor_lag_s for status in told], 1),
        "look_ahead_ms": _middle([1000 * status.look_ahead_s for status in told], 1),
        "achieved_lag_ms": _middle(known, 1) if known else None,
        "worst_lag_ms": max(known, key=abs) if len(known) == len(lags_ms) else None,
        "rms_error": _middle([error(run, curve, SETTLED_S, config.seconds) for run, curve in found], 4),
        "roughness_per_s2": _middle([roughness(run, SETTLED_S) for run in runs], 2),
    }


def step(config: Config) -> list[Row]:
    """The dead time goes from 50 to 200 ms while the face moves, each curve at another moment of its own."""
    rows = list[Row]()
    for hand_over_s in (SENSE_TO_PLAN_S, BUSY_S):
        for seed in range(config.seeds):
            curve, at_s, begins_s = expressions(config.seconds, seed), config.seconds / 2 + 0.37 * seed, LATER_S * seed
            run = play(
                curve,
                config.seconds,
                DEAD_TIMES_S[0],
                MotionConfig(),
                late_from_s=at_s,
                hand_over_s=hand_over_s,
                begins_s=BEGINS_S + begins_s,
            )
            after = {"recovered_after_s": recovery_s(run, curve, at_s)}
            lag_ms = _ms(achieved_lag_s(run, curve, at_s + ALLOWED_S, config.seconds))
            rows.append({"hand_over_ms": 1000 * hand_over_s, **after, "achieved_lag_ms_after": lag_ms})
    print(f"\nstep 50 → 200 ms: within a frame again after so long, and the lag from {ALLOWED_S:.0f} s on")
    return _table(rows)


def noisy(config: Config) -> list[Row]:
    """What noise of the plans costs, by dead time."""
    curve, rows = expressions(config.seconds), list[Row]()
    for dead_time_s in DEAD_TIMES_S:
        for noise in NOISES:
            run = play(curve, config.seconds, dead_time_s, MotionConfig(), noise=noise)
            rows.append({"dead_time_ms": 1000 * dead_time_s, "noise": noise, **_quality(config, run, curve)})
    print("\nplans with noise")
    return _table(rows)


def smoothings(config: Config) -> list[Row]:
    """The noisiest plans: every smoothing, the newest plan alone and all blended."""
    curve, rows = expressions(config.seconds), list[Row]()
    for smoothing in ("none", "one-euro", "kalman"):
        for blend_s in (0.0, 0.05):
            motion = MotionConfig(smoothing=smoothing, blend_s=blend_s)
            run = play(curve, config.seconds, DEAD_TIMES_S[0], motion, noise=NOISES[-1])
            rows.append({"smoothing": smoothing, "blend_ms": 1000 * blend_s, **_quality(config, run, curve)})
    print(f"\nplans with noise {NOISES[-1]}, by smoothing")
    return _table(rows)


def students(config: Config) -> list[Row]:
    """What a student's own plans are worth at the joints, by dead time."""
    rows = list[Row]()
    for clip in config.clips:
        plans = servo_student.plans_of(config.engine, clip, config.seconds)
        rows += servo_student.rows_of(plans, clip.name, DEAD_TIMES_S)
    print("\nthe student's plans: the joints against what it said of every moment in the end")
    return _table(rows)


def _quality(config: Config, run: Run, curve: Callable[..., Any]) -> Row:
    return {
        "achieved_lag_ms": _ms(achieved_lag_s(run, curve, SETTLED_S, config.seconds)),
        "rms_error": round(error(run, curve, SETTLED_S, config.seconds), 4),
        "roughness_per_s2": round(roughness(run, SETTLED_S), 2),
    }


def _table(rows: list[Row]) -> list[Row]:
    print(" ".join(f"{name:>21s}" for name in rows[0]))
    for row in rows:
        print(" ".join(f"{value!s:>21s}" for value in row.values()))
    return rows


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)


def _middle(values: list[float], digits: int) -> float:
    return round(float(np.median(values)), digits)


def verdicts(found: dict[str, Any]) -> dict[str, bool]:
    """What is promised of the servos, and whether it was so."""
    kept = {
        f"on every curve within a frame of the intended moment at {row['dead_time_ms']:.0f} ms of dead time, plans "
        f"{row['hand_over_ms']:.0f} ms old": row["worst_lag_ms"] is not None
        and abs(row["worst_lag_ms"]) <= 1000 * FRAME_S
        for row in (*found["dead_times"], *found["dead_times_busy"])
    }
    back = [row["recovered_after_s"] for row in found["step"]]
    calm = {(row["smoothing"], row["blend_ms"] > 0): row["roughness_per_s2"] for row in found["noisy_plans"]}
    return kept | {
        f"within a frame again {ALLOWED_S:.0f} s after a step of the dead time": all(
            after is not None and after <= ALLOWED_S for after in back
        ),
        "plans blended are calmer than the newest alone": all(
            calm[name, True] < calm[name, False] for name, blended in calm if blended
        ),
    }


def main(argv: list[str] | None = None) -> int:
    """Dead times, step, noise, smoothings, cost; 1 when a promise is not kept."""
    config = parse(Config, argv, prog="python -m benchmarks.servo_lag", description=(__doc__ or "").split("\n")[0])
    result: dict[str, Any] = {
        "dead_times": dead_times(config, SENSE_TO_PLAN_S),
        "dead_times_busy": dead_times(config, BUSY_S),
        "step": step(config),
        "noise_by_dead_time": noisy(config),
        "noisy_plans": smoothings(config),
        "student": students(config),
    }
    run = play(expressions(config.seconds), config.seconds, DEAD_TIMES_S[0], MotionConfig())
    result["tick_us"] = {f"p{p}": round(float(np.percentile(run.tick_us, p)), 1) for p in (50, 95, 99)}
    print(f"\na tick costs {result['tick_us']} µs of processor time, the robot's own not counted")
    result["verdicts"] = verdicts(result)
    for promise, kept in result["verdicts"].items():
        print(f"{'kept' if kept else 'NOT kept'}: {promise}")
    plain = settings(config) | {"clips": [clip.name for clip in config.clips]}
    result["run"] = run_card(command="python -m benchmarks.servo_lag", config=plain)
    write_json(config.out, result)
    print(json.dumps(result))
    return 0 if all(result["verdicts"].values()) else 1


if __name__ == "__main__":
    run_main(main)
