"""How close to the intended moment the simulated head's joints move, for servos of different dead times.

    python -m benchmarks.servo_lag

Plans of a perfect oracle (row h of a plan captured at t is the curve at t + h/30 exactly), the real controller, servos
with inertia, on a clock of its own, so that the machine's load does not enter. Then the same with a step of the dead
time while running; with plans as noisy as a student's: how calm the face is at which lag, for every kind of smoothing,
with the newest plan alone and with all that reach a moment; and what a tick costs. Human tables first, one JSON line
last.  Shapes: T moments, H rows of a plan, A = 17 action units, C channels.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.calibration import Calibration, Mixer
from deploy.motion.config import MotionConfig
from deploy.motion.controller import Controller, Moment
from deploy.plan import AUPlan, Command
from deploy.robots import Feedback
from deploy.robots.sim import SimRobot
from dyad.action_units import SEED17
from dyad.clock import FRAME_S
from dyad.config import as_dict, parse, run_main
from dyad.provenance import run_card, write_json

Array = NDArray[np.float64]
Curve = Callable[[Array], NDArray[np.float32]]
DEAD_TIMES_S = (0.05, 0.1, 0.15, 0.2)
HORIZONS = 9
SETTLED_S = 10.0
"""Not looked at: the delays are being measured."""
GRID_S = 0.005
WINDOW_S = 2.0
"""Of one achieved lag while the servos change."""
ALLOWED_S = 3.0
"""After a change of the servos."""
NOISE = 0.01
"""Standard deviation of a noisy plan's probabilities, from plan to plan and row to row."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How long every run is, and where the figures go."""

    seconds: float = 40.0
    """Of every run."""
    out: Path = Path("benchmarks/results/servo_lag.json")
    """Results file."""


