"""One run of the real controller on the simulated head's servos, on a clock of its own, and how late its joints were.

Plans are handed over as the loop does it: rows for the coming frames' middles, `SENSE_TO_PLAN_S` after the capture's
end; ticks are when the controller's rhythm says, as the heart's. The machine's load does not enter.
Shapes: T moments, H rows of a plan, A = 17 action units, C channels.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

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

Array = NDArray[np.float64]
Curve = Callable[[Array], NDArray[np.float32]]
"""What is meant at every moment: probabilities [T, A] at times [T]."""
Said = Callable[[int, Array], NDArray[np.float32]]
"""What is known of it at a frame: the plan's rows [H, A] for times [H]."""
HORIZONS = 9
FIRST_ROW_S = -0.5 * FRAME_S
"""A plan's first row is due half a frame before the capture's end: in the middle of the newest frame."""
SENSE_TO_PLAN_S = 0.006
"""From the capture's end until the controller has the plan, on a quiet machine (benchmarks/loop.py)."""
BUSY_S = 0.02
"""The same on a busy one."""
BEGINS_S = 1 / 60
"""The first tick."""
LATEST_S = 0.2
"""Dead time of servos that become late while they run."""
GRID_S = 0.005
WINDOW_S = 2.0
"""Of one achieved lag while the servos change."""
ALLOWED_S = 3.0
"""After a change of the servos."""


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
    hand_over_s: float = SENSE_TO_PLAN_S,
    begins_s: float = BEGINS_S,
) -> Run:
    """One run of an oracle that knows the curve, as `follow`.

    `noise`: standard deviation of the plans' probabilities, from plan to plan and row to row.
    """
    rng = np.random.default_rng(1)

    def said(_: int, times_s: Array) -> NDArray[np.float32]:
        rows = curve(times_s) + noise * rng.standard_normal((len(times_s), len(SEED17.units)))
        return np.clip(rows, 0, 1).astype(np.float32)

    return follow(said, seconds, dead_time_s, motion, late_from_s, hand_over_s, begins_s)


def follow(
    said: Said,
    seconds: float,
    dead_time_s: float,
    motion: MotionConfig,
    late_from_s: float = np.inf,
    hand_over_s: float = SENSE_TO_PLAN_S,
    begins_s: float = BEGINS_S,
) -> Run:
    """One run; from `late_from_s` on the servos are `LATEST_S` late.

    `hand_over_s`: from a capture's end to its plan; `begins_s`: the first tick.
    """
    calibration = dataclasses.replace(Calibration.load("sim"), dead_time_s=dead_time_s)
    head, late, now_s = SimRobot(calibration, dead_time_s=dead_time_s), False, begins_s
    robot, moments, tick_us = Timed(head), list[Moment](), list[float]()
    controller = Controller(robot, motion, watch=moments.append)
    robot.open()
    controller.start(0.0)
    seq = 0
    while now_s < seconds:
        while seq * FRAME_S + hand_over_s <= now_s:
            times_s = FIRST_ROW_S + FRAME_S * (seq + np.arange(HORIZONS, dtype=float))
            rows = said(seq, times_s)
            plan = AUPlan(seq, seq * FRAME_S, times_s, rows, np.ones_like(rows))
            controller.offer(plan, seq * FRAME_S + hand_over_s)
            seq += 1
        if now_s >= late_from_s and not late:
            late = True
            head.be_late(LATEST_S)
        began, spent_s = time.thread_time(), robot.spent_s
        controller.tick(now_s)
        tick_us.append(1e6 * (time.thread_time() - began - (robot.spent_s - spent_s)))
        now_s = controller.rhythm.after(now_s)
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
