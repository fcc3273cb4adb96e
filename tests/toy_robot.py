"""A robot of five channels for the controller's tests: its motors are late by a fixed time, and its wire can break."""

import dataclasses
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from deploy.calibration import Calibration, Channel
from deploy.plan import AUPlan, Command
from deploy.robots import Feedback, RobotLost
from dyad.action_units import SEED17

HORIZONS = 9
Path = list[tuple[float, NDArray[np.float64]]]
"""What was sent when: seconds, shares [C]."""
CALIBRATION = Calibration(
    robot="toy",
    dead_time_s=0.05,
    time_constant_s=0.02,
    rest=0.0,
    gain=1.0,
    gamma=1.0,
    velocity_per_s=6.0,
    acceleration_per_s2=80.0,
    jerk_per_s3=3000.0,
    channels={
        "brow": Channel(low=-1.0, high=1.0),
        "lid": Channel(low=0.0, high=1.0),
        "corner": Channel(low=-1.0, high=1.0, velocity_per_s=10.0, acceleration_per_s2=200.0, jerk_per_s3=9000.0),
        "jaw": Channel(low=0.0, high=1.0, max_hold_s=1.0, hold_above=0.6),
        "neck": Channel(low=-1.0, high=1.0, velocity_per_s=3.0, acceleration_per_s2=20.0, jerk_per_s3=200.0),
    },
    au={
        "AU1": {"brow": 1.0},
        "AU4": {"brow": -1.0},
        "AU5": {"lid": 1.0},
        "AU12": {"corner": 1.0},
        "AU15": {"corner": -1.0},
        "AU26": {"jaw": 1.0},
        "AU25": {"neck": 1.0},
    },
)


class ToyRobot:
    """Remembers what it was sent; its sensors say what was sent `lag_s` ago."""

    def __init__(self, calibration: Calibration = CALIBRATION, *, lag_s: float = 0.07, senses: bool = True) -> None:
        self.calibration, self.lag_s, self.senses = calibration, lag_s, senses
        self.pose = np.zeros(len(calibration.names))
        """Before anything was sent."""
        self.sent: Path = []
        self.opened = self.released = self.closed = 0
        self.broken = self.shut = False

    def open(self) -> None:
        self.opened += 1
        if self.broken or self.shut:
            raise ValueError("toy: nobody answers; switch it on")

    def send(self, command: Command, now_s: float) -> Command:
        if self.broken:
            raise RobotLost("toy: gone")
        self.sent.append((now_s, command.shares.copy()))
        return command

    def feedback(self, now_s: float) -> Feedback | None:
        if self.broken:
            raise RobotLost("toy: gone")
        return Feedback(now_s, self.at(now_s), self.at(now_s)) if self.senses else None

    def at(self, now_s: float) -> NDArray[np.float64]:
        """Where the motors are."""
        there = [shares for at_s, shares in self.sent[-60:] if at_s <= now_s - self.lag_s]
        return there[-1] if there else self.pose

    def release(self) -> None:
        self.released += 1

    def close(self) -> None:
        self.closed += 1


def face(**units: float) -> NDArray[np.float32]:
    """Probabilities [A] of named units."""
    au = np.zeros(len(SEED17.units), np.float32)
    for name, value in units.items():
        au[SEED17.index(name)] = value
    return au


def plan_of(rows: NDArray[np.float32], seq: int, captured_at_s: float, **change: object) -> AUPlan:
    """A sound plan of rows [H, A] (or one row [A] for all horizons), one frame apart; `change` may spoil it."""
    au = np.broadcast_to(rows, (HORIZONS, len(SEED17.units))).astype(np.float32)
    plan = AUPlan(seq, captured_at_s, captured_at_s + np.arange(len(au)) / 30, au, np.ones_like(au))
    return dataclasses.replace(plan, **change)  # type: ignore[arg-type]


def exceeded(path: Path, calibration: Calibration = CALIBRATION) -> tuple[float, float, float]:
    """Largest speed, acceleration and jerk of a path, as parts of the limits: over 1 means exceeded.

    Divided differences of order n over uneven times equal the n-th derivative, averaged; so for a motion within its
    limits they never exceed them, whatever the ticks.
    """
    at_s, level = np.array([t for t, _ in path]), np.array([x for _, x in path])
    most = []
    for order, limit in enumerate(calibration.limits, start=1):
        level = level[1:] - level[:-1]
        level = order * level / (at_s[order:] - at_s[:-order])[:, None]
        most.append(float((np.abs(level) / limit).max(initial=0.0)))
    return most[0], most[1], most[2]


def unbroken(path: Path, longest_s: float) -> list[Path]:
    """A path cut where nothing was sent for longer than `longest_s`."""
    parts = [path[:1]]
    for before, after in pairwise(path):
        if after[0] - before[0] > longest_s:
            parts.append([])
        parts[-1].append(after)
    return parts