def expressions(seconds: float, seed: int = 0) -> Curve:
    """Probabilities of a busy face, [T] → [T, A]: every unit rises within 0.3–1.2 s, stays, falls, pauses."""
    rng, grid = np.random.default_rng(seed), np.arange(0, seconds + 2, 0.01)
    shown = np.zeros((len(grid), len(SEED17.units)))
    for unit in range(shown.shape[1]):
        at_s = rng.uniform(0, 3)
        while at_s < seconds:
            rise_s, stay_s, fall_s = rng.uniform(0.3, 1.2), rng.uniform(0.2, 1.5), rng.uniform(0.5, 1.5)
            up, down = (grid - at_s) / rise_s, (grid - at_s - rise_s - stay_s) / fall_s
            ramps = 0.5 * np.cos(np.pi * down.clip(0, 1)) - 0.5 * np.cos(np.pi * up.clip(0, 1))
            shown[:, unit] += rng.uniform(0.2, 0.5) * ramps
            at_s += rise_s + stay_s + fall_s + rng.uniform(0.3, 2.5)
    shown = 0.05 + shown
    return lambda t: np.stack([np.interp(t, grid, column) for column in shown.T], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Run:
    """What happened, and the controller that did it."""

    moments: list[Moment]
    tick_us: list[float]
    """Processor time of every tick, without the robot's own."""
    controller: Controller
    calibration: Calibration


class Timed:
    """A robot whose own processor time is known."""

    def __init__(self, robot: SimRobot) -> None:
        self._robot, self.calibration, self.spent_s = robot, robot.calibration, 0.0

    def open(self) -> None:
        """As the robot."""
        self._robot.open()

    def send(self, command: Command, now_s: float) -> Command:
        """As the robot, timed."""
        began = time.thread_time()
        sent = self._robot.send(command, now_s)
        self.spent_s += time.thread_time() - began
        return sent

    def feedback(self, now_s: float) -> Feedback:
        """As the robot, timed."""
        began = time.thread_time()
        felt = self._robot.feedback(now_s)
        self.spent_s += time.thread_time() - began
        return felt

    def release(self) -> None:
        """As the robot."""
        self._robot.release()

    def close(self) -> None:
        """As the robot."""
        self._robot.close()


def play(
    curve: Curve,
    seconds: float,
    dead_time_s: float,
    motion: MotionConfig,
    *,
    late_from_s: float = np.inf,
    noise: float = 0.0,
    half_frame: float = 0.0,
) -> Run:
    """One run; from `late_from_s` on the servos' dead time is 200 ms; `half_frame`: rows are due so much earlier."""
    calibration = dataclasses.replace(Calibration.load("sim"), dead_time_s=dead_time_s)
    head, rng, late = SimRobot(calibration), np.random.default_rng(1), False
    robot, moments, tick_us = Timed(head), list[Moment](), list[float]()
    controller = Controller(robot, motion, watch=moments.append)
    robot.open()
    controller.start(0.0)
    seq = 0
    for tick in range(1, round(seconds * calibration.rate_hz)):
        now_s = tick / calibration.rate_hz
        while seq * FRAME_S <= now_s:
            times_s = FRAME_S * (seq - half_frame + np.arange(HORIZONS, dtype=float))
            rows = curve(times_s) + noise * rng.standard_normal((HORIZONS, len(SEED17.units)))
            rows = np.clip(rows, 0, 1).astype(np.float32)
            controller.offer(AUPlan(seq, seq * FRAME_S, times_s, rows, np.ones_like(rows)), now_s)
            seq += 1
        if now_s >= late_from_s and not late:
            late = True
            head.be_late(DEAD_TIMES_S[-1])
        began, spent_s = time.thread_time(), robot.spent_s
        controller.tick(now_s)
        tick_us.append(1e6 * (time.thread_time() - began - (robot.spent_s - spent_s)))
    robot.close()
    return Run(moments, tick_us, controller, calibration)


def felt(run: Run, from_s: float, to_s: float) -> tuple[Array, Array]:
    """When [T] the sensors were read, and what they said [T, C]."""
    kept = [m.sensed for m in run.moments if m.sensed is not None and from_s <= m.sensed.time_s < to_s]
    return np.array([f.time_s for f in kept]), np.array([f.shares for f in kept])


def intended(run: Run, curve: Curve, at_s: Array) -> Array:
    """Shares [T, C] that the curve means."""
    return Mixer(run.calibration).mix(run.calibration.intensity(curve(at_s)))


def achieved_lag_s(run: Run, curve: Curve, from_s: float, to_s: float) -> float | None:
    """By how much the joints were behind the intended curve: the lag of best correlation of their speeds."""
    when, sensed = felt(run, from_s, to_s)
    grid = np.arange(when[0], when[-1], GRID_S)
    joints = _steps(np.stack([np.interp(grid, when, column) for column in sensed.T], axis=1))
    least, most = round(-0.3 / GRID_S), round(0.4 / GRID_S)
    meant = _steps(intended(run, curve, when[0] + GRID_S * np.arange(-most, len(grid) - least)))
    scores = list[float]()
    for lag in range(least, most):
        then = meant[most - lag : most - lag + len(joints)]
        scores.append(float((then * joints).sum() / np.sqrt((then**2).sum() * (joints**2).sum() + 1e-12)))
    best = min(max(int(np.argmax(scores)), 1), len(scores) - 2)
    left, peak, right = scores[best - 1 : best + 2]
    return GRID_S * (least + best + 0.5 * (left - right) / (left - 2 * peak + right)) if peak > 0.5 else None


def _steps(curve: Array) -> Array:
    return curve[2:] - curve[:-2]


def error(run: Run, curve: Curve, from_s: float, to_s: float) -> float:
    """Root mean squared distance of the joints from the intended curve, in shares of travel."""
    when, sensed = felt(run, from_s, to_s)
    return float(np.sqrt(((sensed - intended(run, curve, when)) ** 2).mean()))


def roughness(run: Run, from_s: float) -> float:
    """Root mean squared acceleration of what was sent, shares/s²."""
    sent = np.array([m.sent for m in run.moments if m.now_s >= from_s])
    return float(np.sqrt((np.diff(sent, 2, axis=0) ** 2).mean()) * run.calibration.rate_hz**2)


def recovery_s(run: Run, curve: Curve, step_s: float) -> float | None:
    """From the step until a window begins, after the worst one, in which the joints are within a frame of intended."""
    begins = step_s + np.arange(0, 2 * ALLOWED_S, 0.25)
    lags = [abs(achieved_lag_s(run, curve, float(b), float(b) + WINDOW_S) or np.inf) for b in begins]
    good = [float(b) for b, lag in zip(begins, lags, strict=True) if b >= begins[np.argmax(lags)] and lag <= FRAME_S]
    return good[0] - step_s if good else None


def dead_times(config: Config, curve: Curve) -> list[dict[str, float | None]]:
    """One row per dead time and per dating of the rows."""
    rows: list[dict[str, float | None]] = []
    names = ("dead ms", "rows reach ms", "motor lag ms", "look-ahead ms", "achieved ms", "rms error")
    print(" ".join(f"{name:>13s}" for name in names))
    for half_frame in (0.0, 0.5):
        for dead_time_s in DEAD_TIMES_S:
            run = play(curve, config.seconds, dead_time_s, MotionConfig(), half_frame=half_frame)
            status, lag_s = run.controller.status(config.seconds), achieved_lag_s(run, curve, SETTLED_S, config.seconds)
            rows.append({
                "dead_time_ms": 1000 * dead_time_s,
                "rows_reach_ms": round(1000 * (HORIZONS - 1 - half_frame) * FRAME_S, 1),
                "motor_lag_ms": round(1000 * status.motor_lag_s, 1),
                "look_ahead_ms": round(1000 * status.look_ahead_s, 1),
                "achieved_lag_ms": _ms(lag_s),
                "rms_error": round(error(run, curve, SETTLED_S, config.seconds), 4),
            })  # fmt: skip
            print(" ".join(f"{value!s:>13s}" for value in rows[-1].values()))
    return rows


def step(config: Config, seeds: int = 6) -> list[dict[str, float | None]]:
    """The dead time goes from 50 to 200 ms while the face moves; several curves."""
    half, rows = config.seconds / 2, list[dict[str, float | None]]()
    print(f"\nstep 50 → 200 ms\n{'recovered s':>11s} {'lag ms from 3 s on':>18s}")
    for seed in range(seeds):
        curve = expressions(config.seconds, seed)
        run = play(curve, config.seconds, DEAD_TIMES_S[0], MotionConfig(), late_from_s=half)
        lag_s = achieved_lag_s(run, curve, half + ALLOWED_S, config.seconds)
        rows.append({"recovered_after_s": recovery_s(run, curve, half), "achieved_lag_ms_after": _ms(lag_s)})
        print("{!s:>11s} {!s:>18s}".format(*rows[-1].values()))
    return rows


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)


def smoothings(config: Config, curve: Curve) -> list[dict[str, Any]]:
    """Noisy plans: every smoothing, the newest plan alone and all blended."""
    rows: list[dict[str, Any]] = []
    names = ("smoothing", "blend ms", "achieved ms", "rms error", "roughness")
    print("\nplans with noise\n" + " ".join(f"{name:>13s}" for name in names))
    for smoothing in ("none", "one-euro", "kalman"):
        for blend_s in (0.0, 0.05):
            run = play(curve, config.seconds, 0.05, MotionConfig(smoothing=smoothing, blend_s=blend_s), noise=NOISE)
            lag_s = achieved_lag_s(run, curve, SETTLED_S, config.seconds)
            rows.append({
                "smoothing": smoothing,
                "blend_ms": 1000 * blend_s,
                "achieved_lag_ms": _ms(lag_s),
                "rms_error": round(error(run, curve, SETTLED_S, config.seconds), 4),
                "roughness_per_s2": round(roughness(run, SETTLED_S), 2),
            })  # fmt: skip
            print(" ".join(f"{value!s:>13s}" for value in rows[-1].values()))
    return rows


def main(argv: list[str] | None = None) -> int:
    """Dead times, step, smoothings, cost."""
    config = parse(Config, argv, prog="python -m benchmarks.servo_lag", description=(__doc__ or "").split("\n")[0])
    curve = expressions(config.seconds)
    result: dict[str, Any] = {"dead_times": dead_times(config, curve), "step": step(config)}
    result["noisy_plans"] = smoothings(config, curve)
    run = play(curve, config.seconds, 0.05, MotionConfig())
    result["tick_us"] = {f"p{p}": round(float(np.percentile(run.tick_us, p)), 1) for p in (50, 95, 99)}
    print(f"\na tick costs {result['tick_us']} µs of processor time, the robot's own not counted")
    result["run"] = run_card(command="python -m benchmarks.servo_lag", config=as_dict(config))
    write_json(config.out, result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    run_main(main)
